//! The rules of a token's life as pure functions. Every number of the cache is in this file.
//!
//! All windows are fractions of the token's observed life, so they fit tokens of a minute and of a day.

use std::time::Duration;

use crate::bucket::Bucket;
use crate::clock::Boot;
use crate::jitter::Jitter;
use crate::token::Token;

/// The cache holds at most this many entries. At the limit the least recently used one is removed, those with a valid
/// token last.
pub(super) const CAP: usize = 4_096;

/// One user may have made this many of them. At the limit one of its own is removed.
pub(super) const CAP_OF_USER: usize = CAP / 4;

/// One user may have started this many flights that are in progress. A caller that hangs up does not cancel its flight, so
/// without a limit one user could fill the memory and every issuer's queue.
pub(super) const FLIGHTS_OF_USER: usize = 16;

/// All users together may have started this many, and up to twice as many as long as each is its user's only one.
pub(super) const FLIGHTS: usize = 128;

/// When a request at the limit of flights may be repeated. Most flights take less.
pub(super) const CROWDED_WAIT: Duration = Duration::from_secs(1);

/// For one key this many users have forced mints of their own.
pub(super) const FORCING_USERS: usize = 16;

/// A token that this many users rejected is dropped when one more does.
pub(super) const REJECTING_USERS: usize = 16;

/// May the token still be handed out? Until its expiry less min(10 s, 5 % of its life): the margin covers the way to
/// the server.
pub(crate) fn may_be_served(token: &Token, now: Boot) -> bool {
    token.left(now) > margin(token)
}

fn margin(token: &Token) -> Duration {
    (token.life / 20).min(Duration::from_secs(10))
}

/// When a token in use is renewed: at a random point between 70 % and 85 % of its life, so that a fleet that started
/// together does not renew together.
pub(super) fn renewal_point(token: &Token, jitter: &Jitter) -> Boot {
    token.minted + jitter.between(token.life.mul_f64(0.70), token.life.mul_f64(0.85))
}

/// The facts about one key from which its next step follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// When it was last asked for.
    pub(super) used: Boot,
    /// It counts as always in use.
    pub(super) always: bool,
    /// The life of its last token, also after that token is gone. Zero: there was none, or it was given up.
    pub(super) life: Duration,
    /// When its last token expires, if it holds one.
    pub(super) expires: Option<Boot>,
    /// The renewal point of its last token.
    pub(super) renew_at: Boot,
    /// The end of the back-off after a failure.
    pub(super) failed_until: Option<Boot>,
    /// The issuer returned the token that we already had: asking before this moment is useless.
    pub(super) repeats_until: Option<Boot>,
}

/// What the cache does with a key that nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Renew its token now.
    Renew,
    /// Look again at this moment.
    LookAt(Boot),
    /// Remove it: nobody asks for it, and it holds nothing.
    Forget,
}

/// The next look. A key is in use if it was asked for within the last lifetime of a token. In use, it is renewed at its
/// renewal point, but not before the end of a back-off. Otherwise its token lapses, and the key is removed one second
/// after everything about it is over: its token, its use and its back-off. A key that never had a token stays for 60 s.
pub(super) fn plan(times: &Times, now: Boot) -> Plan {
    let in_use = times.always || now.since(times.used) <= times.life;
    if times.always || times.life > Duration::ZERO {
        let renewal = [times.failed_until, times.repeats_until].into_iter().flatten().fold(times.renew_at, Boot::max);
        if renewal > now {
            return Plan::LookAt(renewal);
        }
        if in_use {
            return Plan::Renew;
        }
    }
    let unused = times.used + times.life.max(Duration::from_secs(60));
    let over = [times.failed_until, times.expires].into_iter().flatten().fold(unused, Boot::max);
    if now > over { Plan::Forget } else { Plan::LookAt(over + Duration::from_secs(1)) }
}

/// What the cache must know about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same request may succeed later.
    Temporary {
        /// How long the other side asks us to wait.
        retry_after: Option<Duration>,
        /// The recipe has already retried by itself.
        tried_patiently: bool,
        /// There is no such host or port: whoever waits is told soon.
        absent: bool,
    },
    /// It fails until somebody changes something.
    Permanent,
    /// It fails until the platform gives another identity token. To find that out asks nobody but the platform.
    UntilIdentityChanges,
}

/// How long nobody asks again after a failure. A temporary one backs off with full jitter from 0.5 s to 60 s, doubling
/// with each failure in a row; `Retry-After` can make that longer, never shorter. A permanent one is remembered for 30 s, and one
/// that passes with the next identity token for 0.5 s to 5 s.
pub(super) fn wait_after(verdict: Verdict, failures: u32, jitter: &Jitter) -> Duration {
    match verdict {
        Verdict::Permanent => Duration::from_secs(30),
        Verdict::UntilIdentityChanges => jitter.backoff(BACKOFF_FLOOR, IDENTITY_LOOK, failures),
        Verdict::Temporary { retry_after, .. } => {
            let backoff = jitter.backoff(BACKOFF_FLOOR, Duration::from_secs(60), failures);
            retry_after.map_or(backoff, |after| after.max(backoff))
        }
    }
}

/// The same wait for a caller that waits for the end of an outage (10 s at most, on the data path): it must not find that the
/// issuer is back and that nobody asks it. A wait that the other side asked for is obeyed.
pub(super) fn wait_of_waiting(verdict: Verdict, wait: Duration) -> Duration {
    match verdict {
        Verdict::Temporary { retry_after: None, .. } => wait.min(Duration::from_secs(8)),
        Verdict::Temporary { .. } | Verdict::Permanent | Verdict::UntilIdentityChanges => wait,
    }
}

/// The same wait while a valid token is at hand: at most half of what is left of it, so that there are further tries before callers
/// feel the failure. The issuer may be back by then, and what refused may have been no server at all, but the page of a network
/// that wants a login first. A wait that the other side asked for is obeyed.
pub(super) fn wait_beside(token: &Token, wait: Duration, verdict: Verdict, now: Boot) -> Duration {
    match verdict {
        Verdict::Permanent | Verdict::Temporary { retry_after: None, .. } => {
            wait.min((token.left(now).saturating_sub(margin(token)) / 2).max(BACKOFF_FLOOR))
        }
        Verdict::Temporary { .. } | Verdict::UntilIdentityChanges => wait,
    }
}

/// How long a flight keeps trying.
#[derive(Clone, Copy, Debug)]
pub enum Persistence {
    /// A daemon: a few quick tries, then a back-off that all callers share.
    Daemon,
    /// One command: until this time-out of its caller.
    OneShot(Duration),
}

impl Persistence {
    /// How long a one-shot's requests may take together: its time less a tenth (at least 0.1 s, at most 1 s), in which it
    /// reports what went wrong, even on a busy machine.
    pub fn for_requests(self) -> Option<Duration> {
        match self {
            Self::Daemon => None,
            Self::OneShot(limit) => {
                let to_report = (limit / 10).clamp(Duration::from_millis(100), Duration::from_secs(1));
                Some(limit.saturating_sub(to_report))
            }
        }
    }
}

/// How far one flight has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Its tries so far, all of which failed.
    pub(super) tries: u32,
    /// The flight before it failed as well.
    pub(super) in_outage: bool,
    /// How long it has taken.
    pub(super) took: Duration,
}

/// What a flight does after a try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Try again after this wait.
    Again(Duration),
    /// Fail with this failure.
    Fail,
    /// Fail with the failure of the try before, if there was one: the time ran out during this try, so its failure says
    /// less about the other side.
    OutOfTime,
}

/// What a flight does after a try that failed. Only temporary failures are tried again.
///
/// A daemon's flight has three tries, 0.2 s to 0.5 s apart, to hide a single hiccup. It has one during an outage, after
/// a source that retries by itself, and when the server said how long to wait: then the back-off between flights decides.
/// A one-shot flight backs off as flights do, if the next try has at least 0.5 s of the time for its requests. A host that is not
/// there gets two seconds of that time: it may be starting, but most often its name is misspelled.
pub(super) fn next_try(persistence: Persistence, verdict: Verdict, progress: Progress, jitter: &Jitter) -> Next {
    let Verdict::Temporary { retry_after, tried_patiently, absent } = verdict else { return Next::Fail };
    let Some(for_requests) = persistence.for_requests() else {
        let once = progress.in_outage || tried_patiently || retry_after.is_some();
        let tries = if once { 1 } else { QUICK_TRIES };
        let wait = || jitter.backoff(Duration::from_millis(200), BACKOFF_FLOOR, progress.tries);
        return if progress.tries < tries { Next::Again(wait()) } else { Next::Fail };
    };
    if absent && progress.took >= FOR_ABSENT {
        return Next::Fail;
    }
    let left = for_requests.saturating_sub(progress.took);
    let wait = wait_after(verdict, progress.tries, jitter);
    if left.is_zero() {
        Next::OutOfTime
    } else if wait.saturating_add(Duration::from_millis(500)) > left {
        Next::Fail
    } else {
        Next::Again(wait)
    }
}

/// After this time a flight is given up, and its callers get an error: 90 s in a daemon, the caller's time-out otherwise.
pub(super) fn flight_limit(persistence: Persistence) -> Duration {
    match persistence {
        Persistence::Daemon => Duration::from_secs(90),
        Persistence::OneShot(limit) => limit,
    }
}

/// Mints that a user can force for one key (`--fresh`, a rejected or revoked token): three, then one every 10 s.
pub(super) fn forced_mints() -> Bucket {
    Bucket::new(3, Duration::from_secs(10))
}

/// Is a token too young to be replaced when the server refuses it? Younger than min(5 s, 10 % of its life), it was refused
/// for another reason than its age, and the next one would be refused as well.
pub(super) fn too_young_to_reject(token: &Token, now: Boot) -> bool {
    now.since(token.minted) < (token.life / 10).min(Duration::from_secs(5))
}

/// Would a new token have `least` of life left, where this one has less? Not if this issuer's tokens never live that
/// long, and not in the first 10 % of this one's life: a new token would have hardly more. Then nothing is minted.
pub(super) fn newer_would_last(token: &Token, least: Duration, now: Boot) -> bool {
    token.left(now) < least && token.life >= least && now.since(token.minted) >= token.life / 10
}

/// The life that the client of a credential helper needs between the helper's answer and its own request: min(60 s, 20 %).
pub(super) fn least_for_helper(life: Duration) -> Duration {
    (life / 5).min(Duration::from_secs(60))
}

/// How long an issuer that returned the same token again is not asked: half of what is left of that token, at least 1 s.
pub(super) fn repeat_pause(token: &Token, now: Boot) -> Duration {
    (token.left(now) / 2).max(Duration::from_secs(1))
}

/// How long a one-shot flight tries to reach a host that is not there.
const FOR_ABSENT: Duration = Duration::from_secs(2);
/// The shortest wait after a failure: between flights, and the longest between the quick tries of one flight.
const BACKOFF_FLOOR: Duration = Duration::from_millis(500);
/// How often we look at most whether there is another identity token.
const IDENTITY_LOOK: Duration = Duration::from_secs(5);
/// The tries of a daemon's flight outside an outage.
pub(super) const QUICK_TRIES: u32 = 3;

#[cfg(test)]
mod tests;
