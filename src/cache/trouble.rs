//! What is wrong with a key, for status.

use std::sync::Arc;
use std::time::Duration;

use super::{Cache, Failure, Key};
use crate::token::Token;

/// What is wrong with a key, for people.
pub struct Trouble<E> {
    /// The last failure.
    pub error: E,
    /// How long no flight has succeeded.
    pub lasts: Duration,
    /// The rest of the back-off.
    pub next_try_in: Duration,
}

impl<E: Failure> Cache<E> {
    /// The valid token and the last failure. Does not count as a use.
    pub fn peek(&self, key: &Key) -> (Option<Arc<Token>>, Option<E>) {
        let now = self.now();
        let state = self.lock();
        let Some(entry) = state.entries.get(key) else { return (None, None) };
        let token = entry.valid(now);
        (token, entry.failed.as_ref().map(|failed| failed.error.clone()))
    }

    /// The last failure, unless there was a success since.
    pub fn trouble(&self, key: &Key) -> Option<Trouble<E>> {
        let now = self.now();
        let state = self.lock();
        let failed = state.entries.get(key)?.failed.as_ref()?;
        let (lasts, next_try_in) = (now.since(failed.since), failed.until.since(now));
        Some(Trouble { error: failed.error.clone(), lasts, next_try_in })
    }
}
