//! Who asks, as the kernel says. Never what the caller says of itself.

use std::fmt;

/// The process at the other end of a socket, or this process itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected.
    pub gid: u32,
    /// Process id when it connected; ids are reused, so it names nobody for sure.
    pub pid: Option<i32>,
}

impl Caller {
    /// This process, when it does the work itself.
    pub fn own(uid: u32, gid: u32) -> Self {
        Self { uid, gid, pid: i32::try_from(std::process::id()).ok() }
    }

    /// The control group of the connecting process, which tells containers and units apart. It is read by
    /// process id and so only good for hints, never for permission.
    pub fn cgroup(&self) -> Option<String> {
        let path = format!("/proc/{}/cgroup", self.pid?);
        let text = std::fs::read(path).ok()?;
        Some(String::from_utf8_lossy(&text[..text.len().min(4096)]).into_owned())
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} gid {}", self.uid, self.gid)?;
        match self.pid {
            Some(pid) => write!(f, " pid {pid}"),
            None => Ok(()),
        }
    }
}
