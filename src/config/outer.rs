//! `outer`: a second credential, for the front door of an MCP server: a gateway, Google's Identity-Aware Proxy, Cloud
//! Run.
//!
//! Like the server's own token, it comes from any exchange that produces a token, and the same callers may use it. For
//! Google's front doors: with `pool`, from Google's Security Token Service; without it, a workload on Google Cloud uses
//! its own identity token, which it can get for any audience.
//!
//! Sources: Google Cloud, "Programmatic authentication" (Identity-Aware Proxy: `Proxy-Authorization`); "Authenticating
//! service-to-service" (Cloud Run: `X-Serverless-Authorization`).

use std::sync::Arc;

use super::order::{self, Read};
use super::reader::{Reader, Section};
use super::{exchange, keys, parameters};
use crate::broker::FrontDoor;
use crate::exchange::{Asks, Gives, Place};

/// The default header field. Identity-Aware Proxy reads it first, and removes it.
const FIELD: &str = "Proxy-Authorization";

/// Fields that may not carry the credential: they belong to the server's token, the connection, the message framing or
/// MCP.
const TAKEN: [&str; 15] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "dpop",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads `outer` of a server.
pub(super) fn outer_of<'a>(reader: &mut Reader<'a>, server: &Section<'a>, behind: &Read) -> Option<FrontDoor> {
    let section = reader.nested(server, "outer", &keys::OUTER, &exchange::key_names(Place::FrontDoor))?;
    let is_discovered = behind.traits.as_ref().is_some_and(|traits| traits.asks == Asks::Discovered);
    if is_discovered && !server.has("issuer") {
        let what = "needs the server's `issuer`: nobody gets past the front door to ask the server who guards it";
        reader.problem(section.line, &section.path, what);
    }
    let header = header_of(reader, &section);
    let name = format!("{}.outer", behind.order.name);
    let Read { order, traits } = order::order_of(reader, &section, (&name, Place::FrontDoor));
    if traits.is_some_and(|traits| traits.gives == Gives::Signer) {
        let what = "signs whole requests, and gives no token that could stand in a field beside the server's own";
        reader.problem(section.line_of("exchange"), &section.key("exchange"), what);
    }
    let scopes = parameters::scopes_of(reader, &section, "scopes");
    Some(FrontDoor { header, order: Arc::new(order), scopes })
}

/// Reads the header field. Refuses fields that the server or the connection uses.
fn header_of(reader: &mut Reader<'_>, section: &Section<'_>) -> String {
    let Some((text, line)) = section.text("header") else { return FIELD.to_owned() };
    let lower = text.to_ascii_lowercase();
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let is_taken = TAKEN.contains(&lower.as_str()) || lower.starts_with("mcp-");
    if !is_word || is_taken || text.is_empty() || text.len() > 64 {
        let what =
            "must be a field of the front door's own, such as \"Proxy-Authorization\" or \"X-Gateway-Authorization\"";
        reader.problem(line, &section.key("header"), what);
    }
    text.to_owned()
}
