//! Limits the request rate for each issuer: at most 5 token requests in flight, and a token bucket of 10 that refills
//! at 3 per second.
//!
//! When a broker for many servers restarts, all requests may go to the same issuer, which must not take them for an
//! attack.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bucket::Bucket;
use crate::clock::Clock;
use crate::oauth::Issuer;

const IN_FLIGHT: usize = 5;
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_millis(333);

/// The rate limits of all issuers.
pub(crate) struct Pace {
    clock: Clock,
    issuers: Mutex<HashMap<Issuer, Arc<Lane>>>,
}

/// The limits of one issuer.
struct Lane {
    flights: Arc<Semaphore>,
    bucket: Mutex<Bucket>,
}

impl Pace {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, issuers: Mutex::default() }
    }

    /// Waits until a request may be sent. Keep the permit until the request has ended.
    pub(crate) async fn enter(&self, issuer: &Issuer) -> OwnedSemaphorePermit {
        let lane = self.lane(issuer);
        let permit = Arc::clone(&lane.flights).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            let taken = lane.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(self.clock.boot());
            match taken {
                Ok(()) => return permit,
                Err(wait) => tokio::time::sleep(wait.max(Duration::from_millis(1))).await,
            }
        }
    }

    /// The limits of this issuer, created if necessary.
    fn lane(&self, issuer: &Issuer) -> Arc<Lane> {
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        // An issuer without requests can be forgotten: its bucket would be full again after a few seconds.
        if issuers.len() > 256 {
            issuers.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        let lane = || {
            Arc::new(Lane {
                flights: Arc::new(Semaphore::new(IN_FLIGHT)),
                bucket: Mutex::new(Bucket::new(BURST, REFILL)),
            })
        };
        Arc::clone(issuers.entry(issuer.clone()).or_insert_with(lane))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn issuer(name: &str) -> Issuer {
        Issuer::parse(&format!("https://{name}.example.com")).expect("good")
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rest_is_paced() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let pace = Pace::new(clock.clone());
        let start = clock.boot();
        for _ in 0..10 {
            drop(pace.enter(&issuer("one")).await);
        }
        assert_eq!(clock.boot().since(start), Duration::ZERO);
        for _ in 0..6 {
            drop(pace.enter(&issuer("one")).await);
        }
        let took = clock.boot().since(start);
        assert!(took >= Duration::from_millis(1_900) && took <= Duration::from_millis(2_100), "{took:?}");
        drop(pace.enter(&issuer("two")).await);
        assert_eq!(clock.boot().since(start), took);
    }

    #[tokio::test(start_paused = true)]
    async fn only_five_are_in_flight() {
        let pace = Pace::new(Clock::virtual_at(SystemTime::UNIX_EPOCH));
        let one = issuer("one");
        let held: Vec<_> = [(); 5].iter().map(|()| pace.enter(&one)).collect();
        let held = futures_util::future::join_all(held).await;
        let sixth = tokio::time::timeout(Duration::from_secs(60), pace.enter(&issuer("one"))).await;
        assert!(sixth.is_err());
        drop(held);
        drop(pace.enter(&issuer("one")).await);
    }
}
