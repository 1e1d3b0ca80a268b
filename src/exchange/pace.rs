//! Limits the request rate for each issuer: at most 5 token requests in flight, and a token bucket of 10 that refills
//! at 3 per second.
//!
//! When a broker for many servers restarts, all requests may go to the same issuer, which must not take them for an
//! attack. Those who wait have an order: callers and the renewals of tokens in use take turns, each kind in the order in
//! which they came. What nobody waits for yet goes last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::bucket::Bucket;
use crate::clock::Clock;
use crate::oauth::Issuer;
use crate::urgency::{Level, Urgency};

const IN_FLIGHT: usize = 5;
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_millis(333);

/// The rate limits of all issuers.
pub(crate) struct Pace {
    clock: Clock,
    issuers: Mutex<HashMap<Issuer, Arc<Lane>>>,
}

/// The limits of one issuer, and who waits for it.
struct Lane {
    clock: Clock,
    state: Mutex<State>,
    /// A request has ended.
    freed: Notify,
}

struct State {
    in_flight: usize,
    bucket: Bucket,
    waiting: Vec<Waiter>,
    /// The number of the next one who comes.
    next: u64,
    /// Whom the last place that both kinds wanted was given to.
    last: Level,
}

struct Waiter {
    number: u64,
    urgency: Urgency,
    admitted: oneshot::Sender<Permit>,
}

/// The permission to send one request. Its end makes room for another.
pub(crate) struct Permit(Arc<Lane>);

/// A place in the queue, which is given up with this value.
struct InLine<'a> {
    lane: &'a Lane,
    number: u64,
}

impl Pace {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, issuers: Mutex::default() }
    }

    /// Waits until a request may be sent. Keep the permit until the request has ended.
    pub(crate) async fn enter(&self, issuer: &Issuer, urgency: &Urgency) -> Permit {
        let lane = self.lane(issuer);
        let (admitted, mut permit) = oneshot::channel();
        let number = lane.line_up(urgency.clone(), admitted);
        let _in_line = InLine { lane: &lane, number };
        loop {
            let mut freed = std::pin::pin!(lane.freed.notified());
            // From now on no end of a request is missed.
            freed.as_mut().enable();
            let refilled = lane.admit();
            let refilled = async {
                match refilled {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Ok(permit) = &mut permit => return permit,
                () = refilled => {}
                () = freed => {}
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
        Arc::clone(issuers.entry(issuer.clone()).or_insert_with(|| Arc::new(Lane::new(self.clock.clone()))))
    }
}

impl Lane {
    fn new(clock: Clock) -> Self {
        let bucket = Bucket::new(BURST, REFILL);
        let state = State { in_flight: 0, bucket, waiting: Vec::new(), next: 0, last: Level::Renewal };
        Self { clock, state: Mutex::new(state), freed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line_up(&self, urgency: Urgency, admitted: oneshot::Sender<Permit>) -> u64 {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.waiting.push(Waiter { number, urgency, admitted });
        number
    }

    /// Admits as many as the limits allow. If somebody waits for the bucket alone, returns when it has refilled.
    fn admit(self: &Arc<Self>) -> Option<Duration> {
        loop {
            let waiter = {
                let mut state = self.state();
                if state.waiting.is_empty() || state.in_flight >= IN_FLIGHT {
                    return None;
                }
                if let Err(wait) = state.bucket.take(self.clock.boot()) {
                    return Some(wait.max(Duration::from_millis(1)));
                }
                state.in_flight += 1;
                state.take_next()
            };
            // If it has just gone, its permit ends at once.
            drop(waiter.map(|waiter| waiter.admitted.send(Permit(Arc::clone(self)))));
        }
    }
}

impl State {
    /// Takes out whose turn it is.
    fn take_next(&mut self) -> Option<Waiter> {
        let levels: Vec<Level> = self.waiting.iter().map(|waiter| waiter.urgency.level()).collect();
        let other = if self.last == Level::Awaited { Level::Renewal } else { Level::Awaited };
        let turn = [other, self.last, Level::Background].into_iter().find(|level| levels.contains(level))?;
        if turn != Level::Background {
            self.last = turn;
        }
        let of_turn = self.waiting.iter().enumerate().filter(|(at, _)| levels[*at] == turn);
        let (first, _) = of_turn.min_by_key(|(_, waiter)| waiter.number)?;
        Some(self.waiting.swap_remove(first))
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.lane.state().waiting.retain(|waiter| waiter.number != self.number);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.state().in_flight -= 1;
        self.0.freed.notify_waiters();
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
    async fn a_caller_goes_before_what_nobody_waits_for_and_takes_turns_with_renewals() {
        let pace = Pace::new(Clock::virtual_at(SystemTime::UNIX_EPOCH));
        let (one, order) = (issuer("one"), Mutex::new(Vec::new()));
        let request = async |name: String, urgency: Urgency| {
            let permit = pace.enter(&one, &urgency).await;
            order.lock().expect("whole").push(name);
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(permit);
        };
        let background: Vec<_> = (0..1_000).map(|_| Urgency::new(Level::Background)).collect();
        let all = background.iter().enumerate().map(|(at, urgency)| request(format!("b{at}"), urgency.clone()));
        let later = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let before = order.lock().expect("whole").len();
            // A caller joins a flight that began for nobody.
            background[999].raise(Level::Awaited);
            let of = |level| move |at| (format!("{level:?}{at}"), Urgency::new(level));
            let callers = (0..3).map(of(Level::Awaited)).chain((0..3).map(of(Level::Renewal)));
            futures_util::future::join_all(callers.map(|(name, urgency)| request(name, urgency))).await;
            let order = order.lock().expect("whole").split_off(before);
            let wanted = ["b999", "Renewal0", "Awaited0", "Renewal1", "Awaited1", "Renewal2", "Awaited2"];
            assert_eq!(order[..wanted.len()], wanted);
        };
        tokio::select! {
            () = later => {}
            _ = futures_util::future::join_all(all) => panic!("a thousand take minutes"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_keeps_no_place() {
        let pace = Pace::new(Clock::virtual_at(SystemTime::UNIX_EPOCH));
        let (one, urgency) = (issuer("one"), Urgency::AWAITED);
        for _ in 0..100 {
            let waits = tokio::time::timeout(Duration::from_millis(1), pace.enter(&one, &urgency)).await;
            drop(waits);
        }
        let lane = pace.lane(&one);
        let state = lane.state();
        assert_eq!((state.waiting.len(), state.in_flight), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rest_is_paced() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let pace = Pace::new(clock.clone());
        let start = clock.boot();
        for _ in 0..10 {
            drop(pace.enter(&issuer("one"), &Urgency::AWAITED).await);
        }
        assert_eq!(clock.boot().since(start), Duration::ZERO);
        for _ in 0..6 {
            drop(pace.enter(&issuer("one"), &Urgency::AWAITED).await);
        }
        let took = clock.boot().since(start);
        assert!(took >= Duration::from_millis(1_900) && took <= Duration::from_millis(2_100), "{took:?}");
        drop(pace.enter(&issuer("two"), &Urgency::AWAITED).await);
        assert_eq!(clock.boot().since(start), took);
    }

    #[tokio::test(start_paused = true)]
    async fn only_five_are_in_flight() {
        let pace = Pace::new(Clock::virtual_at(SystemTime::UNIX_EPOCH));
        let (one, urgency) = (issuer("one"), Urgency::AWAITED);
        let held: Vec<_> = [(); 5].iter().map(|()| pace.enter(&one, &urgency)).collect();
        let held = futures_util::future::join_all(held).await;
        let sixth = tokio::time::timeout(Duration::from_secs(60), pace.enter(&issuer("one"), &Urgency::AWAITED)).await;
        assert!(sixth.is_err());
        drop(held);
        drop(pace.enter(&issuer("one"), &Urgency::AWAITED).await);
    }
}
