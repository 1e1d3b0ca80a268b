//! What this binary does as the supervisor of another program, under a hidden verb of [`crate::child`], and what commands that start
//! programs need: the path of this binary, its orphans, the processes that a program has started.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, killpg, raise};
use nix::unistd::getpgrp;

use crate::child::{MARK, NOT_STARTED, SUPERVISOR, VERB};
use crate::env::Env;

#[cfg(target_os = "linux")]
pub(crate) mod begin;
#[cfg(target_os = "linux")]
pub(crate) mod orphans;
pub(crate) mod process;

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
}
