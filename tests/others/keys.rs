//! Keys and certificates of the parties, made for one test and never used again.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

/// The key id, by which servers choose the key.
pub(crate) const KID: &str = "key-1";

/// An ES256 key: the identity provider's, or a client's own.
pub(crate) struct Key {
    pkcs8: Vec<u8>,
    jwk: Value,
}

impl Key {
    pub(crate) fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
        let pkcs8 = pair.to_pkcs8v1().expect("a new key can be exported").as_ref().to_vec();
        Self { pkcs8, jwk: jwk(pair.public_key().as_ref()) }
    }

    pub(crate) fn signing(&self) -> EncodingKey {
        EncodingKey::from_ec_der(&self.pkcs8)
    }

    /// The content of a key file.
    pub(crate) fn pem(&self) -> String {
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(&self.pkcs8))
    }

    /// The public half, for the servers.
    pub(crate) fn jwks(&self) -> String {
        json!({ "keys": [self.jwk] }).to_string()
    }
}

/// `point` is uncompressed: one byte for the format, then x and y.
fn jwk(point: &[u8]) -> Value {
    let [x, y] = [&point[1..33], &point[33..]].map(|part| URL_SAFE_NO_PAD.encode(part));
    json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KID, "x": x, "y": y })
}

/// A certificate authority.
pub(crate) struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
    key: String,
}

/// A certificate with its key.
pub(crate) struct Certified {
    pub(crate) certificate: String,
    pub(crate) key: String,
    der: Vec<u8>,
    public: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no name is a good list of names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority for one test");
        let certificate = params.self_signed(&key).expect("a certificate can be signed");
        Self { certificate, key: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }

    /// For a server that issues certificates in its name.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        self.certificate.der().to_vec()
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn vouches_for(&self, name: &str) -> Certified {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("the name is a good one");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be signed");
        Certified {
            certificate: certificate.pem(),
            der: certificate.der().to_vec(),
            public: key.public_key_raw().to_vec(),
            key: key.serialize_pem(),
        }
    }
}

impl Certified {
    /// The certificate as JWK, for a server that pins it (RFC 8705 section 2.2.2).
    pub(crate) fn jwks(&self) -> String {
        let mut key = jwk(&self.public);
        key["x5c"] = json!([STANDARD.encode(&self.der)]);
        json!({ "keys": [key] }).to_string()
    }

    /// The thumbprint in a token that is bound to it (RFC 8705 section 3.1).
    pub(crate) fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.der))
    }
}
