//! Selects our OAuth client at an authorization server, in the order of the MCP authorization specification: the
//! configured identifier; else the URL of a client metadata document (CIMD) if the server supports them; else dynamic
//! registration (RFC 7591) if the operator allows it.
//!
//! A registration belongs to the issuer that created it and is never sent to another. If a server names a different
//! issuer than the one where we are registered, no new registration is made: the operator has to confirm the move.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::client_auth::{Client, ClientAuth, Proof, ResolvedClient, SecretPlace, bad_key};
use super::cure::Sent;
use super::key::SigningKey;
use super::{Error, answer};
use crate::env::Env;
use crate::oauth::{AuthorizationServer, Issuer, quoted_words};
use crate::outbound::{Ask, Body, Certificate, Origins, Outbound};
use crate::store::Store;
use crate::token::{Digest, SubjectToken, expose};

/// Limits the memory for names and issuers. More servers than any configuration has.
const CAP: usize = 1_024;

/// The clients that servers registered for us. They live as long as the process, and longer with a keyring.
pub(crate) struct Registrations {
    store: Store,
    known: Arc<Mutex<HashMap<Digest, Cell>>>,
    /// The first issuer that each configured server used under this configuration.
    issuers: Mutex<HashMap<Arc<str>, Issuer>>,
}

/// One client. Tasks that need it during its registration wait for the result, so that it is registered only once.
type Cell = Arc<OnceCell<Arc<RegisteredClient>>>;

/// What a client needs to register and to authenticate.
pub(crate) struct ClientContext<'a> {
    /// Access to files and environment variables.
    pub env: &'a Env,
    /// The HTTP client.
    pub outbound: &'a Outbound,
    /// The origins that the configuration names for requests to that server.
    pub origins: &'a Origins,
    /// The workload's JWT for this server, if the client authenticates with it.
    pub subject: Option<&'a SubjectToken>,
    /// The workload's certificate, if the client authenticates with it.
    pub certificate: Option<Arc<Certificate>>,
    /// The grant that will be used.
    pub grant: &'static str,
}

/// A client that a server registered. It holds secrets, so it has no `Debug`.
struct RegisteredClient {
    id: String,
    secret: Option<SecretString>,
    key: Option<Arc<SigningKey>>,
}

/// The stored form of [`RegisteredClient`].
#[derive(Deserialize, Serialize)]
struct StoredClient {
    client_id: String,
    client_secret: Option<String>,
    key: Option<String>,
}

impl Registrations {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, known: Arc::default(), issuers: Mutex::default() }
    }

    /// Keeps the clients for a new configuration, but forgets which issuer each server used: the operator may have
    /// changed it.
    pub(crate) fn under_a_new_configuration(&self) -> Self {
        Self { store: self.store.clone(), known: Arc::clone(&self.known), issuers: Mutex::default() }
    }

    /// Do these registrations use a store of the same kind?
    pub(crate) fn are_kept_in(&self, store: &Store) -> bool {
        self.store.is_like(store)
    }

    /// Returns the client for this server and its proof. Registers the client if necessary.
    ///
    /// Fails if no client can be selected, if its proof is missing, or if the server now names another issuer.
    pub(crate) async fn identify(
        &self,
        name: &Arc<str>,
        client: &Client,
        server: &AuthorizationServer,
        means: &ClientContext<'_>,
    ) -> Result<ResolvedClient, Error> {
        if client.id.is_none() && client.metadata.is_some() && server.takes_metadata_documents {
            return proven(client.metadata.clone(), None, client, server, means).await;
        }
        if client.id.is_some() || !client.register {
            let id = client.id.clone();
            return match (&id, &client.metadata) {
                (None, Some(_)) => Err(no_documents(server)),
                _ => proven(id, None, client, server, means).await,
            };
        }
        self.same_issuer(name, &server.issuer)?;
        let registered = self.registered(name, client, server, means).await?;
        proven(Some(registered.id.clone()), Some(&registered), client, server, means).await
    }

    /// Forgets a client that the server no longer knows. Does nothing if a newer client has replaced `id`.
    pub(crate) async fn forget(&self, name: &Arc<str>, client: &Client, issuer: &Issuer, id: Option<&str>) {
        let key = key(name, client, issuer);
        let is_it = |cell: &Cell| cell.get().is_some_and(|registered| id == Some(registered.id.as_str()));
        let forgotten = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&key).is_some_and(is_it) && known.remove(&key).is_some()
        };
        if forgotten {
            self.store.remove(&key.hex()).await;
        }
    }

    /// Fails if the server used another issuer before: credentials must not move to a new issuer silently (SEP-2352).
    fn same_issuer(&self, name: &Arc<str>, issuer: &Issuer) -> Result<(), Error> {
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        if issuers.len() >= CAP && !issuers.contains_key(name) {
            issuers.clear();
        }
        match issuers.entry(Arc::clone(name)).or_insert_with(|| issuer.clone()) {
            first if first == issuer => Ok(()),
            first => Err(Error::Moved { from: first.clone(), to: issuer.clone() }),
        }
    }

    /// Returns the client: from memory, from the store, or newly registered.
    async fn registered(
        &self,
        name: &Arc<str>,
        client: &Client,
        server: &AuthorizationServer,
        means: &ClientContext<'_>,
    ) -> Result<Arc<RegisteredClient>, Error> {
        let key = key(name, client, &server.issuer);
        let cell = self.cell(key);
        let found = cell.get_or_try_init(async || {
            let kept =
                self.store.read(&key.hex()).await.and_then(|text| RegisteredClient::from_text(&text, client.auth));
            if let Some(kept) = kept {
                return Ok(Arc::new(kept));
            }
            let (registered, kept) = register(client, server, means).await?;
            self.store.write(&key.hex(), kept).await;
            Ok(Arc::new(registered))
        });
        found.await.cloned()
    }

    /// The cell of this client. When there are too many, all of them are forgotten first.
    fn cell(&self, key: Digest) -> Cell {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CAP && !known.contains_key(&key) {
            known.clear();
        }
        Arc::clone(known.entry(key).or_default())
    }
}

/// The key of a registration: one per issuer, server entry and authentication method.
fn key(name: &Arc<str>, client: &Client, issuer: &Issuer) -> Digest {
    let fields = ["registration", issuer.as_str(), name, client.auth.as_str()];
    Digest::of_fields(fields.map(str::as_bytes))
}

/// Combines the identifier with its proof.
async fn proven(
    id: Option<String>,
    registered: Option<&RegisteredClient>,
    client: &Client,
    server: &AuthorizationServer,
    means: &ClientContext<'_>,
) -> Result<ResolvedClient, Error> {
    let proof = match client.auth {
        ClientAuth::None => Proof::None,
        ClientAuth::Workload => {
            let subject = means.subject.cloned().map(Box::new).ok_or_else(|| Error::Misconfigured {
                what: "this exchange has no identity token that could prove the client".to_owned(),
                hint: "use another `client_auth`".to_owned(),
            })?;
            Proof::Workload(subject, client.assertion_type)
        }
        ClientAuth::PrivateKeyJwt => {
            let key = match registered.and_then(|one| one.key.clone()) {
                Some(key) => key,
                None => Arc::new(client.read_key(means.env).await?.ok_or_else(|| Error::Misconfigured {
                    what: "there is no key for this client".to_owned(),
                    hint: "name its private key with `client_key_file`".to_owned(),
                })?),
            };
            Proof::Key(key, client.assertion_audience.clone())
        }
        ClientAuth::Secret => {
            let secret = match registered.and_then(|one| one.secret.clone()) {
                Some(secret) => secret,
                None => client.read_secret(means.env).await?,
            };
            Proof::Secret(secret, place(client, server))
        }
        ClientAuth::MutualTls => Proof::Certificate(match client.read_certificate(means.env).await? {
            Some(certificate) => Arc::new(certificate),
            None => means.certificate.clone().ok_or_else(|| Error::Misconfigured {
                what: "the identity here has no certificate that could prove the client".to_owned(),
                hint: "name a key pair with `client_cert_file` and `client_key_file`, or use a SPIFFE identity"
                    .to_owned(),
            })?,
        }),
    };
    Ok(ResolvedClient { id, proof })
}

/// Where the secret is sent: as configured, else by the server's metadata. The default is Basic (RFC 8414 section 2).
fn place(client: &Client, server: &AuthorizationServer) -> SecretPlace {
    let lists = |method: &str| server.auth_methods.as_ref().is_some_and(|list| list.iter().any(|one| one == method));
    client.secret_place.unwrap_or_else(|| match lists("client_secret_post") && !lists("client_secret_basic") {
        true => SecretPlace::Post,
        false => SecretPlace::Basic,
    })
}

/// Registers a client (RFC 7591). Also returns its stored form.
///
/// Fails if the server has no registration endpoint, refuses, or answers without what the client needs.
async fn register(
    client: &Client,
    server: &AuthorizationServer,
    means: &ClientContext<'_>,
) -> Result<(RegisteredClient, SecretString), Error> {
    let endpoint = server.registration_endpoint.as_ref().ok_or_else(|| Error::Misconfigured {
        what: format!("{} offers no registration of clients", server.issuer),
        hint: "have its operator register one and set `client_id`".to_owned(),
    })?;
    let (key, pkcs8) = match client.auth {
        ClientAuth::PrivateKeyJwt => {
            let (key, pkcs8) = SigningKey::generate().map_err(bad_key)?;
            (Some(key), Some(pkcs8))
        }
        _ => (None, None),
    };
    let ask =
        Ask::post(endpoint, means.origins.who_named(endpoint), request(client, server, key.as_ref(), means.grant));
    let issuer = &server.issuer;
    let answer = means.outbound.send(ask).await.map_err(|error| Error::Outbound { issuer: issuer.clone(), error })?;
    if !matches!(answer.status, 200 | 201) {
        return Err(answer::failed(issuer, &answer, Sent::default()));
    }
    let malformed = |what: &str| Error::Malformed { issuer: issuer.clone(), what: format!("its registration: {what}") };
    let wire: Wire = answer.json().map_err(malformed)?;
    if wire.client_id.is_empty() || wire.client_id.len() > 1_024 {
        return Err(malformed("it has no usable client_id"));
    }
    if client.auth == ClientAuth::Secret && wire.client_secret.is_none() {
        return Err(malformed("it has no client_secret, which was asked for"));
    }
    tracing::info!(%issuer, client_id = %quoted_words(&wire.client_id), "registered as a client");
    let kept = Zeroizing::new(StoredClient {
        client_id: wire.client_id.clone(),
        client_secret: wire.client_secret.as_ref().map(|secret| expose(secret).to_owned()),
        key: pkcs8.map(|pkcs8| STANDARD.encode(&*pkcs8)),
    });
    let text = serde_json::to_string(&*kept).map_err(|_| malformed("it cannot be kept"))?;
    let registered = RegisteredClient { id: wire.client_id, secret: wire.client_secret, key: key.map(Arc::new) };
    Ok((registered, text.into()))
}

/// The registration request (RFC 7591 section 2). No redirect URI, because none of our grants uses a browser.
fn request(client: &Client, server: &AuthorizationServer, key: Option<&SigningKey>, grant: &str) -> Body {
    let method = match (client.auth, place(client, server)) {
        (ClientAuth::Secret, SecretPlace::Basic) => "client_secret_basic",
        (ClientAuth::Secret, SecretPlace::Post) => "client_secret_post",
        (ClientAuth::PrivateKeyJwt | ClientAuth::Workload, _) => "private_key_jwt",
        (ClientAuth::MutualTls, _) => "tls_client_auth",
        (ClientAuth::None, _) => "none",
    };
    let mut text = json!({
        "client_name": "safeconduct", "grant_types": [grant], "redirect_uris": [], "response_types": [],
        "application_type": "native", "token_endpoint_auth_method": method,
    });
    if let Some(jwk) = key.and_then(SigningKey::jwk) {
        text["jwks"] = json!({ "keys": [jwk] });
    }
    Body { content_type: "application/json", bytes: Zeroizing::new(text.to_string().into_bytes()) }
}

#[derive(Deserialize)]
struct Wire {
    client_id: String,
    #[serde(default)]
    client_secret: Option<SecretString>,
}

impl RegisteredClient {
    /// Reads a stored client. `None` if it is damaged or lacks the secret or key for this authentication method.
    fn from_text(text: &SecretString, auth: ClientAuth) -> Option<Self> {
        let kept: Zeroizing<StoredClient> = Zeroizing::new(serde_json::from_str(expose(text)).ok()?);
        let key = match &kept.key {
            Some(key) => Some(SigningKey::from_pkcs8(&Zeroizing::new(STANDARD.decode(key).ok()?)).ok()?),
            None => None,
        };
        let secret = kept.client_secret.clone().map(SecretString::from);
        let proves = match auth {
            ClientAuth::Secret => secret.is_some(),
            ClientAuth::PrivateKeyJwt => key.is_some(),
            ClientAuth::None | ClientAuth::Workload | ClientAuth::MutualTls => true,
        };
        let registered = Self { id: kept.client_id.clone(), secret, key: key.map(Arc::new) };
        (proves && !registered.id.is_empty()).then_some(registered)
    }
}

impl zeroize::Zeroize for StoredClient {
    fn zeroize(&mut self) {
        self.client_secret.zeroize();
        self.key.zeroize();
    }
}

fn no_documents(server: &AuthorizationServer) -> Error {
    Error::Misconfigured {
        what: format!("{} takes no client metadata documents", server.issuer),
        hint: "have its operator register a client and set `client_id`, or allow `register = true`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::outbound;

    fn read(text: &str, auth: ClientAuth) -> Option<RegisteredClient> {
        RegisteredClient::from_text(&text.to_owned().into(), auth)
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let (key, pkcs8) = SigningKey::generate().expect("a key");
        let text = json!({"client_id": "a", "client_secret": null, "key": STANDARD.encode(&*pkcs8)}).to_string();
        let registered = read(&text, ClientAuth::PrivateKeyJwt).expect("whole");
        assert_eq!(registered.id, "a");
        assert_eq!(registered.key.and_then(|same| same.jwk()), key.jwk());
        let text = r#"{"client_id":"a","client_secret":"s","key":null}"#;
        assert_eq!(read(text, ClientAuth::Secret).and_then(|one| one.secret).as_ref().map(expose), Some("s"));
    }

    #[test]
    fn what_could_not_prove_the_client_is_as_good_as_nothing() {
        for (text, auth) in [
            ("", ClientAuth::Secret),
            ("[]", ClientAuth::Secret),
            (r#"{"client_id":"a"}"#, ClientAuth::Secret),
            (r#"{"client_id":"a","client_secret":"s"}"#, ClientAuth::PrivateKeyJwt),
            (r#"{"client_id":"a","key":"no base64"}"#, ClientAuth::PrivateKeyJwt),
            (r#"{"client_id":"a","key":"AAAA"}"#, ClientAuth::PrivateKeyJwt),
            (r#"{"client_id":"","client_secret":"s"}"#, ClientAuth::Secret),
        ] {
            assert!(read(text, auth).is_none(), "{text}");
        }
    }

    #[test]
    fn at_the_cap_a_known_server_still_cannot_move() {
        let issuer = |name: &str| Issuer::parse(&format!("https://{name}.example.com")).expect("good");
        let registrations = Registrations::new(Store::new(false));
        let name = |i: usize| -> Arc<str> { i.to_string().into() };
        (0..CAP).for_each(|i| registrations.same_issuer(&name(i), &issuer("one")).expect("the first"));
        let moved = registrations.same_issuer(&name(0), &issuer("two"));
        assert!(matches!(moved, Err(Error::Moved { .. })), "{moved:?}");
    }

    #[tokio::test]
    async fn the_late_refusal_of_an_earlier_client_does_not_forget_the_one_after_it() {
        let issuer = Issuer::parse("https://as.example.com").expect("good");
        let (name, client): (Arc<str>, _) = ("one".into(), Client { register: true, ..Client::default() });
        let registrations = Registrations::new(Store::new(false));
        let key = key(&name, &client, &issuer);
        let second = RegisteredClient { id: "second".to_owned(), secret: Some("s".to_owned().into()), key: None };
        assert!(registrations.cell(key).set(Arc::new(second)).is_ok());
        for id in [Some("first"), None] {
            registrations.forget(&name, &client, &issuer, id).await;
            assert!(registrations.cell(key).initialized(), "{id:?} is not the one we are");
        }
        registrations.forget(&name, &client, &issuer, Some("second")).await;
        assert!(!registrations.cell(key).initialized());
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_holds_up_no_other() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let endpoint = format!("http://{}/register", silent.local_addr().expect("bound"));
        let server = |issuer: &str| AuthorizationServer {
            registration_endpoint: Some(endpoint.as_str().into()),
            ..AuthorizationServer::silent(Issuer::parse(issuer).expect("good"), "https://as.example.com/token")
        };
        let (slow, known) = (server("https://slow.example.com"), server("https://known.example.com"));
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        let client = Client { register: true, auth: ClientAuth::Secret, ..Client::default() };
        let outbound = Outbound::new(outbound::Config { insecure_loopback: true, ..Default::default() });
        let (env, grant) = (Env::from_vars([]), "client_credentials");
        let origins = Origins::default();
        let means = ClientContext {
            env: &env,
            outbound: &outbound,
            origins: &origins,
            subject: None,
            certificate: None,
            grant,
        };
        let registrations = Registrations::new(Store::new(false));
        let registered = RegisteredClient { id: "a".to_owned(), secret: Some("s".to_owned().into()), key: None };
        let cell = registrations.cell(key(&other, &client, &known.issuer));
        assert!(cell.set(Arc::new(registered)).is_ok());
        let mut waits = pin!(registrations.identify(&one, &client, &slow, &means));
        let _held = tokio::select! {
            accepted = silent.accept() => accepted.expect("a connection"),
            _ = &mut waits => panic!("nobody answers there"),
        };
        let found = registrations.identify(&other, &client, &known, &means).now_or_never();
        assert_eq!(found.and_then(Result::ok).and_then(|client| client.id).as_deref(), Some("a"));
    }
}
