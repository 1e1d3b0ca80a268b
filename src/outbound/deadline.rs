//! When the requests of a command must be over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Outbound;

/// When the last request must be over; `None` in a daemon. All clients of a command share it.
#[derive(Clone)]
pub(super) struct Deadline(Arc<Mutex<Option<Instant>>>);

impl Deadline {
    pub(super) fn at(deadline: Option<Instant>) -> Self {
        Self(Arc::new(Mutex::new(deadline)))
    }
}

impl Outbound {
    /// What is left of this limit.
    pub(super) fn left(&self, limit: Duration) -> Duration {
        let deadline = *self.0.deadline.0.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.map_or(limit, |deadline| limit.min(deadline.saturating_duration_since(Instant::now())))
    }

    /// Leaves at least this much time from now on, for what a command must do after its work.
    pub(crate) fn leave(&self, time: Duration) {
        let mut deadline = self.0.deadline.0.lock().unwrap_or_else(PoisonError::into_inner);
        *deadline = deadline.map(|deadline| deadline.max(Instant::now() + time));
    }
}
