//! The state of one key: what it holds, what happened to it, and what to do for one request. The numbers are in
//! [`policy`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::kept;
use super::load::{Forced, Users};
use super::policy::{self, Plan, Times};
use super::{Failure, Flight, Lost, Recipe};
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
    /// An older one will not do, even if no new one can be had.
    pub insists: bool,
    /// The user that asks; `None` is the daemon itself.
    pub user: Option<u32>,
    /// It waits for a while until an outage is over.
    pub waits: bool,
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
    pub const ANY: Self =
        Self { least: Least::Of(Duration::ZERO), newer_than: None, insists: false, user: None, waits: false };

    /// Is the token young enough for whoever insists on that?
    pub(super) fn is_met_by_age_of(&self, token: &Token) -> bool {
        !(self.insists && self.finds_too_old(token))
    }

    fn finds_too_old(&self, token: &Token) -> bool {
        self.newer_than.is_some_and(|moment| token.minted <= moment)
    }
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
    token: Option<Held>,
    /// An earlier token, while it outlives the newest: an issuer may grant a shorter life than last time.
    older: Option<Held>,
    pub(super) flight: Option<Flight<E>>,
    /// How urgent that flight is.
    pub(super) urgency: Urgency,
    pub(super) failed: Option<Failed<E>>,
    /// When a caller last asked for it.
    pub(super) used: Boot,
    /// The user that asked for it first.
    pub(super) made_by: Option<u32>,
    /// The users that ever asked for it.
    pub(super) users: Users,
    /// It counts as always in use, under this name.
    pub(super) always: Option<Arc<str>>,
    renew_at: Boot,
    /// The life of the last token, also after that token is gone: this long a use counts.
    life: Duration,
    forced: Forced,
    /// The issuer returned the token that we already had: asking before this moment is useless.
    repeats_until: Option<Boot>,
    /// The last token that came, without its secret.
    last: Option<Seen>,
}

/// A token, and the users whose server refused it. They wait for the next one; all others are served.
#[derive(Clone)]
struct Held {
    token: Arc<Token>,
    rejected_by: Vec<u32>,
}

impl Held {
    fn is_for(&self, user: Option<u32>) -> bool {
        self.rejected_by.is_empty() || user.is_none_or(|user| !self.rejected_by.contains(&user))
    }
}

/// Who revokes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoker {
    /// The user.
    pub user: u32,
    /// It may revoke what others use as well.
    pub is_operator: bool,
}

/// Why the tokens of a key are not given up for a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Other users ask for them too.
    Shared,
    /// Its forced mints are used up; there is one after this time.
    TooOften(Duration),
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
    /// When the first of the flights in a row failed.
    pub(super) since: Boot,
    /// How many flights in a row failed.
    pub(super) streak: u32,
    /// The end of the back-off.
    pub(super) until: Boot,
    /// The same for those who wait.
    pub(super) until_waited: Boot,
}

impl<E> Failed<E> {
    fn until(&self, wish: &Wish) -> Boot {
        if wish.waits { self.until_waited } else { self.until }
    }
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
    pub(super) fn new(recipe: Recipe<E>, made_by: Option<u32>, now: Boot) -> Self {
        Self {
            recipe,
            token: None,
            older: None,
            flight: None,
            urgency: Urgency::AWAITED,
            failed: None,
            used: now,
            made_by,
            users: made_by.map_or(Users::Nobody, Users::One),
            always: None,
            renew_at: now,
            life: Duration::ZERO,
            forced: Forced::default(),
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
            made_by: self.made_by,
            users: self.users,
            always: None,
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
        self.users.add(wish.user);
        let token = self.valid_for(wish.user, now)?;
        let wanting = wish.finds_too_old(&token) || self.would_help(&token, wish.least, now);
        (!wanting || (self.backs_off(now) && wish.is_met_by_age_of(&token))).then(|| (token, self.renewal(now)))
    }

    /// What to do for one request. May take a forced mint.
    pub(super) fn step(&mut self, wish: &Wish, now: Boot) -> Step<E> {
        if let Some((token, renewal)) = self.at_hand(wish, now) {
            return Step::Serve { token, renewal };
        }
        let meanwhile = self.valid_for(wish.user, now);
        let will_do = |token: &Arc<Token>| wish.is_met_by_age_of(token);
        match (&self.flight, &self.failed, meanwhile) {
            (Some(flight), _, meanwhile) => Step::Join { flight: flight.clone(), meanwhile: meanwhile.filter(will_do) },
            (None, Some(failed), meanwhile) if failed.until(wish) > now && !meanwhile.as_ref().is_some_and(will_do) => {
                Step::Fail { error: failed.error.clone(), wait: failed.until(wish).since(now) }
            }
            // Over the limit of forced mints, callers get the valid token there is.
            (None, _, Some(token)) if wish.finds_too_old(&token) && self.forced.take(wish.user, now).is_err() => {
                Step::Serve { token, renewal: self.renewal(now) }
            }
            (None, _, meanwhile) => Step::TakeOff { meanwhile: meanwhile.filter(will_do) },
        }
    }

    /// All tokens of this key, the newest first.
    pub(super) fn held(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.token.iter().chain(&self.older).map(|held| &held.token)
    }

    /// The newest valid token.
    pub(super) fn valid(&self, now: Boot) -> Option<Arc<Token>> {
        self.valid_for(None, now)
    }

    /// The newest valid token that this user did not reject.
    pub(super) fn valid_for(&self, user: Option<u32>, now: Boot) -> Option<Arc<Token>> {
        let mut all = self.token.iter().chain(&self.older);
        let held = all.find(|held| policy::may_be_served(&held.token, now) && held.is_for(user))?;
        Some(Arc::clone(&held.token))
    }

    /// Is there a valid token? Entries with one are removed last.
    pub(super) fn is_valid(&self, now: Boot) -> bool {
        self.held().any(|token| policy::may_be_served(token, now))
    }

    /// May it be removed to make room for others?
    pub(super) fn is_idle(&self) -> bool {
        self.always.is_none() && self.flight.is_none()
    }

    fn renewal(&self, now: Boot) -> Renewal {
        // Nearly all requests come before its time, and need no plan.
        let is_due = self.renew_at <= now && self.flight.is_none() && self.plan(now) == Plan::Renew;
        if is_due { Renewal::Due } else { Renewal::NotYet }
    }

    /// Would a new token meet the wish, where this one does not?
    fn would_help(&self, token: &Token, least: Least, now: Boot) -> bool {
        policy::newer_would_last(token, least.of(token.life), now)
            && self.repeats_until.is_none_or(|until| until <= now)
    }

    /// How long this caller has to wait after a failure.
    pub(super) fn wait(&self, wish: &Wish, now: Boot) -> Option<Duration> {
        self.failed.as_ref().map(|failed| failed.until(wish).since(now))
    }

    pub(super) fn backs_off(&self, now: Boot) -> bool {
        self.failed.as_ref().is_some_and(|failed| failed.until > now)
    }

    /// What to do with this key while nobody waits for it.
    pub(super) fn plan(&self, now: Boot) -> Plan {
        let times = Times {
            used: self.used,
            always: self.always.is_some(),
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
        if let Some(name) = &self.always {
            kept::log_landing(name, self.failed.is_some(), self.life, &token);
        }
        self.failed = None;
        self.life = token.life;
        self.repeats_until = repeated.then(|| now + policy::repeat_pause(&token, now));
        self.renew_at = policy::renewal_point(&token, jitter);
        // What some user's server refused is served no more: the new token takes its place for all.
        let held = [self.token.take(), self.older.take()].into_iter().flatten();
        let longest = held.filter(|held| held.rejected_by.is_empty()).max_by_key(|held| held.token.left(now));
        self.older = longest.filter(|held| held.token.left(now) > token.left(now));
        let token = Arc::new(token);
        self.token = Some(Held { token: Arc::clone(&token), rejected_by: Vec::new() });
        Ok(token)
    }

    /// Gives up the tokens and their renewal, as if there had never been one, and returns them. A user other than the
    /// daemon's own can do so only with tokens that nobody else asked for, and as often as it can force mints.
    pub(super) fn give_up(&mut self, by: Revoker, now: Boot) -> Result<Vec<Arc<Token>>, Kept> {
        if !by.is_operator && self.users.only() != Some(by.user) {
            return Err(Kept::Shared);
        }
        self.forced.take(Some(by.user), now).map_err(Kept::TooOften)?;
        self.life = Duration::ZERO;
        self.renew_at = now;
        Ok([self.token.take(), self.older.take()].into_iter().flatten().map(|held| held.token).collect())
    }

    /// Notes that a flight failed and that the next one starts after `wait`.
    pub(super) fn failed(&mut self, error: E, streak: u32, wait: Duration, now: Boot) {
        if let Some(name) = &self.always {
            kept::log_failure(
                name,
                self.failed.as_ref().map(|failed| &failed.error),
                &error,
                (wait, self.is_valid(now)),
            );
        }
        let (until, until_waited) = (now + wait, now + policy::wait_of_waiting(error.verdict(), wait));
        let since = self.failed.as_ref().map_or(now, |failed| failed.since);
        self.failed = Some(Failed { error, since, streak, until, until_waited });
        // Expired tokens are not kept during an outage.
        for held in [&mut self.token, &mut self.older] {
            held.take_if(|held| held.token.left(now).is_zero());
        }
    }

    /// Notes that a token was refused to this user, unless it is too young or the user's forced mints are used up. Others
    /// are served until the next one is there. True if it is newly noted.
    pub(super) fn reject(&mut self, digest: &Digest, user: u32, now: Boot) -> bool {
        let mut all = self.token.iter().chain(&self.older);
        let Some(held) = all.find(|held| held.token.digest == *digest) else { return false };
        if policy::too_young_to_reject(&held.token, now) || !held.is_for(Some(user)) {
            return false;
        }
        // With a flight in progress nothing is forced.
        if self.flight.is_none() && self.forced.take(Some(user), now).is_err() {
            return false;
        }
        let is_newest = self.token.as_ref().is_some_and(|newest| newest.token.digest == *digest);
        let newest = if is_newest { &mut self.token } else { &mut None };
        // An earlier token is not given in place of a newer one that was refused.
        for slot in [newest, &mut self.older] {
            if slot.as_ref().is_some_and(|held| held.rejected_by.len() >= policy::REJECTING_USERS) {
                *slot = None;
            }
            if let Some(held) = slot.as_mut().filter(|held| held.is_for(Some(user))) {
                held.rejected_by.push(user);
            }
        }
        true
    }
}
