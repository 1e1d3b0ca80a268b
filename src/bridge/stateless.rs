//! Requests of a client of the wire since 2026-07-28, which pass as they are.

use super::Bridge;
use super::eras::KEPT;
use super::fields::{Media, media};
use super::link::Answer;
use super::post::no_message;
use super::requests::Ticket;
use super::told::Why;
use crate::mcp::era::{is_header_mismatch, request};
use bytes::Bytes;

impl Bridge {
    /// Brings a request to its answer. If the server misses a field of a call, the tools are listed anew, and it is sent once more: a
    /// request that was refused so was not carried out.
    pub(super) async fn stateless(&self, ticket: &Ticket, request: Bytes) -> Result<(), Why> {
        let (is_call, is_listen) = (ticket.method == "tools/call", ticket.method == "subscriptions/listen");
        let mut kept = ((is_call || is_listen) && request.len() <= KEPT).then(|| request.clone());
        let mut next = Some(request);
        while let Some(request) = next.take() {
            let Answer { head, body } = self.send_request(ticket, request).await?;
            match (head.status, media(&head.headers), kept.take()) {
                (_, Media::Events, Some(request)) if is_listen => {
                    return self.subscription(ticket, request, body).await;
                }
                (_, Media::Events, _) => return self.stream(ticket, body).await,
                (status, Media::Json, kept) => {
                    let answer = self.whole(body).await?;
                    let is_mismatch = is_call && is_header_mismatch(status.as_u16(), &answer);
                    let again = kept.filter(|_| is_mismatch).and_then(|request| Some((meta_of(&request)?, request)));
                    let Some((meta, request)) = again else {
                        return self.deliver_whole(ticket, status, &answer).await;
                    };
                    self.learn_anew(&meta).await;
                    next = Some(request);
                }
                (status, media, _) => return Err(no_message(status, media)),
            }
        }
        Ok(())
    }
}

fn meta_of(request: &[u8]) -> Option<String> {
    request::meta_of(std::str::from_utf8(request).ok()?)
}
