//! `outer`: a second credential, for the front door before an MCP server (Google's Identity-Aware Proxy, Cloud Run).
//!
//! It is made as the token of a server is, so it becomes one: `NAME.outer`, which nobody finds by URL, for the same callers.
//! Through Google's token service where `pool` names it; a workload on Google Cloud has its identity token for any audience.
//!
//! Sources: Google Cloud, "Programmatic authentication" (Identity-Aware Proxy: `Proxy-Authorization`); "Authenticating
//! service-to-service" (Cloud Run: `X-Serverless-Authorization`).

use super::exchange;
use super::keys;
use super::reader::{Reader, Section};
use crate::broker::{Client, DEFAULT, Outer, ResourceParameter, Server};
use crate::exchange::{Asks, Place};
use crate::policy::Rule;

/// Where Identity-Aware Proxy looks first, and what it takes away.
const FIELD: &str = "Proxy-Authorization";

/// What a server's `outer` says: the field, and the server that gives the token for it.
pub(super) fn outer_of<'a>(reader: &mut Reader<'a>, section: &Section<'a>, server: &Server) -> Option<(Outer, Server)> {
    let section = reader.nested(section, "outer", &keys::OUTER, &exchange::key_names(Place::FrontDoor))?;
    if server.issuer.is_none() && server.expected().traits().asks != Asks::Nobody {
        let what = "needs the server's `issuer`: nobody gets past the front door to ask the server who guards it";
        reader.problem(section.line, &section.path, what);
    }
    match section.text("exchange") {
        Some(("gcp", _)) => {}
        Some((_, line)) => reader.problem(line, &section.key("exchange"), "only \"gcp\" gives such a credential"),
        None => reader.problem(section.line, &section.key("exchange"), "missing: \"gcp\""),
    }
    let audience = section.text("audience").map(|(text, _)| text.to_owned());
    let header = header_of(reader, &section);
    let chosen = exchange::of_server(reader, &section, Place::FrontDoor, &Client::default());
    let traits = chosen.known().map(|exchange| exchange.traits());
    let provider = match traits.map(|traits| traits.asks) {
        Some(Asks::Provider(provider)) => Some(provider),
        _ => None,
    };
    let name = format!("{}.outer", server.name);
    let direct = provider.is_none();
    let front_door = Server {
        exchange: chosen.known().cloned(),
        issuer: provider.as_ref().map(|provider| provider.issuer.clone()),
        token_endpoint: provider.as_ref().map(|provider| provider.token_endpoint.clone()),
        subject_audience: match &provider {
            Some(provider) => Some(provider.subject_audience.clone()),
            None => audience.clone(),
        },
        audience: audience.filter(|_| !direct),
        identity: section.text("identity").map_or(DEFAULT, |(name, _)| name).into(),
        resource: ResourceParameter::Omitted,
        required: server.required,
        is_outer: true,
        ..Server::discovered(name.as_str().into(), server.url.clone(), everybody_of(server))
    };
    Some((Outer { header, server: name.into() }, front_door))
}

/// The same callers; what they may have of the server itself limits nothing here.
fn everybody_of(server: &Server) -> Vec<Rule> {
    server.policy.allow.iter().map(|rule| Rule { scopes: None, ..rule.clone() }).collect()
}

/// A field that only a front door reads, and never the one that the server's own token is in.
fn header_of(reader: &mut Reader<'_>, section: &Section<'_>) -> String {
    let Some((text, line)) = section.text("header") else { return FIELD.to_owned() };
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_word || !text.to_ascii_lowercase().ends_with("-authorization") || text.len() > 64 {
        let what = "must be a field of the front door's own: \"Proxy-Authorization\" or \"X-Serverless-Authorization\"";
        reader.problem(line, &section.key("header"), what);
    }
    text.to_owned()
}
