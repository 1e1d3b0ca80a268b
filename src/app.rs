//! The life of the daemon: [`App::build`] binds everything, [`App::run`] serves until told to stop, then drains.

use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::assembly::{self, Core};
use crate::blocking::{self, Kind};
use crate::broker::{Class, Persistence};
use crate::clock::Clock;
use crate::config::{Config, Listen};
use crate::env::{Env, FileId};
use crate::frontend::behind::Behind;
use crate::frontend::course::Course;
use crate::frontend::descriptors::Share;
use crate::frontend::desk::{CurrentBroker, Fixed, Listening, State};
use crate::frontend::health::Health;
use crate::frontend::http::{self, Http};
use crate::frontend::loads::Loads;
use crate::frontend::operator::{Operator, Reloads};
use crate::frontend::place::{self, Access};
use crate::frontend::socket::Socket;
use crate::outbound::Outbound;
use crate::relay::Relay;
use crate::{descriptors, sockets};

mod private;
mod reload;
mod variables;

pub(crate) use private::Private;
pub(crate) use reload::Reload;
use reload::Reloaded;
pub(crate) use variables::{KeepIdentity, of_identities};

/// The time limit for running requests at a shutdown. Those that have no answer by then get an error.
const DRAIN: Duration = Duration::from_secs(5);
/// The time for these errors to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How often a daemon in a CI job checks that the job's directory still exists.
const JOB_LOOK: Duration = Duration::from_secs(2);

/// A daemon, bound and not yet serving.
pub struct App {
    socket: Socket,
    http: Option<Http>,
    health: Option<Health>,
    state: Arc<State>,
    broker: Arc<CurrentBroker>,
    outbound: Outbound,
    course: Course,
    /// How long it goes on serving when it is told to stop.
    linger: Duration,
    reload: Arc<Reload>,
    reloads: Option<Reloads>,
    /// The directory whose deletion ends this daemon.
    ends_with: Option<PathBuf>,
}

/// Why a daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no broker.
    #[error(transparent)]
    Assembly(#[from] assembly::Error),
    /// The socket cannot be bound.
    #[error("{0}")]
    Socket(#[from] place::Error),
    /// A TCP listener cannot be bound.
    #[error("{0}")]
    Tcp(#[from] http::Error),
    /// The configuration file that is in use is not there any more.
    #[error("{}, which is in use, is not the configuration file that is found now", .0.display())]
    Gone(PathBuf),
    /// Serving failed.
    #[error("a listener cannot be served: {0}")]
    Serve(std::io::Error),
}

impl Error {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Assembly(error) => error.class(),
            Self::Socket(_) | Self::Tcp(_) | Self::Gone(_) => Class::Config,
            Self::Serve(_) => Class::Internal,
        }
    }

    /// The cure.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Assembly(error) => error.hint(),
            Self::Socket(error) => error.hint(),
            Self::Tcp(error) => error.hint(),
            Self::Gone(_) => {
                Some("put it back; for another file, or none, end the daemon and start it again".to_owned())
            }
            Self::Serve(_) => None,
        }
    }
}

/// Listeners that a service manager passed.
#[derive(Default)]
pub(crate) struct Inherited {
    pub(crate) socket: Option<UnixListener>,
    pub(crate) tcp: Vec<TcpListener>,
}

impl App {
    /// Builds all rooms and binds every listener, so that the addresses are known before it serves.
    pub async fn build(config: Config, env: Env, clock: Clock) -> Result<Self, Error> {
        Self::build_on(Inherited::default(), config, env, clock)
    }

    /// The same on listeners that a service manager passed.
    pub(crate) fn build_on(inherited: Inherited, config: Config, env: Env, clock: Clock) -> Result<Self, Error> {
        // Identity first: a daemon without an identity must not replace one that works.
        let core = assembly::core(config.clone(), env.clone(), clock.clone(), Persistence::Daemon)?;
        Self::on((core, None), inherited, config, env, clock)
    }

    /// A daemon for one command and its children: others may write the same audit file.
    pub(crate) fn build_private(config: Config, env: Env, clock: Clock) -> Result<Self, Error> {
        let core = assembly::core_beside_others(config.clone(), env.clone(), clock.clone())?;
        Self::on((core, None), Inherited::default(), config, env, clock)
    }

    /// The same in front of a daemon that is asked for everything.
    pub(crate) fn build_before(behind: Behind, config: Config, env: Env, clock: Clock) -> Result<Self, Error> {
        let core = assembly::core_for_ourselves(config.clone(), env.clone(), clock.clone())?;
        Self::on((core, Some(behind)), Inherited::default(), config, env, clock)
    }

    fn on(
        (core, behind): (Core, Option<Behind>),
        inherited: Inherited,
        config: Config,
        env: Env,
        clock: Clock,
    ) -> Result<Self, Error> {
        let Core { broker, outbound, stop, generation, ground } = core;
        let (listen, uid) = (config.listen.clone(), env.uid());
        let socket = socket(inherited.socket, &listen, &env)?;
        let wanted = http::Wanted { addresses: &listen.http, counts_owners: listen.http_owner };
        let http = Http::open(inherited.tcp, wanted, socket.path(), uid)?;
        let oauth = http.as_ref().filter(|_| listen.oauth_token);
        let oauth = oauth.map(|http| http.oauth_clients(socket.path(), uid)).transpose()?.map(Arc::new);
        if let Some(clients) = &oauth {
            clients.write(broker.server_names())?;
        }
        let health = Health::open(&listen.health)?;
        let listening = Listening {
            socket: socket.path().to_owned(),
            http: http.as_ref().map(Http::addresses).unwrap_or_default(),
            http_secret: http.as_ref().map(|http| http.secret().to_owned()),
            health: health.as_ref().and_then(Health::address),
        };
        let ends_with = sockets::job_of(socket.path(), &env).and_then(|_| Some(socket.path().parent()?.to_owned()));
        let (metrics, tasks) = (Arc::clone(&ground.metrics), ground.tasks.clone());
        let broker = Arc::new(CurrentBroker::new(broker));
        let (late, digests) = (CancellationToken::new(), Default::default());
        let relay = Arc::new(Relay::new(clock.clone(), uid, Arc::clone(&metrics), stop.clone(), tasks.clone()));
        let loads = Arc::new(Loads::new(config.file.clone(), clock.wall()));
        let to_reload = Reloaded {
            broker: Arc::clone(&broker),
            oauth: oauth.clone(),
            relay: Arc::clone(&relay),
            loads: Arc::clone(&loads),
        };
        let (operator, reloads) = Operator::new();
        let (operator, linger) = (Arc::new(operator), listen.linger);
        let fixed =
            Fixed { metrics, clock, uid, digests, operator, loads, linger, relay, oauth, behind, late, listening };
        let state = Arc::new(State::new(Arc::clone(&broker), fixed));
        let reload = Arc::new(Reload::new(ground, to_reload, &config, stop.clone(), generation));
        let course = Course { tasks, stop, relay: Arc::default() };
        let reloads = Some(reloads);
        Ok(Self { socket, http, health, state, broker, outbound, course, linger, reload, reloads, ends_with })
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// Everything it listens on.
    pub(crate) fn listening(&self) -> &Listening {
        &self.state.fixed().listening
    }

    /// The handle to change the configuration while it runs.
    pub(crate) fn reload(&self) -> Arc<Reload> {
        Arc::clone(&self.reload)
    }

    /// The operator's orders to read the configuration again, for whoever can do that. They are refused if nobody takes this.
    pub(crate) fn take_reloads(&mut self) -> Option<Reloads> {
        self.reloads.take()
    }

    /// Serves until `shutdown`, or until the operator ends it through the socket. Then it stops listening, finishes the running requests and releases its resources.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let stopped = self.stop_ordered();
        let shutdown = async {
            tokio::select! {
                () = shutdown => {}
                () = stopped => {}
            }
        };
        self.run_or_end(shutdown, std::future::pending()).await
    }

    /// Waits for the operator's order to end.
    pub(crate) fn stop_ordered(&self) -> impl Future<Output = ()> + use<> {
        self.state.fixed().operator.stop_order().cancelled_owned()
    }

    /// Like `run`, but ends immediately when `at_once` is ready, and the operator's order to end is the caller's to obey.
    pub(crate) async fn run_or_end(
        self,
        shutdown: impl Future<Output = ()>,
        at_once: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let reload = self.reload();
        let ended = tokio::select! {
            ended = self.live(shutdown) => ended,
            () = at_once => {
                tracing::info!("ending at once");
                Ok(())
            }
        };
        // The threads of the data path may not have written their last lines yet.
        reload.audit().inspect(|audit| audit.settle());
        ended
    }

    async fn live(mut self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        // If nobody has taken them, nobody may wait for them.
        drop(self.reloads.take());
        self.broker.newest().keep_required();
        // Read the system's root certificates early: it takes milliseconds, which the first caller would wait for.
        let outbound = self.outbound.clone();
        warm(outbound);
        let served = tokio::select! {
            served = self.serve() => served,
            () = told(shutdown, self.linger) => Ok(()),
            () = gone(self.ends_with.as_deref()) => {
                tracing::info!("the job's directory is gone: the job has ended");
                Ok(())
            }
        };
        drop((self.socket, self.http, self.health));
        let Course { tasks, stop, relay: _relay } = self.course;
        stop.cancel();
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            self.state.fixed().late.cancel();
            self.state.fixed().relay.end();
            if tokio::time::timeout(LAST_WORDS, tasks.wait()).await.is_err() {
                tracing::warn!(left = tasks.len(), "not everything ended in time");
            }
        }
        self.broker.newest().revoke_at_exit().await;
        served
    }

    /// Serves every listener there is.
    async fn serve(&self) -> Result<(), Error> {
        let (http, health) = (self.http.as_ref(), self.health.as_ref());
        let wanted = http.map_or(0, Http::descriptors) + health.map_or(0, Health::descriptors);
        let share = Share::new(descriptors::left(), self.socket.descriptors() + wanted);
        let http = async {
            match &self.http {
                Some(http) => http.serve(Arc::clone(&self.state), &self.course, share).await.map_err(Error::Serve),
                None => Ok(()),
            }
        };
        let health = async {
            match &self.health {
                Some(health) => health.serve(Arc::clone(&self.state), &self.course, share).await.map_err(Error::Serve),
                None => Ok(()),
            }
        };
        let socket = async {
            match self.socket.serve(Arc::clone(&self.state), &self.course, share).await {
                // Noticed before `gone` has looked.
                Err(_) if self.ends_with.as_deref().is_some_and(|job| !job.exists()) => std::future::pending().await,
                ended => ended.map_err(Error::Socket),
            }
        };
        tokio::try_join!(socket, http, health).map(drop)
    }
}

/// Reads the root certificates early. If that cannot be done now, the first request does it.
fn warm(outbound: Outbound) {
    if let Err(error) = blocking::post(Kind::Settings, move || outbound.warm()) {
        debug!(%error, "the root certificates are read later");
    }
}

/// Waits for the shutdown, then for the time in which clients may finish.
async fn told(shutdown: impl Future<Output = ()>, linger: Duration) {
    shutdown.await;
    if !linger.is_zero() {
        tracing::info!(seconds = linger.as_secs(), "serving on while the agent drains");
        tokio::time::sleep(linger).await;
    }
}

/// The inherited socket, else the configured one, else one at a default path.
fn socket(inherited: Option<UnixListener>, listen: &Listen, env: &Env) -> Result<Socket, place::Error> {
    let access = Access { mode: listen.mode, group: listen.group };
    match (inherited, &listen.socket) {
        (Some(listener), configured) => {
            let socket = Socket::inherited(listener, access)?;
            if let Some(configured) = configured.as_deref().filter(|configured| *configured != socket.path()) {
                let (passed, configured) = (socket.path().display(), configured.display());
                tracing::warn!(%passed, %configured, "the service manager's socket is served, not the configured one");
            }
            Ok(socket)
        }
        (None, Some(path)) => Socket::explicit(path, access, env.uid()),
        (None, None) => Socket::default_place(&sockets::to_bind(env), access, env.uid()),
    }
}

/// Waits until the directory is deleted. The next job may create one of the same name before we look, so the inode is
/// compared. The directory is held open so that its inode is not reused.
async fn gone(directory: Option<&Path>) {
    let Some(directory) = directory else { return std::future::pending().await };
    let path = directory.to_owned();
    // A pipe in its place would be waited for.
    let directory_only = nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_NONBLOCK;
    let mut options = std::fs::File::options();
    options.read(true).custom_flags(directory_only.bits());
    let held = move || options.open(&path).and_then(|held| Ok((FileId::from(&held.metadata()?), held)));
    // Without a thread now, it is looked for later.
    let (ours, _held) = loop {
        match blocking::run(Kind::Files, held.clone()).await {
            Ok(Ok(held)) => break held,
            Ok(Err(_)) => return,
            Err(_) => tokio::time::sleep(JOB_LOOK).await,
        }
    };
    loop {
        let path = directory.to_owned();
        let found = blocking::run(Kind::Files, move || std::fs::metadata(path)).await;
        if found.is_ok_and(|found| found.as_ref().ok().map(FileId::from) != Some(ours)) {
            return;
        }
        tokio::time::sleep(JOB_LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_agent_has_its_time_to_drain_from_when_the_end_is_told() {
        const SECOND: Duration = Duration::from_secs(1);
        for (linger, ends_after) in [(Duration::ZERO, 1), (5 * SECOND, 6)] {
            let begun = tokio::time::Instant::now();
            told(tokio::time::sleep(SECOND), linger).await;
            assert_eq!(begun.elapsed().as_secs(), ends_after);
        }
    }
}
