//! The path. A request passes policy, then the cache; on a miss one shared flight does discovery, identity and
//! exchange (`flight`) and everybody who asks meanwhile shares its outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{Cache, Key, Recipe, Wish};
use crate::caller::Caller;
use crate::clock::Clock;
use crate::discovery::Discovery;
use crate::exchange::pace::Pace;
use crate::exchange::revocation;
use crate::identity::Chosen;
use crate::jitter::Jitter;
use crate::metrics::Metrics;
use crate::oauth::{Issuer, Scopes, ServerUrl};
use crate::outbound::{NamedBy, Outbound};
use crate::policy::Permit;
use crate::token::{Digest, Token};

mod asked_twice;
mod error;
mod examine;
mod explain;
mod flight;
mod server;
mod tally;

pub use crate::cache::{Least, Persistence};
pub use crate::exchange::ClientAuth;
use asked_twice::AskedTwice;
pub use error::{Class, Error};
pub use examine::{Check, Examination, Party, Report, Rule, State};
pub use explain::{IdentityStatus, ServerStatus, Status, TokenStatus};
use flight::Maker;
pub(crate) use server::narrowest;
pub use server::{ResourceParameter, Server};
use tally::Tally;

/// Workload identity in, MCP access tokens out.
pub struct Broker {
    servers: Vec<Arc<Server>>,
    cache: Cache<Error>,
    maker: Arc<Maker>,
    clock: Clock,
    metrics: Arc<Metrics>,
    asked_twice: Mutex<AskedTwice>,
    tallies: HashMap<Arc<str>, Tally>,
}

/// What a broker is made of.
pub struct Parts {
    /// The configured servers.
    pub servers: Vec<Server>,
    /// `[egress] issuers`.
    pub issuers: Option<Vec<Issuer>>,
    /// The identity in use.
    pub identity: Chosen,
    /// The client.
    pub outbound: Outbound,
    /// Time.
    pub clock: Clock,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Daemon or one command.
    pub persistence: Persistence,
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
    /// A helper asks for headers, and helpers are never told why they are run again.
    pub may_be_a_retry: bool,
}

/// A token with the server it is for.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The token.
    pub token: Arc<Token>,
    /// Its server.
    pub server: Arc<Server>,
}

/// `--fresh` is met by a token that was minted within the last second.
const FRESH_ENOUGH: Duration = Duration::from_secs(1);

impl Broker {
    /// Puts the rooms together. Nothing is fetched yet.
    pub fn new(parts: Parts) -> Self {
        let Parts { servers, issuers, identity, outbound, clock, metrics, persistence, tasks, stop } = parts;
        let observer = Box::new(metrics.cache());
        let tallies =
            servers.iter().map(|one| (Arc::clone(&one.name), Tally::new(metrics.served(&one.name)))).collect();
        let servers: Vec<Arc<Server>> = servers.into_iter().map(Arc::new).collect();
        Self {
            servers: servers.clone(),
            cache: Cache::new(clock.clone(), Jitter::from_system(), persistence, tasks, stop, observer),
            maker: Arc::new(Maker {
                discovery: Discovery::new(outbound.clone(), clock.clone()),
                pace: Pace::new(clock.clone()),
                identity,
                outbound,
                issuers,
                clock: clock.clone(),
                servers,
                refused: Mutex::default(),
            }),
            clock,
            metrics,
            asked_twice: Mutex::default(),
            tallies,
        }
    }

    /// The path.
    pub async fn token(&self, caller: &Caller, request: &Request) -> Result<Granted, Error> {
        let decided = self.decide(caller, request).await;
        // The one place where every decision, served or refused, passes.
        self.note(caller, request, &decided);
        decided
    }

    async fn decide(&self, caller: &Caller, request: &Request) -> Result<Granted, Error> {
        let server = self.server(&request.target)?;
        let permit =
            server.policy.permit(caller, request.scopes.as_ref()).map_err(|denied| Error::denied(&server, denied))?;
        let key = server.key(&permit);
        let wish = self.wish(caller, request, &server, &key);
        let token = match self.cache.hit(&key, &wish) {
            Some(token) => token,
            None => self
                .cache
                .token(key, &wish, || self.recipe(&server, permit.clone()))
                .await
                .map_err(|error| error.at(&server))?,
        };
        permit.admit(&token.scopes).map_err(|denied| Error::denied(&server, denied))?;
        if request.may_be_a_retry {
            self.lock_asked_twice().answered(caller, &server.name, self.clock.boot());
        }
        Ok(Granted { token, server })
    }

    /// The server that is meant. A URL is matched in any spelling, so that no spelling gets round a policy.
    pub fn server(&self, target: &Target) -> Result<Arc<Server>, Error> {
        let found = match target {
            Target::Name(name) => self.servers.iter().find(|server| *server.name == **name),
            Target::Url(url) => narrowest(self.servers.iter(), url),
        };
        found.cloned().ok_or_else(|| match target {
            Target::Name(name) => Error::unknown_server(name, self.servers.iter().map(|server| &*server.name)),
            Target::Url(url) => Error::not_served(url),
        })
    }

    /// How a token for this server and permit is made: discovery, identity, exchange.
    fn recipe(&self, server: &Arc<Server>, permit: Permit) -> Recipe<Error> {
        let (maker, server) = (Arc::clone(&self.maker), Arc::clone(server));
        Arc::new(move || {
            let (maker, server, permit) = (Arc::clone(&maker), Arc::clone(&server), permit.clone());
            async move { maker.mint(&server, &permit).await }.boxed()
        })
    }

    fn wish(&self, caller: &Caller, request: &Request, server: &Server, key: &Key) -> Wish {
        let fresh = request.fresh.then(|| self.clock.just_before(FRESH_ENOUGH));
        if !request.may_be_a_retry {
            return Wish { least: request.least, newer_than: fresh };
        }
        let now = self.clock.boot();
        let given = self.lock_asked_twice().given_before(caller, &server.name, now);
        // A token minted before the first answer is the one that was given then.
        let refused = given.filter(|given| self.cache.peek(key).0.is_some_and(|token| token.minted <= *given));
        if refused.is_some() {
            self.lock_asked_twice().forced(caller, &server.name, now);
        }
        Wish { least: request.least, newer_than: fresh.max(refused) }
    }

    /// A caller says that the server refused a token. True if it was dropped: a digest that is not the cached
    /// one is ignored, because another caller already got a new token.
    pub fn reject(&self, caller: &Caller, target: &Target, digest: &Digest) -> Result<bool, Error> {
        let server = self.server(target)?;
        let permit = server.policy.permit(caller, None).map_err(|denied| Error::denied(&server, denied))?;
        let mut dropped = self.cache.reject(&server.key(&permit), digest);
        for (key, token) in self.cache.held() {
            // The same server's tokens of other scopes; the digest says whose it is.
            if token.digest == *digest && *token.server == *server.name {
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
        let server = self.server(target)?;
        let permit = server.policy.permit(caller, None).map_err(|denied| Error::denied(&server, denied))?;
        // What a caller could not have, it cannot take from others either.
        let its_own = |token: &Token| *token.server == *server.name && permit.admit(&token.scopes).is_ok();
        let held: Vec<_> = self.cache.held().into_iter().filter(|(_, token)| its_own(token)).collect();
        // First of all nobody gets them any more, whatever the server answers.
        for (key, _) in &held {
            self.cache.forget(key);
        }
        let (mut revoked, mut failed) = (0, None);
        for (_, token) in &held {
            let endpoint = token.revocation_endpoint.as_deref();
            let client_id = server.client_id.as_deref();
            let outbound = &self.maker.outbound;
            match revocation::revoke(outbound, endpoint, NamedBy::Them, client_id, &token.access_token).await {
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
            let permit = server.policy.permit_for_all();
            self.cache.always(server.key(&permit), || self.recipe(server, permit.clone()));
        }
    }

    fn note(&self, caller: &Caller, request: &Request, decided: &Result<Granted, Error>) {
        match decided {
            Ok(granted) => {
                if let Some(tally) = self.tallies.get(&granted.server.name) {
                    tally.served(caller.uid);
                }
                tracing::debug!(server = %granted.server.name, %caller, token = ?granted.token.digest, "served");
            }
            Err(error) => {
                self.metrics.refused(error.class().as_str());
                tracing::warn!(target_server = %request.target, %caller, class = error.class().as_str(), error = %error, "not served");
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
            // A query may hold anything and does not belong into a log.
            Self::Url(url) => f.write_str(url.as_str().split('?').next().unwrap_or_default()),
        }
    }
}
