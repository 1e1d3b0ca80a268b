//! What the cache knows of a failure.

use std::fmt::Display;
use std::time::Duration;

use super::Verdict;

/// An error that flights can share and the cache can judge.
pub trait Failure: Clone + Display + Send + Sync + 'static {
    /// Is it temporary or permanent?
    fn verdict(&self) -> Verdict;
    /// The message with what only the operator may know.
    fn for_log(&self) -> String {
        self.to_string()
    }
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
    /// Its token was the one that was there before, and another one was wanted.
    SameToken,
    /// It was not started: too many are in progress.
    Crowded,
}
