//! `FakeMcp`: a real MCP server (rmcp, both protocol versions) behind a complete bearer check.
//!
//! The check requires a signature of the authorization server's key, its `iss`, an `aud` of only this resource, an `exp` ahead
//! without leeway and the required scope; else 401 or 403 with a challenge (RFC 6750, RFC 9728). The check is in `bearer.rs`,
//! the tools are in `tools.rs`, the settings and counters for tests in `knobs.rs`.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::authorization_server::FakeAs;
use super::fault::{self, Fault, Script};
use super::keys;
use super::leak;
use super::listener::{Answer, Bound, Listener};
use super::platform::Trust;
use tools::{Tools, Waits};

mod bearer;
mod knobs;
mod tools;

/// The path of the MCP endpoint.
pub const PATH: &str = "/mcp";

/// The path-inserted path of the metadata (RFC 9728 section 3.1).
pub const INSERTED: &str = "/.well-known/oauth-protected-resource/mcp";
const ROOT: &str = "/.well-known/oauth-protected-resource";

/// Where clients find the metadata; by default the challenge names the path-inserted path.
#[derive(Clone, Debug)]
pub struct Signposts {
    /// The path in `resource_metadata` of the challenge, which is served; `None`: no such parameter.
    pub header: Option<String>,
    /// `/.well-known/oauth-protected-resource/mcp`
    pub inserted: bool,
    /// `/.well-known/oauth-protected-resource`
    pub root: bool,
}

/// A mistake of the bearer check: it accepts this although it must not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lenience {
    /// A token after its `exp`.
    pub expired: bool,
    /// A token for another resource.
    pub any_audience: bool,
    /// A request without a token.
    pub nothing: bool,
    /// A token with a wrong signature.
    pub bad_signature: bool,
    /// A token in the query, checked like one in the header.
    pub query: bool,
}

/// One request at the MCP endpoint. The value of `authorization` is replaced by `<scheme> <digest>`.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    /// 200 and similar: the MCP server's own answer; 401 and 403: the bearer check's; 0: a scripted fault.
    pub status: u16,
}

pub struct FakeMcp {
    state: Arc<State>,
    listener: Listener,
}

type Service = StreamableHttpService<Tools, LocalSessionManager>;

struct State {
    base: String,
    service: Mutex<Arc<Service>>,
    trust: Trust,
    script: Script<Fault>,
    metadata_script: Script<Fault>,
    waits: Arc<Waits>,
    now: Mutex<Now>,
}

/// The state that tests and requests change.
struct Now {
    issuer: String,
    signposts: Signposts,
    metadata: Value,
    required_scope: Option<String>,
    /// Requires bound tokens with a proof, and this nonce in the proof, if any.
    possession: Option<Option<String>>,
    spent: std::collections::HashSet<String>,
    challenge_scope: Option<String>,
    challenges: Option<Vec<String>>,
    refuse: usize,
    lenience: Lenience,
    answer_headers: Vec<(String, String)>,
    seen: Vec<Seen>,
    /// Documents at further paths, whatever the signposts say.
    documents: Vec<(String, Value)>,
    metadata_paths: Vec<String>,
    /// The front door: the header field with its token, and its check of the token.
    door: Option<(String, Arc<Door>)>,
    turned_away: usize,
}

type Door = dyn Fn(&str) -> bool + Send + Sync;

impl FakeMcp {
    /// Trusts this authorization server, is registered there with these scopes, and lists them in its metadata.
    pub async fn start(authorization_server: &FakeAs, scopes: &[&str]) -> Self {
        Self::serve(Bound::new(None).await, authorization_server, scopes)
    }

    pub async fn start_tls(authorization_server: &FakeAs, scopes: &[&str], tls: TlsAcceptor) -> Self {
        Self::serve(Bound::new(Some(tls)).await, authorization_server, scopes)
    }

    /// Serves on a port that is already bound.
    pub fn start_on(bound: Bound, authorization_server: &FakeAs, scopes: &[&str]) -> Self {
        Self::serve(bound, authorization_server, scopes)
    }

    fn serve(bound: Bound, authorization_server: &FakeAs, scopes: &[&str]) -> Self {
        let base = bound.base().to_owned();
        authorization_server.register(&format!("{base}{PATH}"), scopes);
        let waits = Arc::new(Waits::default());
        let service = Mutex::new(Arc::new(service(&waits)));
        let trust = authorization_server.trust();
        let now = Mutex::new(Now::new(&trust.issuer, scopes));
        let script = Script::new();
        let metadata_script = Script::new();
        let state = Arc::new(State { base, service, trust, script, metadata_script, waits, now });
        let shared = Arc::clone(&state);
        let listener = bound.serve(move |request| answer(Arc::clone(&shared), request));
        Self { state, listener }
    }

    /// The URL of the MCP endpoint, which is the resource identifier.
    pub fn url(&self) -> String {
        self.state.resource()
    }

    pub fn base(&self) -> &str {
        &self.state.base
    }
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Now {
    fn new(issuer: &str, scopes: &[&str]) -> Self {
        Self {
            issuer: issuer.to_owned(),
            signposts: Signposts { header: Some(INSERTED.to_owned()), inserted: true, root: false },
            metadata: json!({"authorization_servers": [issuer], "scopes_supported": scopes, "bearer_methods_supported": ["header"]}),
            required_scope: None,
            possession: None,
            spent: std::collections::HashSet::new(),
            challenge_scope: None,
            challenges: None,
            refuse: 0,
            lenience: Lenience::default(),
            answer_headers: Vec::new(),
            seen: Vec::new(),
            documents: Vec::new(),
            metadata_paths: Vec::new(),
            door: None,
            turned_away: 0,
        }
    }
}

impl State {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().expect("never held over a panic")
    }

    fn resource(&self) -> String {
        format!("{}{PATH}", self.base)
    }
}

impl Now {
    fn publishes(&self, path: &str) -> bool {
        self.signposts.header.as_deref() == Some(path)
            || (self.signposts.inserted && path == INSERTED)
            || (self.signposts.root && path == ROOT)
    }
}

/// A server without sessions yet.
fn service(waits: &Arc<Waits>) -> Service {
    let tools = Tools::new(Arc::clone(waits));
    StreamableHttpService::new(
        move || Ok(tools.clone()),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default(),
    )
}

async fn answer(state: Arc<State>, mut request: Request<Incoming>) -> Answer {
    let door = state.now().door.clone();
    if let Some((field, lets_in)) = door {
        // The front door removes its own field.
        let shown = request.headers_mut().remove(&field);
        let shown =
            shown.as_ref().and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
        if !shown.is_some_and(|token| lets_in(token)) {
            state.now().turned_away += 1;
            return Ok(fault::text(401, "text/plain", "Invalid IAP credentials: empty token".to_owned()));
        }
    }
    match request.uri().path() {
        path if path == PATH || path.starts_with("/mcp/") => mcp(&state, request).await,
        path => metadata(&state, path).await,
    }
}

async fn metadata(state: &State, path: &str) -> Answer {
    let document = {
        let mut now = state.now();
        now.metadata_paths.push(path.to_owned());
        if let Some((_, document)) = now.documents.iter().find(|(at, _)| at == path) {
            return Ok(fault::json(200, document.to_string()));
        }
        if !now.publishes(path) {
            return Ok(fault::json(404, json!({"message": format!("nothing at {path}")}).to_string()));
        }
        let mut document = keys::object(json!({"resource": state.resource()}));
        keys::overlay(&mut document, &now.metadata);
        Value::Object(document).to_string()
    };
    match state.metadata_script.next() {
        Some(fault) => fault.answer(&document).await,
        None => Ok(fault::json(200, document)),
    }
}

async fn mcp(state: &State, mut request: Request<Incoming>) -> Answer {
    let mut seen = seen(&request);
    if let Some(fault) = state.script.next() {
        state.now().seen.push(seen);
        return fault.answer(r#"{"jsonrpc":"2.0","id":0,"result":{}}"#).await;
    }
    let in_query = state.in_query(request.uri().query());
    let mut answer = match state.admit(&request, in_query.as_deref()) {
        Err(refusal) => state.refuse(&refusal),
        Ok(claims) => {
            request.extensions_mut().insert(claims);
            let service = Arc::clone(&state.service.lock().expect("never held over a panic"));
            let answer = service.handle(request).await;
            answer.map(|body| body.map_err(|never| -> io::Error { match never {} }).boxed_unsync())
        }
    };
    seen.status = answer.status().as_u16();
    let mut now = state.now();
    for (name, value) in &now.answer_headers {
        let name: hyper::header::HeaderName = name.parse().expect("a header name");
        answer.headers_mut().append(name, value.parse().expect("a header value"));
    }
    now.seen.push(seen);
    Ok(answer)
}

fn seen(request: &Request<Incoming>) -> Seen {
    let shown = |(name, value): (&hyper::header::HeaderName, &HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match (name.as_str(), value.split_once(' ')) {
            ("authorization", Some((scheme, token))) => {
                if token.len() >= 16 {
                    leak::minted(token);
                }
                (name.to_string(), format!("{scheme} {}", keys::digest(token)))
            }
            _ => (name.to_string(), value),
        }
    };
    Seen {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        headers: request.headers().iter().map(shown).collect(),
        status: 0,
    }
}
