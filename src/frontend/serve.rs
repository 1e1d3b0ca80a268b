//! What every listener does with its connections: how many there may be, how long one may be silent, how large a
//! head may be, and how they end.

use std::convert::Infallible;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroize;

use super::api::Answer;

/// What one listener bears.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// More connections wait in the backlog instead of taking memory.
    pub(super) connections: usize,
    /// A connection on which no request begins for so long is closed: one that is idle, sends its head byte by byte, or
    /// never reads its answer.
    pub(super) quiet: Duration,
    /// Our requests have a line and a few fields.
    pub(super) head: usize,
}

impl Limits {
    /// Of the API, on whatever listener.
    pub(super) const API: Self = Self { connections: 2_048, quiet: Duration::from_secs(30), head: 16 * 1024 };
}

/// A connection's place among those that its listener bears.
pub(super) type Place = OwnedSemaphorePermit;

/// Accepts until `stop`: `accept` waits for the next connection and `begin` starts to serve it in its place.
pub(super) async fn accept_all<S, A: Future<Output = io::Result<S>>>(
    limits: Limits,
    stop: &CancellationToken,
    // No async closure: the future of a daemon that an agent embeds has to be `Send`.
    accept: impl Fn() -> A,
    begin: impl Fn(S, Place),
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = async { (place.await, accept().await) } => accepted,
        };
        match accepted {
            (Ok(place), Ok(stream)) => {
                begin(stream, place);
                // Whoever was let in is served before the next is looked for, which costs a system call.
                tokio::task::yield_now().await;
            }
            // Out of descriptors, usually: connections that end will free some.
            (_, Err(error)) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (Err(_), _) => return,
        }
    }
}

/// Where the connections of one listener run, and until when.
#[derive(Clone)]
pub(crate) struct Course {
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// Serves one connection: each request is given to `answer`.
pub(super) async fn connection<S, A>(
    limits: Limits,
    stop: CancellationToken,
    stream: S,
    _place: Place,
    answer: impl Fn(Request<Incoming>) -> A,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Future<Output = Answer>,
{
    let counted = Counted::default();
    let service = service_fn(|request| {
        counted.started.fetch_add(1, Ordering::Relaxed);
        // Not in an async block, which would have room for the whole of it twice.
        answer(request).map(|answer| {
            counted.done.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
        })
    });
    let mut http = http1::Builder::new();
    // The look below bounds the head as well, without a timer for each request.
    http.header_read_timeout(None).max_buf_size(limits.head);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(InOnePiece(stream)), service));
    let mut look = std::pin::pin!(tokio::time::sleep(limits.quiet));
    let mut seen = 0;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = connection.as_mut() => break outcome,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
            () = look.as_mut() => {
                let started = counted.started.load(Ordering::Relaxed);
                let working = started > counted.done.load(Ordering::Relaxed);
                if !working && started == seen {
                    tracing::debug!("a silent connection is closed");
                    return;
                }
                seen = started;
                look.as_mut().reset(Instant::now() + limits.quiet);
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// How many requests came on a connection and were answered.
#[derive(Default)]
struct Counted {
    started: AtomicU64,
    done: AtomicU64,
}

/// A stream on which an answer is written in one piece. To have the kernel gather head and body costs more than to copy a
/// kilobyte: 7.1 instead of 6.6 µs of processor time for each answer. The copy holds a token and is cleared at once.
struct InOnePiece<S>(S);

impl<S> InOnePiece<S> {
    /// Larger answers are gathered by the kernel.
    const ROOM: usize = 4 * 1024;
}

impl<S: AsyncWrite + Unpin> AsyncWrite for InOnePiece<S> {
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut room = [0; InOnePiece::<()>::ROOM];
        let Some(whole) = room.get_mut(..length) else {
            return Pin::new(&mut self.0).poll_write_vectored(context, pieces);
        };
        let mut rest = &mut *whole;
        pieces.iter().try_for_each(|piece| rest.write_all(piece))?;
        let written = Pin::new(&mut self.0).poll_write(context, whole);
        whole.zeroize();
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for InOnePiece<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::body::Body;
    use super::*;

    /// How long a connection of the API lasts on which the client sends `said` and then nothing.
    async fn lasts(said: &[u8]) -> Duration {
        let (ours, mut theirs) = duplex(64 * 1024);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("nobody else wants it");
        let begun = Instant::now();
        let answer = |_: Request<Incoming>| async { Answer::new(Body::plain(b"{}")) };
        let served = connection(Limits::API, CancellationToken::new(), ours, place, answer);
        let client = async {
            theirs.write_all(said).await.expect("there is room");
            theirs.read_to_end(&mut Vec::new()).await.expect("it is closed");
        };
        tokio::join!(served, client);
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_no_request_begins_is_closed() {
        let quiet = Limits::API.quiet.as_secs();
        assert_eq!(lasts(b"").await.as_secs(), quiet, "never a word");
        assert_eq!(lasts(b"GET /healthz HTTP/1.1\r\nhost: local").await.as_secs(), quiet, "half a head");
        let whole = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
        assert_eq!(lasts(whole).await.as_secs(), 2 * quiet, "one request, at the first look no longer new");
    }

    #[tokio::test]
    async fn pieces_arrive_in_their_order_whether_or_not_there_is_room_for_them() {
        for length in [0, 1, InOnePiece::<()>::ROOM - 4, InOnePiece::<()>::ROOM - 3, 32 * 1024] {
            let (ours, mut theirs) = duplex(64 * 1024);
            let body = vec![b'b'; length];
            let pieces = [IoSlice::new(b"<"), IoSlice::new(&body), IoSlice::new(b"--"), IoSlice::new(b">")];
            let mut ours = InOnePiece(ours);
            assert_eq!(ours.write_vectored(&pieces).await.unwrap(), length + 4);
            drop(ours);
            let mut arrived = Vec::new();
            theirs.read_to_end(&mut arrived).await.unwrap();
            assert_eq!(arrived, pieces.iter().flat_map(|piece| piece.iter().copied()).collect::<Vec<u8>>());
        }
    }
}
