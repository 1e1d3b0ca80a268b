//! The local API: a route table, its wire forms, and the one place where a class becomes a status.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, ready};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::form_urlencoded;

use super::body::Body;
use super::dialect::{self, Around, Form};
use super::gate::{self, Pass};
use crate::broker::{self, Action, Broker, Class, Head, Least, Matter, Proof, Target};
use crate::caller::{Caller, Digests};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oauth::{Scopes, ServerUrl};
use crate::token::{Digest, Token};

/// What every request is answered from.
pub(crate) struct State {
    /// The path, as the configuration says now.
    pub broker: Current,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
    /// The daemon's own user.
    pub uid: u32,
    /// Of callers' programs, for rules that name them.
    pub digests: Digests,
    /// Where it listens.
    pub listening: Listening,
}

/// The broker in use. A request keeps the one that it began with; the next one meets the newest.
pub(crate) struct Current(Mutex<Arc<Broker>>);

impl Current {
    pub(crate) fn new(broker: Broker) -> Self {
        Self(Mutex::new(Arc::new(broker)))
    }

    /// The newest.
    pub(crate) fn now(&self) -> Arc<Broker> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another in its place.
    pub(crate) fn replace(&self, broker: Broker) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(broker);
    }
}

/// Where the daemon listens, for status and log.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Listening {
    /// The Unix socket.
    pub socket: PathBuf,
    /// The API on loopback.
    pub http: Vec<SocketAddr>,
    /// Where the secret for that is written.
    pub http_secret: Option<PathBuf>,
    /// Health and metrics alone.
    pub health: Option<SocketAddr>,
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
const HEADERS: &[&str] =
    &["server", "scope", "min_ttl", "fresh", "use", "unlisted", "method", "url", "body_sha256", "dpop_nonce"];

/// A request body is a small JSON object.
const BODY_CAP: usize = 64 * 1024;
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// Answers one request of a caller that the kernel named, or that shows the listener's pass.
pub(crate) fn answer<'a>(
    state: &'a State,
    caller: &'a Caller,
    pass: &Pass,
    request: Request<Incoming>,
) -> impl Future<Output = Answer> + Send + use<'a> {
    // What is decided without waiting is decided here, so that what waits carries no more than it needs.
    match admitted(state, caller, pass, &request) {
        Ok(route) => {
            let (head, body) = request.into_parts();
            let answer = respond(state, caller, route, head.uri, body);
            Either::Left(answer.map(|outcome| outcome.unwrap_or_else(|error| failure(&error))))
        }
        Err(error) => Either::Right(ready(failure(&error))),
    }
}

/// The route of a request that passes the gate, and of a caller that shows what it must.
fn admitted(state: &State, caller: &Caller, pass: &Pass, request: &Request<Incoming>) -> Result<Route, Failure> {
    let is_shown = pass.is_shown(request.headers());
    // Without the pass nobody knows who asks, and no record may name the daemon's own user for it.
    let unproved = (!is_shown).then(Caller::unproved);
    let caller = unproved.as_ref().unwrap_or(caller);
    if let Err(refusal) = gate::admit(request.uri(), request.headers()) {
        let gate = Matter::new(Action::Gate, caller, None);
        state.broker.now().note_refusal(&gate, Class::Denied, refusal.code(), &refusal);
        return Err(Failure::new(Class::Denied, "access_denied", refusal.to_string()));
    }
    match route(request.method(), request.uri().path()) {
        // Readiness and metrics name servers; that we live is no secret.
        Ok(route) if !matches!(route, Route::Alive) && !is_shown => {
            let gate = Matter::new(Action::Gate, caller, None);
            state.broker.now().note_refusal(
                &gate,
                Class::Denied,
                "no_secret",
                &"the secret of this listener is not shown",
            );
            Err(Failure::no_pass(pass))
        }
        outcome => outcome,
    }
}

fn route(method: &Method, path: &str) -> Result<Route, Failure> {
    let at_path: Vec<_> = ROUTES.iter().filter(|(_, known, _)| *known == path).collect();
    match at_path.iter().find(|(allowed, _, _)| allowed == method) {
        Some((_, _, route)) => Ok(*route),
        None if at_path.is_empty() => Err(Failure::nothing_here()),
        None => Err(Failure::method()),
    }
}

/// What is seldom asked is in a box: the room for it would be copied with each request.
#[expect(clippy::too_many_lines, reason = "the route table; ends when routes are found by method and prefix")]
async fn respond(state: &State, caller: &Caller, route: Route, uri: Uri, body: Incoming) -> Result<Answer, Failure> {
    let query = uri.query().unwrap_or_default();
    match route {
        Route::Token => {
            let query = Query::read(query, &["server", "scope", "min_ttl", "fresh", "use", "unlisted"])?;
            let request = query.request(Action::Token)?;
            query.only_configured(state, caller, &request)?;
            let granted = state.broker.now().token(caller, &request).await?;
            let around = Form::of(&granted.token, state.clock.boot()).json();
            Ok(token_answer(granted.token, around))
        }
        Route::Headers => {
            let query = Query::read(query, HEADERS)?;
            let request = query.request(Action::Headers)?;
            query.only_configured(state, caller, &request)?;
            let head = query.head(state, caller, &request)?;
            let (granted, proof) = state.broker.now().headers(caller, &request, head.as_ref()).await?;
            if granted.outer.is_some() {
                return Ok(as_json(answer_of(StatusCode::OK, Body::secret(dialect::all_fields(&granted, proof)))));
            }
            let form = Form::of(&granted.token, state.clock.boot());
            let around = match proof {
                Proof::Signed { fields, expires_at } => {
                    let whole = dialect::listed_fields(&fields, &expires_at);
                    return Ok(as_json(answer_of(StatusCode::OK, Body::secret(whole))));
                }
                Proof::Dpop(proof) => form.listed_with_proof(&proof),
                Proof::None => form.listed_headers(),
            };
            Ok(token_answer(granted.token, around))
        }
        Route::Reject => {
            let wire: Rejected = Box::pin(read(body)).await?;
            let digest = Digest::parse(&wire.access_token_sha256)
                .ok_or_else(|| Failure::asked("access_token_sha256 is no SHA-256 in hexadecimal or base64url"))?;
            state.broker.now().reject(caller, &target(&wire.server)?, &digest)?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        Route::Revoke => {
            let wire: Named = Box::pin(read(body)).await?;
            let revoked = Box::pin(state.broker.now().revoke(caller, &target(&wire.server)?)).await?;
            Ok(json_answer(StatusCode::OK, json!({ "revoked": revoked }).to_string().as_bytes()))
        }
        Route::Status => {
            may_look(state, caller)?;
            let status = Whole { status: state.broker.now().explain(caller, state.uid), listen: &state.listening };
            let text = serde_json::to_vec(&status).map_err(|_| Failure::bug())?;
            Ok(json_answer(StatusCode::OK, &text))
        }
        Route::Alive => Ok(alive()),
        Route::Ready => {
            let query = Query::read(query, &["server"])?;
            let names = query.all("server");
            state.broker.now().keep_named(caller, state.uid, &names)?;
            Ok(readiness(&state.broker.now().not_ready(caller, state.uid, &names)))
        }
        Route::Metrics => {
            may_look(state, caller)?;
            metrics(state.metrics.text())
        }
    }
}

/// What `status` shows: the broker's part and the listeners.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    status: broker::Status,
    listen: &'a Listening,
}

pub(super) fn alive() -> Answer {
    json_answer(StatusCode::OK, b"{\"status\":\"alive\"}")
}

pub(super) fn readiness(reasons: &[String]) -> Answer {
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_answer(status, json!({ "ready": reasons.is_empty(), "reasons": reasons }).to_string().as_bytes())
}

pub(super) fn metrics(text: Result<String, std::fmt::Error>) -> Result<Answer, Failure> {
    let mut answer = plain(StatusCode::OK, text.map_err(|_| Failure::bug())?.as_bytes());
    let media = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, media);
    Ok(answer)
}

fn may_look(state: &State, caller: &Caller) -> Result<(), Failure> {
    if state.broker.now().may_look(caller, state.uid) {
        return Ok(());
    }
    let what = format!("{caller} is not allowed to use any server here");
    let look = Matter::new(Action::Look, caller, None);
    state.broker.now().note_refusal(&look, Class::Denied, "access_denied", &what);
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

    fn request(&self, action: Action) -> Result<broker::Request, Failure> {
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
        let (helper, may_be_a_retry) = (is_helper, action == Action::Headers && is_helper);
        Ok(broker::Request { target: target(server)?, scopes, least, fresh, action, helper, may_be_a_retry })
    }

    /// With `unlisted=0` a server that is not configured is none of ours, whatever the daemon serves besides: credential
    /// helpers are asked about every URL there is.
    fn only_configured(&self, state: &State, caller: &Caller, request: &broker::Request) -> Result<(), Failure> {
        match self.one("unlisted")? {
            None | Some("1") => Ok(()),
            Some("0") => state.broker.now().configured(&request.target).map(drop).map_err(|error| {
                state.broker.now().note_refusal(&Matter::of(caller, request), error.class(), error.code(), &error);
                Failure::from(error)
            }),
            Some(_) => Err(Failure::asked("`unlisted` is 0 or 1")),
        }
    }

    /// The request that the headers are for. Its URL must lie on or under the server's own: this is no signing oracle.
    fn head(&self, state: &State, caller: &Caller, request: &broker::Request) -> Result<Option<Head>, Failure> {
        let (url, method, nonce) = (self.one("url")?, self.one("method")?, self.one("dpop_nonce")?);
        let body_sha256 = self.one("body_sha256")?.map(|text| text.to_ascii_lowercase());
        if body_sha256.as_deref().is_some_and(|text| text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(Failure::asked("`body_sha256` is not the 64 hexadecimal digits of a SHA-256"));
        }
        let Some(url) = url else { return Ok(None) };
        let url = ServerUrl::parse(url).map_err(|why| Failure::asked(&format!("`url`: {why}")))?;
        if method.is_some_and(|method| Method::from_bytes(method.as_bytes()).is_err()) {
            return Err(Failure::asked("`method` is no HTTP method"));
        }
        if nonce.is_some_and(|nonce| !broker::is_nonce(nonce)) {
            return Err(Failure::asked("`dpop_nonce` is not the nonce of a server (RFC 9449 section 8.1)"));
        }
        // A server that is unknown is refused on the path.
        if state.broker.now().server_for(caller, &request.target).is_ok_and(|server| !server.url.covers(&url)) {
            // Who asks is not known to be allowed yet, so the server's URL is not told.
            let what = "`url` does not lie on or under the server's own";
            state.broker.now().note_refusal(&Matter::of(caller, request), Class::Denied, "access_denied", &what);
            return Err(Failure::new(Class::Denied, "access_denied", what.to_owned()));
        }
        let nonce = nonce.map(str::to_owned);
        Ok(method.map(|method| Head { method: method.to_owned(), url, nonce, body_sha256 }))
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

    /// There is no such path.
    pub(super) fn nothing_here() -> Self {
        let failure = Self::new(Class::BadRequest, "not_found", "there is nothing at this path".to_owned());
        Self { status: Some(StatusCode::NOT_FOUND), ..failure }
    }

    /// The path has another method.
    pub(super) fn method() -> Self {
        let failure = Self::new(Class::BadRequest, "method_not_allowed", "this path has another method".to_owned());
        Self { status: Some(StatusCode::METHOD_NOT_ALLOWED), ..failure }
    }

    /// Never 401: that would make a client register and open a browser.
    fn no_pass(pass: &Pass) -> Self {
        tracing::debug!("a request without the listener's secret");
        let what = "this listener wants its secret as `Authorization: Bearer`";
        let hint = match pass {
            Pass::Secret(secret) => {
                Some(format!("it is in {}, new at each start; the Unix socket needs none", secret.path().display()))
            }
            Pass::Kernel => None,
        };
        Self { hint, ..Self::new(Class::Denied, "access_denied", what.to_owned()) }
    }

    fn bug() -> Self {
        Self::new(Class::Internal, "server_error", "the answer could not be written".to_owned())
    }
}

impl From<gate::Refusal> for Failure {
    fn from(refusal: gate::Refusal) -> Self {
        Self::new(Class::Denied, "access_denied", refusal.to_string())
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

pub(super) fn failure(failure: &Failure) -> Answer {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::super::serve::{self, Limits};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn half_a_request_body_is_not_waited_for_for_ever() {
        let (ours, mut theirs) = duplex(64 * 1024);
        let place = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().expect("nobody else wants it");
        let answer = async |request: Request<Incoming>| match read::<Named>(request.into_body()).await {
            Ok(_) => alive(),
            Err(refusal) => failure(&refusal),
        };
        let served = serve::connection(Limits::API, Default::default(), ours, place, answer);
        let begun = tokio::time::Instant::now();
        let client = async move {
            let half = b"POST /v1/reject HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{";
            theirs.write_all(half).await.expect("there is room");
            let mut line = [0; 12];
            theirs.read_exact(&mut line).await.expect("an answer");
            assert_eq!(&line, b"HTTP/1.1 400");
            assert_eq!(begun.elapsed().as_secs(), BODY_LIMIT.as_secs());
        };
        tokio::join!(served, client);
    }
}
