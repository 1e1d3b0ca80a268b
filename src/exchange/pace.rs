//! Limits the request rate for each issuer: at most 5 token requests in flight, and a token bucket of 10 that refills
//! at 3 per second.
//!
//! When a broker for many servers restarts, all requests may go to the same issuer, which must not take them for an
//! attack. Those who wait have an order: callers and the renewals of tokens in use take turns, and within each kind users
//! do, so that one user with many requests does not hold up the others. What nobody waits for yet goes last. The queue is
//! bounded, for each user and in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::Error;
use crate::bucket::Bucket;
use crate::clock::Clock;
use crate::oauth::Issuer;
use crate::urgency::{Level, Urgency};

const IN_FLIGHT: usize = 5;
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_millis(333);
/// So many requests on behalf of users may wait for one issuer. The configuration bounds those of the daemon itself.
const WAITING: usize = 512;
/// So many of them of one user, of each level.
const WAITING_OF_USER: usize = 64;

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
    /// How many were admitted.
    admitted: u64,
    /// For each user, the count of `admitted` when it was last served.
    served: HashMap<Option<u32>, u64>,
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

    /// Waits until a request may be sent. Keep the permit until the request has ended. Fails if too many wait already.
    pub(crate) async fn enter(&self, issuer: &Issuer, urgency: &Urgency) -> Result<Permit, Error> {
        let lane = self.lane(issuer);
        let (admitted, mut permit) = oneshot::channel();
        let full = || Error::Crowded { issuer: issuer.clone() };
        let number = lane.line_up(urgency.clone(), admitted).ok_or_else(full)?;
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
                Ok(permit) = &mut permit => return Ok(permit),
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
        let state = State {
            in_flight: 0,
            bucket,
            waiting: Vec::new(),
            next: 0,
            last: Level::Renewal,
            admitted: 0,
            served: HashMap::new(),
        };
        Self { clock, state: Mutex::new(state), freed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request to the queue and returns its number; `None` if too many wait.
    fn line_up(&self, urgency: Urgency, admitted: oneshot::Sender<Permit>) -> Option<u64> {
        let mut state = self.state();
        if !state.has_room(&urgency) {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.waiting.push(Waiter { number, urgency, admitted });
        Some(number)
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
    fn has_room(&self, urgency: &Urgency) -> bool {
        let (Some(user), level) = (urgency.first_user(), urgency.level()) else { return true };
        let of_users = self.waiting.iter().filter_map(|waiter| Some((waiter.urgency.first_user()?, &waiter.urgency)));
        let (mut all, mut alike) = (0, 0);
        for (other, urgency) in of_users {
            all += 1;
            alike += usize::from(other == user && urgency.level() == level);
        }
        all < WAITING && alike < WAITING_OF_USER
    }

    /// Takes out whose turn it is.
    fn take_next(&mut self) -> Option<Waiter> {
        let levels: Vec<Level> = self.waiting.iter().map(|waiter| waiter.urgency.level()).collect();
        let other = if self.last == Level::Awaited { Level::Renewal } else { Level::Awaited };
        let turn = [other, self.last, Level::Background].into_iter().find(|level| levels.contains(level))?;
        if turn != Level::Background {
            self.last = turn;
        }
        let of_turn = self.waiting.iter().enumerate().filter(|(at, _)| levels[*at] == turn);
        let last_turn = |user: Option<u32>| self.served.get(&user).copied().unwrap_or(0);
        let served_longest_ago = |waiter: &Waiter| waiter.urgency.least_user(last_turn);
        let (first, waiter) =
            of_turn.min_by_key(|(_, waiter)| (last_turn(served_longest_ago(waiter)), waiter.number))?;
        let user = served_longest_ago(waiter);
        let waiter = self.waiting.swap_remove(first);
        self.admitted += 1;
        self.served.insert(user, self.admitted);
        // Users with nothing in the queue need no memory of their last turn.
        let Self { served, waiting, .. } = self;
        if served.len() > WAITING {
            served.retain(|user, _| waiting.iter().any(|waiter| waiter.urgency.first_user() == *user));
        }
        Some(waiter)
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

    use futures_util::future::join_all;

    use super::*;

    fn issuer(name: &str) -> Issuer {
        Issuer::parse(&format!("https://{name}.example.com")).expect("good")
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_goes_before_what_nobody_waits_for_and_takes_turns_with_renewals() {
        let pace = Pace::new(Clock::virtual_at(SystemTime::UNIX_EPOCH));
        let (one, order) = (issuer("one"), Mutex::new(Vec::new()));
        let request = async |name: String, urgency: Urgency| {
            let permit = pace.enter(&one, &urgency).await.expect("there is room");
            order.lock().expect("whole").push(name);
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(permit);
        };
        let background: Vec<_> = (0..1_000).map(|_| Urgency::new(Level::Background, None)).collect();
        let all = background.iter().enumerate().map(|(at, urgency)| request(format!("b{at}"), urgency.clone()));
        let later = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let before = order.lock().expect("whole").len();
            // A caller joins a flight that began for nobody.
            background[999].raise(Level::Awaited, None);
            let of = |level| move |at| (format!("{level:?}{at}"), Urgency::new(level, None));
            let callers = (0..3).map(of(Level::Awaited)).chain((0..3).map(of(Level::Renewal)));
            join_all(callers.map(|(name, urgency)| request(name, urgency))).await;
            let order = order.lock().expect("whole").split_off(before);
            let wanted = ["b999", "Renewal0", "Awaited0", "Renewal1", "Awaited1", "Renewal2", "Awaited2"];
            assert_eq!(order[..wanted.len()], wanted);
        };
        tokio::select! {
            () = later => {}
            _ = join_all(all) => panic!("a thousand take minutes"),
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

    async fn pass(pace: &Pace, name: &str, urgency: Urgency) {
        drop(pace.enter(&issuer(name), &urgency).await.expect("there is room"));
    }

    /// A lane whose bucket is empty.
    async fn busy() -> (Pace, Clock) {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let pace = Pace::new(clock.clone());
        for _ in 0..BURST {
            pass(&pace, "one", Urgency::AWAITED).await;
        }
        (pace, clock)
    }

    /// How long this request takes while all of `crowd` wait for the same issuer.
    async fn wait_behind(crowd: Vec<Urgency>, urgency: Urgency) -> Duration {
        let (pace, clock) = busy().await;
        let crowd = join_all(crowd.into_iter().map(|urgency| pass(&pace, "one", urgency)));
        let mine = async {
            // Behind all others.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let start = clock.boot();
            pass(&pace, "one", urgency).await;
            clock.boot().since(start)
        };
        let (_, waited) = tokio::join!(crowd, mine);
        waited
    }

    fn of(user: u32, level: Level) -> Urgency {
        Urgency::new(level, Some(user))
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_with_many_requests_does_not_hold_up_another() {
        let many = |count| (0..count).map(|_| of(1, Level::Awaited)).collect::<Vec<_>>();
        let waited = wait_behind(many(WAITING_OF_USER), of(2, Level::Awaited)).await;
        assert!(waited <= 2 * REFILL, "{waited:?}");
        let waited = wait_behind(many(16), of(1, Level::Awaited)).await;
        assert!(waited > 15 * REFILL, "its own requests keep their order: {waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_that_joins_anothers_request_has_its_own_turn_with_it() {
        let (pace, clock) = busy().await;
        let crowd = join_all((0..40).map(|_| pass(&pace, "one", of(1, Level::Awaited))));
        let shared = of(1, Level::Awaited);
        let last = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            pass(&pace, "one", shared.clone()).await;
            clock.boot()
        };
        let joins = async {
            tokio::time::sleep(2 * REFILL).await;
            shared.raise(Level::Awaited, Some(2));
            clock.boot()
        };
        let (_, served, joined) = tokio::join!(crowd, last, joins);
        assert!(served.since(joined) <= 2 * REFILL, "{:?}", served.since(joined));
    }

    #[tokio::test(start_paused = true)]
    async fn no_number_of_new_tokens_holds_up_a_renewal_nor_of_renewals_a_new_token() {
        for (others, mine) in [(Level::Awaited, Level::Renewal), (Level::Renewal, Level::Awaited)] {
            let crowd: Vec<Urgency> = (1..=50).map(|user| of(user, others)).collect();
            let waited = wait_behind(crowd, of(51, mine)).await;
            assert!(waited <= 3 * REFILL, "{mine:?} behind {others:?}: {waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_for_each_user_and_in_all() {
        let lane = Lane::new(Clock::virtual_at(SystemTime::UNIX_EPOCH));
        let joins = |urgency| lane.line_up(urgency, oneshot::channel().0).is_some();
        let joined = (0..1_000).filter(|_| joins(of(1, Level::Awaited))).count();
        assert_eq!(joined, WAITING_OF_USER);
        assert!(joins(of(1, Level::Renewal)) && joins(of(2, Level::Awaited)), "others have room");
        let joined = (0..1_000).filter(|user| joins(of(100 + user, Level::Awaited))).count();
        assert_eq!(joined, WAITING - WAITING_OF_USER - 2);
        assert!(joins(Urgency::new(Level::Background, None)), "the daemon's own are not counted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rest_is_paced() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let pace = Pace::new(clock.clone());
        let start = clock.boot();
        for _ in 0..10 {
            pass(&pace, "one", Urgency::AWAITED).await;
        }
        assert_eq!(clock.boot().since(start), Duration::ZERO);
        for _ in 0..6 {
            pass(&pace, "one", Urgency::AWAITED).await;
        }
        let took = clock.boot().since(start);
        assert!(took >= Duration::from_millis(1_900) && took <= Duration::from_millis(2_100), "{took:?}");
        pass(&pace, "two", Urgency::AWAITED).await;
        assert_eq!(clock.boot().since(start), took);
    }

    #[tokio::test(start_paused = true)]
    async fn only_five_are_in_flight() {
        let pace = Pace::new(Clock::virtual_at(SystemTime::UNIX_EPOCH));
        let (one, urgency) = (issuer("one"), Urgency::AWAITED);
        let held: Vec<_> = [(); 5].iter().map(|()| pace.enter(&one, &urgency)).collect();
        let held = join_all(held).await;
        let sixth = tokio::time::timeout(Duration::from_secs(60), pace.enter(&issuer("one"), &Urgency::AWAITED)).await;
        assert!(sixth.is_err());
        drop(held);
        pass(&pace, "one", Urgency::AWAITED).await;
    }
}
