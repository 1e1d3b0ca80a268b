//! Connections to `/mcp/NAME`: the daemon's, or one of this process. They are kept and used again.
//!
//! If the daemon goes away, a new connection is tried for eight seconds. This process never takes its place.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderMap;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::told::Why;
use crate::door::{self, Place};

/// So long a daemon that went away is waited for.
const PATIENCE: Duration = Duration::from_secs(8);
/// The pauses between two attempts: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// A connection that was idle for so long is not used again: the daemon closes it after 30 seconds.
const STALE: Duration = Duration::from_secs(20);
/// The most requests of the client at the same time. The daemon gives one user a quarter of its places at least, which is more.
const REQUESTS: usize = 128;
/// The same for what must not wait for them: cancellations, answers to the server, and its own stream.
const OTHERS: usize = 64;
/// The longest silence: the daemon ends an exchange after ten minutes without a byte.
const SILENCE: Duration = Duration::from_secs(900);

/// Where `/mcp/NAME` is.
pub(crate) enum Origin {
    /// A daemon listens at one of these places, or will. The first connection may be there.
    Daemon { places: Vec<Place>, own_uid: u32, first: Option<UnixStream> },
    /// In this process. The function gives a connection to it.
    Here(Box<dyn Fn() -> io::Result<UnixStream> + Send + Sync>),
}

/// The connections.
pub(super) struct Link {
    origin: Origin,
    kept: Mutex<Vec<Kept>>,
    /// Places for exchanges, by [`Lane`].
    places: [Arc<Semaphore>; 2],
    tasks: TaskTracker,
}

/// Among which exchanges a message counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// The requests of the client.
    Requests,
    /// What must not wait for them.
    Others,
}

/// What is sent.
#[derive(Clone)]
pub(super) struct Outbound {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) fields: HeaderMap,
    pub(super) body: Bytes,
}

struct Kept {
    sender: SendRequest<Full<Bytes>>,
    used: Instant,
}

/// The answer to a request. Its connection is used again once the body has ended, and is closed if the body is dropped.
pub(super) struct Answer {
    pub(super) head: hyper::http::response::Parts,
    pub(super) body: Body,
}

/// The body of an answer.
pub(super) struct Body {
    incoming: Incoming,
    _permit: OwnedSemaphorePermit,
}

/// A connection that stays non-blocking, so that it can be handed to the runtime.
fn for_runtime(stream: UnixStream) -> io::Result<TokioIo<tokio::net::UnixStream>> {
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream).map(TokioIo::new)
}

impl Link {
    pub(super) fn new(origin: Origin, tasks: TaskTracker) -> Self {
        let places = [REQUESTS, OTHERS].map(|most| Arc::new(Semaphore::new(most)));
        Self { origin, kept: Mutex::default(), places, tasks }
    }

    /// Sends a request, and waits for the head of its answer.
    pub(super) async fn send(&self, outbound: Outbound, lane: Lane) -> Result<Answer, Why> {
        let [requests, others] = &self.places;
        let places = Arc::clone(if lane == Lane::Requests { requests } else { others });
        let Ok(permit) = places.acquire_owned().await else { return Err(Why::DaemonAway) };
        let mut request = Request::new(Full::new(outbound.body));
        *request.method_mut() = outbound.method;
        *request.uri_mut() = outbound.target.parse().map_err(|_| Why::NotServed)?;
        *request.headers_mut() = outbound.fields;
        let begun = Instant::now();
        loop {
            let mut sender = match self.idle() {
                Some(sender) => sender,
                None => self.connected(begun).await?,
            };
            let sent = timeout(SILENCE, sender.try_send_request(request)).await.map_err(|_| Why::AnswerLost)?;
            match sent {
                Ok(answer) => {
                    self.lock().push(Kept { sender, used: Instant::now() });
                    return Ok(Answer::new(answer, permit));
                }
                Err(mut error) => match error.take_message() {
                    // Nothing of it was sent: the connection was closed meanwhile.
                    Some(unsent) if begun.elapsed() < PATIENCE => request = unsent,
                    Some(_) => return Err(Why::DaemonAway),
                    None => return Err(Why::AnswerLost),
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection on which nothing is under way.
    fn idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut kept = self.lock();
        kept.retain(|kept| {
            let is_stale = kept.sender.is_ready() && kept.used.elapsed() > STALE;
            !(is_stale || kept.sender.is_closed())
        });
        let at = kept.iter().rposition(|kept| kept.sender.is_ready())?;
        Some(kept.swap_remove(at).sender)
    }

    /// A new connection, tried for so long after the beginning of the request.
    async fn connected(&self, begun: Instant) -> Result<SendRequest<Full<Bytes>>, Why> {
        let (mut pause, longest) = PAUSES;
        loop {
            let failed = match self.connect().await {
                Ok(sender) => return Ok(sender),
                Err(failed) => failed,
            };
            if failed != Why::DaemonAway || begun.elapsed() + pause > PATIENCE {
                return Err(failed);
            }
            sleep(pause).await;
            pause = longest.min(2 * pause);
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Why> {
        let stream = match &self.origin {
            Origin::Daemon { places, own_uid, .. } => door::connect(places, *own_uid).map_err(|error| {
                debug!(%error, "no connection to the daemon");
                match error {
                    door::Error::Forbidden { .. } | door::Error::Foreign { .. } | door::Error::TooLong { .. } => {
                        Why::DaemonNotUsable
                    }
                    _ => Why::DaemonAway,
                }
            })?,
            Origin::Here(connect) => connect().map_err(|error| {
                tracing::warn!(%error, "no connection within this process");
                Why::DaemonAway
            })?,
        };
        self.handshake(stream).await
    }

    async fn handshake(&self, stream: UnixStream) -> Result<SendRequest<Full<Bytes>>, Why> {
        let stream = for_runtime(stream).map_err(|_| Why::DaemonAway)?;
        let (sender, connection) = http1::handshake(stream).await.map_err(|_| Why::DaemonAway)?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection to the daemon has ended");
            }
        });
        Ok(sender)
    }

    /// Takes the connection that was there before the first request.
    pub(super) async fn keep_first(&mut self) {
        let Origin::Daemon { first, .. } = &mut self.origin else { return };
        let Some(stream) = first.take() else { return };
        // If it is closed by now, the first request connects anew.
        if let Ok(mut sender) = self.handshake(stream).await
            && sender.ready().await.is_ok()
        {
            self.lock().push(Kept { sender, used: Instant::now() });
        }
    }
}

impl Answer {
    fn new(answer: Response<Incoming>, permit: OwnedSemaphorePermit) -> Self {
        let (head, incoming) = answer.into_parts();
        Self { head, body: Body { incoming, _permit: permit } }
    }
}

impl Body {
    /// The next piece. `None` at the end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Why> {
        loop {
            let frame = timeout(SILENCE, self.incoming.frame()).await.map_err(|_| Why::AnswerLost)?;
            match frame {
                None => return Ok(None),
                Some(Err(_)) => return Err(Why::AnswerLost),
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }
}
