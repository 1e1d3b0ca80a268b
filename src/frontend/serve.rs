//! What every listener does with its connections: how many there may be, how long one may be silent, how large a
//! head may be, and how they end.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
        let answer = answer(request);
        let counted = &counted;
        async move {
            let answer = answer.await;
            counted.done.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    // The look below bounds the head as well, without a timer for each request.
    http.header_read_timeout(None).max_buf_size(limits.head);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
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
