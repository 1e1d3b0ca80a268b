//! Filters what the HTTP library reads from a connection: only requests that [`Framing`] accepts.
//!
//! A head is held back until it is complete; it is copied only if it arrives in several pieces. Instead of a malformed
//! request the library reads [`SUBSTITUTE`]. So the refusal is answered, counted and recorded like any other, after the
//! answers to the requests before it. Nothing after it is read. A client may send many requests at once: the library gets one,
//! and the next after other connections had their turn. A malformed body is an error of the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::activity::Activity;
use super::framing::{Framing, Stop, Taken, Violation};

/// The request that replaces a malformed one. The listener recognises it by its number on the connection.
const SUBSTITUTE: &[u8] = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";

/// The reading half of a connection.
pub(super) struct Inbound {
    framing: Framing,
    /// First `ready` bytes for the library, then an incomplete head.
    held: Vec<u8>,
    ready: usize,
    /// What came together with the last request and belongs to the next ones. It is not parsed yet.
    behind: Bytes,
    /// Did others have their turn since the last request?
    has_yielded: bool,
    end: Option<End>,
}

/// Why reading has ended.
#[derive(Clone, Copy)]
enum End {
    /// A malformed head, replaced by the substitute.
    Head,
    /// A malformed body.
    Body(Violation),
}

impl Inbound {
    /// For a connection whose heads may have at most `head` bytes.
    pub(super) fn new(head: usize) -> Self {
        Self {
            framing: Framing::new(head),
            held: Vec::new(),
            ready: 0,
            behind: Bytes::new(),
            has_yielded: false,
            end: None,
        }
    }

    /// Reads from the stream and passes on what the framing allows.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        activity: &Activity,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        loop {
            if self.ready > 0 {
                self.pass(into);
                return Poll::Ready(Ok(()));
            }
            match self.end {
                // The library closes the connection after its answer. If it saw the end of the stream, it would not
                // answer.
                Some(End::Head) => return Poll::Pending,
                Some(End::Body(violation)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation.words())));
                }
                None => {}
            }
            if !self.behind.is_empty() {
                // A client that sends many requests at once has one answered at a time, like all others.
                if !std::mem::replace(&mut self.has_yielded, true) {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                self.hold_next(activity);
                continue;
            }
            ready!(Pin::new(&mut *stream).poll_read(context, into))?;
            let is_over = into.filled().len() == before;
            if !is_over {
                self.check(activity, into, before);
            }
            if is_over || into.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Parses the new bytes of `into` (from `before` on) and keeps only those that may be passed on.
    fn check(&mut self, activity: &Activity, into: &mut ReadBuf<'_>, before: usize) {
        let new = &into.filled()[before..];
        if !self.held.is_empty() {
            self.behind = Bytes::copy_from_slice(new);
            self.hold_next(activity);
            into.set_filled(before);
            return;
        }
        // Usually nothing is held back: requests arrive as a whole, and one at a time.
        let outcome = self.framing.take(new);
        let Taken { read, passed } = taken(outcome, new);
        if passed < new.len() {
            self.held.extend_from_slice(&new[passed..read]);
            self.behind = Bytes::copy_from_slice(&new[read..]);
            into.set_filled(before + passed);
        }
        self.stop_after(outcome, activity);
    }

    /// Parses what is behind, and holds it until it is passed on.
    fn hold_next(&mut self, activity: &Activity) {
        let outcome = self.framing.take(&self.behind);
        let Taken { read, passed } = taken(outcome, &self.behind);
        self.ready = if passed > 0 { self.held.len() + passed } else { 0 };
        self.held.extend_from_slice(&self.behind.split_to(read));
        self.has_yielded = false;
        self.stop_after(outcome, activity);
    }

    fn stop_after(&mut self, outcome: Result<Taken, Stop>, activity: &Activity) {
        if let Err(stop) = outcome {
            self.stop(activity, stop.violation);
        }
    }

    /// Ends the reading after a violation, and makes the substitute ready if the head was malformed.
    fn stop(&mut self, activity: &Activity, violation: Violation) {
        self.held.truncate(self.ready);
        if !self.framing.is_in_head() {
            self.end = Some(End::Body(violation));
            return;
        }
        self.end = Some(End::Head);
        activity.refuse(self.framing.requests() + 1, violation);
        self.held.extend_from_slice(SUBSTITUTE);
        self.ready = self.held.len();
    }

    /// Passes on as many ready bytes as fit.
    fn pass(&mut self, into: &mut ReadBuf<'_>) {
        let many = self.ready.min(into.remaining());
        into.put_slice(&self.held[..many]);
        self.held.drain(..many);
        self.ready -= many;
        if self.held.is_empty() {
            // Free the buffer: few heads arrive in pieces, but there are many connections.
            self.held = Vec::new();
        }
    }
}

/// After a violation nothing more is read.
fn taken(outcome: Result<Taken, Stop>, bytes: &[u8]) -> Taken {
    outcome.unwrap_or_else(|stop| Taken { read: bytes.len(), passed: stop.passed })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::watched::Watched;
    use super::*;

    const GOOD: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    const BODY: &str = "POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n";

    /// Sends `bytes` through a pipe of `pipe` bytes and then ends the stream. Returns what the library reads, with at
    /// most `room` bytes at a time, and how its reading ends. `None` if it waits forever.
    async fn library_reads(bytes: &str, pipe: usize, room: usize) -> (String, Option<io::Result<()>>) {
        let (ours, mut theirs) = duplex(pipe);
        let activity = Arc::new(Activity::default());
        let mut watched = Watched::new(ours, Inbound::new(256), activity);
        let mut read = Vec::new();
        let library = async {
            loop {
                let mut piece = vec![0; room];
                match watched.read(&mut piece).await {
                    Ok(0) => return Ok(()),
                    Ok(many) => read.extend_from_slice(&piece[..many]),
                    Err(error) => return Err(error),
                }
            }
        };
        let client = async {
            theirs.write_all(bytes.as_bytes()).await.expect("it reads");
            theirs.shutdown().await.expect("it can end");
            std::future::pending::<()>().await;
        };
        let limit = std::time::Duration::from_secs(1);
        let end = tokio::time::timeout(limit, async {
            tokio::select! {
                end = library => end,
                () = client => Ok(()),
            }
        });
        let end = end.await.ok();
        (String::from_utf8(read).expect("ASCII"), end)
    }

    #[tokio::test(start_paused = true)]
    async fn the_library_reads_good_requests_as_they_are_however_they_come() {
        let sent = [GOOD, BODY, "0\r\n\r\n", GOOD].concat();
        for (pipe, room) in [(4_096, 4_096), (1, 4_096), (3, 2), (4_096, 5), (40, 7)] {
            let (read, end) = library_reads(&sent, pipe, room).await;
            assert_eq!((&read, end.is_some_and(|end| end.is_ok())), (&sent, true), "{pipe}, {room}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_library_reads_a_substitute_for_a_malformed_request_and_then_waits() {
        let substitute = std::str::from_utf8(SUBSTITUTE).expect("ASCII");
        for (pipe, room) in [(4_096, 4_096), (1, 4_096), (3, 2), (40, 7)] {
            for malformed in ["GET / HTTP/1.1\r\nhost: localhost\n\n", "GET / HTTP/1.1\r\n\r\n"] {
                let (read, end) = library_reads(&[GOOD, BODY, "0\r\n\r\n", malformed, GOOD].concat(), pipe, room).await;
                assert_eq!(read, [GOOD, BODY, "0\r\n\r\n", substitute].concat(), "{pipe}, {room}");
                assert!(end.is_none(), "an end would keep it from answering");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_library_is_told_of_a_malformed_body() {
        for (pipe, room) in [(4_096, 4_096), (1, 4_096), (3, 2), (40, 7)] {
            let (read, end) = library_reads(&[BODY, "2\n{}\r\n0\r\n\r\n", GOOD].concat(), pipe, room).await;
            assert_eq!(read, [BODY, "2"].concat(), "{pipe}, {room}");
            let error = end.and_then(Result::err).map(|error| error.kind());
            assert_eq!(error, Some(io::ErrorKind::InvalidData));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_ends_with_its_connection() {
        let (read, end) = library_reads(&[GOOD, "GET / HT"].concat(), 4_096, 4_096).await;
        assert_eq!((read.as_str(), end.is_some_and(|end| end.is_ok())), (GOOD, true));
    }
}
