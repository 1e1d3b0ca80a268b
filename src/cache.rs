//! The cache: freshness, shared flights, renewal, back-off. It knows tokens and time, not callers or servers.
//!
//! Each key has at most one flight at a time. All who ask meanwhile share its outcome, good or bad, and a caller that
//! hangs up does not cancel it. A token in use is renewed in the background before it expires, and a failed renewal never
//! takes away a valid token. [`policy`] holds the rules and their numbers, [`entry`] the state of one key and the decision
//! for one request; this file carries the decisions out.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Boot, Clock};
use crate::jitter::Jitter;
use crate::token::{Digest, Token};
use crate::urgency::{Level, Urgency};

mod entry;
mod looks;
mod policy;

use entry::{Entry, Renewal, Step};
pub use entry::{Least, Wish};
use looks::Looks;
pub(crate) use policy::may_be_served;
use policy::{Next, Plan, Progress};
pub use policy::{Persistence, Verdict};

/// A digest of everything that the requests for a token contain, but of no secret and not of the caller.
pub(crate) type Key = Digest;

/// Makes a token for one key, as urgently as its flight is. Called once per try.
pub type Recipe<E> = Arc<dyn Fn(Urgency) -> BoxFuture<'static, Result<Token, E>> + Send + Sync>;

/// An error that flights can share and the cache can judge.
pub trait Failure: Clone + Send + Sync + 'static {
    /// Is it temporary or permanent?
    fn verdict(&self) -> Verdict;
    /// The failure of a flight without an outcome.
    fn lost(how: Lost) -> Self;
    /// The same failure, which now says after what time to ask again.
    fn retry_in(self, wait: Duration) -> Self;
}

/// Why a flight has no outcome of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It panicked.
    Panic,
    /// It took longer than a flight may take.
    TooLong,
    /// Its token had already expired.
    StaleToken,
}

/// Counts what the cache does.
pub trait Observer: Send + Sync {
    /// A token was served without waiting.
    fn hit(&self);
    /// A flight began.
    fn flight(&self);
    /// A flight ended.
    fn landed(&self, took: Duration, ok: bool);
}

/// What a cache is made of.
pub struct Parts {
    /// Decides what is fresh.
    pub clock: Clock,
    /// Spreads renewals and retries.
    pub jitter: Jitter,
    /// How long a flight keeps trying.
    pub persistence: Persistence,
    /// All tasks of the cache belong to it.
    pub tasks: TaskTracker,
    /// Ends all tasks of the cache.
    pub stop: CancellationToken,
    /// Counts what the cache does.
    pub observer: Box<dyn Observer>,
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
    parts: Parts,
    alarms: mpsc::UnboundedSender<(Key, Boot)>,
}

type Flight<E> = Shared<BoxFuture<'static, Result<Arc<Token>, E>>>;

impl<E: Failure> Cache<E> {
    /// An empty cache.
    pub fn new(parts: Parts) -> Self {
        let (alarms, alarm) = mpsc::unbounded_channel();
        let cache = Self(Arc::new(Inner { entries: Mutex::default(), parts, alarms }));
        if matches!(cache.0.parts.persistence, Persistence::Daemon) {
            let keeper = cache.clone();
            cache.0.parts.tasks.spawn(async move { keeper.keep(alarm).await });
        }
        cache
    }

    /// A fresh token that meets the wish, if there is one. Never waits.
    pub fn hit(&self, key: &Key, wish: &Wish) -> Option<Arc<Token>> {
        let now = self.now();
        let mut entries = self.lock();
        let (token, renewal) = entries.get_mut(key)?.at_hand(wish, now)?;
        if renewal == Renewal::Due {
            drop(self.take_off(&mut entries, *key, Level::Renewal, now));
        }
        self.0.parts.observer.hit();
        Some(token)
    }

    /// A token that meets the wish as well as possible, made by `recipe` if there is none.
    pub async fn token(&self, key: Key, wish: &Wish, recipe: impl FnOnce() -> Recipe<E>) -> Result<Arc<Token>, E> {
        let (flight, meanwhile) = {
            let now = self.now();
            let mut entries = self.lock();
            make_room(&mut entries, &key);
            let entry = entries.entry(key).or_insert_with(|| Entry::new(recipe(), now));
            match entry.step(wish, now) {
                Step::Serve { token, renewal } => {
                    if renewal == Renewal::Due {
                        drop(self.take_off(&mut entries, key, Level::Renewal, now));
                    }
                    self.0.parts.observer.hit();
                    return Ok(token);
                }
                Step::Fail { error, wait } => return Err(error.retry_in(wait)),
                Step::Join { flight, meanwhile } => {
                    entry.urgency.raise(Level::Awaited);
                    (flight, meanwhile)
                }
                Step::TakeOff { meanwhile } => (self.take_off(&mut entries, key, Level::Awaited, now), meanwhile),
            }
        };
        match (flight.await, meanwhile) {
            (Ok(token), _) => Ok(token),
            // A failed renewal never takes away a valid token.
            (Err(_), Some(token)) if may_be_served(&token, self.now()) => Ok(token),
            (Err(error), _) => Err(error),
        }
    }

    /// Keeps a valid token for this key at all times, even if nobody asks for it.
    pub fn always(&self, key: Key, recipe: impl FnOnce() -> Recipe<E>) {
        let now = self.now();
        let mut entries = self.lock();
        entries.entry(key).or_insert_with(|| Entry::new(recipe(), now)).always = true;
        if entries.get(&key).is_some_and(|entry| entry.token.is_none() && entry.flight.is_none()) {
            drop(self.take_off(&mut entries, key, Level::Background, now));
        }
    }

    /// Takes over the entries of another cache, except their flights and failures. `recipe` gives each entry the way to make
    /// its next token; an entry for which it returns `None` is left behind.
    pub fn inherit(&self, before: &Self, recipe: impl Fn(&Key, &Token) -> Option<Recipe<E>>) {
        let now = self.now();
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

    /// Starts a flight for this key, unless it has a valid token, a flight or a back-off.
    pub fn prefetch(&self, key: Key, recipe: impl FnOnce() -> Recipe<E>) {
        let now = self.now();
        let mut entries = self.lock();
        make_room(&mut entries, &key);
        let entry = entries.entry(key).or_insert_with(|| Entry::new(recipe(), now));
        if let Step::TakeOff { .. } = entry.step(&Wish::ANY, now) {
            drop(self.take_off(&mut entries, key, Level::Background, now));
        }
    }

    /// Drops a token that the server refused, and returns whether it did. A token that is too young stays, and so does any
    /// token once the forced mints of its key are used up.
    pub fn reject(&self, key: &Key, digest: &Digest) -> bool {
        let now = self.now();
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else { return false };
        let dropped = entry.reject(digest, now);
        if dropped && entry.always {
            self.wake_for(*key, entry, now);
        }
        dropped
    }

    /// The valid token and the last failure. Does not count as a use.
    pub fn peek(&self, key: &Key) -> (Option<Arc<Token>>, Option<E>) {
        let now = self.now();
        let entries = self.lock();
        let Some(entry) = entries.get(key) else { return (None, None) };
        let token = entry.valid(now);
        (token, entry.failed.as_ref().map(|failed| failed.error.clone()))
    }

    /// All tokens that have not expired.
    pub fn held(&self) -> Vec<(Key, Arc<Token>)> {
        let now = self.now();
        let entries = self.lock();
        entries
            .iter()
            .flat_map(|(key, entry)| entry.held().map(|token| (*key, Arc::clone(token))))
            .filter(|(_, token)| token.left(now) > Duration::ZERO)
            .collect()
    }

    /// Removes the token of this key and returns it.
    pub fn forget(&self, key: &Key) -> Option<Arc<Token>> {
        let now = self.now();
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

    fn now(&self) -> Boot {
        self.0.parts.clock.boot()
    }

    /// Returns the flight of an entry, which it starts if there is none. Called under the lock.
    fn take_off(&self, entries: &mut HashMap<Key, Entry<E>>, key: Key, level: Level, now: Boot) -> Flight<E> {
        let entry = entries.get_mut(&key).expect("the caller holds the lock and has the entry");
        if let Some(flight) = &entry.flight {
            entry.urgency.raise(level);
            return flight.clone();
        }
        entry.urgency = Urgency::new(level);
        self.0.parts.observer.flight();
        let (land, landed) = oneshot::channel();
        let flight: Flight<E> =
            async move { landed.await.unwrap_or_else(|_| Err(E::lost(Lost::Panic))) }.boxed().shared();
        entry.flight = Some(flight.clone());
        let (recipe, urgency) = (Arc::clone(&entry.recipe), entry.urgency.clone());
        let in_outage = entry.failed.is_some();
        let cache = self.clone();
        self.0.parts.tasks.spawn(async move {
            let work = AssertUnwindSafe(cache.fly(&recipe, &urgency, in_outage)).catch_unwind();
            let limit = policy::flight_limit(cache.0.parts.persistence);
            let outcome = match tokio::time::timeout(limit, work).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(E::lost(Lost::Panic)),
                Err(_) => Err(E::lost(Lost::TooLong)),
            };
            let outcome = cache.land(key, now, outcome);
            // If nobody waits any more, the outcome is in the entry all the same.
            drop(land.send(outcome));
        });
        flight
    }

    /// Makes a token, and tries again as [`policy::next_try`] says.
    async fn fly(&self, recipe: &Recipe<E>, urgency: &Urgency, in_outage: bool) -> Result<Token, E> {
        let Parts { persistence, jitter, stop, .. } = &self.0.parts;
        let started = self.now();
        let (mut tries, mut before) = (0, None);
        loop {
            let error = match recipe(urgency.clone()).await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            tries += 1;
            let progress = Progress { tries, in_outage, took: self.now().since(started) };
            let wait = match policy::next_try(*persistence, error.verdict(), progress, jitter) {
                Next::Again(wait) => wait,
                Next::Fail => return Err(error),
                Next::OutOfTime => return Err(before.unwrap_or(error)),
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return Err(error),
            }
            before = Some(error);
        }
    }

    /// Writes the outcome of a flight into its entry and plans the next look.
    fn land(&self, key: Key, started: Boot, outcome: Result<Token, E>) -> Result<Arc<Token>, E> {
        let now = self.now();
        self.0.parts.observer.landed(now.since(started), outcome.is_ok());
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&key) else { return outcome.map(Arc::new) };
        entry.flight = None;
        let jitter = &self.0.parts.jitter;
        match outcome.and_then(|token| entry.landed(token, jitter, now)) {
            Ok(token) => {
                self.wake_for(key, entry, now);
                Ok(token)
            }
            Err(error) => {
                let streak = entry.failed.as_ref().map_or(1, |failed| failed.streak.saturating_add(1));
                let wait = policy::wait_after(error.verdict(), streak, jitter);
                let wait = match entry.valid(now) {
                    Some(token) => policy::wait_beside(&token, wait, error.verdict(), now),
                    None => wait,
                };
                entry.failed(error.clone(), streak, now + wait, now);
                self.wake_for(key, entry, now);
                Err(error.retry_in(wait))
            }
        }
    }

    fn wake_for(&self, key: Key, entry: &Entry<E>, now: Boot) {
        let at = match entry.plan(now) {
            Plan::LookAt(at) => at,
            Plan::Renew | Plan::Forget => now,
        };
        // The receiver is gone only when the process ends.
        let _ = self.0.alarms.send((key, at));
    }

    /// The one task that acts on plans: it renews tokens in use and removes entries that are not. It waits on boot time, so
    /// after a suspend it acts at once.
    async fn keep(&self, mut planned: mpsc::UnboundedReceiver<(Key, Boot)>) {
        let alarm = self.0.parts.clock.alarm();
        let mut looks = Looks::default();
        loop {
            tokio::select! {
                () = self.0.parts.stop.cancelled() => return,
                Some((key, at)) = planned.recv() => looks.plan(key, at),
                () = alarm.until(looks.next()) => {
                    while let Some(key) = looks.due(self.now()) {
                        self.look(key);
                    }
                }
            }
        }
    }

    fn look(&self, key: Key) {
        let now = self.now();
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&key) else { return };
        if entry.flight.is_some() {
            return;
        }
        match entry.plan(now) {
            Plan::Forget => drop(entries.remove(&key)),
            Plan::Renew => {
                let level = if entry.valid(now).is_some() { Level::Renewal } else { Level::Background };
                drop(self.take_off(&mut entries, key, level, now));
            }
            Plan::LookAt(_) => self.wake_for(key, entry, now),
        }
    }
}

/// Keeps the map within its cap. Removes the least recently used entry, but none that is kept always or has a flight.
fn make_room<E>(entries: &mut HashMap<Key, Entry<E>>, key: &Key) {
    if entries.len() < policy::CAP || entries.contains_key(key) {
        return;
    }
    let idle = entries.iter().filter(|(_, entry)| !entry.always && entry.flight.is_none());
    if let Some(oldest) = idle.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key) {
        entries.remove(&oldest);
    }
}

#[cfg(test)]
mod tests;
