//! Builds a broker from its parts. Nothing is fetched yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::flight::Minter;
use super::newest::Newest;
use super::rate::RateLimiter;
use super::refusals::RefusalLimiter;
use super::refused::Refused;
use super::retries::RetryDetector;
use super::tally::Tally;
use super::to_give_back::ToGiveBack;
use super::unlisted::{UNLISTED, Unlisted};
use super::{Broker, Error, Identity, Persistence, Server};
use crate::audit::Audit;
use crate::cache::{self, Cache};
use crate::clock::Clock;
use crate::discovery::Discovery;
use crate::dpop;
use crate::env::Env;
use crate::exchange::pace::Pace;
use crate::exchange::registration::Registrations;
use crate::identity;
use crate::jitter::Jitter;
use crate::metrics::Metrics;
use crate::oauth::Issuer;
use crate::outbound::Outbound;
use crate::store::Store;

/// What a broker is made of.
pub struct Parts {
    /// The configured servers.
    pub servers: Vec<Server>,
    /// `[egress] issuers`: the only authorization servers that discovery may choose; `None` is no limit.
    pub issuers: Option<Vec<Issuer>>,
    /// The identities by name; for one that was not found, the reason.
    pub identities: BTreeMap<Arc<str>, Result<Identity, identity::Error>>,
    /// Keeps client registrations and their keys beyond the end of the process.
    pub(crate) store: Store,
    /// Access to files and environment variables.
    pub env: Env,
    /// The user that may also ask for URLs that are not configured (`unlisted`).
    pub unlisted_for: Option<u32>,
    /// The HTTP client.
    pub outbound: Outbound,
    /// The source of all times.
    pub clock: Clock,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// How long a flight keeps trying, as daemon or as one-shot command.
    pub persistence: Persistence,
    /// The audit file, which records every decision.
    pub audit: Option<Arc<Audit>>,
    /// All background tasks belong to it.
    pub tasks: TaskTracker,
    /// Ends all background tasks.
    pub stop: CancellationToken,
}

/// The state that a reload hands on to the next broker.
#[derive(Default)]
pub(super) struct CarriedOver {
    pub(super) pace: Option<Arc<Pace>>,
    /// `None` if the new configuration keeps registrations in another place.
    pub(super) registrations: Option<Arc<Registrations>>,
    pub(super) nonces: Arc<dpop::Nonces>,
    pub(super) keys: Arc<Mutex<HashMap<Arc<str>, Arc<dpop::Key>>>>,
    pub(super) refused: Arc<Refused>,
    pub(super) to_give_back: Arc<ToGiveBack>,
    pub(super) retries: Arc<Mutex<RetryDetector>>,
    pub(super) newest: Arc<Newest>,
}

impl Broker {
    /// Builds a broker without a predecessor. Nothing is fetched yet.
    pub fn new(parts: Parts) -> Self {
        Self::with(parts, CarriedOver::default())
    }

    /// Builds a broker with the state of its predecessor.
    pub(super) fn with(parts: Parts, carried: CarriedOver) -> Self {
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
        let refusals = matches!(persistence, Persistence::Daemon)
            .then(|| RefusalLimiter::new(audit.clone(), clock.clone(), tasks.clone(), stop.clone()));
        let (jitter, observer) = (Jitter::from_system(), Box::new(metrics.cache()));
        let cache = cache::Parts { clock: clock.clone(), jitter, persistence, tasks, stop, observer };
        let unlisted_name = unlisted_for.map(|_| UNLISTED.into());
        let tallied = servers.iter().map(|one| Arc::clone(&one.name)).chain(unlisted_name);
        let tallies = tallied.map(|name| (Arc::clone(&name), Tally::new(metrics.served(&name)))).collect();
        let paced = servers.iter().filter_map(|one| Some((Arc::clone(&one.name), RateLimiter::new(one.rate?))));
        let pacers = paced.collect();
        let servers: Vec<Arc<Server>> = servers.into_iter().map(Arc::new).collect();
        let needs_process_facts = servers.iter().any(|server| server.policy.needs_process_facts());
        Self {
            servers: servers.clone(),
            cache: Cache::<Error>::new(cache),
            maker: Arc::new(Minter {
                discovery: Discovery::new(outbound.clone(), clock.clone()),
                pace: carried.pace.unwrap_or_else(|| Arc::new(Pace::new(clock.clone()))),
                registrations: carried.registrations.unwrap_or_else(|| Arc::new(Registrations::new(store))),
                nonces: carried.nonces,
                keys: carried.keys,
                identities,
                env,
                outbound,
                issuers,
                clock: clock.clone(),
                servers,
                refused: carried.refused,
                to_give_back: carried.to_give_back,
                last_failure: Arc::default(),
                sent: Default::default(),
            }),
            clock,
            metrics,
            retries: carried.retries,
            made: Mutex::default(),
            tallies,
            needs_process_facts,
            pacers,
            unlisted: unlisted_for.map(Unlisted::new),
            audit,
            newest: carried.newest,
            refused_callers: Default::default(),
            generation: 0,
            refusals,
        }
    }
}
