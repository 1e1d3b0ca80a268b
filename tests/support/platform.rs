//! `FakePlatform`: the identity endpoint of a CI platform, in GitHub's shape.
//!
//! `GET <url with a query already>&audience=…` with the job's request token as bearer gives `{"value": JWT}`. A request without
//! the token, without exactly one audience or without the given query is refused, with the reason.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fault::{self, Fault, Script};
use super::keys::{self, Claims, Keys, Verifier};
use super::leak;
use super::listener::{Answer, Bound, Listener};

/// The default lifetime of an assertion: GitHub's are valid for five minutes.
pub const LIFE: Duration = Duration::from_secs(300);

/// The subject of the job.
pub const SUBJECT: &str = "repo:octo-org/octo-repo:ref:refs/heads/main";

const PATH: &str = "/octo-pool/idtoken";
const PRE_EXISTING_QUERY: (&str, &str) = ("api-version", "2.0");

/// Faults in the answer of an identity endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlatformFault {
    /// 403, as for a job that the platform does not consider running yet.
    Pending403,
    /// A JWT with another audience.
    WrongAudience,
    /// `aud` is a list: the one asked for and another.
    ManyAudiences,
    /// A JWT whose `exp` has passed.
    Expired,
    /// A `value` that is not a JWT.
    NoJwt,
    /// A JWT with some claims replaced; null removes one.
    Claims(Value),
    #[serde(untagged)]
    Wire(Fault),
}

/// A trusted issuer: its name and its key.
#[derive(Clone)]
pub struct Trust {
    pub issuer: String,
    pub verifier: Verifier,
}

pub struct FakePlatform {
    state: Arc<State>,
    _listener: Listener,
}

struct State {
    issuer: String,
    keys: Mutex<Keys>,
    request_token: String,
    requests: AtomicUsize,
    audiences: Mutex<Vec<String>>,
    script: Script<PlatformFault>,
}

impl FakePlatform {
    pub async fn start() -> Self {
        let bound = Bound::new(None).await;
        let keys = Keys::generate("platform-key-1");
        let request_token =
            keys.sign("JWT", &keys::object(json!({"scp": "Actions.Results", "jti": keys::unique_id()})));
        leak::minted(&request_token);
        let state = Arc::new(State {
            issuer: bound.base().to_owned(),
            keys: Mutex::new(keys),
            request_token,
            requests: AtomicUsize::new(0),
            audiences: Mutex::default(),
            script: Script::new(),
        });
        let shared = Arc::clone(&state);
        let listener = bound.serve(move |request| answer(Arc::clone(&shared), request));
        Self { state, _listener: listener }
    }

    /// The `iss` of its JWTs, which is also its URL.
    pub fn issuer(&self) -> &str {
        &self.state.issuer
    }

    /// The variables of a job.
    pub fn env(&self) -> Vec<(String, String)> {
        let url = format!("{}{PATH}?{}={}", self.issuer(), PRE_EXISTING_QUERY.0, PRE_EXISTING_QUERY.1);
        [
            ("GITHUB_ACTIONS", "true".to_owned()),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", url),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", self.state.request_token.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// What an authorization server needs to trust its JWTs.
    pub fn trust(&self) -> Trust {
        Trust { issuer: self.state.issuer.clone(), verifier: self.state.keys().verifier() }
    }

    /// Requests at the identity endpoint so far, refused ones included.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// The audiences asked for so far, in order.
    pub fn audiences(&self) -> Vec<String> {
        self.state.audiences.lock().expect("never held over a panic").clone()
    }

    /// Each of the next requests gets one of these faults; later requests get correct answers.
    pub fn script(&self, faults: impl IntoIterator<Item: Into<PlatformFault>>) {
        self.state.script.push(faults);
    }

    /// Every request after the script gets this fault, until [`FakePlatform::heal`].
    pub fn always(&self, fault: impl Into<PlatformFault>) {
        self.state.script.always(fault);
    }

    pub fn heal(&self) {
        self.state.script.clear();
    }

    /// Signs with a new key from now on and publishes it in place of the old one.
    pub fn rotate(&self, kid: &str) {
        *self.state.keys.lock().expect("never held over a panic") = Keys::generate(kid);
    }

    /// Makes a JWT without a request: for identity files and for negative tests.
    pub fn mint(&self, audience: &str, life: Duration) -> String {
        self.state.mint(audience, life, &Value::Null)
    }

    /// As [`FakePlatform::mint`], with claims replaced by `overrides`; null removes a claim.
    pub fn mint_with(&self, audience: &str, life: Duration, overrides: &Value) -> String {
        self.state.mint(audience, life, overrides)
    }
}

impl From<Fault> for PlatformFault {
    fn from(fault: Fault) -> Self {
        Self::Wire(fault)
    }
}

impl State {
    fn keys(&self) -> Keys {
        self.keys.lock().expect("never held over a panic").clone()
    }

    fn mint(&self, audience: &str, life: Duration, overrides: &Value) -> String {
        let mut claims = self.claims(audience, life);
        keys::overlay(&mut claims, overrides);
        let token = self.keys().sign("JWT", &claims);
        leak::minted(&token);
        token
    }

    /// The claims of a real job, with its reserved example organisation.
    fn claims(&self, audience: &str, life: Duration) -> Claims {
        let (iat, exp) = keys::lifetime(life);
        keys::object(json!({
            "iss": self.issuer, "aud": audience, "iat": iat, "nbf": iat, "exp": exp, "jti": keys::unique_id(),
            "sub": SUBJECT,
            "repository": "octo-org/octo-repo", "repository_id": "74", "repository_visibility": "private",
            "repository_owner": "octo-org", "repository_owner_id": "65", "enterprise": "octo-enterprise",
            "actor": "octocat", "actor_id": "12", "event_name": "push",
            "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true",
            "base_ref": "", "head_ref": "", "sha": "b5f1a8a9d3c2e4f60718293a4b5c6d7e8f901234",
            "workflow": "deploy", "workflow_ref": "octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main",
            "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
            "run_id": "1024", "run_number": "10", "run_attempt": "2", "runner_environment": "github-hosted",
        }))
    }

    /// The audience in a well-formed request, or the status and the reason of a refusal.
    fn admit(&self, request: &Request<Incoming>) -> Result<String, (u16, String)> {
        if request.method() != Method::GET || request.uri().path() != PATH {
            return Err((404, format!("no such endpoint: {} {}", request.method(), request.uri().path())));
        }
        let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        if bearer != Some(&format!("Bearer {}", self.request_token)) {
            return Err((401, "the request token is missing or wrong".to_owned()));
        }
        let query = request.uri().query().unwrap_or_default();
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        if !pairs.iter().any(|(name, value)| (name.as_str(), value.as_str()) == PRE_EXISTING_QUERY) {
            return Err((400, "api-version=2.0 was in the URL and must stay there".to_owned()));
        }
        let mut audiences = pairs.into_iter().filter(|(name, _)| name == "audience").map(|(_, value)| value);
        match (audiences.next(), audiences.next()) {
            (Some(audience), None) if !audience.is_empty() => Ok(audience),
            _ => Err((400, "exactly one audience is needed".to_owned())),
        }
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Answer {
    match request.uri().path() {
        "/.well-known/openid-configuration" => {
            let jwks = format!("{}/.well-known/jwks", state.issuer);
            return Ok(fault::json(200, json!({"issuer": state.issuer, "jwks_uri": jwks}).to_string()));
        }
        "/.well-known/jwks" => {
            return Ok(fault::json(200, state.keys().verifier().jwks().to_string()));
        }
        _ => {}
    }
    state.requests.fetch_add(1, Ordering::SeqCst);
    let audience = match state.admit(&request) {
        Ok(audience) => audience,
        Err((status, message)) => {
            return Ok(fault::json(status, json!({"message": message}).to_string()));
        }
    };
    state.audiences.lock().expect("never held over a panic").push(audience.clone());

    let jwt = |overrides: Value| state.mint(&audience, LIFE, &overrides);
    let past = keys::now() as u64 - 600;
    let value = match state.script.next() {
        None => jwt(Value::Null),
        Some(PlatformFault::Wire(fault)) => {
            return fault.answer(&json!({"value": jwt(Value::Null)}).to_string()).await;
        }
        Some(PlatformFault::Pending403) => {
            let body = json!({"message": "Can't issue ID_TOKEN for job in 'Pending' state"});
            return Ok(fault::json(403, body.to_string()));
        }
        Some(PlatformFault::WrongAudience) => jwt(json!({"aud": "https://somebody-else.example"})),
        Some(PlatformFault::ManyAudiences) => jwt(json!({"aud": [audience, "https://somebody-else.example"]})),
        Some(PlatformFault::Expired) => jwt(json!({"iat": past, "nbf": past, "exp": past + 300})),
        Some(PlatformFault::NoJwt) => "this-is-not-a-json-web-token".to_owned(),
        Some(PlatformFault::Claims(overrides)) => jwt(overrides),
    };
    Ok(fault::json(200, json!({"value": value}).to_string()))
}
