//! Proof of possession (RFC 9449): the key, the proofs, and the nonces that servers hand out.
//!
//! A key is generated in this process and never leaves it. Each request, and each retry of it, carries a new proof. Only the
//! newest nonce of an origin is kept: a server may send a new one with any answer (section 8.2).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use url::Url;

/// The signing algorithm of our proofs, which servers with DPoP commonly support.
pub(crate) const ALGORITHM: &str = "ES256";
/// The most origins to keep nonces for. Beyond it nonces are dropped, which costs one round trip each.
const ORIGINS: usize = 256;
/// The longest nonce to keep, in bytes. Known servers send shorter ones.
const NONCE_CAP: usize = 512;

/// A key that tokens are bound to.
pub struct Key {
    key: EncodingKey,
    jwk: Jwk,
    thumbprint: String,
}

/// What a proof is for.
pub(crate) struct Purpose<'a> {
    /// The HTTP method of the request.
    pub method: &'a str,
    /// The URL of the request. The proof leaves out query and fragment (section 4.2).
    pub url: &'a Url,
    /// The SHA-256 of the access token in the request, if there is one.
    pub token: Option<&'a [u8]>,
    /// The newest nonce of the server.
    pub nonce: Option<&'a str>,
    /// The current time in seconds since 1970.
    pub unix_now: i64,
}

#[derive(Serialize)]
struct Claims<'a> {
    jti: String,
    htm: &'a str,
    htu: String,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
}

impl Key {
    /// Generates a key. `None` if the system has no random bytes, or the library fails.
    pub(crate) fn generate() -> Option<Self> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).ok()?;
        let key = EncodingKey::from_ec_der(pkcs8.as_ref());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).ok()?;
        // Keep only the members of the key itself: a server may reject others.
        jwk.common = jsonwebtoken::jwk::CommonParameters::default();
        let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
        Some(Self { key, jwk, thumbprint })
    }

    /// The JWK thumbprint (RFC 7638): `jkt` in a token that is bound to this key.
    pub(crate) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// A proof for one use in one request. `None` if the library cannot sign.
    pub(crate) fn proof(&self, purpose: &Purpose<'_>) -> Option<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("dpop+jwt".to_owned());
        header.jwk = Some(self.jwk.clone());
        let mut url = purpose.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        let claims = Claims {
            jti: fresh_jti(),
            htm: purpose.method,
            htu: url.into(),
            iat: purpose.unix_now,
            ath: purpose.token.map(|digest| URL_SAFE_NO_PAD.encode(digest)),
            nonce: purpose.nonce,
        };
        jsonwebtoken::encode(&header, &claims, &self.key).ok()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

/// The newest nonce of each origin. An origin with both an authorization server and an MCP server has one nonce.
#[derive(Default)]
pub(crate) struct Nonces(Mutex<HashMap<String, String>>);

impl Nonces {
    /// The nonce to use at this URL.
    pub(crate) fn newest(&self, url: &Url) -> Option<String> {
        self.lock().get(&origin(url)).cloned()
    }

    /// Stores the nonce that a server sent. Ignores an invalid one.
    pub(crate) fn learn(&self, url: &Url, nonce: Option<&str>) {
        let Some(nonce) = nonce.filter(|nonce| is_nonce(nonce)) else { return };
        let (mut nonces, origin) = (self.lock(), origin(url));
        if nonces.len() >= ORIGINS && !nonces.contains_key(&origin) {
            nonces.clear();
        }
        nonces.insert(origin, nonce.to_owned());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new `jti` for a JWT that we sign: 128 random bits, so that a server can detect a replay.
pub(crate) fn fresh_jti() -> String {
    let mut bytes = [0; 16];
    // There is no safe fallback: an identifier from the clock could repeat after a restart.
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Section 8.1: `nonce = 1*NQCHAR`.
pub(crate) fn is_nonce(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    !text.is_empty() && text.len() <= NONCE_CAP && text.bytes().all(allowed)
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, decode};
    use serde_json::Value;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    fn claims(key: &Key, proof: &str) -> Value {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        let verifier = DecodingKey::from_jwk(&key.jwk).expect("a public key");
        decode::<Value>(proof, &verifier, &validation).expect("it verifies").claims
    }

    #[test]
    fn a_proof_names_the_request_and_its_token_and_verifies_with_its_own_key() {
        let key = Key::generate().expect("a key");
        let digest = crate::token::Digest::of(b"abc");
        let place = url("https://mcp.example.com/mcp?session=1#x");
        let purpose =
            Purpose { method: "POST", url: &place, token: Some(digest.as_bytes()), nonce: Some("n1"), unix_now: 1_000 };
        let proof = key.proof(&purpose).expect("signed");
        let header = jsonwebtoken::decode_header(&proof).expect("a header");
        assert_eq!(header.typ.as_deref(), Some("dpop+jwt"));
        let shown = serde_json::to_value(header.jwk.expect("the public key")).expect("JSON");
        assert!(shown["d"].is_null() && shown["kty"] == "EC", "{shown}");
        let claims = claims(&key, &proof);
        assert_eq!(claims["htm"], "POST");
        assert_eq!(claims["htu"], "https://mcp.example.com/mcp", "without query and fragment");
        // RFC 4648 of SHA-256("abc"), the vector of FIPS 180-4.
        assert_eq!(claims["ath"], "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
        assert_eq!((&claims["nonce"], &claims["iat"]), (&"n1".into(), &1_000.into()));
        let again = key.proof(&purpose).expect("signed");
        assert_ne!(self::claims(&key, &again)["jti"], claims["jti"], "one proof a request");
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        let key = Key::generate().expect("a key");
        let jwk = serde_json::to_value(&key.jwk).expect("JSON");
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
        let digest = crate::token::Digest::of(text.as_bytes());
        assert_eq!(key.thumbprint(), URL_SAFE_NO_PAD.encode(digest.as_bytes()));
    }

    #[test]
    fn the_newest_nonce_of_an_origin_counts_and_what_is_none_is_left_alone() {
        let nonces = Nonces::default();
        let place = url("https://as.example.com/token");
        assert_eq!(nonces.newest(&place), None);
        nonces.learn(&place, Some("one"));
        nonces.learn(&url("https://as.example.com/other"), Some("two"));
        nonces.learn(&place, None);
        for bad in ["", "a b", "a\"", "é", &"x".repeat(513)] {
            nonces.learn(&place, Some(bad));
        }
        assert_eq!(nonces.newest(&place).as_deref(), Some("two"));
        assert_eq!(nonces.newest(&url("https://mcp.example.com/")), None);
    }

    #[test]
    fn at_the_cap_a_new_nonce_of_a_known_origin_costs_nobody_theirs() {
        let nonces = Nonces::default();
        let place = |i: usize| url(&format!("https://{i}.example.com/"));
        (0..ORIGINS).for_each(|i| nonces.learn(&place(i), Some("one")));
        nonces.learn(&place(0), Some("two"));
        assert_eq!(nonces.newest(&place(0)).as_deref(), Some("two"));
        assert_eq!(nonces.newest(&place(1)).as_deref(), Some("one"));
        nonces.learn(&place(ORIGINS), Some("three"));
        assert!(nonces.lock().len() <= ORIGINS);
    }
}
