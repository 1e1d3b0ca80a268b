//! `[servers.NAME]`: one MCP server, with what contradicts itself in it.

use std::sync::OnceLock;

use toml::de::DeTable;

use super::exchange::{self, Chosen};
use super::reader::{Reader, Section};
use super::{Config, client, identities, insecure, is_name, keys, outer, own_user};
use crate::broker::{Client, ClientAuth, DEFAULT, ResourceParameter, Server};
use crate::digest::{Digest, Fields};
use crate::env::Env;
use crate::exchange::{Asks, Exchange, Place, Traits, USUAL, reserved};
use crate::oauth::{Issuer, Resource, Scopes, ServerUrl};
use crate::outbound::NamedBy;
use crate::policy::{Policy, Rule, WantedUnit};

pub(super) fn servers_of<'a>(reader: &mut Reader<'a>, servers: &'a DeTable<'a>, env: &Env, config: &mut Config) {
    for (name, value) in servers {
        let (name, at) = (name.get_ref().as_ref(), name.span().start);
        let path = format!("servers.{name}");
        let line = reader.line(at);
        if !is_name(name) {
            reader.problem(line, &path, "a name has letters, digits, `-`, `_` and `.`, at most 64");
        }
        match value.get_ref().as_table() {
            Some(table) => {
                let section = reader.section(&path, at, table, &keys::SERVER, &exchange::key_names(Place::Server));
                let Some(mut server) = server_of(reader, name, &section, env) else { continue };
                if let Some((outer, front_door)) = outer::outer_of(reader, &section, &server) {
                    server.outer = Some(outer);
                    config.servers.push(front_door);
                }
                config.servers.push(server);
            }
            None => reader.problem(line, &path, format!("must be a table: [servers.{name}]")),
        }
    }
}

#[expect(
    clippy::too_many_lines,
    reason = "one line a key of a server; ends when exchange and order are types of their own"
)]
fn server_of<'a>(reader: &mut Reader<'a>, name: &str, section: &Section<'a>, env: &Env) -> Option<Server> {
    let url = match section.text("url") {
        Some((text, line)) => {
            insecure(reader, line, &section.key("url"), text);
            ServerUrl::parse(text).map_err(|why| reader.problem(line, &section.key("url"), why.to_string())).ok()
        }
        None if section.has("url") => None,
        None => {
            reader.problem(section.line, &section.key("url"), "missing: the MCP endpoint");
            None
        }
    };
    let issuer = section.text("issuer").and_then(|(text, line)| {
        insecure(reader, line, &section.key("issuer"), text);
        Issuer::parse(text).map_err(|why| reader.problem(line, &section.key("issuer"), why.to_string())).ok()
    });
    let client = client::client_of(reader, section);
    let exchange = exchange::of_server(reader, section, Place::Server, &client);
    let client = exchange.known().map_or_else(|| client.clone(), |exchange| exchange.client(client.clone()));
    let traits = exchange.known().map_or_else(|| USUAL.traits(), |exchange| exchange.traits());
    contradictions(reader, section, &exchange, &traits, &client);
    let provider = match &traits.asks {
        Asks::Provider(provider) => Some(provider),
        Asks::Discovered | Asks::Nobody => None,
    };
    let issuer = issuer.or_else(|| provider.map(|provider| provider.issuer.clone()));
    let ceiling = scopes_of(reader, section, "scopes");
    let tolerate = scopes_of(reader, section, "tolerate_scopes").unwrap_or_default();
    let idp = reader.nested(section, "idp", &keys::IDP, &exchange::key_names_of_idp());
    let idp = idp.and_then(|section| identities::idp_of(reader, &section));
    let token_endpoint = identities::endpoint_of(reader, section);
    let token_endpoint = token_endpoint.or_else(|| provider.map(|provider| provider.token_endpoint.clone()));
    let resource = match section.text("resource") {
        // None of them knows the parameter (RFC 8707), and some refuse it.
        None if provider.is_some() => ResourceParameter::Omitted,
        None => ResourceParameter::FromMetadata,
        Some(("", _)) => ResourceParameter::Omitted,
        Some((text, line)) => {
            if let Err(why) = Resource::parse(text) {
                reader.problem(line, &section.key("resource"), why.to_string());
            }
            ResourceParameter::Fixed(Resource::verbatim(text))
        }
    };
    let allow = allow_of(reader, section, env);
    if !traits.limits_scopes && allow.iter().any(|rule| rule.scopes.is_some()) {
        let what =
            "an entry has `scopes`, which limit nothing with this exchange: whoever is let in gets the whole of it";
        reader.problem(section.line_of("allow"), &section.key("allow"), what);
    }
    let text = |key: &str| section.text(key).map(|(text, _)| text.to_owned());
    let conventional = provider.map(|provider| provider.subject_audience.clone());
    let subject_audience = text("subject_audience").or(conventional);
    Some(Server {
        name: name.into(),
        url: url?,
        issuer,
        trust_discovered_issuer: section.flag("trust_discovered_issuer"),
        policy: Policy { allow, ceiling, tolerate },
        exchange: exchange.known().cloned(),
        token_endpoint,
        identity: section.text("identity").map_or(DEFAULT, |(name, _)| name).into(),
        identity_fields: Fields::default(),
        client,
        idp,
        dpop: section.maybe_flag("dpop"),
        audience: text("audience"),
        subject_audience,
        resource,
        extra: extra_of(reader, section),
        required: section.flag("required"),
        revoke_on_exit: section.flag("revoke_on_exit"),
        rate: section.rate("rate"),
        outer: None,
        is_outer: false,
        named_by: NamedBy::Us,
        usual_key: OnceLock::new(),
    })
}

fn scopes_of(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<Scopes> {
    let (list, line) = section.texts(key)?;
    Scopes::from_list(list.iter().map(String::as_str))
        .map_err(|why| reader.problem(line, &section.key(key), why.to_string()))
        .ok()
}

/// Rejects contradictory keys, and keys that would send replayable data to an issuer that is not pinned.
fn contradictions(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    exchange: &Chosen<dyn Exchange>,
    traits: &Traits,
    client: &Client,
) {
    if matches!(exchange, Chosen::Wrong) {
        return;
    }
    if section.has("idp") && !traits.needs_idp {
        let what = "has no effect without `exchange = \"id-jag\"`";
        reader.problem(section.line_of("idp"), &section.key("idp"), what);
    }
    if traits.asks != Asks::Discovered || section.has("issuer") {
        return;
    }
    let keys =
        ["client_id", "client_metadata", "register", "token_endpoint", "idp", "audience", "subject_audience", "extra"];
    let named = keys.into_iter().filter(|key| section.has(key));
    let by_value = [("client_auth", client.auth != ClientAuth::None), ("exchange", traits.needs_pin)];
    for key in named.chain(by_value.into_iter().filter(|(_, so)| *so).map(|(key, _)| key)) {
        let what = "needs `issuer`: without a pin it would be sent to whoever the server names";
        reader.problem(section.line_of(key), &section.key(key), what);
    }
}

fn extra_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<(String, String)> {
    let Some((pairs, line)) = section.pairs("extra") else { return Vec::new() };
    let set = reserved();
    for (name, _) in pairs.iter().filter(|(name, _)| set.contains(&name.as_str())) {
        reader.problem(line, &section.key("extra"), format!("{name:?} is set by the exchange itself or is a secret"));
    }
    pairs.to_vec()
}

fn allow_of<'a>(reader: &mut Reader<'a>, section: &Section<'a>, env: &Env) -> Vec<Rule> {
    let Some(entries) = reader.rules(section) else { return own_user(env) };
    if entries.is_empty() {
        reader.problem(
            section.line_of("allow"),
            &section.key("allow"),
            "an empty list lets nobody in; omit it for the daemon's own user",
        );
    }
    let mut rules = Vec::new();
    for entry in &entries {
        let rule = rule_of(reader, entry, env);
        // A key of a later version was reported already; an entry must not become wider by its absence.
        if !NAMING.iter().any(|key| entry.has(key)) {
            let named = NAMING.map(|key| format!("`{key}`")).join(", ");
            reader.problem(entry.line, &entry.path, format!("an entry needs at least one of {named}"));
        }
        rules.push(rule);
    }
    rules
}

/// The keys of an entry that say who is meant.
const NAMING: [&str; 5] = ["uid", "gid", "exe", "sha256", "unit"];

fn rule_of(reader: &mut Reader<'_>, entry: &Section<'_>, env: &Env) -> Rule {
    let (uid, gid) = (entry.number("uid"), entry.number("gid"));
    let exe = entry.text("exe").map(|(path, line)| {
        // The kernel names what runs by its whole path; one of ours must be comparable.
        if !path.starts_with('/') || path.ends_with('/') || path.split('/').any(|part| part == "." || part == "..") {
            reader.problem(line, &entry.key("exe"), format!("{path:?} is no absolute path of a program"));
        }
        path.into()
    });
    let sha256 = entry.text("sha256").and_then(|(text, line)| {
        let digest = Digest::parse_hex(text);
        if digest.is_none() {
            let what = "not the 64 hexadecimal digits of a SHA-256, as `sha256sum` prints them";
            reader.problem(line, &entry.key("sha256"), what);
        }
        digest
    });
    let unit = entry.text("unit").and_then(|(name, line)| {
        let unit = WantedUnit::parse(name, uid.unwrap_or_else(|| env.uid()));
        unit.map_err(|what| reader.problem(line, &entry.key("unit"), what)).ok()
    });
    Rule { uid, gid, exe, sha256, unit, scopes: scopes_of(reader, entry, "scopes") }
}
