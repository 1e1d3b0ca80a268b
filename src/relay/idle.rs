//! How long nothing has passed in an exchange, in either direction.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

/// An exchange in which nothing passes for so long is ended.
pub(super) const IDLE: Duration = Duration::from_secs(600);
/// The longest wait for the head of an answer, also if the body of the request goes on and on.
const HEAD_LIMIT: Duration = Duration::from_secs(24 * 3_600);

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

    /// When the head of an answer is late, if nothing passes until then, to a request that was first sent at that time.
    pub(super) fn head_late_at(&self, sent: Instant) -> Instant {
        self.idle_at().min(sent + HEAD_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_passes_moves_the_end_of_the_wait_for_a_head_but_not_beyond_a_day() {
        let (last_byte, sent) = (LastByte::default(), Instant::now());
        assert_eq!(last_byte.head_late_at(sent), sent + IDLE);
        while sent.elapsed() < HEAD_LIMIT {
            tokio::time::advance(IDLE / 2).await;
            last_byte.passed();
            assert_eq!(last_byte.head_late_at(sent), (Instant::now() + IDLE).min(sent + HEAD_LIMIT));
        }
    }
}
