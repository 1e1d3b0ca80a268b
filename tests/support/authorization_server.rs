//! `FakeAs`: an authorization server that a client cannot tell from a real one.
//!
//! RFC 8414 metadata (or OpenID's form), a token endpoint for the RFC 7523 grant that verifies everything, and
//! RFC 7009 revocation. Tests can change all settings while it runs, through `&self`. By default it refuses everything that a
//! real server refuses.
//!
//! The token endpoint is in `token_endpoint.rs`, the metadata in `metadata.rs`, what a test sets and reads in `knobs.rs`,
//! the differences of real servers in `profile.rs`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::fault::{self, Fault, Script};
use super::keys::{self, Claims, Keys, Verifier};
use super::leak;
use super::listener::{Answer, Bound, Listener};
use super::platform::{SUBJECT, Trust};

mod clients;
mod knobs;
mod metadata;
mod profile;
mod token_endpoint;

pub use clients::ClientProof;
pub use profile::{Profile, Target, Words};

pub const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The default lifetime of its access tokens.
pub const LIFE: Duration = Duration::from_secs(600);

/// Faults in the answer of a token endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenFault {
    /// RFC 6749 5.2: 400 (401 for `invalid_client`) without looking at the request.
    OauthError {
        code: String,
        description: Option<String>,
        uri: Option<String>,
    },
    /// An error whose description holds terminal escapes, newlines and a CI command.
    ControlCharsInDescription,
    NoAccessToken,
    NoExpiresIn,
    ExpiresIn(Value),
    TokenType(String),
    /// The `scope` of the answer, or none, and claims of the token.
    ScopeClaims {
        answer: Option<String>,
        token: Value,
    },
    /// The `scope` of the answer and of the token; `None` omits it from the answer only.
    ScopeGranted(Option<String>),
    /// The last token again, with its remaining lifetime.
    SameToken,
    /// A reference token instead of a JWT.
    OpaqueToken,
    /// A token for another MCP server than `resource`.
    IgnoreResource,
    /// A token with this `aud`.
    Audience(Value),
    /// A token with a space and letters outside ASCII.
    BadTokenCharacters,
    /// For a token exchange only; `null` omits it.
    IssuedTokenType(Value),
    /// A token of 40 KiB.
    HugeToken,
    #[serde(untagged)]
    Wire(Fault),
}

/// Faults in the metadata document.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetadataFault {
    WrongIssuer(String),
    NoTokenEndpoint,
    TokenEndpoint(String),
    #[serde(untagged)]
    Wire(Fault),
}

/// Where metadata is served for the issuer `BASE/PATH`; by default only at the first of the three.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// `/.well-known/oauth-authorization-server/PATH`
    pub oauth: bool,
    /// `/.well-known/openid-configuration/PATH`
    pub openid_inserted: bool,
    /// `/PATH/.well-known/openid-configuration`
    pub openid_appended: bool,
}

/// A request to the token endpoint: every parameter except secret ones, and the claims of the assertion.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// `assertion`, `client_assertion` and `client_secret` are here as their digest (`keys::digest`).
    pub params: BTreeMap<String, String>,
    pub assertion: Claims,
    /// Whether the request came with an `Authorization` header.
    pub authorization: bool,
    /// The answer: `ok`, an OAuth error code, or the name of the scripted fault.
    pub outcome: String,
}

pub struct FakeAs {
    state: Arc<State>,
    listener: Listener,
    /// The same server on another port, where clients prove themselves in the handshake.
    mutual: Option<Listener>,
}

struct State {
    base: String,
    keys: Keys,
    token_script: Script<TokenFault>,
    metadata_script: Script<MetadataFault>,
    now: Mutex<Now>,
}

/// The state that tests and requests change.
struct Now {
    path: String,
    trusted: Vec<Trust>,
    resources: HashMap<String, Vec<String>>,
    life: Duration,
    grants: Option<Vec<String>>,
    published: Published,
    metadata: Value,
    resource_optional: bool,
    federated: BTreeMap<String, String>,
    clients: clients::Clients,
    audience: Option<String>,
    spent: HashSet<String>,
    last: Option<(String, u64)>,
    /// When each access token was issued, and when its `expires_in` is over.
    issued: Vec<(f64, f64)>,
    received: Vec<TokenRequest>,
    metadata_paths: Vec<String>,
    revoked: Vec<String>,
    /// The unverified claims of the client in the last revocation.
    revoked_by: Claims,
    token_requests: usize,
    profile: Profile,
    /// The operator's rule for assertions.
    rule: Option<Value>,
    /// Finds the AWS role that signed a request for this issuer.
    aws: Option<Arc<Caller>>,
}

/// A signed request, and its required audience.
type Caller = dyn Fn(&str, &str) -> Result<String, String> + Send + Sync;

impl FakeAs {
    /// Trusts `trusted` to say who a workload is; knows no resource until [`FakeAs::register`].
    pub async fn start(trusted: Trust) -> Self {
        Self::serve(Bound::new(None).await, trusted)
    }

    pub async fn start_tls(trusted: Trust, tls: TlsAcceptor) -> Self {
        Self::serve(Bound::new(Some(tls)).await, trusted)
    }

    fn serve(bound: Bound, trusted: Trust) -> Self {
        let state = Arc::new(State {
            base: bound.base().to_owned(),
            keys: Keys::generate("as-key-1"),
            token_script: Script::new(),
            metadata_script: Script::new(),
            now: Mutex::new(Now::new(trusted)),
        });
        let shared = Arc::clone(&state);
        let listener = bound.serve(move |request| answer(Arc::clone(&shared), request));
        Self { state, listener, mutual: None }
    }

    /// Serves on a port that is already bound.
    pub fn start_on(bound: Bound, trusted: Trust) -> Self {
        Self::serve(bound, trusted)
    }

    /// Adds a second port that asks for the client's certificate (RFC 8705 section 5).
    pub async fn serve_mutual(&mut self, tls: TlsAcceptor) {
        let bound = Bound::new(Some(tls)).await;
        let alias = |path: &str| format!("{}{}{path}", bound.base(), self.state.now().path);
        let aliases = json!({"token_endpoint": alias("/token"), "revocation_endpoint": alias("/revoke")});
        let members = json!({"mtls_endpoint_aliases": aliases, "tls_client_certificate_bound_access_tokens": true});
        self.state.now().metadata = members;
        let shared = Arc::clone(&self.state);
        self.mutual = Some(bound.serve(move |request| answer(Arc::clone(&shared), request)));
    }

    /// The issuer identifier: scheme, authority and the path that was set.
    pub fn issuer(&self) -> String {
        self.state.issuer()
    }

    pub fn base(&self) -> &str {
        &self.state.base
    }

    pub fn token_endpoint(&self) -> String {
        self.state.endpoint("token")
    }

    /// What an MCP server needs to trust its tokens.
    pub fn trust(&self) -> Trust {
        Trust { issuer: self.issuer(), verifier: self.state.keys.verifier() }
    }

    pub fn verifier(&self) -> Verifier {
        self.state.keys.verifier()
    }

    /// Makes an access token without a request: for tests of the MCP server and of foreign tokens.
    pub fn mint(&self, audience: Value, scope: &str, life: Duration) -> String {
        self.state.mint(SUBJECT, audience, scope, life)
    }
}

impl TokenFault {
    pub fn oauth(code: &str) -> Self {
        Self::OauthError { code: code.to_owned(), description: None, uri: None }
    }
}

impl From<Fault> for TokenFault {
    fn from(fault: Fault) -> Self {
        Self::Wire(fault)
    }
}

impl From<Fault> for MetadataFault {
    fn from(fault: Fault) -> Self {
        Self::Wire(fault)
    }
}

impl Now {
    fn new(trusted: Trust) -> Self {
        Self {
            path: String::new(),
            trusted: vec![trusted],
            resources: HashMap::new(),
            life: LIFE,
            grants: Some(vec![JWT_BEARER.to_owned()]),
            published: Published { oauth: true, openid_inserted: false, openid_appended: false },
            metadata: Value::Null,
            resource_optional: false,
            federated: BTreeMap::new(),
            clients: clients::Clients::default(),
            audience: None,
            spent: HashSet::new(),
            last: None,
            issued: Vec::new(),
            received: Vec::new(),
            metadata_paths: Vec::new(),
            revoked: Vec::new(),
            revoked_by: Claims::new(),
            token_requests: 0,
            profile: Profile::default(),
            rule: None,
            aws: None,
        }
    }
}

impl State {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().expect("never held over a panic")
    }

    fn issuer(&self) -> String {
        format!("{}{}", self.base, self.now().path)
    }

    /// The base for endpoints. An issuer may end in a slash, but an endpoint must not contain two.
    fn endpoint(&self, name: &str) -> String {
        format!("{}/{name}", self.issuer().trim_end_matches('/'))
    }

    fn mint(&self, subject: &str, audience: Value, scope: &str, life: Duration) -> String {
        self.mint_with("at+jwt", json!({"sub": subject, "aud": audience, "scope": scope}), life)
    }

    /// A JWT of this server with these claims and the usual ones; null removes a claim.
    fn mint_with(&self, typ: &str, more: Value, life: Duration) -> String {
        let (iat, exp) = keys::lifetime(life);
        let mut claims = keys::object(json!({"iss": self.issuer(), "iat": iat, "exp": exp, "jti": keys::unique_id()}));
        keys::overlay(&mut claims, &more);
        let token = self.keys.sign(typ, &claims);
        leak::minted(&token);
        token
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let tenant = state.now().path.clone();
    if path.contains("/.well-known/") {
        return metadata::answer(&state, &request).await;
    }
    match path.strip_prefix(tenant.trim_end_matches('/')) {
        Some("/token") => token_endpoint::answer(&state, request).await,
        Some("/revoke") => revoke(&state, request).await,
        Some("/register") => clients::register(&state, request).await,
        _ => Ok(not_found(&path)),
    }
}

/// RFC 7009 2.2: 200 for a token it does not know, too.
async fn revoke(state: &State, request: Request<Incoming>) -> Answer {
    let sender = clients::Sender::of(&request);
    let form = match token_endpoint::read_form(request).await {
        Ok(form) => form,
        Err(refusal) => return Ok(refusal.into_answer()),
    };
    let Some(token) = form.get("token") else {
        return Ok(token_endpoint::Refusal::new("invalid_request", "token is missing").into_answer());
    };
    leak::minted(token);
    // RFC 7009 section 2.1: the client that the token was issued to proves itself here as well.
    let required = state.now().clients.required;
    match clients::authenticate(state, &sender, &form) {
        Err(refusal) => return Ok(refusal.into_answer()),
        Ok(None) if required => {
            return Ok(token_endpoint::Refusal::new("invalid_client", "who revokes?").into_answer());
        }
        Ok(_) => {}
    }
    if let Some(assertion) = form.get("client_assertion") {
        leak::minted(assertion);
        state.now().revoked_by = keys::peek(assertion);
    }
    state.now().revoked.push(keys::digest(token));
    Ok(fault::json(200, ""))
}

fn not_found(path: &str) -> hyper::Response<super::listener::Body> {
    fault::json(404, json!({"message": format!("nothing at {path}")}).to_string())
}

/// A body that could not be read: the connection is gone.
fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, error.to_string())
}
