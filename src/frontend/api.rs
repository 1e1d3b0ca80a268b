//! The local API: a route table, its wire forms, and the one place where a class becomes a status.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use url::form_urlencoded;

use super::body::Body;
use super::dialect::{Around, Form};
use super::gate;
use crate::broker::{self, Broker, Class, Head, Least, Target, Wants};
use crate::caller::{Caller, Digests};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oauth::{Scopes, ServerUrl};
use crate::token::{Digest, Token};

/// What every request is answered from.
pub(crate) struct State {
    /// The path.
    pub broker: Broker,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
    /// The daemon's own user.
    pub uid: u32,
    /// Of callers' programs, for rules that name them.
    pub digests: Digests,
}

/// An answer: always small, always whole.
pub(crate) type Answer = Response<Body>;

#[derive(Clone, Copy)]
enum Route {
    Token,
    Headers,
    Reject,
    Revoke,
    Status,
    Alive,
    Ready,
    Metrics,
}

const ROUTES: &[(Method, &str, Route)] = &[
    (Method::GET, "/v1/token", Route::Token),
    (Method::GET, "/v1/headers", Route::Headers),
    (Method::POST, "/v1/reject", Route::Reject),
    (Method::POST, "/v1/revoke", Route::Revoke),
    (Method::GET, "/v1/status", Route::Status),
    (Method::GET, "/healthz", Route::Alive),
    (Method::GET, "/readyz", Route::Ready),
    (Method::GET, "/metrics", Route::Metrics),
];

/// What `/v1/headers` knows.
const HEADERS: &[&str] = &["server", "scope", "min_ttl", "fresh", "use", "method", "url", "body_sha256", "dpop_nonce"];

/// A request body is a small JSON object.
const BODY_CAP: usize = 64 * 1024;
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// Answers one request of a caller that the kernel named.
pub(crate) async fn answer(state: &State, caller: &Caller, request: Request<Incoming>) -> Answer {
    if let Err(refusal) = gate::admit(request.uri(), request.headers()) {
        return failure(&Failure::new(Class::Denied, "access_denied", refusal.to_string()));
    }
    let (head, body) = request.into_parts();
    let outcome = match route(&head.method, head.uri.path()) {
        Ok(route) => respond(state, caller, route, head.uri.query().unwrap_or_default(), body).await,
        Err(unknown) => Err(unknown),
    };
    outcome.unwrap_or_else(|error| failure(&error))
}

fn route(method: &Method, path: &str) -> Result<Route, Failure> {
    let at_path: Vec<_> = ROUTES.iter().filter(|(_, known, _)| *known == path).collect();
    match at_path.iter().find(|(allowed, _, _)| allowed == method) {
        Some((_, _, route)) => Ok(*route),
        None if at_path.is_empty() => Err(Failure {
            status: Some(StatusCode::NOT_FOUND),
            ..Failure::new(Class::BadRequest, "not_found", "there is nothing at this path".to_owned())
        }),
        None => Err(Failure {
            status: Some(StatusCode::METHOD_NOT_ALLOWED),
            ..Failure::new(Class::BadRequest, "method_not_allowed", "this path has another method".to_owned())
        }),
    }
}

async fn respond(state: &State, caller: &Caller, route: Route, query: &str, body: Incoming) -> Result<Answer, Failure> {
    match route {
        Route::Token => {
            let query = Query::read(query, &["server", "scope", "min_ttl", "fresh", "use"])?;
            let granted = state.broker.token(caller, &query.request(Wants::Token)?).await?;
            let around = Form::of(&granted.token, state.clock.boot()).json();
            Ok(token_answer(granted.token, around))
        }
        Route::Headers => {
            let query = Query::read(query, HEADERS)?;
            let request = query.request(Wants::Headers)?;
            let head = query.head(state, &request.target)?;
            let granted = state.broker.token(caller, &request).await?;
            let form = Form::of(&granted.token, state.clock.boot());
            let around = match state.broker.proof(&granted, head.as_ref())? {
                Some(proof) => form.listed_with_proof(&proof),
                None => form.listed_headers(),
            };
            Ok(token_answer(granted.token, around))
        }
        Route::Reject => {
            let wire: Rejected = read(body).await?;
            let digest = Digest::parse(&wire.access_token_sha256)
                .ok_or_else(|| Failure::asked("access_token_sha256 is no SHA-256 in hexadecimal or base64url"))?;
            state.broker.reject(caller, &target(&wire.server)?, &digest)?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        Route::Revoke => {
            let wire: Named = read(body).await?;
            let revoked = state.broker.revoke(caller, &target(&wire.server)?).await?;
            Ok(json_answer(StatusCode::OK, json!({ "revoked": revoked }).to_string().as_bytes()))
        }
        Route::Status => {
            may_look(state, caller)?;
            let status = state.broker.explain(caller, state.uid);
            let text = serde_json::to_vec(&status).map_err(|_| Failure::bug())?;
            Ok(json_answer(StatusCode::OK, &text))
        }
        Route::Alive => Ok(json_answer(StatusCode::OK, b"{\"status\":\"alive\"}")),
        Route::Ready => {
            let query = Query::read(query, &["server"])?;
            let names = query.all("server");
            state.broker.keep_named(caller, state.uid, &names)?;
            let reasons = state.broker.not_ready(caller, state.uid, &names);
            let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            Ok(json_answer(status, json!({ "ready": reasons.is_empty(), "reasons": reasons }).to_string().as_bytes()))
        }
        Route::Metrics => {
            may_look(state, caller)?;
            let text = state.metrics.text().map_err(|_| Failure::bug())?;
            let mut answer = plain(StatusCode::OK, text.as_bytes());
            let media = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            answer.headers_mut().insert(CONTENT_TYPE, media);
            Ok(answer)
        }
    }
}

fn may_look(state: &State, caller: &Caller) -> Result<(), Failure> {
    if state.broker.may_look(caller, state.uid) {
        return Ok(());
    }
    let what = format!("{caller} is not allowed to use any server here");
    Err(Failure::new(Class::Denied, "access_denied", what))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rejected {
    server: String,
    access_token_sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    server: String,
}

async fn read<T: serde::de::DeserializeOwned>(body: Incoming) -> Result<T, Failure> {
    let whole = tokio::time::timeout(BODY_LIMIT, Limited::new(body, BODY_CAP).collect()).await;
    let bytes = match whole {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(_)) => return Err(Failure::asked("the body is larger than 64 KiB or broken off")),
        Err(_) => return Err(Failure::asked("the body did not come within 10 s")),
    };
    serde_json::from_slice(&bytes).map_err(|_| Failure::asked("the body is not the JSON object that this path wants"))
}

/// The query, each parameter known.
struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    fn read(text: &'a str, known: &[&str]) -> Result<Self, Failure> {
        let pairs: Vec<_> = form_urlencoded::parse(text.as_bytes()).collect();
        match pairs.iter().find(|(name, _)| !known.contains(&&**name)) {
            Some(_) => Err(Failure::asked(&format!("unknown parameter; this path knows: {}", known.join(", ")))),
            None => Ok(Self(pairs)),
        }
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.to_string()).collect()
    }

    fn one(&self, name: &str) -> Result<Option<&str>, Failure> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| &**value);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Failure::asked(&format!("{name} is given twice"))),
            (value, None) => Ok(value),
        }
    }

    fn request(&self, wants: Wants) -> Result<broker::Request, Failure> {
        let server =
            self.one("server")?.ok_or_else(|| Failure::asked("`server` is missing: a configured name or URL"))?;
        let scopes = self.all("scope");
        let scopes = if scopes.is_empty() {
            None
        } else {
            Some(Scopes::parse(&scopes.join(" ")).map_err(|why| Failure::asked(&why.to_string()))?)
        };
        let is_helper = match self.one("use")? {
            None => false,
            Some("helper") => true,
            Some(_) => return Err(Failure::asked("`use` can only be `helper`")),
        };
        let least = match self.one("min_ttl")? {
            None if is_helper => Least::ForHelper,
            None => Least::Of(Duration::ZERO),
            Some(seconds) => Least::Of(Duration::from_secs(
                seconds.parse().map_err(|_| Failure::asked("`min_ttl` is a number of seconds"))?,
            )),
        };
        let fresh = match self.one("fresh")? {
            None | Some("0") => false,
            Some("1") => true,
            Some(_) => return Err(Failure::asked("`fresh` is 0 or 1")),
        };
        let may_be_a_retry = wants == Wants::Headers && is_helper;
        Ok(broker::Request { target: target(server)?, scopes, least, fresh, may_be_a_retry, wants })
    }

    /// The request that the headers are for. Its URL must lie on or under the server's own: this is no signing oracle.
    fn head(&self, state: &State, target: &Target) -> Result<Option<Head>, Failure> {
        let (url, method, nonce) = (self.one("url")?, self.one("method")?, self.one("dpop_nonce")?);
        let Some(url) = url else { return Ok(None) };
        let url = ServerUrl::parse(url).map_err(|why| Failure::asked(&format!("`url`: {why}")))?;
        if method.is_some_and(|method| Method::from_bytes(method.as_bytes()).is_err()) {
            return Err(Failure::asked("`method` is no HTTP method"));
        }
        if nonce.is_some_and(|nonce| !broker::is_nonce(nonce)) {
            return Err(Failure::asked("`dpop_nonce` is not the nonce of a server (RFC 9449 section 8.1)"));
        }
        if state.broker.server(target)?.url.covers(&url) {
            let nonce = nonce.map(str::to_owned);
            return Ok(method.map(|method| Head { method: method.to_owned(), url, nonce }));
        }
        // Who asks is not known to be allowed yet, so the server's URL is not told.
        Err(Failure::new(Class::Denied, "access_denied", "`url` does not lie on or under the server's own".to_owned()))
    }
}

/// A configured name, or a URL.
pub(crate) fn target(text: &str) -> Result<Target, Failure> {
    if !text.contains("://") {
        return Ok(Target::Name(text.to_owned()));
    }
    ServerUrl::parse(text).map(Target::Url).map_err(|why| Failure::asked(&format!("`server`: {why}")))
}

/// A failure in OAuth's shape.
pub(crate) struct Failure {
    class: Class,
    status: Option<StatusCode>,
    code: String,
    description: String,
    hint: Option<String>,
    server: Option<String>,
    retry_in: Option<Duration>,
}

impl Failure {
    fn new(class: Class, code: &str, description: String) -> Self {
        Self { class, status: None, code: code.to_owned(), description, hint: None, server: None, retry_in: None }
    }

    fn asked(what: &str) -> Self {
        Self::new(Class::BadRequest, "invalid_request", what.to_owned())
    }

    fn bug() -> Self {
        Self::new(Class::Internal, "server_error", "the answer could not be written".to_owned())
    }
}

impl From<broker::Error> for Failure {
    fn from(error: broker::Error) -> Self {
        Self {
            class: error.class(),
            status: None,
            code: error.code().to_owned(),
            description: error.to_string(),
            hint: error.hint(),
            server: error.server().map(str::to_owned),
            retry_in: error.retry_in(),
        }
    }
}

fn failure(failure: &Failure) -> Answer {
    let status = failure
        .status
        .or_else(|| StatusCode::from_u16(failure.class.status()).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body =
        json!({ "error": failure.code, "error_description": failure.description, "class": failure.class.as_str() });
    if let Some(hint) = &failure.hint {
        body["hint"] = json!(hint);
    }
    if let Some(server) = &failure.server {
        body["server"] = json!(server);
    }
    let mut answer = json_answer(status, body.to_string().as_bytes());
    if failure.class == Class::Temporary {
        let seconds = failure.retry_in.unwrap_or_default().as_millis().div_ceil(1_000).max(1);
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_str(&seconds.to_string()).unwrap_or(HeaderValue::from_static("1")));
    }
    answer
}

fn json_answer(status: StatusCode, body: &[u8]) -> Answer {
    as_json(plain(status, body))
}

fn as_json(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn token_answer(token: Arc<Token>, around: Around) -> Answer {
    as_json(answer_of(StatusCode::OK, Body::around(token, around)))
}

fn empty(status: StatusCode) -> Answer {
    plain(status, b"")
}

fn plain(status: StatusCode, body: &[u8]) -> Answer {
    answer_of(status, Body::plain(body))
}

fn answer_of(status: StatusCode, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
