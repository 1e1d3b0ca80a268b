//! A certificate authority for one test, and server certificates: a good one, one for another host, and an expired one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ::aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::{WantsServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};

type Verifying = ConfigBuilder<ServerConfig, WantsVerifier>;

pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    file: PathBuf,
    /// The DER of the last server certificate.
    served: Mutex<Vec<u8>>,
    _directory: TempDir,
}

impl TestCa {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names, no bad names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(rcgen::DnType::CommonName, "safeconduct test CA");
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1));
        let key = KeyPair::generate().expect("a P-256 key can always be made");
        let pem = params.self_signed(&key).expect("our own parameters are sound").pem();
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, &pem).expect("the directory is new and ours");
        Self { issuer: Issuer::new(params, key), pem, file, served: Mutex::default(), _directory: directory }
    }

    /// The CA certificate in a file, for `[egress] ca_file`; gone when this is dropped.
    pub fn file(&self) -> &Path {
        &self.file
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn der(&self) -> Vec<u8> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("our own PEM").to_vec()
    }

    /// The SHA-1 of the last server certificate, in hexadecimal.
    pub fn thumbprint(&self) -> String {
        let served = self.served.lock().expect("never held over a panic");
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &served);
        digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// For `localhost` and `127.0.0.1`, valid until 2099.
    pub fn good(&self) -> TlsAcceptor {
        self.acceptor(&["localhost", "127.0.0.1"], 2099)
    }

    /// The same for a host of this name.
    pub fn good_for(&self, name: &str) -> TlsAcceptor {
        self.acceptor(&[name], 2099)
    }

    /// The same for hosts of these names.
    pub fn good_for_all(&self, names: &[&str]) -> TlsAcceptor {
        self.acceptor(names, 2099)
    }

    /// As [`TestCa::good`], and requires a client certificate of one of these CAs (DER).
    pub fn mutual(&self, vouchers: &[Vec<u8>]) -> TlsAcceptor {
        self.mutual_for(&["localhost", "127.0.0.1"], vouchers)
    }

    /// The same for hosts of these names.
    pub fn mutual_for(&self, names: &[&str], vouchers: &[Vec<u8>]) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        for der in vouchers {
            roots.add(der.clone().into()).expect("a CA certificate");
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.expect("there is a root");
        self.serving(names, 2099, |builder| builder.with_client_cert_verifier(verifier))
    }

    /// A client's certificate and its key, as PEM.
    pub fn client(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("the name is sound");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1));
        let key = KeyPair::generate().expect("a P-256 key can always be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("our own parameters are sound");
        (certificate.pem(), key.serialize_pem())
    }

    /// Signed by the CA and valid, but for another host.
    pub fn wrong_host(&self) -> TlsAcceptor {
        self.acceptor(&["other.example"], 2099)
    }

    /// For the right host, but expired since 2021.
    pub fn expired(&self) -> TlsAcceptor {
        self.acceptor(&["localhost", "127.0.0.1"], 2021)
    }

    fn acceptor(&self, names: &[&str], last_year: i32) -> TlsAcceptor {
        self.serving(names, last_year, Verifying::with_no_client_auth)
    }

    fn serving(
        &self,
        names: &[&str],
        last_year: i32,
        clients: impl FnOnce(Verifying) -> ConfigBuilder<ServerConfig, WantsServerCert>,
    ) -> TlsAcceptor {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are sound");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(last_year, 1, 1));
        let key = KeyPair::generate().expect("a P-256 key can always be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("our own parameters are sound");
        *self.served.lock().expect("never held over a panic") = certificate.der().to_vec();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        // The provider is passed and not installed: the code under test must choose its own.
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3");
        let config = clients(config)
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("the key is the certificate's");
        TlsAcceptor::from(Arc::new(config))
    }
}
