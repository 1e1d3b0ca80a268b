//! The HTTP/1.1 client, and what the data path does with it: exchanges without an end, whose bodies pass as they come, in both
//! directions. `far.rs` has the other face of it, for documents and tokens.
//!
//! HTTP/1.1 over the connections of [`super::connector`], one connection for each exchange. Bodies and header fields are not
//! touched, no redirect is followed, and trailers are dropped. A head has at most 64 KiB and 100 fields, and at most eight
//! interim (1xx) answers come before it. There is a limit for the connection and one for the head, and none for a body: its
//! reader decides how long it waits.
//!
//! A client of our own, because one exchange over one connection is all there is to do here: no queue, no channel and no task
//! stand between the two ends of a call. `request.rs` writes, `head.rs` and `framing.rs` read by RFC 9112, `answer.rs` puts both
//! together without any I/O, and `connection.rs` moves the bytes. Where a body ends is read strictly: if the body of a relayed
//! answer could end in two places, that is an error. A bare LF in a head, two equal lengths and a trailer without a colon are not.
//!
//! Nothing runs beside the exchange: the connection moves while its answer, or the body of its answer, is polled. So whoever
//! drops one of them closes the connection, and a reader that does not read stops the server that writes.
//!
//! After an answer was read to its end, its connection is kept for a few seconds ([`super::KEPT_FOR`]) for the next exchange with
//! the same server under the same terms (`key.rs`). Before anything is written to a connection, it is read from: one that the
//! server has closed meanwhile gets no request. A failure says whether any byte of the request was written ([`Sent`]), so that
//! its sender can decide about a repetition.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::{Position, Url};

use super::connector::{Connect, Connector};
use super::trust::Trust;
use super::{CONNECT_LIMIT, Error, NamedBy, Outbound};
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
pub(super) use fault::reason;
#[cfg(any(test, safeconduct_fuzz))]
pub(crate) use fuzzed::read_answer;
use key::Key;
pub(super) use key::{Place, Terms};
pub(super) use pool::Pool;
pub(super) use request::Request;

/// A request body that is read while it is sent.
pub(crate) type Upload = Pin<Box<dyn Body<Data = Bytes, Error = io::Error> + Send>>;

/// What polling a body gives.
pub(crate) type Polled = Poll<Option<Result<Frame<Bytes>, io::Error>>>;

/// The head of a request.
#[derive(Clone, Copy)]
pub(crate) struct RequestHead<'a> {
    /// The method.
    pub(crate) method: &'a Method,
    /// Where to.
    pub(crate) url: &'a Url,
    /// The fields. Of these, `Host` and those that frame the body are not sent as they are. Values that are secret are marked as
    /// sensitive.
    pub(crate) headers: &'a HeaderMap,
    /// More fields. They replace those with the same name, also each other.
    pub(crate) more: &'a [(HeaderName, HeaderValue)],
}

/// One exchange.
pub(crate) struct Exchange<'a> {
    /// The head of the request.
    pub(crate) head: RequestHead<'a>,
    /// The body. It may be empty.
    pub(crate) body: Upload,
    /// Who named the host.
    pub(crate) named_by: NamedBy,
    /// The client certificate of the TLS handshake, by its thumbprint. A token was obtained with it before.
    pub(crate) certificate: Option<Digest>,
    /// The name of the server. Two servers never share a connection, even if they share an origin.
    pub(crate) server: &'a Arc<str>,
    /// How long the head of the answer is waited for.
    pub(crate) until: Until<'a>,
}

/// When a wait is over, and how long that is without a byte. The time is asked for again when it has come: whatever passes
/// meanwhile may have moved it.
pub(crate) type Until<'a> = (&'a (dyn Fn() -> Instant + Sync), Duration);

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

/// The client. One for each lane and each client certificate.
pub(super) struct Http<C> {
    pub(super) connector: C,
    pub(super) terms: Terms,
    /// Shared with the other clients: where one connection was forgotten, all were.
    pub(super) trust: Arc<Trust>,
    pub(super) pool: Arc<Pool>,
}

impl Outbound {
    /// Sends one request whose body streams, and waits for the head of its answer, whose body streams too.
    pub(crate) async fn stream(&self, exchange: Exchange<'_>) -> Result<Response<Download>, Lost> {
        if self.0.watch.was_suspended(&self.0.clock) {
            self.forget_connections();
        }
        let host = host_of(exchange.head.url);
        self.read_roots(host, CONNECT_LIMIT).await.map_err(Lost::unsent)?;
        let http = self.http_for(&exchange, host).map_err(Lost::unsent)?;
        http.send(exchange).await
    }

    /// Closes kept connections as they grow old. After `stop` it closes all of them, and none is kept any more.
    pub(crate) async fn close_idle_connections(&self, stop: &CancellationToken) {
        stop.run_until_cancelled(self.0.pool.tend()).await;
        self.0.pool.end();
    }

    fn http_for(&self, exchange: &Exchange<'_>, host: &str) -> Result<Arc<Http<Connector>>, Error> {
        let lane = self.lane(exchange.head.url, host, exchange.named_by)?;
        let tls = || match exchange.certificate {
            None => self.tls(),
            Some(_) => Err(Error::NoCertificate { host: host.to_owned() }),
        };
        self.http(lane, exchange.certificate, &tls)
    }
}

impl<C: Connect> Http<C> {
    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, exchange: Exchange<'_>) -> Result<Response<Download>, Lost> {
        let Exchange { head, body, server, until, .. } = exchange;
        let (url, place) = (head.url, self.place(head.url, Some(server)));
        let limit = Limit { host: host_of(url), until: Some(until), is_for_head: true };
        let mut request = Request::new(&head, body);
        if self.trust.may_use_kept(place.origin, true) {
            match self.over_kept(&place, request, &limit).await {
                Ok(outcome) => {
                    if let Err(failed) = &outcome
                        && !matches!(failed.lost.error, Error::OwnBody { .. })
                    {
                        self.trust.lose(place.origin.to_owned());
                    }
                    return outcome.map_err(|failed| failed.lost);
                }
                Err(back) => request = back,
            }
        }
        self.over_new(&place, url, request, &limit).await.map_err(|failed| failed.lost)
    }

    /// For whom a connection to this URL is.
    pub(super) fn place<'a>(&self, url: &'a Url, server: Option<&'a Arc<str>>) -> Place<'a> {
        let (origin, runtime) = (&url[..Position::AfterPort], Handle::current().id());
        Place { origin, server, terms: self.terms, runtime }
    }

    /// The exchange over a kept connection. One that the server has just closed gives the request back, whatever it is. If none
    /// takes the request, it comes back.
    pub(super) async fn over_kept(
        &self,
        place: &Place<'_>,
        mut request: Request,
        limit: &Limit<'_>,
    ) -> Result<Outcome, Request> {
        while let Some(connection) = self.pool.take(place) {
            match self.exchanged(connection, request, limit).await {
                Err(Failed { back: Some(back), .. }) => request = back,
                outcome => return Ok(outcome),
            }
        }
        Err(request)
    }

    /// The exchange over a new connection.
    pub(super) async fn over_new(&self, place: &Place<'_>, url: &Url, request: Request, limit: &Limit<'_>) -> Outcome {
        let stream = Box::pin(self.connector.connect(url)).await.map_err(|failure| {
            let lost = Lost::unsent(Error::from_failure(limit.host.to_owned(), &failure));
            Failed { lost, is_heard: false, back: None }
        })?;
        let connection = Box::new(Connection::new(Key::of(place), stream));
        self.exchanged(connection, request, limit).await
    }

    /// One request over one connection, up to the head of the answer.
    async fn exchanged(&self, mut connection: Box<Connection>, request: Request, limit: &Limit<'_>) -> Outcome {
        connection.begin(request);
        let outcome = std::future::poll_fn(|context| match connection.poll_head(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => match limit.until {
                Some((at, _)) if limit.is_for_head || !connection.is_heard() => {
                    connection.poll_late(at(), context).map(|()| None)
                }
                _ => Poll::Pending,
            },
        });
        let (error, back) = match outcome.await {
            Some(Ok(answer)) => {
                // Asked for before a request that cannot be repeated. A call is always tried over what is kept.
                if !connection.key.is_relayed() {
                    self.trust.heard(connection.key.place().origin);
                }
                let pool = Arc::clone(&self.pool);
                let mut body = Download { connection: Some(connection), pool, is_broken: false };
                body.give_back_at_end();
                return Ok(answer.map(|()| body));
            }
            Some(Err(error)) => (reason(limit.host, &error), connection.take_back()),
            None => {
                let (host, lasts) = (limit.host, limit.until.map_or(Duration::ZERO, |(_, lasts)| lasts));
                (Error::Timeout { host: host.to_owned(), limit: lasts }, None)
            }
        };
        // Whoever refuses the handshake has read nothing. In TLS 1.3 that is heard after the request was written.
        let is_refused = matches!(error, Error::OurCertificate { .. } | Error::NoCommonTls { .. });
        let sent = if connection.is_begun() && !is_refused { Sent::Perhaps } else { Sent::Nothing };
        Err(Failed { lost: Lost { error, sent }, is_heard: connection.is_heard(), back })
    }
}

/// How long an answer is waited for.
pub(super) struct Limit<'a> {
    /// What errors call the other side.
    pub(super) host: &'a str,
    /// `None`: the sender looks at the clock.
    pub(super) until: Option<Until<'a>>,
    /// Does it hold for the whole head, or for the first byte alone?
    pub(super) is_for_head: bool,
}

/// An answer whose body is still to come, or the failure.
type Outcome = Result<Response<Download>, Failed>;

/// Why an exchange over one connection has no answer.
pub(super) struct Failed {
    pub(super) lost: Lost,
    /// Did any byte of the answer arrive?
    pub(super) is_heard: bool,
    /// The request, if it was not taken.
    back: Option<Request>,
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

    /// Ready with the next piece. `None` is the end.
    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(None)) };
        let piece = ready!(connection.poll_piece(context));
        if piece.is_err() {
            (self.connection, self.is_broken) = (None, true);
        }
        // A reader that knows the length does not poll for the end.
        self.give_back_at_end();
        Poll::Ready(piece)
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let broken = |error| io::Error::new(io::ErrorKind::ConnectionAborted, error);
        let piece = ready!(self.poll_piece(context));
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
