//! One request on its way, and its answer as it comes in: what both HTTP clients have in common.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use url::Url;
use zeroize::Zeroizing;

use super::{Answer, Ask, BODY_CAP, Body, Error};

/// How much of an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Whole,
    Head,
}

/// A request that the egress rules let pass.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    body: Option<Body>,
    pub(super) repeatable: bool,
    reading: Reading,
    /// What errors call the other side.
    pub(super) host: String,
}

impl Call {
    pub(super) fn new(ask: Ask, url: Url, host: String, reading: Reading) -> Self {
        let Ask { method, headers, body, repeatable, .. } = ask;
        let mut fields = HeaderMap::with_capacity(headers.len() + 2);
        for (name, value) in headers {
            fields.append(name, value);
        }
        if let Some(body) = &body {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static(body.content_type));
        }
        Self { method, url, headers: fields, body, repeatable, reading, host }
    }

    /// The body, in a form that can be sent twice. It is cleared from memory when the last copy of the handle is dropped.
    pub(super) fn take_body(&mut self) -> Bytes {
        self.body.take().map_or_else(Bytes::new, |body| Bytes::from_owner(body.bytes))
    }
}

/// What has come of an answer.
pub(super) struct Collected {
    answer: Answer,
    reading: Reading,
}

impl Collected {
    /// Begins with the head. A redirect ends here.
    pub(super) fn new(call: &Call, status: StatusCode, headers: HeaderMap) -> Result<Self, Error> {
        let status = status.as_u16();
        tracing::debug!(host = %call.host, method = %call.method, status, "answered");
        if (300..400).contains(&status) {
            return Err(Error::Redirect { host: call.host.clone(), status });
        }
        let body = Zeroizing::new(Vec::with_capacity(4 * 1024));
        Ok(Self { answer: Answer { status, headers, body }, reading: call.reading })
    }

    /// Is the body to be read at all?
    pub(super) fn wants_more(&self) -> bool {
        self.reading == Reading::Whole
    }

    /// Adds a piece of the body.
    pub(super) fn add(&mut self, host: &str, piece: &[u8]) -> Result<(), Error> {
        if self.answer.body.len() + piece.len() > BODY_CAP {
            return Err(Error::TooLarge { host: host.to_owned() });
        }
        self.answer.body.extend_from_slice(piece);
        Ok(())
    }

    pub(super) fn answer(self) -> Answer {
        self.answer
    }
}
