//! Whom a flight asks: who guards the server, and what each party on the way says of itself.
//!
//! With a pinned issuer the audience is known at once, so the resource metadata, the server metadata and the
//! subject token are fetched side by side. Without a pin the resource metadata comes first, because it names
//! the issuer.

use std::sync::Arc;

use super::super::error::{NoRoute, Words};
use super::super::{Error, Opens, Order, ResourceParameter, Server};
use super::judge::listed;
use super::{Maker, Want};
use crate::discovery::{self, Protection};
use crate::exchange::{IssuerIs, Link};
use crate::oauth::{AuthorizationServer, Issuer, Resource};
use crate::outbound::NamedBy;
use crate::token::SubjectToken;

/// Everything that must be known before a token is asked for.
pub(super) struct Route {
    pub(super) protection: Arc<Protection>,
    pub(super) server: Arc<AuthorizationServer>,
    /// Who we are to the platform, where that is asked for.
    pub(super) subject: Option<SubjectToken>,
    pub(super) issuer_is: IssuerIs,
    /// The parties on the way, in the order of the chain.
    pub(super) parties: Vec<Arc<AuthorizationServer>>,
    /// The further form parameters that are tokens of identities.
    pub(super) assertions: Vec<(String, SubjectToken)>,
}

impl Maker {
    pub(super) async fn route(&self, want: &Want) -> Result<Route, Error> {
        let (server, order) = (&*want.server, &*want.order);
        let chain = self.chain(order)?;
        let parties = self.parties(&chain);
        if let Some(pin) = &order.pin {
            let pinned = &pin.issuer;
            let (protection, metadata, subject, parties, assertions) = tokio::try_join!(
                async { self.protection_beside_pin(want, pinned).await },
                self.metadata(pinned, pin.token_endpoint.as_deref()),
                self.subject(order, &chain, pinned),
                parties,
                self.assertions(want, pin),
            )?;
            let issuer_is = IssuerIs::Pinned;
            return Ok(Route { protection, server: metadata, subject, issuer_is, parties, assertions });
        }
        let protection = self.discovery.protection(&server.url, server.named_by).await?;
        let (issuer, issuer_is) = self.pick(server, &protection)?;
        let (metadata, subject, parties) =
            tokio::try_join!(self.metadata(&issuer, None), self.subject(order, &chain, &issuer), parties)?;
        Ok(Route { protection, server: metadata, subject, issuer_is, parties, assertions: Vec::new() })
    }

    /// What an authorization server says of itself, or what the operator says of a silent one.
    pub(in crate::broker) async fn metadata(
        &self,
        issuer: &Issuer,
        endpoint: Option<&str>,
    ) -> Result<Arc<AuthorizationServer>, Error> {
        match endpoint {
            Some(endpoint) => Ok(Arc::new(AuthorizationServer::silent(issuer.clone(), endpoint))),
            None => self.discovery.server(issuer, NamedBy::Them).await.map_err(Error::from),
        }
    }

    /// What the servers along a chain say of themselves, all asked at once.
    pub(super) async fn parties(&self, chain: &[&Link]) -> Result<Vec<Arc<AuthorizationServer>>, Error> {
        let parties = chain.iter().map(|link| self.metadata(&link.issuer, link.token_endpoint.as_deref()));
        futures_util::future::try_join_all(parties).await
    }

    /// A pin needs no resource metadata, but metadata that contradicts it is an error.
    async fn protection_beside_pin(&self, want: &Want, pinned: &Issuer) -> Result<Arc<Protection>, Error> {
        // Nobody gets past a front door without its credential, and who guards the server is pinned.
        let Want { server, order, .. } = want;
        if server.front_door.is_some() || !order.is_discovered() {
            return Ok(Arc::default());
        }
        let protection = match self.discovery.protection(&server.url, server.named_by).await {
            Ok(protection) => protection,
            Err(error @ discovery::Error::ResourceMismatch { .. }) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(server = %server.name, %error, "going on with the pinned issuer alone");
                Arc::default()
            }
        };
        listed(pinned, &protection)?;
        Ok(protection)
    }

    /// Which of the servers that the metadata names: the only one on the operator's list, else the only one.
    pub(in crate::broker) fn pick(
        &self,
        server: &Server,
        protection: &Protection,
    ) -> Result<(Issuer, IssuerIs), Error> {
        let metadata = protection
            .metadata
            .as_ref()
            .ok_or_else(|| discovery::Error::NoResourceMetadata { server: server.url.to_string() })?;
        let named = &metadata.authorization_servers;
        let (candidates, issuer_is): (Vec<&String>, _) = match &self.issuers {
            Some(listed) => (
                named.iter().filter(|one| listed.iter().any(|issuer| issuer.as_str() == one.as_str())).collect(),
                IssuerIs::Listed,
            ),
            None => (named.iter().collect(), IssuerIs::Discovered),
        };
        match candidates.as_slice() {
            [only] => match Issuer::parse(only) {
                Ok(issuer) => Ok((issuer, issuer_is)),
                Err(why) => Err(NoRoute::BadIssuer { issuer: Words::of(only), why }.into()),
            },
            [] if issuer_is == IssuerIs::Listed => Err(NoRoute::IssuerNotListed(Words::list(named)).into()),
            [] => Err(discovery::Error::NoResourceMetadata { server: server.url.to_string() }.into()),
            _ => Err(NoRoute::SeveralIssuers(Words::list(named)).into()),
        }
    }

    /// A token for a resource that covers two servers is good for both. If these allow different callers, a caller of
    /// the one would get what is meant for callers of the other.
    pub(in crate::broker) fn not_shared(
        &self,
        server: &Server,
        order: &Order,
        resource: &Resource,
    ) -> Result<(), Error> {
        // A front door's token is no resource's.
        if order.opens == Opens::FrontDoor {
            return Ok(());
        }
        let covers = |other: &Server| {
            resource.stands_for(&other.url)
                || matches!(&other.order.resource, ResourceParameter::Fixed(same) if same == resource)
        };
        let mut covered = self.servers.iter().filter(|other| other.name != server.name && covers(other));
        match covered.find(|other| other.policy.allow != server.policy.allow) {
            Some(other) => Err(NoRoute::SharedResource {
                resource: resource.clone(),
                server: server.name.to_string(),
                other: other.name.to_string(),
            }
            .into()),
            None => Ok(()),
        }
    }
}
