//! The HTTP client for the far side: MCP servers, authorization servers and the documents of both.
//!
//! HTTP/1.1 over the connections of [`super::connector`]. reqwest is not used here: it has no limits for headers and interim answers, no
//! staggered dialling (RFC 8305) and no error type for each step.
//!
//! What the other side may send before its body is bounded: 64 KiB and 100 fields for a head, and eight interim (1xx) answers.
//!
//! Connections are kept for a few seconds ([`KEPT_FOR`]). A kept connection may break just when a request is sent over it. If it
//! breaks before the first byte of the answer, the request is sent once more over a new connection: here, if nothing of it was
//! written or it is repeatable; else by its sender, who learns of it as [`Error::Stale`].
//!
//! A kept connection may also be forgotten by the network, which then drops what is sent over it without a word. So a repeatable
//! request waits only a second for the first byte over a kept connection; then it is sent over a new one, and no other request
//! uses a kept connection for a while. A request that is not repeatable is sent over a kept connection only if its host was heard
//! within the last second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, header};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, Connect, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Notify;
use url::Position;

use super::call::{Call, Collected, WORDS_LIMIT};
use super::trust::Trust;
use super::wire::Record;
use super::{Answer, Error, FIELDS, HEAD_CAP, INTERIM, KEPT, KEPT_FOR, USER_AGENT};

/// How long a repeatable request waits for the first byte over a kept connection. More than servers take for a document.
const SILENCE: Duration = Duration::from_secs(1);

/// The client. One for each set of egress rules and each client certificate, so that neither is shared by accident.
pub(super) struct Far<C> {
    kept: legacy::Client<C, Full<Bytes>>,
    /// Opens a connection for each request.
    fresh: legacy::Client<C, Full<Bytes>>,
    trust: Arc<Trust>,
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
    /// It did not break: nothing came back over it.
    is_silent: bool,
}

impl<C: Connect + Clone + Send + Sync + 'static> Far<C> {
    /// `trust` is shared with the other clients of this process: where one connection was forgotten, all were.
    pub(super) fn new(connector: C, trust: Arc<Trust>) -> Self {
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
        Self { kept: client(KEPT), fresh: client(0), trust }
    }

    /// Sends a request and reads the answer as far as the call wants it.
    pub(super) async fn send(&self, mut call: Call) -> Result<Answer, Error> {
        let body = call.take_body();
        let answer = match self.begin(&call, &body).await {
            Ok(answer) => answer,
            Err(Lost { error, stale: None }) => return Err(error),
            Err(Lost { error, stale: Some(stale) }) => {
                if stale.is_silent {
                    self.trust.lose_all();
                } else {
                    self.trust.lose(origin(&call));
                }
                if !stale.unsent && !call.repeatable {
                    return Err(Error::Stale { host: call.host, what: error.to_string() });
                }
                debug!(host = %call.host, "a kept connection was dead: trying a new one");
                self.exchange(&self.fresh, &call, &body).await.map_err(|lost| lost.error)?
            }
        };
        read(&call, answer).await
    }

    async fn begin(&self, call: &Call, body: &Bytes) -> Result<Response<Incoming>, Lost> {
        let origin = origin(call);
        let client = if self.trust.may_use_kept(&origin, call.repeatable) { &self.kept } else { &self.fresh };
        let answer = self.exchange(client, call, body).await;
        if answer.is_ok() {
            self.trust.heard(&origin);
        }
        answer
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
        let mut connection = capture_connection(&mut request);
        let silence =
            async { if call.repeatable { silence(&mut connection).await } else { std::future::pending().await } };
        let answer = tokio::select! {
            // The count comes first: behind too many interim answers a final one does not matter.
            biased;
            () = interim.too_many.notified() => {
                return Err(Lost { error: Error::Interim { host: call.host.clone() }, stale: None });
            }
            answer = client.request(request) => answer.map_err(|error| Lost::new(&call.host, &error))?,
            () = silence => {
                let error = Error::Timeout { host: call.host.clone(), limit: SILENCE };
                return Err(Lost { error, stale: Some(Stale { unsent: false, is_silent: true }) });
            }
        };
        // hyper's own limit is that of its buffer, which may hold a little more than it was told.
        if head_size(&answer) > HEAD_CAP {
            return Err(Lost { error: Error::HeadTooLarge { host: call.host.clone() }, stale: None });
        }
        Ok(answer)
    }
}

/// Ends a while after a request was sent over a kept connection, if not one byte came back. Over a new connection it never ends:
/// there the limit of the request counts.
async fn silence(connection: &mut CaptureConnection) {
    let mut seen = Response::new(());
    if let Some(connection) = &*connection.wait_for_connection_metadata().await {
        connection.get_extras(seen.extensions_mut());
    }
    let record = seen.extensions().get::<Arc<Record>>().filter(|record| record.is_kept()).cloned();
    let Some(record) = record else { return std::future::pending().await };
    tokio::time::sleep(SILENCE).await;
    if record.has_answered() {
        std::future::pending::<()>().await;
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
        let stale = record.filter(|record| record.was_stale(unsent)).map(|_| Stale { unsent, is_silent: false });
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
    if !collected.wants_body() {
        return Ok(collected.answer());
    }
    if !collected.is_decided() {
        read_body(call, &mut body, &mut collected).await?;
        return Ok(collected.answer());
    }
    match tokio::time::timeout(WORDS_LIMIT, read_body(call, &mut body, &mut collected)).await {
        Ok(Ok(())) => Ok(collected.answer()),
        Ok(Err(_)) | Err(_) => Ok(collected.without_body()),
    }
}

async fn read_body(call: &Call, body: &mut Incoming, collected: &mut Collected) -> Result<(), Error> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::from_hyper(&call.host, &error))?;
        collected.add(&call.host, frame.data_ref().map_or(&[], |data| data))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
