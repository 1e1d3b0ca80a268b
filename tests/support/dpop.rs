//! Verifies DPoP proofs as a server does (RFC 9449 section 4.3). It shares no code with the broker.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use super::keys::{self, Claims};

/// The request that a proof must match.
pub struct Expected<'a> {
    pub method: &'a str,
    /// Without query and fragment.
    pub url: &'a str,
    /// The token that comes with it.
    pub token: Option<&'a str>,
    /// The nonce that must be in it.
    pub nonce: Option<&'a str>,
}

/// Why a proof is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Everything except the nonce is correct.
    Nonce,
    Proof(String),
}

/// A valid proof: its key, and its identifier, which must be unique.
pub struct Proof {
    pub thumbprint: String,
    pub jti: String,
}

pub fn judge(proof: &str, expected: &Expected<'_>) -> Result<Proof, Refusal> {
    let wrong = |why: &str| Refusal::Proof(why.to_owned());
    let header: Value = part(proof, 0).ok_or_else(|| wrong("no JWT"))?.into();
    if header["typ"] != "dpop+jwt" || header["alg"] != "ES256" {
        return Err(wrong("typ or alg is not that of a proof"));
    }
    let jwk = &header["jwk"];
    let public = jwk.as_object().is_some_and(|jwk| ["d", "k", "p", "q"].iter().all(|name| !jwk.contains_key(*name)));
    let (Some(x), Some(y), true) = (jwk["x"].as_str(), jwk["y"].as_str(), public && jwk["kty"] == "EC") else {
        return Err(wrong("jwk is no public P-256 key"));
    };
    let key = DecodingKey::from_ec_components(x, y).map_err(|error| Refusal::Proof(error.to_string()))?;
    let mut signature_only = Validation::new(Algorithm::ES256);
    signature_only.validate_exp = false;
    signature_only.validate_aud = false;
    signature_only.required_spec_claims.clear();
    let claims = jsonwebtoken::decode::<Claims>(proof, &key, &signature_only);
    let claims = claims.map_err(|error| Refusal::Proof(format!("signature: {error}")))?.claims;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("htm") != Some(expected.method) || text("htu") != Some(expected.url) {
        return Err(Refusal::Proof(format!("for {:?} {:?}", text("htm"), text("htu"))));
    }
    let age = keys::now() - claims.get("iat").and_then(Value::as_f64).ok_or_else(|| wrong("no iat"))?;
    if !(-5.0..300.0).contains(&age) {
        return Err(wrong("iat is not now"));
    }
    let hash =
        |token: &str| URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()));
    if text("ath").map(str::to_owned) != expected.token.map(hash) {
        return Err(wrong("ath is not the hash of the token"));
    }
    let jti = text("jti").filter(|jti| jti.len() >= 16).ok_or_else(|| wrong("no jti"))?.to_owned();
    if expected.nonce.is_some() && text("nonce") != expected.nonce {
        return Err(Refusal::Nonce);
    }
    let canonical = format!("{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":{},\"y\":{}}}", json!(x), json!(y));
    Ok(Proof { thumbprint: hash(&canonical), jti })
}

fn part(jwt: &str, at: usize) -> Option<Claims> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(at)?).ok()?).ok()
}
