//! `[servers.NAME]`: one MCP server, with what contradicts itself in it.

use std::sync::OnceLock;

use toml::de::DeTable;

use super::reader::{Reader, Section};
use super::{Config, client, identities, insecure, is_name, keys, outer, own_user, provider};
use crate::broker::{Client, ClientAuth, DEFAULT, Link, Provider, ResourceParameter, Server, Yield};
use crate::digest::{Digest, Fields};
use crate::env::Env;
use crate::exchange;
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
                let section = reader.section(&path, at, table, &keys::SERVER, &[]);
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
    let provider = provider::provider_of(reader, section);
    let issuer = issuer.or_else(|| provider.as_ref().map(Provider::issuer));
    let ceiling = scopes_of(reader, section, "scopes");
    let tolerate = scopes_of(reader, section, "tolerate_scopes").unwrap_or_default();
    let exchange = exchange_of(reader, section);
    let client = provider::client(client::client_of(reader, section), provider.as_ref());
    contradictions(reader, section, exchange.as_deref(), &client);
    provider::check_gcp(reader, section);
    provider::entra_of_server(reader, section, provider.as_ref(), &client);
    let idp = reader.nested(section, "idp", &keys::IDP).and_then(|section| idp_of(reader, &section));
    let token_endpoint = identities::endpoint_of(reader, section);
    let token_endpoint = token_endpoint.or_else(|| provider.as_ref().map(Provider::token_endpoint));
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
    let is_identity = exchange.as_deref() == Some("gcp") && section.has("audience");
    let unlimited = matches!(exchange.as_deref(), Some("direct" | "aws-sigv4")) || is_identity;
    if unlimited && allow.iter().any(|rule| rule.scopes.is_some()) {
        let what =
            "an entry has `scopes`, which limit nothing with this exchange: whoever is let in gets the whole of it";
        reader.problem(section.line_of("allow"), &section.key("allow"), what);
    }
    let text = |key: &str| section.text(key).map(|(text, _)| text.to_owned());
    let conventional = provider.as_ref().map(|one| provider::subject_audience(section, one, &client));
    let subject_audience = text("subject_audience").or(conventional);
    Some(Server {
        name: name.into(),
        url: url?,
        issuer,
        trust_discovered_issuer: section.flag("trust_discovered_issuer"),
        policy: Policy { allow, ceiling, tolerate },
        exchange,
        token_endpoint,
        identity: section.text("identity").map_or(DEFAULT, |(name, _)| name).into(),
        identity_fields: Fields::default(),
        client,
        provider,
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

fn idp_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Link> {
    if let Some((_, line)) = section.text("exchange") {
        reader.problem(line, &section.key("exchange"), "is always token exchange here; take it out");
    }
    identities::link_of(reader, section, Yield::IdJag)
}

fn scopes_of(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<Scopes> {
    let (list, line) = section.texts(key)?;
    Scopes::from_list(list.iter().map(String::as_str))
        .map_err(|why| reader.problem(line, &section.key(key), why.to_string()))
        .ok()
}

fn exchange_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<String> {
    let (name, line) = section.text("exchange")?;
    if exchange::link::CHANGES.contains(&name) && exchange::row(name).is_none() {
        let what = format!(
            "{name:?} changes an identity and gives no access token: put it into a link, \
            `[identities.NAME]` with `from`, and name that with `identity`"
        );
        reader.problem(line, &section.key("exchange"), what);
        return None;
    }
    if exchange::row(name).is_none() {
        let known: Vec<&str> = exchange::EXCHANGES.iter().map(|row| row.name).collect();
        reader.problem(
            line,
            &section.key("exchange"),
            format!("{name:?} is not known or not built in this version; it knows: {}", known.join(", ")),
        );
        return None;
    }
    Some(name.to_owned())
}

/// What contradicts itself, and what without a pin would go to whoever the server names, who could replay it elsewhere.
fn contradictions(reader: &mut Reader<'_>, section: &Section<'_>, exchange: Option<&str>, client: &Client) {
    if exchange == Some("client-credentials") && client.auth == ClientAuth::None {
        let what = "\"client-credentials\" needs `client_auth`: a client that proves nothing gets nothing";
        reader.problem(section.line_of("exchange"), &section.key("exchange"), what);
    }
    if client.auth == ClientAuth::Workload && matches!(exchange, None | Some("jwt-bearer")) {
        let what = "\"workload\" would send one JWT as grant and as proof, and a server may take it only once; \
            set `exchange = \"client-credentials\"`";
        reader.problem(section.line_of("client_auth"), &section.key("client_auth"), what);
    }
    if client.auth == ClientAuth::Workload && exchange == Some("id-jag") {
        let what =
            "\"workload\" would show the ID-JAG, which is the grant, as proof of the client too; use another proof";
        reader.problem(section.line_of("client_auth"), &section.key("client_auth"), what);
    }
    match (exchange, section.has("idp")) {
        (Some("id-jag"), false) => {
            let what = "\"id-jag\" needs `idp`: the identity provider that says what may be had";
            reader.problem(section.line_of("exchange"), &section.key("exchange"), what);
        }
        (Some("id-jag"), true) | (_, false) => {}
        (_, true) => {
            let what = "has no effect without `exchange = \"id-jag\"`";
            reader.problem(section.line_of("idp"), &section.key("idp"), what);
        }
    }
    if exchange == Some("direct") {
        direct(reader, section);
        return;
    }
    if exchange == Some("aws-sigv4") {
        signed(reader, section);
    }
    if !section.has("issuer") && !exchange.is_some_and(provider::is_one) {
        unpinned(reader, section, exchange, client);
    }
}

/// Without a pin it would go to whoever the server names, who could replay it elsewhere.
fn unpinned(reader: &mut Reader<'_>, section: &Section<'_>, exchange: Option<&str>, client: &Client) {
    let keys =
        ["client_id", "client_metadata", "register", "token_endpoint", "idp", "audience", "subject_audience", "extra"];
    let named = keys.into_iter().filter(|key| section.has(key));
    let by_value = [
        ("client_auth", client.auth != ClientAuth::None),
        ("exchange", matches!(exchange, Some("token-exchange" | "id-jag"))),
    ];
    for key in named.chain(by_value.into_iter().filter(|(_, so)| *so).map(|(key, _)| key)) {
        let what = "needs `issuer`: without a pin it would be sent to whoever the server names";
        reader.problem(section.line_of(key), &section.key(key), what);
    }
}

/// The platform's token goes to the server itself: there is no authorization server that any of this could be for.
fn direct(reader: &mut Reader<'_>, section: &Section<'_>) {
    if !section.has("subject_audience") {
        let what = "\"direct\" needs `subject_audience`: the name under which the server takes the platform's tokens";
        reader.problem(section.line_of("exchange"), &section.key("exchange"), what);
    }
    let keys =
        ["issuer", "scopes", "client_id", "client_auth", "audience", "extra", "token_endpoint", "dpop", "register"];
    for key in keys.into_iter().filter(|key| section.has(key)) {
        let what =
            "has no effect with `exchange = \"direct\"`: no authorization server is asked, and nothing limits scopes";
        reader.problem(section.line_of(key), &section.key(key), what);
    }
}

/// Each request is signed: there is no token that any of this could be about.
fn signed(reader: &mut Reader<'_>, section: &Section<'_>) {
    let keys =
        ["scopes", "tolerate_scopes", "client_id", "client_auth", "audience", "resource", "extra", "revoke_on_exit"];
    for key in keys.into_iter().filter(|key| section.has(key)) {
        let what = "has no effect with `exchange = \"aws-sigv4\"`: there is no token, and nothing limits scopes";
        reader.problem(section.line_of(key), &section.key(key), what);
    }
    if section.has("subject_audience") && !section.has("role_arn") {
        let what = "has no effect without `role_arn`: no identity is presented to anybody";
        reader.problem(section.line_of("subject_audience"), &section.key("subject_audience"), what);
    }
}

fn extra_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<(String, String)> {
    let Some((pairs, line)) = section.pairs("extra") else { return Vec::new() };
    let set = exchange::reserved();
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
