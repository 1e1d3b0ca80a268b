//! What may be known of a caller beyond its user and group, as data; and why something is not known.

use std::fmt;
use std::sync::Arc;

use super::unit_name::UnitName;
use crate::digest::Digest;

/// What some rules ask for. Each is known, or not known for a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the process runs.
    pub program: Result<Program, Why>,
    /// Where the service manager put it.
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
    /// As the kernel names it, in the process's own mount namespace and without a word of whether it is still there.
    pub path: String,
    /// Of the paths that rules name, those at which, seen by the daemon, this very file stands.
    pub stands_at: Vec<Arc<str>>,
    /// The process sees the same files as the daemon: it is in the daemon's mount namespace.
    pub sees_our_files: bool,
    /// The digest of the running file.
    pub sha256: Result<Digest, Why>,
    /// It is safeconduct itself: a helper stands between the daemon and whoever really asks.
    pub is_helper: bool,
}

/// The systemd unit of a process, as `sd_pid_get_unit` and `sd_pid_get_user_unit` answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Of the system's manager, which only root can start or name.
    pub system: UnitName,
    /// Of a user's own manager, which that user starts and names at will.
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

/// Why something is not known. It reads like the rest of `it cannot be told: …` and ends with the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// No rule asked.
    #[error("it was not looked at")]
    NotRead,
    /// TCP has no peer credentials.
    #[error("over TCP only `uid` can match; ask the Unix socket")]
    Tcp,
    /// The kernel gave no process id that means anything here.
    #[error("the caller is in another PID namespace; in a pod set `shareProcessNamespace: true`")]
    OtherPidNamespace,
    /// The process that connected is no more, whoever holds its connection now.
    #[error("the process that connected has ended; whoever asks must connect by itself")]
    Gone,
    /// `ptrace(2)`, access mode checks.
    #[error(
        "the daemon may not look at that process; it needs CAP_SYS_PTRACE, or the same user and a process that \
        does not shield its memory, as safeconduct's own helpers do"
    )]
    Forbidden,
    /// There is no /proc to ask.
    #[error("only Linux tells; use `uid` and `gid` here")]
    NotLinux,
    /// Nothing was kept of a process that connected before a rule asked for it.
    #[error("the connection is older than the rule; connect again")]
    Earlier,
    /// The process numbers in /proc are not those of our sockets.
    #[error("/proc belongs to another PID namespace than the daemon's; mount the daemon's own there")]
    ForeignProc,
    /// A digest may be of another program than the process runs by now.
    #[error("the process started another program, or its file changed, while it was looked at; ask again")]
    Changed,
    /// The daemon may see which file it is and not what is in it.
    #[error("the daemon may not read the program's file; let it, or give `exe` without `sha256`")]
    FileForbidden,
    /// Its digest would keep the disk busy for whoever asks.
    #[error("the program's file is larger than 1 GiB; give `exe` without `sha256`")]
    TooLarge,
    /// Digests are made one after the other, and a disk may not answer.
    #[error("programs' files are being read, and that takes long; ask again")]
    Busy,
    /// The root of the hierarchy, a container's own view of it, or a process outside of any unit.
    #[error("the process runs in no systemd unit that the daemon can see")]
    NoUnit,
    /// The system said no in another way.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

/// What the rules that may match a caller ask for: nothing else is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Programs named by path.
    pub programs: Vec<WantedProgram>,
    /// A digest alone identifies a program.
    pub any_digest: bool,
    /// The unit.
    pub unit: bool,
}

/// A program that a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedProgram {
    /// Where it stands.
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

    /// Does a rule that this program may match ask for its digest? Nobody makes us read files for nothing.
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
