//! Trust in one certificate alone, which a platform names by its thumbprint.
//!
//! Service Fabric does so for its identity endpoint, which has a self-signed certificate: it gives the SHA-1 of the certificate's
//! DER. Neither CA nor name nor dates are checked then. Although it is SHA-1, a forged certificate would need a second preimage,
//! and only collisions are known. The handshake still proves that the server has the certificate's key.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::Error;

/// The SHA-1 of a certificate's DER, as its platform gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thumbprint([u8; 20]);

impl Thumbprint {
    /// Reads 40 hexadecimal digits. Colons and spaces between them are ignored.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
        if digits.len() != 40 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 20];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    fn is_of(self, certificate: &CertificateDer<'_>) -> bool {
        digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate).as_ref() == self.0
    }
}

/// The TLS configuration that trusts the certificate with this thumbprint and no other.
pub(super) fn tls(thumbprint: Thumbprint) -> Result<ClientConfig, Error> {
    let provider = Arc::new(provider::default_provider());
    let verifier = Arc::new(Pinned { thumbprint, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Roots { what: error.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = super::roots::alpn();
    Ok(config)
}

#[derive(Debug)]
struct Pinned {
    thumbprint: Thumbprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.thumbprint.is_of(end_entity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbprint_is_forty_hexadecimal_digits_however_they_are_set() {
        let plain = Thumbprint::parse("a9993e364706816aba3e25717850c26c9cd0d89d").expect("forty");
        assert_eq!(Thumbprint::parse("A9:99:3E:36:47:06:81:6A:BA:3E:25:71:78:50:C2:6C:9C:D0:D8:9D"), Some(plain));
        assert!(plain.is_of(&CertificateDer::from(b"abc".to_vec())), "the SHA-1 of `abc` (RFC 3174)");
        assert!(!plain.is_of(&CertificateDer::from(b"abd".to_vec())));
        for text in
            ["", "a9993e", "g9993e364706816aba3e25717850c26c9cd0d89d", "é9993e364706816aba3e25717850c26c9cd0d89"]
        {
            assert_eq!(Thumbprint::parse(text), None, "{text}");
        }
    }
}
