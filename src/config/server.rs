//! `[servers.NAME]`: an MCP server: its URL, its callers, and how its token is requested.

use std::sync::Arc;

use toml::de::DeTable;

use super::order;
use super::parameters::scopes_of;
use super::reader::{Found, Reader, Section};
use super::{Config, exchange, insecure, is_name, keys, outer, own_user};
use crate::broker::{Order, Server};
use crate::digest::Digest;
use crate::env::Env;
use crate::exchange::Place;
use crate::oauth::ServerUrl;
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
                let section = reader.section(
                    Found { path: &path, at, table },
                    &keys::SERVER,
                    &exchange::key_names(Place::Server),
                );
                config.servers.extend(server_of(reader, name, &section, env));
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
    let ceiling = scopes_of(reader, section, "scopes");
    let tolerate = scopes_of(reader, section, "tolerate_scopes").unwrap_or_default();
    let read = order::order_of(reader, section, (name, Place::Server));
    let allow = allow_of(reader, section, env);
    let limits_scopes = read.traits.as_ref().is_none_or(|traits| traits.limits_scopes);
    if !limits_scopes && allow.iter().any(|rule| rule.scopes.is_some()) {
        let what =
            "an entry has `scopes`, which limit nothing with this exchange: whoever is let in gets the whole of it";
        reader.problem(section.line_of("allow"), &section.key("allow"), what);
    }
    let front_door = outer::outer_of(reader, section, &read);
    let order = read.order;
    Some(Server {
        name: name.into(),
        url: url.or_else(|| stand_in(section))?,
        trust_discovered_issuer: section.flag("trust_discovered_issuer"),
        policy: Policy { allow, ceiling, tolerate, usual: None },
        order: Arc::new(Order { dpop: section.maybe_flag("dpop"), ..order }),
        front_door,
        required: section.flag("required"),
        revoke_on_exit: section.flag("revoke_on_exit"),
        rate: section.rate("rate"),
        named_by: NamedBy::Us,
    })
}

/// Stands in for a URL whose problem is reported, so that the rest of the server can be checked. No server has it
/// (RFC 2606 section 2).
fn stand_in(section: &Section<'_>) -> Option<ServerUrl> {
    ServerUrl::parse(&format!("https://url.invalid/{}", section.line)).ok()
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
        // An entry without any of them would match every caller. A key of a later version was already reported.
        if !CALLER_KEYS.iter().any(|key| entry.has(key)) {
            let named = CALLER_KEYS.map(|key| format!("`{key}`")).join(", ");
            reader.problem(entry.line, &entry.path, format!("an entry needs at least one of {named}"));
        }
        rules.push(rule);
    }
    rules
}

/// The keys of an entry that select callers.
const CALLER_KEYS: [&str; 5] = ["uid", "gid", "exe", "sha256", "unit"];

fn rule_of(reader: &mut Reader<'_>, entry: &Section<'_>, env: &Env) -> Rule {
    let (uid, gid) = (entry.number("uid"), entry.number("gid"));
    let exe = entry.text("exe").map(|(path, line)| {
        // The kernel reports the absolute path of a program, so only such a path can match.
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
    Rule { uid, gid, exe, sha256, unit, scopes: scopes_of(reader, entry, "scopes"), is_implied: false }
}
