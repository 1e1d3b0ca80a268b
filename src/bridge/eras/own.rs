//! Requests that a server without sessions does not know, and that mean something all the same.

use std::time::Duration;

use super::super::requests::Ticket;
use super::super::told::Why;
use super::Met;
use crate::mcp::object::{Object, quoted};
use crate::mcp::rpc::{self, METHOD_NOT_FOUND};

/// So long the server may take to begin to send the updates of a resource.
const CONFIRMATION: Duration = Duration::from_secs(15);
/// JSON-RPC's "invalid params".
const INVALID_PARAMS: i64 = -32_602;

/// What the client is answered, as JSON.
pub(super) enum Own {
    Result,
    /// An error of the specification, which has a code of its own.
    Error(String),
}

fn error(code: i64, message: &str) -> Own {
    Own::Error(format!(r#"{{"code":{code},"message":{}}}"#, quoted(message)))
}

/// A text among the parameters.
fn param(body: &[u8], name: &str) -> Option<String> {
    Object::read(rpc::params(body)?.get())?.text(name)
}

/// The answer to a request that is answered here. `None`: the server is asked.
pub(super) async fn answered_here(ticket: &Ticket, met: &Met, body: &[u8]) -> Result<Option<Own>, Why> {
    let (is_offered, name) = match &*ticket.method {
        "ping" => return Ok(Some(Own::Result)),
        "logging/setLevel" => (met.server.has_log, "level"),
        "resources/subscribe" | "resources/unsubscribe" => (met.server.has_subscriptions, "uri"),
        _ => return Ok(None),
    };
    if !is_offered {
        return Ok(Some(error(METHOD_NOT_FOUND, "Method not found")));
    }
    let Some(value) = param(body, name) else { return Ok(Some(error(INVALID_PARAMS, "Invalid params"))) };
    match &*ticket.method {
        "resources/subscribe" => subscribe(met, &value).await?,
        "resources/unsubscribe" => drop(met.want(|filter| filter.uris.remove(&value))),
        _ if met.meta().set_level(&value) => {}
        _ => return Ok(Some(error(INVALID_PARAMS, "Invalid params: there is no such level"))),
    }
    Ok(Some(Own::Result))
}

/// Waits until the server sends the updates of this resource, so that none is missed after the answer.
async fn subscribe(met: &Met, uri: &str) -> Result<(), Why> {
    let mut confirmed = met.confirmed.subscribe();
    let serial = met.want(|filter| filter.add(uri)).ok_or(Why::TooMany)?;
    let told = confirmed.wait_for(|confirmed| confirmed.serial >= serial);
    let told = tokio::time::timeout(CONFIRMATION, told).await;
    if told.is_ok_and(|told| told.is_ok_and(|confirmed| confirmed.filter.uris.contains(uri))) {
        return Ok(());
    }
    met.want(|filter| filter.uris.remove(uri));
    Err(Why::NotSubscribed)
}
