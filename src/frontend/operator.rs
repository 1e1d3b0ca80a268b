//! What the operator asks of a daemon through its socket: to end, or to read its configuration again.

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::broker::Class;

/// More than anybody waits for at once. Those beyond wait for a place.
const WAITING: usize = 16;

/// Passes the operator's orders from the handlers to whoever runs the daemon.
pub(crate) struct Operator {
    stop: CancellationToken,
    reloads: mpsc::Sender<oneshot::Sender<Reloaded>>,
}

/// The orders to read the configuration again. Each waits for its outcome.
pub(crate) type Reloads = mpsc::Receiver<oneshot::Sender<Reloaded>>;

/// How many servers there are now, or why nothing has changed.
pub(crate) type Reloaded = Result<usize, Unchanged>;

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
        (Self { stop: CancellationToken::new(), reloads }, taken)
    }

    /// Ends the daemon as SIGTERM does.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the order to end.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Has the configuration read again. `None` if nobody does that.
    pub(super) async fn reload(&self) -> Option<Reloaded> {
        let (told, outcome) = oneshot::channel();
        self.reloads.send(told).await.ok()?;
        outcome.await.ok()
    }
}
