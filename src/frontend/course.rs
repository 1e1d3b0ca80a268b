//! Where the tasks of the listeners run, and what stops them.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::relay_threads::RelayThreads;

/// The tasks of all listeners, and their common end.
#[derive(Clone)]
pub(crate) struct Course {
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// Where connections of the proxy are served.
    pub(crate) relay: Arc<RelayThreads>,
}
