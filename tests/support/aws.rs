//! `FakeAws`: one AWS account in one region, with the endpoints that a workload uses.
//!
//! | path | what |
//! |---|---|
//! | `POST /` | STS, query protocol: `AssumeRoleWithWebIdentity` (the JWT's signature, `iss`, `aud`, `exp` and `sub` are verified), `GetWebIdentityToken` (the request's own signature is) |
//! | `PUT /latest/api/token`, `GET /latest/meta-data/…` | the metadata service of a machine, version 2 |
//! | `GET /v1/credentials` | the credentials endpoint of a container |
//! | `/.well-known/…` | the account's issuer, whose JWTs the others can verify |
//! | `POST /mcp` | an MCP server behind IAM: takes requests that are signed by a role of this account |
//!
//! The account signs its JWTs with ES256 for both algorithms, and records the requested one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request};
use serde_json::{Value, json};

use super::fault;
use super::keys::{self, Keys};
use super::leak;
use super::listener::{Answer, Bound, Listener};
use super::platform::Trust;
use super::sigv4::{self, Known, Scope};

pub const REGION: &str = "eu-central-1";
pub const ROLE: &str = "arn:aws:iam::123456789012:role/agent";
pub const SERVICE: &str = "bedrock-agentcore";
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

pub struct FakeAws {
    state: Arc<State>,
    _listener: Listener,
}

struct State {
    base: String,
    keys: Keys,
    container_token: String,
    now: Mutex<Now>,
}

/// The state that tests and requests change.
struct Now {
    /// The issuer and the subject that the role trusts.
    trusted: Option<(Trust, String)>,
    /// The role's complete trust policy, if one was set.
    policy: Option<Value>,
    sessions: HashMap<String, Session>,
    session_life: Duration,
    switched_on: bool,
    allowed: bool,
    calls: Vec<BTreeMap<String, String>>,
    metadata_token: Option<String>,
    served: Vec<String>,
}

struct Session {
    known: Known,
    ends: f64,
}

/// Status, code and message of STS.
type Refusal = (u16, &'static str, String);

impl FakeAws {
    pub async fn start() -> Self {
        let bound = Bound::new(None).await;
        let container_token = secret("container");
        let now = Now {
            trusted: None,
            policy: None,
            sessions: HashMap::new(),
            session_life: Duration::from_secs(3_600),
            switched_on: true,
            allowed: true,
            calls: Vec::new(),
            metadata_token: None,
            served: Vec::new(),
        };
        let keys = Keys::generate("account-key-1");
        let state = Arc::new(State { base: bound.base().to_owned(), keys, container_token, now: Mutex::new(now) });
        let shared = Arc::clone(&state);
        let listener = bound.serve(move |request| answer(Arc::clone(&shared), request));
        Self { state, _listener: listener }
    }

    pub fn base(&self) -> &str {
        &self.state.base
    }

    /// The MCP server behind IAM.
    pub fn mcp_url(&self) -> String {
        format!("{}/mcp", self.state.base)
    }

    /// What an authorization server needs to trust the account's issuer.
    pub fn trust(&self) -> Trust {
        Trust { issuer: self.state.base.clone(), verifier: self.state.keys.verifier() }
    }

    /// The variables of a container with a role.
    pub fn container(&self) -> Vec<(String, String)> {
        [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", self.state.base)),
            // A platform's own mark: tools for developers have such an endpoint too.
            ("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", "/greengrass/v2/ipc.socket".to_owned()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", self.state.container_token.clone()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL_STS", self.state.base.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Variables with keys of a session of the role.
    pub fn keys(&self) -> Vec<(String, String)> {
        let (name, key, session, _) = self.state.session();
        let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
        names.map(str::to_owned).into_iter().zip([name, key, session]).collect()
    }

    /// The role's trust policy.
    pub fn trust_identities(&self, trust: Trust, subject: &str) {
        self.state.now().trusted = Some((trust, subject.to_owned()));
    }

    /// The role's trust policy, in AWS's format. Only this policy decides on `aud` and `sub`.
    pub fn set_policy(&self, document: &Value) {
        self.state.now().policy = Some(document.clone());
    }

    /// The lifetime of credentials that the platform issues from now on.
    pub fn set_session_life(&self, life: Duration) {
        self.state.now().session_life = life;
    }

    /// The account's switch for outbound identity federation.
    pub fn switch(&self, on: bool) {
        self.state.now().switched_on = on;
    }

    /// Whether the role may call `sts:GetWebIdentityToken`.
    pub fn allow(&self, allowed: bool) {
        self.state.now().allowed = allowed;
    }

    /// Whose role signed this request of `GetCallerIdentity`, as a verifier learns it that has AWS answer it. The request is in
    /// Google's form, and `field` of its header must say `audience`, and be signed. Google only recommends the latter, and its
    /// library for Python does not do it.
    pub fn caller(&self, must_sign: bool) -> impl Fn(&str, &str, &str) -> Result<String, String> + Send + Sync + use<> {
        let state = Arc::clone(&self.state);
        move |text, field, audience| state.caller(text, field, audience, must_sign)
    }

    /// The calls of STS so far, without secrets.
    pub fn calls(&self) -> Vec<BTreeMap<String, String>> {
        self.state.now().calls.clone()
    }

    /// The bodies of requests that the MCP server accepted.
    pub fn served(&self) -> Vec<String> {
        self.state.now().served.clone()
    }
}

impl State {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().expect("never held over a panic")
    }

    /// New credentials of the role: key's name, key, token, end.
    fn session(&self) -> (String, String, String, String) {
        let mut now = self.now();
        let name = format!("ASIA{}", keys::unique_id().replace('-', "").to_uppercase());
        let (key, session) = (secret("key"), secret("session"));
        let ends = keys::now() + now.session_life.as_secs_f64();
        let known = Known { key: key.clone(), session: session.clone() };
        now.sessions.insert(name.clone(), Session { known, ends });
        let ends = jiff::Timestamp::from_second(ends as i64).expect("a time");
        (name, key, session, ends.to_string())
    }

    /// The name of the key that signed this request.
    fn signed(&self, head: &Parts, body: &[u8], service: &str) -> Result<String, Refusal> {
        let known = |name: &str| {
            let now = self.now();
            let session = now.sessions.get(name).filter(|session| session.ends > keys::now())?;
            Some(Known { key: session.known.key.clone(), session: session.known.session.clone() })
        };
        sigv4::judge(head, body, Scope { region: REGION, service }, known)
            .map_err(|why| (403, "SignatureDoesNotMatch", why))
    }

    fn caller(&self, text: &str, field: &str, audience: &str, must_sign: bool) -> Result<String, String> {
        leak::minted(text);
        let text: String = url::form_urlencoded::parse(format!("a={}", text.replace('+', "%2B")).as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default();
        let wire: Value = serde_json::from_str(&text).map_err(|_| "no JSON, percent-encoded")?;
        let wanted = format!("https://sts.{REGION}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15");
        if wire["url"] != json!(wanted) || wire["method"] != json!("POST") {
            return Err("another request than GetCallerIdentity".to_owned());
        }
        let mut request = Request::builder().method("POST").uri(wanted.replace("com?", "com/?"));
        let mut names = Vec::new();
        for header in wire["headers"].as_array().into_iter().flatten() {
            let (key, value) =
                (header["key"].as_str().unwrap_or_default(), header["value"].as_str().unwrap_or_default());
            names.push(key.to_ascii_lowercase());
            request = request.header(key, value);
        }
        names.sort_unstable();
        let mut known = ["authorization", "host", "x-amz-date", "x-amz-security-token", field];
        known.sort_unstable();
        if names != known {
            return Err(format!("fields of the header that are not wanted, or lack: {names:?}"));
        }
        let (head, ()) = request.body(()).map_err(|error| error.to_string())?.into_parts();
        let value = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if value("host") != format!("sts.{REGION}.amazonaws.com") {
            return Err("another host".to_owned());
        }
        let signed = value("authorization").split("SignedHeaders=").nth(1).unwrap_or_default();
        if must_sign && !signed.split(',').next().unwrap_or_default().split(';').any(|name| name == field) {
            return Err(format!("{field} is not signed"));
        }
        if value(field) != audience {
            return Err(format!("{field} names another"));
        }
        self.signed(&head, b"", "sts").map(|_| ROLE.to_owned()).map_err(|(.., why)| why)
    }

    fn assume(&self, head: &Parts, form: &BTreeMap<String, String>) -> Result<String, Refusal> {
        let given = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if head.headers.contains_key("authorization") {
            return Err((400, "ValidationError", "this call is not signed".to_owned()));
        }
        let session = given("RoleSessionName");
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
        if session.len() < 2 || session.len() > 64 || !session.bytes().all(fits) {
            return Err((400, "ValidationError", "roleSessionName does not fit".to_owned()));
        }
        let now = self.now();
        let Some((trust, subject)) = &now.trusted else {
            return Err((403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity".to_owned()));
        };
        let claims = trust
            .verifier
            .verify(given("WebIdentityToken"))
            .map_err(|why| (400, "InvalidIdentityToken", format!("Couldn't verify the token: {why}")))?;
        let unknown = "No OpenIDConnect provider found in your account for this issuer";
        if let Some(document) = &now.policy {
            allowed_by(document, &claims)?;
        }
        let subject = now.policy.as_ref().map_or(subject.as_str(), |_| claims["sub"].as_str().unwrap_or_default());
        let judged = [
            (claims["iss"] == json!(trust.issuer), 400, "InvalidIdentityToken", unknown),
            (claims["aud"] == json!("sts.amazonaws.com"), 400, "InvalidIdentityToken", "Incorrect token audience"),
            (claims["exp"].as_f64() > Some(keys::now()), 400, "ExpiredTokenException", "Token expired"),
            (
                claims["sub"] == json!(subject) && given("RoleArn") == ROLE,
                403,
                "AccessDenied",
                "Not authorized to perform sts:AssumeRoleWithWebIdentity",
            ),
        ];
        if let Some((_, status, code, why)) = judged.into_iter().find(|(fine, ..)| !fine) {
            return Err((status, code, why.to_owned()));
        }
        drop(now);
        let (name, key, token, ends) = self.session();
        let arn = format!("arn:aws:sts::123456789012:assumed-role/agent/{session}");
        Ok(format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"{NAMESPACE}\"><AssumeRoleWithWebIdentityResult>\
            <Credentials><AccessKeyId>{name}</AccessKeyId><SecretAccessKey>{key}</SecretAccessKey>\
            <SessionToken>{token}</SessionToken><Expiration>{ends}</Expiration></Credentials>\
            <AssumedRoleUser><AssumedRoleId>AROAEXAMPLE:{session}</AssumedRoleId><Arn>{arn}</Arn></AssumedRoleUser>\
            </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        ))
    }

    fn web_identity(&self, name: &str, form: &BTreeMap<String, String>) -> Result<String, Refusal> {
        let now = self.now();
        if !now.switched_on {
            let code = "OutboundWebIdentityFederationDisabledException";
            return Err((403, code, "Outbound web identity federation is not enabled for this account".to_owned()));
        }
        if !now.allowed {
            let what = format!("User: {ROLE} is not authorized to perform: sts:GetWebIdentityToken");
            return Err((403, "AccessDenied", what));
        }
        let audiences: Vec<&String> =
            form.iter().filter(|(name, _)| name.starts_with("Audience.member.")).map(|(_, value)| value).collect();
        let wrong = |what: &str| (400, "ValidationError", what.to_owned());
        let [audience] = audiences.as_slice() else { return Err(wrong("audience: not one")) };
        if !["RS256", "ES384"].contains(&form.get("SigningAlgorithm").map_or("", String::as_str)) {
            return Err(wrong("signingAlgorithm"));
        }
        let life: u64 =
            form.get("DurationSeconds").map_or(Ok(300), |text| text.parse()).map_err(|_| wrong("duration"))?;
        if !(60..=3_600).contains(&life) {
            return Err(wrong("durationSeconds must be between 60 and 3600"));
        }
        let rest = now.sessions.get(name).map_or(0.0, |session| session.ends - keys::now());
        if life as f64 > rest + 1.0 {
            let code = "SessionDurationEscalationException";
            return Err((403, code, "The requested duration would extend the session".to_owned()));
        }
        let (iat, exp) = keys::lifetime(Duration::from_secs(life));
        let own = json!({"aws_account": "123456789012", "source_region": REGION, "org_id": "o-abcdefghij"});
        let claims = json!({
            "iss": self.base, "sub": ROLE, "aud": audience, "iat": iat, "exp": exp, "jti": keys::unique_id(),
            "https://sts.amazonaws.com/": own,
        });
        let jwt = self.keys.sign("JWT", &keys::object(claims));
        leak::minted(&jwt);
        Ok(format!(
            "<GetWebIdentityTokenResponse xmlns=\"{NAMESPACE}\"><GetWebIdentityTokenResult>\
            <WebIdentityToken>{jwt}</WebIdentityToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
            </GetWebIdentityTokenResult></GetWebIdentityTokenResponse>"
        ))
    }

    fn sts(&self, head: &Parts, body: &[u8]) -> Result<String, Refusal> {
        let mut form: BTreeMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
        // Some of AWS's own libraries add the character set.
        let media = head.headers.get("content-type").and_then(|value| value.to_str().ok());
        let media = media.and_then(|media| media.split(';').next());
        if media != Some("application/x-www-form-urlencoded")
            || form.get("Version").is_none_or(|one| one != "2011-06-15")
        {
            return Err((400, "MalformedInput", "not the query protocol".to_owned()));
        }
        let action = form.get("Action").cloned().unwrap_or_default();
        let outcome = match action.as_str() {
            "AssumeRoleWithWebIdentity" => self.assume(head, &form),
            "GetWebIdentityToken" => self.signed(head, body, "sts").and_then(|name| self.web_identity(&name, &form)),
            other => Err((400, "InvalidAction", format!("Could not find operation {other}"))),
        };
        form.remove("WebIdentityToken");
        let said = outcome.as_ref().map_or_else(|(_, code, _)| (*code).to_owned(), |_| "ok".to_owned());
        form.insert("outcome".to_owned(), said);
        self.now().calls.push(form);
        outcome
    }

    /// The metadata service of the machine.
    fn metadata(&self, head: &Parts) -> Result<String, u16> {
        let field = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let token = self.now().metadata_token.clone();
        if field("x-aws-ec2-metadata-token").is_none() || field("x-aws-ec2-metadata-token") != token.as_deref() {
            return Err(401);
        }
        match head.uri.path() {
            "/latest/meta-data/placement/region" => Ok(REGION.to_owned()),
            ROLES => Ok("agent".to_owned()),
            path if path.strip_prefix(ROLES) == Some("agent") => Ok(self.keys_document(Some("Success"))),
            _ => Err(404),
        }
    }

    fn keys_document(&self, code: Option<&str>) -> String {
        let (name, key, token, ends) = self.session();
        let mut document = json!({"AccessKeyId": name, "SecretAccessKey": key, "Token": token, "Expiration": ends});
        if let Some(code) = code {
            document["Code"] = json!(code);
        }
        document.to_string()
    }

    fn behind_iam(&self, head: &Parts, body: &[u8]) -> Result<String, Refusal> {
        self.signed(head, body, SERVICE)?;
        let call: Value = serde_json::from_slice(body).map_err(|_| (400, "ValidationError", "no JSON".to_owned()))?;
        self.now().served.push(String::from_utf8_lossy(body).into_owned());
        Ok(json!({"jsonrpc": "2.0", "id": call["id"], "result": {}}).to_string())
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, 64 * 1024).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path();
    let field = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let ttl = "x-aws-ec2-metadata-token-ttl-seconds";
    Ok(match (&head.method, path) {
        (&Method::POST, "/") => match state.sts(&head, &body) {
            Ok(text) => fault::text(200, "text/xml", text),
            Err((status, code, message)) => fault::text(
                status,
                "text/xml",
                format!(
                    "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type><Code>{code}</Code>\
                    <Message>{message}</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
                ),
            ),
        },
        (&Method::POST, path) if path == "/mcp" || path.starts_with("/mcp/") => match state.behind_iam(&head, &body) {
            Ok(text) => fault::json(200, text),
            Err((status, code, message)) => fault::json(status, json!({"code": code, "message": message}).to_string()),
        },
        (&Method::PUT, "/latest/api/token") if field(ttl).is_some() => {
            let token = secret("metadata");
            state.now().metadata_token = Some(token.clone());
            let mut reply = fault::text(200, "text/plain", token);
            reply.headers_mut().insert(ttl, head.headers[ttl].clone());
            reply
        }
        (&Method::GET, path) if path.starts_with("/latest/meta-data/") => match state.metadata(&head) {
            Ok(text) => fault::text(200, "text/plain", text),
            Err(status) => fault::text(status, "text/plain", ""),
        },
        (&Method::GET, "/v1/credentials") if field("authorization") == Some(&state.container_token) => {
            fault::json(200, state.keys_document(None))
        }
        (&Method::GET, "/.well-known/openid-configuration") => {
            let jwks = format!("{}/.well-known/jwks.json", state.base);
            fault::json(200, json!({"issuer": state.base, "jwks_uri": jwks}).to_string())
        }
        (&Method::GET, "/.well-known/jwks.json") => fault::json(200, state.keys.verifier().jwks().to_string()),
        (method, path) => fault::json(404, json!({"message": format!("{method} {path} is nothing here")}).to_string()),
    })
}

fn secret(name: &str) -> String {
    let secret = format!("{name}-secret-{}", keys::unique_id());
    leak::minted(&secret);
    secret
}

/// AWS, "Policy evaluation logic": every operator, and in it every key, must hold.
fn allowed_by(document: &Value, claims: &keys::Claims) -> Result<(), Refusal> {
    let refused = || (403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity".to_owned());
    let statement = &document["Statement"][0];
    let issuer = claims["iss"].as_str().and_then(|iss| iss.split_once("://")).map_or("", |(_, rest)| rest);
    let federated = statement["Principal"]["Federated"].as_str().unwrap_or_default();
    let is_web_identity = statement["Action"] == "sts:AssumeRoleWithWebIdentity" && statement["Effect"] == "Allow";
    if !is_web_identity || federated.split_once(":oidc-provider/").map(|(_, provider)| provider) != Some(issuer) {
        return Err(refused());
    }
    let conditions = statement["Condition"].as_object().ok_or_else(refused)?;
    for (operator, keys) in conditions {
        for (key, wanted) in keys.as_object().ok_or_else(refused)? {
            let name = key.strip_prefix(issuer).and_then(|rest| rest.strip_prefix(':')).ok_or_else(refused)?;
            let (found, wanted) = (claims[name].as_str().unwrap_or_default(), wanted.as_str().unwrap_or_default());
            let holds = match operator.as_str() {
                "StringEquals" => found == wanted,
                "StringLike" => wanted.strip_suffix('*').is_some_and(|start| found.starts_with(start)),
                _ => false,
            };
            if !holds {
                return Err(refused());
            }
        }
    }
    Ok(())
}
