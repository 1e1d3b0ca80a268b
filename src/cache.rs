//! The cache: freshness, shared flights, renewal, back-off. It knows tokens, time and users, not rules or servers.
//!
//! Each key has at most one flight at a time. All who ask meanwhile share its outcome, good or bad, and a caller that
//! hangs up does not cancel it. A token in use is renewed in the background before it expires, and a failed renewal never
//! takes away a valid token. [`policy`] holds the rules and their numbers, [`entry`] the state of one key and the decision
//! for one request, [`state`] all of them with their bounds; this file carries the decisions out.
//!
//! No user can hurt another: its flights and keys are bounded, and a token that it rejects is served to others until the
//! next one is there.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Boot, Clock};
use crate::jitter::Jitter;
use crate::token::{Digest, Token};
use crate::urgency::{Level, Urgency};

mod entry;
mod failure;
mod kept;
mod load;
mod looks;
mod policy;
mod state;
mod trouble;

use entry::{Entry, Renewal, Step};
pub(crate) use entry::{Kept, Revoker};
pub use entry::{Least, Wish};
pub use failure::{Failure, Lost};
use looks::Looks;
pub(crate) use policy::may_be_served;
use policy::{Next, Plan, Progress};
pub use policy::{Persistence, Verdict};
use state::State;
pub(crate) use trouble::Trouble;

/// A digest of everything that the requests for a token contain, but of no secret and not of the caller.
pub(crate) type Key = Digest;

/// Makes a token for one key, as urgently as its flight is. Called once per try.
pub type Recipe<E> = Arc<dyn Fn(Urgency) -> BoxFuture<'static, Result<Token, E>> + Send + Sync>;

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
    state: Mutex<State<E>>,
    parts: Parts,
    alarms: mpsc::UnboundedSender<(Key, Boot)>,
    /// Flights run where the cache was made, whoever asks for them.
    home: Handle,
}

type Flight<E> = Shared<BoxFuture<'static, Result<Arc<Token>, E>>>;

impl<E: Failure> Cache<E> {
    /// An empty cache.
    pub fn new(parts: Parts) -> Self {
        let (alarms, alarm) = mpsc::unbounded_channel();
        let cache = Self(Arc::new(Inner { state: Mutex::new(State::new()), parts, alarms, home: Handle::current() }));
        if matches!(cache.0.parts.persistence, Persistence::Daemon) {
            let keeper = cache.clone();
            cache.0.parts.tasks.spawn(async move { keeper.keep(alarm).await });
        }
        cache
    }

    /// A fresh token that meets the wish, if there is one. Never waits.
    pub fn hit(&self, key: &Key, wish: &Wish) -> Option<Arc<Token>> {
        let now = self.now();
        let mut state = self.lock();
        let (token, renewal) = state.entries.get_mut(key)?.at_hand(wish, now)?;
        if renewal == Renewal::Due {
            self.renew(&mut state, *key, now);
        }
        self.0.parts.observer.hit();
        Some(token)
    }

    /// A token that meets the wish as well as possible, made by `recipe` if there is none. At the bound of flights in
    /// progress it fails, or gives the valid token there is.
    pub async fn token(&self, key: Key, wish: &Wish, recipe: impl FnOnce() -> Recipe<E>) -> Result<Arc<Token>, E> {
        let crowded = || E::lost(Lost::Crowded).retry_in(policy::CROWDED_WAIT);
        let (flight, meanwhile) = {
            let now = self.now();
            let mut state = self.lock();
            if !state.has_place(&key, wish.user, now) {
                return Err(crowded());
            }
            let may_start = state.load.may_start(wish.user);
            match state.entry(key, recipe, wish.user, now).step(wish, now) {
                Step::Serve { token, renewal } => {
                    if renewal == Renewal::Due {
                        self.renew(&mut state, key, now);
                    }
                    self.0.parts.observer.hit();
                    return Ok(token);
                }
                Step::Fail { error, wait } => return Err(error.retry_in(wait)),
                Step::Join { flight, meanwhile } => {
                    state.join(&key, wish.user);
                    (flight, meanwhile)
                }
                Step::TakeOff { meanwhile } if !may_start => return meanwhile.ok_or_else(crowded),
                Step::TakeOff { meanwhile } => {
                    let urgency = Urgency::new(Level::Awaited, wish.user);
                    (self.take_off(&mut state, key, urgency, now), meanwhile)
                }
            }
        };
        match (flight.await, meanwhile) {
            (Ok(token), _) if !wish.is_met_by_age_of(&token) => Err(E::lost(Lost::SameToken)),
            (Ok(token), _) => Ok(token),
            // A failed renewal never takes away a valid token.
            (Err(_), Some(token)) if may_be_served(&token, self.now()) => Ok(token),
            (Err(error), _) => Err(self.lock().told(&key, wish, error, self.now())),
        }
    }

    /// Keeps a valid token for this key at all times, even if nobody asks for it. The log says under this name how that goes.
    pub fn always(&self, key: Key, name: &Arc<str>, recipe: impl FnOnce() -> Recipe<E>) {
        let now = self.now();
        let mut state = self.lock();
        let entry = state.entry(key, recipe, None, now);
        entry.always = Some(Arc::clone(name));
        if entry.held().next().is_none() && entry.flight.is_none() {
            drop(self.take_off(&mut state, key, Urgency::new(Level::Background, None), now));
        }
    }

    /// Takes over the entries of another cache that this one does not have, except their flights and failures. `recipe` gives each entry the way to make
    /// its next token; an entry for which it returns `None` is left behind.
    pub fn inherit(&self, before: &Self, recipe: impl Fn(&Key, &Token) -> Option<Recipe<E>>) {
        let now = self.now();
        let left: Vec<(Key, Entry<E>)> = {
            let state = before.lock();
            let held = state.entries.iter().filter_map(|(key, entry)| Some((key, entry, entry.valid(now)?)));
            held.filter_map(|(key, entry, token)| Some((*key, entry.moved(recipe(key, &token)?)))).collect()
        };
        let mut state = self.lock();
        for (key, entry) in left {
            if let Some(entry) = state.adopt(key, entry) {
                self.wake_for(key, entry, now);
            }
        }
    }

    /// Starts a flight for this key on behalf of a user, unless it has a valid token, a flight or a back-off, or too many
    /// flights are in progress.
    pub fn prefetch(&self, key: Key, user: Option<u32>, recipe: impl FnOnce() -> Recipe<E>) {
        let now = self.now();
        let mut state = self.lock();
        if !state.load.may_start(user) || !state.has_place(&key, user, now) {
            return;
        }
        if let Step::TakeOff { .. } = state.entry(key, recipe, user, now).step(&Wish::ANY, now) {
            drop(self.take_off(&mut state, key, Urgency::new(Level::Background, user), now));
        }
    }

    /// Notes that the server refused a token to this user, and starts a flight for the next one. The user waits for it;
    /// others are served until it is there. Returns whether the token is held and newly noted: one that is too young is
    /// not, and none is once the user's forced mints of this key are used up.
    pub fn reject(&self, key: &Key, digest: &Digest, user: u32) -> bool {
        let now = self.now();
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(key) else { return false };
        if !entry.reject(digest, user, now) {
            return false;
        }
        let wanting = entry.valid_for(Some(user), now).is_none() && !entry.backs_off(now);
        if wanting && state.load.may_start(Some(user)) {
            drop(self.take_off(&mut state, *key, Urgency::new(Level::Awaited, Some(user)), now));
        }
        true
    }

    /// All tokens that have not expired.
    pub fn held(&self) -> Vec<(Key, Arc<Token>)> {
        let now = self.now();
        let state = self.lock();
        let held = state.entries.iter().flat_map(|(key, entry)| entry.held().map(|token| (*key, Arc::clone(token))));
        held.filter(|(_, token)| token.left(now) > Duration::ZERO).collect()
    }

    /// All keys.
    pub fn keys(&self) -> HashSet<Key> {
        self.lock().entries.keys().copied().collect()
    }

    /// Gives up the tokens of this key and returns them. Fails as `Kept` says.
    pub fn give_up(&self, key: &Key, by: Revoker) -> Result<Vec<Arc<Token>>, Kept> {
        let now = self.now();
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(key) else { return Ok(Vec::new()) };
        let tokens = entry.give_up(by, now)?;
        if entry.always.is_some() {
            self.wake_for(*key, entry, now);
        }
        Ok(tokens)
    }

    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Boot {
        self.0.parts.clock.boot()
    }

    /// Starts a flight that nobody waits for.
    fn renew(&self, state: &mut State<E>, key: Key, now: Boot) {
        let in_use = state.entries.get(&key).filter(|entry| entry.is_valid(now));
        let urgency = match in_use {
            Some(entry) => Urgency::new(Level::Renewal, entry.users.only()),
            None => Urgency::new(Level::Background, None),
        };
        drop(self.take_off(state, key, urgency, now));
    }

    /// Returns the flight of an entry, which it starts if there is none. Called under the lock.
    fn take_off(&self, state: &mut State<E>, key: Key, urgency: Urgency, now: Boot) -> Flight<E> {
        let entry = state.entries.get_mut(&key).expect("the caller holds the lock and has the entry");
        if let Some(flight) = &entry.flight {
            return flight.clone();
        }
        self.0.parts.observer.flight();
        // A renewal is not counted: it needs a key, and those are bounded.
        let counted = urgency.first_user().filter(|_| urgency.level() != Level::Renewal);
        state.load.started(counted);
        let (land, landed) = oneshot::channel();
        let flight: Flight<E> =
            async move { landed.await.unwrap_or_else(|_| Err(E::lost(Lost::Panic))) }.boxed().shared();
        entry.flight = Some(flight.clone());
        entry.urgency = urgency.clone();
        let recipe = Arc::clone(&entry.recipe);
        let in_outage = entry.failed.is_some();
        let cache = self.clone();
        let work = async move {
            let work = AssertUnwindSafe(cache.fly(&recipe, &urgency, in_outage)).catch_unwind();
            let limit = policy::flight_limit(cache.0.parts.persistence);
            let outcome = match tokio::time::timeout(limit, work).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(E::lost(Lost::Panic)),
                Err(_) => Err(E::lost(Lost::TooLong)),
            };
            let outcome = cache.land(key, now, counted, outcome);
            // If nobody waits any more, the outcome is in the entry all the same.
            drop(land.send(outcome));
        };
        self.0.parts.tasks.spawn_on(work, &self.0.home);
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
    fn land(&self, key: Key, started: Boot, counted: Option<u32>, outcome: Result<Token, E>) -> Result<Arc<Token>, E> {
        let now = self.now();
        self.0.parts.observer.landed(now.since(started), outcome.is_ok());
        let mut state = self.lock();
        state.load.landed(counted);
        let Some(entry) = state.entries.get_mut(&key) else { return outcome.map(Arc::new) };
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
                entry.failed(error.clone(), streak, wait, now);
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
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(&key) else { return };
        if entry.flight.is_some() {
            return;
        }
        match entry.plan(now) {
            Plan::Forget => state.remove(&key),
            Plan::Renew => self.renew(&mut state, key, now),
            Plan::LookAt(_) => self.wake_for(key, entry, now),
        }
    }
}

#[cfg(test)]
mod tests;
