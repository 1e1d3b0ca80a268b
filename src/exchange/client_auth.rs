//! The OAuth client and how it authenticates, independent of the grant.
//!
//! The configured [`Client`] becomes a [`Proof`] when a token is requested. Files are read at that time, because they
//! may be renewed. A signed proof is made again for each request.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::SecretString;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use super::Error;
use super::key::{BadKey, SigningKey};
use crate::digest::Fields;
use crate::env::{Env, is_busy};
use crate::oauth::AuthorizationServer;
use crate::outbound::Certificate;
use crate::token::{SubjectToken, expose};

/// How the client authenticates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// A public client, or no client.
    #[default]
    None,
    /// The workload's JWT is the client's assertion (RFC 7523 section 2.2): the authorization server federates the
    /// client with the platform. A SPIFFE identity has its own assertion type (draft-ietf-oauth-spiffe-client-auth).
    Workload,
    /// The client's own key signs an assertion (RFC 7523 section 2.2).
    PrivateKeyJwt,
    /// A shared secret (RFC 6749 section 2.3.1). The last choice: it can be stolen and does not expire.
    Secret,
    /// The TLS client certificate (RFC 8705): a key pair in files, or the workload's X.509-SVID.
    MutualTls,
}

impl ClientAuth {
    /// As written in `client_auth = "…"`.
    pub const ALL: [(&str, Self); 5] = [
        ("none", Self::None),
        ("workload", Self::Workload),
        ("private-key-jwt", Self::PrivateKeyJwt),
        ("secret", Self::Secret),
        ("mtls", Self::MutualTls),
    ];

    /// Finds the method with this name in the configuration.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, auth)| *auth)
    }

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, auth)| *auth == self).map_or("none", |(name, _)| name)
    }
}

/// The OAuth client, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its identifier, if the operator of the authorization server assigned one.
    pub id: Option<String>,
    /// The URL of its metadata document, which is its identifier if the server supports such documents.
    pub metadata: Option<String>,
    /// Register if there is no identifier (RFC 7591).
    pub register: bool,
    /// How it authenticates.
    pub auth: ClientAuth,
    /// Where its secret is.
    pub secret: Option<SecretFrom>,
    /// Where the secret is sent; `None`: as the server's metadata says.
    pub secret_place: Option<SecretPlace>,
    /// The path of its private key, in PEM.
    pub key_file: Option<PathBuf>,
    /// The id of that key (`kid`).
    pub key_id: Option<String>,
    /// The path of its certificate chain, in PEM.
    pub certificate_file: Option<PathBuf>,
    /// The audience of the assertions that its key signs.
    pub assertion_audience: AssertionAudience,
    /// How the workload's JWT is called as its assertion; `None`: by what it is.
    pub assertion_type: Option<AssertionType>,
}

/// The audience of an assertion, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AssertionAudience {
    /// The issuer of the authorization server (draft-ietf-oauth-rfc7523bis section 4).
    #[default]
    Issuer,
    /// Its token endpoint, which some servers want (RFC 7523 section 3).
    TokenEndpoint,
    /// This one.
    Fixed(String),
}

impl AssertionAudience {
    /// The word for the token endpoint in the configuration.
    pub(crate) const TOKEN_ENDPOINT: &'static str = "token_endpoint";
    /// The word for the issuer.
    pub(crate) const ISSUER: &'static str = "issuer";

    /// As written in the configuration.
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            Self::ISSUER => Self::Issuer,
            Self::TOKEN_ENDPOINT => Self::TokenEndpoint,
            other => Self::Fixed(other.to_owned()),
        }
    }

    /// As written in the configuration.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Issuer => Self::ISSUER,
            Self::TokenEndpoint => Self::TOKEN_ENDPOINT,
            Self::Fixed(text) => text,
        }
    }

    /// The audience at this server.
    pub(crate) fn at<'a>(&'a self, server: &'a AuthorizationServer) -> &'a str {
        match self {
            Self::Issuer => server.issuer.as_str(),
            Self::TokenEndpoint => &server.token_endpoint,
            Self::Fixed(text) => text,
        }
    }
}

/// The type of a client assertion, as it is called on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertionType {
    /// RFC 7523 section 2.2.
    JwtBearer,
    /// draft-ietf-oauth-spiffe-client-auth.
    JwtSpiffe,
}

impl AssertionType {
    /// As written in the configuration.
    pub(crate) const ALL: [(&str, Self); 2] = [("jwt-bearer", Self::JwtBearer), ("jwt-spiffe", Self::JwtSpiffe)];

    /// Reads the short name or the whole one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, kind)| *name == text || kind.as_uri() == text).map(|(_, kind)| *kind)
    }

    fn of(subject: &SubjectToken) -> Self {
        if subject.claims.is_svid() { Self::JwtSpiffe } else { Self::JwtBearer }
    }

    fn as_uri(self) -> &'static str {
        match self {
            Self::JwtBearer => JWT_BEARER,
            Self::JwtSpiffe => JWT_SPIFFE,
        }
    }
}

impl Client {
    /// All values that affect the request, for the cache key. Files are identified by path, because their content may
    /// be renewed.
    pub(crate) fn fields(&self) -> Fields {
        let Self { id, metadata, register, auth, secret, secret_place, key_file, key_id, certificate_file, .. } = self;
        let Self { assertion_audience, assertion_type, .. } = self;
        let path = |path: &PathBuf| path.display().to_string();
        let (secret_file, secret_variable) = match secret {
            None => (None, None),
            Some(SecretFrom::File(file)) => (Some(path(file)), None),
            Some(SecretFrom::Variable(name)) => (None, Some(name.as_str())),
        };
        let secret_place = secret_place.map(|place| match place {
            SecretPlace::Basic => "client_secret_basic",
            SecretPlace::Post => "client_secret_post",
        });
        Fields::default()
            .option(id.as_deref())
            .option(metadata.as_deref())
            .flag(*register)
            .text(auth.as_str())
            .option(secret_file.as_deref())
            .option(secret_variable)
            .option(secret_place)
            .option(key_file.as_ref().map(path).as_deref())
            .option(key_id.as_deref())
            .option(certificate_file.as_ref().map(path).as_deref())
            .text(assertion_audience.as_str())
            .option(assertion_type.map(AssertionType::as_uri))
    }
}

/// Where the client's secret is stored. It is never in the configuration itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFrom {
    /// A file, read at each exchange.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

/// Where a secret is sent in the request (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretPlace {
    /// `client_secret_basic`
    Basic,
    /// `client_secret_post`
    Post,
}

/// The client at one authorization server: its identifier and its proof. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct ResolvedClient {
    /// The `client_id`; `None` if the server does not require one.
    pub id: Option<String>,
    /// What authenticates the client in each request.
    pub proof: Proof,
}

/// What authenticates the client. It holds secrets, so it has no `Debug`.
#[derive(Clone, Default)]
pub(crate) enum Proof {
    /// Nothing.
    #[default]
    None,
    /// The workload's own JWT, and how it is called where that is configured.
    Workload(Box<SubjectToken>, Option<AssertionType>),
    /// A key that signs an assertion, and for whom.
    Key(Arc<SigningKey>, AssertionAudience),
    /// A secret.
    Secret(SecretString, SecretPlace),
    /// A TLS client certificate.
    Certificate(Arc<Certificate>),
}

/// A form parameter whose value is cleared from memory when it is dropped.
pub(super) type Parameter = (&'static str, Zeroizing<String>);

pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// The size limit for a key or secret file.
const CAP: u64 = 64 * 1024;

impl ResolvedClient {
    /// The form parameters that identify and authenticate the client.
    pub(super) fn parameters(&self, server: &AuthorizationServer, unix_now: i64) -> Result<Vec<Parameter>, Error> {
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut add = |name, value: &str| parameters.push((name, Zeroizing::new(value.to_owned())));
        // With Basic the identifier is in the header (RFC 6749 section 2.3.1), and some servers refuse it in both
        // places.
        if let (Some(id), false) = (&self.id, matches!(self.proof, Proof::Secret(_, SecretPlace::Basic))) {
            add("client_id", id);
        }
        match &self.proof {
            Proof::None | Proof::Secret(_, SecretPlace::Basic) | Proof::Certificate(_) => {}
            Proof::Workload(subject, kind) => {
                add("client_assertion_type", kind.unwrap_or_else(|| AssertionType::of(subject)).as_uri());
                add("client_assertion", subject.expose());
            }
            Proof::Key(key, audience) => {
                let id = self.id.as_deref().unwrap_or_default();
                let accepted = server.auth_algorithms.as_deref();
                let assertion = key.assertion(id, audience.at(server), accepted, unix_now).map_err(bad_key)?;
                add("client_assertion_type", JWT_BEARER);
                add("client_assertion", expose(&assertion));
            }
            Proof::Secret(secret, SecretPlace::Post) => add("client_secret", expose(secret)),
        }
        Ok(parameters)
    }

    /// The header that authenticates the client, if this proof uses one.
    pub(super) fn header(&self) -> Result<Option<(HeaderName, HeaderValue)>, Error> {
        let (Proof::Secret(secret, SecretPlace::Basic), Some(id)) = (&self.proof, &self.id) else { return Ok(None) };
        // Both are form-encoded before they are joined, because they may contain a colon or a percent sign.
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let pair = Zeroizing::new(format!("{}:{}", encoded(id), *Zeroizing::new(encoded(expose(secret)))));
        let value = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(pair.as_bytes()))));
        let mut value = HeaderValue::from_str(&value).map_err(|_| Error::Misconfigured {
            what: "the client's secret cannot be sent".to_owned(),
            hint: "it must be the secret alone".to_owned(),
        })?;
        value.set_sensitive(true);
        Ok(Some((AUTHORIZATION, value)))
    }

    /// The TLS client certificate, if this proof uses one.
    pub(crate) fn certificate(&self) -> Option<&Arc<Certificate>> {
        match &self.proof {
            Proof::Certificate(certificate) => Some(certificate),
            _ => None,
        }
    }
}

impl Client {
    /// Reads the secret. Fails if it is missing or unreadable.
    pub(super) async fn read_secret(&self, env: &Env) -> Result<SecretString, Error> {
        let misconfigured = |what: String| Error::Misconfigured {
            what,
            hint:
                "put the secret of the client, and nothing else, where `client_secret_file` or `client_secret_env` says"
                    .to_owned(),
        };
        let text = match &self.secret {
            None => return Err(misconfigured("there is no secret for this client".to_owned())),
            Some(SecretFrom::Variable(name)) => {
                return env.secret(name).ok_or_else(|| misconfigured(format!("{name} is not set")));
            }
            Some(SecretFrom::File(path)) => read(env, path).await?,
        };
        let text = std::str::from_utf8(&text).map_err(|_| misconfigured("the secret is not UTF-8".to_owned()))?.trim();
        if text.is_empty() {
            return Err(misconfigured("the file of the client's secret is empty".to_owned()));
        }
        Ok(SecretString::from(text.to_owned()))
    }

    /// Reads the private key; `None` if no file is configured.
    pub(super) async fn read_key(&self, env: &Env) -> Result<Option<SigningKey>, Error> {
        let Some(path) = &self.key_file else { return Ok(None) };
        SigningKey::from_pem(&read(env, path).await?, self.key_id.as_deref()).map(Some).map_err(|why| {
            Error::Misconfigured {
                what: format!("{} {why}", path.display()),
                hint: "`client_key_file` wants the client's private key as PEM".to_owned(),
            }
        })
    }

    /// Reads the certificate and its key; `None` if they are not configured.
    pub(super) async fn read_certificate(&self, env: &Env) -> Result<Option<Certificate>, Error> {
        let (Some(chain), Some(key)) = (&self.certificate_file, &self.key_file) else { return Ok(None) };
        let certificate = Certificate::from_pem(&read(env, chain).await?, &read(env, key).await?);
        certificate.map(Some).map_err(|why| Error::Misconfigured {
            what: format!("{} with {}: {why}", chain.display(), key.display()),
            hint: "`client_cert_file` wants the certificate and its chain, `client_key_file` its private key, as PEM"
                .to_owned(),
        })
    }
}

async fn read(env: &Env, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    env.read_aside(path, CAP).await.map_err(|error| match error.kind() {
        _ if is_busy(&error) => Error::FileBusy { path: path.to_owned(), why: error.to_string() },
        kind => Error::Misconfigured {
            what: format!("{} cannot be read: {error}", path.display()),
            hint: match kind {
                io::ErrorKind::PermissionDenied => format!("let uid {} read it", env.uid()),
                _ => "it must be a regular file of at most 64 KiB".to_owned(),
            },
        },
    })
}

pub(super) fn bad_key(why: BadKey) -> Error {
    Error::Misconfigured {
        what: format!("the client's key file {why}"),
        hint: "give the client a key that the server accepts: its metadata lists `token_endpoint_auth_signing_alg_values_supported`"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::Issuer;

    fn server() -> AuthorizationServer {
        AuthorizationServer::silent(Issuer::parse("https://as.example.com").expect("good"), "https://as.example.com/t")
    }

    fn with(proof: Proof) -> ResolvedClient {
        ResolvedClient { id: Some("a:b c%".to_owned()), proof }
    }

    #[test]
    fn a_secret_is_form_encoded_before_it_goes_into_the_header() {
        let client = with(Proof::Secret("s+e:c".to_owned().into(), SecretPlace::Basic));
        let (_, value) = client.header().expect("sendable").expect("a header");
        assert!(value.is_sensitive());
        // base64 of `a%3Ab+c%25:s%2Be%3Ac` (RFC 6749 section 2.3.1, appendix B).
        assert_eq!(value.as_bytes(), b"Basic YSUzQWIrYyUyNTpzJTJCZSUzQWM=");
        assert!(client.parameters(&server(), 0).expect("sendable").is_empty());
    }

    #[test]
    fn a_posted_secret_goes_with_the_identifier_and_without_header() {
        let client = with(Proof::Secret("s".to_owned().into(), SecretPlace::Post));
        assert!(client.header().expect("sendable").is_none());
        let names: Vec<_> = client.parameters(&server(), 0).expect("sendable").iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["client_id", "client_secret"]);
    }

    #[test]
    fn a_key_signs_anew_for_each_request() {
        let (key, _) = SigningKey::generate().expect("a key");
        let client = with(Proof::Key(Arc::new(key), AssertionAudience::Issuer));
        let assertion = || client.parameters(&server(), 0).expect("signed").pop().expect("an assertion").1;
        assert_ne!(*assertion(), *assertion());
    }

    #[test]
    fn an_assertion_is_for_whom_the_configuration_says() {
        for (written, wanted) in [
            ("issuer", "https://as.example.com"),
            ("token_endpoint", "https://as.example.com/t"),
            ("https://other.example", "https://other.example"),
        ] {
            let (key, _) = SigningKey::generate().expect("a key");
            let client = with(Proof::Key(Arc::new(key), AssertionAudience::parse(written)));
            let assertion = client.parameters(&server(), 0).expect("signed").pop().expect("an assertion").1;
            assert_eq!(crate::token::Claims::read(&assertion).expect("a JWT").aud, [wanted], "{written}");
        }
    }

    #[test]
    fn an_identity_is_called_what_it_is_unless_the_configuration_says_otherwise() {
        let subject = |sub: &str| {
            let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{{\"sub\":\"{sub}\"}}"));
            Box::new(SubjectToken::parse(format!("e30.{payload}.c2ln").into()).expect("a JWT"))
        };
        for (sub, written, wanted) in [
            ("spiffe://example.org/agent", None, JWT_SPIFFE),
            ("spiffe://example.org/agent", Some("jwt-bearer"), JWT_BEARER),
            ("spiffe://example.org/agent", Some(JWT_BEARER), JWT_BEARER),
            ("repo:o/r", None, JWT_BEARER),
            ("repo:o/r", Some("jwt-spiffe"), JWT_SPIFFE),
        ] {
            let kind = written.map(|text| AssertionType::parse(text).expect("known"));
            let sent = with(Proof::Workload(subject(sub), kind)).parameters(&server(), 0).expect("sendable");
            let kind = sent.iter().find(|(name, _)| *name == "client_assertion_type").expect("it is there");
            assert_eq!(kind.1.as_str(), wanted, "{sub} {written:?}");
        }
        assert_eq!(AssertionType::parse("saml2"), None);
    }

    #[test]
    fn every_proof_has_a_name_and_the_name_leads_back() {
        for (name, auth) in ClientAuth::ALL {
            assert_eq!((ClientAuth::parse(name), auth.as_str()), (Some(auth), name));
        }
        assert_eq!(ClientAuth::parse("basic"), None);
    }
}
