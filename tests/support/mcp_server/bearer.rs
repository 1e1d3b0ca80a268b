//! The bearer check (RFC 6750) and its challenge (RFC 9728 section 5.1).

use hyper::header::{HeaderValue, WWW_AUTHENTICATE};
use hyper::{Request, Response};
use serde_json::{Value, json};

use super::super::dpop;
use super::super::fault;
use super::super::keys::{self, Claims};
use super::super::listener::Body;
use super::{Now, State};

/// Why a request is refused.
pub(super) struct Refusal {
    status: u16,
    error: Option<&'static str>,
    scope: Option<String>,
    why: String,
}

fn invalid(why: String) -> Refusal {
    Refusal { status: 401, error: Some("invalid_token"), scope: None, why }
}

impl State {
    /// The claims of a token, if it is valid here.
    pub(super) fn admit<B>(&self, request: &Request<B>, in_query: Option<&str>) -> Result<Claims, Refusal> {
        let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let authorization = text("authorization").or(in_query);
        let lenience = self.now().lenience;
        if lenience.nothing && authorization.is_none() {
            return Ok(Claims::new());
        }
        let Some(authorization) = authorization else {
            return Err(Refusal { error: None, ..invalid("a token is needed".to_owned()) });
        };
        let possession = self.now().possession.clone();
        let scheme = if possession.is_some() { "DPoP " } else { "Bearer " };
        let token = authorization.strip_prefix(scheme).ok_or_else(|| invalid(format!("not a {scheme}token")))?;
        let claims = match self.trust.verifier.verify(token) {
            Err(_) if lenience.bad_signature && token.split('.').count() == 3 => keys::peek(token),
            verified => verified.map_err(invalid)?,
        };
        if let Some(nonce) = possession {
            self.possessed(request, token, &claims, nonce.as_deref())?;
        }
        let mut now = self.now();
        if claims.get("iss") != Some(&json!(now.issuer)) {
            return Err(invalid("another issuer's".to_owned()));
        }
        if !lenience.any_audience && claims.get("aud") != Some(&json!(self.resource())) {
            return Err(invalid("meant for another resource, or for several".to_owned()));
        }
        if !lenience.expired && claims.get("exp").and_then(Value::as_f64).is_none_or(|exp| exp <= keys::now()) {
            return Err(invalid("expired".to_owned()));
        }
        if now.refuse > 0 {
            now.refuse -= 1;
            return Err(invalid("refused by the script".to_owned()));
        }
        let granted = claims.get("scope").and_then(Value::as_str).unwrap_or_default();
        let has = |wanted: &str| granted.split(' ').any(|scope| scope == wanted);
        match now.required_scope.clone().filter(|required| !required.split(' ').all(has)) {
            Some(scope) => {
                let why = "the token's scope is too small".to_owned();
                Err(Refusal { status: 403, error: Some("insufficient_scope"), scope: Some(scope), why })
            }
            None => Ok(claims),
        }
    }

    /// The proof of a token that is bound to a key (RFC 9449 section 7.1).
    fn possessed<B>(
        &self,
        request: &Request<B>,
        token: &str,
        claims: &Claims,
        nonce: Option<&str>,
    ) -> Result<(), Refusal> {
        let url = format!("{}{}", self.base, request.uri().path());
        let expected = dpop::Expected { method: request.method().as_str(), url: &url, token: Some(token), nonce };
        let shown = request.headers().get("dpop").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let bad_proof = |why: String| Refusal { error: Some("invalid_dpop_proof"), ..invalid(why) };
        let proof = dpop::judge(shown, &expected).map_err(|refusal| match refusal {
            dpop::Refusal::Nonce => {
                Refusal { error: Some("use_dpop_nonce"), ..invalid("a nonce is wanted".to_owned()) }
            }
            dpop::Refusal::Proof(why) => bad_proof(why),
        })?;
        if claims["cnf"]["jkt"] != json!(proof.thumbprint) {
            return Err(invalid("bound to another key".to_owned()));
        }
        if !self.now().spent.insert(proof.jti) {
            return Err(bad_proof("the proof was used before".to_owned()));
        }
        Ok(())
    }

    /// The token in the query, as a header value, if this server accepts one there.
    pub(super) fn in_query(&self, query: Option<&str>) -> Option<String> {
        let query = query.filter(|_| self.now().lenience.query)?;
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == "access_token").map(|(_, token)| format!("Bearer {token}"))
    }

    pub(super) fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        let now = self.now();
        let mut answer =
            fault::json(refusal.status, json!({"error": refusal.error, "error_description": refusal.why}).to_string());
        let challenges = now.challenges.clone().filter(|_| refusal.status == 401);
        for challenge in challenges.unwrap_or_else(|| vec![now.challenge(&self.base, refusal)]) {
            let value = HeaderValue::from_bytes(challenge.as_bytes()).expect("a challenge without newlines");
            answer.headers_mut().append(WWW_AUTHENTICATE, value);
        }
        let nonce = now.possession.clone().flatten().and_then(|nonce| HeaderValue::from_str(&nonce).ok());
        if let Some(nonce) = nonce {
            answer.headers_mut().insert("dpop-nonce", nonce);
        }
        answer
    }
}

impl Now {
    fn challenge(&self, base: &str, refusal: &Refusal) -> String {
        let metadata = self.signposts.header.as_ref().map(|path| format!("{base}{path}"));
        let scope = refusal.scope.as_ref().or(self.challenge_scope.as_ref());
        let params = [
            metadata.map(|url| format!("resource_metadata=\"{url}\"")),
            refusal.error.map(|error| format!("error=\"{error}\"")),
            scope.map(|scope| format!("scope=\"{scope}\"")),
        ];
        let params: Vec<String> = params.into_iter().flatten().collect();
        let scheme = if self.possession.is_some() { "DPoP" } else { "Bearer" };
        format!("{scheme} {}", params.join(", ")).trim_end().to_owned()
    }
}
