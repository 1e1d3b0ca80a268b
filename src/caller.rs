//! Who asks, as the kernel says. Never what the caller says of itself.
//!
//! A [`Caller`] is plain data: policy judges it and reads nothing. What only some rules want to know, the program and the
//! unit, is read from the [`Process`] itself when such a rule is there. Where it could not be read, the reason stands in its
//! place, and matches nothing.

use std::fmt;
use std::io::Read;

mod cgroup;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux tells what these are about"))]
mod digests;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux tells what these are about"))]
mod facts;
mod hints;
#[cfg(target_os = "linux")]
mod process;
#[cfg(not(target_os = "linux"))]
#[path = "caller/elsewhere.rs"]
mod process;
mod unit_name;

pub(crate) use digests::Digests;
pub(crate) use facts::{Facts, Needs, Program, Unit, UserUnit, WantedProgram, Why};
use hints::Hints;
pub(crate) use process::Process;
pub(crate) use unit_name::UnitName;

/// The process at the other end of a connection, or this process itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected. TCP does not tell.
    pub gid: Option<u32>,
    /// Process id when it connected; ids are reused, so it names nobody for sure. TCP does not tell, nor does a process of
    /// another PID namespace.
    pub pid: Option<i32>,
    /// What only some rules ask for.
    pub facts: Facts,
    /// What a record says of it besides, by process id.
    hints: hints::Cached,
}

/// What a hint may be read from: a control group's path has at most 4 KiB.
const HINT_CAP: u64 = 16 * 1024;
/// What most control groups' lines fit in.
const USUAL_HINT: usize = 1_024;

/// No user has this number: to the kernel it means "as it is" (chown(2)).
const NOBODY: u32 = u32::MAX;

impl Caller {
    /// This process, when it does the work itself.
    pub fn own(uid: u32, gid: u32) -> Self {
        Self::on_socket(uid, gid, i32::try_from(std::process::id()).ok())
    }

    /// Who connected to a Unix socket. The kernel says 0 for a process that it may not show us.
    pub fn on_socket(uid: u32, gid: u32, pid: Option<i32>) -> Self {
        let pid = pid.filter(|pid| *pid > 0);
        Self { uid, gid: Some(gid), pid, facts: Facts::unknown(&Why::NotRead), hints: hints::Cached::default() }
    }

    /// Who connected over loopback TCP, where no more is known than a user: the owner of the connecting socket, or the
    /// daemon's own user for whoever has the secret. A rule that names anything else never matches.
    pub fn by_tcp(uid: u32) -> Self {
        Self { uid, gid: None, pid: None, facts: Facts::unknown(&Why::Tcp), hints: hints::Cached::default() }
    }

    /// Who connected over loopback TCP and has not shown the secret: no user is known, so no record may name one.
    pub fn unproved() -> Self {
        Self::by_tcp(NOBODY)
    }

    /// Is at least its user known?
    pub(crate) fn is_known(&self) -> bool {
        self.uid != NOBODY
    }

    /// The same caller, now that more is known of it.
    pub fn with(&self, facts: Facts) -> Self {
        Self { facts, hints: self.hints.clone(), ..*self }
    }

    /// What a record says of it besides: the program as rules saw it for this request, else as it was when it connected.
    pub(crate) fn hints(&self) -> (Option<&str>, Option<&str>) {
        let read = self.hints.or_read(|| Hints { exe: self.exe_hint(), unit: self.unit_hint() });
        let seen = self.facts.program.as_ref().ok().map(|program| program.path.as_str());
        (seen.or(read.exe.as_deref()), read.unit.as_deref())
    }

    /// The control group of the connecting process, which tells containers and units apart. It is read by
    /// process id and so only good for hints, never for permission.
    pub fn cgroup(&self) -> Option<String> {
        let mut file = std::fs::File::open(format!("/proc/{}/cgroup", self.pid?)).ok()?;
        // What fits is there after one read, and each takes a lock of the kernel's.
        let mut text = vec![0; USUAL_HINT];
        let length = file.read(&mut text).ok()?;
        text.truncate(length);
        if length == USUAL_HINT {
            file.take(HINT_CAP).read_to_end(&mut text).ok()?;
        }
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// The program of the connecting process, for people: as rules saw it, else by process id. Never for permission.
    pub fn exe_hint(&self) -> Option<String> {
        if let Ok(program) = &self.facts.program {
            return Some(program.path.clone());
        }
        let path = std::fs::read_link(format!("/proc/{}/exe", self.pid?)).ok()?;
        Some(path.to_string_lossy().into_owned())
    }

    /// The unit or the container of the connecting process, for people. Never for permission.
    pub fn unit_hint(&self) -> Option<String> {
        cgroup::hint(&self.cgroup()?)
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_known() {
            return f.write_str("somebody over TCP");
        }
        write!(f, "uid {}", self.uid)?;
        match self.gid {
            Some(gid) => write!(f, " gid {gid}")?,
            None => f.write_str(" over TCP")?,
        }
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
    fn who_comes_by_tcp_has_a_user_and_nothing_else() {
        let caller = Caller::by_tcp(1000);
        assert_eq!((caller.uid, caller.gid, caller.pid), (1000, None, None));
        assert_eq!((caller.facts.program.clone(), caller.facts.unit.clone()), (Err(Why::Tcp), Err(Why::Tcp)));
        assert_eq!((caller.cgroup(), caller.exe_hint(), caller.unit_hint()), (None, None, None));
        assert_eq!(caller.to_string(), "uid 1000 over TCP");
    }

    #[test]
    fn who_has_proved_nothing_is_called_by_no_users_name() {
        assert_eq!(Caller::unproved().to_string(), "somebody over TCP");
        assert!(!Caller::unproved().is_known() && Caller::by_tcp(0).is_known());
    }

    #[test]
    fn a_process_that_the_kernel_may_not_show_has_no_number() {
        assert_eq!(Caller::on_socket(1, 2, Some(0)).pid, None);
        assert_eq!(Caller::on_socket(1, 2, Some(7)).to_string(), "uid 1 gid 2 pid 7");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn hints_name_this_very_program() {
        let own = Caller::own(1, 1);
        let exe = std::fs::read_link("/proc/self/exe").expect("Linux has it");
        assert_eq!(own.exe_hint(), Some(exe.display().to_string()));
        assert!(own.cgroup().is_some_and(|text| text.contains(":/")));
    }
}
