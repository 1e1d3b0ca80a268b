//! Who answered: a forgotten daemon, which nobody thinks of, may be the one.

use std::path::PathBuf;

/// A daemon that answered, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answerer {
    /// Its socket.
    pub path: PathBuf,
    /// Its process, as this process may see it.
    pub pid: Option<i32>,
}

impl std::fmt::Display for Answerer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the daemon at {}", self.path.display())?;
        self.pid.map_or(Ok(()), |pid| write!(f, ", pid {pid}"))
    }
}
