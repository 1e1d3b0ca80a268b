//! What happens on a connection: requests that begin and end, and bytes that the client takes. From it follows whether the
//! connection is quiet.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use hyper::body::{Frame, SizeHint};

use super::body::{Body, Pieces};
use super::framing::Violation;

/// The activity on one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Writes that the client's side took.
    written: AtomicU64,
    /// The last write has to wait, because the client does not read.
    is_blocked: AtomicBool,
    /// The number of the malformed request, which is the last one, and what is wrong with it.
    malformed: OnceLock<(u64, Violation)>,
    /// Counts what happens on all connections of the listener, and how far it was when something happened on this one.
    ticks: Arc<AtomicU64>,
    last: AtomicU64,
    /// Another connection gets its place.
    is_evicted: AtomicBool,
    waits: AtomicWaker,
}

impl Activity {
    /// The activity on a new connection of a listener whose connections count together.
    pub(super) fn new(ticks: Arc<AtomicU64>) -> Self {
        let last = AtomicU64::new(ticks.fetch_add(1, Ordering::Relaxed));
        Self { ticks, last, ..Self::default() }
    }

    fn tick(&self) {
        self.last.store(self.ticks.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Is no request being answered?
    pub(super) fn is_idle(&self) -> bool {
        self.begun.load(Ordering::Relaxed) == self.ended.load(Ordering::Relaxed)
    }

    /// Was a request answered?
    pub(super) fn was_answered(&self) -> bool {
        self.ended.load(Ordering::Relaxed) > 0
    }

    /// In this order connections have to go: idle ones first, and those where nothing happened for longest.
    pub(super) fn rank(&self) -> (bool, u64) {
        (!self.is_idle(), self.last.load(Ordering::Relaxed))
    }

    /// Ends the connection.
    pub(super) fn evict(&self) {
        self.is_evicted.store(true, Ordering::Release);
        self.waits.wake();
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.load(Ordering::Acquire)
    }

    /// Waits until the connection has to go.
    pub(super) async fn evicted(&self) {
        poll_fn(|context| {
            self.waits.register(context.waker());
            if self.is_evicted() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// A request begins. It ends when what this gives is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.tick();
        Running(Arc::clone(self))
    }

    /// The activity until now.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            begun: self.begun.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
            is_blocked: self.is_blocked.load(Ordering::Relaxed),
        }
    }

    /// The request of this number is malformed. The first of a connection is 1.
    pub(super) fn refuse(&self, number: u64, violation: Violation) {
        // Nothing is read after it, so there is one at most.
        self.malformed.get_or_init(|| (number, violation));
    }

    /// What is wrong with the request that began last.
    pub(super) fn malformed(&self) -> Option<Violation> {
        let (number, violation) = self.malformed.get()?;
        (*number == self.begun.load(Ordering::Relaxed)).then_some(*violation)
    }

    /// The outcome of a write.
    pub(super) fn wrote<T>(&self, outcome: Poll<T>) -> Poll<T> {
        self.is_blocked.store(outcome.is_pending(), Ordering::Relaxed);
        if outcome.is_ready() {
            self.written.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }
}

/// The activity on a connection at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    begun: u64,
    ended: u64,
    written: u64,
    is_blocked: bool,
}

impl Seen {
    /// Has nothing happened since `before` that the connection should be kept open for? Either no request began and none runs,
    /// or an answer waited all the time for a client that took nothing of it.
    pub(super) fn is_quiet_since(self, before: Self) -> bool {
        let is_idle = self.begun == self.ended && self.begun == before.begun;
        let is_stuck = self.is_blocked && before.is_blocked && self.written == before.written;
        is_idle || is_stuck
    }
}

/// A request that is being answered.
pub(super) struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
        self.0.tick();
    }
}

/// The body of an answer. Its request runs until hyper has taken the last piece and drops it.
pub(super) struct UntilSent {
    body: Body,
    _running: Option<Running>,
}

impl UntilSent {
    pub(super) fn new(body: Body, running: Option<Running>) -> Self {
        Self { body, _running: running }
    }
}

impl hyper::body::Body for UntilSent {
    type Data = Pieces;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Pieces>>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_connection_until_its_body_is_sent() {
        let activity = Arc::new(Activity::default());
        let start = activity.seen();
        assert!(start.is_quiet_since(start), "nothing was asked");
        let running = activity.begin();
        let asked = activity.seen();
        assert!(!asked.is_quiet_since(start) && !asked.is_quiet_since(asked));
        drop(running);
        let answered = activity.seen();
        assert!(!answered.is_quiet_since(start), "a request began since then");
        assert!(answered.is_quiet_since(asked));
    }

    #[test]
    fn an_answer_is_stuck_when_it_waited_from_one_look_to_the_next() {
        let activity = Arc::new(Activity::default());
        let _running = activity.begin();
        let before = activity.seen();
        let _ = activity.wrote(Poll::<()>::Pending);
        let blocked = activity.seen();
        assert!(!blocked.is_quiet_since(before), "it may have begun to wait just now");
        assert!(blocked.is_quiet_since(blocked));
        let _ = activity.wrote(Poll::Ready(()));
        let _ = activity.wrote(Poll::<()>::Pending);
        assert!(!activity.seen().is_quiet_since(blocked), "the client took something");
    }
}
