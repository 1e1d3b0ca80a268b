//! The calls that are open: each from the moment when its server is known until the body of its answer has ended.
//!
//! A reload may take the server of an open call away, or its caller, or some of the caller's scopes. [`OpenCalls::judge`] ends
//! such a call: an event stream between two events, whatever does not end so within half a second by breaking off. At a shutdown
//! event streams end at once, and what still waits for an answer at the end gets an error ([`End::Late`]).

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::Response;
use hyper::body::{Body, SizeHint};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::Streamed;
use super::refused::{Refused, To};
use super::verdict::Sent;
use crate::broker::{Broker, CallEnd, CallRecord, Server};
use crate::caller::Caller;
use crate::mcp::fields;
use crate::metrics::{Metrics, Relayed};
use crate::outbound::Polled;

/// How long the stream of a call that has to end may go on, so that it can end between two events.
const GRACE: Duration = Duration::from_millis(500);

/// All open calls.
pub(super) struct OpenCalls {
    /// The daemon is told to end: event streams end, and everything else is finished.
    stop: CancellationToken,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    next: u64,
    /// The time to finish is over.
    is_late: bool,
    open: BTreeMap<u64, Arc<Entry>>,
}

/// What all parts of an open call share.
pub(super) struct Entry {
    pub(super) server: Arc<Server>,
    /// For the audit.
    pub(super) record: CallRecord,
    /// For status and metrics.
    pub(super) counts: Arc<Relayed>,
    /// What was asked, once it is known.
    asked: OnceLock<(Sent, To)>,
    /// Ends its event stream. Most calls have none.
    stop: OnceLock<CancellationToken>,
    /// Why it has to end, if it has to.
    end: OnceLock<End>,
    /// Who waits for that. One task at a time: it waits for the answer, then for the body of the answer.
    waiter: AtomicWaker,
}

/// Why an open call ends before its answer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A reload has taken its server from its caller.
    Removed { at: Instant },
    /// The daemon ends.
    Late,
}

/// One open call. It is over when this is dropped.
pub(super) struct OpenCall {
    all: Arc<OpenCalls>,
    number: u64,
    pub(super) entry: Arc<Entry>,
}

impl OpenCalls {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { stop, calls: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(
        self: &Arc<Self>,
        (broker, metrics): (&Broker, &Metrics),
        caller: &Caller,
        server: &Arc<Server>,
    ) -> OpenCall {
        let (record, counts) = (broker.begin_call(caller, &server.name), metrics.relayed(&server.name));
        counts.requests.inc();
        let (asked, stop, end, waiter) = Default::default();
        let entry = Arc::new(Entry { server: Arc::clone(server), record, counts, asked, stop, end, waiter });
        let mut calls = self.lock();
        if calls.is_late {
            entry.ends(End::Late);
        }
        let number = calls.next;
        calls.next += 1;
        calls.open.insert(number, Arc::clone(&entry));
        OpenCall { all: Arc::clone(self), number, entry }
    }

    /// Ends the calls that the rules of this broker do not permit. What a call knows of its caller was read when it began, so a
    /// rule that asks for more than that does not match.
    pub(super) fn judge(&self, broker: &Broker) {
        let open: Vec<Arc<Entry>> = self.lock().open.values().cloned().collect();
        for entry in open.iter().filter(|entry| !broker.may_go_on(entry.record.caller(), &entry.server)) {
            let (server, caller) = (&entry.server.name, entry.record.caller());
            tracing::info!(%server, %caller, "a call ends: the new configuration does not permit it");
            entry.ends(End::Removed { at: Instant::now() });
            if let Some(stop) = entry.stop.get() {
                stop.cancel();
            }
        }
    }

    /// The time to finish is over: what has no answer yet gets an error.
    pub(super) fn end(&self) {
        let mut calls = self.lock();
        calls.is_late = true;
        let open: Vec<Arc<Entry>> = calls.open.values().cloned().collect();
        drop(calls);
        for entry in open {
            entry.ends(End::Late);
        }
    }
}

impl Entry {
    fn ends(&self, end: End) {
        // The first reason counts.
        if self.end.set(end).is_ok() {
            self.waiter.wake();
        }
    }

    /// Ready when the call has to end.
    fn poll_end(&self, context: &Context<'_>) -> Poll<End> {
        let end = || self.end.get().map_or(Poll::Pending, |end| Poll::Ready(*end));
        if end().is_pending() {
            self.waiter.register(context.waker());
        }
        // It may have come meanwhile.
        end()
    }
}

impl OpenCall {
    /// Ends its event stream.
    pub(super) fn stop(&self) -> CancellationToken {
        let stop = self.entry.stop.get_or_init(|| self.all.stop.child_token());
        // It may have been removed before there was a stream.
        if self.entry.end.get().is_some() {
            stop.cancel();
        }
        stop.clone()
    }

    /// Notes what was asked, for the error if the call ends early.
    pub(super) fn asked(&self, sent: Sent, to: To) -> &To {
        &self.entry.asked.get_or_init(|| (sent, to)).1
    }

    /// What was asked, once it is known.
    pub(super) fn what(&self) -> Option<&(Sent, To)> {
        self.entry.asked.get()
    }

    /// Waits until the call has to end before its answer is there.
    pub(super) async fn ended(&self) -> End {
        std::future::poll_fn(|context| self.entry.poll_end(context)).await
    }

    /// The answer, with whose body the call ends.
    pub(super) fn answer(self, answer: Response<Streamed>) -> Response<Streamed> {
        let is_stream = fields::is_media(answer.headers(), "text/event-stream");
        if is_stream {
            self.entry.counts.streams.inc();
        }
        answer.map(|body| {
            let body = OpenBody { body, call: self, cut: None, end: None, is_stream, bytes: 0 };
            let body: Streamed = Box::pin(body);
            body
        })
    }

    /// The call ends with an error of ours.
    pub(super) fn refused(self, mut refused: Box<Refused>) -> Box<Refused> {
        let record = &self.entry.record;
        record.done(CallEnd::Refused { class: refused.class.as_str(), error: &refused.code }, 0);
        record.id().clone_into(&mut refused.request_id);
        refused
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        // Records the end if the client left before its answer, and does nothing otherwise.
        self.entry.record.done(CallEnd::Cut, 0);
        self.all.lock().open.remove(&self.number);
    }
}

/// The body of the answer to an open call.
struct OpenBody {
    body: Streamed,
    call: OpenCall,
    cut: Option<Pin<Box<Sleep>>>,
    /// How it ended, if it has.
    end: Option<CallEnd<'static>>,
    is_stream: bool,
    bytes: u64,
}

impl OpenBody {
    /// Ready when the call was removed and its time is over.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Whoever ends the daemon ends its connections, too.
        let End::Removed { at } = ready!(self.call.entry.poll_end(context)) else { return Poll::Pending };
        let cut = self.cut.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at + GRACE)));
        cut.as_mut().poll(context)
    }
}

impl Body for OpenBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        if self.poll_cut(context).is_ready() {
            self.end = Some(CallEnd::Cut);
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        let frame = ready!(self.body.as_mut().poll_frame(context));
        match &frame {
            Some(Ok(frame)) => self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => self.end = Some(CallEnd::Cut),
            None => self.end = Some(CallEnd::Passed),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_some() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for OpenBody {
    fn drop(&mut self) {
        if self.is_stream {
            self.call.entry.counts.streams.dec();
        }
        // Whoever knows the length does not ask for the end.
        let passed = if self.body.is_end_stream() { CallEnd::Passed } else { CallEnd::Cut };
        self.call.entry.record.done(self.end.unwrap_or(passed), self.bytes);
    }
}
