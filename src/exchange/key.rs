//! The client's own key, which signs its assertions (`private_key_jwt`).
//!
//! Follows RFC 7523 section 2.2 and the audience rule of draft-ietf-oauth-rfc7523bis section 4: the audience is the
//! issuer, unless the operator names another one for this server. This module does no I/O; the caller reads the key file.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair,
};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use secrecy::SecretString;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::dpop::fresh_jti;

/// The lifetime of an assertion in seconds. It is made for one request and sent at once.
const LIFE: i64 = 60;
/// The JWT type that prevents a client assertion from being used as another kind of token (draft-ietf-oauth-rfc7523bis
/// section 4).
const TYPE: &str = "client-authentication+jwt";

/// The private key of an OAuth client.
pub(crate) struct SigningKey {
    key: EncodingKey,
    /// In order of preference; a server may accept only some.
    algorithms: &'static [(Algorithm, &'static str)],
    id: Option<String>,
}

const P256: &[(Algorithm, &str)] = &[(Algorithm::ES256, "ES256")];
const P384: &[(Algorithm, &str)] = &[(Algorithm::ES384, "ES384")];
const ED25519: &[(Algorithm, &str)] = &[(Algorithm::EdDSA, "EdDSA")];
// RS256 is first: PS256 has the better padding, but every server supports RS256.
const RSA: &[(Algorithm, &str)] = &[
    (Algorithm::RS256, "RS256"),
    (Algorithm::PS256, "PS256"),
    (Algorithm::RS384, "RS384"),
    (Algorithm::RS512, "RS512"),
];

/// Why a key cannot be used to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKey {
    /// The text is not PEM, or the PEM holds no private key.
    #[error("holds no private key in PEM")]
    NoKey,
    /// A curve or key type that no server accepts.
    #[error("holds a key that is neither P-256, P-384, Ed25519 nor RSA")]
    Kind,
    /// The library cannot sign with this key.
    #[error("holds a key that does not sign")]
    Unusable,
    /// The server accepts only other algorithms.
    #[error("holds a key for {0}, which the authorization server does not accept")]
    NotAccepted(&'static str),
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: String,
}

impl SigningKey {
    /// Reads PKCS#8, SEC1 or PKCS#1 in PEM.
    pub(crate) fn from_pem(pem: &[u8], id: Option<&str>) -> Result<Self, BadKey> {
        let id = id.map(str::to_owned);
        let of = |key, algorithms| Ok(Self { key, algorithms, id });
        match PrivateKeyDer::from_pem_slice(pem).map_err(|_| BadKey::NoKey)? {
            PrivateKeyDer::Pkcs1(_) => of(EncodingKey::from_rsa_pem(pem).map_err(|_| BadKey::Unusable)?, RSA),
            PrivateKeyDer::Sec1(der) => {
                let (key, algorithms) = elliptic(der.secret_sec1_der()).ok_or(BadKey::Kind)?;
                of(key, algorithms)
            }
            PrivateKeyDer::Pkcs8(der) => match elliptic(der.secret_pkcs8_der()) {
                Some((key, algorithms)) => of(key, algorithms),
                None => match edwards(der.secret_pkcs8_der()) {
                    Some(key) => of(key, ED25519),
                    None => of(EncodingKey::from_rsa_pem(pem).map_err(|_| BadKey::Kind)?, RSA),
                },
            },
            _ => Err(BadKey::Kind),
        }
    }

    /// Generates a P-256 key. Also returns its PKCS#8 form, so that it can be stored.
    pub(crate) fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), BadKey> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| BadKey::Unusable)?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// Reads a key that `generate` made.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, BadKey> {
        let (key, algorithms) = elliptic(der).ok_or(BadKey::Kind)?;
        let mut key = Self { key, algorithms, id: None };
        // Use the thumbprint (RFC 7638) as key id, so that a server with several keys finds this one.
        key.id = key.jwk().and_then(|jwk| jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).ok());
        Ok(key)
    }

    /// The public key, for registration.
    pub(crate) fn jwk(&self) -> Option<Jwk> {
        let (algorithm, _) = self.algorithms[0];
        let mut jwk = Jwk::from_encoding_key(&self.key, algorithm).ok()?;
        jwk.common.key_id.clone_from(&self.id);
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        Some(jwk)
    }

    /// Signs a new assertion for `client_id` whose only audience is the authorization server `audience`.
    ///
    /// Fails if the server accepts none of the key's algorithms (`accepted`).
    pub(crate) fn assertion(
        &self,
        client_id: &str,
        audience: &str,
        accepted: Option<&[String]>,
        unix_now: i64,
    ) -> Result<SecretString, BadKey> {
        let mut header = Header::new(self.algorithm(accepted)?);
        header.typ = Some(TYPE.to_owned());
        header.kid.clone_from(&self.id);
        let claims = Claims {
            iss: client_id,
            sub: client_id,
            aud: audience,
            iat: unix_now,
            exp: unix_now.saturating_add(LIFE),
            jti: fresh_jti(),
        };
        jsonwebtoken::encode(&header, &claims, &self.key).map(SecretString::from).map_err(|_| BadKey::Unusable)
    }

    /// The first algorithm that the server accepts. If the server lists none, any is accepted (RFC 8414 section 2 has
    /// no default).
    fn algorithm(&self, accepted: Option<&[String]>) -> Result<Algorithm, BadKey> {
        let fits = |name: &str| accepted.is_none_or(|list| list.iter().any(|one| one == name));
        let found = self.algorithms.iter().find(|(_, name)| fits(name));
        found.map(|(algorithm, _)| *algorithm).ok_or(BadKey::NotAccepted(self.algorithms[0].1))
    }
}

/// Reads a key on one of the two curves, from PKCS#8 or SEC1.
fn elliptic(der: &[u8]) -> Option<(EncodingKey, &'static [(Algorithm, &'static str)])> {
    let curves: [(&'static EcdsaSigningAlgorithm, _); 2] =
        [(&ECDSA_P256_SHA256_FIXED_SIGNING, P256), (&ECDSA_P384_SHA384_FIXED_SIGNING, P384)];
    curves.into_iter().find_map(|(curve, algorithms)| {
        let pkcs8 = EcdsaKeyPair::from_private_key_der(curve, der).ok()?.to_pkcs8v1().ok()?;
        Some((EncodingKey::from_ec_der(pkcs8.as_ref()), algorithms))
    })
}

/// Reads an Ed25519 key and converts it to PKCS#8 without the public key, the only form that the library accepts.
fn edwards(pkcs8: &[u8]) -> Option<EncodingKey> {
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?;
    Some(EncodingKey::from_ed_der(pair.to_pkcs8v1().ok()?.as_ref()))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, decode};

    use super::*;
    use crate::token::expose;

    fn verified(key: &SigningKey, jwt: &SecretString) -> serde_json::Value {
        let jwk = key.jwk().expect("it has a public half");
        let mut validation = Validation::new(key.algorithms[0].0);
        validation.set_audience(&["https://as.example.com"]);
        validation.validate_exp = false;
        let key = DecodingKey::from_jwk(&jwk).expect("a public key");
        decode::<serde_json::Value>(expose(jwt), &key, &validation).expect("it verifies").claims
    }

    #[test]
    fn every_usual_kind_of_key_signs_what_its_public_half_verifies() {
        for alg in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let pem = rcgen::KeyPair::generate_for(alg).expect("a key").serialize_pem();
            let key = SigningKey::from_pem(pem.as_bytes(), Some("k1")).expect("read");
            let jwt = key.assertion("me", "https://as.example.com", None, 1_000).expect("signed");
            let claims = verified(&key, &jwt);
            assert_eq!((&claims["iss"], &claims["sub"], &claims["exp"]), (&"me".into(), &"me".into(), &1_060.into()));
        }
    }

    #[test]
    fn an_assertion_says_what_it_is_and_is_never_the_same_twice() {
        let (key, pkcs8) = SigningKey::generate().expect("a key");
        let (one, two) = (key.assertion("me", "a", None, 1), key.assertion("me", "a", None, 1));
        let (one, two) = (one.expect("signed"), two.expect("signed"));
        assert_ne!(expose(&one), expose(&two));
        let header = jsonwebtoken::decode_header(expose(&one)).expect("a header");
        assert_eq!(header.typ.as_deref(), Some("client-authentication+jwt"));
        let again = SigningKey::from_pkcs8(&pkcs8).expect("kept");
        assert_eq!(header.kid, again.id);
    }

    #[test]
    fn a_server_that_wants_another_algorithm_is_told_apart() {
        let (key, _) = SigningKey::generate().expect("a key");
        let refused = key.assertion("me", "a", Some(&["RS256".to_owned()]), 1);
        assert_eq!(refused.map(|_| ()), Err(BadKey::NotAccepted("ES256")));
        assert!(key.assertion("me", "a", Some(&["PS256".to_owned(), "ES256".to_owned()]), 1).is_ok());
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "SECRET", certificate] {
            let refused = SigningKey::from_pem(text.as_bytes(), None).map(|_| ()).expect_err("no key");
            assert_eq!(refused, BadKey::NoKey, "{text}");
        }
    }
}
