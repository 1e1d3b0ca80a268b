//! The program and unit that audit records name. They are read once for each connection, and only if there is an audit:
//! reading `/proc` takes longer than serving a cached token.

use std::sync::{Arc, OnceLock};

/// Read by process id, which may belong to another process by now: never for permission.
#[derive(Debug)]
pub(crate) struct Hints {
    /// The program's path in its own mount namespace.
    pub exe: Option<String>,
    /// The systemd unit, or the container's id.
    pub unit: Option<String>,
}

/// Shared by all copies of a caller.
#[derive(Clone, Debug, Default)]
pub(super) struct Cached(Arc<OnceLock<Hints>>);

impl Cached {
    pub(super) fn or_read(&self, read: impl FnOnce() -> Hints) -> &Hints {
        self.0.get_or_init(read)
    }
}

/// Hints do not count when callers are compared.
impl PartialEq for Cached {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Cached {}
