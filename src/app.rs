//! The life of the daemon: [`App::build`] binds everything, [`App::run`] serves until told to stop, then drains.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, Class, Parts, Persistence};
use crate::clock::Clock;
use crate::config::Config;
use crate::env::Env;
use crate::frontend::api::State;
use crate::frontend::place;
use crate::frontend::socket::{self, Access, Socket};
use crate::identity::{self, Ambient, Chosen};
use crate::metrics::Metrics;
use crate::outbound::Outbound;

/// What runs at a shutdown may take this long.
const DRAIN: Duration = Duration::from_secs(5);
/// How often a daemon of a CI job looks whether the job's directory is still there.
const JOB_LOOK: Duration = Duration::from_secs(2);

/// A daemon, bound and not yet serving.
pub struct App {
    socket: Socket,
    state: Arc<State>,
    outbound: Outbound,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The directory whose end is ours too.
    ends_with: Option<PathBuf>,
}

/// Why a daemon or a command cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable identity.
    #[error("identity: {0}")]
    Identity(identity::Error),
    /// There is no socket.
    #[error("{0}")]
    Socket(#[from] socket::Error),
    /// Serving failed.
    #[error("the socket cannot be served: {0}")]
    Serve(std::io::Error),
}

impl Error {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Identity(_) => Class::NoIdentity,
            Self::Socket(_) => Class::Config,
            Self::Serve(_) => Class::Internal,
        }
    }

    /// The cure.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint().map(str::to_owned),
            Self::Socket(error) => error.hint(),
            Self::Serve(_) => None,
        }
    }
}

/// A broker with what it stands on, for a daemon or for one command.
pub(crate) struct Core {
    pub(crate) broker: Broker,
    pub(crate) outbound: Outbound,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// Chooses the identity and puts the rooms together. Must be called inside a runtime.
pub(crate) fn core(config: Config, env: Env, clock: Clock, persistence: Persistence) -> Result<Core, Error> {
    core_with(config, env, clock, persistence, |chosen| chosen.map_err(Error::Identity))
}

/// The same for `doctor`, which has much to say also where no identity is found.
pub(crate) fn core_even_without_identity(
    config: Config,
    env: Env,
    clock: Clock,
    persistence: Persistence,
) -> Result<Core, Error> {
    core_with(config, env, clock, persistence, |chosen| Ok(chosen.unwrap_or_else(Chosen::nobody)))
}

fn core_with(
    config: Config,
    env: Env,
    clock: Clock,
    persistence: Persistence,
    settle: impl FnOnce(Result<Chosen, identity::Error>) -> Result<Chosen, Error>,
) -> Result<Core, Error> {
    let deadline = match persistence {
        Persistence::OneShot(limit) => Some(tokio::time::Instant::now() + limit),
        Persistence::Daemon => None,
    };
    let outbound = Outbound::until(config.egress, deadline);
    let ambient = Ambient { env, outbound: outbound.clone(), clock: clock.clone() };
    let identity = settle(identity::choose(&config.identity, &ambient))?;
    let (metrics, tasks, stop) = (Arc::new(Metrics::new()), TaskTracker::new(), CancellationToken::new());
    let broker = Broker::new(Parts {
        servers: config.servers,
        issuers: config.issuers,
        identity,
        outbound: outbound.clone(),
        clock,
        metrics: Arc::clone(&metrics),
        persistence,
        tasks: tasks.clone(),
        stop: stop.clone(),
    });
    Ok(Core { broker, outbound, metrics, tasks, stop })
}

impl App {
    /// Makes everything and binds the socket, so that its place is known before anything is served.
    pub async fn build(config: Config, env: Env, clock: Clock) -> Result<Self, Error> {
        Self::build_on(None, config, env, clock)
    }

    /// The same on a socket that a service manager passed.
    pub(crate) fn build_on(
        inherited: Option<UnixListener>,
        config: Config,
        env: Env,
        clock: Clock,
    ) -> Result<Self, Error> {
        let access = Access { mode: config.listen.mode, group: config.listen.group };
        let uid = env.uid();
        let job = place::job_directory(&env);
        let explicit = config.listen.socket.clone();
        // Identity first: a daemon that can serve nobody must not take the place of one that can.
        let Core { broker, outbound, metrics, tasks, stop } =
            core(config, env.clone(), clock.clone(), Persistence::Daemon)?;
        let socket = match (inherited, explicit) {
            (Some(listener), configured) => {
                let socket = Socket::inherited(listener, access)?;
                if let Some(configured) = configured.filter(|configured| configured != socket.path()) {
                    let (passed, configured) = (socket.path().display(), configured.display());
                    tracing::warn!(%passed, %configured, "the service manager's socket is served, not the configured one");
                }
                socket
            }
            (None, Some(path)) => Socket::explicit(&path, access, uid)?,
            (None, None) => Socket::default_place(&place::to_make(&env), access, uid)?,
        };
        let ends_with = job.filter(|job| socket.path().starts_with(job));
        let state = Arc::new(State { broker, metrics, clock, uid });
        Ok(Self { socket, state, outbound, tasks, stop, ends_with })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// Serves until `shutdown`, then stops listening, finishes what runs and gives everything back.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        self.state.broker.keep_required();
        // Reading the system's roots takes milliseconds that the first caller need not wait for.
        let outbound = self.outbound.clone();
        let warm = tokio::task::spawn_blocking(move || outbound.warm());
        let no_longer_accepting = self.stop.child_token();
        let served = tokio::select! {
            served = self.socket.serve(Arc::clone(&self.state), &self.tasks, &no_longer_accepting) => served,
            () = shutdown => Ok(()),
            () = gone(self.ends_with.as_deref()) => {
                tracing::info!("the job's directory is gone: the job has ended");
                Ok(())
            }
        };
        drop(warm);
        drop(self.socket);
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "not everything ended in time");
        }
        served.map_err(Error::Serve)
    }
}

/// The next job may make a directory of the same name before we look: ours is gone all the same. It is held open so
/// that its inode cannot be given to another.
async fn gone(directory: Option<&Path>) {
    use std::os::unix::fs::MetadataExt;
    let Some(directory) = directory else { return std::future::pending().await };
    let which = |found: std::fs::Metadata| (found.dev(), found.ino());
    let Ok(held) = std::fs::File::open(directory) else { return };
    let ours = held.metadata().ok().map(which);
    while std::fs::metadata(directory).ok().map(which) == ours {
        tokio::time::sleep(JOB_LOOK).await;
    }
}
