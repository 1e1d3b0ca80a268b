//! Which kept connections may still be used.
//!
//! Connections to one host usually end together, by a restart of the server or of a balancer. Those to all hosts end together when
//! the network forgets them: after a suspend, or on another network. So where one is found dead, the others are not tried.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::KEPT_FOR;

/// So many hosts are remembered; beyond that the oldest ones are forgotten.
const HOSTS: usize = 64;
/// A host that was heard within this time is there: a request that cannot be repeated may go over a kept connection.
const JUST_NOW: Duration = Duration::from_secs(1);

/// What is known of the hosts. One for all clients of an [`super::Outbound`].
#[derive(Default)]
pub(super) struct Trust(Mutex<State>);

#[derive(Default)]
struct State {
    /// Hosts with a kept connection that broke, and when. No kept connection is used until all of them have been closed.
    suspects: VecDeque<(String, Instant)>,
    /// The same for all hosts.
    all_since: Option<Instant>,
    /// When a host last answered.
    heard: HashMap<String, Instant>,
}

impl Trust {
    /// May a request to this origin go over a kept connection?
    pub(super) fn may_use_kept(&self, origin: &str, repeatable: bool) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.suspects.retain(|(_, since)| since.elapsed() <= KEPT_FOR);
        let lost = state.all_since.is_some_and(|since| since.elapsed() <= KEPT_FOR)
            || state.suspects.iter().any(|(suspect, _)| suspect == origin);
        let heard = || state.heard.get(origin).is_some_and(|at| at.elapsed() <= JUST_NOW);
        !lost && (repeatable || heard())
    }

    /// A kept connection to this origin broke.
    pub(super) fn lose(&self, origin: String) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.suspects.len() >= HOSTS {
            state.suspects.pop_front();
        }
        state.suspects.push_back((origin, Instant::now()));
    }

    /// A kept connection was silent: the network has probably forgotten all of them.
    pub(super) fn lose_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all_since = Some(Instant::now());
    }

    /// This origin has answered.
    pub(super) fn heard(&self, origin: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = state.heard.get_mut(origin) {
            *at = Instant::now();
            return;
        }
        if state.heard.len() >= HOSTS {
            state.heard.retain(|_, at| at.elapsed() <= JUST_NOW);
        }
        if state.heard.len() < HOSTS {
            state.heard.insert(origin.to_owned(), Instant::now());
        }
    }
}
