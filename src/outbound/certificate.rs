//! A client certificate with its key: it proves the workload in a TLS handshake (RFC 8705). No I/O.
//!
//! It comes from a platform (a SPIFFE X.509-SVID) or from the operator's files. It is checked once, here: the chain has a leaf,
//! and the key belongs to that leaf. Whether the certificate is accepted, the server decides in the handshake.

use std::fmt;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroize;

use crate::token::Digest;

/// A certificate chain and the private key of its leaf. The key is cleared from memory on drop.
pub struct Certificate {
    /// The leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The leaf's key; a handshake gets a copy (`clone_key`).
    pub(crate) key: PrivateKeyDer<'static>,
    /// SHA-256 of the leaf's DER: `x5t#S256` of RFC 8705 section 3.1.
    pub(crate) thumbprint: Digest,
}

impl Certificate {
    /// Takes a chain, leaf first, and the key of its leaf. Fails if the chain is empty or the key belongs to another
    /// certificate.
    pub(crate) fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, &'static str> {
        let thumbprint = Digest::of(chain.first().ok_or("there is no certificate")?);
        match CertifiedKey::from_der(chain.clone(), key.clone_key(), &aws_lc_rs::default_provider()) {
            Ok(_) => Ok(Self { chain, key, thumbprint }),
            Err(rustls::Error::InconsistentKeys(_)) => Err("the key is not that of the certificate"),
            Err(rustls::Error::InvalidCertificate(_)) => Err("the certificate cannot be read"),
            Err(_) => Err("the key is of a kind that TLS does not use"),
        }
    }

    /// The same from PEM: all certificates of the first text, and the private key of the second, which must be its only one.
    pub(crate) fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, &'static str> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_pem).collect();
        let chain = chain.map_err(|_| "the chain holds something that is no certificate")?;
        let mut keys = PrivateKeyDer::pem_slice_iter(key_pem);
        let key = match (keys.next(), keys.next()) {
            (Some(Ok(key)), None) => key,
            (None, _) => return Err("there is no private key (PKCS#8, PKCS#1 or SEC1, unencrypted)"),
            (_, Some(_)) => return Err("there are several private keys"),
            (Some(Err(_)), None) => return Err("the private key cannot be read"),
        };
        Self::from_der(chain, key)
    }
}

impl Clone for Certificate {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), thumbprint: self.thumbprint }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate for this name and its key, as PEM.
    fn pair(name: &str) -> (String, String) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([name.to_owned()]).expect("a sound name");
        (cert.pem(), signing_key.serialize_pem())
    }

    #[test]
    fn a_chain_and_its_key_are_taken_and_named_by_the_leaf() {
        let ((leaf, key), (issuer, _)) = (pair("agent"), pair("ca"));
        let taken = Certificate::from_pem(format!("{leaf}{issuer}").as_bytes(), key.as_bytes()).expect("a pair");
        assert_eq!(taken.chain.len(), 2);
        assert_eq!(taken.thumbprint, Digest::of(&taken.chain[0]));
        let again = Certificate::from_der(taken.chain.clone(), taken.key.clone_key()).expect("the same");
        assert_eq!(again.thumbprint, taken.thumbprint);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let ((leaf, key), (_, other)) = (pair("agent"), pair("other"));
        for (chain, key, why) in [
            (&*leaf, &*other, "not that of the certificate"),
            ("", &*key, "no certificate"),
            (&*leaf, "", "no private key"),
            (&*leaf, &*leaf, "no private key"),
            (&*leaf, &*format!("{key}{other}"), "several"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &*key, "cannot be read"),
            ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &*key, "no certificate"),
            (&*leaf, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "kind"),
        ] {
            let error = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).map(|_| ()).expect_err(why);
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        let (leaf, key) = pair("agent");
        let shown = format!("{:?}", Certificate::from_pem(leaf.as_bytes(), key.as_bytes()).expect("a pair"));
        assert!(shown.starts_with("Certificate { thumbprint: ") && shown.ends_with(", .. }"), "{shown}");
        assert_eq!(shown.len(), "Certificate { thumbprint: 012345678901, .. }".len());
    }
}
