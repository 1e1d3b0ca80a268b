//! Puts the rooms together: a broker with what it stands on, for a daemon, for one command, or anew after a reload.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{self, Audit};
use crate::broker::{Broker, Class, ClientAuth, Identity, Order, Parts, Persistence, Server};
use crate::clock::Clock;
use crate::config::Config;
use crate::env::Env;
use crate::identity::{self, Ambient, Chosen};
use crate::metrics::Metrics;
use crate::outbound::Outbound;
use crate::store::Store;

/// A broker with what it stands on, for a daemon or for one command.
pub(crate) struct Core {
    pub(crate) broker: Broker,
    pub(crate) outbound: Outbound,
    pub(crate) stop: CancellationToken,
    /// Ends the tasks of this broker alone.
    pub(crate) generation: CancellationToken,
    pub(crate) ground: Ground,
}

/// What outlives a reload.
pub(crate) struct Ground {
    env: Env,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) tasks: TaskTracker,
    persistence: Persistence,
}

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No identity is usable.
    #[error("identity: {0}")]
    Identity(identity::Error),
    /// The audit log cannot be written.
    #[error("{0}")]
    Audit(#[from] audit::Error),
}

impl Error {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Identity(_) => Class::NoIdentity,
            Self::Audit(error) if error.is_temporary() => Class::Temporary,
            Self::Audit(_) => Class::Config,
        }
    }

    /// The cure.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint().map(str::to_owned),
            Self::Audit(error) => Some(error.hint()),
        }
    }
}

/// What an identity that is needed and not here does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// It stops the start.
    Stops,
    /// Whoever needs it is told.
    IsTold,
}

/// Opens the audit file, chooses the identity and puts the rooms together. Must be called inside a runtime.
pub(crate) fn core(mut config: Config, env: Env, clock: Clock, persistence: Persistence) -> Result<Core, Error> {
    // Its file has one holder, whatever is built anew later.
    let audit = config.audit.take().map(|config| audit_of(config, persistence)).transpose()?.map(Arc::new);
    Ground::new(audit, env, clock, persistence).core(config, Missing::Stops)
}

/// The same for `doctor`, which has much to say also where no identity is found, and hands nothing to anybody.
pub(crate) fn core_even_without_identity(
    config: Config,
    env: Env,
    clock: Clock,
    persistence: Persistence,
) -> Result<Core, Error> {
    Ground::new(None, env, clock, persistence).core(config, Missing::IsTold)
}

/// The same for a process that serves itself alone, for as long as its client lives: others may write the same audit file, and
/// a missing identity is told to whoever needs it.
pub(crate) fn core_for_ourselves(config: Config, env: Env, clock: Clock) -> Result<Core, Error> {
    beside_others(config, env, clock, Missing::IsTold)
}

/// The same, where a missing identity stops the start.
pub(crate) fn core_beside_others(config: Config, env: Env, clock: Clock) -> Result<Core, Error> {
    beside_others(config, env, clock, Missing::Stops)
}

fn beside_others(mut config: Config, env: Env, clock: Clock, missing: Missing) -> Result<Core, Error> {
    let audit = config.audit.take().map(|config| audit_of(config, Persistence::OneShot(Duration::ZERO)));
    let audit = audit.transpose()?.map(Arc::new);
    config.listen.unlisted = false;
    Ground::new(audit, env, clock, Persistence::Daemon).core(config, missing)
}

impl Ground {
    fn new(audit: Option<Arc<Audit>>, env: Env, clock: Clock, persistence: Persistence) -> Self {
        let unrecorded = audit.as_deref().map(Audit::failed).unwrap_or_default();
        Self { env, clock, metrics: Arc::new(Metrics::new(unrecorded)), audit, tasks: TaskTracker::new(), persistence }
    }

    fn core(self, config: Config, missing: Missing) -> Result<Core, Error> {
        let stop = CancellationToken::new();
        let generation = stop.child_token();
        let (parts, outbound) = self.parts(config, missing, &generation)?;
        Ok(Core { broker: Broker::new(parts), outbound, stop, generation, ground: self })
    }

    /// A broker after another, whose tasks end with `stop`.
    pub(crate) fn succeed(
        &self,
        config: Config,
        before: &Broker,
        stop: &CancellationToken,
    ) -> Result<(Broker, Outbound), Error> {
        let (parts, outbound) = self.parts(config, Missing::Stops, stop)?;
        Ok((Broker::after(parts, before), outbound))
    }

    fn parts(&self, config: Config, missing: Missing, stop: &CancellationToken) -> Result<(Parts, Outbound), Error> {
        let deadline = self.persistence.for_requests().map(|limit| tokio::time::Instant::now() + limit);
        let outbound = Outbound::until(config.egress.clone(), self.clock.clone(), deadline);
        if matches!(self.persistence, Persistence::Daemon) {
            let (outbound, stop) = (outbound.clone(), stop.clone());
            self.tasks.spawn(async move { outbound.close_idle_connections(&stop).await });
        }
        let env = self.env.clone().with_secrets(config.secret_variables());
        let ambient = Ambient { env, outbound: outbound.clone(), clock: self.clock.clone() };
        let identities = identities(&config, missing, &ambient)?;
        warn_of_weakness(&config.servers);
        // A command that does the work itself adds what it was asked for to its configuration.
        let serves_others = config.listen.unlisted && matches!(self.persistence, Persistence::Daemon);
        let parts = Parts {
            servers: config.servers,
            issuers: config.issuers,
            identities,
            store: Store::new(config.keyring),
            env: ambient.env,
            unlisted_for: serves_others.then(|| self.env.uid()),
            outbound: outbound.clone(),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
            persistence: self.persistence,
            audit: self.audit.clone(),
            tasks: self.tasks.clone(),
            stop: stop.clone(),
        };
        Ok((parts, outbound))
    }
}

/// What is allowed and better not done.
fn warn_of_weakness(servers: &[Server]) {
    for server in servers {
        let name = &server.name;
        if server.orders().any(|order| order.client.auth == ClientAuth::Secret) {
            tracing::warn!(server = %name, "its client proves itself with a shared secret, which can be stolen and does not end; better `private-key-jwt`, `mtls` or `workload`");
        }
        if server.trust_discovered_issuer && server.order.issuer().is_none() {
            tracing::warn!(server = %name, "tokens of whatever issuer it names are used, bound to it or not; better pin `issuer`");
        }
    }
}

/// Opens the audit file. Must be called inside a runtime.
pub(crate) fn audit_of(config: audit::Config, persistence: Persistence) -> Result<Audit, audit::Error> {
    // At the limit of a file's size (RLIMIT_FSIZE) the signal would end us; caught, it leaves write(2) to fail.
    let too_large = SignalKind::from_raw(nix::libc::SIGXFSZ);
    if let Err(error) = signal(too_large) {
        tracing::warn!(%error, "a limit of the file size would end this process");
    }
    match persistence {
        Persistence::Daemon => Audit::hold(config),
        Persistence::OneShot(_) => Audit::visit(config),
    }
}

/// Finds every identity. One that a server needs and that is not here stops the start; one that nobody needs, as with
/// clients that prove themselves, does not.
fn identities(
    config: &Config,
    missing: Missing,
    ambient: &Ambient,
) -> Result<BTreeMap<Arc<str>, Result<Identity, identity::Error>>, Error> {
    let mut found = BTreeMap::new();
    for (name, wanted) in &config.identities {
        let chosen = identity::choose(&wanted.choice, ambient).map(|Chosen { source, evidence }| Identity {
            source,
            evidence,
            links: wanted.links.clone(),
        });
        let of_this = |order: &Arc<Order>| order.needs(name);
        let needs = |server: &Server| server.orders().any(of_this);
        if let Err(error) = &chosen
            && missing == Missing::Stops
            && (config.servers.iter().any(needs) || config.servers.is_empty() || config.listen.unlisted)
        {
            return Err(Error::Identity(error.clone()));
        }
        found.insert(Arc::clone(name), chosen);
    }
    Ok(found)
}
