//! Trying again, a limited number of times and for a limited time. The caller decides which outcomes are worth another try.

use std::time::Duration;

use tokio::time::Instant;

use super::{Answer, Ask, Error, Outbound, Patience};

/// No delay grows beyond this.
const LONGEST_DELAY: Duration = Duration::from_secs(8);
/// With less time than this left, no further try is begun: a handshake and an answer across a continent need as much.
const WORTH_A_TRY: Duration = Duration::from_millis(500);

/// What to do after an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Keep the outcome.
    No,
    /// Try again after the usual delay.
    Later,
    /// Try again after this delay, which the other side asked for.
    In(Duration),
}

impl Outbound {
    /// Sends a request again while `again` says so and the patience lasts.
    pub async fn send_patiently(
        &self,
        patience: Patience,
        ask: impl Fn() -> Ask,
        again: impl Fn(&Result<Answer, Error>) -> bool,
    ) -> Result<Answer, Error> {
        let work = |left| {
            let mut ask = ask();
            ask.limit = ask.limit.min(left);
            self.send(ask)
        };
        let again = |outcome: &Result<Answer, Error>| match outcome {
            _ if !again(outcome) => Again::No,
            Ok(answer) => answer.retry_after().map_or(Again::Later, Again::In),
            Err(_) => Again::Later,
        };
        self.patiently(patience, work, again).await
    }

    /// Repeats some work while `again` asks for it and the patience lasts. Each time the work is given the time that is left,
    /// and must end within it. If the end of the patience cuts a try short, the outcome is that of the try before, because
    /// that one says what the other side did.
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
            debug!(tried, wait_ms = wait.as_millis(), "trying again");
            tokio::time::sleep(wait).await;
        }
    }
}
