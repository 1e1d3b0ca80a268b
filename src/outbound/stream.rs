//! The HTTP client for exchanges without an end: the bodies of request and answer pass as they come, in both directions.
//!
//! HTTP/1.1 over the connections of [`super::connector`], one connection for each exchange. Bodies and header fields are not
//! touched, no redirect is followed, and trailers are dropped. A head has at most 64 KiB and 100 fields, and at most eight
//! interim (1xx) answers come before it. There is a limit for the connection and one for the head, and none for a body: its
//! reader decides how long it waits.
//!
//! A client of our own, because one exchange over one connection is all there is to do here: no queue, no channel and no task
//! stand between the two ends of a call. `request.rs` writes, `head.rs` and `framing.rs` read by RFC 9112, `answer.rs` puts both
//! together without any I/O, and `connection.rs` moves the bytes. Where a body ends is read strictly: if it could end in two
//! places, that is an error. A bare LF in a head, two equal lengths and a trailer without a colon are not.
//!
//! Nothing runs beside the exchange: the connection moves while its answer, or the body of its answer, is polled. So whoever
//! drops one of them closes the connection, and a reader that does not read stops the server that writes.
//!
//! After an answer was read to its end, its connection is kept for a few seconds for the next exchange with the same server, as
//! in `far.rs`. Before anything is written to a connection, it is read from: one that the server has closed meanwhile gets no
//! request. A failure says whether any byte of the request was written ([`Sent`]), so that its sender can decide about a
//! repetition.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::HeaderMap;
use hyper::{Method, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tower_service::Service;
use url::{Position, Url};

use super::connector::Connector;
use super::trust::Trust;
use super::wire::Wire;
use super::{CONNECT_LIMIT, Error, NamedBy, Outbound, rules};
use crate::oauth::host_of;
use crate::token::Digest;

mod answer;
mod connection;
mod fault;
mod framing;
#[cfg(any(test, safeconduct_fuzz))]
mod fuzzed;
mod head;
mod key;
mod pool;
mod request;

use connection::Connection;
#[cfg(any(test, safeconduct_fuzz))]
pub(crate) use fuzzed::read_answer;
use key::{Key, Place};
pub(super) use pool::Pool;
use request::Request;

/// A request body that is read while it is sent.
pub(crate) type Upload = Pin<Box<dyn Body<Data = Bytes, Error = io::Error> + Send>>;

/// What polling a body gives.
pub(crate) type Polled = Poll<Option<Result<Frame<Bytes>, io::Error>>>;

/// One exchange.
pub(crate) struct Exchange {
    /// The method.
    pub(crate) method: Method,
    /// Where to.
    pub(crate) url: Url,
    /// All header fields but `Host` and those that frame the body. Values that are secret are marked as sensitive.
    pub(crate) headers: HeaderMap,
    /// The body. It may be empty.
    pub(crate) body: Upload,
    /// Who named the host.
    pub(crate) named_by: NamedBy,
    /// The client certificate of the TLS handshake, by its thumbprint. A token was obtained with it before.
    pub(crate) certificate: Option<Digest>,
    /// The name of the server. Two servers never share a connection, even if they share an origin.
    pub(crate) server: Arc<str>,
    /// The longest wait from the connection to the head of the answer.
    pub(crate) head_limit: Duration,
}

/// Was anything of a request written before it failed?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Not one byte: the server knows nothing of it.
    Nothing,
    /// Some or all of it: the server may have acted on it.
    Perhaps,
}

/// Why an exchange has no answer.
#[derive(Debug)]
pub(crate) struct Lost {
    /// The reason.
    pub(crate) error: Error,
    /// Does the server know of the request?
    pub(crate) sent: Sent,
}

impl Lost {
    pub(super) fn unsent(error: Error) -> Self {
        Self { error, sent: Sent::Nothing }
    }
}

/// The client. One for each set of egress rules and each client certificate.
pub(super) struct Streams<C> {
    connector: C,
    trust: Arc<Trust>,
    pool: Arc<Pool>,
}

impl Outbound {
    /// Sends one request whose body streams, and waits for the head of its answer, whose body streams too.
    pub(crate) async fn stream(&self, exchange: Exchange) -> Result<Response<Download>, Lost> {
        if self.0.watch.was_suspended(&self.0.clock) {
            self.forget_connections();
        }
        let host = host_of(&exchange.url);
        self.read_roots(host, CONNECT_LIMIT).await.map_err(Lost::unsent)?;
        let streams = self.streams(&exchange, host).map_err(Lost::unsent)?;
        streams.send(exchange).await
    }

    /// Closes kept connections of the streaming client as they grow old, for ever.
    pub(crate) async fn close_idle_streams(&self) {
        self.0.pool.tend().await;
    }

    fn streams(&self, exchange: &Exchange, host: &str) -> Result<Arc<Streams<Connector>>, Error> {
        let named = exchange.named_by == NamedBy::Them && self.0.config.named.contains(host);
        let named_by = if named { NamedBy::Us } else { exchange.named_by };
        rules::admit(&self.0.config, &exchange.url, named_by)?;
        let lane = self.lane(&exchange.url, host, named_by)?;
        self.0.streams.get_or_make((exchange.certificate, lane), || {
            let tls = match exchange.certificate {
                None => self.tls()?,
                Some(thumbprint) => {
                    let unknown = || Err(Error::NoCertificate { host: host.to_owned() });
                    self.0.presented.get_or_make(thumbprint, unknown)?
                }
            };
            let (connector, trust, pool) =
                (self.connector(lane, tls)?, Arc::clone(&self.0.trust), Arc::clone(&self.0.pool));
            Ok(Arc::new(Streams { connector, trust, pool }))
        })
    }
}

impl<C> Streams<C>
where
    C: Service<Uri, Response = TokioIo<Wire>> + Clone,
    C::Error: std::error::Error + Send + Sync + 'static,
{
    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, exchange: Exchange) -> Result<Response<Download>, Lost> {
        let Exchange { method, url, headers, body, certificate, server, head_limit, .. } = exchange;
        let (host, origin) = (host_of(&url), &url[..Position::AfterPort]);
        let place = Place { origin, server: &server, certificate, thread: std::thread::current().id() };
        let limit = Limit { at: Instant::now() + head_limit, lasts: head_limit, host };
        let mut request = Request::new(&method, &url, &headers, body);
        // One that the server has just closed gives the request back, whatever it is.
        if self.trust.may_use_kept(origin, true) {
            while let Some(connection) = self.pool.take(&place) {
                match exchanged(connection, request, &limit).await {
                    Err((_, Some(back))) => request = back,
                    outcome => {
                        if let Err((lost, _)) = &outcome
                            && !matches!(lost.error, Error::OwnBody { .. })
                        {
                            self.trust.lose(origin.to_owned());
                        }
                        return self.outcome(outcome, origin);
                    }
                }
            }
        }
        let connection = Box::pin(self.connect(&place, host)).await.map_err(Lost::unsent)?;
        let outcome = exchanged(connection, request, &limit).await;
        self.outcome(outcome, origin)
    }

    fn outcome(&self, outcome: Outcome, origin: &str) -> Result<Response<Download>, Lost> {
        let (answer, connection) = outcome.map_err(|(lost, _)| lost)?;
        self.trust.heard(origin);
        let mut body = Download { connection: Some(connection), pool: Arc::clone(&self.pool), is_broken: false };
        body.give_back_at_end();
        Ok(answer.map(|()| body))
    }

    async fn connect(&self, place: &Place<'_>, host: &str) -> Result<Box<Connection>, Error> {
        let uri = format!("{}/", place.origin).parse().map_err(|_| Error::NotAUrl)?;
        let stream = self.connector.clone().call(uri).await.map_err(|error| Error::from_hyper(host, &error))?;
        Ok(Box::new(Connection::new(Key::of(place), stream.into_inner())))
    }
}

/// How long an answer may take.
struct Limit<'a> {
    at: Instant,
    lasts: Duration,
    host: &'a str,
}

/// An answer with its connection; or the failure, and the request if it was not taken.
type Outcome = Result<(Response<()>, Box<Connection>), (Lost, Option<Request>)>;

/// One request over one connection, up to the head of the answer. If the connection cannot take the request, it comes back.
async fn exchanged(mut connection: Box<Connection>, request: Request, limit: &Limit<'_>) -> Outcome {
    connection.begin(request);
    let outcome = std::future::poll_fn(|context| match connection.poll_head(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => connection.poll_late(limit.at, context).map(|()| None),
    });
    let (error, back) = match outcome.await {
        Some(Ok(answer)) => return Ok((answer, connection)),
        Some(Err(error)) => (fault::reason(limit.host, &error), connection.take_back()),
        None => (Error::Timeout { host: limit.host.to_owned(), limit: limit.lasts }, None),
    };
    let sent = if connection.is_begun() { Sent::Perhaps } else { Sent::Nothing };
    Err((Lost { error, sent }, back))
}

/// The body of an answer, with its connection. Dropping it before its end closes the connection.
pub(crate) struct Download {
    /// `None` after the end.
    connection: Option<Box<Connection>>,
    /// Where the connection goes then.
    pool: Arc<Pool>,
    is_broken: bool,
}

impl Download {
    /// The connection goes back to its pool, if the body is at its end and the connection is good for another exchange.
    fn give_back_at_end(&mut self) {
        if let Some(connection) = self.connection.take_if(|connection| connection.is_at_end())
            && connection.is_reusable()
        {
            self.pool.keep(connection);
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
        let piece = ready!(connection.poll_piece(context));
        if piece.is_err() {
            (self.connection, self.is_broken) = (None, true);
        }
        // A reader that knows the length does not poll for the end.
        self.give_back_at_end();
        let broken = |error| io::Error::new(io::ErrorKind::ConnectionAborted, error);
        Poll::Ready(piece.map_err(broken).map(|piece| piece.map(Frame::data)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none() && !self.is_broken
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.connection.as_ref().map_or(Some(0), |connection| connection.left());
        left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests;
