//! Child processes that end with us, however we end.
//!
//! A program is not started directly but by a supervisor: this binary once more, with a hidden verb. The supervisor reads from a
//! pipe whose other end only we hold. When we end, also by SIGKILL, the kernel closes our end, and the supervisor kills the
//! process group: itself, the program and what the program has started. A parent-death signal would reach the program
//! alone, and it would also be sent when only the thread ends that has started it.
//!
//! An agent that embeds the broker is another binary, so there the program is started directly.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nix::sys::signal::{Signal, killpg, raise};
use nix::unistd::{Pid, getpgrp};
use tokio::process::{Child, ChildStdin, Command};

use crate::env::Env;

#[cfg(target_os = "linux")]
pub(crate) mod begin;
#[cfg(target_os = "linux")]
pub(crate) mod orphans;
pub(crate) mod process;

/// The hidden verb of the supervisor. The program and its arguments follow.
const VERB: &str = "__supervise";
/// The supervisor's exit code if it cannot start the program.
const NOT_STARTED: i32 = 126;
/// In that case its output begins with this byte, and the number of the system's error follows. No identity begins so.
const MARK: u8 = 0;

/// This binary, where it may supervise.
static SUPERVISOR: OnceLock<PathBuf> = OnceLock::new();
/// The children that we have started and that we wait for.
static OURS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// From now on programs are started by a supervisor. To be called by the `safeconduct` binary alone.
pub(crate) fn supervise_with(own_program: Option<PathBuf>) {
    if let Some(program) = own_program {
        // Only the first call counts.
        let _ = SUPERVISOR.set(program);
    }
}

/// The path of this binary, also where /proc is not mounted.
pub(crate) fn own_program(env: &Env) -> Option<PathBuf> {
    if let Ok(path) = std::env::current_exe() {
        // The link leads to the running binary even if its file was replaced. The path gives the process its usual name.
        return Some(if path.is_file() { path } else { PathBuf::from("/proc/self/exe") });
    }
    let name = PathBuf::from(std::env::args_os().next()?);
    match name.components().count() {
        1 => env.program(name.to_str()?),
        _ => std::path::absolute(name).ok().filter(|path| path.is_file()),
    }
}

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

/// The supervisor's whole life, if this process was started as one. Gives its exit code.
pub(crate) fn supervise(words: &[OsString]) -> Option<u8> {
    let [verb, program, arguments @ ..] = words else { return None };
    if verb != VERB {
        return None;
    }
    Some(match end_of(program, arguments) {
        Ok(status) => code_of(status),
        Err(error) => {
            let number = error.raw_os_error().unwrap_or_default();
            // If our parent has ended, there is nobody to tell.
            drop(write!(io::stdout(), "{}{number}", char::from(MARK)));
            u8::try_from(NOT_STARTED).unwrap_or(1)
        }
    })
}

fn end_of(program: &OsStr, arguments: &[OsString]) -> io::Result<ExitStatus> {
    // Without the thread nothing would end the program, so the thread comes first.
    std::thread::Builder::new().stack_size(128 * 1024).spawn(end_with_parent)?;
    std::process::Command::new(Path::new(program)).args(arguments).stdin(Stdio::null()).status()
}

/// Waits for the end of our parent and kills the process group, which includes this process.
fn end_with_parent() {
    let mut byte = [0];
    loop {
        match io::stdin().read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(1) => {}
            _ => break,
        }
    }
    let _ = killpg(getpgrp(), Signal::SIGKILL);
}

/// Ends as the program did: with its code, or by its signal.
fn code_of(status: ExitStatus) -> u8 {
    if let Some(signal) = status.signal().and_then(|number| Signal::try_from(number).ok()) {
        let _ = raise(signal);
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn ours() -> MutexGuard<'static, BTreeSet<i32>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hidden_verb_makes_a_supervisor() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(supervise(&words(&[])), None);
        assert_eq!(supervise(&words(&["token", VERB])), None);
        assert_eq!(supervise(&words(&[VERB])), None, "no program");
    }

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
