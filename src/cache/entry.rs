//! One key's state, and the pure rules over it: what to do for a request, when to renew, when to forget.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Failure, Flight, Lost, Recipe};
use crate::bucket::Bucket;
use crate::clock::Boot;
use crate::token::{Digest, Token};

/// Forced mints of one key: three, then one every ten seconds.
const FORCED: (u32, Duration) = (3, Duration::from_secs(10));
/// How long an entry without a token is kept after it was last asked for.
const EMPTY_KEPT: Duration = Duration::from_secs(60);

/// What a caller would like; it gets the newest valid token whatever becomes of the wish.
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
    /// So much.
    Of(Duration),
    /// min(60 s, 20 % of its life): what a helper's client needs between the helper and the request.
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
            Self::ForHelper => (life / 5).min(Duration::from_secs(60)),
        }
    }
}

/// What becomes of a token when nobody does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// It is renewed at this moment, if it is still in use then.
    RenewAt(Boot),
    /// Nobody asks: it lapses.
    Lapse,
}

/// The rule: a token in use (asked for within its last lifetime) is renewed at its renewal point, a random one
/// between 70 % and 85 % of its life; one that nobody asks for lapses.
pub(super) fn plan(now: Boot, renew_at: Boot, life: Duration, last_used: Boot) -> Plan {
    if now.since(last_used) <= life { Plan::RenewAt(renew_at) } else { Plan::Lapse }
}

pub(super) struct Entry<E> {
    pub(super) recipe: Recipe<E>,
    pub(super) token: Option<Arc<Token>>,
    /// The one before it, while that outlives it: an issuer may give less life than last time.
    older: Option<Arc<Token>>,
    pub(super) flight: Option<Flight<E>>,
    pub(super) failed: Option<Failed<E>>,
    pub(super) used: Boot,
    /// Counts as always in use.
    pub(super) always: bool,
    renew_at: Boot,
    /// The life of the last token, also after it is gone: how long a use counts.
    life: Duration,
    forced: Bucket,
    /// The issuer returned the token we had: there is no use in asking before this moment.
    repeats_until: Option<Boot>,
    /// The last token that came, by name and dates alone.
    last: Option<Seen>,
}

#[derive(Clone)]
struct Seen {
    digest: Digest,
    minted: Boot,
    life: Duration,
    minted_wall: SystemTime,
    expires_at: String,
}

pub(super) struct Failed<E> {
    pub(super) error: E,
    pub(super) streak: u32,
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
    /// Hand out this token; if its renewal is due, start a flight that nobody waits for.
    Serve { token: Arc<Token>, renewal: Renewal },
    /// Wait for the flight there is; if it fails, `meanwhile` still serves.
    Join { flight: Flight<E>, meanwhile: Option<Arc<Token>> },
    /// Start a flight and wait for it.
    TakeOff { meanwhile: Option<Arc<Token>> },
    /// It failed a moment ago and is not tried before `wait` is over.
    Fail { error: E, wait: Duration },
}

impl<E: Failure> Entry<E> {
    pub(super) fn new(recipe: Recipe<E>, now: Boot) -> Self {
        Self {
            recipe,
            token: None,
            older: None,
            flight: None,
            failed: None,
            used: now,
            always: false,
            renew_at: now,
            life: Duration::ZERO,
            forced: Bucket::new(FORCED.0, FORCED.1),
            repeats_until: None,
            last: None,
        }
    }

    /// The same tokens with the same history, made in another way from now on. Whoever waits for a flight, and what went
    /// wrong, belongs to the old way.
    pub(super) fn moved(&self, recipe: Recipe<E>) -> Self {
        Self {
            recipe,
            token: self.token.clone(),
            older: self.older.clone(),
            flight: None,
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

    /// The token in hand, if it meets the wish or nothing better is to be had now. Nothing is used up.
    pub(super) fn at_hand(&mut self, wish: &Wish, now: Boot) -> Option<(Arc<Token>, Renewal)> {
        self.used = now;
        let token = self.valid(now)?;
        let wanting = self.is_too_old(&token, wish) || self.would_help(&token, wish.least, now);
        (!wanting || self.backs_off(now)).then(|| (token, self.renewal(now)))
    }

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
            // Over the limit of forced mints the token in hand is given, while it is valid.
            (None, _, Some(token)) if self.is_too_old(&token, wish) && self.forced.take(now).is_err() => {
                Step::Serve { token, renewal: self.renewal(now) }
            }
            (None, _, meanwhile) => Step::TakeOff { meanwhile },
        }
    }

    /// The tokens there are, the newest first.
    pub(super) fn held(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.token.iter().chain(&self.older)
    }

    /// The newest valid token.
    pub(super) fn valid(&self, now: Boot) -> Option<Arc<Token>> {
        self.held().find(|token| token.usable(now)).cloned()
    }

    fn is_too_old(&self, token: &Token, wish: &Wish) -> bool {
        wish.newer_than.is_some_and(|moment| token.minted <= moment)
    }

    fn renewal(&self, now: Boot) -> Renewal {
        if self.flight.is_none() && self.is_due(now) { Renewal::Due } else { Renewal::NotYet }
    }

    /// Would a new token have the life that is wished for? Not if no token of this issuer has it, if the one in
    /// hand is nearly new, or if the issuer keeps returning the same one: then nothing is minted for a wish.
    fn would_help(&self, token: &Token, least: Least, now: Boot) -> bool {
        let least = least.of(token.life);
        token.left(now) < least
            && token.life >= least
            && now.since(token.minted) >= token.life / 10
            && !self.repeats(now)
    }

    fn backs_off(&self, now: Boot) -> bool {
        self.failed.as_ref().is_some_and(|failed| failed.until > now)
    }

    fn repeats(&self, now: Boot) -> bool {
        self.repeats_until.is_some_and(|until| until > now)
    }

    fn in_use(&self, now: Boot) -> bool {
        self.always || matches!(plan(now, self.renew_at, self.life, self.used), Plan::RenewAt(_))
    }

    /// Should a flight start now, though nobody waits for it?
    pub(super) fn is_due(&self, now: Boot) -> bool {
        let had_one = self.life > Duration::ZERO || self.always;
        had_one && now >= self.renew_at && self.in_use(now) && !self.backs_off(now) && !self.repeats(now)
    }

    /// Is there nothing left to keep?
    pub(super) fn is_forgotten(&self, now: Boot) -> bool {
        let over = self.held().all(|token| token.left(now).is_zero());
        over && !self.in_use(now) && now.since(self.used) > EMPTY_KEPT && !self.backs_off(now)
    }

    /// When to look at this entry again.
    pub(super) fn next_look(&self, now: Boot) -> Option<Boot> {
        let backed_off = self.failed.as_ref().map(|failed| failed.until);
        let renewal = [backed_off, self.repeats_until].into_iter().flatten().fold(self.renew_at, Boot::max);
        let worth_renewing = self.life > Duration::ZERO || self.always;
        if worth_renewing && renewal > now {
            return Some(renewal);
        }
        if worth_renewing && self.in_use(now) {
            return Some(now);
        }
        // Nobody asks: look once more when it may be forgotten.
        let lapse = self.used + self.life.max(EMPTY_KEPT);
        Some([Some(lapse), backed_off].into_iter().flatten().fold(now, Boot::max) + Duration::from_secs(1))
    }

    /// Takes the token of a flight. An issuer that returns the one it gave before is noticed, also when that one was
    /// dropped meanwhile: a JWT carries its own expiry, so a repeated one is no younger than when it first came.
    pub(super) fn landed(&mut self, mut token: Token, fraction: f64, now: Boot) -> Result<Arc<Token>, E> {
        let before = self.last.as_ref().filter(|before| before.digest == token.digest);
        let repeated = before.is_some();
        if let Some(before) = before.filter(|_| token.dates_itself) {
            token.minted = before.minted;
            token.life = before.life;
            token.minted_wall = before.minted_wall;
            token.expires_at.clone_from(&before.expires_at);
        }
        if !token.usable(now) {
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
        self.repeats_until = repeated.then(|| now + (token.left(now) / 2).max(Duration::from_secs(1)));
        self.renew_at = token.minted + token.life.mul_f64(fraction);
        let longest = self.held().max_by_key(|held| held.left(now)).cloned();
        self.older = longest.filter(|held| held.left(now) > token.left(now));
        let token = Arc::new(token);
        self.token = Some(Arc::clone(&token));
        Ok(token)
    }

    /// Gives the token up, and what was planned for it: nobody is in the middle of using it any more.
    pub(super) fn forget(&mut self, now: Boot) -> Option<Arc<Token>> {
        self.life = Duration::ZERO;
        self.renew_at = now;
        let older = self.older.take();
        self.token.take().or(older)
    }

    pub(super) fn failed(&mut self, error: E, streak: u32, until: Boot, now: Boot) {
        self.failed = Some(Failed { error, streak, until });
        // What has expired is not kept for the time of an outage.
        for held in [&mut self.token, &mut self.older] {
            held.take_if(|token| token.left(now).is_zero());
        }
    }

    /// A token younger than min(5 s, 10 % of its life) is not dropped: so fresh a token is refused for another
    /// reason than its age, and the next one would be refused as well.
    pub(super) fn reject(&mut self, digest: &Digest, now: Boot) -> bool {
        let Some(token) = self.held().find(|token| token.digest == *digest) else { return false };
        let too_young = now.since(token.minted) < (token.life / 10).min(Duration::from_secs(5));
        if too_young || self.forced.take(now).is_err() {
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
