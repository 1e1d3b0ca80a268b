//! Notices that the machine was suspended: boot time has moved further than the clock of the runtime, which stands still
//! meanwhile. Nobody at the other end of a connection waits so long.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Boot, Clock};

/// A shorter suspend does no harm, and the two clocks are not read at exactly the same time.
const SHORT: Duration = Duration::from_secs(1);
/// How often a request that runs looks whether the machine was suspended.
const LOOK: Duration = Duration::from_secs(1);

/// Both clocks at one moment.
#[derive(Clone, Copy)]
struct Mark {
    boot: Boot,
    awake: Instant,
}

impl Mark {
    fn now(clock: &Clock) -> Self {
        Self { boot: clock.boot(), awake: Instant::now() }
    }

    /// Was the machine suspended between the other mark and this one?
    fn was_suspended_since(&self, before: &Self) -> bool {
        self.boot.since(before.boot) > self.awake.duration_since(before.awake) + SHORT
    }
}

/// Remembers when it was asked last.
#[derive(Default)]
pub(super) struct Watch(Mutex<Option<Mark>>);

impl Watch {
    /// Was the machine suspended since the last question?
    pub(super) fn was_suspended(&self, clock: &Clock) -> bool {
        let mut before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked at each request: mostly one clock says enough.
        if before.is_some_and(|before| clock.boot().since(before.boot) <= SHORT) {
            return false;
        }
        let now = Mark::now(clock);
        before.replace(now).is_some_and(|before| now.was_suspended_since(&before))
    }
}

/// Ends soon after the end of a suspend that begins after the call.
pub(super) async fn noticed(clock: &Clock) {
    let before = Mark::now(clock);
    loop {
        tokio::time::sleep(LOOK).await;
        if Mark::now(clock).was_suspended_since(&before) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_suspend_is_noticed_once_and_time_that_passes_is_none() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let watch = Watch::default();
        assert!(!watch.was_suspended(&clock));
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert!(!watch.was_suspended(&clock), "an hour of work");
        clock.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        assert!(!watch.was_suspended(&clock), "a step of the wall clock");
        clock.suspend(Duration::from_secs(2));
        assert!(watch.was_suspended(&clock));
        assert!(!watch.was_suspended(&clock), "it was told");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_runs_learns_of_a_suspend_within_a_second() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let began = Instant::now();
        let suspend = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            clock.suspend(Duration::from_secs(600));
        };
        tokio::join!(noticed(&clock), suspend);
        assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    }
}
