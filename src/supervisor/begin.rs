//! The last step before a program that is handed our terminal: this binary once more, with a hidden verb, which undoes what we
//! have changed of the process and then becomes the program.
//!
//! The standard library starts a program with our own signal mask, and offers no other way to change it than code between fork and
//! exec, which would be `unsafe`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal};

/// The hidden verb. The signals to let through, the program and its arguments follow.
const VERB: &str = "__begin";

/// A program that begins with these signals let through. `own_program` is the path of this binary.
pub(crate) fn command(own_program: &Path, program: &OsStr, let_through: &SigSet) -> Command {
    let signals: Vec<String> = let_through.iter().map(|signal| (signal as i32).to_string()).collect();
    let mut command = Command::new(own_program);
    command.arg0("safeconduct").arg(VERB).arg(signals.join(",")).arg(program);
    command
}

/// Becomes the program, if this process was started for that. Returns only if that fails, with the program and the reason; SIGPIPE
/// then ends this process, as it would the program.
pub(crate) fn begin(words: &[OsString]) -> Option<(OsString, io::Error)> {
    let [verb, signals, program, arguments @ ..] = words else { return None };
    if verb != VERB {
        return None;
    }
    let numbers = signals.to_str().unwrap_or_default().split(',').filter_map(|number| number.parse().ok());
    let let_through: SigSet = numbers.filter_map(|number: i32| Signal::try_from(number).ok()).collect();
    if let Err(error) = let_through.thread_unblock() {
        return Some((program.clone(), error.into()));
    }
    let error = Command::new(program).args(arguments).exec();
    Some((program.clone(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hidden_verb_begins_a_program() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        for other in [&[][..], &["exec", VERB], &[VERB], &[VERB, "15"]] {
            assert!(begin(&words(other)).is_none(), "{other:?}");
        }
        // What does begin is tried with the real program: a failed start leaves SIGPIPE at its default, which would end the tests.
    }
}
