//! The path. A request passes policy, then the cache; on a miss one shared flight does discovery, identity and
//! exchange (`flight`) and everybody who asks meanwhile shares its outcome.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::cache::{self, Cache, Key, Recipe, Wish};
use crate::caller::{Caller, Needs};
use crate::clock::{Boot, Clock};
use crate::discovery::Discovery;
use crate::env::Env;
use crate::exchange::pace::Pace;
use crate::exchange::registration::Registrations;
use crate::identity;
use crate::jitter::Jitter;
use crate::metrics::Metrics;
use crate::oauth::{Issuer, Scopes, ServerUrl};
use crate::outbound::Outbound;
use crate::store::Store;
use crate::token::{Digest, Token};

mod asked_twice;
mod at_exit;
mod attest;
mod error;
mod examine;
mod explain;
mod flight;
mod identities;
mod lease;
mod note;
mod order;
mod rate;
mod refused;
mod server;
mod succession;
mod tally;
mod unlisted;

pub use crate::audit::Action;
pub use crate::cache::{Least, Persistence};
pub(crate) use crate::dpop::is_nonce;
pub use crate::exchange::{Client, ClientAuth, Cloud, Link, SecretFrom, SecretPlace};
use asked_twice::AskedTwice;
pub use attest::Attested;
use error::BoundTo;
pub(crate) use error::Refusal;
pub use error::{Class, Error, Party};
pub use examine::{Check, Examination, Report, Rule, State};
pub use explain::{IdentityStatus, ServerStatus, Status, TokenStatus};
use flight::{Maker, Want};
pub use identities::{DEFAULT, Identity};
pub use lease::{Authorized, Lease};
use lease::{Outer, covers, may_be_given};
pub(crate) use note::Matter;
pub use order::{Opens, Order, ResourceParameter};
use rate::Pacer;
pub use rate::Rate;
pub use server::{FrontDoor, Server};
pub(crate) use server::{beside, narrowest};
use succession::{Heirloom, Made};
use tally::Tally;
pub(crate) use unlisted::UNLISTED;
use unlisted::Unlisted;

/// Workload identity in, MCP access tokens out.
pub struct Broker {
    servers: Vec<Arc<Server>>,
    cache: Cache<Error>,
    maker: Arc<Maker>,
    clock: Clock,
    metrics: Arc<Metrics>,
    asked_twice: Arc<Mutex<AskedTwice>>,
    /// For which server and permit the entries of the cache are.
    made: Mutex<Made>,
    tallies: HashMap<Arc<str>, Tally>,
    looks_closer: bool,
    pacers: HashMap<Arc<str>, Pacer>,
    unlisted: Option<Unlisted>,
    audit: Option<Arc<Audit>>,
}

/// What a broker is made of.
pub struct Parts {
    /// The configured servers.
    pub servers: Vec<Server>,
    /// `[egress] issuers`.
    pub issuers: Option<Vec<Issuer>>,
    /// The identities by name, those that could not be found with the reason.
    pub identities: BTreeMap<Arc<str>, Result<Identity, identity::Error>>,
    /// Where registrations and keys outlive the process.
    pub(crate) store: Store,
    /// Files and variables.
    pub env: Env,
    /// URLs that are not configured are served too, to this user.
    pub unlisted_for: Option<u32>,
    /// The client.
    pub outbound: Outbound,
    /// Time.
    pub clock: Clock,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Daemon or one command.
    pub persistence: Persistence,
    /// Where every decision is recorded.
    pub audit: Option<Arc<Audit>>,
    /// Whose tasks they are.
    pub tasks: TaskTracker,
    /// When they end.
    pub stop: CancellationToken,
}

/// Which server is meant.
#[derive(Clone, Debug)]
pub enum Target {
    /// By its configured name.
    Name(String),
    /// By its URL, in any spelling, or a URL below it.
    Url(ServerUrl),
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which server.
    pub target: Target,
    /// The scopes it names itself.
    pub scopes: Option<Scopes>,
    /// How much life it would like.
    pub least: Least,
    /// It wants a new one.
    pub fresh: bool,
    /// In which form it wants it.
    pub action: Action,
    /// It is a helper, not the client itself.
    pub helper: bool,
    /// A helper asks for headers, and helpers are never told why they are run again.
    pub may_be_a_retry: bool,
}

/// The request that headers are for.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its method. Without one nothing is signed.
    pub method: Option<String>,
    /// Where it goes.
    pub url: ServerUrl,
    /// The nonce that the server sent last (RFC 9449 section 9), if the caller has seen one.
    pub nonce: Option<String>,
    /// SHA-256 of its body in lower-case hexadecimal, where the request is signed.
    pub body_sha256: Option<String>,
}

/// Who asks for what, of which server, and since when it seems to be unhappy with what it has.
struct Asking<'a> {
    caller: &'a Caller,
    request: &'a Request,
    target: &'a Arc<Server>,
    given: Option<Boot>,
}

/// `--fresh` is met by a token that was minted within the last second.
const FRESH_ENOUGH: Duration = Duration::from_secs(1);

impl Broker {
    /// Puts the rooms together. Nothing is fetched yet.
    pub fn new(parts: Parts) -> Self {
        Self::with(parts, Heirloom::default())
    }

    fn with(parts: Parts, heirloom: Heirloom) -> Self {
        let Parts {
            servers,
            issuers,
            unlisted_for,
            identities,
            store,
            env,
            outbound,
            clock,
            metrics,
            persistence,
            audit,
            tasks,
            stop,
        } = parts;
        let (jitter, observer) = (Jitter::from_system(), Box::new(metrics.cache()));
        let cache = cache::Parts { clock: clock.clone(), jitter, persistence, tasks, stop, observer };
        let unlisted_name = unlisted_for.map(|_| UNLISTED.into());
        let tallied = servers.iter().map(|one| Arc::clone(&one.name)).chain(unlisted_name);
        let tallies = tallied.map(|name| (Arc::clone(&name), Tally::new(metrics.served(&name)))).collect();
        let paced = servers.iter().filter_map(|one| Some((Arc::clone(&one.name), Pacer::new(one.rate?))));
        let pacers = paced.collect();
        let servers: Vec<Arc<Server>> = servers.into_iter().map(Arc::new).collect();
        let looks_closer = servers.iter().any(|server| server.policy.looks_closer());
        Self {
            servers: servers.clone(),
            cache: Cache::new(cache),
            maker: Arc::new(Maker {
                discovery: Discovery::new(outbound.clone(), clock.clone()),
                pace: heirloom.pace.unwrap_or_else(|| Arc::new(Pace::new(clock.clone()))),
                registrations: heirloom.registrations.unwrap_or_else(|| Arc::new(Registrations::new(store))),
                nonces: heirloom.nonces,
                keys: heirloom.keys,
                identities,
                env,
                outbound,
                issuers,
                clock: clock.clone(),
                servers,
                refused: heirloom.refused,
            }),
            clock,
            metrics,
            asked_twice: heirloom.asked_twice,
            made: Mutex::default(),
            tallies,
            looks_closer,
            pacers,
            unlisted: unlisted_for.map(Unlisted::new),
            audit,
        }
    }

    /// What must be known of a caller before it asks, if any rule that may match it asks for more than the kernel says
    /// unasked.
    pub(crate) fn needs(&self, caller: &Caller) -> Option<Needs> {
        if !self.looks_closer {
            return None;
        }
        let mut needs = Needs::default();
        self.servers.iter().for_each(|server| server.policy.need(caller, &mut needs));
        (!needs.is_empty()).then_some(needs)
    }

    /// Is there an audit file?
    pub(crate) fn records(&self) -> bool {
        self.audit.is_some()
    }

    /// The path, for a bare token.
    pub async fn token(&self, caller: &Caller, request: &Request) -> Result<Lease, Error> {
        let decided = self.decide(caller, request, None).await;
        // The one place where every decision, served or refused, passes.
        self.note(&Matter::of(caller, request), decided, |lease| Some(lease))
    }

    /// The same for the fields of the one request that `head` describes. A credential that is bound to a request is not served
    /// without one, and is not recorded as served. A request to a URL outside the server's own is refused: the broker must not
    /// sign for other servers.
    pub async fn headers(
        &self,
        caller: &Caller,
        request: &Request,
        head: Option<&Head>,
    ) -> Result<(Lease, Authorized), Error> {
        let decided = self.decide(caller, request, head).await;
        let decided = decided.and_then(|lease| lease.authorize(head).map(|authorized| (lease, authorized)));
        self.note(&Matter::of(caller, request), decided, |(lease, _)| Some(lease))
    }

    async fn decide(&self, caller: &Caller, request: &Request, head: Option<&Head>) -> Result<Lease, Error> {
        let server = self.server_for(caller, &request.target)?;
        // The lease refuses such a request as well; nothing is minted for it.
        head.map_or(Ok(()), |head| covers(&server, &head.url))?;
        let permit = server.policy.permit(caller, request.scopes.as_ref());
        let permit = permit.map_err(|denied| Error::denied(&server.name, denied))?;
        self.pace(caller, &server)?;
        let given = self.given_before(caller, request, &server);
        let asking = Asking { caller, request, target: &server, given };
        let want = Want { server: Arc::clone(&server), order: Arc::clone(&server.order), permit };
        let (token, outer) = match server.front_door.as_ref().filter(|_| request.action == Action::Headers) {
            None => (self.held(want, &asking).await?, None),
            // In a box, so that all others do not carry the room for it.
            Some(door) => Box::pin(self.beside_its_door(door, want, &asking)).await?,
        };
        if request.may_be_a_retry {
            self.lock_asked_twice().answered(caller, &server.name, self.clock.boot());
        }
        let (nonces, clock) = (Arc::clone(&self.maker.nonces), self.clock.clone());
        Ok(Lease { token, server, outer, nonces, clock })
    }

    /// A token that may be given: from the cache, or made.
    async fn held(&self, want: Want, asking: &Asking<'_>) -> Result<Arc<Token>, Error> {
        let key = want.key();
        let wish = self.wish(asking, &key);
        let token = match self.cache.hit(&key, &wish) {
            Some(token) => token,
            // In a box, so that a hit does not carry the room for it.
            None => Box::pin(self.cache.token(key, &wish, || self.recipe(want.clone())))
                .await
                .map_err(|error| error.at(&want.order.name))?,
        };
        want.permit.admit(&token.scopes).map_err(|denied| Error::denied(&want.order.name, denied))?;
        may_be_given(&want.server, &token.credential, asking.request.action)?;
        Ok(token)
    }

    /// The same side by side with what the front door wants, whose callers are those of the server behind it.
    async fn beside_its_door(
        &self,
        door: &FrontDoor,
        want: Want,
        asking: &Asking<'_>,
    ) -> Result<(Arc<Token>, Option<Outer>), Error> {
        let at_door = Want::at_door(asking.target, door);
        let (token, outside) = tokio::join!(self.held(want, asking), self.held(at_door, asking));
        Ok((token?, Some(Outer { header: door.header.clone(), token: outside? })))
    }

    /// The server that is meant, configured or asked for before.
    pub fn server(&self, target: &Target) -> Result<Arc<Server>, Error> {
        let known = |error| self.unlisted.as_ref().and_then(|unlisted| unlisted.find(target)).ok_or(error);
        self.configured(target).or_else(known)
    }

    /// The configured server that is meant. A URL is matched in any spelling, so that no spelling gets round a policy.
    pub(crate) fn configured(&self, target: &Target) -> Result<Arc<Server>, Error> {
        let found = match target {
            Target::Name(name) => self.servers.iter().find(|server| *server.name == **name),
            Target::Url(url) => narrowest(self.servers.iter(), url),
        };
        found.cloned().ok_or_else(|| match target {
            Target::Name(name) => Refusal::unknown_server(name, self.servers.iter().map(|server| &*server.name)).into(),
            Target::Url(url) => Refusal::NotServed(url.into()).into(),
        })
    }

    /// The same for a caller, who may name a server that is not configured where those are served.
    fn server_for(&self, caller: &Caller, target: &Target) -> Result<Arc<Server>, Error> {
        let unlisted = self.unlisted.as_ref().filter(|unlisted| unlisted.is_for(caller));
        match (target, unlisted) {
            (Target::Url(url), Some(unlisted)) if narrowest(self.servers.iter(), url).is_none() => {
                unlisted.open(url, &self.servers, |server| self.holds(server), self.clock.boot())
            }
            _ => self.server(target),
        }
    }

    fn holds(&self, server: &Server) -> bool {
        self.cache.held().iter().any(|(_, token)| token.server == server.name)
    }

    fn pace(&self, caller: &Caller, server: &Server) -> Result<(), Error> {
        let Some(pacer) = self.pacers.get(&server.name) else { return Ok(()) };
        let too_often = |wait| Error::from(Refusal::TooOften { rate: pacer.rate, wait }).at(&server.name);
        pacer.pass(caller.uid, self.clock.boot()).map_err(too_often)
    }

    /// How a token for this server and permit is made: discovery, identity, exchange.
    fn recipe(&self, want: Want) -> Recipe<Error> {
        self.remember(&want);
        let (maker, want) = (Arc::clone(&self.maker), Arc::new(want));
        Arc::new(move || {
            let (maker, want) = (Arc::clone(&maker), Arc::clone(&want));
            async move { maker.mint(&want).await }.boxed()
        })
    }

    fn wish(&self, asking: &Asking<'_>, key: &Key) -> Wish {
        let fresh = asking.request.fresh.then(|| self.clock.just_before(FRESH_ENOUGH));
        // A token minted before the first answer is the one that was given then.
        let refused = asking.given.filter(|given| self.cache.peek(key).0.is_some_and(|token| token.minted <= *given));
        if refused.is_some() {
            self.lock_asked_twice().forced(asking.caller, &asking.target.name, self.clock.boot());
        }
        Wish { least: asking.request.least, newer_than: fresh.max(refused) }
    }

    /// When this caller was given what it seems to be unhappy with.
    fn given_before(&self, caller: &Caller, request: &Request, server: &Server) -> Option<Boot> {
        if !request.may_be_a_retry {
            return None;
        }
        self.lock_asked_twice().given_before(caller, &server.name, self.clock.boot())
    }

    /// A caller says that the server refused a token. True if it was dropped: a digest that is not the cached
    /// one is ignored, because another caller already got a new token.
    pub fn reject(&self, caller: &Caller, target: &Target, digest: &Digest) -> Result<bool, Error> {
        let decided = self.decide_reject(caller, target, digest);
        let matter = Matter { rejected: Some(digest), ..Matter::new(Action::Reject, caller, Some(target)) };
        self.note(&matter, decided, |_| None)
    }

    fn decide_reject(&self, caller: &Caller, target: &Target, digest: &Digest) -> Result<bool, Error> {
        let server = self.server(target)?;
        let permit = server.policy.permit(caller, None).map_err(|denied| Error::denied(&server.name, denied))?;
        let mut dropped = self.cache.reject(&server.key(&permit), digest);
        for (key, token) in self.cache.held() {
            // The same server's tokens of other scopes; the digest says whose it is.
            if token.digest == *digest && server.is_about(&token.server) {
                dropped |= self.cache.reject(&key, digest);
            }
        }
        if dropped {
            tracing::info!(server = %server.name, %caller, "the server refused the token; it is dropped");
        }
        Ok(dropped)
    }

    /// Revokes what is held for a server (RFC 7009) and forgets it. Gives the number revoked, or the first failure.
    pub async fn revoke(&self, caller: &Caller, target: &Target) -> Result<usize, Error> {
        let decided = self.decide_revoke(caller, target).await;
        self.note(&Matter::new(Action::Revoke, caller, Some(target)), decided, |_| None)
    }

    async fn decide_revoke(&self, caller: &Caller, target: &Target) -> Result<usize, Error> {
        let server = self.server(target)?;
        let permit = server.policy.permit(caller, None).map_err(|denied| Error::denied(&server.name, denied))?;
        // What a caller could not have, it cannot take from others either.
        let its_own = |token: &Token| *token.server == *server.name && permit.admit(&token.scopes).is_ok();
        let held: Vec<_> = self.cache.held().into_iter().filter(|(_, token)| its_own(token)).collect();
        // First of all nobody gets them any more, whatever the server answers.
        for (key, _) in &held {
            self.cache.forget(key);
        }
        for (key, token) in self.cache.held() {
            // The front door's is not taken back, but nobody gets it any more.
            if *token.server != *server.name && server.is_about(&token.server) {
                self.cache.forget(&key);
            }
        }
        let (mut revoked, mut failed) = (0, None);
        let want = Want::of(&server);
        for (_, token) in &held {
            match self.maker.revoke(&want, token).await {
                Ok(()) => revoked += 1,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(Error::revocation(&server, error));
        }
        Ok(revoked)
    }

    /// Keeps the tokens of required servers at all times. They are fetched for the daemon's own user.
    pub fn keep_required(&self) {
        for server in self.servers.iter().filter(|server| server.required) {
            for want in Want::all(server) {
                self.cache.always(want.key(), || self.recipe(want.clone()));
            }
        }
    }

    fn lock_asked_twice(&self) -> std::sync::MutexGuard<'_, AskedTwice> {
        self.asked_twice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(&crate::oauth::quoted_words(name)),
            Self::Url(url) => url.fmt(f),
        }
    }
}
