//! Who uses a key, and how many keys and flights each user has. So one user can neither fill the cache nor hold up
//! everybody else's flights.

use std::collections::HashMap;

use super::policy;
use crate::bucket::Bucket;
use crate::clock::Boot;

/// The users that asked for a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Users {
    /// None yet. The daemon itself does not count.
    #[default]
    Nobody,
    One(u32),
    Several,
}

impl Users {
    pub(super) fn add(&mut self, user: Option<u32>) {
        match (*self, user) {
            (Self::Nobody, Some(user)) => *self = Self::One(user),
            (Self::One(one), Some(user)) if one != user => *self = Self::Several,
            _ => {}
        }
    }

    /// The user, if there is exactly one.
    pub(super) fn only(self) -> Option<u32> {
        if let Self::One(user) = self { Some(user) } else { None }
    }
}

/// The keys and the flights of all users. What the daemon does by itself is not counted: the configuration bounds it.
#[derive(Default)]
pub(super) struct Load {
    of_users: HashMap<u32, OfUser>,
    flights: usize,
}

#[derive(Clone, Copy, Default)]
struct OfUser {
    keys: usize,
    flights: usize,
}

impl Load {
    /// May this user start a flight now? At the bound of all flights a user that has none may still start one.
    pub(super) fn may_start(&self, user: Option<u32>) -> bool {
        let Some(user) = user else { return true };
        match self.of(user).flights {
            0 => self.flights < 2 * policy::FLIGHTS,
            own => own < policy::FLIGHTS_OF_USER && self.flights < policy::FLIGHTS,
        }
    }

    pub(super) fn started(&mut self, user: Option<u32>) {
        if let Some(user) = user {
            self.of_users.entry(user).or_default().flights += 1;
            self.flights += 1;
        }
    }

    pub(super) fn landed(&mut self, user: Option<u32>) {
        if let Some(user) = user {
            self.flights = self.flights.saturating_sub(1);
            self.change(user, |of| of.flights = of.flights.saturating_sub(1));
        }
    }

    /// How many keys this user made.
    pub(super) fn keys(&self, user: Option<u32>) -> usize {
        user.map_or(0, |user| self.of(user).keys)
    }

    pub(super) fn made(&mut self, user: Option<u32>) {
        if let Some(user) = user {
            self.of_users.entry(user).or_default().keys += 1;
        }
    }

    pub(super) fn removed(&mut self, user: Option<u32>) {
        if let Some(user) = user {
            self.change(user, |of| of.keys = of.keys.saturating_sub(1));
        }
    }

    fn of(&self, user: u32) -> OfUser {
        self.of_users.get(&user).copied().unwrap_or_default()
    }

    fn change(&mut self, user: u32, change: impl FnOnce(&mut OfUser)) {
        if let Some(of) = self.of_users.get_mut(&user) {
            change(of);
            if of.keys == 0 && of.flights == 0 {
                self.of_users.remove(&user);
            }
        }
    }
}

/// The forced mints and revocations of one key: a bucket for each user, so that no user can use up another's.
#[derive(Clone, Default)]
pub(super) struct Forced(Vec<(Option<u32>, Bucket)>);

impl Forced {
    /// Takes a permit of this user, or says how long until there is one. Beyond [`policy::FORCING_USERS`] all further
    /// users share a bucket with the daemon.
    pub(super) fn take(&mut self, user: Option<u32>, now: Boot) -> Result<(), std::time::Duration> {
        let known = |forced: &Self, user| forced.0.iter().position(|(one, _)| *one == user);
        let at = known(self, user).unwrap_or_else(|| {
            self.0.retain_mut(|(_, bucket)| !bucket.is_full(now));
            let user = user.filter(|_| self.0.len() < policy::FORCING_USERS);
            known(self, user).unwrap_or_else(|| {
                self.0.push((user, policy::forced_mints()));
                self.0.len() - 1
            })
        });
        self.0[at].1.take(now)
    }
}
