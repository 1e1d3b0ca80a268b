//! `FakeGoogle`: the metadata server of an instance, the Security Token Service and the Service Account Credentials API, on
//! one port.
//!
//! An identity that comes in is verified (signature, `iss`, `aud`, `exp`), an access token must be one that was given out
//! here and good for IAM, and who may act as whom is looked up, delegate by delegate. The identity tokens that go out are
//! signed as `https://accounts.google.com`, and have no `jti`, as Google's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use serde_json::{Value, json};

use super::fault::{self, Fault};
use super::keys::{self, Claims, Keys};
use super::leak;
use super::listener::{Answer, Bound, Listener, Peer};
use super::platform::Trust;
use super::stand_in::StandIn;
use super::tls::TestCa;

/// The provider in the pool, by its full name.
pub const PROVIDER: &str =
    "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/agents/providers/ci";
/// The account that the tests act as.
pub const AGENT: &str = "agent@project.iam.gserviceaccount.com";
/// The instance's own.
pub const INSTANCE: &str = "instance@project.iam.gserviceaccount.com";

const HOSTS: [&str; 2] = ["sts.googleapis.com", "iamcredentials.googleapis.com"];
/// The hosts that ask for a client certificate.
const MUTUAL_HOSTS: [&str; 2] = ["sts.mtls.googleapis.com", "iamcredentials.mtls.googleapis.com"];

const ISSUER: &str = "https://accounts.google.com";
const LIFE: Duration = Duration::from_secs(3600);
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const AWS_REQUEST: &str = "urn:ietf:params:aws:token-type:aws4_request";
const MTLS: &str = "urn:ietf:params:oauth:token-type:mtls";
const IAM: &str = "https://www.googleapis.com/auth/iam";
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

pub struct FakeGoogle {
    state: Arc<State>,
    base: String,
    stand_in: StandIn,
    _listener: Listener,
}

struct State {
    keys: Keys,
    now: Mutex<Now>,
}

struct Now {
    /// The issuer that the provider trusts.
    trusted: Vec<Trust>,
    /// Finds the AWS role that signed a request, for an audience.
    aws: Option<Box<Caller>>,
    /// The certificate that a federated token is bound to.
    bound: BTreeMap<String, Vec<u8>>,
    allowed_audiences: Vec<String>,
    /// Issued access tokens, with their principal and scopes.
    given: BTreeMap<String, (String, String)>,
    /// Who may act as which account.
    grants: BTreeSet<(String, String)>,
    /// The metadata server gives no identity tokens, as on Cloud Build.
    no_identity: bool,
    /// The fault at one path.
    fails: Option<(String, Fault)>,
    /// The path of every request.
    paths: Vec<String>,
    /// The form of the last token exchange, without the subject token.
    last_form: BTreeMap<String, String>,
}

type Refusal = (u16, Value);
/// A signed request, the field with its audience, and the required audience.
type Caller = dyn Fn(&str, &str, &str) -> Result<String, String> + Send + Sync;

/// An `external_account` file of the provider, with the service account of the tests at its end.
pub fn external_account(subject_type: &str, source: &Value) -> Value {
    json!({
        "type": "external_account", "audience": PROVIDER, "universe_domain": "googleapis.com",
        "subject_token_type": format!("urn:ietf:params:{subject_type}"),
        "token_url": "https://sts.googleapis.com/v1/token",
        "service_account_impersonation_url":
            format!("https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{AGENT}:generateAccessToken"),
        "credential_source": source,
    })
}

impl FakeGoogle {
    /// The provider in the pool trusts `trusted`.
    pub async fn start(trusted: Trust) -> Self {
        let bound = Bound::new(None).await;
        let stand_in = StandIn::before(&HOSTS, bound.base()).await;
        Self::at(bound, stand_in, trusted)
    }

    /// With the hosts that ask for a client certificate. This CA signs the certificates of clients and hosts.
    pub async fn mutual(ca: &TestCa, trusted: Trust) -> Self {
        let names = [&MUTUAL_HOSTS[..], &["localhost", "127.0.0.1"]].concat();
        let bound = Bound::new(Some(ca.mutual_for(&names, &[ca.der()]))).await;
        let stand_in = StandIn::passing(&MUTUAL_HOSTS, bound.address()).await;
        Self::at(bound, stand_in, trusted)
    }

    fn at(bound: Bound, stand_in: StandIn, trusted: Trust) -> Self {
        let base = bound.base().to_owned();
        let now = Now {
            trusted: vec![trusted],
            aws: None,
            bound: BTreeMap::new(),
            allowed_audiences: vec![format!("https:{PROVIDER}"), PROVIDER.to_owned()],
            given: BTreeMap::new(),
            grants: BTreeSet::new(),
            no_identity: false,
            fails: None,
            paths: Vec::new(),
            last_form: BTreeMap::new(),
        };
        let state = Arc::new(State { keys: Keys::generate("google-key-1"), now: Mutex::new(now) });
        let shared = Arc::clone(&state);
        let listener = bound.serve(move |request| answer(Arc::clone(&shared), request));
        Self { state, base, stand_in, _listener: listener }
    }

    /// Its real address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The keys of `[egress]` that make it replace Google's hosts.
    pub fn egress(&self) -> String {
        self.stand_in.egress(None)
    }

    /// The value of `GCE_METADATA_HOST`.
    pub fn metadata_host(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// What a server needs to trust its identity tokens.
    pub fn trust(&self) -> Trust {
        Trust { issuer: ISSUER.to_owned(), verifier: self.state.keys.verifier() }
    }

    /// Makes the provider one of type AWS, which verifies requests with this function.
    pub fn trust_aws(&self, caller: impl Fn(&str, &str, &str) -> Result<String, String> + Send + Sync + 'static) {
        self.state.now().aws = Some(Box::new(caller));
    }

    /// The principal of a subject in the pool.
    pub fn principal(subject: &str) -> String {
        let pool = PROVIDER.split("/providers/").next().unwrap_or_default();
        format!("principal:{pool}/subject/{subject}")
    }

    /// Lets a principal or an account act as an account.
    pub fn grant(&self, who: &str, account: &str) {
        self.state.now().grants.insert((who.to_owned(), account.to_owned()));
    }

    /// Removes that permission.
    pub fn revoke(&self, who: &str, account: &str) {
        assert!(self.state.now().grants.remove(&(who.to_owned(), account.to_owned())), "it was granted");
    }

    /// Sets the only audiences that the provider accepts.
    pub fn allow_audiences(&self, audiences: &[&str]) {
        self.state.now().allowed_audiences = audiences.iter().map(|&one| one.to_owned()).collect();
    }

    /// The metadata server issues no identity tokens from now on.
    pub fn give_no_identity(&self) {
        self.state.now().no_identity = true;
    }

    /// Sets this fault for this path, and removes any other.
    pub fn fail(&self, fault: Option<(&str, Fault)>) {
        self.state.now().fails = fault.map(|(path, fault)| (path.to_owned(), fault));
    }

    /// The path of every request so far.
    pub fn paths(&self) -> Vec<String> {
        self.state.now().paths.clone()
    }

    /// The form of the last token exchange, without the subject token.
    pub fn last_form(&self) -> BTreeMap<String, String> {
        self.state.now().last_form.clone()
    }

    /// The scopes and the principal of an access token that was issued here.
    pub fn access(&self, token: &str) -> Option<(String, String)> {
        self.state.now().given.get(token).cloned()
    }

    /// The claims of an identity token, if it was signed here and has not expired.
    pub fn verify(&self, token: &str) -> Claims {
        let claims = self.state.keys.verifier().verify(token).expect("signed by Google");
        assert!(claims["exp"].as_f64().expect("exp is a number") > keys::now(), "it lives");
        claims
    }
}

impl State {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().expect("never held over a panic")
    }

    fn id_token(&self, account: &str, audience: &str) -> String {
        let (iat, exp) = keys::lifetime(LIFE);
        let claims = json!({
            "iss": ISSUER, "aud": audience, "azp": "113774264463038321964", "sub": "113774264463038321964",
            "email": account, "email_verified": true, "iat": iat, "exp": exp,
        });
        let token = self.keys.sign("JWT", &keys::object(claims));
        leak::minted(&token);
        token
    }

    fn access_token(&self, whose: &str, scopes: &str) -> String {
        let token = format!("ya29.{}-{}", keys::unique_id(), keys::unique_id());
        leak::minted(&token);
        self.now().given.insert(token.clone(), (whose.to_owned(), scopes.to_owned()));
        token
    }

    /// `GET …/service-accounts/ACCOUNT/WHAT`.
    fn metadata(&self, request: &Request<Vec<u8>>) -> Result<(&'static str, String), Refusal> {
        if request.headers().get("metadata-flavor").is_none_or(|value| value != "Google") {
            return Err((403, json!("Missing Metadata-Flavor:Google header.")));
        }
        let path = request.uri().path();
        let rest = path.strip_prefix("/computeMetadata/v1/instance/service-accounts/").unwrap_or_default();
        let (account, what) = rest.split_once('/').unwrap_or_default();
        if ![INSTANCE, "default"].contains(&account) {
            return Err((404, json!("no such account")));
        }
        let query = request.uri().query().unwrap_or_default();
        let pairs: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        match (what, pairs.get("audience")) {
            ("", _) if pairs.get("recursive").is_some_and(|value| value == "true") => {
                let body = json!({"aliases": ["default"], "email": INSTANCE, "scopes": [CLOUD_PLATFORM]});
                Ok(("application/json", body.to_string()))
            }
            ("token", _) => {
                let token = self.access_token(INSTANCE, CLOUD_PLATFORM);
                let body = json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"});
                Ok(("application/json", body.to_string()))
            }
            ("identity", Some(audience)) if !self.now().no_identity => {
                if pairs.get("format").map(String::as_str) != Some("full") {
                    return Err((400, json!("without format=full there is no email")));
                }
                Ok(("text/html", self.id_token(INSTANCE, audience)))
            }
            ("identity", None) => Err((400, json!("non-empty audience parameter required"))),
            _ => Err((404, json!("not found"))),
        }
    }

    /// The subject of the identity token, or the words of Google.
    fn subject(&self, token: &str) -> Result<String, String> {
        let now = self.now();
        let found = now.trusted.iter().find_map(|trust| Some((trust, trust.verifier.verify(token).ok()?)));
        let (trust, claims) = found.ok_or("Invalid JWT signature.")?;
        if claims["iss"] != json!(trust.issuer) {
            return Err("The issuer in ID Token does not match the expected ones.".to_owned());
        }
        if claims["exp"].as_f64().is_none_or(|exp| exp <= keys::now()) {
            return Err(format!("ID Token issued at {} is stale to sign-in.", claims["iat"]));
        }
        match claims["aud"].as_str() {
            Some(aud) if now.allowed_audiences.iter().any(|allowed| allowed == aud) => {}
            _ => return Err("The audience in ID Token does not match the expected audience.".to_owned()),
        }
        let subject = claims["sub"].as_str().ok_or("The subject is missing.")?;
        if subject.len() > 127 {
            return Err("The size of mapped attribute google.subject exceeds the 127 bytes limit.".to_owned());
        }
        Ok(subject.to_owned())
    }

    fn sts(&self, request: &Request<Vec<u8>>) -> Result<Value, Refusal> {
        let mut form: BTreeMap<String, String> = url::form_urlencoded::parse(request.body()).into_owned().collect();
        let refusal = |code: &str, text: String| (400, json!({"error": code, "error_description": text}));
        let token = form.remove("subject_token").unwrap_or_default();
        self.now().last_form = form.clone();
        let value = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if value("grant_type") != TOKEN_EXCHANGE || value("requested_token_type") != ACCESS_TOKEN {
            return Err(refusal("invalid_request", "Invalid grant_type or requested_token_type.".to_owned()));
        }
        if form.contains_key("resource") || request.headers().contains_key("authorization") {
            return Err(refusal("invalid_request", "Invalid parameter.".to_owned()));
        }
        if value("audience") != PROVIDER {
            let text = "The target service indicated by the \"audience\" parameters is invalid. This might either be because \
                the pool or provider is disabled or deleted or because it doesn't exist.";
            return Err(refusal("invalid_target", text.to_owned()));
        }
        let certificate = certificate(request);
        let subject = match value("subject_token_type") {
            _ if value("scope").is_empty() => Err("Invalid scope.".to_owned()),
            JWT | ID_TOKEN => self.subject(&token),
            AWS_REQUEST => match &self.now().aws {
                Some(caller) => {
                    let named = |name: &str| caller(&token, "x-goog-cloud-target-resource", name);
                    named(PROVIDER).or_else(|_| named(&format!("https:{PROVIDER}")))
                }
                None => Err("The provider is not one of AWS.".to_owned()),
            },
            MTLS => shown(&token, certificate.as_deref()),
            _ => Err("Invalid subject_token_type.".to_owned()),
        };
        let subject = subject.map_err(|text| refusal("invalid_grant", text))?;
        let access = self.access_token(&FakeGoogle::principal(&subject), value("scope"));
        if let Some(certificate) = certificate {
            self.now().bound.insert(access.clone(), certificate);
        }
        Ok(
            json!({"access_token": access, "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 3599}),
        )
    }

    /// `POST /v1/projects/-/serviceAccounts/EMAIL:METHOD`.
    fn iam(&self, request: &Request<Vec<u8>>, rest: &str) -> Result<Value, Refusal> {
        let refusal = |code: u16, status: &str, text: String| {
            (code, json!({"error": {"code": code, "message": text, "status": status}}))
        };
        let (account, method) = rest.split_once(':').unwrap_or_default();
        let wish: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let known = self.now().given.get(bearer.trim_start_matches("Bearer ")).cloned();
        let bound = self.now().bound.get(bearer.trim_start_matches("Bearer ")).cloned();
        let Some((principal, scopes)) = known.filter(|_| bound.is_none() || bound == certificate(request)) else {
            return Err(refusal(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.".to_owned()));
        };
        if !scopes.split(' ').any(|scope| [IAM, CLOUD_PLATFORM].contains(&scope)) {
            let text = "Request had insufficient authentication scopes.";
            return Err(refusal(403, "PERMISSION_DENIED", text.to_owned()));
        }
        let delegates = wish["delegates"].as_array().cloned().unwrap_or_default();
        let delegates = delegates.iter().map(|one| {
            let name = one.as_str().unwrap_or_default().strip_prefix("projects/-/serviceAccounts/");
            name.unwrap_or("no resource name").to_owned()
        });
        let wanted = if method == "generateIdToken" { "getOpenIdToken" } else { "getAccessToken" };
        let mut who = principal;
        for next in delegates.chain([account.to_owned()]) {
            if !self.now().grants.contains(&(who, next.clone())) {
                let permission = if next == account { wanted } else { "implicitDelegation" };
                let text =
                    format!("Permission 'iam.serviceAccounts.{permission}' denied on resource (or it may not exist).");
                return Err(refusal(403, "PERMISSION_DENIED", text));
            }
            who = next;
        }
        let invalid = || refusal(400, "INVALID_ARGUMENT", "Request contains an invalid argument.".to_owned());
        match method {
            "generateIdToken" => {
                let audience = wish["audience"].as_str().filter(|one| !one.is_empty()).ok_or_else(invalid)?;
                if wish["includeEmail"] != json!(true) {
                    return Err(invalid());
                }
                Ok(json!({"token": self.id_token(account, audience)}))
            }
            "generateAccessToken" => {
                let scopes: Vec<&str> =
                    wish["scope"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                if scopes.is_empty() {
                    return Err(invalid());
                }
                let end = jiff::Timestamp::now() + LIFE;
                let end = end.round(jiff::Unit::Second).expect("seconds");
                Ok(json!({"accessToken": self.access_token(account, &scopes.join(" ")), "expireTime": end.to_string()}))
            }
            _ => Err(refusal(404, "NOT_FOUND", "Method not found.".to_owned())),
        }
    }
}

/// The certificate of the connection.
fn certificate(request: &Request<Vec<u8>>) -> Option<Vec<u8>> {
    request.extensions().get::<Peer>().and_then(|peer| peer.0.clone()).map(|der| der.to_vec())
}

/// The chain, a JSON array of certificates, must begin with that of the connection.
fn shown(chain: &str, certificate: Option<&[u8]>) -> Result<String, String> {
    let certificate = certificate.ok_or("The connection has no client certificate.")?;
    let chain: Vec<String> = serde_json::from_str(chain).map_err(|_| "The chain is no JSON array.")?;
    let leaf = chain.first().and_then(|one| STANDARD.decode(one).ok()).ok_or("The chain is empty.")?;
    if leaf != certificate {
        return Err("The certificate of the connection is not the leaf of the chain.".to_owned());
    }
    Ok(format!("certificate-{}", chain.len()))
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, 64 * 1024).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let request = Request::from_parts(head, body.to_vec());
    let path = request.uri().path().to_owned();
    state.now().paths.push(path.clone());
    let fault = state.now().fails.clone();
    if let Some((_, fault)) = fault.filter(|(at, _)| *at == path) {
        return fault.answer("").await;
    }
    let accounts = path.strip_prefix("/v1/projects/-/serviceAccounts/");
    let answer = match (request.method().as_str(), path.as_str(), accounts) {
        ("GET", "/", _) => Ok(("application/text", "computeMetadata/\n".to_owned())),
        ("GET", "/computeMetadata/v1/project/project-id", _) => Ok(("application/text", "project".to_owned())),
        ("GET", ..) => state.metadata(&request),
        ("POST", "/v1/token", _) => state.sts(&request).map(|body| ("application/json", body.to_string())),
        ("POST", _, Some(rest)) => state.iam(&request, rest).map(|body| ("application/json", body.to_string())),
        _ => Err((404, json!("nothing is here"))),
    };
    Ok(match answer {
        Ok((media, body)) => {
            let mut answer = fault::text(200, media, body);
            if path == "/" {
                answer.headers_mut().insert("metadata-flavor", HeaderValue::from_static("Google"));
            }
            answer
        }
        Err((status, body)) => fault::json(status, body.to_string()),
    })
}
