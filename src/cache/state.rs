//! All entries, within their caps.

use std::cmp::Reverse;
use std::collections::{HashMap, hash_map};

use foldhash::fast::RandomState;

use super::entry::Entry;
use super::load::Load;
use super::{Failure, Key, Recipe, Wish, policy};
use crate::clock::Boot;
use crate::urgency::Level;

/// The entries, and how many of them and of their flights each user has.
pub(super) struct State<E> {
    pub(super) entries: HashMap<Key, Entry<E>, RandomState>,
    pub(super) load: Load,
}

impl<E: Failure> State<E> {
    pub(super) fn new() -> Self {
        Self { entries: HashMap::default(), load: Load::default() }
    }

    /// The entry of this key, made on behalf of this user if there is none.
    pub(super) fn entry(
        &mut self,
        key: Key,
        recipe: impl FnOnce() -> Recipe<E>,
        user: Option<u32>,
        now: Boot,
    ) -> &mut Entry<E> {
        let Self { entries, load } = self;
        entries.entry(key).or_insert_with(|| {
            load.made(user);
            Entry::new(recipe(), user, now)
        })
    }

    /// Takes over an entry of another cache and counts it for its maker. `None` if there is an entry of this key: it may
    /// have a flight, and stays.
    pub(super) fn adopt(&mut self, key: Key, entry: Entry<E>) -> Option<&Entry<E>> {
        match self.entries.entry(key) {
            hash_map::Entry::Occupied(_) => None,
            hash_map::Entry::Vacant(free) => {
                self.load.made(entry.made_by);
                Some(free.insert(entry))
            }
        }
    }

    /// The failure of a flight, with the time after which this caller may ask again.
    pub(super) fn told(&self, key: &Key, wish: &Wish, error: E, now: Boot) -> E {
        match self.entries.get(key).and_then(|entry| entry.wait(wish, now)) {
            Some(wait) if wish.waits => error.retry_in(wait),
            _ => error,
        }
    }

    /// Notes that this user waits for the flight of this key too.
    pub(super) fn join(&self, key: &Key, user: Option<u32>) {
        if let Some(entry) = self.entries.get(key) {
            entry.urgency.raise(Level::Awaited, user);
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.load.removed(entry.made_by);
        }
    }

    /// Is there an entry for this key, or a place for one? If this user may start a flight for it now, makes room within
    /// the caps. Removes no entry that is kept always or has a flight, and one with a valid token only after all others;
    /// for a user with too many keys only one of its own that no other user asked for.
    pub(super) fn has_place(&mut self, key: &Key, user: Option<u32>, now: Boot) -> bool {
        if self.entries.contains_key(key) {
            return true;
        }
        if !self.load.may_start(user) {
            return false;
        }
        let idle = || self.entries.iter().filter(|(_, entry)| entry.is_idle());
        let mut removed = None;
        if user.is_some() && self.load.keys(user) >= policy::CAP_OF_USER {
            let own = idle().filter(|(_, entry)| entry.made_by == user && entry.users.only() == user);
            let oldest = own.min_by_key(|(_, entry)| (entry.is_valid(now), entry.used));
            removed = oldest.map(|(key, _)| *key);
            if removed.is_none() {
                return false;
            }
        } else if self.entries.len() >= policy::CAP {
            let keys_of_maker = |entry: &Entry<E>| Reverse(self.load.keys(entry.made_by));
            let oldest = idle().min_by_key(|(_, entry)| (entry.is_valid(now), keys_of_maker(entry), entry.used));
            removed = oldest.map(|(key, _)| *key);
        }
        if let Some(key) = removed {
            self.remove(&key);
        }
        true
    }
}
