//! The path of a request: policy, then the cache. On a miss one shared flight does discovery, identity and exchange
//! (`flight`). All who ask meanwhile share its outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::FutureExt;

use crate::audit::Audit;
use crate::cache::{Cache, Key, Recipe, Wish};
use crate::caller::{Caller, Needs};
use crate::clock::{Boot, Clock};
use crate::metrics::Metrics;
use crate::token::Token;
use crate::urgency::Urgency;

mod at_exit;
mod attest;
mod error;
mod examine;
mod explain;
mod flight;
mod giving_back;
mod identities;
mod lease;
mod note;
mod order;
mod parts;
mod rate;
mod refused;
mod request;
mod retries;
mod server;
mod strangers;
mod succession;
mod tally;
mod unlisted;

pub use crate::audit::Action;
pub use crate::cache::{Least, Persistence};
pub(crate) use crate::dpop::is_nonce;
pub use crate::exchange::{Client, ClientAuth, Cloud, Link, SecretFrom, SecretPlace};
pub use attest::Attested;
pub(crate) use error::Refusal;
pub use error::{Class, Error, Party};
pub use examine::{Check, Examination, Report, Rule, State};
pub use explain::{IdentityStatus, ServerStatus, Status, TokenStatus};
use flight::{Minter, TokenRequest};
pub use identities::{DEFAULT, Identity};
pub use lease::{Authorized, Lease};
use lease::{Outer, check_form, covers};
pub(crate) use note::AuditSubject;
pub use order::{Assertion, Order, Pin, ResourceParameter, TokenFor};
pub use parts::Parts;
pub use rate::Rate;
use rate::RateLimiter;
pub use request::{Head, Request, Target};
use retries::RetryDetector;
pub use server::{FrontDoor, Server};
pub(crate) use server::{beside, most_specific};
use strangers::StrangerLimiter;
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
    /// `None` in a one-shot command, which has one caller and ends with its refusal.
    strangers: Option<Arc<StrangerLimiter>>,
}

/// One caller's request and the server that it is for.
struct CallerRequest<'a> {
    caller: &'a Caller,
    request: &'a Request,
    target: &'a Arc<Server>,
    /// When the caller got a token that apparently did not work.
    given: Option<Boot>,
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

    /// Is there an audit file?
    pub(crate) fn records(&self) -> bool {
        self.audit.is_some()
    }

    /// Gives a bare token for one server, from the cache or newly made. Fails if the request is refused, if no token
    /// can be made, if the token is bound to a key or certificate, or if the decision cannot be recorded.
    pub async fn token(&self, caller: &Caller, request: &Request) -> Result<Lease, Error> {
        let decided = self.decide(caller, request, None).await;
        // `note` counts, logs and records every decision, served or refused.
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
        let decided = self.decide(caller, request, head).await;
        // Authorise before recording, so that a failure is not recorded as served.
        let decided = decided.and_then(|lease| lease.authorize(head).map(|authorized| (lease, authorized)));
        self.note(&AuditSubject::of(caller, request), decided, |(lease, _)| Some(lease))
    }

    /// The path itself: finds the server, asks the policy and the rate, then gets the token. Records nothing.
    async fn decide(&self, caller: &Caller, request: &Request, head: Option<&Head>) -> Result<Lease, Error> {
        let server = self.server_for(caller, &request.target)?;
        // The lease checks this too; checking it first saves an exchange.
        head.map_or(Ok(()), |head| covers(&server, &head.url))?;
        let permit = server.policy.permit(caller, request.scopes.as_ref());
        let permit = permit.map_err(|denied| Error::denied(&server.name, denied))?;
        self.pace(caller, &server)?;
        let given = self.given_before(caller, request, &server);
        let asking = CallerRequest { caller, request, target: &server, given };
        let want = TokenRequest {
            server: Arc::clone(&server),
            order: Arc::clone(&server.order),
            permit,
            urgency: Urgency::AWAITED,
        };
        let (token, outer) = match server.front_door.as_ref().filter(|_| request.action == Action::Headers) {
            None => (self.held(want, &asking).await?, None),
            // Boxed to keep the common future small: few servers have a front door.
            Some(door) => Box::pin(self.with_front_door(door, want, &asking)).await?,
        };
        if request.may_be_a_retry {
            self.lock_retries().answered(caller, &server.name, self.clock.boot());
        }
        let (nonces, clock) = (Arc::clone(&self.maker.nonces), self.clock.clone());
        Ok(Lease { token, server, outer, nonces, clock })
    }

    /// A token that this caller may have, from the cache or newly made. Fails if it grants more than the permit allows,
    /// or must not be handed out in this form.
    async fn held(&self, want: TokenRequest, asking: &CallerRequest<'_>) -> Result<Arc<Token>, Error> {
        let key = want.key();
        let wish = self.wish(asking, &key);
        let token = match self.cache.hit(&key, &wish) {
            Some(token) => token,
            // Boxed to keep the future of a cache hit small.
            None => {
                let made = Box::pin(self.cache.token(key, &wish, || self.recipe(want.clone()))).await;
                self.tidy_memory();
                made.map_err(|error| error.at(&want.order.name))?
            }
        };
        want.permit.admit(&token.scopes).map_err(|denied| Error::denied(&want.order.name, denied))?;
        check_form(&want.server, &token.credential, asking.request.action)?;
        Ok(token)
    }

    /// The token for the server and the credential for its front door, fetched concurrently. Whoever may use the server
    /// may pass its front door.
    async fn with_front_door(
        &self,
        door: &FrontDoor,
        want: TokenRequest,
        asking: &CallerRequest<'_>,
    ) -> Result<(Arc<Token>, Option<Outer>), Error> {
        let for_front_door = TokenRequest::for_front_door(asking.target, door);
        let (token, outside) = tokio::join!(self.held(want, asking), self.held(for_front_door, asking));
        Ok((token?, Some(Outer { header: door.header.clone(), token: outside? })))
    }

    /// The server of this name or URL: a configured one, or an unlisted one that was asked for before. Fails if there
    /// is none.
    pub fn server(&self, caller: &Caller, target: &Target) -> Result<Arc<Server>, Error> {
        let known = |error| self.unlisted.as_ref().and_then(|unlisted| unlisted.find(target)).ok_or(error);
        self.configured(caller, target).or_else(known)
    }

    /// The configured server of this name or URL. URLs are compared in their canonical spelling, so that another
    /// spelling cannot bypass a policy. Fails if there is none; the error names the servers that this caller may use.
    pub(crate) fn configured(&self, caller: &Caller, target: &Target) -> Result<Arc<Server>, Error> {
        self.find(target).ok_or_else(|| match target {
            Target::Name(name) => {
                let known = self.servers.iter().filter(|server| server.policy.knows(caller));
                Refusal::unknown_server(name, known.map(|server| &*server.name)).into()
            }
            Target::Url(url) => Refusal::NotServed(url.into()).into(),
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

    /// The cache's recipe for this token: discovery, identity, exchange.
    fn recipe(&self, want: TokenRequest) -> Recipe<Error> {
        self.remember(&want);
        let maker = Arc::clone(&self.maker);
        Arc::new(move |urgency| {
            let (maker, want) = (Arc::clone(&maker), TokenRequest { urgency, ..want.clone() });
            async move { maker.mint(&want).await }.boxed()
        })
    }

    /// What the request demands of a cached token.
    fn wish(&self, asking: &CallerRequest<'_>, key: &Key) -> Wish {
        let fresh = asking.request.fresh.then(|| self.clock.just_before(FRESH_ENOUGH));
        // A token minted before that answer is the one that did not work; a newer one may be served.
        let refused = asking.given.filter(|given| self.cache.peek(key).0.is_some_and(|token| token.minted <= *given));
        if refused.is_some() {
            self.lock_retries().forced(asking.caller, &asking.target.name, self.clock.boot());
        }
        Wish { least: asking.request.least, newer_than: fresh.max(refused), user: Some(asking.caller.uid) }
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
                self.cache.always(want.key(), || self.recipe(want.clone()));
            }
        }
    }

    fn lock_retries(&self) -> std::sync::MutexGuard<'_, RetryDetector> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
