//! Writes stdout: JSON-RPC messages and nothing else, each on one line that is written at once.
//!
//! A short line is written at once where the system says that it fits, so that no thread has to wake up. All else is written by
//! one thread: a client that does not read holds up nobody but those who wait to have a line written.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, watch};

use super::room::Part;

/// Lines that wait to be written.
const QUEUE: usize = 64;
const STACK: usize = 128 * 1024;
/// A pipe that can be written takes so much without blocking (PIPE_BUF of Linux), and a socket takes more.
const SHORT: usize = 4_096;

/// A message, without a line end in it. Its room is free again when it is written.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) message: Vec<u8>,
    pub(super) _room: Option<Part>,
}

/// The way to stdout.
pub(super) struct Output {
    /// `None` once nothing more is said.
    queue: Mutex<Option<mpsc::Sender<Outgoing>>>,
    state: watch::Sender<State>,
    /// Lines that are queued or being written.
    pending: Arc<AtomicUsize>,
}

/// What became of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Writes,
    /// Everything was written.
    Ended,
    /// The reader is gone.
    Broken(Errno),
}

impl Output {
    /// Starts the writer.
    pub(super) fn start() -> io::Result<Self> {
        let (queue, lines) = mpsc::channel(QUEUE);
        let state = watch::Sender::new(State::Writes);
        let pending = Arc::<AtomicUsize>::default();
        let (tell, written) = (state.clone(), Arc::clone(&pending));
        let write = move || {
            let end = write_all(lines, &written).map_or_else(State::Broken, |()| State::Ended);
            tell.send_replace(end);
        };
        std::thread::Builder::new().name("stdout".to_owned()).stack_size(STACK).spawn(write)?;
        Ok(Self { queue: Mutex::new(Some(queue)), state, pending })
    }

    /// Has a message written. After [`Self::close`] it is dropped.
    pub(super) async fn send(&self, mut outgoing: Outgoing) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(queue) = queue else { return };
        // In one write with its end, so that a reader wakes up once.
        outgoing.message.push(b'\n');
        // One thread sends, so no line of another gets between the look and the write.
        if self.pending.load(Ordering::Acquire) == 0 && outgoing.message.len() <= SHORT {
            match write_now(&outgoing.message) {
                Ok(written) if written == outgoing.message.len() => return,
                // The thread goes on with the rest.
                Ok(written) => drop(outgoing.message.drain(..written)),
                Err(error) => {
                    self.state.send_replace(State::Broken(error));
                    return;
                }
            }
        }
        self.pending.fetch_add(1, Ordering::AcqRel);
        // It fails if the writer has ended; then the process ends.
        drop(queue.send(outgoing).await);
    }

    /// From now on nothing more is said.
    pub(super) fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Waits until what was said before [`Self::close`] is written, for so long.
    pub(super) async fn written(&self, limit: Duration) {
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| *state != State::Writes);
        // Whoever does not read now does not read at all.
        drop(tokio::time::timeout(limit, ended).await);
    }

    /// Waits until the reader is gone.
    pub(super) async fn broken(&self) -> io::Error {
        let mut state = self.state.subscribe();
        match state.wait_for(|state| matches!(state, State::Broken(_))).await.map(|state| *state) {
            Ok(State::Broken(error)) => error.into(),
            _ => std::future::pending().await,
        }
    }
}

/// Writes as much of a short line as can be written without waiting, which is all or nothing of it on a pipe.
fn write_now(line: &[u8]) -> Result<usize, Errno> {
    let stdout = io::stdout();
    let mut look = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
    let is_ready = match poll(&mut look, PollTimeout::ZERO) {
        Err(Errno::EINTR) | Ok(0) => false,
        found => found.map(|_| look[0].revents().is_some_and(|found| found.contains(PollFlags::POLLOUT)))?,
    };
    match nix::unistd::write(&stdout, if is_ready { line } else { return Ok(0) }) {
        Err(Errno::EINTR | Errno::EAGAIN) => Ok(0),
        written => written,
    }
}

fn write_all(mut lines: mpsc::Receiver<Outgoing>, pending: &AtomicUsize) -> Result<(), Errno> {
    let stdout = io::stdout();
    while let Some(Outgoing { message, _room }) = lines.blocking_recv() {
        write_rest(&stdout, &message)?;
        pending.fetch_sub(1, Ordering::AcqRel);
    }
    Ok(())
}

fn write_rest(stdout: &io::Stdout, mut rest: &[u8]) -> Result<(), Errno> {
    while !rest.is_empty() {
        match nix::unistd::write(stdout, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::EINTR) => {}
            // Whoever shares the descriptor has made it non-blocking.
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
