//! From an MCP server to the authorization server that guards it (RFC 9728, RFC 8414).
//!
//! What a server says of itself is a stranger's word: it is checked (`resource` must stand for the server,
//! `issuer` must be the one asked for, byte for byte), bounded, and never decides alone who gets a subject
//! token. The challenge and the path-inserted metadata are fetched at the same time, because most servers
//! name exactly that place in the challenge; the root is asked only when nothing else answered.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::WWW_AUTHENTICATE;
use serde::Deserialize;

use crate::clock::{Boot, Clock};
use crate::oauth::{AuthorizationServer, Issuer, MutualTls, Resource, Scopes, ServerUrl, quoted_words};
use crate::outbound::{self, Answer, Ask, NamedBy, Outbound};

mod challenge;
mod examine;

pub(crate) use challenge::Challenge;
pub(crate) use examine::{Knocked, Seen, ping, resource_metadata, server_metadata};

/// How long a document is believed. A refusal drops it earlier.
const BELIEVED: Duration = Duration::from_secs(3_600);
/// How long the absence of a document is believed.
const ABSENCE_BELIEVED: Duration = Duration::from_secs(60);
/// How many documents are kept.
const CAP: usize = 256;

/// What a server says about its own protection.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Protection {
    /// RFC 9728 metadata, if it publishes any.
    pub metadata: Option<ResourceMetadata>,
    /// The scopes its challenge names: authoritative for a first request.
    pub challenge_scopes: Option<Scopes>,
}

/// RFC 9728 metadata, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ResourceMetadata {
    /// The identifier, byte for byte.
    pub resource: Resource,
    /// Who may issue tokens for it, as written; each is parsed when it is chosen.
    pub authorization_servers: Vec<String>,
    /// All scopes it knows.
    pub scopes_supported: Option<Scopes>,
    /// It takes only tokens that are bound to a key (RFC 9449 section 5.2).
    pub wants_dpop: bool,
}

/// Why discovery stopped. Each says who has to act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No answer, or a bad one on the way.
    #[error("{place}: {error}")]
    Outbound {
        /// Which document.
        place: &'static str,
        /// What happened.
        error: outbound::Error,
    },
    /// The server is there and has trouble of its own.
    #[error("{place} at {host} answers status {status}")]
    Busy {
        /// Which document.
        place: &'static str,
        /// Who.
        host: String,
        /// 429 or 5xx.
        status: u16,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// The document is not what it should be.
    #[error("{place} at {host}: {what}")]
    Malformed {
        /// Which document.
        place: &'static str,
        /// Who.
        host: String,
        /// What is wrong.
        what: String,
    },
    /// The metadata speaks for another server: a copy-paste error, a wrong proxy setting, or an attack.
    #[error("the resource metadata is for {found:?}, which does not stand for {server:?}")]
    ResourceMismatch {
        /// The `resource` it names.
        found: String,
        /// The configured URL.
        server: String,
    },
    /// The authorization server publishes another issuer than the one asked for.
    #[error("the server metadata is for issuer {found:?}, not for {asked:?}")]
    IssuerMismatch {
        /// The `issuer` it names.
        found: String,
        /// The one asked for.
        asked: String,
    },
    /// All well-known places say 404.
    #[error("{issuer} publishes no authorization server metadata")]
    NoServerMetadata {
        /// Who.
        issuer: String,
    },
    /// No metadata and no pin: nobody says who issues tokens.
    #[error("{server} publishes no protected resource metadata")]
    NoResourceMetadata {
        /// Who.
        server: String,
    },
}

impl Error {
    /// Would the same request have a chance a little later?
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Outbound { error, .. } => error.is_temporary(),
            Self::Busy { .. } => true,
            _ => false,
        }
    }

    /// The cure and whose turn it is.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Outbound { error, .. } => return error.hint(),
            Self::Busy { .. } => return None,
            Self::Malformed { .. } => "the operator of that host must mend the document (RFC 9728, RFC 8414)".to_owned(),
            Self::ResourceMismatch { .. } => "configure the URL exactly as the server names itself, or its operator must mend `resource` (RFC 9728 section 3.3)".to_owned(),
            Self::IssuerMismatch { found, .. } => format!("if {found:?} is right, pin exactly that as `issuer`; else its operator must mend `issuer` (RFC 8414 section 3.3)"),
            Self::NoServerMetadata { .. } => "check `issuer`: it is the identifier, not the token endpoint; its operator must publish RFC 8414 metadata; or name its endpoint with `token_endpoint`".to_owned(),
            Self::NoResourceMetadata { .. } => "pin the authorization server with `issuer`, or `--issuer URL`; the server's operator should publish RFC 9728 metadata".to_owned(),
        })
    }
}

/// Discovery with its memory.
pub(crate) struct Discovery {
    outbound: Outbound,
    protections: Memory<String, Arc<Protection>>,
    servers: Memory<Issuer, Arc<AuthorizationServer>>,
}

impl Discovery {
    /// Nothing is fetched yet.
    pub(crate) fn new(outbound: Outbound, clock: Clock) -> Self {
        Self { outbound, protections: Memory::new(clock.clone()), servers: Memory::new(clock) }
    }

    /// What the server says about its protection.
    pub(crate) async fn protection(&self, server: &ServerUrl, named_by: NamedBy) -> Result<Arc<Protection>, Error> {
        let believed =
            |protection: &Arc<Protection>| if protection.metadata.is_some() { BELIEVED } else { ABSENCE_BELIEVED };
        self.protections
            .get(server.as_str().to_owned(), believed, async || self.look_up(server, named_by).await.map(Arc::new))
            .await
    }

    /// The metadata of an authorization server.
    pub(crate) async fn server(&self, issuer: &Issuer, named_by: NamedBy) -> Result<Arc<AuthorizationServer>, Error> {
        self.servers
            .get(issuer.clone(), |_| BELIEVED, async || self.fetch_server(issuer, named_by).await.map(Arc::new))
            .await
    }

    /// Forgets what was learnt about a server and its issuer: after a refusal, either may have moved.
    pub(crate) fn forget(&self, server: &ServerUrl, issuer: Option<&Issuer>) {
        self.protections.forget(&server.as_str().to_owned());
        if let Some(issuer) = issuer {
            self.servers.forget(issuer);
        }
    }

    async fn look_up(&self, server: &ServerUrl, named_by: NamedBy) -> Result<Protection, Error> {
        let places = Resource::metadata_urls(server);
        let first = places.first().cloned().unwrap_or_default();
        let (probed, inserted) = tokio::join!(self.probe(server, named_by), self.fetch_resource(&first));
        let challenge = match probed {
            Ok(challenge) => challenge,
            // The server itself may be down while its metadata is up; a token can still be had.
            Err(error) if matches!(inserted, Ok(Some(_))) => {
                tracing::debug!(%error, "no challenge");
                Challenge::default()
            }
            Err(error) => return Err(error),
        };
        let found = match &challenge.resource_metadata {
            Some(named) if *named == first => inserted?,
            Some(named) => self.fetch_resource(named).await?,
            None => match (inserted?, places.get(1)) {
                (None, Some(root)) => self.fetch_resource(root).await?,
                (inserted, _) => inserted,
            },
        };
        let metadata = found.map(|document| document.checked(server)).transpose()?;
        Ok(Protection { metadata, challenge_scopes: challenge.scopes })
    }

    /// Asks without a token, to be told. A `ping` is answered with a challenge by every protected server, is
    /// valid on both MCP wires, and starts neither a session nor a stream on an unprotected one.
    async fn probe(&self, server: &ServerUrl, named_by: NamedBy) -> Result<Challenge, Error> {
        const PLACE: &str = "the MCP server";
        match self.outbound.send(Ask { named_by, ..ping(server.as_str()) }).await {
            Ok(answer) if answer.status == 401 => Ok(challenge::read(&answer.headers.get_all(WWW_AUTHENTICATE))),
            Ok(answer) if matches!(answer.status, 429 | 500..) => Err(busy(PLACE, server.as_str(), &answer)),
            // Not protected at this request: the well-known places decide. So do they for a stream that never ends.
            Ok(_) | Err(outbound::Error::TooLarge { .. }) => Ok(Challenge::default()),
            Err(error) => Err(Error::Outbound { place: PLACE, error }),
        }
    }

    async fn fetch_resource(&self, url: &str) -> Result<Option<ResourceDocument>, Error> {
        const PLACE: &str = "the resource metadata";
        let answer = self
            .outbound
            .send(Ask::get(url, NamedBy::Them))
            .await
            .map_err(|error| Error::Outbound { place: PLACE, error })?;
        match answer.status {
            200 => answer.json().map(Some).map_err(|what| malformed(PLACE, url, what)),
            429 | 500.. => Err(busy(PLACE, url, &answer)),
            _ => Ok(None),
        }
    }

    async fn fetch_server(&self, issuer: &Issuer, named_by: NamedBy) -> Result<AuthorizationServer, Error> {
        const PLACE: &str = "the server metadata";
        for url in issuer.metadata_urls() {
            let answer = self
                .outbound
                .send(Ask::get(&url, named_by))
                .await
                .map_err(|error| Error::Outbound { place: PLACE, error })?;
            match answer.status {
                200 => {
                    let document: ServerDocument = answer.json().map_err(|what| malformed(PLACE, &url, what))?;
                    return document.checked(issuer).map_err(|error| error.at(PLACE, &url));
                }
                429 | 500.. => return Err(busy(PLACE, &url, &answer)),
                _ => {}
            }
        }
        Err(Error::NoServerMetadata { issuer: issuer.to_string() })
    }
}

#[derive(Deserialize)]
struct ResourceDocument {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
    #[serde(default)]
    scopes_supported: Option<Vec<String>>,
    #[serde(default)]
    dpop_bound_access_tokens_required: bool,
}

impl ResourceDocument {
    fn checked(self, server: &ServerUrl) -> Result<ResourceMetadata, Error> {
        let resource = Resource::parse(&self.resource).ok().filter(|resource| resource.stands_for(server));
        let resource = resource.ok_or_else(|| Error::ResourceMismatch {
            found: quoted_words(&self.resource),
            server: server.to_string(),
        })?;
        let scopes = |list: Vec<String>| {
            Scopes::from_list(list.iter().map(String::as_str)).map_err(|error| {
                malformed("the resource metadata", server.as_str(), &format!("scopes_supported: {error}"))
            })
        };
        Ok(ResourceMetadata {
            resource,
            authorization_servers: self.authorization_servers,
            scopes_supported: self.scopes_supported.map(scopes).transpose()?,
            wants_dpop: self.dpop_bound_access_tokens_required,
        })
    }
}

#[derive(Deserialize)]
struct ServerDocument {
    issuer: String,
    #[serde(default)]
    token_endpoint: Option<String>,
    #[serde(default)]
    grant_types_supported: Option<Vec<String>>,
    #[serde(default)]
    revocation_endpoint: Option<String>,
    #[serde(default)]
    registration_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    #[serde(default)]
    client_id_metadata_document_supported: bool,
    #[serde(default)]
    dpop_signing_alg_values_supported: Option<Vec<String>>,
    #[serde(default)]
    mtls_endpoint_aliases: Aliases,
}

#[derive(Default, Deserialize)]
struct Aliases {
    #[serde(default)]
    token_endpoint: Option<String>,
    #[serde(default)]
    revocation_endpoint: Option<String>,
}

enum BadDocument {
    Issuer(Error),
    Content(&'static str),
}

impl BadDocument {
    fn at(self, place: &'static str, url: &str) -> Error {
        match self {
            Self::Issuer(error) => error,
            Self::Content(what) => malformed(place, url, what),
        }
    }
}

impl ServerDocument {
    fn checked(self, asked: &Issuer) -> Result<AuthorizationServer, BadDocument> {
        if self.issuer != asked.as_str() {
            let found = quoted_words(&self.issuer);
            return Err(BadDocument::Issuer(Error::IssuerMismatch { found, asked: asked.to_string() }));
        }
        let token_endpoint = self.token_endpoint.ok_or(BadDocument::Content("it names no token_endpoint"))?;
        let endpoint = |text: String| ServerUrl::parse(&text).map(|_| Arc::from(text));
        // What is not needed for a token may be unusable; whoever needs it then misses it.
        let maybe = |text: Option<String>| text.and_then(|text| endpoint(text).ok());
        Ok(AuthorizationServer {
            issuer: asked.clone(),
            token_endpoint: endpoint(token_endpoint)
                .map_err(|_| BadDocument::Content("its token_endpoint is not a usable URL"))?,
            grant_types: self.grant_types_supported,
            revocation_endpoint: maybe(self.revocation_endpoint),
            registration_endpoint: maybe(self.registration_endpoint),
            auth_methods: self.token_endpoint_auth_methods_supported,
            auth_algorithms: self.token_endpoint_auth_signing_alg_values_supported,
            takes_metadata_documents: self.client_id_metadata_document_supported,
            dpop_algorithms: self.dpop_signing_alg_values_supported,
            mutual_tls: MutualTls {
                token_endpoint: maybe(self.mtls_endpoint_aliases.token_endpoint),
                revocation_endpoint: maybe(self.mtls_endpoint_aliases.revocation_endpoint),
            },
        })
    }
}

fn malformed(place: &'static str, url: &str, what: &str) -> Error {
    Error::Malformed { place, host: host(url), what: what.to_owned() }
}

fn busy(place: &'static str, url: &str, answer: &Answer) -> Error {
    Error::Busy { place, host: host(url), status: answer.status, retry_after: answer.retry_after() }
}

fn host(url: &str) -> String {
    url::Url::parse(url).map(|url| crate::oauth::host_of(&url)).unwrap_or_default()
}

type Cell<V> = Arc<tokio::sync::Mutex<Held<V>>>;

/// A document, and the last failure to fetch it.
struct Held<V> {
    value: Option<(V, Boot)>,
    failed: Option<(Error, Boot)>,
}

impl<V> Default for Held<V> {
    fn default() -> Self {
        Self { value: None, failed: None }
    }
}

/// Documents with the moment they came. Whoever asks while one is being fetched waits for it instead of
/// fetching it as well.
struct Memory<K, V> {
    clock: Clock,
    cells: Mutex<HashMap<K, Cell<V>>>,
}

impl<K: Clone + Eq + Hash, V: Clone> Memory<K, V> {
    fn new(clock: Clock) -> Self {
        Self { clock, cells: Mutex::default() }
    }

    async fn get(
        &self,
        key: K,
        believed: impl Fn(&V) -> Duration,
        fetch: impl AsyncFnOnce() -> Result<V, Error>,
    ) -> Result<V, Error> {
        let asked = self.clock.boot();
        let cell = self.cell(key);
        let mut held = cell.lock().await;
        match &*held {
            Held { value: Some((value, since)), .. } if self.clock.boot().since(*since) < believed(value) => {
                return Ok(value.clone());
            }
            // It failed while we waited for it: that is our outcome too.
            Held { failed: Some((error, at)), value: None } if *at >= asked => return Err(error.clone()),
            _ => {}
        }
        match fetch().await {
            Ok(value) => {
                *held = Held { value: Some((value.clone(), self.clock.boot())), failed: None };
                Ok(value)
            }
            Err(error) => {
                held.failed = Some((error.clone(), self.clock.boot()));
                // While a server has trouble, what it said before still holds.
                match &held.value {
                    Some((value, _)) if error.is_temporary() => Ok(value.clone()),
                    _ => Err(error),
                }
            }
        }
    }

    fn forget(&self, key: &K) {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn cell(&self, key: K) -> Cell<V> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if cells.len() >= CAP && !cells.contains_key(&key) {
            // What nobody is fetching can be fetched again.
            cells.retain(|_, cell| Arc::strong_count(cell) > 1);
        }
        Arc::clone(cells.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_document_for_another_server_is_refused() {
        let server = ServerUrl::parse("https://mcp.example.com/mcp").expect("good");
        let document = |resource: &str| ResourceDocument {
            resource: resource.to_owned(),
            authorization_servers: vec!["https://as.example.com".to_owned()],
            scopes_supported: None,
            dpop_bound_access_tokens_required: false,
        };
        let good = document("https://mcp.example.com/mcp").checked(&server).expect("the same");
        assert_eq!(good.resource.as_str(), "https://mcp.example.com/mcp");
        for bad in ["https://evil.example/mcp", "https://mcp.example.com/mcp/deeper", "https://mcp.example.com/m", ""] {
            assert!(matches!(document(bad).checked(&server), Err(Error::ResourceMismatch { .. })), "{bad}");
        }
    }

    #[test]
    fn an_issuer_must_match_byte_for_byte() {
        let asked = Issuer::parse("https://as.example.com").expect("good");
        let document = |issuer: &str| {
            let document = serde_json::json!({ "issuer": issuer, "token_endpoint": "https://as.example.com/token" });
            serde_json::from_value::<ServerDocument>(document).expect("a document")
        };
        assert!(document("https://as.example.com").checked(&asked).is_ok());
        for bad in ["https://as.example.com/", "https://AS.example.com", "https://evil.example"] {
            assert!(matches!(document(bad).checked(&asked), Err(BadDocument::Issuer(_))), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_while_a_document_is_fetched_waits_for_it() {
        let memory: Memory<u8, u8> = Memory::new(Clock::virtual_at(std::time::SystemTime::UNIX_EPOCH));
        let fetched = std::cell::Cell::new(0);
        let get = || {
            memory.get(
                1,
                |_| Duration::from_secs(10),
                async || {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    fetched.set(fetched.get() + 1);
                    Ok::<u8, Error>(7)
                },
            )
        };
        assert_eq!(tokio::join!(get(), get(), get()), (Ok(7), Ok(7), Ok(7)));
        assert_eq!(fetched.get(), 1);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(get().await, Ok(7));
        assert_eq!(fetched.get(), 2);
    }

    fn busy() -> Error {
        Error::Busy { place: "a document", host: "h.example".to_owned(), status: 503, retry_after: None }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_said_holds_while_it_has_trouble_and_not_when_it_is_wrong() {
        let memory: Memory<u8, u8> = Memory::new(Clock::virtual_at(std::time::SystemTime::UNIX_EPOCH));
        let believed = |_: &u8| Duration::from_secs(10);
        assert_eq!(memory.get(1, believed, async || Ok(7)).await, Ok(7));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(memory.get(1, believed, async || Err(busy())).await, Ok(7));
        let wrong = || malformed("a document", "https://h.example/", "it is wrong");
        assert_eq!(memory.get(1, believed, async || Err(wrong())).await, Err(wrong()));
        assert_eq!(memory.get(1, believed, async || Ok(8)).await, Ok(8));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_fetch_that_fails_shares_the_failure() {
        let memory: Memory<u8, u8> = Memory::new(Clock::virtual_at(std::time::SystemTime::UNIX_EPOCH));
        let fetched = std::cell::Cell::new(0);
        let get = || {
            memory.get(
                1,
                |_| Duration::from_secs(10),
                async || {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    fetched.set(fetched.get() + 1);
                    Err(busy())
                },
            )
        };
        assert_eq!(tokio::join!(get(), get(), get()), (Err(busy()), Err(busy()), Err(busy())));
        assert_eq!(fetched.get(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(get().await, Err(busy()));
        assert_eq!(fetched.get(), 2, "who asks later asks anew");
    }
}
