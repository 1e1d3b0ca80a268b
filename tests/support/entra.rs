//! `FakeEntra`: the token endpoint of a tenant, for applications with federated credentials, agents and managed identities.
//!
//! Every assertion's signature, `iss`, `sub`, `aud` and `exp` is verified against the credentials of the client that it came
//! for, exactly; parameters that Entra does not take are refused. Its refusals have Microsoft's codes and sentences.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request};
use serde_json::{Value, json};

use super::fault;
use super::keys::{self, Claims, Keys, Verifier};
use super::leak;
use super::listener::{Answer, Bound, Listener};
use super::platform::Trust;
use super::stand_in::StandIn;

pub const TENANT: &str = "00000000-0000-0000-0000-000000000000";
/// The audience of federated tokens, and the id of that audience in Entra's own tokens.
pub const EXCHANGE: &str = "api://AzureADTokenExchange";
pub const EXCHANGE_ID: &str = "fb60f99c-7a34-4190-8149-302f77469936";
/// The object id of the managed identity.
pub const MANAGED: &str = "99999999-9999-9999-9999-999999999999";

/// The hosts of the public cloud and of the government's cloud.
const HOSTS: [&str; 2] = ["login.microsoftonline.com", "login.microsoftonline.us"];
const LIFE: Duration = Duration::from_secs(3_600);
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const TAKEN: [&str; 7] =
    ["grant_type", "client_id", "scope", "client_assertion_type", "client_assertion", "client_secret", "fmi_path"];

pub struct FakeEntra {
    state: Arc<State>,
    stand_in: StandIn,
    _listener: Listener,
}

struct State {
    keys: Keys,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    /// By client id.
    clients: BTreeMap<String, Vec<Credential>>,
    secrets: BTreeMap<String, String>,
    /// The blueprint of each agent.
    agents: BTreeMap<String, String>,
    /// The `aud` of tokens for each target.
    targets: BTreeMap<String, String>,
    seen: Vec<Seen>,
}

/// A federated identity credential.
#[derive(Clone)]
struct Credential {
    trust: Trust,
    subject: String,
    audience: String,
}

/// A request and its outcome.
#[derive(Clone, Debug)]
pub struct Seen {
    pub client: String,
    pub scope: String,
    pub agent: Option<String>,
    /// `sub` of the assertion, unverified.
    pub subject: String,
    /// `ok`, or the code.
    pub outcome: String,
}

/// Microsoft's code, the OAuth error it comes with, and its sentence.
type Refusal = (&'static str, &'static str, &'static str);

impl FakeEntra {
    pub async fn start() -> Self {
        let bound = Bound::new(None).await;
        let stand_in = StandIn::before(&HOSTS, bound.base()).await;
        let now = Mutex::new(Now::default());
        let state = Arc::new(State { keys: Keys::generate("entra-key-1"), now });
        let shared = Arc::clone(&state);
        let listener = bound.serve(move |request| answer(Arc::clone(&shared), request));
        Self { state, stand_in, _listener: listener }
    }

    /// The keys of `[egress]` that make it replace the hosts of the clouds.
    pub fn egress(&self) -> String {
        self.egress_below(None)
    }

    /// The same for a daemon with this root directory.
    pub fn egress_below(&self, root: Option<&Path>) -> String {
        self.stand_in.egress(root)
    }

    /// The issuer of its tokens.
    pub fn trust(&self) -> Trust {
        Trust { issuer: self.state.issuer(), verifier: self.state.keys.verifier() }
    }

    /// Adds a federated credential to an application.
    pub fn federate(&self, client: &str, trust: Trust, subject: &str) {
        let credential = Credential { trust, subject: subject.to_owned(), audience: EXCHANGE.to_owned() };
        self.state.now().clients.entry(client.to_owned()).or_default().push(credential);
    }

    /// The same, from the content of a file for `az ad app federated-credential create`.
    pub fn federate_by(&self, client: &str, verifier: Verifier, credential: &Value) {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let trust = Trust { issuer: text(&credential["issuer"]), verifier };
        let credential =
            Credential { trust, subject: text(&credential["subject"]), audience: text(&credential["audiences"][0]) };
        self.state.now().clients.insert(client.to_owned(), vec![credential]);
    }

    /// Gives an application this secret.
    pub fn secret(&self, client: &str, secret: &str) {
        self.register(client);
        self.state.now().secrets.insert(client.to_owned(), secret.to_owned());
    }

    /// Adds an application without a credential.
    pub fn register(&self, client: &str) {
        self.state.now().clients.entry(client.to_owned()).or_default();
    }

    /// Makes the application the blueprint of an agent.
    pub fn agent(&self, agent: &str, blueprint: &str) {
        self.state.now().agents.insert(agent.to_owned(), blueprint.to_owned());
    }

    /// Adds a target: its name in scopes, and the `aud` of its tokens.
    pub fn target(&self, name: &str, aud: &str) {
        self.state.now().targets.insert(name.to_owned(), aud.to_owned());
    }

    /// The token of the managed identity for a target, as from the metadata service.
    pub fn managed(&self, target: &str) -> String {
        let aud = if target == EXCHANGE { EXCHANGE_ID } else { &self.state.now().targets[target].clone() };
        self.state.mint(json!({"sub": MANAGED, "oid": MANAGED, "aud": aud}))
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.now().seen.clone()
    }

    /// The claims of a token, if it was issued here.
    pub fn verified(&self, token: &str) -> Claims {
        self.state.keys.verifier().verify(token).expect("a token of this tenant")
    }
}

impl State {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().expect("never held over a panic")
    }

    fn issuer(&self) -> String {
        format!("https://{}/{TENANT}/v2.0", HOSTS[0])
    }

    fn mint(&self, more: Value) -> String {
        let (iat, exp) = keys::lifetime(LIFE);
        let mut claims = keys::object(json!({
            "iss": self.issuer(), "iat": iat, "nbf": iat, "exp": exp, "tid": TENANT, "ver": "2.0", "uti": keys::unique_id(),
        }));
        keys::overlay(&mut claims, &more);
        let token = self.keys.sign("JWT", &claims);
        leak::minted(&token);
        token
    }

    /// The token, or why there is none.
    fn judge(&self, form: &BTreeMap<String, String>) -> Result<String, Refusal> {
        let value = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if form.contains_key("resource") {
            return Err((
                "invalid_target",
                "AADSTS9010010",
                "The resource parameter provided in the request doesn't match with the requested scopes.",
            ));
        }
        if let Some(other) = form.keys().find(|name| !TAKEN.contains(&name.as_str())) {
            panic!("Entra was sent {other}");
        }
        if value("grant_type") != "client_credentials" {
            return Err(("invalid_request", "AADSTS82001", "Agentic application is not permitted to use this grant."));
        }
        let client = value("client_id");
        if client.is_empty() {
            return Err((
                "invalid_request",
                "AADSTS900144",
                "The request body must contain the following parameter: 'client_id'.",
            ));
        }
        let scope = value("scope");
        let target = scope.strip_suffix("/.default").filter(|target| !target.is_empty() && !scope.contains(' '));
        let target = target.ok_or((
            "invalid_scope",
            "AADSTS1002012",
            "The provided value for scope is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).",
        ))?;
        self.authenticate(client, form)?;
        let is_blueprint = self.now().agents.values().any(|blueprint| blueprint == client);
        if let Some(agent) = form.get("fmi_path") {
            if target != EXCHANGE || self.now().agents.get(agent).map(String::as_str) != Some(client) {
                return Err(("invalid_request", "AADSTS82000", "The agent identity is not of this blueprint."));
            }
            return Ok(self.mint(json!({"sub": path(client, agent), "aud": EXCHANGE_ID, "azp": client})));
        }
        if is_blueprint {
            return Err((
                "invalid_request",
                "AADSTS82001",
                "Agentic application is not permitted to request app-only tokens.",
            ));
        }
        let aud = self.now().targets.get(target).cloned().ok_or((
            "invalid_resource",
            "AADSTS500011",
            "The resource principal named X was not found in the tenant named Contoso.",
        ))?;
        Ok(self.mint(json!({"sub": client, "oid": client, "azp": client, "aud": aud, "roles": ["Tools.Call"]})))
    }

    /// Checks that the assertion matches a credential of this client.
    fn authenticate(&self, client: &str, form: &BTreeMap<String, String>) -> Result<(), Refusal> {
        let assertion = form.get("client_assertion").cloned().unwrap_or_default();
        let wrong = |code, text| ("invalid_client", code, text);
        if let Some(secret) = form.get("client_secret") {
            let is_right = self.now().secrets.get(client) == Some(secret) && assertion.is_empty();
            return if is_right { Ok(()) } else { Err(wrong("AADSTS7000215", "Invalid client secret provided.")) };
        }
        if form.get("client_assertion_type").map(String::as_str) != Some(JWT_BEARER)
            || jsonwebtoken::decode_header(&assertion).is_err()
        {
            return Err(wrong("AADSTS50027", "JWT token is invalid or malformed."));
        }
        let credentials = self.credentials(client).ok_or((
            "unauthorized_client",
            "AADSTS700016",
            "Application with identifier X was not found in the directory Contoso.",
        ))?;
        if credentials.is_empty() {
            return Err(wrong("AADSTS70025", "The client has no configured federated identity credentials."));
        }
        let claimed = keys::peek(&assertion);
        let is = |name: &str, wanted: &str| claimed.get(name).and_then(Value::as_str) == Some(wanted);
        let of_issuer: Vec<_> = credentials.into_iter().filter(|one| is("iss", &one.trust.issuer)).collect();
        if of_issuer.is_empty() {
            return Err(wrong(
                "AADSTS700211",
                "No matching federated identity record found for presented assertion issuer.",
            ));
        }
        let of_subject: Vec<_> = of_issuer.into_iter().filter(|one| is("sub", &one.subject)).collect();
        let one = of_subject.first().ok_or_else(|| {
            wrong("AADSTS700213", "No matching federated identity record found for presented assertion subject.")
        })?;
        // Its own tokens contain the id of the target application.
        let by_id = one.trust.issuer == self.issuer() && one.audience == EXCHANGE;
        if !is("aud", if by_id { EXCHANGE_ID } else { &one.audience }) {
            return Err(wrong(
                "AADSTS700212",
                "No matching federated identity record found for presented assertion audience.",
            ));
        }
        if one.trust.verifier.verify(&assertion).is_err() {
            return Err(wrong("AADSTS700027", "Client assertion failed signature validation."));
        }
        let time = |name: &str| claimed.get(name).and_then(Value::as_f64);
        if time("exp").is_none_or(|exp| exp <= keys::now()) || time("nbf").is_some_and(|nbf| nbf > keys::now()) {
            return Err(wrong("AADSTS700024", "Client assertion is not within its valid time range."));
        }
        Ok(())
    }

    fn credentials(&self, client: &str) -> Option<Vec<Credential>> {
        let now = self.now();
        if let Some(blueprint) = now.agents.get(client) {
            let trust = Trust { issuer: self.issuer(), verifier: self.keys.verifier() };
            return Some(vec![Credential { trust, subject: path(blueprint, client), audience: EXCHANGE.to_owned() }]);
        }
        now.clients.get(client).cloned()
    }
}

/// The subject of an agent in the assertion that its blueprint gets for it.
fn path(blueprint: &str, agent: &str) -> String {
    format!("/eid1/c/pub/t/{TENANT}/a/{blueprint}/{agent}")
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Answer {
    if request.method() != Method::POST || request.uri().path() != format!("/{TENANT}/oauth2/v2.0/token") {
        let text = "AADSTS90002: Tenant X not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.";
        return Ok(fault::json(400, json!({"error": "invalid_request", "error_description": text}).to_string()));
    }
    let body = Limited::new(request.into_body(), 64 * 1024).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let mut form = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(&body).into_owned() {
        assert!(form.insert(name.clone(), value).is_none(), "{name} is there twice");
    }
    let text = |name: &str| form.get(name).cloned().unwrap_or_default();
    let assertion = text("client_assertion");
    for secret in [&assertion, &text("client_secret")].into_iter().filter(|text| !text.is_empty()) {
        leak::minted(secret);
    }
    let claims = jsonwebtoken::decode_header(&assertion).map(|_| keys::peek(&assertion)).unwrap_or_default();
    let verdict = state.judge(&form);
    state.now().seen.push(Seen {
        client: text("client_id"),
        scope: text("scope"),
        agent: form.get("fmi_path").cloned(),
        subject: claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned(),
        outcome: verdict.as_ref().map_or_else(|(_, code, _)| (*code).to_owned(), |_| "ok".to_owned()),
    });
    Ok(match verdict {
        Ok(token) => {
            let life = LIFE.as_secs() - 1;
            let body =
                json!({"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token});
            fault::json(200, body.to_string())
        }
        Err((error, code, text)) => {
            let status = if error == "invalid_client" { 401 } else { 400 };
            let text = format!("{code}: {text} Trace ID: 0 Correlation ID: 0");
            let number: u64 = code.trim_start_matches("AADSTS").parse().expect("a number");
            fault::json(status, json!({"error": error, "error_description": text, "error_codes": [number]}).to_string())
        }
    })
}
