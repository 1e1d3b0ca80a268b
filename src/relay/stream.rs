//! The body of an answer on its way to the client.
//!
//! Bytes pass as they come, those of JSON and of events that are not encoded as soon as they are complete ([`json`],
//! [`events`]). In an event stream three things are added, between two events only: a comment after 20 s of silence, so that no
//! client gives it up; notifications of ours; and an error of ours as the last event where the server broke off before it
//! answered, and the stream could not be resumed ([`super::reopen`]).
//!
//! A stream in which no byte passed for ten minutes in either direction ends cleanly, and so do event streams when the daemon
//! ends. An answer of known length cannot end early, so its connection is closed then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Streamed;
use super::idle::{IDLE, LastByte};
use super::reopen::{Attempt, Reopen, Reopened};
use super::verdict::{Broken, Progress, Sent, broke};
use crate::outbound::Polled;
use events::SILENCE;

mod events;
mod json;

pub(super) use events::{Events, LastWord, Listener, Notices, Waiting};
pub(super) use json::Json;

/// How often the stream of a session is asked for again without an event in between.
const TRIES: u32 = 16;
/// The same for the answer to a request: some servers give an empty stream for an event that they do not know.
const TRIES_OF_REQUEST: u32 = 5;
/// The pauses before: the first one, which doubles, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The body of an answer.
pub(super) struct Relayed {
    source: Source,
    last_byte: Arc<LastByte>,
    /// Made when it has to wait for the first time. Most answers come at once.
    waits: Option<Waits>,
    /// Ends an event stream.
    stop: Option<CancellationToken>,
    is_stopping: bool,
    shape: Shape,
    resume: Resume,
    is_over: bool,
}

/// How an answer is looked at.
pub(super) enum Shape {
    /// Not at all.
    Plain,
    Json(Json),
    Events(Box<Events>),
}

enum Source {
    Open(Streamed),
    Broken(Attempt),
}

#[derive(Default)]
struct Resume {
    again: Option<Box<dyn Reopen>>,
    /// Without an event in between.
    tries: u32,
    in_vain_since: Option<Instant>,
}

struct Waits {
    timer: Pin<Box<Sleep>>,
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Relayed {
    pub(super) fn new(body: Streamed, last_byte: Arc<LastByte>, stop: Option<CancellationToken>, shape: Shape) -> Self {
        let (source, resume) = (Source::Open(body), Resume::default());
        Self { source, last_byte, waits: None, stop, is_stopping: false, shape, resume, is_over: false }
    }

    /// An event stream that is asked for again if it breaks.
    pub(super) fn with_again(self, again: Option<Box<dyn Reopen>>) -> Self {
        Self { resume: Resume { again, ..Resume::default() }, ..self }
    }

    fn events(&self) -> Option<&Events> {
        match &self.shape {
            Shape::Events(events) => Some(events),
            Shape::Plain | Shape::Json(_) => None,
        }
    }

    fn events_mut(&mut self) -> Option<&mut Events> {
        match &mut self.shape {
            Shape::Events(events) => Some(events),
            Shape::Plain | Shape::Json(_) => None,
        }
    }

    fn next_wait(&self) -> Instant {
        let idle_at = self.last_byte.idle_at();
        self.events().map_or(idle_at, |events| idle_at.min(events.last_sent + SILENCE))
    }

    /// The exchange ends from our side. A client that waits for an answer in an event stream is told that none comes, unless it
    /// can ask for what follows the last event id.
    fn ends(&mut self) -> Option<Result<Frame<Bytes>, io::Error>> {
        self.is_over = true;
        let Shape::Events(events) = &mut self.shape else { return Some(Err(io::ErrorKind::TimedOut.into())) };
        let can_resume = events.last_id().is_some();
        let progress = Progress { is_answered: events.is_answered(), can_resume, tried_for: Duration::ZERO };
        let told = if let Broken::EndWith(told) = broke(events.sent, progress) { Some(told) } else { None };
        let end = events.end(told);
        (!end.is_empty()).then(|| Ok(Frame::data(end)))
    }

    /// What has to be done while no byte comes.
    fn wait(&mut self, context: &mut Context<'_>) -> Polled {
        loop {
            let (next, may_end) = (self.next_wait(), self.events().is_some_and(Events::may_insert));
            let stop = &self.stop;
            let waits = self.waits.get_or_insert_with(|| Waits {
                timer: Box::pin(tokio::time::sleep_until(next)),
                stop: stop.clone().map(|stop| Box::pin(stop.cancelled_owned())),
            });
            let stop = waits.stop.as_mut().filter(|_| may_end);
            if stop.is_some_and(|stop| stop.as_mut().poll(context).is_ready()) {
                return Poll::Ready(self.ends());
            }
            if waits.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if self.last_byte.idle_at() <= Instant::now() {
                debug!("an exchange without a byte for ten minutes ends");
                return Poll::Ready(self.ends());
            }
            if let Some(comment) = self.events_mut().and_then(Events::comment) {
                return Poll::Ready(Some(Ok(Frame::data(comment))));
            }
            let next = self.next_wait();
            if let Some(waits) = &mut self.waits {
                waits.timer.as_mut().reset(next);
            }
        }
    }

    /// The event stream broke. Gives what follows of it: it is resumed, or it ends.
    fn breaks(&mut self) -> Bytes {
        let Shape::Events(events) = &mut self.shape else { return Bytes::new() };
        let resume = &mut self.resume;
        if resume.tries >= if events.sent == Sent::Stream { TRIES } else { TRIES_OF_REQUEST } {
            resume.again = None;
        }
        let progress = Progress {
            is_answered: events.is_answered(),
            can_resume: resume.again.is_some() && events.last_id().is_some(),
            tried_for: resume.in_vain_since.map_or(Duration::ZERO, |since| since.elapsed()),
        };
        let told = match (broke(events.sent, progress), resume.again.take()) {
            (Broken::Resume, Some(again)) => {
                let (first, longest) = PAUSES;
                let pause = longest.min(first * (1 << resume.tries)).max(events.retry().unwrap_or_default().min(IDLE));
                let last_id = events.last_id().map(<[u8]>::to_vec);
                resume.tries += 1;
                debug!("an event stream broke off and is asked for again");
                self.source = Source::Broken(Box::pin(async move {
                    tokio::time::sleep(pause).await;
                    again.reopen(last_id).await
                }));
                return events.breaks();
            }
            (Broken::EndWith(told), _) => Some(told),
            (Broken::Resume | Broken::End, _) => None,
        };
        self.is_over = true;
        events.end(told)
    }

    /// What one attempt has brought.
    fn reopened(&mut self, again: Box<dyn Reopen>, reopened: Reopened) -> Bytes {
        match reopened {
            Reopened::Stream(body) => {
                self.resume.in_vain_since = None;
                self.resume.again = Some(again);
                self.source = Source::Open(body);
                return Bytes::new();
            }
            Reopened::NotNow => {
                self.resume.in_vain_since.get_or_insert_with(Instant::now);
                self.resume.again = Some(again);
            }
            Reopened::Never => self.resume.again = None,
        }
        self.breaks()
    }

    /// A piece of the server's body, or its end.
    fn passes(&mut self, frame: Option<Result<Frame<Bytes>, io::Error>>) -> Result<Bytes, io::Error> {
        let piece = match frame {
            Some(Ok(frame)) => {
                let Ok(piece) = frame.into_data() else { return Ok(Bytes::new()) };
                self.last_byte.passed();
                Some(piece)
            }
            Some(Err(error)) => {
                if self.events().is_some() {
                    return Ok(self.breaks());
                }
                self.is_over = true;
                return Err(error);
            }
            None => None,
        };
        let is_over = piece.is_none();
        let passed = match (&mut self.shape, piece) {
            (Shape::Plain, piece) => piece.unwrap_or_default(),
            (Shape::Json(json), Some(piece)) => json.pass(piece),
            (Shape::Json(json), None) => json.end(),
            (Shape::Events(events), Some(piece)) => {
                let passed = events.pass(piece);
                if !passed.is_empty() {
                    self.resume.tries = 0;
                }
                passed
            }
            (Shape::Events(events), None) if events.may_be_answered() => events.rest(),
            // An end before the answer is no better than a break.
            (Shape::Events(_), None) => return Ok(self.breaks()),
        };
        self.is_over = is_over;
        Ok(passed)
    }
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        loop {
            if self.is_over {
                return Poll::Ready(None);
            }
            // What has come already passes, but a server that always has more to say is not waited for.
            if self.is_stopping && self.events().is_some_and(Events::may_insert) {
                return Poll::Ready(self.ends());
            }
            self.is_stopping = self.stop.as_ref().is_some_and(CancellationToken::is_cancelled);
            if let Some(notices) = self.events_mut().and_then(|events| events.notices(context)) {
                return Poll::Ready(Some(Ok(Frame::data(notices))));
            }
            let passed = match &mut self.source {
                Source::Open(body) => match body.as_mut().poll_frame(context) {
                    Poll::Ready(frame) => self.passes(frame),
                    Poll::Pending => return self.wait(context),
                },
                Source::Broken(attempt) => match attempt.as_mut().poll(context) {
                    Poll::Ready((again, reopened)) => Ok(self.reopened(again, reopened)),
                    Poll::Pending => return self.wait(context),
                },
            };
            match passed {
                Ok(piece) if piece.is_empty() => {}
                passed => return Poll::Ready(Some(passed.map(Frame::data))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let Source::Open(body) = &self.source else { return self.is_over };
        self.is_over
            || match &self.shape {
                Shape::Plain => body.is_end_stream(),
                Shape::Json(json) => json.is_untouched() && body.is_end_stream(),
                Shape::Events(_) => false,
            }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.source, &self.shape) {
            (Source::Open(body), Shape::Plain) => body.size_hint(),
            (Source::Open(body), Shape::Json(json)) if json.is_untouched() => body.size_hint(),
            _ => SizeHint::new(),
        }
    }
}

#[cfg(test)]
mod tests;
