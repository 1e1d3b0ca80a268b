//! One request on its way, and its answer as it comes in: what both HTTP clients have in common.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use url::Url;
use zeroize::Zeroizing;

use super::{Answer, Ask, BODY_CAP, Body, Error};

/// How much of an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The body of every answer. Unless the status is 2xx, the body is only somebody's words, so one that is too large or does
    /// not end counts as empty.
    Whole,
    /// The body of a 200 alone: for documents, where every other status says all.
    Document,
    /// No body.
    Head,
}

/// How long the words of an answer that is no success are waited for.
pub(super) const WORDS_LIMIT: Duration = Duration::from_secs(2);

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
        debug!(host = %call.host, method = %call.method, status, "answered");
        if (300..400).contains(&status) {
            return Err(Error::Redirect { host: call.host.clone(), status });
        }
        let body = Zeroizing::new(Vec::with_capacity(4 * 1024));
        Ok(Self { answer: Answer { status, headers, body }, reading: call.reading })
    }

    /// Is the body to be read at all?
    pub(super) fn wants_body(&self) -> bool {
        match self.reading {
            Reading::Whole => true,
            Reading::Document => self.answer.status == 200,
            Reading::Head => false,
        }
    }

    /// Does the status say all that decides, so that a body which cannot be read is no failure?
    pub(super) fn is_decided(&self) -> bool {
        !(200..300).contains(&self.answer.status)
    }

    /// The answer without its body.
    pub(super) fn without_body(mut self) -> Answer {
        self.answer.body = Zeroizing::default();
        self.answer
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
