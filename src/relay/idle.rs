//! How long nothing has passed in an exchange, in either direction.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

/// An exchange in which nothing passes for so long is ended.
pub(super) const IDLE: Duration = Duration::from_secs(600);

/// What a future gives, unless it takes too long. What is there at once needs no timer.
pub(super) async fn unless_idle<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let at_once = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
    match at_once {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout(IDLE, future).await.ok(),
    }
}

/// Notes when a byte last passed. Both directions of an exchange share it.
#[derive(Debug)]
pub(super) struct LastByte {
    begun: Instant,
    /// Milliseconds after the beginning.
    last: AtomicU64,
}

impl Default for LastByte {
    fn default() -> Self {
        Self { begun: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl LastByte {
    /// A byte has passed.
    pub(super) fn passed(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
    }

    /// When it is idle, if nothing passes until then.
    pub(super) fn idle_at(&self) -> Instant {
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed)) + IDLE
    }

    /// Has nothing passed for too long?
    pub(super) fn is_idle(&self) -> bool {
        self.idle_at() <= Instant::now()
    }
}
