//! One HTTP/1.1 server on loopback: a port of its own, at most 256 connections, ends when dropped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An error closes the connection without an answer.
pub type Answer = Result<Response<Body>, io::Error>;

const CONNECTIONS: usize = 256;
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// A bound port that nobody serves yet: its URL is known before the server behind it is made.
pub struct Bound {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    base: String,
}

/// A served port.
pub struct Listener {
    down: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Bound {
    pub async fn new(tls: Option<TlsAcceptor>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = socket.local_addr().expect("it is bound").port();
        let base = match tls {
            Some(_) => format!("https://localhost:{port}"),
            None => format!("http://127.0.0.1:{port}"),
        };
        Self { socket, tls, base }
    }

    /// `http://127.0.0.1:PORT`, or `https://localhost:PORT` with TLS.
    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn serve<F, Fut>(self, answer: F) -> Listener
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let down = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(accept(self, Arc::clone(&down), answer));
        Listener { down, task }
    }
}

impl Listener {
    /// While down, every connection is closed at accept and every kept one at its next request.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Dropping this future closes every connection with it.
async fn accept<F, Fut>(bound: Bound, down: Arc<AtomicBool>, answer: F)
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let mut connections = tokio::task::JoinSet::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("nobody closes the semaphore");
        let Ok((stream, _)) = bound.socket.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        if !down.load(Ordering::SeqCst) {
            let connection = connection(stream, slot, bound.tls.clone(), Arc::clone(&down), answer.clone());
            connections.spawn(connection);
        }
    }
}

async fn connection<F, Fut>(
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
    tls: Option<TlsAcceptor>,
    down: Arc<AtomicBool>,
    answer: F,
) where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = (!down.load(Ordering::SeqCst)).then(|| answer(request));
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "down")),
            }
        }
    });
    // How a connection ends is the client's business and often the point of the test: errors are not ours to report.
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    let _ = match tls {
        None => http.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            http.serve_connection(TokioIo::new(stream), service).await
        }
    };
}
