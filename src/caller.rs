//! Who asks, as the kernel says. Never what the caller says of itself.

use std::fmt;
use std::io::Read;

mod hints;

pub(crate) use hints::Hints;

/// The process at the other end of a socket, or this process itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected.
    pub gid: u32,
    /// Process id when it connected; ids are reused, so it names nobody for sure.
    pub pid: Option<i32>,
    hints: hints::Cached,
}

impl Caller {
    /// This process, when it does the work itself.
    pub fn own(uid: u32, gid: u32) -> Self {
        Self::on_socket(uid, gid, i32::try_from(std::process::id()).ok())
    }

    /// Who connected to a Unix socket.
    pub fn on_socket(uid: u32, gid: u32, pid: Option<i32>) -> Self {
        Self { uid, gid, pid, hints: hints::Cached::default() }
    }

    /// What a record says of it besides.
    pub(crate) fn hints(&self) -> &Hints {
        self.hints.or_read(|| Hints { exe: self.exe_hint(), unit: self.unit_hint() })
    }

    /// The program of the connecting process, for people. Never for permission.
    fn exe_hint(&self) -> Option<String> {
        let path = std::fs::read_link(format!("/proc/{}/exe", self.pid?)).ok()?;
        Some(path.to_string_lossy().into_owned())
    }

    /// The unit or the container of the connecting process, for people. Never for permission.
    fn unit_hint(&self) -> Option<String> {
        unit_in(&self.cgroup()?)
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
        let gone = Caller::on_socket(1, 1, Some(i32::MAX));
        assert_eq!((gone.exe_hint(), gone.unit_hint()), (None, None));
        assert!(cfg!(not(target_os = "linux")) || Caller::own(1, 1).exe_hint().is_some());
    }
}
