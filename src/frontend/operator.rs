//! What the operator asks of a daemon through its socket: to end, or to read its configuration again.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::broker::Class;

/// More than anybody waits for at once. Those beyond wait for a place.
const WAITING: usize = 16;

/// Passes the operator's orders from the handlers to whoever runs the daemon.
pub(crate) struct Operator {
    stop: CancellationToken,
    /// Does anybody obey the order to end?
    is_obeyed: AtomicBool,
    reloads: mpsc::Sender<oneshot::Sender<Reloaded>>,
}

/// The orders to read the configuration again. Each waits for its outcome.
pub(crate) type Reloads = mpsc::Receiver<oneshot::Sender<Reloaded>>;

/// What is in use now, or why nothing has changed.
pub(crate) type Reloaded = Result<Loaded, Unchanged>;

/// A configuration that is in use now.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// How many servers it has.
    pub servers: usize,
    /// The tables that have changed and hold only after a restart.
    pub needs_restart: Vec<&'static str>,
}

/// Why a new configuration is not taken over.
#[derive(Clone, Debug)]
pub(crate) struct Unchanged {
    /// What kind of failure it is.
    pub class: Class,
    /// What is wrong.
    pub words: String,
    /// The cure.
    pub hint: Option<String>,
}

impl Operator {
    /// Without somebody who takes the orders to reload, they are refused.
    pub(crate) fn new() -> (Self, Reloads) {
        let (reloads, taken) = mpsc::channel(WAITING);
        (Self { stop: CancellationToken::new(), is_obeyed: AtomicBool::new(false), reloads }, taken)
    }

    /// Ends the daemon as SIGTERM does. `None` if it ends with something else, as the endpoint of a command does.
    pub(super) fn stop(&self) -> Option<()> {
        self.is_obeyed.load(Ordering::Relaxed).then(|| self.stop.cancel())
    }

    /// The order to end, for whoever obeys it.
    pub(crate) fn stop_order(&self) -> CancellationToken {
        self.is_obeyed.store(true, Ordering::Relaxed);
        self.stop.clone()
    }

    /// Has the configuration read again. `None` if nobody does that.
    pub(super) async fn reload(&self) -> Option<Reloaded> {
        let (told, outcome) = oneshot::channel();
        self.reloads.send(told).await.ok()?;
        outcome.await.ok()
    }
}
