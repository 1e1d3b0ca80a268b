//! Who asks, as the kernel reports it. What a caller says about itself never counts.
//!
//! A [`Caller`] is plain data, and policy decides on it without reading anything. Its program and its unit are read from the
//! process only if a rule asks for them. If they cannot be read, the caller carries the reason instead, which matches no
//! rule.

use std::fmt;
use std::io::Read;

#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "used on Linux only"))]
pub(crate) mod cgroup;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "used on Linux only"))]
mod facts;
mod hints;
mod unit_name;

pub(crate) use facts::{Facts, Needs, Program, Unit, UserUnit, WantedProgram, Why};
use hints::Hints;
pub(crate) use unit_name::UnitName;

/// The process at the other end of a connection, or this process itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected. Unknown over TCP.
    pub gid: Option<u32>,
    /// Process id when it connected. Ids are reused, so it is no proof. Unknown over TCP, and for a process of another PID
    /// namespace.
    pub pid: Option<i32>,
    /// Its program and unit, which only some rules ask for.
    pub facts: Facts,
    /// Its user stands for others too, whom nobody tells apart. Only a rule that names the user lets it in.
    is_many: bool,
    /// What audit records add, read by process id.
    hints: hints::Cached,
}

/// The most that is read for a hint. The path of a control group has at most 4 KiB.
const HINT_CAP: u64 = 16 * 1024;
/// Enough for the lines of most control groups.
const USUAL_HINT: usize = 1_024;

/// No user has this number: to the kernel it means "unchanged" (chown(2)).
const NOBODY: u32 = u32::MAX;

impl Caller {
    /// This process, for commands that work without a daemon.
    pub fn own(uid: u32, gid: u32) -> Self {
        Self::on_socket(uid, gid, i32::try_from(std::process::id()).ok())
    }

    /// The process that connected to a Unix socket. The kernel reports id 0 for a process of another PID namespace.
    pub fn on_socket(uid: u32, gid: u32, pid: Option<i32>) -> Self {
        let pid = pid.filter(|pid| *pid > 0);
        let (facts, hints) = (Facts::unknown(&Why::NotRead), hints::Cached::default());
        Self { uid, gid: Some(gid), pid, facts, is_many: false, hints }
    }

    /// A caller over loopback TCP, of which only the user is known: the owner of the connecting socket, or the daemon's own
    /// user if the caller has the secret. A rule that names anything else never matches.
    pub fn by_tcp(uid: u32) -> Self {
        let (facts, hints) = (Facts::unknown(&Why::Tcp), hints::Cached::default());
        Self { uid, gid: None, pid: None, facts, is_many: false, hints }
    }

    /// A caller over loopback TCP whose connecting socket belongs to a user that stands for many: root, as which forwarders and
    /// the proxies of containers connect for anybody, or the overflow user.
    pub fn by_owner(uid: u32) -> Self {
        Self { is_many: true, ..Self::by_tcp(uid) }
    }

    /// A caller over loopback TCP that has not presented the secret. No user is known, so no record may name one.
    pub fn unproved() -> Self {
        Self::by_tcp(NOBODY)
    }

    /// Is its user known?
    pub(crate) fn is_known(&self) -> bool {
        self.uid != NOBODY
    }

    /// Is it this user, as far as no rule has to name it?
    pub(crate) fn is_user(&self, uid: u32) -> bool {
        self.uid == uid && !self.is_many
    }

    /// May it operate the daemon of this user? Its own user and root may, at the Unix socket alone, where the kernel says who
    /// connected.
    pub(crate) fn may_operate(&self, own_uid: u32) -> bool {
        self.gid.is_some() && (self.uid == own_uid || self.uid == 0)
    }

    /// May it see everything of the daemon of this user: all servers, callers and failures? Whoever is that user, and whoever may
    /// operate it.
    pub(crate) fn may_see_all(&self, own_uid: u32) -> bool {
        self.is_user(own_uid) || self.may_operate(own_uid)
    }

    /// Does its user stand for others too?
    pub(crate) fn is_many(&self) -> bool {
        self.is_many
    }

    /// The same caller, now that more is known of it.
    pub fn with(&self, facts: Facts) -> Self {
        Self { facts, hints: self.hints.clone(), ..*self }
    }

    /// The program and the unit for an audit record: as rules saw them for this request, else as first read for this
    /// connection.
    pub(crate) fn hints(&self) -> (Option<&str>, Option<&str>) {
        let read = self.hints.or_read(|| Hints { exe: self.exe_hint(), unit: self.unit_hint() });
        let seen = self.facts.program.as_ref().ok().map(|program| program.path.as_str());
        (seen.or(read.exe.as_deref()), read.unit.as_deref())
    }

    /// The control group of the connecting process, which differs between containers and units. It is read by process id,
    /// so it serves for hints, never for permission.
    pub fn cgroup(&self) -> Option<String> {
        let mut file = std::fs::File::open(format!("/proc/{}/cgroup", self.pid?)).ok()?;
        // One read returns all that fits, and each read takes a lock in the kernel.
        let mut text = vec![0; USUAL_HINT];
        let length = file.read(&mut text).ok()?;
        text.truncate(length);
        if length == USUAL_HINT {
            file.take(HINT_CAP).read_to_end(&mut text).ok()?;
        }
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// The program of the connecting process, to show to people: as rules saw it, else by process id. Never for permission.
    pub fn exe_hint(&self) -> Option<String> {
        if let Ok(program) = &self.facts.program {
            return Some(program.path.clone());
        }
        let path = std::fs::read_link(format!("/proc/{}/exe", self.pid?)).ok()?;
        Some(path.to_string_lossy().into_owned())
    }

    /// The unit or container of the connecting process, to show to people. Never for permission.
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
        assert!(!caller.may_operate(1000) && !Caller::by_tcp(0).may_operate(1000));
        let on_socket = |uid| Caller::on_socket(uid, 7, None).may_operate(1000);
        assert!(on_socket(1000) && on_socket(0) && !on_socket(1001));
        let sees_all = [caller.may_see_all(1000), Caller::on_socket(0, 0, None).may_see_all(1000)];
        assert_eq!((sees_all, Caller::by_tcp(0).may_see_all(1000)), ([true; 2], false), "{caller}");
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
