//! One HTTP/1.1 server on loopback: a port of its own, at most 256 connections, ends when dropped.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
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
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An error closes the connection without an answer.
pub type Answer = Result<Response<Body>, io::Error>;

const CONNECTIONS: usize = 256;
/// Between two attempts to get a port back.
const AGAIN: Duration = Duration::from_millis(5);
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// A bound port without a server: its URL is known before the server is created.
pub struct Bound {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    base: String,
}

/// The client's certificate from the handshake; every request has this extension.
#[derive(Clone, Debug, Default)]
pub struct Peer(pub Option<Arc<[u8]>>);

/// A served port.
pub struct Listener {
    down: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// A Unix socket that forwards to a served port; removed when dropped.
pub struct Unix(JoinHandle<()>);

impl Unix {
    /// Forwards every connection at `path` to `port`.
    pub fn before(path: &Path, port: SocketAddr) -> Self {
        std::fs::create_dir_all(path.parent().expect("an absolute path")).expect("the root is ours");
        let socket = UnixListener::bind(path).expect("nobody else is there");
        Self(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = socket.accept().await {
                connections.spawn(async move {
                    let mut far = TcpStream::connect(port).await.expect("it is served");
                    // Tests often break a connection on purpose, so errors are ignored.
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        }))
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        self.0.abort();
    }
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

    /// A port that a server had before, as soon as that one has let go of it.
    pub async fn again(address: SocketAddr) -> Self {
        loop {
            match TcpListener::bind(address).await {
                Ok(socket) => return Self { socket, tls: None, base: format!("http://{address}") },
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => tokio::time::sleep(AGAIN).await,
                Err(error) => panic!("{address}: {error}"),
            }
        }
    }

    /// Gives the server a name that only a forward proxy can resolve: `https://NAME`, on the usual port.
    pub async fn named(name: &str, tls: TlsAcceptor) -> Self {
        Self { base: format!("https://{name}"), ..Self::new(Some(tls)).await }
    }

    /// Its real address.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is bound")
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
    /// While down, new connections are closed at accept and kept ones at their next request.
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
    let service = |peer: Peer| {
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let answer = (!down.load(Ordering::SeqCst)).then(|| answer(request));
            async move {
                match answer {
                    Some(answer) => answer.await,
                    None => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "down")),
                }
            }
        })
    };
    // Tests often break a connection on purpose, so errors are ignored.
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    let _ = match tls {
        None => http.serve_connection(TokioIo::new(stream), service(Peer::default())).await,
        Some(tls) => match tls.accept(stream).into_fallible().await {
            Ok(stream) => {
                let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let peer = Peer(certificates.first().map(|leaf| leaf.as_ref().into()));
                http.serve_connection(TokioIo::new(stream), service(peer)).await
            }
            Err((_, stream)) => {
                last_words(stream).await;
                return;
            }
        },
    };
}

/// Reads the received bytes first. Else the kernel would send a reset, which overtakes the alert.
async fn last_words(mut stream: TcpStream) {
    let mut unheard = [0; 4096];
    let read = async { while stream.read(&mut unheard).await.is_ok_and(|count| count > 0) {} };
    let _ = tokio::time::timeout(HEAD_LIMIT, read).await;
}
