//! The HTTP client for the far side: MCP servers, authorization servers and the documents of both.
//!
//! HTTP/1.1 over the connections of [`super::connector`]. What the other side may send before its body is bounded: 64 KiB and 100 fields for a head, and
//! eight interim (1xx) answers.
//!
//! Connections are kept for a few seconds ([`KEPT_FOR`]). A kept connection may break just when a request is sent over it. If it
//! breaks before the first byte of the answer, the request is sent once more over a new connection: here, if nothing of it was
//! written or it is repeatable; else by its sender, who learns of it as [`Error::Stale`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, header};
use hyper_util::client::legacy::{self, connect::Connect};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Notify;
use tokio::time::Instant;
use url::Position;

use super::call::{Call, Collected};
use super::wire::Record;
use super::{Answer, Error, FIELDS, HEAD_CAP, KEPT, KEPT_FOR, USER_AGENT};

/// The interim answers of one request. Servers send one or two.
const INTERIM: usize = 8;
/// So many hosts can be under suspicion at once; beyond that the oldest one is trusted again.
const SUSPECTS: usize = 64;

/// The client. One for each set of egress rules and each client certificate, so that neither is shared by accident.
pub(super) struct Far<C> {
    kept: legacy::Client<C, Full<Bytes>>,
    /// Opens a connection for each request.
    fresh: legacy::Client<C, Full<Bytes>>,
    /// Hosts with a kept connection that broke, and when. Their other kept connections are probably dead as well, so none is
    /// used until all of them have been closed.
    suspects: Mutex<VecDeque<(String, Instant)>>,
}

/// A request that failed before its answer.
struct Lost {
    error: Error,
    stale: Option<Stale>,
}

/// It failed because a kept connection broke before the first byte of the answer.
struct Stale {
    /// Nothing of the request was written.
    unsent: bool,
}

impl<C: Connect + Clone + Send + Sync + 'static> Far<C> {
    pub(super) fn new(connector: C) -> Self {
        let client = |kept| {
            legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(KEPT_FOR)
                .pool_max_idle_per_host(kept)
                .http1_max_buf_size(HEAD_CAP)
                .http1_max_headers(FIELDS)
                // Whether a request is sent again is decided here.
                .retry_canceled_requests(false)
                .build(connector.clone())
        };
        Self { kept: client(KEPT), fresh: client(0), suspects: Mutex::default() }
    }

    /// Sends a request and reads the answer as far as the call wants it.
    pub(super) async fn send(&self, mut call: Call) -> Result<Answer, Error> {
        let body = call.take_body();
        let answer = match self.begin(&call, &body).await {
            Ok(answer) => answer,
            Err(Lost { error, stale: None }) => return Err(error),
            Err(Lost { error, stale: Some(stale) }) => {
                self.suspect(&call);
                if !stale.unsent && !call.repeatable {
                    return Err(Error::Stale { host: call.host, what: error.to_string() });
                }
                tracing::debug!(host = %call.host, "a kept connection was dead: trying a new one");
                self.exchange(&self.fresh, &call, &body).await.map_err(|lost| lost.error)?
            }
        };
        read(&call, answer).await
    }

    async fn begin(&self, call: &Call, body: &Bytes) -> Result<Response<Incoming>, Lost> {
        let client = if self.is_suspect(call) { &self.fresh } else { &self.kept };
        self.exchange(client, call, body).await
    }

    /// One request, up to the head of its answer.
    async fn exchange(
        &self,
        client: &legacy::Client<C, Full<Bytes>>,
        call: &Call,
        body: &Bytes,
    ) -> Result<Response<Incoming>, Lost> {
        let mut request = request(call, body.clone()).map_err(|error| Lost { error, stale: None })?;
        let interim = Arc::new(Interim::default());
        let counted = Arc::clone(&interim);
        hyper::ext::on_informational(&mut request, move |_| counted.count());
        let answer = tokio::select! {
            // The count comes first: behind too many interim answers a final one does not matter.
            biased;
            () = interim.too_many.notified() => {
                return Err(Lost { error: Error::Interim { host: call.host.clone() }, stale: None });
            }
            answer = client.request(request) => answer.map_err(|error| Lost::new(&call.host, &error))?,
        };
        // hyper's own limit is that of its buffer, which may hold a little more than it was told.
        if head_size(&answer) > HEAD_CAP {
            return Err(Lost { error: Error::HeadTooLarge { host: call.host.clone() }, stale: None });
        }
        Ok(answer)
    }

    fn suspect(&self, call: &Call) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.len() >= SUSPECTS {
            suspects.pop_front();
        }
        suspects.push_back((origin(call), Instant::now()));
    }

    fn is_suspect(&self, call: &Call) -> bool {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.retain(|(_, since)| since.elapsed() <= KEPT_FOR);
        let origin = origin(call);
        suspects.iter().any(|(suspect, _)| *suspect == origin)
    }
}

impl Lost {
    fn new(host: &str, error: &legacy::Error) -> Self {
        let unsent = std::error::Error::source(error)
            .and_then(|cause| cause.downcast_ref())
            .is_some_and(hyper::Error::is_canceled);
        let mut seen = Response::new(());
        if let Some(connection) = error.connect_info() {
            connection.get_extras(seen.extensions_mut());
        }
        let record = seen.extensions().get::<Arc<Record>>();
        let stale = record.filter(|record| record.was_stale(unsent)).map(|_| Stale { unsent });
        Self { error: Error::from_hyper(host, error), stale }
    }
}

/// Counts interim answers.
#[derive(Default)]
struct Interim {
    seen: AtomicUsize,
    too_many: Notify,
}

impl Interim {
    fn count(&self) {
        if self.seen.fetch_add(1, Ordering::Relaxed) >= INTERIM {
            self.too_many.notify_one();
        }
    }
}

/// The bytes of all fields, as HTTP/1.1 writes them.
fn head_size(answer: &Response<Incoming>) -> usize {
    answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum()
}

fn origin(call: &Call) -> String {
    call.url[..Position::AfterPort].to_owned()
}

fn request(call: &Call, body: Bytes) -> Result<Request<Full<Bytes>>, Error> {
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(call.url.as_str())
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(body))
        .map_err(|_| Error::NotAUrl)?;
    request.headers_mut().extend(call.headers.clone());
    Ok(request)
}

async fn read(call: &Call, answer: Response<Incoming>) -> Result<Answer, Error> {
    let (head, mut body) = answer.into_parts();
    let mut collected = Collected::new(call, head.status, head.headers)?;
    while collected.wants_more() {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|error| Error::from_hyper(&call.host, &error))?;
        collected.add(&call.host, frame.data_ref().map_or(&[], |data| data))?;
    }
    Ok(collected.answer())
}

#[cfg(test)]
mod tests;
