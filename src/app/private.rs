//! A `/mcp/NAME` for this process alone: a broker and the data path, to which only this process can connect.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::assembly::{self, Core, core_for_ourselves};
use crate::clock::Clock;
use crate::config::Config;
use crate::env::Env;
use crate::frontend::course::Course;
use crate::frontend::desk::{CurrentBroker, Fixed, Listening, State};
use crate::frontend::inside::Inside;
use crate::frontend::loads::Loads;
use crate::frontend::operator::Operator;
use crate::relay::Relay;

/// It serves as long as it lives.
#[derive(Clone)]
pub(crate) struct Private {
    inside: Arc<Inside>,
    broker: Arc<CurrentBroker>,
}

impl Private {
    /// Puts the rooms together. An identity that is needed and not here is told to whoever needs it. Must be called inside a
    /// runtime.
    pub(crate) fn build(config: Config, env: Env, clock: Clock) -> Result<Self, assembly::Error> {
        let uid = env.uid();
        let Core { broker, outbound, stop, ground, .. } = core_for_ourselves(config, env, clock.clone())?;
        super::warm(outbound);
        let broker = Arc::new(CurrentBroker::new(broker));
        let listening = Listening { socket: PathBuf::new(), http: Vec::new(), http_secret: None, health: None };
        let metrics = Arc::clone(&ground.metrics);
        // It ends with the process: nothing is drained.
        let late = CancellationToken::new();
        let (of_relay, tasks) = (stop.clone(), ground.tasks.clone());
        let relay = Arc::new(Relay::new(clock.clone(), uid, Arc::clone(&metrics), of_relay, tasks));
        let digests = Default::default();
        // Nobody operates it.
        let operator = Arc::new(Operator::new().0);
        let fixed = Fixed {
            metrics,
            clock,
            uid,
            digests,
            operator,
            loads: Arc::new(Loads::new(None, ground.clock.wall())),
            linger: Duration::ZERO,
            relay,
            oauth: None,
            behind: None,
            late,
            listening,
        };
        let state = Arc::new(State::new(Arc::clone(&broker), fixed));
        let inside = Inside::new(state, Course { tasks: ground.tasks, stop, relay: Arc::default() });
        Ok(Self { inside: Arc::new(inside), broker })
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        self.inside.connect()
    }

    /// Gives back what is to be given back at the end, as far as it can be done in this time.
    pub(crate) async fn end(self, limit: Duration) {
        if tokio::time::timeout(limit, self.broker.newest().revoke_at_exit()).await.is_err() {
            tracing::warn!("not every token was revoked in time; they lapse by themselves");
        }
    }
}
