//! The stream of a server that broke: it is asked for once more, from the last event that came whole.

use std::future::Future;
use std::pin::Pin;

use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};

use super::Streamed;
use super::exchange::{Errand, Failed};
use super::heal::boxed;
use super::kept::Kept;
use super::verdict::Sent;
use crate::broker::Class;
use crate::mcp::fields::{self, LAST_EVENT_ID, PROTOCOL_VERSION};

/// The versions of the protocol in which a stream can be resumed. Requests of 2025-03-26 do not name theirs.
const RESUMABLE: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];

/// What came of one attempt.
pub(super) enum Reopened {
    Stream(Streamed),
    /// Perhaps later.
    NotNow,
    Never,
}

/// One attempt, after which another one can be made.
pub(super) type Attempt = Pin<Box<dyn Future<Output = (Box<dyn Reopen>, Reopened)> + Send>>;

/// Opens a stream again.
pub(super) trait Reopen: Send {
    /// Asks for what follows the event with this id.
    fn reopen(self: Box<Self>, last_id: Option<Vec<u8>>) -> Attempt;
}

/// The request for the stream.
struct Request {
    errand: Errand,
    /// The stream answers no request, so another session's does as well.
    is_of_session: bool,
}

/// How the answer to this request is asked for again, where the wire knows that.
pub(super) fn request(errand: Errand) -> Option<Box<dyn Reopen>> {
    let version = errand.headers.get(PROTOCOL_VERSION);
    if version.is_some_and(|version| !RESUMABLE.iter().any(|known| version.as_bytes() == known.as_bytes())) {
        return None;
    }
    let is_of_session = match (errand.sent, &errand.method) {
        (Sent::Stream, &Method::GET) => true,
        (Sent::Request(_), _) => false,
        _ => return None,
    };
    let mut headers = errand.headers;
    headers.remove(CONTENT_TYPE);
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    let (method, sent, body, opens) = (Method::GET, Sent::Stream, Kept::own(bytes::Bytes::new()), false);
    Some(Box::new(Request { errand: Errand { method, sent, headers, body, opens, ..errand }, is_of_session }))
}

impl Reopen for Request {
    fn reopen(mut self: Box<Self>, last_id: Option<Vec<u8>>) -> Attempt {
        match last_id.and_then(|id| HeaderValue::from_bytes(&id).ok()) {
            Some(id) => drop(self.errand.headers.insert(LAST_EVENT_ID, id)),
            None => drop(self.errand.headers.remove(LAST_EVENT_ID)),
        }
        Box::pin(async move {
            let outcome = match self.is_of_session {
                true => self.errand.answer().await,
                // The answer to a request is lost with its session.
                false => self.errand.run().await.map(boxed),
            };
            (self as Box<dyn Reopen>, reopened(outcome))
        })
    }
}

fn reopened(outcome: Result<Response<Streamed>, Failed>) -> Reopened {
    match outcome {
        Ok(answer) if is_stream(answer.status(), answer.headers()) => Reopened::Stream(answer.into_body()),
        // A conflict: the server has not noticed yet that the stream before is over.
        Ok(answer) if matches!(answer.status().as_u16(), 409 | 429 | 500..) => Reopened::NotNow,
        Err(failed) if failed.told.class == Class::Temporary => Reopened::NotNow,
        Ok(_) | Err(_) => Reopened::Never,
    }
}

/// Is this an event stream that can be read?
pub(super) fn is_stream(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::OK && fields::is_media(headers, "text/event-stream") && fields::is_unencoded(headers)
}
