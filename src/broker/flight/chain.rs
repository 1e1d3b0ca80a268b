//! The identity and the client that we present: the platform's token, the links that exchange it for the next one, and
//! our OAuth client at each party.

use std::sync::Arc;

use super::super::error::Unusable;
use super::super::identities::Identity;
use super::super::refused::Presented;
use super::super::{Assertion, Error, Order, Pin};
use super::route::Route;
use super::{Minter, TokenRequest, plain_request};
use crate::exchange::registration::ClientContext;
use crate::exchange::{
    self, AssertionAudience, Client, ClientAuth, Destination, LINK_GRANT, Link, LinkParameters, ResolvedClient,
};
use crate::identity::CLOCK_SKEW;
use crate::oauth::{Audience, AuthorizationServer, Issuer, Resource, Scopes};
use crate::outbound::Origins;
use crate::token::{Hop, SubjectToken};

/// The identity that the authorization server gets, and the steps that led to it.
pub(super) struct PresentedIdentity {
    pub(super) subject: Option<SubjectToken>,
    pub(super) hops: Vec<Hop>,
}

/// One party that is asked, with the identity and the client that we present there.
pub(super) struct Leg<'a> {
    /// The name under which our registration there is stored.
    pub(super) name: Arc<str>,
    /// The identity whose certificate authenticates the client, if no certificate file is configured.
    pub(super) identity: &'a str,
    /// Our client there, as configured.
    pub(super) client: &'a Client,
    /// The party itself.
    pub(super) party: &'a AuthorizationServer,
    /// The origins that the configuration names for requests to it.
    pub(super) origins: &'a Origins,
    /// The grant that will be used.
    pub(super) grant: &'static str,
    /// The identity token that is presented, if any.
    pub(super) subject: Option<&'a SubjectToken>,
}

/// The chain of one identity, from the platform to the party that its last token is for.
struct ChainWalk<'a> {
    want: &'a TokenRequest,
    /// The name of the identity at the root.
    identity: &'a str,
    chain: &'a [&'a Link],
    /// The authorization server of each link.
    parties: &'a [Arc<AuthorizationServer>],
    /// May the last token be something other than a JWT?
    may_be_no_jwt: bool,
}

/// One link of the chain: the token that goes in, and the party that gets it.
struct Step<'a> {
    link: &'a Link,
    party: &'a AuthorizationServer,
    /// The name of the identity at the root.
    identity: &'a str,
    subject: &'a SubjectToken,
}

/// The audience of the identity token for the server's authorization server.
pub(in crate::broker) fn expected_audience(order: &Order, server: &AuthorizationServer) -> Audience {
    order.expected().audience(server, &plain_request(order))
}

impl Minter {
    /// The links between the platform's token and the server's authorization server; none if no subject token is
    /// needed. Fails if the identity was not found.
    pub(in crate::broker) fn chain<'a>(&'a self, order: &'a Order) -> Result<Vec<&'a Link>, Error> {
        if !order.needs_subject() {
            return Ok(Vec::new());
        }
        Ok(self.identity(order)?.links.iter().chain(&order.idp).collect())
    }

    /// The authorization server, as far as the audience of the identity token depends on it. Its metadata are read only if
    /// that audience is its token endpoint.
    pub(in crate::broker) async fn addressee(
        &self,
        order: &Order,
        issuer: &Issuer,
        origins: &Origins,
    ) -> Result<Arc<AuthorizationServer>, Error> {
        match order.subject_audience {
            Some(AssertionAudience::TokenEndpoint) => self.metadata(issuer, order.token_endpoint(), origins).await,
            _ => Ok(Arc::new(AuthorizationServer::silent(issuer.clone(), ""))),
        }
    }

    /// The identity that the order names. Fails if it was not found.
    pub(in crate::broker) fn identity(&self, order: &Order) -> Result<&Identity, Error> {
        self.named_identity(&order.identity)
    }

    pub(super) fn named_identity(&self, name: &str) -> Result<&Identity, Error> {
        match self.identities.get(name) {
            Some(Ok(identity)) => Ok(identity),
            Some(Err(error)) => Err(error.clone().into()),
            None => Err(Error::internal("an identity that configuration let pass is unknown")),
        }
    }

    /// The platform's token, made for the first party that gets it; `None` if the order needs none.
    pub(in crate::broker) async fn subject(
        &self,
        order: &Order,
        chain: &[&Link],
        server: &AuthorizationServer,
    ) -> Result<Option<SubjectToken>, Error> {
        if !order.needs_subject() {
            return Ok(None);
        }
        self.needed_subject(order, chain, server).await.map(Some)
    }

    /// The same for an order that needs one.
    pub(in crate::broker) async fn needed_subject(
        &self,
        order: &Order,
        chain: &[&Link],
        server: &AuthorizationServer,
    ) -> Result<SubjectToken, Error> {
        let audience = match chain.first() {
            Some(link) => link.audience(),
            None => expected_audience(order, server),
        };
        Ok(self.identity(order)?.source.subject_token(&audience).await?)
    }

    /// The identity token for the authorization server: the platform's token, exchanged at every link.
    pub(super) async fn identity_for_server(
        &self,
        want: &TokenRequest,
        route: &Route,
        audience: &Audience,
        request: &exchange::Request,
    ) -> Result<PresentedIdentity, Error> {
        let order = &*want.order;
        let Some(subject) = &route.subject else { return Ok(PresentedIdentity { subject: None, hops: Vec::new() }) };
        let chain = self.chain(order)?;
        let (parties, may_be_no_jwt) = (&route.parties, order.takes_any_subject_type());
        let journey = ChainWalk { want, identity: &order.identity, chain: &chain, parties, may_be_no_jwt };
        let (resource, parameters) = (request.resource.as_ref(), &LinkParameters::default());
        let destination = Destination { audience, resource, scopes: &request.scopes, parameters };
        let (subject, hops) = self.walk(&journey, subject.clone(), &destination).await?;
        Ok(PresentedIdentity { subject: Some(subject), hops })
    }

    /// A token of this identity for this audience: the platform's, or the last of the chain.
    pub(super) async fn through_chain(
        &self,
        want: &TokenRequest,
        name: &str,
        audience: &Audience,
    ) -> Result<(SubjectToken, Vec<Hop>), Error> {
        let identity = self.named_identity(name)?;
        let chain: Vec<&Link> = identity.links.iter().collect();
        let first = chain.first().map_or_else(|| audience.clone(), |link| link.audience());
        let subject = async { identity.source.subject_token(&first).await.map_err(Error::from) };
        let (subject, parties) = tokio::try_join!(subject, self.parties(&chain))?;
        let journey = ChainWalk { want, identity: name, chain: &chain, parties: &parties, may_be_no_jwt: false };
        let (scopes, parameters) = (&Scopes::default(), &LinkParameters::default());
        let destination = Destination { audience, resource: None, scopes, parameters };
        self.walk(&journey, subject, &destination).await
    }

    /// The identity tokens for further form parameters, each made for the pinned issuer.
    pub(super) async fn assertions(
        &self,
        want: &TokenRequest,
        pin: &Pin,
        server: &AuthorizationServer,
    ) -> Result<Vec<(String, SubjectToken)>, Error> {
        let audience = expected_audience(&want.order, server);
        let all = pin.assertions.iter().map(|assertion| self.assertion(want, assertion, &audience));
        futures_util::future::try_join_all(all).await
    }

    async fn assertion(
        &self,
        want: &TokenRequest,
        assertion: &Assertion,
        audience: &Audience,
    ) -> Result<(String, SubjectToken), Error> {
        let (token, _) = self.through_chain(want, &assertion.identity, audience).await?;
        Ok((assertion.parameter.clone(), token))
    }

    /// Exchanges the token at every link. Before each step it checks that the token is made for the one party that gets
    /// it, and fails if not.
    async fn walk(
        &self,
        journey: &ChainWalk<'_>,
        mut subject: SubjectToken,
        destination: &Destination<'_>,
    ) -> Result<(SubjectToken, Vec<Hop>), Error> {
        let ChainWalk { want, identity, chain, parties, may_be_no_jwt } = journey;
        let mut source = self.named_identity(identity)?.source.name();
        let mut hops = vec![Hop::of(source, &subject.claims)];
        let fit = |subject: &SubjectToken, audience: &Audience, source, is_named: bool| {
            let known = if is_named { Ok(()) } else { subject.must_be_jwt() };
            let fit = known.and_then(|()| subject.fit_for(audience, self.clock.unix(), CLOCK_SKEW));
            fit.map_err(|unfit| Unusable::Subject { source_name: source, unfit })
        };
        for (i, (link, party)) in chain.iter().zip(*parties).enumerate() {
            fit(&subject, &link.audience(), source, link.takes_any_subject_type())?;
            let next = chain.get(i + 1).map_or_else(|| destination.audience.clone(), |next| next.audience());
            let on_the_way = Destination { audience: &next, parameters: &link.parameters, ..*destination };
            let step = Step { link, party, identity, subject: &subject };
            subject = self.change(want, &step, &on_the_way).await?;
            source = link.step();
            hops.push(Hop::of(source, &subject.claims));
        }
        fit(&subject, destination.audience, source, *may_be_no_jwt)?;
        Ok((subject, hops))
    }

    /// One exchange at one link. Fails without a request if the party refused this token before.
    async fn change(
        &self,
        want: &TokenRequest,
        step: &Step<'_>,
        next: &Destination<'_>,
    ) -> Result<SubjectToken, Error> {
        let Step { link, party, identity, subject } = *step;
        let asked = (&link.fields(), &[next.audience.as_str(), next.resource.map_or("", Resource::as_str)][..]);
        let presented = Presented::of((&want.order, &want.permit), subject, &party.issuer, asked, next.scopes);
        let refused =
            |error: Error| error.presenting(std::iter::once(subject), self.clock.unix()).until_identity_changes(false);
        self.refused.check(&presented).map_err(refused)?;
        let name = format!("{}@{}", want.order.name, link.issuer).into();
        let origins = link.origins();
        let leg = Leg {
            name,
            identity,
            client: &link.client,
            party,
            origins: &origins,
            grant: LINK_GRANT,
            subject: Some(subject),
        };
        let client = self.identify(&leg).await?;
        let place = self.pace.enter(&party.issuer, &want.urgency).await?;
        let changed = link.change.change(&self.endpoint(party, &origins), subject, client, next).await;
        drop(place);
        changed.map_err(|error| {
            if error.may_be_stale_metadata() {
                self.discovery.forget(&want.server.url, Some(&party.issuer));
            }
            refused(self.refused.remember(&presented, error, self.clock.unix()))
        })
    }

    /// Our client at this party, registered there if necessary, with its means of authentication.
    pub(super) async fn identify(&self, leg: &Leg<'_>) -> Result<ResolvedClient, Error> {
        let by_workload = leg.client.auth == ClientAuth::MutualTls && leg.client.certificate_file.is_none();
        let certificate =
            if by_workload { self.named_identity(leg.identity)?.source.certificate().await? } else { None };
        let certificate = certificate.map(Arc::new);
        let (subject, grant, origins) = (leg.subject, leg.grant, leg.origins);
        let means = ClientContext { env: &self.env, outbound: &self.outbound, origins, subject, certificate, grant };
        self.registrations.identify(&leg.name, leg.client, leg.party, &means).await.map_err(Error::from)
    }
}
