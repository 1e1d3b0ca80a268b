//! Reads stdin on a thread of its own. The descriptor is shared with whoever started us, so it is never made non-blocking.

use std::io;

use bytes::Bytes;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

use super::lines::{Line, Lines};
use super::room::{Part, Room};

/// One read takes so much at most: a pipe holds no more.
const PIECE: usize = 64 * 1024;
/// Lines that wait to be taken.
const QUEUE: usize = 64;
const STACK: usize = 256 * 1024;

/// A line of the client.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Its room is free again when the bytes are dropped.
    Line(Bytes),
    TooLong(Bytes),
}

/// The bytes of a line with their part of the room.
struct Owned(Vec<u8>, #[expect(dead_code, reason = "it is dropped with the bytes")] Part);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Starts to read. The receiver ends when the input does.
pub(super) fn start(cap: usize) -> io::Result<mpsc::Receiver<Incoming>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let read = move || {
        if let Err(error) = read(cap, &sender) {
            tracing::warn!(%error, "stdin cannot be read");
        }
    };
    std::thread::Builder::new().name("stdin".to_owned()).stack_size(STACK).spawn(read)?;
    Ok(receiver)
}

fn read(cap: usize, sender: &mpsc::Sender<Incoming>) -> io::Result<()> {
    let stdin = io::stdin();
    let room = Room::new(cap.saturating_mul(2).saturating_add(PIECE));
    let (mut lines, mut part) = (Lines::new(cap), room.part());
    let mut buffer = vec![0; PIECE];
    loop {
        let read = match nix::unistd::read(&stdin, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(Errno::EINTR) => continue,
            // Whoever shares the descriptor has made it non-blocking.
            Err(Errno::EAGAIN) => {
                use std::os::fd::AsFd;
                poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let mut piece = &buffer[..read];
        while !piece.is_empty() {
            part.grow_in_time(piece.len());
            let line = lines.read(&mut piece);
            let (make, bytes): (fn(Bytes) -> Incoming, _) = match line {
                Some(Line::Whole(bytes)) => (Incoming::Line, bytes),
                Some(Line::TooLong(bytes)) => (Incoming::TooLong, bytes),
                None => {
                    part.shrink_to(lines.kept());
                    continue;
                }
            };
            part.shrink_to(bytes.len());
            let owned = Owned(bytes, std::mem::replace(&mut part, room.part()));
            if sender.blocking_send(make(Bytes::from_owner(owned))).is_err() {
                return Ok(());
            }
        }
    }
}
