//! A connection as an HTTP client sees it, with a record of what passed over it. Other tasks run after each read, unless its caller
//! knows that it will not read on for long.
//!
//! The limits of head and body do not see all that a server may send: the library passes over chunk sizes with any number of
//! leading zeros, for example. So the bytes of each answer are counted as they come in, whatever they are: see [`ANSWER_CAP`].
//!
//! When a request fails on a kept connection, the record says whether the server can have heard of it: see
//! [`Record::was_stale`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{BODY_CAP, HEAD_CAP};

/// The most bytes of one answer, as they come over the connection. Every honest answer fits: a head, a body in chunks of one
/// byte each (`1\r\nx\r\n`), and as much as a head for interim answers, chunk extensions and trailers.
const ANSWER_CAP: usize = 2 * HEAD_CAP + BODY_CAP * b"1\r\nx\r\n".len();

/// A stream of bytes in both directions: TCP, or TLS over another one.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection with its record.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    record: Arc<Record>,
    /// Let other tasks run before the next read.
    yields: bool,
}

/// What passed over a connection, above TLS.
#[derive(Debug)]
pub(super) struct Record {
    /// How often something was written after something was read: the number of requests.
    requests: AtomicUsize,
    /// Did any byte arrive since the last one was written?
    heard: AtomicBool,
    /// The bytes that arrived since the present request was begun, or since the last piece of a body that streams.
    arrived: AtomicUsize,
}

/// An answer is larger than [`ANSWER_CAP`].
#[derive(Debug, thiserror::Error)]
#[error("the answer has more than {} KiB on the wire", ANSWER_CAP / 1024)]
pub(super) struct Overlong;

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        // The first write counts as the first request.
        let record =
            Record { requests: AtomicUsize::new(0), heard: AtomicBool::new(true), arrived: AtomicUsize::new(0) };
        Self { stream, record: Arc::new(record), yields: false }
    }

    /// A piece of a body that streams is passed on. The limit holds for what comes between two pieces: a stream has no end, and
    /// each of its pieces comes with a chunk size.
    pub(super) fn passed(&self) {
        self.record.arrived.store(0, Ordering::Relaxed);
    }

    /// Other tasks need not run before the next read: its caller knows that it will not read on for long.
    pub(super) fn rested(&mut self) {
        self.yields = false;
    }
}

impl Record {
    /// Was this connection kept from an earlier request, and did it break before the first byte of the answer to the
    /// failed one? Of an `unsent` request nothing was written.
    pub(super) fn was_stale(&self, unsent: bool) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        if unsent { requests > 0 } else { requests > 1 && !self.heard.load(Ordering::Relaxed) }
    }

    /// Was it kept from an earlier request? The present one may be written already or not.
    pub(super) fn is_kept(&self) -> bool {
        match self.requests.load(Ordering::Relaxed) {
            0 => false,
            1 => self.has_answered(),
            _ => true,
        }
    }

    /// Has a byte arrived since the last one was written?
    pub(super) fn has_answered(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        if matches!(outcome, Poll::Ready(Ok(written)) if *written > 0) && self.heard.swap(false, Ordering::Relaxed) {
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.arrived.store(0, Ordering::Relaxed);
        }
    }

    /// Counts bytes that arrived. Fails if they are more than an answer may have.
    fn read(&self, bytes: usize) -> io::Result<()> {
        self.heard.store(true, Ordering::Relaxed);
        let before = self.arrived.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > ANSWER_CAP { Err(io::Error::other(Overlong)) } else { Ok(()) }
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new().extra(Arc::clone(&self.record))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The HTTP library reads on within one poll as long as interim answers come. A server that floods them must not
        // hold the thread, on which every caller is served.
        if std::mem::take(&mut self.yields) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.yields = true;
            self.record.read(read)?;
        }
        outcome
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.record.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.record.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
