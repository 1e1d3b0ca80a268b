//! The HTTP client for exchanges without an end: the bodies of request and answer pass as they come, in both directions.
//!
//! HTTP/1.1 over the connections of [`super::connector`], one connection for each exchange. Bodies and header fields are not
//! touched, no redirect is followed, and trailers are dropped. A head has at most 64 KiB and 100 fields, and at most eight
//! interim (1xx) answers come before it. There is a limit for the connection and one for the head, and none for a body: its
//! reader decides how long it waits.
//!
//! Nothing runs beside the exchange: the connection moves while its answer, or the body of its answer, is polled. So whoever
//! drops one of them closes the connection, and a reader that does not read stops the server that writes.
//!
//! After an answer was read to its end, its connection is kept for a few seconds for the next exchange with the same server, as
//! in `far.rs`. Before that one uses it, the connection is asked whether the server has closed it meanwhile. A failure says
//! whether any byte of the request was written ([`Sent`]), so that its sender can decide about a repetition.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tower_service::Service;
use url::{Position, Url};

use super::connector::Connector;
use super::far::{Interim, head_size};
use super::trust::Trust;
use super::wire::Wire;
use super::{CONNECT_LIMIT, Error, FIELDS, HEAD_CAP, NamedBy, Outbound, rules};
use crate::oauth::host_of;
use crate::token::Digest;

mod pool;

pub(super) use pool::Pool;
use pool::{Connection, Key};

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
        let (host, origin) = (host_of(&exchange.url).to_owned(), &exchange.url[..Position::AfterPort]);
        let (server, thread) = (Arc::clone(&exchange.server), std::thread::current().id());
        let key = Key { origin: origin.into(), server, certificate: exchange.certificate, thread };
        let limit = exchange.head_limit;
        let Ok(mut request) = request(exchange) else { return Err(Lost::unsent(Error::NotAUrl)) };
        let limit = (Instant::now() + limit, limit);
        // A server that has just closed one says so when it is asked, whatever the request.
        if self.trust.may_use_kept(&key.origin, true) {
            while let Some(connection) = self.pool.take(&key) {
                match self.over(connection, request, &host, limit).await {
                    Err((_, Some(back))) => request = back,
                    outcome => {
                        if outcome.is_err() {
                            self.trust.lose(key.origin.to_string());
                        }
                        return self.outcome(outcome, key);
                    }
                }
            }
        }
        let url = format!("{}/", key.origin);
        let connection = Box::pin(self.connect(&url, &host)).await.map_err(Lost::unsent)?;
        let outcome = self.over(connection, request, &host, limit).await;
        self.outcome(outcome, key)
    }

    fn outcome(&self, outcome: Outcome, key: Key) -> Result<Response<Download>, Lost> {
        let (answer, connection) = outcome.map_err(|(lost, _)| lost)?;
        self.trust.heard(&key.origin);
        let (head, body) = answer.into_parts();
        let home = Some((key, Arc::clone(&self.pool)));
        let mut body = Download { body, connection: Some(connection), home };
        body.give_back_at_end();
        Ok(Response::from_parts(head, body))
    }

    async fn connect(&self, url: &str, host: &str) -> Result<Connection, Error> {
        let uri = url.parse().map_err(|_| Error::NotAUrl)?;
        let stream = self.connector.clone().call(uri).await.map_err(|error| Error::from_hyper(host, &error))?;
        let record = stream.inner().record();
        let mut http = http1::Builder::new();
        http.max_buf_size(HEAD_CAP).max_headers(FIELDS);
        let (sender, driver) = http.handshake(stream).await.map_err(|error| Error::from_hyper(host, &error))?;
        Ok(Connection { sender, driver: Some(Box::pin(driver)), record })
    }

    /// One request over one connection, up to the head of the answer. If the connection cannot take the request, it comes back.
    async fn over(
        &self,
        mut connection: Connection,
        mut request: Request<Upload>,
        host: &str,
        (deadline, limit): (Instant, Duration),
    ) -> Outcome {
        let interim = Arc::new(Interim::default());
        let counted = Arc::clone(&interim);
        hyper::ext::on_informational(&mut request, move |_| counted.count());
        let before = connection.record.requests();
        let mut answer = Box::pin(connection.sender.try_send_request(request));
        let driven = std::future::poll_fn(|context| {
            connection.advance(context);
            answer.as_mut().poll(context)
        });
        let outcome = tokio::select! {
            // The count comes first: behind too many interim answers a final one does not matter.
            biased;
            () = interim.too_many.notified() => Err(Error::Interim { host: host.to_owned() }),
            outcome = driven => Ok(outcome),
            () = tokio::time::sleep_until(deadline) => Err(Error::Timeout { host: host.to_owned(), limit }),
        };
        drop(answer);
        let sent = if connection.record.requests() > before { Sent::Perhaps } else { Sent::Nothing };
        match outcome {
            Err(error) => Err((Lost { error, sent }, None)),
            Ok(Err(mut failed)) => {
                let back = failed.take_message();
                Err((Lost { error: Error::from_hyper(host, failed.error()), sent }, back))
            }
            // hyper's own limit is that of its buffer, which may hold a little more than it was told.
            Ok(Ok(answer)) if head_size(&answer) > HEAD_CAP => {
                Err((Lost { error: Error::HeadTooLarge { host: host.to_owned() }, sent }, None))
            }
            Ok(Ok(answer)) => Ok((answer, connection)),
        }
    }
}

/// An answer with its connection; or the failure, and the request if it was not taken.
type Outcome = Result<(Response<Incoming>, Connection), (Lost, Option<Request<Upload>>)>;

fn request(exchange: Exchange) -> Result<Request<Upload>, hyper::http::Error> {
    let Exchange { method, url, mut headers, body, .. } = exchange;
    headers.insert(HOST, HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort])?);
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::try_from(&url[Position::BeforePath..])?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The body of an answer, with its connection. Dropping it before its end closes the connection.
pub(crate) struct Download {
    body: Incoming,
    connection: Option<Connection>,
    /// Where the connection goes after the end.
    home: Option<(Key, Arc<Pool>)>,
}

impl Download {
    /// The connection goes back to its pool, if the body is at its end and the connection is good for another exchange.
    fn give_back_at_end(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if let Some((key, pool)) = self.home.take()
            && connection.is_reusable()
        {
            pool.keep(key, connection);
        }
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    if let Some(connection) = &mut self.connection {
                        connection.advance(context);
                    }
                    ready!(Pin::new(&mut self.body).poll_frame(context))
                }
            };
            match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => {
                    if let Some(connection) = &self.connection {
                        connection.record.passed();
                    }
                    return Poll::Ready(Some(Ok(data)));
                }
                // Trailers could hold what a header must not.
                Some(Err(_)) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        match ready!(self.poll_data(context)) {
            Some(Ok(data)) => {
                // Who knows the length does not ask for the end.
                self.give_back_at_end();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => {
                self.connection = None;
                Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::ConnectionAborted, error))))
            }
            None => {
                self.give_back();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
