//! A timer for points of boot time.
//!
//! The runtime's timers follow a clock that stands still during suspend: one of an hour that was set before a night's suspend
//! rings the next morning as late as the lid was closed. On Linux this one is a timer of the kernel on CLOCK_BOOTTIME, which
//! rings at the moment of the resume. Elsewhere, and where no descriptor is left for it, boot time is looked at again every few
//! seconds.

use std::time::Duration;

use super::{Boot, Clock, Source};

/// How often boot time is looked at without a timer of the kernel.
const LOOK: Duration = Duration::from_secs(5);

/// Waits for points of boot time, one at a time.
pub(crate) struct Alarm {
    clock: Clock,
    timer: Option<kernel::Timer>,
}

impl Alarm {
    /// Must be called inside a runtime.
    pub(super) fn new(clock: Clock) -> Self {
        let timer = if matches!(clock.0, Source::System) { kernel::Timer::new() } else { None };
        Self { clock, timer }
    }

    /// Waits until this moment of boot time; without one, for ever.
    pub(crate) async fn until(&self, moment: Option<Boot>) {
        let Some(moment) = moment else { return std::future::pending().await };
        loop {
            let left = moment.since(self.clock.boot());
            if left.is_zero() {
                return;
            }
            match (&self.clock.0, &self.timer) {
                (Source::Virtual { changes, .. }, _) => {
                    let mut changes = changes.subscribe();
                    tokio::select! {
                        () = tokio::time::sleep(left) => {}
                        _ = changes.changed() => {}
                    }
                }
                (Source::System, Some(timer)) if timer.wait(moment).await.is_ok() => {}
                (Source::System, _) => tokio::time::sleep(left.min(LOOK)).await,
            }
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod kernel {
    use std::io;
    use std::os::fd::AsFd;

    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use tokio::net::unix::pipe::Receiver;

    use super::Boot;

    /// A timer of the kernel.
    pub(super) struct Timer {
        timer: TimerFd,
        /// The same timer, to wait for. A timer is read as a pipe is, and tokio has no safe type for other descriptors.
        rings: Receiver,
    }

    impl Timer {
        /// Nothing if the process has no descriptor left for it.
        pub(super) fn new() -> Option<Self> {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags).ok()?;
            let rings = timer.as_fd().try_clone_to_owned().ok()?;
            Some(Self { rings: Receiver::from_owned_fd_unchecked(rings).ok()?, timer })
        }

        /// Waits until the timer rings. Sets it to this moment first, which silences an earlier one.
        pub(super) async fn wait(&self, moment: Boot) -> io::Result<()> {
            let moment = Expiration::OneShot(TimeSpec::from_duration(moment.0));
            self.timer.set(moment, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            loop {
                self.rings.readable().await?;
                // The number of times that it rang, which does not matter.
                match self.rings.try_read(&mut [0; 8]) {
                    // It was ready for an earlier moment.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    rang => return rang.map(drop),
                }
            }
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod kernel {
    use std::io;

    use super::Boot;

    /// There is none.
    pub(super) enum Timer {}

    impl Timer {
        pub(super) fn new() -> Option<Self> {
            None
        }

        pub(super) async fn wait(&self, _: Boot) -> io::Result<()> {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_at_its_moment_however_much_of_the_time_was_suspend() {
        const MINUTE: Duration = Duration::from_secs(60);
        for (suspended, awake) in [(0, 60), (45, 15), (60, 0), (600, 0)] {
            let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
            let (alarm, moment, began) = (clock.alarm(), clock.boot() + MINUTE, tokio::time::Instant::now());
            let suspend = async {
                tokio::task::yield_now().await;
                clock.suspend(Duration::from_secs(suspended));
            };
            tokio::join!(alarm.until(Some(moment)), suspend);
            assert_eq!(began.elapsed().as_secs(), awake, "{suspended} s of suspend");
        }
    }

    #[tokio::test]
    async fn the_kernels_timer_rings_and_can_be_set_again() {
        let clock = Clock::system();
        let alarm = clock.alarm();
        for milliseconds in [0, 1, 20] {
            let moment = clock.boot() + Duration::from_millis(milliseconds);
            alarm.until(Some(moment)).await;
            assert!(clock.boot() >= moment);
        }
        // One that is given up does not ring later.
        let hour = clock.boot() + Duration::from_secs(3_600);
        assert!(tokio::time::timeout(Duration::from_millis(5), alarm.until(Some(hour))).await.is_err());
        let soon = clock.boot() + Duration::from_millis(5);
        alarm.until(Some(soon)).await;
        assert!(clock.boot() >= soon && clock.boot() < hour);
    }
}
