//! Where the tasks of the listeners run, and what stops them.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of all listeners, and their common end.
#[derive(Clone)]
pub(crate) struct Course {
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}
