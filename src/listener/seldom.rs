//! A future that is seldom ready, beside one that is polled all the time.
//!
//! A connection is polled for each of its requests. What may end it (a stop, a look at the clock) would be polled each time as
//! well, which costs as much as a tenth of a request. Here it is polled only after it has asked for that.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// A future that is polled only if it was woken itself, and not if its task was woken for something else.
pub(super) struct Seldom<F> {
    future: F,
    signal: Arc<Signal>,
}

/// What the future wakes.
struct Signal {
    is_due: AtomicBool,
    task: AtomicWaker,
}

impl<F> Seldom<F> {
    pub(super) fn new(future: F) -> Self {
        Self { future, signal: Arc::new(Signal { is_due: AtomicBool::new(true), task: AtomicWaker::new() }) }
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_due.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F: Future + Unpin> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // First the waker, then the question: a signal between the two wakes the task again.
        self.signal.task.register(context.waker());
        if !self.signal.is_due.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.signal));
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_polled_when_it_was_woken_and_not_for_others() {
        let polled = AtomicU32::new(0);
        let mut sleep = Box::pin(tokio::time::sleep(Duration::from_secs(10)));
        let counted = poll_fn(|context| {
            polled.fetch_add(1, Ordering::Relaxed);
            sleep.as_mut().poll(context)
        });
        let mut seldom = Seldom::new(counted);
        let mut others = tokio::time::interval(Duration::from_secs(1));
        let mut rounds = 0;
        loop {
            tokio::select! {
                biased;
                _ = others.tick() => rounds += 1,
                () = &mut seldom => break,
            }
        }
        assert!(rounds >= 10, "{rounds}");
        assert_eq!(polled.load(Ordering::Relaxed), 2, "at the start and at the end");
    }
}
