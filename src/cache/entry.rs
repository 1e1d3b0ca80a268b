//! The state of one key: what it holds, what happened to it, and what to do for one request. The numbers are in
//! [`policy`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::policy::{self, Plan, Times};
use super::{Failure, Flight, Lost, Recipe};
use crate::bucket::Bucket;
use crate::clock::Boot;
use crate::jitter::Jitter;
use crate::token::{Digest, Token};
use crate::urgency::Urgency;

/// What a caller would like. A wish that cannot be met gets the newest valid token all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// How much life should be left.
    pub least: Least,
    /// Only a token minted after this moment will do.
    pub newer_than: Option<Boot>,
}

/// How much life should be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// This long.
    Of(Duration),
    /// As long as the client of a credential helper needs: min(60 s, 20 % of its life).
    ForHelper,
}

impl Wish {
    /// Any valid token.
    pub const ANY: Self = Self { least: Least::Of(Duration::ZERO), newer_than: None };
}

impl Least {
    fn of(self, life: Duration) -> Duration {
        match self {
            Self::Of(span) => span,
            Self::ForHelper => policy::least_for_helper(life),
        }
    }
}

/// One key of the cache.
pub(super) struct Entry<E> {
    pub(super) recipe: Recipe<E>,
    /// The newest token.
    pub(super) token: Option<Arc<Token>>,
    /// An earlier token, while it outlives the newest: an issuer may grant a shorter life than last time.
    older: Option<Arc<Token>>,
    pub(super) flight: Option<Flight<E>>,
    /// How urgent that flight is.
    pub(super) urgency: Urgency,
    pub(super) failed: Option<Failed<E>>,
    /// When a caller last asked for it.
    pub(super) used: Boot,
    /// It counts as always in use.
    pub(super) always: bool,
    renew_at: Boot,
    /// The life of the last token, also after that token is gone: this long a use counts.
    life: Duration,
    forced: Bucket,
    /// The issuer returned the token that we already had: asking before this moment is useless.
    repeats_until: Option<Boot>,
    /// The last token that came, without its secret.
    last: Option<Seen>,
}

/// What is remembered of a token to notice when the issuer returns it again.
#[derive(Clone)]
struct Seen {
    digest: Digest,
    minted: Boot,
    life: Duration,
    minted_wall: SystemTime,
    expires_at: String,
}

/// The last flight failed.
pub(super) struct Failed<E> {
    pub(super) error: E,
    /// How many flights in a row failed.
    pub(super) streak: u32,
    /// The end of the back-off.
    pub(super) until: Boot,
}

/// Is it time for a flight in the background?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Due,
    NotYet,
}

/// What to do for one request.
pub(super) enum Step<E> {
    /// Hand out this token. If its renewal is due, start a flight that nobody waits for.
    Serve { token: Arc<Token>, renewal: Renewal },
    /// Wait for the flight in progress; if it fails, hand out `meanwhile`.
    Join { flight: Flight<E>, meanwhile: Option<Arc<Token>> },
    /// Start a flight and wait for it; if it fails, hand out `meanwhile`.
    TakeOff { meanwhile: Option<Arc<Token>> },
    /// The last flight failed, and the next one starts after `wait`.
    Fail { error: E, wait: Duration },
}

impl<E: Failure> Entry<E> {
    pub(super) fn new(recipe: Recipe<E>, now: Boot) -> Self {
        Self {
            recipe,
            token: None,
            older: None,
            flight: None,
            urgency: Urgency::AWAITED,
            failed: None,
            used: now,
            always: false,
            renew_at: now,
            life: Duration::ZERO,
            forced: policy::forced_mints(),
            repeats_until: None,
            last: None,
        }
    }

    /// A copy with the same tokens and history whose next token is made by `recipe`. The flight and the failure of the old
    /// recipe are left out.
    pub(super) fn moved(&self, recipe: Recipe<E>) -> Self {
        Self {
            recipe,
            token: self.token.clone(),
            older: self.older.clone(),
            flight: None,
            urgency: Urgency::AWAITED,
            failed: None,
            used: self.used,
            always: false,
            renew_at: self.renew_at,
            life: self.life,
            forced: self.forced.clone(),
            repeats_until: self.repeats_until,
            last: self.last.clone(),
        }
    }

    /// The newest valid token, if it meets the wish or a better one cannot be had now. Takes no forced mint.
    pub(super) fn at_hand(&mut self, wish: &Wish, now: Boot) -> Option<(Arc<Token>, Renewal)> {
        self.used = now;
        let token = self.valid(now)?;
        let wanting = self.is_too_old(&token, wish) || self.would_help(&token, wish.least, now);
        (!wanting || self.backs_off(now)).then(|| (token, self.renewal(now)))
    }

    /// What to do for one request. May take a forced mint.
    pub(super) fn step(&mut self, wish: &Wish, now: Boot) -> Step<E> {
        if let Some((token, renewal)) = self.at_hand(wish, now) {
            return Step::Serve { token, renewal };
        }
        let meanwhile = self.valid(now);
        match (&self.flight, &self.failed, meanwhile) {
            (Some(flight), _, meanwhile) => Step::Join { flight: flight.clone(), meanwhile },
            (None, Some(failed), None) if failed.until > now => {
                Step::Fail { error: failed.error.clone(), wait: failed.until.since(now) }
            }
            // Over the limit of forced mints, callers get the valid token there is.
            (None, _, Some(token)) if self.is_too_old(&token, wish) && self.forced.take(now).is_err() => {
                Step::Serve { token, renewal: self.renewal(now) }
            }
            (None, _, meanwhile) => Step::TakeOff { meanwhile },
        }
    }

    /// All tokens of this key, the newest first.
    pub(super) fn held(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.token.iter().chain(&self.older)
    }

    /// The newest valid token.
    pub(super) fn valid(&self, now: Boot) -> Option<Arc<Token>> {
        self.held().find(|token| policy::may_be_served(token, now)).cloned()
    }

    fn is_too_old(&self, token: &Token, wish: &Wish) -> bool {
        wish.newer_than.is_some_and(|moment| token.minted <= moment)
    }

    fn renewal(&self, now: Boot) -> Renewal {
        if self.flight.is_none() && self.plan(now) == Plan::Renew { Renewal::Due } else { Renewal::NotYet }
    }

    /// Would a new token meet the wish, where this one does not?
    fn would_help(&self, token: &Token, least: Least, now: Boot) -> bool {
        policy::newer_would_last(token, least.of(token.life), now)
            && self.repeats_until.is_none_or(|until| until <= now)
    }

    fn backs_off(&self, now: Boot) -> bool {
        self.failed.as_ref().is_some_and(|failed| failed.until > now)
    }

    /// What to do with this key while nobody waits for it.
    pub(super) fn plan(&self, now: Boot) -> Plan {
        let times = Times {
            used: self.used,
            always: self.always,
            life: self.life,
            expires: self.held().map(|token| token.minted + token.life).max(),
            renew_at: self.renew_at,
            failed_until: self.failed.as_ref().map(|failed| failed.until),
            repeats_until: self.repeats_until,
        };
        policy::plan(&times, now)
    }

    /// Stores the token of a flight. If the issuer returned the token it gave before, even one that was dropped since, the
    /// dates of its first arrival count: a JWT carries its own expiry and does not get younger.
    pub(super) fn landed(&mut self, mut token: Token, jitter: &Jitter, now: Boot) -> Result<Arc<Token>, E> {
        let before = self.last.as_ref().filter(|before| before.digest == token.digest);
        let repeated = before.is_some();
        if let Some(before) = before.filter(|_| token.dates_itself) {
            token.minted = before.minted;
            token.life = before.life;
            token.minted_wall = before.minted_wall;
            token.expires_at.clone_from(&before.expires_at);
        }
        if !policy::may_be_served(&token, now) {
            return Err(E::lost(Lost::StaleToken));
        }
        self.last = Some(Seen {
            digest: token.digest,
            minted: token.minted,
            life: token.life,
            minted_wall: token.minted_wall,
            expires_at: token.expires_at.clone(),
        });
        self.failed = None;
        self.life = token.life;
        self.repeats_until = repeated.then(|| now + policy::repeat_pause(&token, now));
        self.renew_at = policy::renewal_point(&token, jitter);
        let longest = self.held().max_by_key(|held| held.left(now)).cloned();
        self.older = longest.filter(|held| held.left(now) > token.left(now));
        let token = Arc::new(token);
        self.token = Some(Arc::clone(&token));
        Ok(token)
    }

    /// Drops the tokens and their renewal, as if there had never been one.
    pub(super) fn forget(&mut self, now: Boot) -> Option<Arc<Token>> {
        self.life = Duration::ZERO;
        self.renew_at = now;
        let older = self.older.take();
        self.token.take().or(older)
    }

    /// Notes that a flight failed and that the next one starts after `until`.
    pub(super) fn failed(&mut self, error: E, streak: u32, until: Boot, now: Boot) {
        self.failed = Some(Failed { error, streak, until });
        // Expired tokens are not kept during an outage.
        for held in [&mut self.token, &mut self.older] {
            held.take_if(|token| token.left(now).is_zero());
        }
    }

    /// Drops a token that the server refused, unless it is too young or the forced mints are used up. True if it did.
    pub(super) fn reject(&mut self, digest: &Digest, now: Boot) -> bool {
        let Some(token) = self.held().find(|token| token.digest == *digest) else { return false };
        if policy::too_young_to_drop(token, now) || self.forced.take(now).is_err() {
            return false;
        }
        self.older = None;
        if self.token.as_ref().is_none_or(|newest| newest.digest != *digest) {
            return true;
        }
        self.token = None;
        self.renew_at = if self.always { now } else { self.renew_at };
        true
    }
}
