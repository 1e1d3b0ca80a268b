//! Cancellation: from the client to each wire in its own way, and of everything when the client ends.
//!
//! On stdin a client always sends `notifications/cancelled`. On the wire until 2025-11-25 the server is sent the same, and a
//! closed connection means nothing. On the wire after it the closed stream says it, and there is no such notification.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Bridge;
use super::requests::{Cancelled, Ticket};
use super::session::Waits;
use crate::mcp::rpc::{self, Id, Message};

/// So long the server may take to end the stream of a request that was cancelled.
const STREAM: Duration = Duration::from_secs(5);
/// At the end of the client, the server is told within this time, and then once more the same for the end of the session.
const LAST_WORDS: Duration = Duration::from_millis(350);

/// The request that a `notifications/cancelled` names.
fn named(body: &[u8]) -> Option<Id> {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, rename = "requestId")]
        id: &'a RawValue,
    }
    let params: Params<'_> = serde_json::from_str(rpc::params(body)?.get()).ok()?;
    // Read as the id of a message, so that both are compared in the same form.
    Message::read(format!("{{\"method\":\"x\",\"id\":{}}}", params.id.get()).as_bytes()).id
}

/// The notification for a request whose client has ended.
fn notification(ticket: &Ticket) -> Bytes {
    let id = ticket.id.as_str();
    let params = format!("{{\"requestId\":{id},\"reason\":\"the client has ended\"}}");
    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{params}}}").into()
}

impl Bridge {
    /// The client cancels a request. It waits for nothing, and nothing waits for it.
    pub(super) fn cancel(self: &Arc<Self>, body: Bytes) {
        let Some(id) = named(&body) else {
            tracing::warn!("a cancellation that names no request is dropped");
            return;
        };
        let cancelled = self.requests().cancel(&id);
        match cancelled {
            Cancelled::Never => tracing::warn!("`initialize` cannot be cancelled; the notification is dropped"),
            Cancelled::Close(ticket) => ticket.stop.cancel(),
            Cancelled::Tell(ticket) => {
                let (bridge, stop) = (Arc::clone(self), ticket.stop.clone());
                let told = self.spawn(async move {
                    bridge.tell("notifications/cancelled", Waits::Nothing, body).await;
                    tokio::time::sleep(STREAM).await;
                    ticket.stop.cancel();
                });
                if !told {
                    stop.cancel();
                }
            }
            // The answer is on its way, or was never asked for.
            Cancelled::Unknown => debug!("a cancellation of no open request is dropped"),
        }
    }

    /// The client has ended: the server is told of each open request, and of the end of the session.
    pub(super) async fn leave(self: &Arc<Self>) {
        let open = self.requests().end();
        let mut told = tokio::task::JoinSet::new();
        for cancelled in open {
            match cancelled {
                Cancelled::Tell(ticket) => {
                    let bridge = Arc::clone(self);
                    told.spawn(async move {
                        bridge.tell("notifications/cancelled", Waits::Nothing, notification(&ticket)).await
                    });
                }
                Cancelled::Close(ticket) => ticket.stop.cancel(),
                Cancelled::Never | Cancelled::Unknown => {}
            }
        }
        drop(tokio::time::timeout(LAST_WORDS, async { while told.join_next().await.is_some() {} }).await);
        self.stop_listening();
        drop(tokio::time::timeout(LAST_WORDS, self.delete(self.session.fields())).await);
    }
}
