//! Where log lines go: to stderr, and in a daemon through a bounded queue with one writer thread, so that nothing that serves
//! waits for a log that nobody reads.
//!
//! A short-lived command writes directly. A daemon calls [`start`] once. From then on [`queue`] takes all lines and never waits: if
//! the queue is full, the line is dropped and counted. Once the queue has drained, one line tells how many lines were lost.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prometheus_client::metrics::counter::Counter;

use crate::metrics::LOG_LINES_DROPPED;

mod fields;

pub(crate) use fields::Fields;

/// The longest queue, in lines and in bytes.
const LINES: usize = 1_024;
const BYTES: usize = 1024 * 1024;
/// The writer formats one line of its own.
const STACK: usize = 256 * 1024;

/// The queue of this process. None until a daemon starts it.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Starts the writer thread. Panics are logged through the queue too. Fails if the system gives no thread or descriptor.
pub(crate) fn start() -> io::Result<()> {
    if QUEUE.get().is_some() {
        return Ok(());
    }
    // A descriptor of its own: the lock of `std::io::stderr` would be held as long as a write blocks.
    let stderr = Stderr(File::from(io::stderr().as_fd().try_clone_to_owned()?));
    let queue = Queue::start(stderr, LOG_LINES_DROPPED.clone(), tell_of_dropped)?;
    if QUEUE.set(queue).is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            _ = self::queue(format!("safeconduct: error: a bug: {panic}\n").as_bytes());
        }));
    }
    Ok(())
}

/// Queues whole lines in a daemon. `false` in a short-lived command, which has no queue and writes them itself.
pub(crate) fn queue(lines: &[u8]) -> bool {
    let queue = QUEUE.get();
    queue.inspect(|queue| queue.push(lines)).is_some()
}

/// Waits until everything queued is written, but not longer than the limit.
pub(crate) fn flush(limit: Duration) {
    if let Some(queue) = QUEUE.get() {
        queue.flush(limit);
    }
}

fn tell_of_dropped(lines: u64) {
    tracing::warn!(lines, "log lines were dropped: nobody read the log, or it could not be written");
}

/// Lines on their way to a writer.
struct Queue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// The writer is busy with a line.
    writing: bool,
    /// Lines that were dropped since the last time this was told.
    untold: u64,
}

impl Queue {
    /// `tell` is called on the writer's thread when the queue has drained after lines were dropped.
    fn start(writer: impl Write + Send + 'static, dropped: Counter, tell: fn(u64)) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), dropped });
        let queue = Self(Arc::clone(&shared));
        std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(STACK)
            .spawn(move || shared.write_for_ever(writer, tell))?;
        Ok(queue)
    }

    /// Queues a line, or drops and counts it.
    fn push(&self, line: &[u8]) {
        let mut state = self.0.lock();
        if state.lines.len() >= LINES || state.bytes + line.len() > BYTES {
            self.0.count(&mut state);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.into());
        drop(state);
        self.0.changed.notify_all();
    }

    fn flush(&self, limit: Duration) {
        let state = self.0.lock();
        let busy = |state: &mut State| state.writing || !state.lines.is_empty();
        drop(self.0.changed.wait_timeout_while(state, limit, busy));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, state: &mut State) {
        state.untold += 1;
        self.dropped.inc();
    }

    fn write_for_ever(&self, mut writer: impl Write, tell: fn(u64)) {
        loop {
            let line = self.next();
            let written = writer.write_all(&line);
            let mut state = self.lock();
            state.writing = false;
            match written {
                Err(_) => self.count(&mut state),
                Ok(()) if state.lines.is_empty() && state.untold > 0 => {
                    let lines = std::mem::take(&mut state.untold);
                    drop(state);
                    tell(lines);
                }
                Ok(()) => {}
            }
            self.changed.notify_all();
        }
    }

    /// Waits for the next line.
    fn next(&self) -> Box<[u8]> {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.writing = true;
                return line;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes to stderr, and waits where somebody has made it non-blocking.
struct Stderr(File);

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
                }
                outcome => return outcome,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const NO_TIME: Duration = Duration::from_millis(1);

    /// Takes a line only after it was allowed to.
    struct Slow {
        allowed: Receiver<()>,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.allowed.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.taken.send(line.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow(tell: fn(u64)) -> (Queue, Sender<()>, Receiver<Vec<u8>>) {
        let ((allow, allowed), (taken, lines)) = (mpsc::channel(), mpsc::channel());
        (Queue::start(Slow { allowed, taken }, Counter::default(), tell).expect("a thread"), allow, lines)
    }

    #[test]
    fn a_log_that_nobody_reads_keeps_nobody_waiting_and_what_is_lost_is_counted_and_told_once() {
        static TOLD: AtomicU64 = AtomicU64::new(0);
        static TIMES: AtomicU64 = AtomicU64::new(0);
        let (queue, allow, lines) = slow(|lines| {
            TOLD.fetch_add(lines, Ordering::SeqCst);
            TIMES.fetch_add(1, Ordering::SeqCst);
        });
        queue.push(b"first\n");
        while !queue.0.lock().writing {
            std::thread::yield_now();
        }
        for _ in 0..LINES + 7 {
            queue.push(b"line\n");
        }
        assert_eq!((queue.0.dropped.get(), queue.0.lock().lines.len()), (7, LINES));
        queue.flush(NO_TIME);
        for _ in 0..=LINES {
            allow.send(()).expect("the writer is there");
        }
        queue.flush(LONG);
        assert_eq!(lines.try_iter().count(), LINES + 1);
        // Its next line shows that the writer is done with what it told.
        allow.send(()).expect("the writer is there");
        queue.push(b"last\n");
        queue.flush(LONG);
        assert_eq!((TOLD.load(Ordering::SeqCst), TIMES.load(Ordering::SeqCst)), (7, 1));
    }

    #[test]
    fn the_queue_has_a_cap_in_bytes_too() {
        let (queue, _allow, _lines) = slow(|_| ());
        let line = vec![b'x'; BYTES / 4];
        (0..8).for_each(|_| queue.push(&line));
        assert!(queue.0.lock().bytes <= BYTES);
        assert!(queue.0.dropped.get() >= 3, "one is being written and four wait");
        queue.push(&vec![b'x'; BYTES + 1]);
        assert!(queue.0.lock().bytes <= BYTES);
    }

    #[test]
    fn a_log_that_breaks_ends_no_writer() {
        let (queue, allow, lines) = slow(|_| ());
        drop(lines);
        allow.send(()).expect("the writer is there");
        queue.push(b"lost\n");
        queue.flush(LONG);
        assert_eq!(queue.0.dropped.get(), 1);
    }
}
