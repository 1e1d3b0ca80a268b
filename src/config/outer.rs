//! `outer`: a second credential, for the front door before an MCP server (Google's Identity-Aware Proxy, Cloud Run).
//!
//! It is made as the token of a server is, so it becomes one: `NAME.outer`, which nobody finds by URL, for the same callers.
//! Through Google's token service where `pool` names it; a workload on Google Cloud has its identity token for any audience.
//!
//! Sources: Google Cloud, "Programmatic authentication" (Identity-Aware Proxy: `Proxy-Authorization`); "Authenticating
//! service-to-service" (Cloud Run: `X-Serverless-Authorization`).

use super::reader::{Reader, Section};
use super::{keys, provider};
use crate::broker::{Client, DEFAULT, Outer, Provider, ResourceParameter, Server};
use crate::policy::Rule;

/// Where Identity-Aware Proxy looks first, and what it takes away.
const FIELD: &str = "Proxy-Authorization";

/// What a server's `outer` says: the field, and the server that gives the token for it.
pub(super) fn outer_of<'a>(reader: &mut Reader<'a>, section: &Section<'a>, server: &Server) -> Option<(Outer, Server)> {
    let section = reader.nested(section, "outer", &keys::OUTER)?;
    if server.issuer.is_none() && server.exchange.as_deref() != Some("direct") {
        let what = "needs the server's `issuer`: nobody gets past the front door to ask the server who guards it";
        reader.problem(section.line, &section.path, what);
    }
    match section.text("exchange") {
        Some(("gcp", _)) => {}
        Some((_, line)) => reader.problem(line, &section.key("exchange"), "only \"gcp\" gives such a credential"),
        None => reader.problem(section.line, &section.key("exchange"), "missing: \"gcp\""),
    }
    let audience = section.text("audience").map(|(text, _)| text.to_owned());
    if audience.as_ref().is_none_or(String::is_empty) {
        let what = "missing: the OAuth client's id (Identity-Aware Proxy) or the service's URL (Cloud Run)";
        reader.problem(section.line, &section.key("audience"), what);
    }
    let header = header_of(reader, &section);
    let provider = if section.has("pool") { provider::provider_of(reader, &section) } else { None };
    if section.has("pool") {
        provider::check_gcp(reader, &section);
    } else {
        for key in ["service_account", "delegates"].into_iter().filter(|key| section.has(key)) {
            let what = "has no effect without `pool`: on Google Cloud the identity of the workload itself is shown \
                (`service_account` and `impersonate` of [identity] make it another one)";
            reader.problem(section.line_of(key), &section.key(key), what);
        }
    }
    let name = format!("{}.outer", server.name);
    let direct = provider.is_none();
    let front_door = Server {
        exchange: Some(if direct { "direct" } else { "gcp" }.to_owned()),
        issuer: provider.as_ref().map(Provider::issuer),
        token_endpoint: provider.as_ref().map(Provider::token_endpoint),
        subject_audience: match &provider {
            Some(provider) => Some(provider::subject_audience(&section, provider, &Client::default())),
            None => audience.clone(),
        },
        audience: audience.filter(|_| !direct),
        provider,
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
