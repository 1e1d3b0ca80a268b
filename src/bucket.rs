//! A bucket of permits that fills again with time: how often something may happen. Pure.

use std::time::Duration;

use crate::clock::Boot;

/// At most `size` at once, then one more every `refill`.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    size: u32,
    refill: Duration,
    left: u32,
    since: Option<Boot>,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(size: u32, refill: Duration) -> Self {
        Self { size, refill, left: size, since: None }
    }

    /// Takes a permit, or says how long until there is one.
    pub(crate) fn take(&mut self, now: Boot) -> Result<(), Duration> {
        self.fill(now);
        if self.left > 0 {
            // The refill clock runs only while something is missing.
            if self.left == self.size {
                self.since = Some(now);
            }
            self.left -= 1;
            return Ok(());
        }
        let since = self.since.unwrap_or(now);
        Err(self.refill.saturating_sub(now.since(since)))
    }

    /// Is nothing missing?
    pub(crate) fn is_full(&mut self, now: Boot) -> bool {
        self.fill(now);
        self.left == self.size
    }

    fn fill(&mut self, now: Boot) {
        let Some(since) = self.since else { return };
        let gained = u32::try_from(now.since(since).as_nanos() / self.refill.as_nanos().max(1)).unwrap_or(u32::MAX);
        if gained >= self.size - self.left {
            self.left = self.size;
            self.since = None;
        } else {
            self.left += gained;
            self.since = Some(since + self.refill * gained);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[tokio::test(start_paused = true)]
    async fn it_gives_its_size_at_once_and_then_one_per_refill() {
        let clock = Clock::virtual_at(std::time::SystemTime::UNIX_EPOCH);
        let mut bucket = Bucket::new(3, Duration::from_secs(10));
        let taken = (0..5).filter(|_| bucket.take(clock.boot()).is_ok()).count();
        assert_eq!(taken, 3);
        assert_eq!(bucket.take(clock.boot()), Err(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(bucket.take(clock.boot()), Ok(()));
        assert!(bucket.take(clock.boot()).is_err());
        tokio::time::advance(Duration::from_secs(3_600)).await;
        let taken = (0..5).filter(|_| bucket.take(clock.boot()).is_ok()).count();
        assert_eq!(taken, 3);
    }
}
