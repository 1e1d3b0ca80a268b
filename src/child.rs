//! Child processes that end with us, however we end.
//!
//! A program is not started directly but by a supervisor: this binary once more, with a hidden verb. The supervisor reads from a
//! pipe whose other end only we hold. When we end, also by SIGKILL, the kernel closes our end, and the supervisor kills the
//! process group: itself, the program and what the program has started. A parent-death signal would reach the program
//! alone, and it would also be sent when only the thread ends that has started it.
//!
//! An agent that embeds the broker is another binary, so there the program is started directly.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdin, Command};

/// The hidden verb of the supervisor. The program and its arguments follow.
pub(crate) const VERB: &str = "__supervise";
/// The supervisor's exit code if it cannot start the program.
pub(crate) const NOT_STARTED: i32 = 126;
/// In that case its output begins with this byte, and the number of the system's error follows. No identity begins so.
pub(crate) const MARK: u8 = 0;

/// This binary, where it may supervise.
pub(crate) static SUPERVISOR: OnceLock<PathBuf> = OnceLock::new();
/// The children that we have started and that we wait for.
static OURS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A program that runs in a process group of its own. Dropping it kills the group.
pub(crate) struct Running {
    /// The supervisor, or the program.
    pub(crate) child: Child,
    group: Group,
}

impl Running {
    /// Starts a program with this environment, an empty standard input, a piped standard output, and no standard error.
    pub(crate) fn start<'a>(
        program: &OsStr,
        arguments: &[String],
        environment: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> io::Result<Self> {
        let mut command = match SUPERVISOR.get() {
            Some(supervisor) => {
                let mut command = Command::new(supervisor);
                command.arg0("safeconduct").arg(VERB).arg(program).stdin(Stdio::piped());
                command
            }
            None => {
                let mut command = Command::new(program);
                command.stdin(Stdio::null());
                command
            }
        };
        let mut child = command
            .args(arguments)
            .env_clear()
            .envs(environment)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        ours().extend(id);
        let group = Group { id, _alive: child.stdin.take() };
        Ok(Self { child, group })
    }

    /// The child, and the group to drop when it is done.
    pub(crate) fn split(self) -> (Child, Group) {
        (self.child, self.group)
    }
}

/// The process group of a program. Dropping it kills the group.
pub(crate) struct Group {
    id: Option<i32>,
    /// Open as long as we live.
    _alive: Option<ChildStdin>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // Usually no process is left, and the error is ignored. The kernel does not reuse the id while the group exists.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
            ours().remove(&id);
        }
    }
}

/// Why the supervisor could not start the program, if that is what its end and its output say.
pub(crate) fn not_started(status: ExitStatus, output: &[u8]) -> Option<io::Error> {
    let number = output.strip_prefix(&[MARK]).filter(|_| status.code() == Some(NOT_STARTED))?;
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some(io::Error::from_raw_os_error(number))
}

/// The children that we wait for.
pub(crate) fn ours() -> MutexGuard<'static, BTreeSet<i32>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_program_that_does_not_start_is_told_apart_from_one_that_fails() {
        let exit = |code: i32| ExitStatus::from_raw(code << 8);
        let error = not_started(exit(NOT_STARTED), b"\x0013").expect("it says so");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(not_started(exit(NOT_STARTED), b"13").is_none());
        assert!(not_started(exit(1), b"\x0013").is_none());
        assert!(not_started(exit(NOT_STARTED), b"\0token").is_none());
    }
}
