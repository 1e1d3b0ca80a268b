//! Chance for delays, so that a fleet does not act in step, and for names. Not for secrets.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A small generator (SplitMix64). A fixed seed makes tests repeatable.
#[derive(Debug)]
pub struct Jitter(AtomicU64);

impl Jitter {
    /// Seeded by the system.
    pub fn from_system() -> Self {
        Self::seeded(getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id())))
    }

    /// Seeded by the test.
    pub fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A span between the two, evenly spread.
    pub fn between(&self, low: Duration, high: Duration) -> Duration {
        let width = high.saturating_sub(low);
        low + width.mul_f64(self.fraction())
    }

    /// Full jitter with a floor: between `floor` and `floor · 2^streak`, at most `cap`.
    pub fn backoff(&self, floor: Duration, cap: Duration, streak: u32) -> Duration {
        let high = floor.saturating_mul(1 << streak.min(16)).min(cap);
        self.between(floor, high)
    }

    fn number(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fraction(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exactly what a fraction can hold")]
        let fraction = (self.number() >> 11) as f64 / (1u64 << 53) as f64;
        fraction
    }
}

/// A new name for a request, under which log, audit and the error of its client can be found. No two of a process are equal.
pub(crate) fn request_id() -> String {
    static NAMES: LazyLock<Jitter> = LazyLock::new(Jitter::from_system);
    format!("{:016x}", NAMES.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_grows_to_its_cap_and_never_falls_below_its_floor() {
        let jitter = Jitter::seeded(7);
        let (floor, cap) = (Duration::from_millis(500), Duration::from_secs(60));
        for streak in 0..40 {
            let delay = jitter.backoff(floor, cap, streak);
            assert!(delay >= floor && delay <= cap, "{streak}: {delay:?}");
        }
        let late: Vec<_> = (0..50).map(|_| jitter.backoff(floor, cap, 12)).collect();
        assert!(
            late.iter().max() > Some(&Duration::from_secs(40)) && late.iter().min() < Some(&Duration::from_secs(20))
        );
    }
}
