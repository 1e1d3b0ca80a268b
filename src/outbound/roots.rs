//! The TLS configuration: which CAs are trusted. These are the roots that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, else the
//! system's, else, where an image has none, the bundled ones; and the operator's own CA (`ca_file`).
//!
//! A variable that names nothing usable is an error. Other roots in its place would trust parties that were not meant.
//!
//! It is built once and shared by all clients, because a set of roots takes some hundred kilobytes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::{Certificate, Error, Outbound};
use crate::blocking;
use crate::env::Env;

/// The places of the roots that the environment names. Empty: the system's usual ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct RootPlaces {
    file: Option<PathBuf>,
    directories: Vec<PathBuf>,
}

const FILE: &str = "SSL_CERT_FILE";
const DIRECTORIES: &str = "SSL_CERT_DIR";

impl RootPlaces {
    /// The places that the environment names. Fails, naming the variable, if one of them is not there.
    pub(crate) fn from_env(env: &Env) -> Result<Self, String> {
        if let Some(name) = [FILE, DIRECTORIES].into_iter().find(|name| env.is_unreadable(name)) {
            return Err(format!("{name} is not UTF-8"));
        }
        let file = env.get(FILE).map(PathBuf::from);
        let directories = env.get(DIRECTORIES).unwrap_or_default().split(':').filter(|path| !path.is_empty());
        let places = Self { file, directories: directories.map(PathBuf::from).collect() };
        for (name, path) in places.all() {
            let found = env.metadata(path).map_err(|error| format!("{name} names {}: {error}", path.display()))?;
            if found.is_dir() != (name == DIRECTORIES) {
                let what = if name == FILE { "a directory" } else { "no directory" };
                return Err(format!("{name} names {}, which is {what}", path.display()));
            }
        }
        Ok(places)
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        self.file.iter().map(|path| (FILE, path)).chain(self.directories.iter().map(|path| (DIRECTORIES, path)))
    }

    /// The certificates of all places. Fails if a place cannot be read, or if there is no certificate.
    fn load(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let mut certificates = Vec::new();
        for (name, path) in self.all() {
            let (file, directory) = if name == FILE { (Some(&**path), None) } else { (None, Some(&**path)) };
            let found = rustls_native_certs::load_certs_from_paths(file, directory);
            // A directory may be empty, and a bundle may have an entry that is no certificate.
            if found.certs.is_empty() && (file.is_some() || !found.errors.is_empty()) {
                let why =
                    found.errors.first().map_or_else(|| "it holds no certificate".to_owned(), ToString::to_string);
                return Err(broken(&format!("{name} names {}: {why}", path.display())));
            }
            certificates.extend(found.certs);
        }
        // A directory often holds the certificates of the bundle beside it.
        certificates.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
        certificates.dedup();
        if certificates.is_empty() { Err(broken("SSL_CERT_DIR names no certificate")) } else { Ok(certificates) }
    }
}

impl Outbound {
    /// Reads the root certificates, if they are not there yet. They may lie on a slow disk.
    pub(super) async fn read_roots(&self, host: &str, limit: Duration) -> Result<(), Error> {
        if self.0.tls.get().is_some() {
            return Ok(());
        }
        if limit.is_zero() {
            return Err(Error::NoTimeLeft { host: host.to_owned() });
        }
        let read = async {
            // One thread is enough, whoever waits.
            let _turn = self.0.reading.lock().await;
            if self.0.tls.get().is_some() {
                return Ok(());
            }
            let outbound = self.clone();
            // A failure to read them is kept, and reported by the request.
            blocking::run(blocking::Kind::Settings, move || drop(outbound.tls())).await
        };
        match tokio::time::timeout(limit, read).await {
            Ok(Ok(())) => Ok(()),
            // Without threads: read them here, rather than never.
            Ok(Err(blocking::Error::NoThread(_) | blocking::Error::BrokeOff)) => Ok(()),
            Ok(Err(blocking::Error::Full { .. })) | Err(_) => Err(Error::Timeout { host: host.to_owned(), limit }),
        }
    }
}

/// The TLS configuration of every connection.
pub(super) fn tls(places: &RootPlaces, ca_pem: Option<&[u8]>) -> Result<ClientConfig, Error> {
    let mut roots = system(places)?;
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

fn system(places: &RootPlaces) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    // Some certificates of a bundle may be unusable. The others are used.
    if places.all().next().is_some() {
        let (taken, _) = roots.add_parsable_certificates(places.load()?);
        return if taken > 0 {
            Ok(roots)
        } else {
            Err(broken("no certificate that SSL_CERT_FILE or SSL_CERT_DIR names can be used"))
        };
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        // A variable that is set and empty counts as unset for us, and hides the usual places from that function.
        roots.add_parsable_certificates(of_usual_places());
    }
    if roots.is_empty() {
        tracing::info!("no certificates from the system: using the bundled roots");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

fn of_usual_places() -> Vec<CertificateDer<'static>> {
    let usual = openssl_probe::probe();
    let mut certificates = rustls_native_certs::load_certs_from_paths(usual.cert_file.as_deref(), None).certs;
    if certificates.is_empty() {
        let directories = usual.cert_dir.iter();
        certificates
            .extend(directories.flat_map(|path| rustls_native_certs::load_certs_from_paths(None, Some(path)).certs));
    }
    certificates
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The outcome under these variables, whose values are names in the directory.
    fn trusted(directory: &Path, vars: &[(&str, &str)]) -> Result<usize, String> {
        let vars = vars.iter().map(|(name, value)| {
            let paths: Vec<String> = value.split(':').map(|one| directory.join(one).display().to_string()).collect();
            ((*name).to_owned(), paths.join(":"))
        });
        let places = RootPlaces::from_env(&Env::from_vars(vars))?;
        system(&places).map(|roots| roots.len()).map_err(|error| error.to_string())
    }

    fn root(name: &str) -> String {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a sound name");
        made.cert.pem()
    }

    #[test]
    fn the_roots_that_the_environment_names_are_the_only_ones() {
        let at = tempfile::tempdir().expect("a directory");
        let (one, two) = (root("one"), root("two"));
        std::fs::write(at.path().join("bundle.pem"), format!("{one}{two}")).expect("written");
        for (directory, content) in [("certs", Some(&two)), ("empty", None)] {
            std::fs::create_dir(at.path().join(directory)).expect("made");
            if let Some(pem) = content {
                std::fs::write(at.path().join(directory).join("two.pem"), pem).expect("written");
            }
        }
        assert_eq!(trusted(at.path(), &[(FILE, "bundle.pem")]), Ok(2));
        assert_eq!(trusted(at.path(), &[(DIRECTORIES, "certs")]), Ok(1));
        assert_eq!(trusted(at.path(), &[(DIRECTORIES, "empty:certs")]), Ok(1));
        assert_eq!(trusted(at.path(), &[(FILE, "bundle.pem"), (DIRECTORIES, "certs")]), Ok(2), "each once");
        assert_eq!(trusted(at.path(), &[(FILE, "bundle.pem"), (DIRECTORIES, "empty")]), Ok(2));
    }

    #[test]
    fn a_variable_that_names_no_roots_is_an_error_that_names_it_and_never_the_bundled_ones() {
        let at = tempfile::tempdir().expect("a directory");
        std::fs::write(at.path().join("bundle.pem"), root("one")).expect("written");
        std::fs::write(at.path().join("text"), "no certificate").expect("written");
        std::fs::write(at.path().join("nothing"), "").expect("written");
        std::fs::create_dir(at.path().join("empty")).expect("made");
        for (name, value) in [
            (FILE, "absent.pem"),
            (FILE, "empty"),
            (FILE, "text"),
            (FILE, "nothing"),
            (DIRECTORIES, "absent"),
            (DIRECTORIES, "bundle.pem"),
            (DIRECTORIES, "empty"),
            (DIRECTORIES, "empty:absent"),
        ] {
            let said = trusted(at.path(), &[(name, value)]).expect_err(value);
            assert!(said.contains(name), "{name}={value}: {said}");
        }
        let said = trusted(at.path(), &[(FILE, "bundle.pem"), (DIRECTORIES, "absent")]).expect_err("one is not there");
        assert!(said.contains(DIRECTORIES), "{said}");
        for name in [FILE, DIRECTORIES] {
            let said = RootPlaces::from_env(&Env::from_vars([]).with_unreadable(name)).expect_err("no text");
            assert_eq!(said, format!("{name} is not UTF-8"));
        }
    }
}
