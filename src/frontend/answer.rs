//! What a request can come to: an [`Answer`], or a [`Failure`] that is written in the dialect of its route.
//!
//! Neither can be sent as it is. Only `funnel.rs` makes a response of them, after a refusal was recorded.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ALLOW, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use safeconduct_listener::{Body, Violation};
use serde_json::json;
use zeroize::Zeroizing;

use super::body;
use super::dialect::Around;
use crate::broker::{self, Class};
use crate::oauth::words::one_line;
use crate::relay::{Refused, Streamed};
use crate::token::Token;

/// What a handler gives.
pub(super) type Outcome = Result<Answer, Failure>;

/// An answer that is no refusal.
pub(super) struct Answer {
    status: StatusCode,
    media: Option<HeaderValue>,
    body: Body,
    /// All fields of the answer, where they are not ours.
    fields: Option<Box<HeaderMap>>,
}

/// The media type of every document.
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const METRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

impl Answer {
    fn ok(media: HeaderValue, body: Body) -> Self {
        Self { status: StatusCode::OK, media: Some(media), body, fields: None }
    }

    /// A JSON document without a secret.
    pub(super) fn json(document: &[u8]) -> Self {
        Self::ok(JSON, body::plain(document))
    }

    /// A JSON document that holds a secret. It is cleared from memory when it is sent.
    pub(super) fn secret(document: Zeroizing<String>) -> Self {
        Self::ok(JSON, body::secret(document))
    }

    /// A JSON document with a token in it.
    pub(super) fn token(token: &Token, around: Around<Bytes>) -> Self {
        Self::ok(JSON, body::around(token, around))
    }

    /// Status 204.
    pub(super) fn empty() -> Self {
        Self { status: StatusCode::NO_CONTENT, media: None, body: body::plain(b""), fields: None }
    }

    /// The answer of `/healthz`.
    pub(super) fn alive() -> Self {
        Self::json(b"{\"status\":\"alive\"}")
    }

    /// The answer of `/readyz` where there is a reason not to be ready.
    pub(super) fn unready(document: &[u8]) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, ..Self::json(document) }
    }

    /// The answer of `/metrics`.
    pub(super) fn metrics(text: &str) -> Self {
        Self::ok(METRICS, body::plain(text.as_bytes()))
    }

    /// The answer of an MCP server, which streams.
    pub(super) fn relayed(answer: Response<Streamed>) -> Self {
        let (head, body) = answer.into_parts();
        let fields = Some(Box::new(head.headers));
        Self { status: head.status, media: None, body: Body::streamed(body), fields }
    }

    /// For the funnel alone. The map of the request's fields is used again for those of the answer.
    pub(super) fn into_response(self, of_request: HeaderMap) -> Response<Body> {
        if let Some(fields) = self.fields {
            let mut response = Response::new(self.body);
            *response.status_mut() = self.status;
            *response.headers_mut() = *fields;
            return response;
        }
        safeconduct_listener::answer(self.status, of_request, self.media, self.body)
    }
}

/// How the errors of a route are written. A further dialect is a variant here, a function beside `oauth`, and a word in the
/// route's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `error` and `error_description`, as RFC 6749 section 5.2 has them, with `class`, `hint` and `server` beside them.
    Oauth,
    /// `error`, `error_description` and the status of RFC 6749 section 5.2, and nothing beside them.
    TokenEndpoint,
    /// A JSON-RPC error, which MCP clients show.
    JsonRpc,
}

/// Why a request is refused: its class, a stable code, the words and the cure. Boxed, because it is large and rare.
pub(super) struct Failure(Box<Refusal>);

struct Refusal {
    class: Class,
    /// Where the class's own status does not fit.
    status: Option<StatusCode>,
    code: String,
    words: String,
    hint: Option<String>,
    /// What was presented, for the daemon's own user alone.
    shown: Option<String>,
    server: Option<String>,
    retry_in: Option<Duration>,
    allow: Option<String>,
    record: Record,
    is_final: bool,
    /// What the data path says, if it refuses.
    relay: Option<Box<Refused>>,
}

/// What the audit says of a refusal.
pub(super) enum Record {
    /// The broker has written its line.
    Written,
    /// A line is due, with the code and the words of the answer.
    Due,
    /// A line is due, with a code and words of its own.
    As(&'static str, &'static str),
    /// A line is due, about this request for a token.
    About(Box<broker::Request>),
}

impl Failure {
    pub(super) fn new(class: Class, code: &str, words: String) -> Self {
        let words = one_line(&words).into_owned();
        let (code, record) = (one_line(code).into_owned(), Record::Due);
        let (status, hint, shown, server, retry_in, allow) = (None, None, None, None, None, None);
        let (is_final, relay) = (false, None);
        let refusal =
            Refusal { class, status, code, words, hint, shown, server, retry_in, allow, record, is_final, relay };
        Self(Box::new(refusal))
    }

    fn with(mut self, change: impl FnOnce(&mut Refusal)) -> Self {
        change(&mut self.0);
        self
    }

    /// The request is malformed.
    pub(super) fn asked(what: &str) -> Self {
        Self::new(Class::BadRequest, "invalid_request", what.to_owned())
    }

    /// The request cannot be told from what follows it.
    pub(super) fn malformed(violation: Violation) -> Self {
        Self::asked(violation.words()).recorded_as("malformed_request", violation.words()).with(|refusal| {
            let is_large = violation == Violation::TooLarge;
            refusal.is_final = true;
            refusal.status = is_large.then_some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        })
    }

    /// At the token endpoint: the client has not proved itself. Its status is 401, which the endpoint's clients expect.
    pub(super) fn bad_client(what: &str) -> Self {
        Self::new(Class::Denied, "invalid_client", what.to_owned())
            .with(|refusal| refusal.status = Some(StatusCode::UNAUTHORIZED))
    }

    /// At the token endpoint: there is no such grant.
    pub(super) fn bad_grant(what: &str) -> Self {
        Self::new(Class::BadRequest, "unsupported_grant_type", what.to_owned())
    }

    /// At the token endpoint: the scopes are malformed or too many.
    pub(super) fn bad_scope(what: &str) -> Self {
        Self::new(Class::BadRequest, "invalid_scope", what.to_owned())
    }

    /// At the token endpoint: the client is not for this resource.
    pub(super) fn bad_target(what: &str) -> Self {
        Self::new(Class::BadRequest, "invalid_target", what.to_owned())
    }

    /// The caller may not do this.
    pub(super) fn denied(what: String) -> Self {
        Self::new(Class::Denied, "access_denied", what)
    }

    /// There is no such path.
    pub(super) fn not_found() -> Self {
        Self::new(Class::BadRequest, "not_found", "there is nothing at this path".to_owned())
            .with(|refusal| refusal.status = Some(StatusCode::NOT_FOUND))
    }

    /// The path has no such method, but those of `allow`.
    pub(super) fn method_not_allowed(allow: String) -> Self {
        Self::new(Class::BadRequest, "method_not_allowed", "method not allowed".to_owned()).with(|refusal| {
            refusal.status = Some(StatusCode::METHOD_NOT_ALLOWED);
            refusal.allow = Some(allow);
        })
    }

    /// The daemon ends before the outcome is there.
    pub(super) fn ending() -> Self {
        let words = "the daemon ends before the answer is there".to_owned();
        let failure = Self::new(Class::Temporary, "temporarily_unavailable", words);
        failure.recorded_as("ending", "the daemon ended before the answer was there").ends_connection()
    }

    /// Our bug.
    pub(super) fn bug() -> Self {
        Self::new(Class::Internal, "server_error", "the answer could not be written".to_owned())
    }

    /// With a cure.
    pub(super) fn hint(self, hint: Option<String>) -> Self {
        self.with(|refusal| refusal.hint = hint.map(|hint| one_line(&hint).into_owned()))
    }

    /// The audit has its own code and words for it.
    pub(super) fn recorded_as(self, code: &'static str, words: &'static str) -> Self {
        self.with(|refusal| refusal.record = Record::As(code, words))
    }

    /// What was asked for is known, so the audit names it. A line that is written already stays the only one.
    pub(super) fn about(self, request: &broker::Request) -> Self {
        self.with(|refusal| {
            if matches!(refusal.record, Record::Due) {
                refusal.record = Record::About(Box::new(request.clone()));
            }
        })
    }

    /// The connection ends with it: who sends such a request must not be on it at all.
    pub(super) fn ends_connection(self) -> Self {
        self.with(|refusal| refusal.is_final = true)
    }

    pub(super) fn is_final(&self) -> bool {
        self.0.is_final
    }

    pub(super) fn class(&self) -> Class {
        self.0.class
    }

    pub(super) fn code(&self) -> &str {
        &self.0.code
    }

    pub(super) fn words(&self) -> &str {
        &self.0.words
    }

    pub(super) fn record(&self) -> &Record {
        &self.0.record
    }

    /// What the data path calls the request. Its error says so too.
    pub(super) fn request_id(&mut self, dialect: Dialect) -> Option<&str> {
        if dialect != Dialect::JsonRpc {
            return None;
        }
        let Refusal { class, code, words, relay, .. } = &mut *self.0;
        let refused = relay.get_or_insert_with(|| Box::new(Refused::at_the_door(*class, code, words)));
        Some(&refused.request_id)
    }

    /// For the funnel alone: the response, in the dialect of its route, to the daemon's own user or to somebody else.
    pub(super) fn into_response(self, dialect: Dialect, of_request: HeaderMap, is_own: bool) -> Response<Body> {
        match dialect {
            Dialect::Oauth => self.0.oauth(of_request, is_own),
            Dialect::TokenEndpoint => self.0.token_endpoint(of_request),
            Dialect::JsonRpc => self.0.json_rpc(of_request),
        }
    }
}

impl From<broker::Error> for Failure {
    fn from(error: broker::Error) -> Self {
        Self::new(error.class(), error.code(), error.to_string()).hint(error.hint()).with(|refusal| {
            refusal.server = error.server().map(str::to_owned);
            refusal.shown = error.presented().map(|shown| one_line(shown).into_owned());
            refusal.retry_in = error.retry_in();
            refusal.record = if error.is_noted() { Record::Written } else { Record::Due };
        })
    }
}

impl From<Box<Refused>> for Failure {
    fn from(refused: Box<Refused>) -> Self {
        Self::new(refused.class, &refused.code, refused.message.clone()).with(|refusal| {
            refusal.status = StatusCode::from_u16(refused.status).ok();
            refusal.allow = refused.allow.map(str::to_owned);
            refusal.is_final = refused.ends_connection;
            if refused.is_recorded {
                refusal.record = Record::Written;
            }
            refusal.relay = Some(refused);
        })
    }
}

impl Refusal {
    fn json_rpc(mut self, of_request: HeaderMap) -> Response<Body> {
        let status = self.status.or_else(|| StatusCode::from_u16(self.class.status()).ok());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let refused =
            self.relay.take().unwrap_or_else(|| Box::new(Refused::at_the_door(self.class, &self.code, &self.words)));
        let (document, request_id) = (refused.to_json(), &refused.request_id);
        tracing::info!(request_id, class = self.class.as_str(), error = %self.code, "told a client of /mcp");
        if status == StatusCode::ACCEPTED {
            return Answer { status, ..Answer::empty() }.into_response(of_request);
        }
        let mut response = Answer { status, ..Answer::json(&document) }.into_response(of_request);
        self.allow(response.headers_mut());
        if let Some(seconds) = refused.retry_after.filter(|_| status == StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The status and the code of RFC 6749 section 5.2 and RFC 8707 section 2. What the issuer says of our own client is not said
    /// of the caller's.
    fn of_token_endpoint(&self) -> (StatusCode, &str) {
        match (self.class, &*self.code) {
            _ if self.status == Some(StatusCode::UNAUTHORIZED) => (StatusCode::UNAUTHORIZED, &self.code),
            (Class::Temporary | Class::Internal, _) => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
            (_, code @ ("invalid_scope" | "invalid_target")) => (StatusCode::BAD_REQUEST, code),
            (Class::BadRequest, code) => (self.status.unwrap_or(StatusCode::BAD_REQUEST), code),
            (Class::Denied | Class::Refused | Class::Config | Class::NoIdentity, _) => {
                (StatusCode::BAD_REQUEST, "unauthorized_client")
            }
        }
    }

    fn token_endpoint(&self, of_request: HeaderMap) -> Response<Body> {
        let (status, code) = self.of_token_endpoint();
        let words = match &self.hint {
            Some(hint) => format!("{}: {hint}", self.words),
            None => self.words.clone(),
        };
        // RFC 6749 section 5.2 has neither quotation marks nor what is not ASCII in it.
        let words: String =
            words.chars().map(|c| if matches!(c, ' '..='~') && c != '"' && c != '\\' { c } else { '\'' }).collect();
        let document = json!({ "error": code, "error_description": words }).to_string();
        let mut response = Answer { status, ..Answer::json(document.as_bytes()) }.into_response(of_request);
        let fields = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            fields.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"safeconduct\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            fields.insert(RETRY_AFTER, self.retry_after());
        }
        self.allow(fields);
        response
    }

    fn retry_after(&self) -> HeaderValue {
        let seconds = self.retry_in.unwrap_or_default().as_millis().div_ceil(1_000).max(1);
        HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX))
    }

    fn allow(&self, fields: &mut HeaderMap) {
        if let Some(allow) = self.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
            fields.insert(ALLOW, allow);
        }
    }

    fn oauth(&self, of_request: HeaderMap, is_own: bool) -> Response<Body> {
        let status = self.status.or_else(|| StatusCode::from_u16(self.class.status()).ok());
        let mut document = json!({ "error": self.code, "error_description": self.words, "class": self.class.as_str() });
        let shown = self.shown.as_ref().filter(|_| is_own);
        for (name, value) in [("hint", self.hint.as_ref()), ("presented", shown), ("server", self.server.as_ref())] {
            if let Some(value) = value {
                document[name] = json!(value);
            }
        }
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let document = Answer { status, ..Answer::json(document.to_string().as_bytes()) };
        let mut response = document.into_response(of_request);
        let fields = response.headers_mut();
        if self.class == Class::Temporary {
            fields.insert(RETRY_AFTER, self.retry_after());
        }
        self.allow(fields);
        response
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Body as _;

    use super::*;

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let response =
            Failure::method_not_allowed("GET, POST".to_owned()).into_response(Dialect::Oauth, HeaderMap::new(), true);
        assert_eq!(
            (response.status(), &response.headers()[ALLOW]),
            (StatusCode::METHOD_NOT_ALLOWED, &"GET, POST".parse().unwrap())
        );
    }

    #[test]
    fn what_was_presented_is_told_to_the_daemons_own_user_alone() {
        let length = |is_own| {
            let failure = Failure::new(Class::Refused, "x", "x".to_owned());
            let failure = failure.with(|refusal| refusal.shown = Some("iss, sub".to_owned()));
            failure.into_response(Dialect::Oauth, HeaderMap::new(), is_own).body().size_hint().exact()
        };
        assert!(length(true) > length(false));
    }

    #[test]
    fn only_what_passes_by_itself_says_when_to_ask_again() {
        let of = |class, wait: Option<Duration>| {
            let failure = Failure::new(class, "x", "x".to_owned()).with(|refusal| refusal.retry_in = wait);
            let response = failure.into_response(Dialect::Oauth, HeaderMap::new(), true);
            let after = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
            (response.status().as_u16(), after)
        };
        assert_eq!(of(Class::Temporary, Some(Duration::from_millis(1_001))), (503, Some("2".to_owned())));
        assert_eq!(of(Class::Temporary, None), (503, Some("1".to_owned())));
        assert_eq!(of(Class::Denied, None), (403, None));
    }
}
