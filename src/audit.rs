//! One line of JSON for every decision, served or refused, each chained to the line before it.
//!
//! A line is `{"prev":"…","seq":N,"time":…,…,"hash":"…"}` in pure ASCII. `hash` is the SHA-256 of the line without its own
//! `,"hash":"…"`, and `prev` is the `hash` of the line before (64 zeros where a chain begins, with `seq` 1). So anybody
//! can check a line with standard tools:
//!
//! ```sh
//! sed -n 7p audit.jsonl | sed 's/,"hash":"[0-9a-f]*"}$/}/' | tr -d '\n' | sha256sum   # is `jq -r .hash` of line 7
//! sed -n 7,8p audit.jsonl | jq -r '.prev, .hash'                                    # the 2nd is the 3rd
//! ```
//!
//! Anybody who may write the file can rewrite all of it, or cut off its end. To find that, keep a head (the last hash)
//! elsewhere: `safeconduct status` shows it, and `safeconduct audit verify --head` looks for it.
//!
//! A call on the data path has two lines with the same `request_id`: `call`, the decision, before its first byte leaves, and `done`
//! at its end, with its outcome, its duration, the bytes of the answer and the token. Neither has an argument of the call.
//!
//! Two actions are not decisions. `continue` is the first line of a new file after a rotation. It continues the chain even if
//! nothing is decided before a restart. `repair` follows bytes that are not a whole line, as a power loss leaves them: the bytes
//! stay, and the `repair` has their length and digest and chains to the last whole line. Anybody who may write the file can
//! forge both. (`gate` is a decision: about a request that was refused before its route was known.)
//!
//! Refusals are lines for the first 20 of a user in a second, and for the first 5 of a caller that no rule names or that has not
//! shown a listener's secret. One `gate` line with `"error":"repeated"` and their number in `more` stands for the rest of that
//! second. What is served always is a line.
//!
//! One writer holds the lock (flock) on the file. A line is one write(2) with O_APPEND before the answer, without fsync: it
//! survives the end of the process, not a crash of the machine. Nothing is served without its line, so a file system that
//! blocks in write(2) blocks the daemon. The part of a line that a full disk leaves is cut off again under the lock.
//!
//! This room writes one file and reads its end. It knows no server and no secret: a digest names each token.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

mod chain;
mod error;
mod file;
mod line;
mod verify;

pub(crate) use chain::Head;
pub(crate) use error::Error;
pub use line::Action;
pub(crate) use line::{CallSubject, Decision, Done, Outcome};
pub(crate) use verify::{Broken, LINE_CAP, Place, Report, Verifier};

use chain::Tail;
use file::Held;

/// How long a starting daemon waits for a command that is writing its line.
const DAEMON_WAITS: Duration = Duration::from_millis(500);
/// How long a command waits for other commands.
const COMMAND_WAITS: Duration = Duration::from_secs(3);

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The absolute path. Its directory belongs to us or root.
    pub file: PathBuf,
    /// Our own user.
    pub uid: u32,
}

/// The audit log of a daemon, which holds the file, or of a command, which opens it for each line.
#[derive(Debug)]
pub struct Audit {
    config: Config,
    held: Option<Mutex<Held>>,
    failures: Failures,
}

/// Lines that could not be written.
#[derive(Debug, Default)]
struct Failures {
    all: Counter,
    /// Was the last line one of them? It spares a good line the look at `last`.
    is_failing: AtomicBool,
    last: Mutex<Option<Error>>,
}

impl Failures {
    /// Keeps the outcome of a line.
    fn noted(&self, outcome: &Result<(), Error>) {
        match outcome {
            Ok(()) if !self.is_failing.load(Ordering::Relaxed) => {}
            Ok(()) => self.set(None),
            Err(error) => {
                self.all.inc();
                self.set(Some(error.clone()));
            }
        }
    }

    fn set(&self, error: Option<Error>) {
        self.is_failing.store(error.is_some(), Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

impl Audit {
    /// For a daemon: it holds the lock until it ends. The chain goes on from the last whole line.
    pub(crate) fn hold(config: Config) -> Result<Self, Error> {
        let held = Held::open(&config, DAEMON_WAITS, None)?;
        Ok(Self { config, held: Some(Mutex::new(held)), failures: Failures::default() })
    }

    /// For one command: others may write between its lines. Fails at once if the file cannot be written, before the command
    /// does anything.
    pub(crate) fn visit(config: Config) -> Result<Self, Error> {
        Held::open(&config, COMMAND_WAITS, None)?;
        Ok(Self { config, held: None, failures: Failures::default() })
    }

    /// Writes one line. If that fails, the decision must not be carried out.
    pub(crate) fn note(&self, decision: &Decision<'_>) -> Result<(), Error> {
        let written = match &self.held {
            Some(held) => self.held_by(held).and_then(|mut held| held.note(decision)),
            None => Held::open(&self.config, COMMAND_WAITS, None).and_then(|mut held| held.note(decision)),
        };
        self.failures.noted(&written);
        written
    }

    /// Why the last line could not be written, until one is written again. Nothing is served meanwhile.
    pub(crate) fn failure(&self) -> Option<Error> {
        if !self.failures.is_failing.load(Ordering::Relaxed) {
            return None;
        }
        self.failures.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many lines could not be written.
    pub(crate) fn failed(&self) -> Counter {
        self.failures.all.clone()
    }

    /// Reopens the file after it was renamed and continues the chain there. Without a rename nothing happens.
    pub(crate) fn reopen(&self) -> Result<(), Error> {
        let Some(held) = &self.held else { return Ok(()) };
        lock(held).follow(&self.config, DAEMON_WAITS)
    }

    /// The last line: its number and hash.
    pub(crate) fn head(&self) -> Head {
        match &self.held {
            Some(held) => lock(held).head(),
            None => Head::NONE,
        }
    }

    /// Where the lines go.
    pub(crate) fn file(&self) -> &Path {
        &self.config.file
    }

    /// Follows the name if the file was removed, because lines written to it would be lost.
    fn held_by<'a>(&self, held: &'a Mutex<Held>) -> Result<MutexGuard<'a, Held>, Error> {
        let mut held = lock(held);
        if held.is_removed() {
            held.follow(&self.config, Duration::ZERO)?;
        }
        Ok(held)
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
