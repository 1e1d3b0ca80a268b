//! Work that may block for long: names, files, programs to digest, the keyring. It runs on threads of its own, so that no disk and no
//! name server holds up what serves.
//!
//! There are 24 threads at most, started when needed and ended when idle. Each kind of work has its share of them and a bounded
//! queue, so that a silent name server does not keep anybody from a file. Work that has begun cannot be interrupted: its
//! thread is busy until the system call returns, also if nobody waits for the outcome any more.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Enough for the C library's name lookup and for reading certificates.
const STACK: usize = 512 * 1024;
/// How long a thread waits for more work.
const IDLE: Duration = Duration::from_secs(3);

/// The kinds of work. Each has its own threads and queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Looking up host names.
    Names,
    /// Reading files that an identity or a client's proof needs.
    Files,
    /// Reading programs and `/proc` for policy rules.
    Programs,
    /// The system's keyring.
    Keyring,
    /// Root certificates and the configuration.
    Settings,
}

/// Why work was not done. Always temporary.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// All threads of this kind are busy, and so many wait for them that one more would not be served in time.
    #[error("too much waits for the system's answer already ({what})")]
    Full {
        /// What they wait for.
        what: &'static str,
    },
    /// The system gives us no thread.
    #[error("no thread can be started: {0}")]
    NoThread(io::Error),
    /// The work panicked.
    #[error("the work broke off")]
    BrokeOff,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(io::ErrorKind::ResourceBusy, error)
    }
}

/// Runs the work on a thread for its kind and waits for it. If the caller stops waiting before it has begun, it is not done.
pub(crate) async fn run<T: Send + 'static>(kind: Kind, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let (tell, told) = oneshot::channel();
    kind.pool().push(Box::new(move || {
        if !tell.is_closed() {
            // The caller may have stopped waiting meanwhile.
            drop(tell.send(work()));
        }
    }))?;
    told.await.map_err(|_| Error::BrokeOff)
}

/// Runs the work on a thread for its kind. Nobody waits for it.
pub(crate) fn post(kind: Kind, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    kind.pool().push(Box::new(work))
}

impl Kind {
    fn pool(self) -> &'static Pool {
        static NAMES: Pool = Pool::new("names", 8, 256);
        static FILES: Pool = Pool::new("files", 3, 64);
        static PROGRAMS: Pool = Pool::new("programs", 10, 64);
        static KEYRING: Pool = Pool::new("keyring", 1, 16);
        static SETTINGS: Pool = Pool::new("settings", 2, 256);
        match self {
            Self::Names => &NAMES,
            Self::Files => &FILES,
            Self::Programs => &PROGRAMS,
            Self::Keyring => &KEYRING,
            Self::Settings => &SETTINGS,
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads and the queue of one kind.
struct Pool {
    /// What its threads do; also their name.
    what: &'static str,
    threads: usize,
    queue: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<Job>,
    /// Threads that run.
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
}

impl Pool {
    const fn new(what: &'static str, threads: usize, queue: usize) -> Self {
        let state = State { waiting: VecDeque::new(), threads: 0, idle: 0 };
        Self { what, threads, queue, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&'static self, job: Job) -> Result<(), Error> {
        let mut state = self.lock();
        if state.waiting.len() >= self.queue {
            return Err(Error::Full { what: self.what });
        }
        if state.waiting.len() >= state.idle && state.threads < self.threads {
            let thread = std::thread::Builder::new().name(self.what.to_owned()).stack_size(STACK);
            match thread.spawn(|| self.work()) {
                Ok(_) => state.threads += 1,
                // The threads that run take it later.
                Err(_) if state.threads > 0 => {}
                Err(error) => return Err(Error::NoThread(error)),
            }
        }
        state.waiting.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The life of one thread.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                drop(state);
                // Whoever waits for it sees that its sender is gone.
                drop(catch_unwind(AssertUnwindSafe(job)));
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let waited = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            state.idle -= 1;
            if waited.1.timed_out() && state.waiting.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    /// Work that goes on until the sender is dropped.
    fn hang(pool: &'static Pool, ended: &Arc<Mutex<mpsc::Receiver<()>>>) -> Result<(), Error> {
        let ended = Arc::clone(ended);
        pool.push(Box::new(move || drop(ended.lock().map(|ended| ended.recv()))))
    }

    #[test]
    fn work_that_hangs_takes_a_bounded_number_of_threads_and_then_an_error() {
        static POOL: Pool = Pool::new("a silent server", 2, 3);
        let (end, ended) = mpsc::channel();
        let ended = Arc::new(Mutex::new(ended));
        (0..2).for_each(|_| hang(&POOL, &ended).expect("there is room"));
        while !POOL.lock().waiting.is_empty() {
            std::thread::yield_now();
        }
        (0..3).for_each(|_| hang(&POOL, &ended).expect("there is room"));
        let refused = hang(&POOL, &ended);
        assert!(matches!(refused, Err(Error::Full { what: "a silent server" })), "{refused:?}");
        assert_eq!(POOL.lock().threads, 2);
        drop(end);
    }

    #[tokio::test]
    async fn one_kind_that_hangs_does_not_hold_up_another() {
        let (end, ended) = mpsc::channel();
        let ended = Arc::new(Mutex::new(ended));
        (0..10).for_each(|_| hang(Kind::Programs.pool(), &ended).expect("there is room"));
        assert_eq!(run(Kind::Files, || 7).await.expect("done"), 7);
        drop(end);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_its_thread_goes_on() {
        let outcome = run(Kind::Keyring, || panic!("on purpose")).await;
        assert!(matches!(outcome, Err(Error::BrokeOff)), "{outcome:?}");
        assert_eq!(run(Kind::Keyring, || 7).await.expect("done"), 7);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_is_not_begun() {
        let (begin, begun) = mpsc::channel::<()>();
        post(Kind::Keyring, move || _ = begun.recv()).expect("there is room");
        let (tell, told) = mpsc::channel::<()>();
        let work = run(Kind::Keyring, move || _ = tell.send(()));
        assert!(tokio::time::timeout(Duration::ZERO, work).await.is_err());
        drop(begin);
        run(Kind::Keyring, || ()).await.expect("done");
        assert!(told.recv().is_err(), "its sender was dropped unused");
    }
}
