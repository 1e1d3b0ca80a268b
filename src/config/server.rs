//! `[servers.NAME]`: one MCP server, with what contradicts itself in it.

use std::sync::OnceLock;

use toml::de::DeTable;

use super::reader::{Reader, Section};
use super::{Config, insecure, is_name, keys, own_user};
use crate::broker::{ClientAuth, ResourceParameter, Server};
use crate::env::Env;
use crate::exchange;
use crate::oauth::{Issuer, Resource, Scopes, ServerUrl};
use crate::outbound::NamedBy;
use crate::policy::{Policy, Rule};

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
                if let Some(server) = server_of(reader, name, &section, env) {
                    config.servers.push(server);
                }
            }
            None => reader.problem(line, &path, format!("must be a table: [servers.{name}]")),
        }
    }
}

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
    let ceiling = scopes_of(reader, section, "scopes");
    let tolerate = scopes_of(reader, section, "tolerate_scopes").unwrap_or_default();
    let exchange = exchange_of(reader, section);
    let client_auth = client_auth_of(reader, section);
    contradictions(reader, section, exchange.as_deref(), client_auth);
    let resource = match section.text("resource") {
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
    let text = |key: &str| section.text(key).map(|(text, _)| text.to_owned());
    Some(Server {
        name: name.into(),
        url: url?,
        issuer,
        trust_discovered_issuer: section.flag("trust_discovered_issuer"),
        policy: Policy { allow, ceiling, tolerate },
        exchange,
        client_id: text("client_id"),
        client_auth,
        audience: text("audience"),
        subject_audience: text("subject_audience"),
        resource,
        extra: extra_of(reader, section),
        required: section.flag("required"),
        revoke_on_exit: section.flag("revoke_on_exit"),
        rate: section.rate("rate"),
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

fn exchange_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<String> {
    let (name, line) = section.text("exchange")?;
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

fn client_auth_of(reader: &mut Reader<'_>, section: &Section<'_>) -> ClientAuth {
    let Some((name, line)) = section.text("client_auth") else { return ClientAuth::None };
    ClientAuth::parse(name).unwrap_or_else(|| {
        let known: Vec<&str> = ClientAuth::ALL.iter().map(|(name, _)| *name).collect();
        let later = ["private-key-jwt", "secret", "mtls"].contains(&name);
        let what = if later { "not built in this version" } else { "not known" };
        let what = format!("{name:?} is {what}; it knows: {}", known.join(", "));
        reader.problem(line, &section.key("client_auth"), what);
        ClientAuth::None
    })
}

/// What contradicts itself, and what without a pin would go to whoever the server names, who could replay it elsewhere.
fn contradictions(reader: &mut Reader<'_>, section: &Section<'_>, exchange: Option<&str>, client_auth: ClientAuth) {
    if exchange == Some("client-credentials") && client_auth == ClientAuth::None {
        let what = "\"client-credentials\" needs `client_auth`: a client that proves nothing gets nothing";
        reader.problem(section.line_of("exchange"), &section.key("exchange"), what);
    }
    if client_auth == ClientAuth::Workload && matches!(exchange, None | Some("jwt-bearer")) {
        let what = "\"workload\" would send one JWT as grant and as proof, and a server may take it only once; \
            set `exchange = \"client-credentials\"`";
        reader.problem(section.line_of("client_auth"), &section.key("client_auth"), what);
    }
    if section.has("issuer") {
        return;
    }
    let named = ["client_id", "audience", "subject_audience", "extra"].into_iter().filter(|key| section.has(key));
    let by_value = [("client_auth", client_auth != ClientAuth::None), ("exchange", exchange == Some("token-exchange"))];
    for key in named.chain(by_value.into_iter().filter(|(_, so)| *so).map(|(key, _)| key)) {
        let what = "needs `issuer`: without a pin it would be sent to whoever the server names";
        reader.problem(section.line_of(key), &section.key(key), what);
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
        let rule =
            Rule { uid: entry.number("uid"), gid: entry.number("gid"), scopes: scopes_of(reader, entry, "scopes") };
        // A key of a later version was reported already; an entry must not become wider by its absence.
        if !entry.has("uid") && !entry.has("gid") {
            reader.problem(entry.line, &entry.path, "an entry needs `uid` or `gid`");
        }
        rules.push(rule);
    }
    rules
}
