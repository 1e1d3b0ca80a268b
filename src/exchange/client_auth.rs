//! Which OAuth client we are and how we prove it, apart from the grant.
//!
//! What stands in the configuration ([`Client`]) becomes a [`Proof`] when a token is asked for: files are read then,
//! because whoever writes them renews them. A proof that is signed is signed anew for each request.

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
use crate::env::Env;
use crate::oauth::AuthorizationServer;
use crate::outbound::Certificate;
use crate::token::{SubjectToken, expose};

/// How the client proves itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// A public client, or none at all.
    #[default]
    None,
    /// The workload's JWT is the client's assertion (RFC 7523 section 2.2): the authorization server federates the
    /// client with the platform. A SPIFFE identity says so in its type (draft-ietf-oauth-spiffe-client-auth).
    Workload,
    /// A key of the client's own signs an assertion (RFC 7523 section 2.2).
    PrivateKeyJwt,
    /// A shared secret (RFC 6749 section 2.3.1): the last resort, since it can be stolen and does not end.
    Secret,
    /// The connection's certificate (RFC 8705): a key pair file, or the workload's X.509-SVID.
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

    /// The one of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, auth)| *auth)
    }

    /// As written in the configuration.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, auth)| *auth == self).map_or("none", |(name, _)| name)
    }
}

/// The OAuth client, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its identifier, where the operator of the authorization server gave one.
    pub id: Option<String>,
    /// The URL of its metadata document, which is its identifier where the server takes that.
    pub metadata: Option<String>,
    /// Register where there is no identifier (RFC 7591).
    pub register: bool,
    /// How it proves itself.
    pub auth: ClientAuth,
    /// Where its secret is.
    pub secret: Option<SecretFrom>,
    /// Where in the request the secret goes; omitted: as the server's metadata says.
    pub secret_place: Option<SecretPlace>,
    /// Its private key, as PEM.
    pub key_file: Option<PathBuf>,
    /// The name of that key (`kid`).
    pub key_id: Option<String>,
    /// Its certificate with the chain, as PEM.
    pub certificate_file: Option<PathBuf>,
}

impl Client {
    /// Everything of it that reaches the wire, for the cache key. Files count by name: their content may be renewed.
    pub(crate) fn fields(&self) -> Fields {
        let Self { id, metadata, register, auth, secret, secret_place, key_file, key_id, certificate_file } = self;
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
    }
}

/// Where a client's secret is. Never in the configuration itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFrom {
    /// In a file, read at each exchange.
    File(PathBuf),
    /// In an environment variable.
    Variable(String),
}

/// Where in the request a secret goes (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretPlace {
    /// `client_secret_basic`
    Basic,
    /// `client_secret_post`
    Post,
}

/// The client at one authorization server: its identifier and what proves it. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Identified {
    /// The `client_id`; none where the server wants none.
    pub id: Option<String>,
    /// What goes with each request.
    pub proof: Proof,
}

/// What proves the client. It holds secrets and so has no `Debug`.
#[derive(Clone, Default)]
pub(crate) enum Proof {
    /// Nothing.
    #[default]
    None,
    /// The workload's own JWT.
    Workload(SubjectToken),
    /// An assertion that this key signs.
    Key(Arc<SigningKey>),
    /// A secret.
    Secret(SecretString, SecretPlace),
    /// A certificate; the connection proves it.
    Certificate(Arc<Certificate>),
}

/// A parameter of the form, cleared from memory afterwards.
pub(super) type Parameter = (&'static str, Zeroizing<String>);

pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// A key file or a secret is small.
const CAP: u64 = 64 * 1024;

impl Identified {
    /// The parameters that say and prove who the client is.
    pub(super) fn parameters(&self, server: &AuthorizationServer, unix_now: i64) -> Result<Vec<Parameter>, Error> {
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut add = |name, value: &str| parameters.push((name, Zeroizing::new(value.to_owned())));
        // With Basic the identifier stands in the header (RFC 6749 section 2.3.1), and some servers refuse it twice.
        if let (Some(id), false) = (&self.id, matches!(self.proof, Proof::Secret(_, SecretPlace::Basic))) {
            add("client_id", id);
        }
        match &self.proof {
            Proof::None | Proof::Secret(_, SecretPlace::Basic) | Proof::Certificate(_) => {}
            Proof::Workload(subject) => {
                let is_spiffe = subject.claims.sub.as_deref().is_some_and(|sub| sub.starts_with("spiffe://"));
                add("client_assertion_type", if is_spiffe { JWT_SPIFFE } else { JWT_BEARER });
                add("client_assertion", subject.expose());
            }
            Proof::Key(key) => {
                let id = self.id.as_deref().unwrap_or_default();
                let accepted = server.auth_algorithms.as_deref();
                let assertion = key.assertion(id, server.issuer.as_str(), accepted, unix_now).map_err(bad_key)?;
                add("client_assertion_type", JWT_BEARER);
                add("client_assertion", expose(&assertion));
            }
            Proof::Secret(secret, SecretPlace::Post) => add("client_secret", expose(secret)),
        }
        Ok(parameters)
    }

    /// The header that proves the client, where it is one.
    pub(super) fn header(&self) -> Result<Option<(HeaderName, HeaderValue)>, Error> {
        let (Proof::Secret(secret, SecretPlace::Basic), Some(id)) = (&self.proof, &self.id) else { return Ok(None) };
        // Both are form-encoded before they are joined: a colon or a percent sign would be read as something else.
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

    /// The certificate of the connection.
    pub(crate) fn certificate(&self) -> Option<&Arc<Certificate>> {
        match &self.proof {
            Proof::Certificate(certificate) => Some(certificate),
            _ => None,
        }
    }
}

impl Client {
    /// The secret, read anew.
    pub(super) fn read_secret(&self, env: &Env) -> Result<SecretString, Error> {
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
            Some(SecretFrom::File(path)) => read(env, path)?,
        };
        let text = std::str::from_utf8(&text).map_err(|_| misconfigured("the secret is not UTF-8".to_owned()))?.trim();
        if text.is_empty() {
            return Err(misconfigured("the file of the client's secret is empty".to_owned()));
        }
        Ok(SecretString::from(text.to_owned()))
    }

    /// The private key, read anew.
    pub(super) fn read_key(&self, env: &Env) -> Result<Option<SigningKey>, Error> {
        let Some(path) = &self.key_file else { return Ok(None) };
        SigningKey::from_pem(&read(env, path)?, self.key_id.as_deref()).map(Some).map_err(|why| Error::Misconfigured {
            what: format!("{} {why}", path.display()),
            hint: "`client_key_file` wants the client's private key as PEM".to_owned(),
        })
    }

    /// The certificate with its key, read anew: they are renewed long before they end.
    pub(super) fn read_certificate(&self, env: &Env) -> Result<Option<Certificate>, Error> {
        let (Some(chain), Some(key)) = (&self.certificate_file, &self.key_file) else { return Ok(None) };
        let certificate = Certificate::from_pem(&read(env, chain)?, &read(env, key)?);
        certificate.map(Some).map_err(|why| Error::Misconfigured {
            what: format!("{} with {}: {why}", chain.display(), key.display()),
            hint: "`client_cert_file` wants the certificate and its chain, `client_key_file` its private key, as PEM"
                .to_owned(),
        })
    }
}

fn read(env: &Env, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    env.read(path, CAP).map_err(|error| Error::Misconfigured {
        what: format!("{} cannot be read: {error}", path.display()),
        hint: match error.kind() {
            io::ErrorKind::PermissionDenied => format!("let uid {} read it", env.uid()),
            _ => "it must be a regular file of at most 64 KiB".to_owned(),
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

    fn with(proof: Proof) -> Identified {
        Identified { id: Some("a:b c%".to_owned()), proof }
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
        let client = with(Proof::Key(Arc::new(key)));
        let assertion = || client.parameters(&server(), 0).expect("signed").pop().expect("an assertion").1;
        assert_ne!(*assertion(), *assertion());
    }

    #[test]
    fn every_proof_has_a_name_and_the_name_leads_back() {
        for (name, auth) in ClientAuth::ALL {
            assert_eq!((ClientAuth::parse(name), auth.as_str()), (Some(auth), name));
        }
        assert_eq!(ClientAuth::parse("basic"), None);
    }
}
