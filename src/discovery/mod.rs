//! Finds the authorization server of an MCP server (RFC 9728, RFC 8414).
//!
//! The metadata that a server publishes is not trusted. It is checked (`resource` must stand for the server, `issuer`
//! must equal the requested issuer byte for byte) and limited in size, and it never decides alone who receives a
//! subject token. The challenge and the metadata at the path-inserted URL are requested concurrently, because most
//! challenges name that URL. The other places are asked one after the other, by the rule of `search`.
//!
//! A `resource` above the server's URL also stands for other servers there, and a tenant of a host must not speak for
//! its neighbours. So the own well-known place of that `resource` is asked whether it says the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::WWW_AUTHENTICATE;

use crate::clock::Clock;
use crate::oauth::{AuthorizationServer, Challenge, Issuer, Resource, Scopes, ServerUrl, challenge};
use crate::outbound::{Ask, NamedBy, Origins, Outbound};

mod document;
mod error;
mod examine;
#[cfg(any(test, safeconduct_fuzz))]
pub(crate) mod fuzzed;
mod memory;
mod oddity;
mod search;

pub(crate) use error::Error;
pub(crate) use examine::{EndpointHead, ping};
use memory::DocumentCache;
pub(crate) use oddity::{Document, Oddity};
use search::Answered;
pub(crate) use search::{FetchedDocument, Search, confirms};

/// How long a document is cached. A refusal removes it earlier.
const DOCUMENT_TTL: Duration = Duration::from_secs(3_600);
/// How long the absence of a document is cached.
const ABSENCE_TTL: Duration = Duration::from_secs(60);

/// What an MCP server publishes about its protection.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Protection {
    /// Its RFC 9728 metadata, if published.
    pub metadata: Option<ResourceMetadata>,
    /// The scopes in its challenge. They take precedence for a first request.
    pub challenge_scopes: Option<Scopes>,
    /// Why no place has usable metadata, if none has.
    pub missing: Option<Error>,
}

/// Checked RFC 9728 metadata.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ResourceMetadata {
    /// The resource identifier, byte for byte.
    pub resource: Resource,
    /// The well-known place of that resource, if it has not confirmed that this is the server's resource.
    pub confirm_at: Option<ServerUrl>,
    /// The issuers that may issue tokens for it, as published. An issuer is parsed when it is chosen.
    pub authorization_servers: Vec<String>,
    /// All scopes that the server lists.
    pub scopes_supported: Option<Scopes>,
    /// Does it accept only DPoP-bound tokens (RFC 9449 section 5.2)?
    pub wants_dpop: bool,
}

/// Discovery with a cache.
pub(crate) struct Discovery {
    outbound: Outbound,
    protections: DocumentCache<String, Arc<Protection>>,
    /// Apart for servers whose configuration names the issuer and others, so that neither sees the other's failures.
    servers: DocumentCache<(Issuer, NamedBy), Arc<AuthorizationServer>>,
    /// How many requests went to MCP endpoints, and how many for documents.
    sent: [AtomicUsize; 2],
}

impl Discovery {
    pub(crate) fn new(outbound: Outbound, clock: Clock) -> Self {
        let (protections, servers) = (DocumentCache::new(clock.clone()), DocumentCache::new(clock));
        Self { outbound, protections, servers, sent: Default::default() }
    }

    /// How many requests went to MCP endpoints, and how many for documents.
    pub(crate) fn sent(&self) -> [usize; 2] {
        self.sent.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Returns what the MCP server publishes about its protection, cached or requested now. `origins` are those that the
    /// configuration names for it.
    pub(crate) async fn protection(&self, server: &ServerUrl, origins: &Origins) -> Result<Arc<Protection>, Error> {
        let believed =
            |protection: &Arc<Protection>| if protection.metadata.is_some() { DOCUMENT_TTL } else { ABSENCE_TTL };
        self.protections
            .get(server.as_str().to_owned(), believed, async || self.look_up(server, origins).await.map(Arc::new))
            .await
    }

    /// Returns the metadata of an authorization server, cached or requested now.
    pub(crate) async fn server(&self, issuer: &Issuer, origins: &Origins) -> Result<Arc<AuthorizationServer>, Error> {
        let key = (issuer.clone(), origins.who_named(issuer.as_str()));
        self.servers.get(key, |_| DOCUMENT_TTL, async || self.fetch_server(issuer, origins).await.map(Arc::new)).await
    }

    /// Removes the cached documents of a server and its issuer. Called after a refusal, because either may have moved.
    pub(crate) fn forget(&self, server: &ServerUrl, issuer: Option<&Issuer>) {
        self.protections.forget(&server.as_str().to_owned());
        if let Some(issuer) = issuer {
            for named_by in [NamedBy::Us, NamedBy::Them] {
                self.servers.forget(&(issuer.clone(), named_by));
            }
        }
    }

    async fn look_up(&self, server: &ServerUrl, origins: &Origins) -> Result<Protection, Error> {
        let places = Resource::metadata_urls(server);
        let Some(first) = places.first() else { return Ok(Protection::default()) };
        let (probed, inserted) = tokio::join!(self.probe(server, origins), self.see(first.as_str(), origins));
        let mut inserted = Some(inserted);
        let challenge = match probed {
            Ok(challenge) => challenge,
            // The MCP server may be down while its metadata is available; a token can still be requested.
            Err(error) if inserted.as_ref().is_some_and(FetchedDocument::is_there) => {
                debug!(%error, "no challenge");
                Challenge::default()
            }
            Err(error) => return Err(error),
        };
        let mut search = Search::of(Document::Resource);
        for place in search.places(&challenge, server) {
            let fetched = inserted.take_if(|fetched| fetched.url == place.as_str());
            let seen = match fetched {
                Some(fetched) => fetched,
                None => self.see(place.as_str(), origins).await,
            };
            if let Some(metadata) = search.resource(&seen, &place, server)? {
                let metadata = Some(self.confirmed(metadata, server, origins).await?);
                return Ok(Protection { metadata, challenge_scopes: challenge.scopes, missing: None });
            }
        }
        let missing = Some(search.nowhere(&server.to_string()));
        Ok(Protection { metadata: None, challenge_scopes: challenge.scopes, missing })
    }

    /// Asks the well-known place of a resource above the server's URL, if that has to confirm it. What that place says
    /// then counts. Without its confirmation the metadata stays as it is, and [`ResourceMetadata::confirm_at`] says so.
    async fn confirmed(
        &self,
        metadata: ResourceMetadata,
        server: &ServerUrl,
        origins: &Origins,
    ) -> Result<ResourceMetadata, Error> {
        let Some(place) = &metadata.confirm_at else { return Ok(metadata) };
        let seen = self.see(place.as_str(), origins).await;
        match confirms(&seen, place, &metadata.resource, server) {
            Ok(Some(own)) => Ok(own),
            Err(error) if error.is_temporary() => Err(error),
            Err(error @ Error::ResourceMismatch { .. }) => Err(error),
            _ => Ok(metadata),
        }
    }

    /// Sends a [`ping`] without a token to get the challenge. Fails if the server is busy or does not answer.
    async fn probe(&self, server: &ServerUrl, origins: &Origins) -> Result<Challenge, Error> {
        let document = Document::Challenge;
        let named_by = origins.who_named(server.as_str());
        self.sent[0].fetch_add(1, Ordering::Relaxed);
        match self.outbound.send_for_head(Ask { named_by, ..ping(server.as_str()) }).await {
            Ok(answer) => match answer.status {
                status @ (429 | 500..) => {
                    let (host, retry_after) = (crate::oauth::host_in(server.as_str()), answer.retry_after());
                    Err(Error::Busy { document, host, status, retry_after })
                }
                // Some servers challenge with another status than 401.
                400.. => Ok(challenge::read(&answer.headers.get_all(WWW_AUTHENTICATE))),
                // The server did not challenge this request: use the well-known URLs.
                _ => Ok(Challenge::default()),
            },
            Err(error) => Err(Error::Outbound { document, error }),
        }
    }

    /// Requests a place. Nothing of the answer is checked yet.
    async fn see(&self, url: &str, origins: &Origins) -> FetchedDocument {
        self.fetch(Ask::get(url, origins.who_named(url))).await
    }

    async fn fetch(&self, ask: Ask) -> FetchedDocument {
        let url = ask.url.clone();
        self.sent[1].fetch_add(1, Ordering::Relaxed);
        let answer = self.outbound.send_for_document(ask).await.map(|answer| Answered::of(&answer));
        FetchedDocument { url, answer }
    }

    async fn fetch_server(&self, issuer: &Issuer, origins: &Origins) -> Result<AuthorizationServer, Error> {
        let mut search = Search::of(Document::Server);
        for url in issuer.metadata_urls() {
            let seen = self.see(&url, origins).await;
            if let Some(found) = search.server(&seen, issuer)? {
                return Ok(found);
            }
        }
        Err(search.nowhere(issuer.as_str()))
    }
}
