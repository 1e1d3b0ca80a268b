//! `certificate` of an `external_account` file: the workload authenticates to Google's hosts (`*.mtls.googleapis.com`) with its
//! X.509 certificate. The certificate chain is the subject token that is exchanged for a federated token. The federated token
//! is bound to the certificate and is not passed on. The service account's identity token is not bound.
//!
//! A second file (`certificate_config`) names the certificate files. `gcloud` writes it, or the platform mounts it. The
//! certificate files are read again for each token, because the platform renews them.
//!
//! Source: Google Cloud, "Workload Identity Federation with X.509 certificates".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{CAP, CREATE, SOURCE};
use crate::env::Env;
use crate::identity::gcp::malformed;
use crate::identity::{Ambient, Defect, Error};
use crate::outbound::Certificate;

/// `subject_token_type` of a certificate chain.
pub(super) const TYPE: &str = "urn:ietf:params:oauth:token-type:mtls";

/// The variable with which Google's libraries find the second file.
pub(in crate::identity::gcp) const VARIABLE: &str = "GOOGLE_API_CERTIFICATE_CONFIG";
const USUAL: &str = ".config/gcloud/certificate_config.json";

/// The paths of the certificate, its key and the rest of its chain.
pub(super) struct X509 {
    certificate: PathBuf,
    key: PathBuf,
    trust_chain: Option<PathBuf>,
}

#[derive(Deserialize)]
pub(super) struct CertificateKeys {
    certificate_config_location: Option<PathBuf>,
    #[serde(default)]
    use_default_certificate_config: bool,
    trust_chain_path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Config {
    cert_configs: Kinds,
}

#[derive(Deserialize)]
struct Kinds {
    workload: Option<Workload>,
}

#[derive(Deserialize)]
struct Workload {
    cert_path: PathBuf,
    key_path: PathBuf,
}

impl X509 {
    /// Reads the second file, but not the files that it names.
    pub(super) fn read(keys: CertificateKeys, env: &Env) -> Result<Self, Defect> {
        let location = match (keys.certificate_config_location, keys.use_default_certificate_config) {
            (Some(path), false) => path,
            (None, true) => usual(env)?,
            _ => {
                return Err(Defect::new(
                    "its `credential_source.certificate` has not exactly one of `certificate_config_location` and \
                        `use_default_certificate_config`",
                    CREATE,
                ));
            }
        };
        if !location.is_absolute() {
            return Err(relative(&location));
        }
        let shown = location.display();
        let content = env.read(&location, CAP).map_err(|error| {
            let cure =
                format!("it says where the certificate and its key are, and uid {} must be able to read it", env.uid());
            Defect::new(format!("{shown} cannot be read: {error}"), cure)
        })?;
        let config: Option<Config> = serde_json::from_slice(&content).ok();
        let workload = config.and_then(|config| config.cert_configs.workload);
        let Some(Workload { cert_path, key_path }) = workload else {
            return Err(Defect::new(
                format!("{shown} names no `cert_path` and `key_path` in `cert_configs.workload`"),
                "write it with `gcloud iam workload-identity-pools create-cred-config … --credential-cert-path=FILE \
                    --credential-cert-private-key-path=FILE`",
            ));
        };
        let paths = [Some(&cert_path), Some(&key_path), keys.trust_chain_path.as_ref()];
        if let Some(path) = paths.into_iter().flatten().find(|path| !path.is_absolute()) {
            return Err(relative(path));
        }
        Ok(Self { certificate: cert_path, key: key_path, trust_chain: keys.trust_chain_path })
    }

    /// Loads the certificate for the handshake, and the whole chain as subject token.
    pub(super) async fn load(&self, ambient: &Ambient) -> Result<(Arc<Certificate>, String), Error> {
        let read = async |path: &Path| {
            ambient.env.read_aside(path, CAP).await.map_err(|error| {
                let what = || format!("{} cannot be read: {error}", path.display());
                let unreadable = || malformed(what(), "whoever renews the certificate writes it");
                Error::busy(SOURCE.name, path, &error).unwrap_or_else(unreadable)
            })
        };
        let pem = read(&self.certificate).await?;
        let own = Certificate::from_pem(&pem, &read(&self.key).await?);
        let own = own.map_err(|why| {
            let what = format!("{} and {}: {why}", self.certificate.display(), self.key.display());
            malformed(what, "they must be the certificate and its private key, as PEM")
        })?;
        let rest = match self.trust_chain.as_deref() {
            Some(path) => chain(path, &read(path).await?)?,
            None => Vec::new(),
        };
        let listed = listed(&own, rest).map_err(|what| malformed(what, LEAF_FIRST))?;
        Ok((Arc::new(own), listed))
    }
}

const LEAF_FIRST: &str =
    "`trust_chain_path` holds the certificates between the workload's own and the root, in that order";

fn relative(path: &Path) -> Defect {
    Defect::new(
        format!("{} is a relative path, which would depend on where safeconduct was started", path.display()),
        "name the file by its absolute path",
    )
}

fn usual(env: &Env) -> Result<PathBuf, Defect> {
    match (env.get(VARIABLE), env.get("HOME")) {
        (Some(path), _) => Ok(PathBuf::from(path)),
        (None, Some(home)) => Ok(Path::new(home).join(USUAL)),
        (None, None) => Err(Defect::new(
            format!(
                "neither {VARIABLE} nor HOME is set, so the file that says where the certificate is cannot be found"
            ),
            format!("set {VARIABLE}, or `certificate_config_location` in the file"),
        )),
    }
}

fn chain(path: &Path, pem: &Zeroizing<Vec<u8>>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.map_err(|_| malformed(format!("{} holds something that is no certificate", path.display()), LEAF_FIRST))
}

/// A JSON array of the certificates (DER in base64). The leaf comes first and only once.
fn listed(own: &Certificate, rest: Vec<CertificateDer<'static>>) -> Result<String, String> {
    let leaf = own.chain.first().ok_or("there is no certificate")?;
    let rest: Vec<_> = match rest.split_first() {
        Some((first, others)) if first == leaf => others.to_vec(),
        _ => rest,
    };
    if rest.contains(leaf) {
        return Err("the workload's own certificate stands in the middle of its chain".to_owned());
    }
    let all: Vec<String> = std::iter::once(leaf).chain(&rest).map(|der| STANDARD.encode(der)).collect();
    serde_json::to_string(&all).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str) -> (CertificateDer<'static>, Certificate) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("sound");
        let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let certificate = Certificate::from_pem(pem.as_bytes(), key.as_bytes()).expect("of one piece");
        (made.cert.der().clone(), certificate)
    }

    #[test]
    fn the_leaf_stands_first_and_once() {
        let (leaf, own) = certificate("leaf");
        let (between, _) = certificate("between");
        let of = |rest: Vec<CertificateDer<'static>>| {
            listed(&own, rest).map(|text| serde_json::from_str::<Vec<String>>(&text).expect("an array").len())
        };
        assert_eq!(of(Vec::new()), Ok(1));
        assert_eq!(of(vec![between.clone()]), Ok(2));
        assert_eq!(of(vec![leaf.clone(), between.clone()]), Ok(2));
        assert!(of(vec![between, leaf]).is_err());
    }
}
