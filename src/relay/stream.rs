//! The body of an answer on its way to the client.
//!
//! Bytes pass as they come. In an event stream that is not encoded two things are added, between two events only: a comment
//! after 20 s of silence, so that no client gives it up, and an error of ours as the last event where the server broke off before
//! it answered. A stream in which no byte passed for ten minutes in either direction ends cleanly, and so do event streams when
//! the daemon ends. An answer of known length cannot end early, so its connection is closed then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::idle::LastByte;
use crate::mcp::rpc::{Id, Kind, Message};
use crate::mcp::sse::mark::WithoutMark;
use crate::mcp::sse::{self, Data, Reader};

/// A silent event stream gets a comment after so long.
const SILENCE: Duration = Duration::from_secs(20);
/// The largest event that is looked at. A larger one does not count as an answer.
const EVENT_CAP: usize = 64 * 1024;

/// The event that a stream ends with if it breaks off before its answer.
pub(super) type LastWord = Box<dyn FnOnce() -> Vec<u8> + Send>;

/// The body of an answer.
pub(super) struct Relayed<B> {
    body: B,
    last_byte: Arc<LastByte>,
    /// Made when it has to wait for the first time. Most answers come at once.
    waits: Option<Waits>,
    stop: CancellationToken,
    events: Option<Events>,
    is_over: bool,
}

struct Waits {
    timer: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// An event stream that is not encoded.
pub(super) struct Events {
    reader: Reader,
    /// Something was added before the first byte.
    without_mark: Option<WithoutMark>,
    has_begun: bool,
    /// When something was last sent to the client.
    last_sent: Instant,
    /// The request that waits for an answer, and what its client is told if none comes.
    waiting: Option<(Id, LastWord)>,
}

impl Events {
    /// A stream that holds the answer to the request with this id, or to none.
    pub(super) fn new(waiting: Option<(Id, LastWord)>) -> Self {
        let (reader, last_sent) = (Reader::new(if waiting.is_some() { EVENT_CAP } else { 0 }), Instant::now());
        Self { reader, without_mark: None, has_begun: false, last_sent, waiting }
    }

    /// Looks at a piece, and gives what of it is to be passed on.
    fn pass(&mut self, piece: Bytes) -> Bytes {
        (self.has_begun, self.last_sent) = (true, Instant::now());
        let mut rest = &*piece;
        while let Some(event) = self.reader.read(&mut rest) {
            let (Some((id, _)), true, Data::Kept(data)) = (&self.waiting, event.is_message(), event.data) else {
                continue;
            };
            let message = Message::read(data);
            if message.kind == Kind::Response && message.id.is_some_and(|answered| answered.answers(id)) {
                self.waiting = None;
            }
        }
        let Some(without_mark) = &mut self.without_mark else { return piece };
        let (held, part) = without_mark.pass(&piece);
        if held.is_empty() {
            return piece.slice_ref(part);
        }
        let mut both = BytesMut::with_capacity(held.len() + part.len());
        both.put_slice(held);
        both.put_slice(part);
        both.freeze()
    }

    /// The comment, if it is time for one and it may stand here.
    fn comment(&mut self) -> Option<Bytes> {
        if self.last_sent.elapsed() < SILENCE {
            return None;
        }
        self.last_sent = Instant::now();
        if !self.reader.is_between_events() {
            return None;
        }
        if !self.has_begun {
            self.without_mark.get_or_insert_default();
        }
        Some(Bytes::from_static(sse::COMMENT))
    }

    /// What is sent last after the server broke off. With an event id the client itself asks for what follows it.
    fn end(&mut self) -> Bytes {
        let mut end = self.reader.abandon();
        if let Some((_, last_word)) = self.waiting.take().filter(|_| self.reader.last_id().is_none()) {
            end.append(&mut sse::event(None, &String::from_utf8_lossy(&last_word())));
        }
        end.into()
    }
}

impl<B> Relayed<B> {
    pub(super) fn new(body: B, last_byte: Arc<LastByte>, stop: CancellationToken, events: Option<Events>) -> Self {
        Self { body, last_byte, waits: None, stop, events, is_over: false }
    }

    /// What has to be done while no byte comes.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            let comment_at = self.events.as_ref().map(|events| events.last_sent + SILENCE);
            let idle_at = self.last_byte.idle_at();
            let next = comment_at.map_or(idle_at, |at| at.min(idle_at));
            let stop = &self.stop;
            let waits = self.waits.get_or_insert_with(|| Waits {
                timer: Box::pin(tokio::time::sleep_until(next)),
                stop: Box::pin(stop.clone().cancelled_owned()),
            });
            let may_end = self.events.as_ref().is_some_and(|events| events.reader.is_between_events());
            if may_end && waits.stop.as_mut().poll(context).is_ready() {
                self.is_over = true;
                return Poll::Ready(None);
            }
            if waits.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if self.last_byte.idle_at() <= Instant::now() {
                self.is_over = true;
                tracing::debug!("an exchange without a byte for ten minutes ends");
                return Poll::Ready(self.events.is_none().then(|| Err(io::ErrorKind::TimedOut.into())));
            }
            if let Some(comment) = self.events.as_mut().and_then(Events::comment) {
                return Poll::Ready(Some(Ok(Frame::data(comment))));
            }
            let comment_at = self.events.as_ref().map(|events| events.last_sent + SILENCE);
            let idle_at = self.last_byte.idle_at();
            waits.timer.as_mut().reset(comment_at.map_or(idle_at, |at| at.min(idle_at)));
        }
    }
}

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Body for Relayed<B> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return self.wait(context),
            };
            let this = &mut *self;
            let piece = match (frame, &mut this.events) {
                (Some(Ok(frame)), events) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    this.last_byte.passed();
                    match events {
                        Some(events) => events.pass(piece),
                        None => piece,
                    }
                }
                (None, Some(events)) if events.waiting.is_none() => {
                    this.is_over = true;
                    events.without_mark.take().map_or(Bytes::new(), |mark| Bytes::from_static(mark.rest()))
                }
                // An end before the answer is no better than a break.
                (None | Some(Err(_)), Some(events)) => {
                    this.is_over = true;
                    events.end()
                }
                (None, None) => return Poll::Ready(None),
                (Some(Err(error)), None) => {
                    this.is_over = true;
                    return Poll::Ready(Some(Err(error)));
                }
            };
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if this.is_over {
                return Poll::Ready(None);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || (self.events.is_none() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.events.is_some() { SizeHint::new() } else { self.body.size_hint() }
    }
}

#[cfg(test)]
mod tests;
