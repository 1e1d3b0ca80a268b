//! The token endpoint: RFC 7523 sections 2.1 and 2.2 and RFC 8693, verified to the letter.
//!
//! Order of checks: the form, the grant, the assertion (signature, `iss`, `sub`, `aud`, times, `jti`), the resource, the scopes.
//! An assertion that passes is spent, even if the resource or the scopes are then refused.

use std::collections::BTreeMap;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use super::super::fault;
use super::super::keys::{self, Claims};
use super::super::leak;
use super::super::listener::{Answer, Body};
use super::clients::{self, Sender};
use super::{JWT_BEARER, State, TOKEN_EXCHANGE, TokenFault, TokenRequest, Words, broken};

type Form = BTreeMap<String, String>;

const BODY_LIMIT: usize = 64 * 1024;
/// A description that attacks a terminal and a CI runner.
const HOSTILE: &str = "first line\r\n::add-mask::second\u{1b}[31m red \u{7}\u{0}##vso[task.complete]\u{202e}end";

const AWS_TYPE: &str = "urn:ietf:params:aws:token-type:aws4_request";
const SECRETS: [&str; 4] = ["assertion", "client_assertion", "client_secret", "subject_token"];
const SPIFFE_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:id_token";
const ID_JAG_TYPE: &str = "urn:ietf:params:oauth:token-type:id-jag";
const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";

/// An OAuth error for the answer.
pub(super) struct Refusal {
    nonce: Option<String>,
    status: u16,
    code: String,
    description: Option<String>,
    uri: Option<String>,
}

/// The outcome of an accepted request.
struct Grant {
    /// The `issued_token_type`, for a token exchange only.
    issued: Option<&'static str>,
    /// The client that proved itself.
    client: Option<String>,
    /// The key that the token is bound to.
    thumbprint: Option<String>,
    /// The certificate that the token is bound to.
    certificate: Option<String>,
    /// The audience of a link's JWT.
    audience: Option<String>,
    subject: String,
    resource: String,
    scope: String,
}

impl Refusal {
    pub(super) fn new(code: &str, description: &str) -> Self {
        let status = if code == "invalid_client" { 401 } else { 400 };
        Self { nonce: None, status, code: code.to_owned(), description: Some(description.to_owned()), uri: None }
    }

    /// Adds the nonce that the next proof must have.
    pub(super) fn with_nonce(self, nonce: Option<&str>) -> Self {
        Self { nonce: nonce.map(str::to_owned), ..self }
    }

    /// The error with the message of this kind of server.
    fn in_words(self, words: &[Words]) -> Self {
        let said = self.description.as_deref().unwrap_or_default();
        match words.iter().find(|words| said.starts_with(words.ours)) {
            Some(words) => Self {
                status: words.status,
                code: words.code.to_owned(),
                description: Some(words.text.to_owned()),
                ..self
            },
            None => self,
        }
    }

    pub(super) fn into_answer(self) -> Response<Body> {
        let mut body = Claims::new();
        body.insert("error".to_owned(), self.code.into());
        body.extend(self.description.map(|text| ("error_description".to_owned(), text.into())));
        body.extend(self.uri.map(|uri| ("error_uri".to_owned(), uri.into())));
        let mut answer = fault::json(self.status, Value::Object(body).to_string());
        clients::add_nonce(&mut answer, self.nonce.as_deref());
        answer
    }
}

pub(super) async fn answer(state: &State, request: Request<Incoming>) -> Answer {
    state.now().token_requests += 1;
    let script = state.token_script.next();
    let mut record = TokenRequest {
        params: Form::new(),
        assertion: Claims::new(),
        authorization: request.headers().contains_key("authorization"),
        outcome: script.as_ref().map_or_else(|| "ok".to_owned(), |fault| format!("{fault:?}")),
    };
    let sender = Sender::of(&request);
    let form = read_form(request).await;
    if let Ok(form) = &form {
        (record.params, record.assertion) = public_part(form);
    }
    // A fault without a body does not read the request, so the assertion is not used up. A fault with a body reads it, so the same
    // assertion is refused next time.
    let verdict = match script.clone() {
        Some(TokenFault::Wire(fault)) if !fault.needs_body() => {
            state.now().received.push(record);
            return fault.answer("").await;
        }
        Some(TokenFault::OauthError { code, description, uri }) => {
            Err(Refusal { description, uri, ..Refusal::new(&code, "") })
        }
        Some(TokenFault::ControlCharsInDescription) => Err(Refusal::new("invalid_grant", HOSTILE)),
        _ => {
            let words = state.now().profile.words;
            form.and_then(|form| judge(state, &sender, &form)).map_err(|refusal| refusal.in_words(words))
        }
    };
    if let Err(refusal) = &verdict {
        refusal.code.clone_into(&mut record.outcome);
    }
    state.now().received.push(record);
    match (verdict, script) {
        (Err(refusal), _) => Ok(refusal.into_answer()),
        (Ok(grant), Some(TokenFault::Wire(fault))) => fault.answer(&issue(state, &grant, None)).await,
        (Ok(grant), script) => {
            let mut answer = fault::json(200, issue(state, &grant, script));
            clients::add_nonce(&mut answer, state.now().clients.nonce.as_deref());
            Ok(answer)
        }
    }
}

/// The form, if its size is reasonable and no parameter is repeated (RFC 6749 3.2).
pub(super) async fn read_form(request: Request<Incoming>) -> Result<Form, Refusal> {
    let invalid = |text: &str| Refusal::new("invalid_request", text);
    if request.method() != Method::POST {
        return Err(Refusal { status: 405, ..invalid("POST only") });
    }
    if request.uri().query().is_some() {
        return Err(invalid("parameters belong into the body"));
    }
    let content_type = request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.split(';').next().map(str::trim) != Some("application/x-www-form-urlencoded") {
        return Err(invalid("the body must be a form"));
    }
    let body = Limited::new(request.into_body(), BODY_LIMIT).collect().await;
    let body = body.map_err(|error| invalid(&broken(error).to_string()))?.to_bytes();
    let mut form = Form::new();
    for (name, value) in url::form_urlencoded::parse(&body).into_owned() {
        if form.insert(name.clone(), value).is_some() {
            return Err(invalid(&format!("{name} is there twice")));
        }
    }
    Ok(form)
}

/// The parameters, with digests of the secret ones, and the unverified claims of the assertion.
fn public_part(form: &Form) -> (Form, Claims) {
    for secret in SECRETS.iter().filter_map(|name| form.get(*name)).filter(|secret| secret.len() >= 16) {
        leak::minted(secret);
    }
    let claims = ["assertion", "client_assertion", "subject_token"]
        .iter()
        .find_map(|name| form.get(*name))
        .filter(|jwt| jsonwebtoken::decode_header(jwt).is_ok())
        .map(|jwt| keys::peek(jwt));
    let shown = |(name, value): (&String, &String)| match SECRETS.contains(&name.as_str()) {
        true => (name.clone(), keys::digest(value)),
        false => (name.clone(), value.clone()),
    };
    (form.iter().map(shown).collect(), claims.unwrap_or_default())
}

fn value<'a>(form: &'a Form, name: &str) -> Option<&'a str> {
    form.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

fn needed<'a>(form: &'a Form, name: &str) -> Result<&'a str, Refusal> {
    value(form, name).ok_or_else(|| invalid(&format!("{name} is missing")))
}

fn invalid(text: &str) -> Refusal {
    Refusal::new("invalid_request", text)
}

/// The subject of a client that proves itself only with the platform's JWT.
fn federated_client(state: &State, form: &Form) -> Result<String, Refusal> {
    if form.contains_key("assertion") {
        return Err(invalid("a client proves itself with one JWT here"));
    }
    let assertion = needed(form, "client_assertion")?;
    let profile = state.now().profile.clone();
    let claimed = jsonwebtoken::decode_header(assertion).map(|_| keys::peek(assertion)).unwrap_or_default();
    let is_svid = claimed.get("sub").and_then(Value::as_str).is_some_and(|sub| sub.starts_with("spiffe://"));
    let wanted = if is_svid && !profile.knows_no_svids { SPIFFE_ASSERTION } else { CLIENT_ASSERTION };
    if needed(form, "client_assertion_type")? != wanted {
        return Err(invalid(&format!("client_assertion_type is not {wanted}")));
    }
    let subject = judge_assertion(state, assertion).map_err(|why| Refusal::new("invalid_client", &why))?;
    let federated = state.now().federated.clone();
    if profile.finds_clients_by_subject {
        if value(form, "client_id").is_some_and(|id| id != subject) {
            return Err(Refusal::new("invalid_client", "client_id is not sub"));
        }
        let is_known = federated.values().any(|bound| *bound == subject);
        return is_known.then_some(subject).ok_or_else(|| Refusal::new("invalid_client", "no client has that subject"));
    }
    match value(form, "client_id") {
        Some(id) if federated.get(id) != Some(&subject) => {
            Err(Refusal::new("invalid_client", "this client is not federated with that subject"))
        }
        None if !federated.is_empty() => Err(invalid("client_id is missing")),
        _ => Ok(subject),
    }
}

/// Subject and issued type of a token exchange (RFC 8693).
fn exchanged(state: &State, form: &Form) -> Result<(String, Option<&'static str>), Refusal> {
    let connector = state.now().profile.connector;
    if let Some(connector) = connector {
        return connected(state, form, connector);
    }
    let aws = state.now().aws.clone();
    let judged = match (needed(form, "subject_token_type")?, aws) {
        (JWT_TYPE, _) => judge_assertion(state, needed(form, "subject_token")?),
        (AWS_TYPE, Some(caller)) => caller(needed(form, "subject_token")?, &state.issuer()),
        _ => return Err(invalid("subject_token_type is not one that is taken here")),
    };
    let kind = value(form, "requested_token_type").unwrap_or(ACCESS_TOKEN_TYPE);
    let kind = [ACCESS_TOKEN_TYPE, JWT_TYPE, ID_JAG_TYPE].into_iter().find(|known| *known == kind);
    let kind = kind.ok_or_else(|| invalid("nothing of that type is issued"))?;
    let wanted = state.now().audience.clone();
    if wanted.as_deref() != value(form, "audience") {
        return Err(Refusal::new("invalid_target", "audience is not the one that is served here"));
    }
    Ok((judged.map_err(|why| invalid(&why))?, Some(kind)))
}

/// A token exchange at Dex. A connector takes what its issuer signed.
fn connected(state: &State, form: &Form, connector: &str) -> Result<(String, Option<&'static str>), Refusal> {
    if ![ID_TOKEN_TYPE, ACCESS_TOKEN_TYPE].contains(&value(form, "subject_token_type").unwrap_or_default()) {
        return Err(Refusal::new("request_not_supported", "Invalid subject_token_type."));
    }
    let subject_token = value(form, "subject_token").ok_or_else(|| invalid("Missing subject_token"))?;
    if value(form, "connector_id") != Some(connector) {
        return Err(invalid("Requested connector does not exist."));
    }
    let subject = judge_assertion(state, subject_token);
    let subject =
        subject.map_err(|_| Refusal { status: 401, description: None, ..Refusal::new("access_denied", "") })?;
    let kind = value(form, "requested_token_type").unwrap_or(ACCESS_TOKEN_TYPE);
    let kind = [ID_TOKEN_TYPE, ACCESS_TOKEN_TYPE].into_iter().find(|known| *known == kind);
    let kind = kind.ok_or_else(|| Refusal::new("request_not_supported", "Invalid requested_token_type."))?;
    Ok((subject, Some(kind)))
}

/// The `aud` of a token of Dex: the client, or another one that the scopes name and that trusts this client.
fn audience_at_dex(form: &Form, client: Option<&str>) -> String {
    let scopes = value(form, "scope").unwrap_or_default().split(' ');
    let other = scopes.filter_map(|scope| scope.strip_prefix("audience:server:client_id:")).next();
    other.or(client).unwrap_or_default().to_owned()
}

fn judge(state: &State, sender: &Sender, form: &Form) -> Result<Grant, Refusal> {
    let value = |name: &str| value(form, name);
    let needed = |name: &str| needed(form, name);
    let thumbprint = clients::possession(state, sender)?;
    let profile = state.now().profile.clone();
    if profile.wants_proof && thumbprint.is_none() {
        return Err(Refusal::new("invalid_dpop_proof", "the DPoP proof is missing"));
    }
    if profile.only_grant.is_some_and(|grant| value("grant_type") != Some(grant)) {
        return Err(Refusal::new("unauthorized_client", "this grant is not allowed"));
    }
    let client = clients::authenticate(state, sender, form)?;
    let certificate = clients::certificate(state, sender);
    if client.is_none() && state.now().clients.required {
        return Err(Refusal::new("invalid_client", "no client proved itself"));
    }
    let (subject, issued) = match needed("grant_type")? {
        JWT_BEARER => {
            let subject = judge_assertion(state, needed("assertion")?);
            (subject.map_err(|why| Refusal::new("invalid_grant", &why))?, None)
        }
        "client_credentials" => (client.clone().map_or_else(|| federated_client(state, form), Ok)?, None),
        TOKEN_EXCHANGE => exchanged(state, form)?,
        _ => return Err(Refusal::new("unsupported_grant_type", "this grant is not spoken here")),
    };
    if profile.connector.is_some() {
        let (resource, scope) = (audience_at_dex(form, client.as_deref()), String::new());
        return Ok(Grant { issued, client, thumbprint, certificate, audience: None, subject, resource, scope });
    }
    if issued.is_some_and(|kind| kind != ACCESS_TOKEN_TYPE) {
        let text = |name: &str| value(name).unwrap_or_default().to_owned();
        let (resource, scope, audience) = (text("resource"), text("scope"), Some(text("audience")));
        return Ok(Grant { issued, client, thumbprint, certificate, audience, subject, resource, scope });
    }
    if let Some((resource, scope)) = profile.target(form)? {
        return Ok(Grant { issued, client, thumbprint, certificate, audience: None, subject, resource, scope });
    }
    let now = state.now();
    let only = now.resources.keys().next().filter(|_| now.resource_optional && now.resources.len() == 1);
    let resource = value("resource").or_else(|| only.map(String::as_str));
    let resource = resource.ok_or_else(|| Refusal::new("invalid_target", "resource is missing"))?;
    let Some(allowed) = now.resources.get(resource) else {
        return Err(Refusal::new("invalid_target", "no such resource is registered, byte for byte"));
    };
    let scope = value("scope").map_or_else(|| allowed.join(" "), str::to_owned);
    let scope = if profile.grants_no_scope { String::new() } else { scope };
    if let Some(foreign) = scope.split_whitespace().find(|scope| !allowed.iter().any(|known| known == scope)) {
        return Err(Refusal::new("invalid_scope", &format!("{foreign:?} is not a scope of this resource")));
    }
    let resource = resource.to_owned();
    Ok(Grant { issued, client, thumbprint, certificate, audience: None, subject, resource, scope })
}

/// RFC 7523 section 3, with `aud` as one string and a `jti` as the MCP workload identity profile wants them. Gives the subject.
fn judge_assertion(state: &State, assertion: &str) -> Result<String, String> {
    let issuer = state.issuer();
    let mut now = state.now();
    let claimed =
        jsonwebtoken::decode_header(assertion).map(|_| keys::peek(assertion)).map_err(|e| format!("assertion: {e}"))?;
    let trusted = now.trusted.iter().find(|trust| claimed.get("iss") == Some(&json!(trust.issuer)));
    let claims = trusted.ok_or("iss is not trusted here")?.verifier.verify(assertion)?;

    let text =
        |name: &str| claims.get(name).and_then(Value::as_str).ok_or_else(|| format!("{name} is missing or no string"));
    let time =
        |name: &str| claims.get(name).and_then(Value::as_f64).ok_or_else(|| format!("{name} is missing or no number"));
    let here = keys::now();
    let profile = now.profile.clone();
    let listed = claims.get("aud").and_then(Value::as_array).filter(|_| profile.audience_in_list);
    let audience = match listed.map(Vec::as_slice) {
        Some([only]) => only.as_str().unwrap_or_default(),
        _ => text("aud")?,
    };
    if audience != profile.assertion_audience.as_ref().unwrap_or(&issuer) {
        return Err("aud is not exactly this issuer".to_owned());
    }
    if time("exp")? <= here {
        return Err("exp has passed".to_owned());
    }
    if time("iat")? > here || (claims.contains_key("nbf") && time("nbf")? > here) {
        return Err("iat or nbf is ahead".to_owned());
    }
    let typ = jsonwebtoken::decode_header(assertion).ok().and_then(|header| header.typ);
    if profile.wants_typ.is_some() && profile.wants_typ != typ.as_deref() {
        return Err("unexpected \"typ\" JWT header value".to_owned());
    }
    let subject = text("sub")?.to_owned();
    profile.judge(&claims)?;
    if let Some(rule) = &now.rule {
        keys::fits(rule, &claims)?;
    }
    if profile.once_by_digest && !now.spent.insert(keys::digest(assertion)) {
        return Err("jti was used before".to_owned());
    }
    if (profile.jti_optional || profile.once_by_digest) && !claims.contains_key("jti") {
        return Ok(subject);
    }
    if !now.spent.insert(text("jti")?.to_owned()) {
        return Err("jti was used before".to_owned());
    }
    Ok(subject)
}

/// A JWT for the next party of a chain: an ID-JAG says which client may have what (draft-ietf-oauth-identity-assertion-authz-grant).
fn link(state: &State, grant: &Grant, audience: &str, script: Option<TokenFault>) -> String {
    let is_jag = grant.issued == Some(ID_JAG_TYPE);
    let audience = match &script {
        Some(TokenFault::Audience(other)) => other.clone(),
        _ => json!(audience),
    };
    let mut claims = json!({"sub": grant.subject, "aud": audience});
    if is_jag {
        claims["client_id"] = json!(grant.client);
        claims["resource"] = json!(grant.resource);
        claims["scope"] = json!(grant.scope);
    }
    let life = state.now().life;
    let token = state.mint_with(if is_jag { "oauth-id-jag+jwt" } else { "JWT" }, claims, life);
    let mut body = keys::object(json!({"access_token": token, "token_type": "N_A", "issued_token_type": grant.issued}));
    if let Some(TokenFault::IssuedTokenType(kind)) = script {
        keys::overlay(&mut body, &json!({"issued_token_type": kind}));
    }
    Value::Object(body).to_string()
}

/// The body of RFC 6749 5.1, with the scripted fault.
fn issue(state: &State, grant: &Grant, script: Option<TokenFault>) -> String {
    let life = state.now().life;
    if let Some(audience) = &grant.audience {
        return link(state, grant, audience, script);
    }
    let by_key = grant.thumbprint.as_ref().map(|thumbprint| json!({"jkt": thumbprint}));
    let by_certificate = grant.certificate.as_ref().map(|digest| json!({"x5t#S256": digest}));
    let confirmed = by_key.or(by_certificate);
    let with = |audience: Value, scopes: &Value| {
        let mut claims = keys::object(json!({"sub": grant.subject, "aud": audience, "cnf": confirmed}));
        keys::overlay(&mut claims, scopes);
        state.mint_with("at+jwt", Value::Object(claims), life)
    };
    let token_for = |audience: Value, scope: &str| with(audience, &json!({"scope": scope}));
    let last = state.now().last.clone();
    let (mut token, mut over) = match script {
        Some(TokenFault::ScopeClaims { answer, token }) => {
            (Some(with(json!(grant.resource), &token)), json!({"scope": answer}))
        }
        script => bent(grant, script, last, &token_for),
    };
    let profile = state.now().profile.clone();
    if profile.opaque {
        token = Some(format!("opaque-{}-{}", keys::unique_id(), keys::unique_id()));
    }
    if profile.silent_about_scope {
        over["scope"] = Value::Null;
    }
    let audience = profile.token_audience.unwrap_or_else(|| json!(grant.resource));
    let token = token.unwrap_or_else(|| token_for(audience, &grant.scope));
    leak::minted(&token);
    let exp = keys::now() as u64 + life.as_secs();
    state.now().last = Some((token.clone(), exp));
    state.now().issued.push((keys::now(), keys::now() + life.as_secs_f64()));
    let mut body = keys::object(json!({
        "access_token": token, "token_type": if grant.thumbprint.is_some() { "DPoP" } else { "Bearer" },
        "expires_in": life.as_secs(), "scope": grant.scope,
    }));
    if let Some(kind) = grant.issued {
        body.insert("issued_token_type".to_owned(), json!(kind));
    }
    keys::overlay(&mut body, &over);
    Value::Object(body).to_string()
}

/// The token and the members of the answer that the scripted fault replaces.
fn bent(
    grant: &Grant,
    script: Option<TokenFault>,
    last: Option<(String, u64)>,
    token_for: &dyn Fn(Value, &str) -> String,
) -> (Option<String>, Value) {
    let opaque = || format!("opaque-{}-{}", keys::unique_id(), keys::unique_id());
    match script {
        Some(TokenFault::NoAccessToken) => (None, json!({"access_token": null})),
        Some(TokenFault::NoExpiresIn) => (None, json!({"expires_in": null})),
        Some(TokenFault::ExpiresIn(value)) => (None, json!({"expires_in": value})),
        Some(TokenFault::IssuedTokenType(kind)) => (None, json!({"issued_token_type": kind})),
        Some(TokenFault::TokenType(kind)) => (None, json!({"token_type": kind})),
        Some(TokenFault::ScopeGranted(scope)) => {
            let token = scope.as_deref().map(|scope| token_for(json!(grant.resource), scope));
            (token, json!({"scope": scope}))
        }
        Some(TokenFault::SameToken) => match last {
            Some((same, expiry)) => (Some(same), json!({"expires_in": expiry.saturating_sub(keys::now() as u64)})),
            None => (None, json!({})),
        },
        Some(TokenFault::OpaqueToken) => (Some(opaque()), json!({})),
        Some(TokenFault::IgnoreResource) => {
            (Some(token_for(json!("https://somebody-else.example/mcp"), &grant.scope)), json!({}))
        }
        Some(TokenFault::Audience(audience)) => (Some(token_for(audience, &grant.scope)), json!({})),
        Some(TokenFault::BadTokenCharacters) => (Some(format!("bad token é {}", keys::unique_id())), json!({})),
        Some(TokenFault::HugeToken) => (Some(format!("{}{}", keys::unique_id(), "A".repeat(40 * 1024))), json!({})),
        _ => (None, json!({})),
    }
}
