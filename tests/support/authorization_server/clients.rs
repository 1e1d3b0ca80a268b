//! The clients of the authorization server: how each must prove itself, and registration (RFC 7591).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Value, json};

use super::super::dpop;
use super::super::fault;
use super::super::keys::{self, Claims};
use super::super::leak;
use super::super::listener::{Answer, Peer};
use super::State;
use super::token_endpoint::Refusal;

/// How a client proves itself.
#[derive(Clone, Debug)]
pub enum ClientProof {
    /// In the Authorization header only.
    Basic(String),
    /// In the form only.
    Post(String),
    /// With an assertion that this public key verifies.
    Key(Box<Jwk>),
    /// With a certificate for this name, that of a host or a SPIFFE ID (RFC 8705 section 2.1).
    Certificate(String),
}

/// The state about clients and proofs of possession.
#[derive(Default)]
pub(super) struct Clients {
    pub(super) known: BTreeMap<String, ClientProof>,
    /// Every grant needs a registered client.
    pub(super) required: bool,
    pub(super) registrations: usize,
    /// The nonce that proofs must have.
    pub(super) nonce: Option<String>,
    /// Tokens are bound, or not, to the key of the proof.
    pub(super) ignores_proofs: bool,
    pub(super) proofs: usize,
    /// Tokens are bound to this certificate, whichever was shown.
    pub(super) binds_to: Option<String>,
}

/// The client and the proofs of a request, checked before its grant.
pub(super) struct Sender {
    pub(super) authorization: Option<String>,
    pub(super) dpop: Option<String>,
    pub(super) certificate: Option<Arc<[u8]>>,
}

impl Sender {
    pub(super) fn of(request: &Request<Incoming>) -> Self {
        let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let certificate = request.extensions().get::<Peer>().and_then(|peer| peer.0.clone());
        Self { authorization: text("authorization"), dpop: text("dpop"), certificate }
    }
}

type Form = BTreeMap<String, String>;

/// The client that proved itself; `None` if the request has no client.
pub(super) fn authenticate(state: &State, sender: &Sender, form: &Form) -> Result<Option<String>, Refusal> {
    let bad = |why: &str| Refusal::new("invalid_client", why);
    let known = state.now().clients.known.clone();
    let value = |name: &str| form.get(name).map(String::as_str);
    if let Some(header) = &sender.authorization {
        let pair = header.strip_prefix("Basic ").and_then(|text| STANDARD.decode(text).ok());
        let pair = pair.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| bad("no Basic header"))?;
        let (id, secret) = pair.split_once(':').ok_or_else(|| bad("no pair"))?;
        let (id, secret) = (decoded(id), decoded(secret));
        if form.contains_key("client_secret") || form.contains_key("client_assertion") {
            return Err(Refusal::new("invalid_request", "a client proves itself in one way"));
        }
        return match known.get(&id) {
            Some(ClientProof::Basic(right)) if *right == secret => Ok(Some(id)),
            _ => Err(bad("the secret in the header is wrong")),
        };
    }
    if let Some(secret) = value("client_secret") {
        let id = value("client_id").ok_or_else(|| bad("client_id is missing"))?;
        return match known.get(id) {
            Some(ClientProof::Post(right)) if right == secret => Ok(Some(id.to_owned())),
            _ => Err(bad("the secret in the form is wrong")),
        };
    }
    if let Some(certificate) = &sender.certificate {
        let id = value("client_id").ok_or_else(|| bad("client_id is missing"))?;
        return match known.get(id) {
            Some(ClientProof::Certificate(name)) if is_for(certificate, name) => Ok(Some(id.to_owned())),
            _ => Err(bad("the certificate is another one's")),
        };
    }
    if value("client_id").is_some_and(|id| matches!(known.get(id), Some(ClientProof::Certificate(_)))) {
        return Err(bad("no certificate came"));
    }
    let assertion = value("client_assertion").filter(|jwt| jsonwebtoken::decode_header(jwt).is_ok());
    let Some(assertion) = assertion else { return Ok(None) };
    let issuer = keys::peek(assertion).get("iss").and_then(Value::as_str).unwrap_or_default().to_owned();
    match known.get(&issuer) {
        Some(ClientProof::Key(key)) => {
            by_key(state, assertion, key, &issuer, value("client_id")).map(Some).map_err(|why| bad(&why))
        }
        _ => Ok(None),
    }
}

/// RFC 7523 section 3 with the audience of draft-ietf-oauth-rfc7523bis.
fn by_key(state: &State, assertion: &str, key: &Jwk, id: &str, client_id: Option<&str>) -> Result<String, String> {
    let header = jsonwebtoken::decode_header(assertion).map_err(|error| error.to_string())?;
    if header.typ.as_deref() != Some("client-authentication+jwt") {
        return Err("typ is not client-authentication+jwt".to_owned());
    }
    let mut validation = Validation::new(header.alg);
    let configured = state.now().profile.client_audience.clone();
    let audience = configured.unwrap_or_else(|| state.issuer());
    validation.set_audience(&[&audience]);
    let key = DecodingKey::from_jwk(key).map_err(|error| error.to_string())?;
    let claims = jsonwebtoken::decode::<Claims>(assertion, &key, &validation).map_err(|e| format!("assertion: {e}"))?;
    let claims = claims.claims;
    if claims["aud"] != json!(audience) {
        return Err("aud is not this issuer alone".to_owned());
    }
    if claims.get("sub") != Some(&json!(id)) || client_id.is_some_and(|named| named != id) {
        return Err("iss, sub and client_id are not one client".to_owned());
    }
    let jti = claims.get("jti").and_then(Value::as_str).ok_or("no jti")?;
    if !state.now().spent.insert(jti.to_owned()) {
        return Err("jti was used before".to_owned());
    }
    Ok(id.to_owned())
}

/// The key that the token will be bound to, if the request has a proof.
pub(super) fn possession(state: &State, sender: &Sender) -> Result<Option<String>, Refusal> {
    let (nonce, ignores) = {
        let now = state.now();
        (now.clients.nonce.clone(), now.clients.ignores_proofs)
    };
    let Some(proof) = &sender.dpop else { return Ok(None) };
    let url = state.endpoint("token");
    let expected = dpop::Expected { method: "POST", url: &url, token: None, nonce: nonce.as_deref() };
    let good = dpop::judge(proof, &expected).map_err(|refusal| match refusal {
        dpop::Refusal::Nonce => Refusal::new("use_dpop_nonce", "a nonce is wanted").with_nonce(nonce.as_deref()),
        dpop::Refusal::Proof(why) => Refusal::new("invalid_dpop_proof", &why),
    })?;
    let mut now = state.now();
    now.clients.proofs += 1;
    if !now.spent.insert(good.jti) {
        return Err(Refusal::new("invalid_dpop_proof", "the proof was used before"));
    }
    Ok((!ignores).then_some(good.thumbprint))
}

/// The certificate that the token will be bound to (RFC 8705 section 3.1). The handshake has verified it.
pub(super) fn certificate(state: &State, sender: &Sender) -> Option<String> {
    let shown = sender.certificate.as_ref()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, shown);
    let binds_to = state.now().clients.binds_to.clone();
    Some(binds_to.unwrap_or_else(|| URL_SAFE_NO_PAD.encode(digest.as_ref())))
}

/// Whether the certificate has this subject alternative name: a context tag of RFC 5280 section 4.2.1.6, the length, the text.
fn is_for(certificate: &[u8], name: &str) -> bool {
    let tag = if name.contains("://") { 0x86 } else { 0x82 };
    let length = u8::try_from(name.len()).expect("a short name");
    let wanted = [&[tag, length], name.as_bytes()].concat();
    certificate.windows(wanted.len()).any(|window| window == wanted)
}

/// RFC 7591: a client registers itself and gets an identifier, and a secret if it asks for one.
pub(super) async fn register(state: &State, request: Request<Incoming>) -> Answer {
    if request.method() != Method::POST {
        return Ok(fault::json(405, "{}"));
    }
    let body = request.into_body().collect().await.map_err(super::broken)?.to_bytes();
    let Ok(asked) = serde_json::from_slice::<Value>(&body) else {
        return Ok(fault::json(400, json!({"error": "invalid_client_metadata"}).to_string()));
    };
    let (id, secret) = (format!("registered-{}", keys::unique_id()), format!("secret-{}", keys::unique_id()));
    let mut answer = json!({"client_id": id, "token_endpoint_auth_method": asked["token_endpoint_auth_method"]});
    let proof = match asked["token_endpoint_auth_method"].as_str() {
        Some("client_secret_basic") => Some(ClientProof::Basic(secret.clone())),
        Some("client_secret_post") => Some(ClientProof::Post(secret.clone())),
        Some("private_key_jwt") => {
            serde_json::from_value(asked["jwks"]["keys"][0].clone()).ok().map(|key| ClientProof::Key(Box::new(key)))
        }
        _ => None,
    };
    let Some(proof) = proof else {
        return Ok(fault::json(
            400,
            json!({"error": "invalid_client_metadata", "error_description": "this way of proof is not taken"})
                .to_string(),
        ));
    };
    if matches!(proof, ClientProof::Basic(_) | ClientProof::Post(_)) {
        leak::minted(&secret);
        answer["client_secret"] = json!(secret);
        answer["client_secret_expires_at"] = json!(0);
    }
    let mut now = state.now();
    now.clients.registrations += 1;
    now.clients.known.insert(id, proof);
    Ok(fault::json(201, answer.to_string()))
}

/// Adds the nonce that the next proof must have, as a server may to any answer.
pub(super) fn add_nonce(answer: &mut hyper::Response<super::super::listener::Body>, nonce: Option<&str>) {
    if let Some(value) = nonce.and_then(|nonce| HeaderValue::from_str(nonce).ok()) {
        answer.headers_mut().insert("dpop-nonce", value);
    }
}

fn decoded(text: &str) -> String {
    url::form_urlencoded::parse(format!("v={text}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}
