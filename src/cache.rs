//! The cache: freshness, shared flights, renewal, back-off. It knows tokens and time, not callers or servers.
//!
//! One flight per key at a time: whoever asks meanwhile shares its outcome, good or bad, and a caller that
//! hangs up does not cancel it. A token in use is renewed in the background before anybody waits for it and
//! served until its true expiry; a failed renewal never blanks a good token. What to do for one request is a
//! pure decision ([`entry`]); this file carries it out.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::time::DelayQueue;

use crate::clock::{Boot, Clock};
use crate::jitter::Jitter;
use crate::token::{Digest, Token};

mod entry;

use entry::{Entry, Renewal, Step};
pub use entry::{Least, Wish};

/// No process needs more tokens than this; beyond it the longest unused entry goes.
const CAP: usize = 4_096;
/// A flight that takes longer has lost its way; its callers get an answer.
const FLIGHT_LIMIT: Duration = Duration::from_secs(90);
/// Quick second and third tries inside one flight of a daemon, for the single hiccup that nobody need see.
const QUICK_TRIES: u32 = 3;
const QUICK_DELAY: Duration = Duration::from_millis(200);
const BACKOFF_FLOOR: Duration = Duration::from_millis(500);
const BACKOFF_CAP: Duration = Duration::from_secs(60);
/// With less time than this left, a one-shot does not begin another try.
const WORTH_A_TRY: Duration = Duration::from_millis(500);
/// How long a permanent refusal is remembered.
const REFUSAL_REMEMBERED: Duration = Duration::from_secs(30);

/// Names a token by everything that reaches the wire. Never a secret, never the caller.
pub(crate) type Key = Digest;

/// How a token for one key is made. Called once per try.
pub type Recipe<E> = Arc<dyn Fn() -> BoxFuture<'static, Result<Token, E>> + Send + Sync>;

/// What the cache must know about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same request has a chance later.
    Temporary {
        /// When the other side wants to be asked again.
        retry_after: Option<Duration>,
        /// The maker already tried again with patience of its own.
        tried_patiently: bool,
    },
    /// It has none until somebody changes something.
    Permanent,
}

/// An error that flights can share and the cache can judge.
pub trait Failure: Clone + Send + Sync + 'static {
    /// Temporary or permanent?
    fn verdict(&self) -> Verdict;
    /// There is no outcome to share.
    fn lost(how: Lost) -> Self;
    /// The same failure, with the time after which it is worth asking again.
    fn retry_in(self, wait: Duration) -> Self;
}

/// Why a flight has no outcome of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It panicked.
    Panic,
    /// It took longer than any flight may.
    TooLong,
    /// It brought a token that has expired already.
    StaleToken,
}

/// How long a flight keeps trying.
#[derive(Clone, Copy, Debug)]
pub enum Persistence {
    /// A daemon: a few quick tries, then the back-off, which all callers share.
    Daemon,
    /// One command: until its caller's time-out.
    OneShot(Duration),
}

impl Persistence {
    /// How long a one-shot's requests may take together. It keeps the rest of its time to say what went wrong: a tenth,
    /// which is enough on a busy machine too.
    pub fn for_requests(self) -> Option<Duration> {
        const LEAST: Duration = Duration::from_millis(100);
        const MOST: Duration = Duration::from_secs(1);
        match self {
            Self::Daemon => None,
            Self::OneShot(limit) => Some(limit.saturating_sub((limit / 10).clamp(LEAST, MOST))),
        }
    }
}

/// What the cache counts; whoever builds it decides where to.
pub trait Observer: Send + Sync {
    /// A token was served without waiting.
    fn hit(&self);
    /// A flight began.
    fn flight(&self);
    /// A flight ended.
    fn landed(&self, took: Duration, ok: bool);
}

/// All tokens of this process. Cheap to clone.
pub struct Cache<E>(Arc<Inner<E>>);

impl<E> Clone for Cache<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<E> {
    entries: Mutex<HashMap<Key, Entry<E>>>,
    clock: Clock,
    jitter: Jitter,
    tasks: TaskTracker,
    stop: CancellationToken,
    persistence: Persistence,
    observer: Box<dyn Observer>,
    alarms: mpsc::UnboundedSender<(Key, Duration)>,
}

type Flight<E> = Shared<BoxFuture<'static, Result<Arc<Token>, E>>>;

impl<E: Failure> Cache<E> {
    /// An empty cache whose tasks belong to `tasks` and end with `stop`.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a cache is made of: `Parts` names them once the policy of renewal has a file of its own"
    )]
    pub fn new(
        clock: Clock,
        jitter: Jitter,
        persistence: Persistence,
        tasks: TaskTracker,
        stop: CancellationToken,
        observer: Box<dyn Observer>,
    ) -> Self {
        let (alarms, alarm) = mpsc::unbounded_channel();
        let inner = Inner { entries: Mutex::default(), clock, jitter, tasks, stop, persistence, observer, alarms };
        let cache = Self(Arc::new(inner));
        if matches!(persistence, Persistence::Daemon) {
            let keeper = cache.clone();
            cache.0.tasks.spawn(async move { keeper.keep(alarm).await });
        }
        cache
    }

    /// A fresh token, if there is one that meets the wish. Never waits.
    pub fn hit(&self, key: &Key, wish: &Wish) -> Option<Arc<Token>> {
        let now = self.0.clock.boot();
        let mut entries = self.lock();
        let (token, renewal) = entries.get_mut(key)?.at_hand(wish, now)?;
        if renewal == Renewal::Due {
            drop(self.take_off(&mut entries, *key, now));
        }
        self.0.observer.hit();
        Some(token)
    }

    /// A token that meets the wish as well as possible, made by `recipe` if need be.
    pub async fn token(&self, key: Key, wish: &Wish, recipe: impl FnOnce() -> Recipe<E>) -> Result<Arc<Token>, E> {
        let (flight, meanwhile) = {
            let now = self.0.clock.boot();
            let mut entries = self.lock();
            make_room(&mut entries, &key);
            let entry = entries.entry(key).or_insert_with(|| Entry::new(recipe(), now));
            match entry.step(wish, now) {
                Step::Serve { token, renewal } => {
                    if renewal == Renewal::Due {
                        drop(self.take_off(&mut entries, key, now));
                    }
                    self.0.observer.hit();
                    return Ok(token);
                }
                Step::Fail { error, wait } => return Err(error.retry_in(wait)),
                Step::Join { flight, meanwhile } => (flight, meanwhile),
                Step::TakeOff { meanwhile } => (self.take_off(&mut entries, key, now), meanwhile),
            }
        };
        match (flight.await, meanwhile) {
            (Ok(token), _) => Ok(token),
            // A failed renewal never blanks a good token.
            (Err(_), Some(token)) if token.usable(self.0.clock.boot()) => Ok(token),
            (Err(error), _) => Err(error),
        }
    }

    /// Keeps a token for this key at all times, asked for or not.
    pub fn always(&self, key: Key, recipe: impl FnOnce() -> Recipe<E>) {
        let now = self.0.clock.boot();
        let mut entries = self.lock();
        entries.entry(key).or_insert_with(|| Entry::new(recipe(), now)).always = true;
        if entries.get(&key).is_some_and(|entry| entry.token.is_none() && entry.flight.is_none()) {
            drop(self.take_off(&mut entries, key, now));
        }
    }

    /// Takes over what another cache holds, each entry under its own key. `recipe` says how its next token is made; where
    /// it does not, the entry is left behind. Nothing of a flight comes along.
    pub fn inherit(&self, before: &Self, recipe: impl Fn(&Key, &Token) -> Option<Recipe<E>>) {
        let now = self.0.clock.boot();
        let left: Vec<(Key, Entry<E>)> = {
            let entries = before.lock();
            let held = entries.iter().filter_map(|(key, entry)| Some((key, entry, entry.valid(now)?)));
            held.filter_map(|(key, entry, token)| Some((*key, entry.moved(recipe(key, &token)?)))).collect()
        };
        let mut entries = self.lock();
        for (key, entry) in left {
            self.wake_for(key, &entry, now);
            entries.insert(key, entry);
        }
    }

    /// Starts a flight for this key if there is nothing in hand, in flight or backing off.
    pub fn prefetch(&self, key: Key, recipe: impl FnOnce() -> Recipe<E>) {
        let now = self.0.clock.boot();
        let mut entries = self.lock();
        make_room(&mut entries, &key);
        let entry = entries.entry(key).or_insert_with(|| Entry::new(recipe(), now));
        if let Step::TakeOff { .. } = entry.step(&Wish::ANY, now) {
            drop(self.take_off(&mut entries, key, now));
        }
    }

    /// The server refused this token. It is dropped, unless it is too young for that to be about the token, or
    /// has been dropped too often. True if it was.
    pub fn reject(&self, key: &Key, digest: &Digest) -> bool {
        let now = self.0.clock.boot();
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else { return false };
        let dropped = entry.reject(digest, now);
        if dropped && entry.always {
            self.wake_for(*key, entry, now);
        }
        dropped
    }

    /// The token in hand and the last failure, without touching anything.
    pub fn peek(&self, key: &Key) -> (Option<Arc<Token>>, Option<E>) {
        let now = self.0.clock.boot();
        let entries = self.lock();
        let Some(entry) = entries.get(key) else { return (None, None) };
        let token = entry.valid(now);
        (token, entry.failed.as_ref().map(|failed| failed.error.clone()))
    }

    /// Every token in hand.
    pub fn held(&self) -> Vec<(Key, Arc<Token>)> {
        let now = self.0.clock.boot();
        let entries = self.lock();
        entries
            .iter()
            .flat_map(|(key, entry)| entry.held().map(|token| (*key, Arc::clone(token))))
            .filter(|(_, token)| token.left(now) > Duration::ZERO)
            .collect()
    }

    /// Forgets a token at once, as if it had never been.
    pub fn forget(&self, key: &Key) -> Option<Arc<Token>> {
        let now = self.0.clock.boot();
        let mut entries = self.lock();
        let entry = entries.get_mut(key)?;
        let token = entry.forget(now);
        if entry.always {
            self.wake_for(*key, entry, now);
        }
        token
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry<E>>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the flight of an entry that has none and returns it. Called under the lock.
    fn take_off(&self, entries: &mut HashMap<Key, Entry<E>>, key: Key, now: Boot) -> Flight<E> {
        let entry = entries.get_mut(&key).expect("the caller holds the lock and has the entry");
        if let Some(flight) = &entry.flight {
            return flight.clone();
        }
        self.0.observer.flight();
        let (land, landed) = oneshot::channel();
        let flight: Flight<E> =
            async move { landed.await.unwrap_or_else(|_| Err(E::lost(Lost::Panic))) }.boxed().shared();
        entry.flight = Some(flight.clone());
        let recipe = Arc::clone(&entry.recipe);
        // During an outage the back-off alone decides; quick tries are for the first hiccup.
        let quick_tries = if entry.failed.is_none() { QUICK_TRIES } else { 1 };
        let cache = self.clone();
        self.0.tasks.spawn(async move {
            let work = AssertUnwindSafe(cache.fly(&recipe, quick_tries)).catch_unwind();
            let limit = match cache.0.persistence {
                Persistence::Daemon => FLIGHT_LIMIT,
                Persistence::OneShot(limit) => limit,
            };
            let outcome = match tokio::time::timeout(limit, work).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(E::lost(Lost::Panic)),
                Err(_) => Err(E::lost(Lost::TooLong)),
            };
            let outcome = cache.land(key, now, outcome);
            // Nobody may be waiting any more; then the outcome is in the entry all the same.
            drop(land.send(outcome));
        });
        flight
    }

    /// Makes a token, with the second tries that the persistence grants.
    async fn fly(&self, recipe: &Recipe<E>, quick_tries: u32) -> Result<Token, E> {
        let started = self.0.clock.boot();
        let for_requests = self.0.persistence.for_requests().unwrap_or(Duration::MAX);
        let left = || for_requests.saturating_sub(self.0.clock.boot().since(started));
        let mut tried = 0;
        let mut before = None;
        loop {
            let error = match recipe().await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            let Verdict::Temporary { retry_after, tried_patiently } = error.verdict() else { return Err(error) };
            let wait = match self.0.persistence {
                Persistence::Daemon if tried + 1 >= quick_tries || tried_patiently || retry_after.is_some() => {
                    return Err(error);
                }
                Persistence::Daemon => self.0.jitter.backoff(QUICK_DELAY, BACKOFF_FLOOR, tried + 1),
                Persistence::OneShot(_) => {
                    let backoff = self.0.jitter.backoff(BACKOFF_FLOOR, BACKOFF_CAP, tried + 1);
                    retry_after.map_or(backoff, |after| after.max(backoff))
                }
            };
            tried += 1;
            // A try that was cut short says less of the other side than the failure before it.
            if left().is_zero() {
                return Err(before.unwrap_or(error));
            }
            // A one-shot whose time would be up in the next try says now what went wrong.
            if wait.saturating_add(WORTH_A_TRY) > left() {
                return Err(error);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.0.stop.cancelled() => return Err(error),
            }
            before = Some(error);
        }
    }

    /// Writes the outcome of a flight into its entry and plans what comes next.
    fn land(&self, key: Key, started: Boot, outcome: Result<Token, E>) -> Result<Arc<Token>, E> {
        let now = self.0.clock.boot();
        self.0.observer.landed(now.since(started), outcome.is_ok());
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&key) else { return outcome.map(Arc::new) };
        entry.flight = None;
        let fraction = self.0.jitter.between(Duration::from_millis(700), Duration::from_millis(850));
        match outcome.and_then(|token| entry.landed(token, fraction.as_secs_f64(), now)) {
            Ok(token) => {
                self.wake_for(key, entry, now);
                Ok(token)
            }
            Err(error) => {
                let streak = entry.failed.as_ref().map_or(1, |failed| failed.streak.saturating_add(1));
                let wait = match error.verdict() {
                    // A server may ask for more patience than ours, never for less.
                    Verdict::Temporary { retry_after, .. } => {
                        let backoff = self.0.jitter.backoff(BACKOFF_FLOOR, BACKOFF_CAP, streak);
                        retry_after.map_or(backoff, |after| after.max(backoff))
                    }
                    Verdict::Permanent => REFUSAL_REMEMBERED,
                };
                entry.failed(error.clone(), streak, now + wait, now);
                self.wake_for(key, entry, now);
                Err(error.retry_in(wait))
            }
        }
    }

    fn wake_for(&self, key: Key, entry: &Entry<E>, now: Boot) {
        if let Some(at) = entry.next_look(now) {
            // The receiver is gone only when the process ends.
            let _ = self.0.alarms.send((key, at.since(now)));
        }
    }

    /// The one task that acts on plans: it renews what is in use and forgets what is not.
    async fn keep(&self, mut alarm: mpsc::UnboundedReceiver<(Key, Duration)>) {
        let mut queue = DelayQueue::new();
        let mut set = HashMap::new();
        loop {
            tokio::select! {
                () = self.0.stop.cancelled() => return,
                Some((key, wait)) = alarm.recv() => {
                    // One alarm per key: the newest plan replaces the one before.
                    if let Some(old) = set.remove(&key) {
                        queue.try_remove(&old);
                    }
                    set.insert(key, queue.insert(key, wait));
                }
                Some(due) = futures_util::future::poll_fn(|context| queue.poll_expired(context)), if !queue.is_empty() => {
                    let key = due.into_inner();
                    set.remove(&key);
                    self.look(key);
                }
            }
        }
    }

    fn look(&self, key: Key) {
        let now = self.0.clock.boot();
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&key) else { return };
        if entry.flight.is_some() {
            return;
        }
        if entry.is_forgotten(now) {
            entries.remove(&key);
        } else if entry.is_due(now) {
            drop(self.take_off(&mut entries, key, now));
        } else {
            self.wake_for(key, entry, now);
        }
    }
}

/// Keeps the map within its cap: the longest unused entry goes, never one that is kept always or in flight.
fn make_room<E>(entries: &mut HashMap<Key, Entry<E>>, key: &Key) {
    if entries.len() < CAP || entries.contains_key(key) {
        return;
    }
    let idle = entries.iter().filter(|(_, entry)| !entry.always && entry.flight.is_none());
    if let Some(oldest) = idle.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key) {
        entries.remove(&oldest);
    }
}

#[cfg(test)]
mod tests;
