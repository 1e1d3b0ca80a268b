//! The path of a request: policy, then the cache. On a miss one shared flight does discovery, identity and exchange
//! (`flight`). All who ask meanwhile share its outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::audit::Audit;
use crate::cache::{Cache, Key, Wish};
use crate::caller::{Caller, Needs};
use crate::clock::{Boot, Clock};
use crate::metrics::Metrics;
use crate::policy::Denied;
use crate::token::Token;
use crate::urgency::Urgency;

mod at_exit;
mod attest;
mod call;
mod call_record;
mod error;
mod examine;
mod explain;
mod flight;
mod giving_back;
mod identities;
mod lease;
mod newest;
mod note;
mod order;
mod parts;
mod rate;
mod recipe;
mod refusals;
mod refused;
mod refused_callers;
mod request;
mod retries;
mod server;
mod succession;
mod tally;
mod to_give_back;
mod unlisted;

pub use crate::audit::Action;
pub(crate) use crate::audit::CallSubject;
pub use crate::cache::{Least, Persistence};
pub(crate) use crate::dpop::is_nonce;
pub use crate::exchange::{AssertionAudience, AssertionType, Client, ClientAuth, Cloud, Link, SecretFrom, SecretPlace};
pub use attest::Attested;
pub(crate) use call::Patience;
pub(crate) use call_record::{CallEnd, CallRecord};
pub(crate) use error::Refusal;
pub use error::{Class, Error, Party};
pub(crate) use examine::LATE;
pub use examine::{Check, Examination, Report, Rule, State};
pub use explain::{IdentityStatus, NotReady, ServerStatus, Status, TokenStatus};
pub(crate) use flight::LastFailure;
use flight::{Minter, TokenRequest};
pub use identities::{DEFAULT, Identity};
pub(crate) use lease::ReadyFields;
pub use lease::{Authorized, Lease};
use lease::{Outer, check_form, covers};
use newest::Newest;
pub(crate) use note::AuditSubject;
pub use order::{Assertion, Order, Pin, ResourceParameter, TokenFor};
pub use parts::Parts;
pub use rate::Rate;
use rate::RateLimiter;
use refusals::RefusalLimiter;
pub use refused_callers::RefusedCaller;
use refused_callers::RefusedCallers;
pub use request::{Head, Request, Target};
use retries::RetryDetector;
pub use server::{FrontDoor, Server};
pub(crate) use server::{beside, most_specific};
use succession::MadeFor;
use tally::Tally;
pub(crate) use unlisted::UNLISTED;
use unlisted::Unlisted;

/// Turns the workload's identity into access tokens for MCP servers. It applies the policy, caches tokens and records
/// every decision.
pub struct Broker {
    servers: Vec<Arc<Server>>,
    cache: Cache<Error>,
    maker: Arc<Minter>,
    clock: Clock,
    metrics: Arc<Metrics>,
    retries: Arc<Mutex<RetryDetector>>,
    /// The order's name and the permit behind each cache entry, for a reload.
    made: Mutex<MadeFor>,
    /// By the name of the server; unlisted servers share one.
    tallies: HashMap<Arc<str>, Tally, RandomState>,
    /// Does any rule need facts beyond the peer credentials?
    needs_process_facts: bool,
    /// For each server with a `rate`, by its name.
    pacers: HashMap<Arc<str>, RateLimiter>,
    /// Serves URLs that are not configured, if the configuration allows that.
    unlisted: Option<Unlisted>,
    audit: Option<Arc<Audit>>,
    /// What the newest configuration says, which may be a later one than this broker's.
    newest: Arc<Newest>,
    /// The number of this broker's own configuration.
    generation: u64,
    refused_callers: RefusedCallers,
    /// `None` in a one-shot command, which has one caller and ends with its refusal.
    refusals: Option<Arc<RefusalLimiter>>,
}

/// A token that a caller asks for: which one, and how fresh.
pub(crate) struct Wanted {
    want: TokenRequest,
    key: Key,
    wish: Wish,
    /// When the caller got a token that apparently did not work.
    given: Option<Boot>,
}

impl Wanted {
    /// Does the answer need a credential for the server's front door?
    fn passes_door(&self, request: &Request) -> bool {
        self.want.server.front_door.is_some() && request.action.hands_out_fields()
    }
}

/// What is known of a request without waiting.
enum Decision {
    Lease(Lease),
    Awaits(Wanted),
}

/// The outcome of a request, if it is there without waiting.
pub(crate) enum AtOnce {
    Decided(Result<Lease, Error>),
    Awaits(Wanted),
}

/// `--fresh` accepts a token that was minted within the last second.
const FRESH_ENOUGH: Duration = Duration::from_secs(1);

impl Broker {
    /// The facts that the rules need about this caller beyond its peer credentials; `None` if they need none.
    pub(crate) fn needs(&self, caller: &Caller) -> Option<Needs> {
        if !self.needs_process_facts {
            return None;
        }
        let mut needs = Needs::default();
        self.servers.iter().for_each(|server| server.policy.need(caller, &mut needs));
        (!needs.is_empty()).then_some(needs)
    }

    /// True if this caller may use no server: its user is unknown, or no rule names it.
    fn is_stranger(&self, caller: &Caller) -> bool {
        let is_named = || self.servers.iter().any(|server| server.policy.knows(caller));
        let is_served = || self.unlisted.as_ref().is_some_and(|unlisted| unlisted.is_for(caller));
        !caller.is_known() || !(is_named() || is_served())
    }

    /// The refusal of everything, for a caller whose user and group no rule names.
    pub(crate) fn foreign(&self, caller: &Caller, own_uid: u32) -> Option<Denied> {
        let is_served =
            caller.is_user(own_uid) || self.unlisted.as_ref().is_some_and(|unlisted| unlisted.is_for(caller));
        if is_served || self.servers.iter().any(|server| server.policy.may_know(caller)) {
            return None;
        }
        self.servers.first().and_then(|server| server.policy.permit(caller, None).err())
    }

    /// The names of the configured servers.
    pub(crate) fn server_names(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(|server| &*server.name)
    }

    /// Is there an audit file?
    pub(crate) fn records(&self) -> bool {
        self.audit.is_some()
    }

    /// Gives a bare token for one server, from the cache or newly made. Fails if the request is refused, if no token
    /// can be made, if the token is bound to a key or certificate, or if the decision cannot be recorded.
    pub async fn token(&self, caller: &Caller, request: &Request) -> Result<Lease, Error> {
        match self.token_at_once(caller, request) {
            AtOnce::Decided(decided) => decided,
            AtOnce::Awaits(wanted) => self.awaited_token(caller, request, wanted).await,
        }
    }

    /// As [`Self::token`], if nothing has to be waited for. Most requests are served from the cache, and are spared a future.
    pub(crate) fn token_at_once(&self, caller: &Caller, request: &Request) -> AtOnce {
        let decided = match self.decide(caller, request, None) {
            Ok(Decision::Lease(lease)) => Ok(lease),
            Ok(Decision::Awaits(wanted)) => return AtOnce::Awaits(wanted),
            Err(error) => Err(error),
        };
        // `note` counts, logs and records every decision, served or refused.
        AtOnce::Decided(self.note(&AuditSubject::of(caller, request), decided, |lease| Some(lease)))
    }

    /// The rest of [`Self::token`].
    pub(crate) async fn awaited_token(
        &self,
        caller: &Caller,
        request: &Request,
        wanted: Wanted,
    ) -> Result<Lease, Error> {
        let decided = self.awaited(caller, request, wanted).await;
        self.note(&AuditSubject::of(caller, request), decided, |lease| Some(lease))
    }

    /// Gives the header fields for the one request that `head` describes. Fails as [`Self::token`] does, but serves
    /// bound credentials too. A credential that is bound to a request (DPoP, SigV4) needs `head`. A URL outside the
    /// server's own is refused: the broker must not sign for other servers.
    pub async fn headers(
        &self,
        caller: &Caller,
        request: &Request,
        head: Option<&Head>,
    ) -> Result<(Lease, Authorized), Error> {
        let decided = match self.decide(caller, request, head) {
            Ok(Decision::Lease(lease)) => Ok(lease),
            Ok(Decision::Awaits(wanted)) => self.awaited(caller, request, wanted).await,
            Err(error) => Err(error),
        };
        // Authorise before recording, so that a failure is not recorded as served.
        let decided = decided.and_then(|lease| lease.authorize(head).map(|authorized| (lease, authorized)));
        self.note(&AuditSubject::of(caller, request), decided, |(lease, _)| Some(lease))
    }

    /// The path up to the cache: finds the server, asks the policy and the rate, then looks for a token. Records nothing.
    fn decide(&self, caller: &Caller, request: &Request, head: Option<&Head>) -> Result<Decision, Error> {
        let server = self.server_for(caller, &request.target)?;
        // The lease checks this too; checking it first saves an exchange.
        head.map_or(Ok(()), |head| covers(&server, &head.url))?;
        let permit = server.policy.permit(caller, request.scopes.as_ref());
        let permit = permit.map_err(|denied| Error::denied(&server.name, denied))?;
        self.pace(caller, &server)?;
        let given = self.given_before(caller, request, &server);
        let (order, urgency) = (Arc::clone(&server.order), Urgency::AWAITED);
        let wanted = self.wanted(caller, request, given, TokenRequest { server, order, permit, urgency });
        let cached = if wanted.passes_door(request) { None } else { self.cache.hit(&wanted.key, &wanted.wish) };
        match cached {
            Some(token) => self.lease(caller, request, wanted.want, token).map(Decision::Lease),
            None => Ok(Decision::Awaits(wanted)),
        }
    }

    /// The rest of the path: waits for the token, and for the credential of a front door, which are fetched concurrently.
    /// Whoever may use the server may pass its front door.
    async fn awaited(&self, caller: &Caller, request: &Request, wanted: Wanted) -> Result<Lease, Error> {
        let server = Arc::clone(&wanted.want.server);
        let Some(door) = server.front_door.as_ref().filter(|_| wanted.passes_door(request)) else {
            let (want, token) = self.made(wanted).await?;
            return self.lease(caller, request, want, token);
        };
        let for_door = TokenRequest::for_front_door(&server, door);
        let for_door = self.wanted(caller, request, wanted.given, for_door);
        let (inside, outside) = tokio::join!(self.made(wanted), self.made(for_door));
        let ((want, token), (for_door, outside)) = (inside?, outside?);
        check(&for_door, &outside, request.action)?;
        let lease = self.lease(caller, request, want, token)?;
        Ok(Lease { outer: Some(Outer { header: door.header.clone(), token: outside }), ..lease })
    }

    /// A token from the cache, or a newly made one.
    async fn made(&self, wanted: Wanted) -> Result<(TokenRequest, Arc<Token>), Error> {
        let Wanted { want, key, wish, .. } = wanted;
        if let Some(token) = self.cache.hit(&key, &wish) {
            return Ok((want, token));
        }
        let made = self.cache.token(key, &wish, || self.recipe(want.clone())).await;
        self.tidy_memory();
        let token = made.map_err(|error| error.at(&want.order.name))?;
        Ok((want, token))
    }

    /// Hands out a token, if this caller may have it in this form.
    fn lease(&self, caller: &Caller, request: &Request, want: TokenRequest, token: Arc<Token>) -> Result<Lease, Error> {
        check(&want, &token, request.action)?;
        self.still_permits(caller, request, &want.server, &token)?;
        if request.may_be_a_retry {
            self.lock_retries().answered(caller, &want.server.name, self.clock.boot());
        }
        let nonces = Arc::clone(&self.maker.nonces);
        Ok(Lease { token, server: want.server, outer: None, nonces, clock: self.clock.clone() })
    }

    /// The server of this name or URL: a configured one, or an unlisted one that was asked for before. Fails if there
    /// is none that this caller may know of.
    pub fn server(&self, caller: &Caller, target: &Target) -> Result<Arc<Server>, Error> {
        let unlisted = self.unlisted.as_ref().filter(|unlisted| unlisted.is_for(caller));
        let known = |error| unlisted.and_then(|unlisted| unlisted.find(target)).ok_or(error);
        self.configured(caller, target).or_else(known)
    }

    /// The configured server of this name or URL. URLs are compared in their canonical spelling, so that another
    /// spelling cannot bypass a policy. Fails if there is none; the error names the servers that this caller may use. A server
    /// that no rule for this caller is about fails in the same words as one that does not exist, so that nobody can find out
    /// what is configured for others. The daemon's own user, who sees all, is told which it is.
    pub(crate) fn configured(&self, caller: &Caller, target: &Target) -> Result<Arc<Server>, Error> {
        let is_own = caller.is_user(self.maker.env.uid());
        let found = self.find(target).filter(|server| is_own || server.policy.may_know(caller));
        found.ok_or_else(|| {
            let known = self.servers.iter().filter(|server| server.policy.knows(caller));
            let known = known.map(|server| &*server.name);
            match target {
                _ if !is_own => Refusal::not_yours(caller, target, known).into(),
                Target::Name(name) => Refusal::unknown_server(name, known).into(),
                Target::Url(url) => Refusal::not_served(url, known).into(),
            }
        })
    }

    fn find(&self, target: &Target) -> Option<Arc<Server>> {
        let found = match target {
            Target::Name(name) => self.servers.iter().find(|server| *server.name == **name),
            Target::Url(url) => most_specific(self.servers.iter(), url),
        };
        found.cloned()
    }

    /// The server that this caller names. A URL that no configured server covers opens an unlisted server, if this
    /// caller may use those.
    fn server_for(&self, caller: &Caller, target: &Target) -> Result<Arc<Server>, Error> {
        let unlisted = self.unlisted.as_ref().filter(|unlisted| unlisted.is_for(caller));
        match (target, unlisted) {
            (Target::Url(url), Some(unlisted)) if most_specific(self.servers.iter(), url).is_none() => {
                unlisted.open(url, &self.servers, |server| self.holds(server), self.clock.boot())
            }
            _ => self.server(caller, target),
        }
    }

    /// Does the cache hold a token for this server?
    fn holds(&self, server: &Server) -> bool {
        self.cache.held().iter().any(|(_, token)| token.server == server.name)
    }

    /// Fails if this user asks for the server more often than its `rate` allows.
    fn pace(&self, caller: &Caller, server: &Server) -> Result<(), Error> {
        let Some(pacer) = self.pacers.get(&server.name) else { return Ok(()) };
        let too_often = |wait| Error::from(Refusal::TooOften { rate: pacer.rate, wait }).at(&server.name);
        pacer.pass(caller.uid, self.clock.boot()).map_err(too_often)
    }

    /// What the request demands of a cached token.
    fn wanted(&self, caller: &Caller, request: &Request, given: Option<Boot>, want: TokenRequest) -> Wanted {
        let key = want.key();
        let fresh = request.fresh.then(|| self.clock.just_before(FRESH_ENOUGH));
        // A token minted before that answer is the one that did not work; a newer one may be served.
        let refused = given.filter(|given| self.cache.peek(&key).0.is_some_and(|token| token.minted <= *given));
        if refused.is_some() {
            self.lock_retries().forced(caller, &want.server.name, self.clock.boot());
        }
        let (newer_than, waits) = (fresh.max(refused), request.action == Action::Call);
        let (least, insists, user) = (request.least, request.insists(), Some(caller.uid));
        let wish = Wish { least, newer_than, insists, user, waits };
        Wanted { want, key, wish, given }
    }

    /// When this caller got the token that apparently did not work, if the request looks like a retry.
    fn given_before(&self, caller: &Caller, request: &Request, server: &Server) -> Option<Boot> {
        if !request.may_be_a_retry {
            return None;
        }
        self.lock_retries().given_before(caller, &server.name, self.clock.boot())
    }

    /// Keeps the tokens of required servers fresh at all times. The daemon asks for them on its own behalf.
    pub fn keep_required(&self) {
        for server in self.servers.iter().filter(|server| server.required) {
            for want in TokenRequest::all(server) {
                self.cache.always(want.key(), &want.order.name, || self.recipe(want.clone()));
            }
        }
    }

    fn lock_retries(&self) -> std::sync::MutexGuard<'_, RetryDetector> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fails if a token grants more than its request permits, or must not be handed out in this form.
fn check(want: &TokenRequest, token: &Token, action: Action) -> Result<(), Error> {
    want.permit.admit(&token.scopes).map_err(|denied| Error::denied(&want.order.name, denied))?;
    check_form(&want.server, &token.credential, action)
}

#[cfg(test)]
mod tests;
