//! Who asks, as the kernel says. Never what the caller says of itself.

use std::fmt;
use std::io::Read;
use std::sync::OnceLock;

/// The process at the other end of a socket, or this process itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected.
    pub gid: u32,
    /// Process id when it connected; ids are reused, so it names nobody for sure.
    pub pid: Option<i32>,
    /// Read when first asked for, and once: a caller is one connection, and the file system is slower than a cached token.
    hints: OnceLock<Hints>,
}

/// What `/proc` says about the process id: good for a record, never for permission.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hints {
    exe: Option<String>,
    unit: Option<String>,
}

impl Caller {
    /// This process, when it does the work itself.
    pub fn own(uid: u32, gid: u32) -> Self {
        Self::new(uid, gid, i32::try_from(std::process::id()).ok())
    }

    /// The process that the kernel names.
    pub(crate) fn new(uid: u32, gid: u32, pid: Option<i32>) -> Self {
        Self { uid, gid, pid, hints: OnceLock::new() }
    }

    /// The program that the process id runs, as its own mount namespace calls it.
    pub(crate) fn exe_hint(&self) -> Option<&str> {
        self.hints().exe.as_deref()
    }

    /// The innermost control group of the process id: the systemd unit, or what names the container.
    pub(crate) fn unit_hint(&self) -> Option<&str> {
        self.hints().unit.as_deref()
    }

    fn hints(&self) -> &Hints {
        self.hints.get_or_init(|| Hints {
            exe: self.pid.and_then(|pid| {
                Some(std::fs::read_link(format!("/proc/{pid}/exe")).ok()?.to_string_lossy().into_owned())
            }),
            unit: self.cgroup().as_deref().and_then(unit_in),
        })
    }

    /// The control group of the connecting process, which tells containers and units apart. It is read by
    /// process id and so only good for hints, never for permission.
    pub fn cgroup(&self) -> Option<String> {
        let mut text = Vec::new();
        let file = std::fs::File::open(format!("/proc/{}/cgroup", self.pid?)).ok()?;
        file.take(4_096).read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

/// The last part of the path, of version 2 or of systemd's own hierarchy (cgroups(7)); none at the root.
fn unit_in(cgroup: &str) -> Option<String> {
    let lines = || cgroup.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let path = lines().find(|(kind, _)| kind.is_empty()).or_else(|| lines().find(|(kind, _)| *kind == "name=systemd"));
    let last = path?.1.rsplit('/').next()?;
    (!last.is_empty() && last != "..").then(|| last.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_innermost_control_group() {
        let of = |text: &str| unit_in(text);
        assert_eq!(of("0::/system.slice/agent.service\n").as_deref(), Some("agent.service"));
        let both = "4:memory:/docker/abc\n1:name=systemd:/docker/abc/agent.scope\n";
        assert_eq!(of(both).as_deref(), Some("agent.scope"));
        assert_eq!((of("0::/\n"), of(""), of("nonsense")), (None, None, None));
    }

    #[test]
    fn the_hints_of_a_process_that_is_gone_are_none() {
        let gone = Caller::new(1, 1, Some(i32::MAX));
        assert_eq!((gone.exe_hint(), gone.unit_hint()), (None, None));
        assert!(cfg!(not(target_os = "linux")) || Caller::own(1, 1).exe_hint().is_some());
    }
}
