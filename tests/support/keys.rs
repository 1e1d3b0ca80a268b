//! ES256 keys: sign JWTs and verify their signatures. Claims are not checked here.
//!
//! The fake that receives the token checks the claims and says which one is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::PublicKeyData;
use serde_json::{Map, Value, json};

/// The claims of a JWT, as JSON.
pub type Claims = Map<String, Value>;

/// A signing key with its name.
#[derive(Clone)]
pub struct Keys {
    signing: Arc<EncodingKey>,
    verifier: Verifier,
}

/// The public half: what a party that trusts the key needs to know.
#[derive(Clone)]
pub struct Verifier {
    kid: String,
    x: String,
    y: String,
}

impl Keys {
    /// A new P-256 key called `kid`.
    pub fn generate(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate().expect("a P-256 key can always be made");
        let point = pair.der_bytes();
        assert_eq!(point.len(), 65, "an uncompressed P-256 point");
        let verifier = Verifier {
            kid: kid.to_owned(),
            x: URL_SAFE_NO_PAD.encode(&point[1..33]),
            y: URL_SAFE_NO_PAD.encode(&point[33..]),
        };
        let signing = Arc::new(EncodingKey::from_ec_der(&pair.serialize_der()));
        Self { signing, verifier }
    }

    /// A JWT with these claims, `typ` in its header; not registered with [`super::leak`].
    pub fn sign(&self, typ: &str, claims: &Claims) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.verifier.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.signing).expect("claims are JSON and the key is ours")
    }

    pub fn verifier(&self) -> Verifier {
        self.verifier.clone()
    }
}

impl Verifier {
    /// The key of a party that is no fake.
    pub fn of(jwk: &Value) -> Self {
        let text = |name: &str| jwk[name].as_str().unwrap_or_else(|| panic!("no {name} in {jwk}")).to_owned();
        Self { kid: text("kid"), x: text("x"), y: text("y") }
    }

    /// The claims, if `token` is an ES256 JWT signed by this key under its name. Says why not otherwise.
    pub fn verify(&self, token: &str) -> Result<Claims, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|e| format!("not a JWT: {e}"))?;
        if header.kid.as_deref() != Some(&self.kid) {
            return Err(format!("signed by key {:?}, not {:?}", header.kid, self.kid));
        }
        let key = DecodingKey::from_ec_components(&self.x, &self.y).map_err(|e| e.to_string())?;
        let mut signature_only = Validation::new(Algorithm::ES256);
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        signature_only.required_spec_claims.clear();
        let token =
            jsonwebtoken::decode::<Claims>(token, &key, &signature_only).map_err(|e| format!("signature: {e}"))?;
        Ok(token.claims)
    }

    /// The JSON Web Key Set with this one key.
    pub fn jwks(&self) -> Value {
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid, "x": self.x, "y": self.y}]})
    }
}

/// The claims of a JWT without any check, for assertions and for printing.
pub fn peek(token: &str) -> Claims {
    let payload = token.split('.').nth(1).expect("a JWT has three parts");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("the payload is base64url");
    serde_json::from_slice(&payload).expect("the payload is a JSON object")
}

/// Replaces claims by `overrides`; null removes a claim.
pub fn overlay(claims: &mut Claims, overrides: &Value) {
    let Some(overrides) = overrides.as_object() else {
        return;
    };
    for (name, value) in overrides {
        match value {
            Value::Null => claims.remove(name),
            value => claims.insert(name.clone(), value.clone()),
        };
    }
}

/// Whether the claims match an operator's rule. The rule has the form of `trust-policy --json`.
pub fn fits(rule: &Value, claims: &Claims) -> Result<(), String> {
    for name in ["iss", "aud", "sub"] {
        if rule.get(name).is_some_and(|wanted| claims.get(name) != Some(wanted)) {
            return Err(format!("{name} is not the one of the rule"));
        }
    }
    let sub = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    if rule.get("sub_starts_with").is_some_and(|start| !start.as_str().is_some_and(|start| sub.starts_with(start))) {
        return Err("sub does not start as the rule says".to_owned());
    }
    if rule.get("iss").is_none() || (rule.get("sub").is_none() && rule.get("sub_starts_with").is_none()) {
        return Err("the rule names no issuer or no subject".to_owned());
    }
    holds(&rule["claims"], &Value::Object(claims.clone()))
}

fn holds(wanted: &Value, found: &Value) -> Result<(), String> {
    match wanted {
        Value::Object(members) => members
            .iter()
            .try_for_each(|(name, wanted)| holds(wanted, &found[name]).map_err(|what| format!("{name}: {what}"))),
        wanted if wanted == found => Ok(()),
        _ => Err("is not the one of the rule".to_owned()),
    }
}

/// The object in a `json!` literal.
pub fn object(value: Value) -> Claims {
    match value {
        Value::Object(object) => object,
        other => panic!("an object was expected, not {other}"),
    }
}

/// Seconds since 1970, with their fraction.
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    since.as_secs_f64()
}

/// `iat` and `exp` of a token that lives at least `life`. They are rounded outwards, so that `exp` is not before the end of
/// `expires_in`. With a lifetime of zero the token has already expired.
pub fn lifetime(life: Duration) -> (u64, u64) {
    let now = now();
    if life.is_zero() {
        return (now.floor() as u64 - 1, now.floor() as u64);
    }
    (now.floor() as u64, (now + life.as_secs_f64()).ceil() as u64)
}

/// A unique `jti`.
pub fn unique_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let random = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), now().to_bits());
    format!("{random:016x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The first half of the SHA-256 digest in hexadecimal: identifies a token without showing it.
pub fn digest(token: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
