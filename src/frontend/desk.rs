//! What one request is answered from: the broker that it keeps from its beginning to its end, the counters and the clock.
//!
//! A reload replaces the broker while requests run. So nothing in this room asks for the newest broker twice: a listener
//! takes a [`Desk`] when a request begins, and policy, signing and audit of that request see one configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::behind::Behind;
use super::loads::Loads;
use super::oauth::Clients;
use super::operator::Operator;
use crate::broker::Broker;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::process::Digests;
use crate::relay::Relay;

/// The broker in use, which a reload replaces. It is the app's; front-ends reach it through [`State::desk`] alone.
pub(crate) struct CurrentBroker(Mutex<Arc<Broker>>);

impl CurrentBroker {
    pub(crate) fn new(broker: Broker) -> Self {
        Self(Mutex::new(Arc::new(broker)))
    }

    /// The newest broker.
    pub(crate) fn newest(&self) -> Arc<Broker> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it. Requests that run keep the old one.
    pub(crate) fn replace(&self, broker: Broker) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(broker);
    }
}

/// What all listeners share.
pub(crate) struct State {
    broker: Arc<CurrentBroker>,
    fixed: Fixed,
}

/// The part of the state that a reload does not change.
pub(crate) struct Fixed {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
    /// The daemon's own user.
    pub uid: u32,
    /// Digests of callers' programs, for rules that name them.
    pub digests: Digests,
    /// What the operator asks for.
    pub operator: Arc<Operator>,
    /// What it has read.
    pub loads: Arc<Loads>,
    /// How long it goes on serving when it is told to stop.
    pub linger: Duration,
    /// The data path.
    pub relay: Arc<Relay>,
    /// The clients of the token endpoint, where there is one.
    pub oauth: Option<Arc<Clients>>,
    /// The daemon that is asked for everything, if this is no more than an endpoint of it.
    pub behind: Option<Behind>,
    /// The daemon ends, and has waited long enough for answers.
    pub late: CancellationToken,
    /// Where the daemon listens.
    pub listening: Listening,
}

/// Where the daemon listens, for status and log.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Listening {
    /// The Unix socket.
    pub socket: PathBuf,
    /// The API on loopback.
    pub http: Vec<SocketAddr>,
    /// The file with the secret of that API.
    pub http_secret: Option<PathBuf>,
    /// The listener for health and metrics.
    pub health: Option<SocketAddr>,
}

impl State {
    pub(crate) fn new(broker: Arc<CurrentBroker>, fixed: Fixed) -> Self {
        Self { broker, fixed }
    }

    /// What a reload does not change.
    pub(crate) fn fixed(&self) -> &Fixed {
        &self.fixed
    }

    /// The desk of a request, or of a connection, that begins now.
    pub(super) fn desk(&self) -> Desk<'_> {
        Desk { broker: self.broker.newest(), fixed: &self.fixed }
    }
}

/// What one request is answered from.
pub(super) struct Desk<'a> {
    /// The broker that was in use when the request began.
    pub(super) broker: Arc<Broker>,
    /// Counters, clock and the rest.
    pub(super) fixed: &'a Fixed,
}
