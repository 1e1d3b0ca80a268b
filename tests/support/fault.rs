//! Transport faults for every fake, and the script that says when they happen.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Mutex;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Deserialize;

use super::listener::{Answer, Body};

/// A failure of the transport or of the server as a whole. What only one kind of server can get wrong is in its own enum. Cases
/// that are data name a fault as it is spelled here, in lower case and with hyphens.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// This status with a meaningless JSON body.
    Status(u16),
    /// This status and `Retry-After` in seconds.
    StatusWithRetryAfter(u16, u64),
    /// This status with an HTML page of 300 KiB.
    LargePage(u16),
    /// This status and the beginning of a stream that stays open.
    OpenStream(u16),
    /// Accepts the request and never answers.
    Stall,
    /// Head and half of the body, then silence.
    StallBody,
    /// Head and half of the body, then the connection closes.
    HalfBody,
    /// 302 to this URL.
    Redirect(String),
    /// 200 with an HTML page.
    Html,
    /// 200 with a JSON string that does not end before 64 MiB.
    HugeBody,
    /// A JSON string of one TiB: practically endless.
    Endless,
    /// The right body as `text/plain`.
    WrongContentType,
    /// `application/json` with a body that is not JSON.
    NotJson,
    /// The right body with bytes in front that are not UTF-8.
    NonUtf8,
    /// Closes the connection without an answer.
    Down,
}

impl Fault {
    /// Whether the faulty answer contains the right body, so that the request must be checked first.
    pub fn needs_body(&self) -> bool {
        matches!(self, Self::StallBody | Self::HalfBody | Self::WrongContentType | Self::NonUtf8)
    }

    /// The answer in place of 200 with `body`.
    pub async fn answer(&self, body: &str) -> Answer {
        let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
        let nonsense = r#"{"message":"this is a scripted failure"}"#;
        let answer = match self {
            Self::Status(status) => json(*status, nonsense),
            Self::StatusWithRetryAfter(status, seconds) => {
                let mut answer = json(*status, nonsense);
                answer.headers_mut().insert(RETRY_AFTER, (*seconds).into());
                answer
            }
            Self::LargePage(status) => text(*status, "text/html", "x".repeat(300 * 1024)),
            Self::OpenStream(status) => {
                let begun = Bytes::from_static(b": open\n\n");
                let mut answer = cut_off(1024 * 1024, begun, stream::pending());
                *answer.status_mut() = StatusCode::from_u16(*status).expect("a status");
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
                answer
            }
            Self::Stall => match std::future::pending::<Infallible>().await {},
            Self::StallBody => cut_off(body.len(), half, stream::pending()),
            Self::HalfBody => cut_off(body.len(), half, stream::iter([Err(closed())])),
            Self::Redirect(url) => {
                let mut answer = json(302, nonsense);
                answer.headers_mut().insert(LOCATION, url.parse().expect("a URL fits a header"));
                answer
            }
            Self::Html => text(200, "text/html", "<!doctype html><title>Please sign in</title><p>Please sign in."),
            Self::HugeBody => huge(1024),
            Self::Endless => {
                let mut answer = huge(usize::MAX);
                answer.headers_mut().insert(CONTENT_LENGTH, (1u64 << 40).into());
                answer
            }
            Self::WrongContentType => text(200, "text/plain", body.to_owned()),
            Self::NotJson => json(200, "{\"access_token\": certainly not"),
            Self::NonUtf8 => text(200, "application/json", [b"\xff\xfe\xc3\x28", body.as_bytes()].concat()),
            Self::Down => return Err(closed()),
        };
        Ok(answer)
    }
}

/// The answers to the next requests: first the script, then the permanent fault, then correct answers.
pub struct Script<F> {
    lines: Mutex<(VecDeque<F>, Option<F>)>,
}

impl<F: Clone> Script<F> {
    pub fn new() -> Self {
        Self { lines: Mutex::new((VecDeque::new(), None)) }
    }

    /// Each of the next requests gets one of these, in order.
    pub fn push(&self, faults: impl IntoIterator<Item: Into<F>>) {
        self.lock().0.extend(faults.into_iter().map(Into::into));
    }

    /// Every request after the script gets this one, until [`Script::clear`].
    pub fn always(&self, fault: impl Into<F>) {
        self.lock().1 = Some(fault.into());
    }

    pub fn clear(&self) {
        *self.lock() = (VecDeque::new(), None);
    }

    pub fn next(&self) -> Option<F> {
        let mut lines = self.lock();
        lines.0.pop_front().or_else(|| lines.1.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (VecDeque<F>, Option<F>)> {
        self.lines.lock().expect("no script panics while it is held")
    }
}

/// A JSON answer that nobody may store.
pub fn json(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    let mut answer = text(status, "application/json", body);
    answer.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    answer
}

pub fn text(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let answer = Response::builder().status(status).header(CONTENT_TYPE, content_type);
    answer.body(body).expect("a status and a content type make a head")
}

fn cut_off<S>(length: usize, half: Bytes, rest: S) -> Response<Body>
where
    S: futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static,
{
    use futures_util::StreamExt;
    let frames = stream::iter([Ok(Frame::data(half))]).chain(rest);
    let mut answer = streamed(frames);
    answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    answer
}

/// This many times 64 KiB.
fn huge(chunks: usize) -> Response<Body> {
    use futures_util::StreamExt;
    let start = stream::iter([Ok(Frame::data(Bytes::from_static(b"{\"value\":\"")))]);
    let chunk = Bytes::from(vec![b'A'; 64 * 1024]);
    let rest = std::iter::repeat_with(move || Ok(Frame::data(chunk.clone()))).take(chunks);
    streamed(start.chain(stream::iter(rest)))
}

fn streamed<S>(frames: S) -> Response<Body>
where
    S: futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static,
{
    let answer = Response::builder().header(CONTENT_TYPE, "application/json");
    answer.body(StreamBody::new(frames).boxed_unsync()).expect("a content type makes a head")
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "scripted: closed")
}
