//! The log of the tokens that are kept at all times: one line for each change.

use std::time::Duration;

use super::{Failure, Verdict};
use crate::token::Token;

/// A token has come. `life` is that of the token before; zero if there was none.
pub(super) fn log_landing(server: &str, had_failed: bool, life: Duration, token: &Token) {
    let lives = token.life.as_secs();
    match (had_failed, life.is_zero()) {
        (true, _) => tracing::info!(server, lives, "a token is there again"),
        (false, true) => tracing::info!(server, lives, "the token is there"),
        (false, false) => tracing::info!(server, lives, "the token is renewed"),
    }
}

/// A flight has failed. Further failures of the same kind are no change, so an outage is two lines and not one a minute.
pub(super) fn log_failure<E: Failure>(
    server: &str,
    before: Option<&E>,
    error: &E,
    (wait, is_served): (Duration, bool),
) {
    let is_permanent = |error: &E| !matches!(error.verdict(), Verdict::Temporary { .. });
    if before.is_some_and(|before| is_permanent(before) == is_permanent(error)) {
        return;
    }
    let (next_try_in, error) = (wait.as_secs_f32().ceil(), error.for_log());
    if is_served {
        tracing::warn!(server, error, next_try_in, "the token cannot be renewed; the valid one is served");
    } else {
        tracing::warn!(server, error, next_try_in, "there is no token");
    }
}
