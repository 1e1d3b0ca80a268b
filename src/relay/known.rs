//! What the relay remembers of sessions, cookies and scopes, for all requests at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::cookies::Cookies;
use super::probes::HeldProbes;
use super::session::Sessions;
use super::steps::Steps;
use crate::clock::Clock;

/// No lock is held while something is waited for.
#[derive(Debug)]
pub(super) struct Known {
    sessions: Mutex<Sessions>,
    cookies: Mutex<Cookies>,
    pub(super) steps: Steps,
    pub(super) held_probes: Arc<HeldProbes>,
    /// Changes whenever the healing of a session is over, however it ended.
    turns: watch::Sender<()>,
    clock: Clock,
    /// What must not end with the client that began it.
    pub(super) tasks: TaskTracker,
}

impl Known {
    pub(super) fn new(clock: Clock, tasks: TaskTracker) -> Self {
        let (sessions, cookies, steps, held_probes) = Default::default();
        Self { sessions, cookies, steps, held_probes, turns: watch::Sender::new(()), clock, tasks }
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cookies(&self) -> MutexGuard<'_, Cookies> {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports each change after this call.
    pub(super) fn turns(&self) -> watch::Receiver<()> {
        self.turns.subscribe()
    }

    /// The healing of a session is over.
    pub(super) fn turn(&self) {
        self.turns.send_replace(());
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now().wall
    }
}
