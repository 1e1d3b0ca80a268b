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
//! One writer holds the lock (flock) on the file. A line is in the file before the answer, by write(2) with O_APPEND, without
//! fsync: it survives the end of the process, not a crash of the machine. Nothing is served without its line, so a file system
//! that blocks in write(2) blocks the daemon. What a full disk leaves of a write is cut off again under the lock.
//!
//! Lines that are ready together are one write: a call adds its line, lets the other tasks of its runtime run that are ready,
//! and whoever then comes first writes what waits. If that fails, everything in the group is refused. A `done` line goes with
//! the next group, which is written before the runtime of its first line waits for anything. So kill -9 can lose the `done` lines
//! of that moment, and no other line of what was done.
//!
//! This room writes one file and reads its end. It knows no server and no secret: a digest names each token.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::runtime::Handle;
use tokio::task::yield_now;

mod chain;
mod error;
mod file;
mod group;
mod line;
mod queue;
mod verify;

pub(crate) use chain::Head;
pub(crate) use error::Error;
pub use line::Action;
pub(crate) use line::{CallSubject, Decision, Done, Outcome};
pub(crate) use verify::{Broken, LINE_CAP, Place, Report, Verifier};

use chain::Tail;
use file::Held;
use group::{Group, Outcome as Written};
use queue::Queue;

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
    queue: Option<Queue>,
    failures: Failures,
}

/// A line that waits for its write. It is written when this is dropped at the latest.
#[must_use = "what it records must not happen before it is written"]
pub(crate) struct Line<'a> {
    audit: &'a Audit,
    outcome: Written,
}

impl Line<'_> {
    /// Writes it now, with the lines that wait. If that fails, the decision must not be carried out.
    pub(crate) fn written(&self) -> Result<(), Error> {
        self.settle();
        // Without an outcome, whoever wrote it has panicked.
        let unknown = || Err(Error::system(&self.audit.config.file, io::ErrorKind::Other.into()));
        self.outcome.get().cloned().unwrap_or_else(unknown)
    }

    /// The same, with the lines of all tasks of this runtime that are ready to run.
    pub(crate) async fn written_with_others(&self) -> Result<(), Error> {
        yield_now().await;
        // While another thread writes, the tasks of this one run once more before it waits for that write.
        if self.outcome.get().is_none() && self.audit.queue.as_ref().is_some_and(Queue::is_writing) {
            yield_now().await;
        }
        self.written()
    }

    fn settle(&self) {
        if self.outcome.get().is_none() {
            self.audit.settle();
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}

/// Lines that nobody waits for. They are written when this is dropped at the latest.
struct Due(Arc<Audit>);

impl Drop for Due {
    fn drop(&mut self) {
        self.0.flush();
    }
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
    /// Keeps the outcome of a group.
    fn noted(&self, group: &Group, outcome: &Result<(), Error>) {
        match outcome {
            Ok(()) if !self.is_failing.load(Ordering::Relaxed) => {}
            Ok(()) => self.set(None),
            Err(error) => {
                self.all.inc_by(group.len() as u64);
                self.set(Some(error.clone()));
                if group.unwatched > 0 {
                    let calls = group.unwatched;
                    tracing::error!(calls, %error, hint = error.hint(), "the end of calls could not be recorded; nothing is served until a record can be written");
                }
            }
        }
    }

    fn set(&self, error: Option<Error>) {
        self.is_failing.store(error.is_some(), Ordering::Relaxed);
        *lock(&self.last) = error;
    }
}

impl Audit {
    /// For a daemon: it holds the lock until it ends. The chain goes on from the last whole line.
    pub(crate) fn hold(config: Config) -> Result<Self, Error> {
        let held = Held::open(&config, DAEMON_WAITS, None)?;
        Ok(Self { config, queue: Some(Queue::new(held)), failures: Failures::default() })
    }

    /// For one command: others may write between its lines. Fails at once if the file cannot be written, before the command
    /// does anything.
    pub(crate) fn visit(config: Config) -> Result<Self, Error> {
        Held::open(&config, COMMAND_WAITS, None)?;
        Ok(Self { config, queue: None, failures: Failures::default() })
    }

    /// Writes one line. If that fails, the decision must not be carried out.
    pub(crate) fn note(&self, decision: &Decision<'_>) -> Result<(), Error> {
        self.line(decision).written()
    }

    /// Adds a line to the group that is written next. A command writes it at once.
    pub(crate) fn line(&self, decision: &Decision<'_>) -> Line<'_> {
        Line { audit: self, outcome: self.add(decision, 0).0 }
    }

    /// Adds a line that nobody waits for. It is written before this runtime waits for anything, or at once where there is none.
    pub(crate) fn note_soon(self: &Arc<Self>, decision: &Decision<'_>) {
        if !self.add(decision, 1).1 {
            return;
        }
        let due = Due(Arc::clone(self));
        match Handle::try_current() {
            // A shutdown need not wait for this task: a runtime that ends drops it, and with it what is due.
            Ok(runtime) => drop(runtime.spawn(async move {
                yield_now().await;
                drop(due);
            })),
            Err(_) => drop(due),
        }
    }

    /// Gives what will become of the line. True: it is the first of its group, so whoever added it sees to its write.
    fn add(&self, decision: &Decision<'_>, unwatched: usize) -> (Written, bool) {
        let Some(queue) = &self.queue else { return (self.visited(decision, unwatched), false) };
        let (outcome, is_first, is_full) = queue.waiting(|group| {
            group.add(decision, unwatched);
            (Arc::clone(&group.outcome), group.len() == 1, group.is_full())
        });
        if is_full {
            self.settle();
        }
        (outcome, is_first && !is_full)
    }

    /// Writes what waits, unless another thread has taken it already.
    fn flush(&self) {
        if self.queue.as_ref().is_some_and(|queue| queue.waiting(|group| group.len() > 0)) {
            self.settle();
        }
    }

    /// Writes what waits. When this returns, every line that was added before is in the file, whoever wrote it, or has failed.
    pub(crate) fn settle(&self) {
        self.behind(|_| ());
    }

    /// Writes what waits, then does this with the file. `None` if it is not held.
    fn behind<R>(&self, then: impl FnOnce(&mut Held) -> R) -> Option<R> {
        let write = |held: &mut Held, group: &Group| {
            let written = self.followed(held).and_then(|()| held.write(group));
            self.failures.noted(group, &written);
            written
        };
        self.queue.as_ref().map(|queue| queue.written(write, then))
    }

    /// Writes one line of a command.
    fn visited(&self, decision: &Decision<'_>, unwatched: usize) -> Written {
        let mut group = Group::default();
        group.add(decision, unwatched);
        let written = Held::open(&self.config, COMMAND_WAITS, None).and_then(|mut held| held.write(&group));
        self.failures.noted(&group, &written);
        Arc::new(written.into())
    }

    /// Why the last line could not be written, until one is written again. Nothing is served meanwhile.
    pub(crate) fn failure(&self) -> Option<Error> {
        if !self.failures.is_failing.load(Ordering::Relaxed) {
            return None;
        }
        lock(&self.failures.last).clone()
    }

    /// How many lines could not be written.
    pub(crate) fn failed(&self) -> Counter {
        self.failures.all.clone()
    }

    /// Reopens the file after it was renamed and continues the chain there. Without a rename nothing happens.
    pub(crate) fn reopen(&self) -> Result<(), Error> {
        self.behind(|held| held.follow(&self.config, DAEMON_WAITS)).unwrap_or(Ok(()))
    }

    /// The last line: its number and hash.
    pub(crate) fn head(&self) -> Head {
        self.behind(|held| held.head()).unwrap_or(Head::NONE)
    }

    /// Where the lines go.
    pub(crate) fn file(&self) -> &Path {
        &self.config.file
    }

    /// Follows the name if the file was removed, because lines written to it would be lost. Asked before each write: a group has
    /// one question.
    fn followed(&self, held: &mut Held) -> Result<(), Error> {
        if held.is_removed() { held.follow(&self.config, Duration::ZERO) } else { Ok(()) }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.flush();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests;
