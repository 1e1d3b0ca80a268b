//! The facts about a caller beyond its user and group, or the reasons why they are unknown. Plain data.

use std::fmt;
use std::sync::Arc;

use super::unit_name::UnitName;
use crate::digest::Digest;

/// What some rules ask for: each fact, or the reason why it is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the process runs.
    pub program: Result<Program, Why>,
    /// The unit in which the service manager runs it.
    pub unit: Result<Unit, Why>,
}

impl Facts {
    /// Nothing is known.
    pub fn unknown(why: &Why) -> Self {
        Self { program: Err(why.clone()), unit: Err(why.clone()) }
    }
}

/// The file that a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The path that the kernel reports, as the process's own mount namespace has it. The file may be gone from there.
    pub path: String,
    /// The paths named in rules at which the daemon finds this very file.
    pub stands_at: Vec<Arc<str>>,
    /// The process sees the same files as the daemon: it is in the daemon's mount namespace.
    pub sees_our_files: bool,
    /// The digest of the running file.
    pub sha256: Result<Digest, Why>,
    /// It is safeconduct itself: a helper that asks for another program.
    pub is_helper: bool,
}

/// The systemd unit of a process, as `sd_pid_get_unit` and `sd_pid_get_user_unit` answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The unit of the system's manager. Only root can start or name one.
    pub system: UnitName,
    /// The unit of a user's own manager, which that user can start and name freely.
    pub user: Option<UserUnit>,
}

/// A unit of a user's manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserUnit {
    /// Whose manager.
    pub uid: u32,
    /// The unit.
    pub name: UnitName,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(UserUnit { uid, name }) => write!(f, "{name} of user {uid}"),
            None => self.system.fmt(f),
        }
    }
}

/// Why a fact is unknown. The text completes "`exe` cannot be told: …" and ends with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// No rule asked.
    #[error("it was not looked at; ask again")]
    NotRead,
    /// TCP has no peer credentials.
    #[error("over TCP only `uid` can match; ask the Unix socket")]
    Tcp,
    /// The kernel gave no process id that is valid here.
    #[error("the caller is in another PID namespace; in a pod set `shareProcessNamespace: true`")]
    OtherPidNamespace,
    /// The process that connected has ended; another one may hold its connection now.
    #[error("the process that connected has ended; whoever asks must connect by itself")]
    Gone,
    /// The kernel denies access to the process: `ptrace(2)`, "Ptrace access mode checking".
    #[error(
        "the daemon may not look at that process; it needs CAP_SYS_PTRACE, or the same user and a process that \
        does not shield its memory, as safeconduct's own helpers do"
    )]
    Forbidden,
    /// It lives, and /proc shows the daemon only processes of its own user (proc(5), `hidepid`).
    #[error(
        "/proc hides other users' processes from the daemon (`ProtectProc=` of its unit, or `hidepid`); set \
        `ProtectProc=default`, or give it CAP_SYS_PTRACE"
    )]
    Hidden,
    /// There is no /proc.
    #[error("only Linux tells; use `uid` and `gid` here")]
    NotLinux,
    /// The process connected before any rule asked for such facts, so it was not kept.
    #[error("the connection is older than the rule; connect again")]
    Earlier,
    /// The process started another program, or was moved to another unit, after it connected; or its file was written to.
    /// Whoever has the connection now may be another than the one that the rule means.
    #[error("it is another than when the process connected; connect again")]
    OtherThen,
    /// The process numbers in /proc are not those of our sockets.
    #[error("/proc belongs to another PID namespace than the daemon's; mount the daemon's own there")]
    ForeignProc,
    /// The process may run another program now than the one that was digested.
    #[error("the process started another program, or its file changed, while it was looked at; ask again")]
    Changed,
    /// The daemon may identify the file but not read it.
    #[error("the daemon may not read the program's file; let it, or give `exe` without `sha256`")]
    FileForbidden,
    /// To digest it would keep the disk busy for too long.
    #[error("the program's file is larger than 256 MiB; give `exe` without `sha256`")]
    TooLarge,
    /// Files are digested one after the other, and a disk may not answer.
    #[error("programs' files are being read, and that takes long; ask again")]
    Busy,
    /// It is in the root group, in a container's own view of the hierarchy, or outside of any unit.
    #[error("the process runs in no systemd unit that the daemon can see")]
    NoUnit,
    /// Another error of the system.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

impl Why {
    /// Could the same question be answered a moment later?
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy | Self::Changed)
    }
}

/// The facts that the rules which may match a caller ask for. Nothing else is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Programs named by path.
    pub programs: Vec<WantedProgram>,
    /// A rule identifies a program by its digest alone.
    pub any_digest: bool,
    /// The unit.
    pub unit: bool,
}

/// A program that a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedProgram {
    /// Its path.
    pub path: Arc<str>,
    /// The rule names its digest as well.
    pub digest: bool,
}

impl Needs {
    /// Is there anything to read?
    pub fn is_empty(&self) -> bool {
        !self.program() && !self.unit
    }

    /// Does a rule ask for the program?
    pub fn program(&self) -> bool {
        self.any_digest || !self.programs.is_empty()
    }

    /// Does a rule that this program may match ask for its digest? Otherwise its file is not read.
    pub fn digest(&self, program: &Program) -> bool {
        let named = |wanted: &WantedProgram| *wanted.path == *program.path || program.stands_at.contains(&wanted.path);
        self.any_digest || self.programs.iter().any(|wanted| wanted.digest && named(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_only_for_a_rule_that_it_may_match() {
        let program = |path: &str, stands_at: &[&str]| Program {
            path: path.to_owned(),
            stands_at: stands_at.iter().map(|one| (*one).into()).collect(),
            sees_our_files: true,
            sha256: Err(Why::NotRead),
            is_helper: false,
        };
        let wanted = |path: &str, digest| WantedProgram { path: path.into(), digest };
        let needs = Needs { programs: vec![wanted("/a", true), wanted("/b", false)], ..Needs::default() };
        assert!(needs.digest(&program("/a", &[])) && needs.digest(&program("/x", &["/a"])));
        assert!(!needs.digest(&program("/b", &["/b"])) && !needs.digest(&program("/x", &[])));
        assert!(Needs { any_digest: true, ..Needs::default() }.digest(&program("/x", &[])));
    }
}
