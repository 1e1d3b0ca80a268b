//! The event stream of a GET whose token or server is missing for now.
//!
//! Clients never ask again after an error, so they get an event stream at once, which is held by comments. When the server's own
//! stream can be had, it is joined. If that is refused for good, or if it takes too long, the stream ends cleanly.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Streamed;
use super::exchange::Errand;
use super::idle::IDLE;
use super::reopen::{self, is_stream};
use super::stream::{Events, Notices, Relayed, Shape};
use crate::broker::Class;
use crate::mcp::sse::COMMENT;
use crate::outbound::Polled;

/// The pauses between two attempts: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// A comment is sent so often.
const EVERY: Duration = Duration::from_secs(15);

/// A stream that waits for that of its server.
pub(super) struct Held {
    state: State,
    comments: Interval,
}

enum State {
    Waits(Pin<Box<dyn Future<Output = Option<Relayed>> + Send>>),
    Joined(Box<Relayed>),
    Over,
}

impl Held {
    pub(super) fn new(errand: Errand, stop: CancellationToken) -> Self {
        let mut comments = tokio::time::interval(EVERY);
        comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let joins = async move { stop.clone().run_until_cancelled(join(errand, stop)).await.flatten() };
        Self { state: State::Waits(Box::pin(joins)), comments }
    }
}

/// The stream of the server, once it can be had.
async fn join(mut errand: Errand, stop: CancellationToken) -> Option<Relayed> {
    let (mut pause, longest) = PAUSES;
    let begun = Instant::now();
    while begun.elapsed() < IDLE {
        tokio::time::sleep(pause).await;
        pause = longest.min(2 * pause);
        match errand.answer().await {
            Ok(answer) if is_stream(answer.status(), answer.headers()) => {
                errand.last_byte.passed();
                return Some(joined(answer.into_body(), errand, stop));
            }
            Err(failed) if failed.told.class == Class::Temporary => {}
            _ => return None,
        }
    }
    None
}

/// The server's stream, as the client gets it.
pub(super) fn joined(body: Streamed, errand: Errand, stop: CancellationToken) -> Relayed {
    let notices = errand.session.as_ref().map(|member| Notices::new(&errand.known, member.key.clone()));
    let shape = Shape::Events(Box::new(Events::new(errand.sent, None, notices)));
    let last_byte = std::sync::Arc::clone(&errand.last_byte);
    Relayed::new(body, last_byte, Some(stop), shape).with_again(reopen::request(errand))
}

impl Body for Held {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        loop {
            match &mut self.state {
                State::Joined(body) => return Pin::new(body).poll_frame(context),
                State::Over => return Poll::Ready(None),
                State::Waits(joins) => match joins.as_mut().poll(context) {
                    Poll::Ready(joined) => {
                        self.state = joined.map_or(State::Over, |body| State::Joined(Box::new(body)));
                    }
                    Poll::Pending if self.comments.poll_tick(context).is_ready() => {
                        return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))));
                    }
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }
}

/// The answer whose body this is.
pub(super) fn answer(held: Held) -> Response<Streamed> {
    let mut answer: Response<Streamed> = Response::new(Box::pin(held));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
