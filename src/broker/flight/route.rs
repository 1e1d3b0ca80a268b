//! The parties that a flight asks: the server's authorization server, those of the links, and the metadata of each.
//!
//! With a pinned issuer the audience is known from the start, so the resource metadata, the server metadata and the
//! subject token are fetched concurrently. Without a pin the resource metadata comes first, because it names the
//! issuer.

use std::sync::Arc;

use super::super::error::{NoRoute, Words};
use super::super::{Class, Error, Order, ResourceParameter, Server, TokenFor};
use super::judge::listed;
use super::{Minter, TokenRequest};
use crate::discovery::{self, Protection};
use crate::exchange::{self, Exchange, IssuerOrigin, Link};
use crate::oauth::{AuthorizationServer, Issuer, Resource};
use crate::outbound::Origins;
use crate::token::SubjectToken;

/// Everything that must be known before a token is asked for.
pub(super) struct Route {
    pub(super) protection: Arc<Protection>,
    pub(super) server: Arc<AuthorizationServer>,
    /// The platform's token, if one is needed.
    pub(super) subject: Option<SubjectToken>,
    pub(super) issuer_is: IssuerOrigin,
    /// The authorization servers of the links, in the order of the chain.
    pub(super) parties: Vec<Arc<AuthorizationServer>>,
    /// The identity tokens for further form parameters.
    pub(super) assertions: Vec<(String, SubjectToken)>,
}

impl Route {
    /// How the token is asked for there.
    pub(super) fn exchange<'a>(&self, order: &'a Order) -> Result<&'a dyn Exchange, Error> {
        exchange::choose(order.exchange.as_deref(), &self.server, self.issuer_is)
            .ok_or_else(|| NoRoute::no_exchange(&self.server).into())
    }
}

impl Minter {
    /// Fetches everything that a token request needs. Fails if the metadata is missing, contradictory or names no
    /// usable issuer, or if the platform gives no token.
    pub(super) async fn route(&self, want: &TokenRequest) -> Result<Route, Error> {
        let (server, order) = (&*want.server, &*want.order);
        let chain = self.chain(order)?;
        let parties = self.parties(&chain);
        let origins = server.origins();
        if let Some(pin) = &order.pin {
            let pinned = &pin.issuer;
            let others = async {
                let addressee = self.addressee(order, pinned, &origins).await?;
                tokio::try_join!(
                    self.metadata(pinned, pin.token_endpoint.as_deref(), &origins),
                    self.subject(order, &chain, &addressee),
                    parties,
                    self.assertions(want, pin, &addressee),
                )
            };
            // A pin that the server does not name is wrong for good. Neither a party that cannot be reached nor what the wrong
            // issuer publishes must hide that.
            let (protection, others) = tokio::try_join!(self.protection_with_pin(want, pinned), async {
                match others.await {
                    Err(error) if error.class() == Class::Temporary || error.is_of_discovery() => Ok(Err(error)),
                    Err(error) => Err(error),
                    Ok(others) => Ok(Ok(others)),
                }
            })?;
            let (metadata, subject, parties, assertions) = others?;
            let issuer_is = IssuerOrigin::Pinned;
            return Ok(Route { protection, server: metadata, subject, issuer_is, parties, assertions });
        }
        let protection = self.discovery.protection(&server.url, &origins).await?;
        let (issuer, issuer_is) = self.pick(server, &protection)?;
        let origins = self.origins(server, &issuer);
        // Only at a pinned issuer another audience can be configured.
        let addressee = AuthorizationServer::silent(issuer.clone(), "");
        let subject = self.subject(order, &chain, &addressee);
        let (metadata, subject, parties) = tokio::try_join!(self.metadata(&issuer, None, &origins), subject, parties)?;
        Ok(Route { protection, server: metadata, subject, issuer_is, parties, assertions: Vec::new() })
    }

    /// The origins that the configuration names for requests to this issuer on behalf of this server. An issuer in
    /// `[egress] issuers` is named for every server that it is chosen for.
    pub(in crate::broker) fn origins(&self, server: &Server, issuer: &Issuer) -> Origins {
        let is_listed = self.issuers.as_ref().is_some_and(|listed| listed.contains(issuer));
        let own = server.origins();
        if is_listed { own.and(issuer.as_str()) } else { own }
    }

    /// The metadata of an authorization server. With `endpoint`, which the operator configures for a server that
    /// publishes none, nothing is fetched.
    pub(in crate::broker) async fn metadata(
        &self,
        issuer: &Issuer,
        endpoint: Option<&str>,
        origins: &Origins,
    ) -> Result<Arc<AuthorizationServer>, Error> {
        match endpoint {
            Some(endpoint) => Ok(Arc::new(AuthorizationServer::silent(issuer.clone(), endpoint))),
            None => self.discovery.server(issuer, origins).await.map_err(Error::from),
        }
    }

    /// The metadata of the authorization servers of a chain, fetched concurrently.
    pub(super) async fn parties(&self, chain: &[&Link]) -> Result<Vec<Arc<AuthorizationServer>>, Error> {
        let parties = chain
            .iter()
            .map(async |link| self.metadata(&link.issuer, link.token_endpoint.as_deref(), &link.origins()).await);
        futures_util::future::try_join_all(parties).await
    }

    /// The resource metadata beside a pinned issuer. It may be missing, but must not contradict the pin.
    async fn protection_with_pin(&self, want: &TokenRequest, pinned: &Issuer) -> Result<Arc<Protection>, Error> {
        // Discovery has no credential for a front door, and the pin already names the authorization server.
        let TokenRequest { server, order, .. } = want;
        if server.front_door.is_some() || !order.is_discovered() {
            return Ok(Arc::default());
        }
        let protection = match self.discovery.protection(&server.url, &server.origins()).await {
            Ok(protection) => protection,
            // What it names is neither sent nor compared if the operator says what is sent.
            Err(error @ discovery::Error::ResourceMismatch { .. })
                if order.resource == ResourceParameter::FromMetadata =>
            {
                return Err(error.into());
            }
            Err(error) => {
                tracing::warn!(server = %server.name, %error, "going on with the pinned issuer alone");
                Arc::default()
            }
        };
        if let Some(error @ discovery::Error::Unusable { .. }) = &protection.missing {
            tracing::warn!(server = %server.name, %error, "going on with the pinned issuer alone");
        }
        listed(pinned, &protection)?;
        Ok(protection)
    }

    /// Chooses one of the authorization servers that the metadata names: the only one on the operator's list, or,
    /// without a list, the only one. Fails if none or several remain.
    pub(in crate::broker) fn pick(
        &self,
        server: &Server,
        protection: &Protection,
    ) -> Result<(Issuer, IssuerOrigin), Error> {
        let name = || server.url.to_string();
        let metadata = protection.metadata.as_ref().ok_or_else(|| {
            protection.missing.clone().unwrap_or_else(|| discovery::Error::NoResourceMetadata { server: name() })
        })?;
        let named = &metadata.authorization_servers;
        let (candidates, issuer_is): (Vec<&String>, _) = match &self.issuers {
            Some(listed) => (
                named.iter().filter(|one| listed.iter().any(|issuer| issuer.as_str() == one.as_str())).collect(),
                IssuerOrigin::Listed,
            ),
            None => (named.iter().collect(), IssuerOrigin::Discovered),
        };
        match candidates.as_slice() {
            [only] => match Issuer::parse(only) {
                Ok(issuer) => Ok((issuer, issuer_is)),
                Err(why) => Err(NoRoute::BadIssuer { issuer: Words::of(only), why }.into()),
            },
            [] if named.is_empty() => Err(discovery::Error::NamesNoIssuer { server: name() }.into()),
            [] => Err(NoRoute::IssuerNotListed(Words::list(named)).into()),
            _ => Err(NoRoute::SeveralIssuers(Words::list(named)).into()),
        }
    }

    /// Fails if this resource also covers another server, unless the operator configured `resource` at both and both
    /// allow the same callers. A token for it is good for both: a caller of one server could use the other, and so could
    /// the server itself.
    pub(in crate::broker) fn check_not_shared(
        &self,
        server: &Server,
        order: &Order,
        resource: &Resource,
    ) -> Result<(), Error> {
        // A front door's token is not for a resource.
        if order.opens == TokenFor::FrontDoor {
            return Ok(());
        }
        let covers = |other: &Server| {
            resource.stands_for(&other.url)
                || matches!(&other.order.resource, ResourceParameter::Fixed(same) if same == resource)
        };
        let is_configured = |order: &Order| !order.is_discovered() || order.resource != ResourceParameter::FromMetadata;
        let is_meant = |other: &Server| {
            let both = is_configured(order) && is_configured(&other.order);
            (both || other.url == server.url) && other.policy.allow == server.policy.allow
        };
        let mut covered = self.servers.iter().filter(|other| other.name != server.name && covers(other));
        match covered.find(|other| !is_meant(other)) {
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
