//! Trying again: how often and for how long. Whether an outcome is worth another try, the source says.

use std::time::Duration;

use tokio::time::Instant;

use super::{Outbound, Patience};

/// No delay grows beyond this.
const LONGEST_DELAY: Duration = Duration::from_secs(8);
/// With less time than this left, no further try is begun: a handshake and an answer across a continent need as much.
const WORTH_A_TRY: Duration = Duration::from_millis(500);

/// What to do after an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// It stands.
    No,
    /// Try again when the patience says so.
    Later,
    /// Try again when the other side said so.
    In(Duration),
}

impl Outbound {
    /// Does some work again while `again` says so and the patience lasts. The work is told what is left for it and must
    /// end by then. A try that the end of the patience cuts short says only that; the failure of the try before it is
    /// what the other side did, so that one is the outcome.
    pub(crate) async fn patiently<T, F: Future<Output = T>>(
        &self,
        patience: Patience,
        work: impl Fn(Duration) -> F,
        again: impl Fn(&T) -> Again,
    ) -> T {
        let started = Instant::now();
        let total = self.left(patience.total);
        let mut tried = 0;
        let mut before = None;
        loop {
            let outcome = work(total.saturating_sub(started.elapsed())).await;
            tried += 1;
            let wait = match again(&outcome) {
                Again::No => return outcome,
                Again::Later => self.0.jitter.backoff(patience.delay, LONGEST_DELAY, tried),
                Again::In(wait) => wait,
            };
            if started.elapsed() >= total {
                return before.unwrap_or(outcome);
            }
            if tried >= patience.tries || started.elapsed() + wait + WORTH_A_TRY > total {
                return outcome;
            }
            before = Some(outcome);
            tracing::debug!(tried, wait_ms = wait.as_millis(), "trying again");
            tokio::time::sleep(wait).await;
        }
    }
}
