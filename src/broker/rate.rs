//! Limits how often each user may ask for a server: one token bucket per user. Over the limit the request is refused
//! with the time to wait, before the cache or the issuer is asked.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::bucket::Bucket;
use crate::clock::Boot;

/// More users than run agents on one machine. All further users share one bucket, so that many users cannot cause a
/// flood.
const CAP: usize = 256;

/// A number of requests per second, minute or hour. All of them may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    times: u32,
    unit: char,
}

impl Rate {
    /// Parses `20/s`, `100/m` or `5/h`. `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (times, unit) = text.split_once('/')?;
        let unit = ["s", "m", "h"].contains(&unit).then(|| unit.chars().next()).flatten()?;
        let plain = times.bytes().all(|byte| byte.is_ascii_digit()) && !times.starts_with('0');
        let times = times.parse().ok().filter(|_| plain)?;
        Some(Self { times, unit })
    }

    /// A full bucket for this rate.
    fn bucket(self) -> Bucket {
        let span = match self.unit {
            's' => Duration::from_secs(1),
            'm' => Duration::from_secs(60),
            _ => Duration::from_secs(3_600),
        };
        Bucket::new(self.times, span / self.times)
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.times, self.unit)
    }
}

/// The buckets of one server.
pub(super) struct RateLimiter {
    pub(super) rate: Rate,
    buckets: Mutex<Buckets>,
}

struct Buckets {
    of_users: HashMap<u32, Bucket>,
    of_the_rest: Bucket,
}

impl RateLimiter {
    pub(super) fn new(rate: Rate) -> Self {
        let buckets = Buckets { of_users: HashMap::new(), of_the_rest: rate.bucket() };
        Self { rate, buckets: Mutex::new(buckets) }
    }

    /// Counts one request of this user. Fails with the time to wait if the user is over the limit.
    pub(super) fn pass(&self, uid: u32, now: Boot) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.of_users.len() >= CAP && !buckets.of_users.contains_key(&uid) {
            return buckets.of_the_rest.take(now);
        }
        buckets.of_users.entry(uid).or_insert_with(|| self.rate.bucket()).take(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::clock::Clock;

    fn rate(text: &str) -> Rate {
        Rate::parse(text).expect("a good rate")
    }

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        for text in ["20/s", "100/m", "1/h", "4294967295/s"] {
            assert_eq!(rate(text).to_string(), text);
        }
        for bad in
            ["", "/s", "20", "20/", "20/d", "0/s", "020/s", "-1/s", "+1/s", "1.5/s", "20/ss", "4294967296/s", " 1/s"]
        {
            assert_eq!(Rate::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_user_has_a_bucket_of_its_own() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let pacer = RateLimiter::new(rate("2/s"));
        let passed = |uid: u32| (0..5).filter(|_| pacer.pass(uid, clock.boot()).is_ok()).count();
        assert_eq!((passed(1), passed(2)), (2, 2));
        assert_eq!(pacer.pass(1, clock.boot()), Err(Duration::from_millis(500)));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(passed(1), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_number_of_users_makes_a_flood() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let pacer = RateLimiter::new(rate("2/s"));
        let passed = (0..10_000).filter(|uid| pacer.pass(*uid, clock.boot()).is_ok()).count();
        assert_eq!(passed, CAP + 2);
    }
}
