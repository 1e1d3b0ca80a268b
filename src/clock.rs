//! Time as a value: the only reader of the system's clocks.
//!
//! There are two clocks. *Boot time* includes suspend and never jumps: only it decides whether a token is fresh. *Wall time*
//! can be wrong by minutes and is set while we run: it is for display and for claims. The timers of the runtime stand still
//! during suspend, so what has to happen at a point of boot time waits for it with an [`Alarm`].
//!
//! The virtual clock follows tokio's `Instant`, so that one `advance` moves expiry and timers together. A test can also suspend
//! the machine ([`Clock::suspend`]) or set its wall clock ([`Clock::set_wall`]).

use std::ops::Add;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

mod alarm;
mod rfc3339;

pub(crate) use alarm::Alarm;
pub(crate) use rfc3339::{from_rfc3339, rfc3339, rfc3339_millis};

/// A point on the clock that runs through suspend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot(Duration);

impl Boot {
    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Boot {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Boot time.
    pub boot: Boot,
    /// Wall time.
    pub wall: SystemTime,
}

/// Where the time comes from.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Virtual { start: tokio::time::Instant, changes: watch::Sender<Changes> },
}

/// What a test has done to a virtual clock.
#[derive(Clone, Copy, Debug)]
struct Changes {
    /// The wall time at the start, by the clock as it is set now.
    wall: SystemTime,
    /// The time in suspend, which tokio's clock does not count.
    suspended: Duration,
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that follows tokio's (paused) time and shows `wall` now. For tests.
    pub fn virtual_at(wall: SystemTime) -> Self {
        let changes = watch::Sender::new(Changes { wall, suspended: Duration::ZERO });
        Self(Source::Virtual { start: tokio::time::Instant::now(), changes })
    }

    /// Suspends the machine of a virtual clock for this time and wakes it again. The system's clock is left alone. For tests.
    pub fn suspend(&self, span: Duration) {
        if let Source::Virtual { changes, .. } = &self.0 {
            changes.send_modify(|changes| changes.suspended += span);
        }
    }

    /// Sets the wall clock of a virtual clock, as NTP does. The system's clock is left alone. For tests.
    pub fn set_wall(&self, now: SystemTime) {
        if let Source::Virtual { start, changes } = &self.0 {
            changes.send_modify(|changes| changes.wall = now - (start.elapsed() + changes.suspended));
        }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        Now { boot: self.boot(), wall: self.wall() }
    }

    /// A timer for points of boot time.
    pub(crate) fn alarm(&self) -> Alarm {
        Alarm::new(self.clone())
    }

    /// Boot time: decides freshness.
    pub fn boot(&self) -> Boot {
        match &self.0 {
            Source::System => Boot(boot_time()),
            // An offset keeps "an hour ago" representable in tests.
            Source::Virtual { start, changes } => {
                Boot(start.elapsed() + changes.borrow().suspended + Duration::from_secs(86_400))
            }
        }
    }

    /// The moment `span` ago.
    pub fn just_before(&self, span: Duration) -> Boot {
        Boot(self.boot().0.saturating_sub(span))
    }

    /// Wall time: for people and claims.
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Source::System => wall_time(),
            Source::Virtual { start, changes } => {
                let Changes { wall, suspended } = *changes.borrow();
                wall + start.elapsed() + suspended
            }
        }
    }

    /// Wall time in whole seconds since 1970, as JWT claims count it (RFC 7519 section 2).
    pub fn unix(&self) -> i64 {
        unix(self.wall())
    }
}

/// Seconds since 1970.
pub(crate) fn unix(wall: SystemTime) -> i64 {
    wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |span| i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}

/// `30s`, `5m`, `1h` or a bare number of seconds, as people write spans in flags and configuration.
pub(crate) fn span(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return None,
    };
    number.parse::<u32>().ok().map(|number| Duration::from_secs(u64::from(number) * factor))
}

fn boot_time() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const RUNS_THROUGH_SUSPEND: ClockId = ClockId::CLOCK_BOOTTIME;
    // On macOS this clock includes the time that the machine sleeps.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const RUNS_THROUGH_SUSPEND: ClockId = ClockId::CLOCK_MONOTONIC;
    clock_gettime(RUNS_THROUGH_SUSPEND).map(Duration::from).expect("the kernel has this clock")
}

#[expect(clippy::disallowed_methods, reason = "the one reader of wall time")]
fn wall_time() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_advance_moves_both_readings() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
        let before = clock.boot();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(clock.boot().since(before), Duration::from_secs(60));
        assert_eq!(clock.unix(), 1_060);
    }

    #[tokio::test(start_paused = true)]
    async fn suspend_moves_both_clocks_and_a_step_the_wall_clock_alone() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
        let before = clock.boot();
        clock.suspend(Duration::from_secs(60));
        assert_eq!((clock.boot().since(before).as_secs(), clock.unix()), (60, 1_060));
        clock.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(5_000));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((clock.boot().since(before).as_secs(), clock.unix()), (61, 5_001));
    }

    #[test]
    fn wall_time_is_shown_as_rfc_3339() {
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_999)), "2023-11-14T22:13:20Z");
        let late = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_009);
        assert_eq!(rfc3339_millis(late), "2023-11-14T22:13:20.009Z");
    }
}
