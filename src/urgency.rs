//! How urgently a token is wanted, and by whom: whoever hands out places in a queue asks for it at that moment.
//!
//! A flight may begin for nobody, and a caller may join it later. So the urgency belongs to the flight and can be raised.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A flight has its turn with any of the first so many users that wait for it.
const USERS: usize = 16;

/// The urgency of one flight. Its copies change together.
#[derive(Clone, Debug)]
pub struct Urgency(Option<Arc<Flight>>);

#[derive(Debug)]
struct Flight {
    level: AtomicU8,
    /// For whom it is, in the order in which they came. `None` stands for the daemon itself, and for all users of a token
    /// that several use.
    users: Mutex<Vec<Option<u32>>>,
}

/// How urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nobody waits for it and nobody uses the token yet: the first token of a required server.
    Background,
    /// The token before it is in use and will end.
    Renewal,
    /// A caller waits for it.
    Awaited,
}

impl Urgency {
    /// The daemon itself waits from the beginning. It cannot be raised, and takes no memory.
    pub const AWAITED: Self = Self(None);

    /// Of a flight that begins with this level, for this user. `None` is the daemon itself.
    pub fn new(level: Level, user: Option<u32>) -> Self {
        Self(Some(Arc::new(Flight { level: AtomicU8::new(level as u8), users: Mutex::new(vec![user]) })))
    }

    /// Raises it to this level, unless it is that high already, for this user too: it does not stand behind all else that the
    /// first user asks for.
    pub fn raise(&self, level: Level, user: Option<u32>) {
        let Some(flight) = &self.0 else { return };
        flight.level.fetch_max(level as u8, Ordering::Relaxed);
        let mut users = flight.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() < USERS && !users.contains(&user) {
            users.push(user);
        }
    }

    /// What it is now.
    pub fn level(&self) -> Level {
        match self.0.as_ref().map(|flight| flight.level.load(Ordering::Relaxed)) {
            Some(0) => Level::Background,
            Some(1) => Level::Renewal,
            _ => Level::Awaited,
        }
    }

    /// The user that it began for; `None` is the daemon itself.
    pub(crate) fn first_user(&self) -> Option<u32> {
        self.with_users(|users| users.first().copied())
    }

    /// Of the users that it is for, the one with the least key.
    pub(crate) fn least_user<K: Ord>(&self, key: impl Fn(Option<u32>) -> K) -> Option<u32> {
        self.with_users(|users| users.iter().copied().min_by_key(|user| key(*user)))
    }

    fn with_users(&self, choose: impl FnOnce(&[Option<u32>]) -> Option<Option<u32>>) -> Option<u32> {
        choose(&self.0.as_ref()?.users.lock().unwrap_or_else(PoisonError::into_inner))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_never_falls() {
        let urgency = Urgency::new(Level::Background, None);
        let copy = urgency.clone();
        copy.raise(Level::Awaited, None);
        assert_eq!(urgency.level(), Level::Awaited);
        urgency.raise(Level::Renewal, None);
        assert_eq!(copy.level(), Level::Awaited);
    }

    #[test]
    fn it_is_for_all_who_join_up_to_a_bound() {
        let urgency = Urgency::new(Level::Awaited, Some(1_000));
        for user in (0..100).rev() {
            urgency.raise(Level::Awaited, Some(user));
        }
        assert_eq!(urgency.first_user(), Some(1_000));
        assert_eq!(urgency.least_user(|user| user), Some(85), "the first sixteen count");
    }
}
