//! The TLS configuration: which CAs are trusted. These are the system's roots, or the bundled ones where an image has none, and
//! the operator's own CA.
//!
//! It is built once and shared by all clients, because a set of roots takes some hundred kilobytes.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::{Certificate, Error};

/// The TLS configuration of every connection.
pub(super) fn tls(ca_pem: Option<&[u8]>) -> Result<ClientConfig, Error> {
    let mut roots = system();
    add(&mut roots, ca_pem.unwrap_or_default())
        .map_err(|()| broken("ca_file holds something that is no certificate"))?;
    trusting(roots)
}

/// The TLS configuration for a party that has a CA of its own. No other CA is trusted.
pub(super) fn only(ca_pem: &[u8]) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    add(&mut roots, ca_pem).map_err(|()| broken("the CA bundle holds something that is no certificate"))?;
    if roots.is_empty() { Err(broken("the CA bundle is empty")) } else { trusting(roots) }
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Roots { what: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn();
    Ok(config)
}

/// The one protocol that is spoken: HTTP/1.1. No server was found that speaks HTTP/2 alone.
pub(super) fn alpn() -> Vec<Vec<u8>> {
    vec![b"http/1.1".to_vec()]
}

/// The same configuration with a client certificate (RFC 8705 section 2).
pub(super) fn with_certificate(plain: &ClientConfig, certificate: &Certificate) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let wrong = |error: rustls::Error| Error::Roots { what: error.to_string() };
    let key = rustls::sign::CertifiedKey::from_der(certificate.chain.clone(), certificate.key.clone_key(), &provider);
    let mut config = plain.clone();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(key.map_err(wrong)?));
    Ok(config)
}

/// Does this text hold at least one certificate, and no broken one?
pub(crate) fn is_pem_bundle(pem: &[u8]) -> bool {
    // Base64 can hold anything. Whether it is a certificate shows only when it is added to a set of roots.
    let taken = |certificate| RootCertStore::empty().add(certificate).is_ok();
    certificates(pem).is_ok_and(|some| !some.is_empty() && some.into_iter().all(taken))
}

fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), ()> {
    certificates(pem)?.into_iter().try_for_each(|certificate| roots.add(certificate).map_err(|_| ()))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ()> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| ())
}

fn broken(what: &str) -> Error {
    Error::Roots { what: what.to_owned() }
}

fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Some certificates of a bundle may be unusable. The others are used.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::info!("no certificates from the system: using the bundled roots");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}
