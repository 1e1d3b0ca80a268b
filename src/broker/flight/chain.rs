//! Who we are: the identity at the root, the links behind it, and the client at each party.

use std::sync::Arc;

use super::super::error::Unusable;
use super::super::identities::Identity;
use super::super::refused::Presented;
use super::super::{Error, Order};
use super::route::Route;
use super::{Maker, Want, plain_request};
use crate::exchange::registration::Means;
use crate::exchange::{self, Client, ClientAuth, Destination, Identified, LINK_GRANT, Link};
use crate::identity::CLOCK_SKEW;
use crate::oauth::{Audience, AuthorizationServer, Issuer, Resource};
use crate::token::{Hop, SubjectToken};

/// Who we are to the authorization server, and how we came to be that.
pub(super) struct Standing {
    pub(super) subject: Option<SubjectToken>,
    pub(super) hops: Vec<Hop>,
}

/// One party on the way, and as whom we ask it.
pub(super) struct Leg<'a> {
    /// Under which name a registration there is remembered.
    pub(super) name: Arc<str>,
    /// The client that we are there, as configured.
    pub(super) client: &'a Client,
    /// Who is asked.
    pub(super) party: &'a AuthorizationServer,
    /// The grant that will be used.
    pub(super) grant: &'static str,
    /// The identity that is presented.
    pub(super) subject: Option<&'a SubjectToken>,
}

/// For whom the identity is made that goes to the server's authorization server.
pub(in crate::broker) fn expected_audience(order: &Order, issuer: &Issuer) -> Audience {
    order.expected().audience(issuer, &plain_request(order))
}

impl Maker {
    /// The links between the platform's token and the server's authorization server.
    pub(in crate::broker) fn chain<'a>(&'a self, order: &'a Order) -> Result<Vec<&'a Link>, Error> {
        if !order.needs_subject() {
            return Ok(Vec::new());
        }
        Ok(self.identity(order)?.links.iter().chain(&order.idp).collect())
    }

    /// The identity that the order names.
    pub(in crate::broker) fn identity(&self, order: &Order) -> Result<&Identity, Error> {
        match self.identities.get(&order.identity) {
            Some(Ok(identity)) => Ok(identity),
            Some(Err(error)) => Err(error.clone().into()),
            None => Err(Error::internal("an identity that configuration let pass is unknown")),
        }
    }

    /// The platform's token, made for the first party that it goes to.
    pub(in crate::broker) async fn subject(
        &self,
        order: &Order,
        chain: &[&Link],
        issuer: &Issuer,
    ) -> Result<Option<SubjectToken>, Error> {
        if !order.needs_subject() {
            return Ok(None);
        }
        let audience = match chain.first() {
            Some(link) => link.audience(),
            None => expected_audience(order, issuer),
        };
        let subject = self.identity(order)?.source.subject_token(&audience).await?;
        Ok(Some(subject))
    }

    /// Walks the chain, and checks before each step that what leaves is made for the one party it goes to.
    pub(super) async fn stand(
        &self,
        want: &Want,
        route: &Route,
        audience: &Audience,
        request: &exchange::Request,
    ) -> Result<Standing, Error> {
        let order = &*want.order;
        let Some(subject) = &route.subject else { return Ok(Standing { subject: None, hops: Vec::new() }) };
        let (mut subject, mut source) = (subject.clone(), self.identity(order)?.source.name());
        let mut hops = vec![Hop::of(source, &subject.claims)];
        let fit = |subject: &SubjectToken, audience: &Audience, source, is_named: bool| {
            let known = if is_named { Ok(()) } else { subject.must_be_jwt() };
            let fit = known.and_then(|()| subject.fit_for(audience, self.clock.unix(), CLOCK_SKEW));
            fit.map_err(|unfit| Unusable::Subject { source_name: source, unfit })
        };
        let chain = self.chain(order)?;
        for (i, (link, party)) in chain.iter().zip(&route.parties).enumerate() {
            fit(&subject, &link.audience(), source, link.names_its_subject())?;
            let next = chain.get(i + 1).map_or_else(|| audience.clone(), |next| next.audience());
            let destination =
                Destination { audience: &next, resource: request.resource.as_ref(), scopes: &request.scopes };
            let leg = Leg {
                name: format!("{}@{}", order.name, link.issuer).into(),
                client: &link.client,
                party,
                grant: LINK_GRANT,
                subject: Some(&subject),
            };
            subject = self.change(want, link, &leg, &destination).await?;
            source = link.step();
            hops.push(Hop::of(source, &subject.claims));
        }
        fit(&subject, audience, source, order.names_its_subject())?;
        Ok(Standing { subject: Some(subject), hops })
    }

    async fn change(
        &self,
        want: &Want,
        link: &Link,
        leg: &Leg<'_>,
        destination: &Destination<'_>,
    ) -> Result<SubjectToken, Error> {
        let Some(subject) = leg.subject else { return Err(Error::internal("a link has nothing to change")) };
        let asked = [destination.audience.as_str(), destination.resource.map_or("", Resource::as_str)];
        let presented = Presented::of(subject, &leg.party.issuer, &asked, destination.scopes, &[]);
        self.refused.check(&presented)?;
        let client = self.identify(&want.order, leg).await?;
        let place = self.pace.enter(&leg.party.issuer).await;
        let changed = link.change.change(&self.way(leg.party), subject, client, destination).await;
        drop(place);
        changed.map_err(|error| {
            self.refused.remember(&presented, &error);
            if error.may_come_of_old_documents() {
                self.discovery.forget(&want.server.url, Some(&leg.party.issuer));
            }
            error.into()
        })
    }

    /// The client that we are to this party, ready to prove itself.
    pub(super) async fn identify(&self, order: &Order, leg: &Leg<'_>) -> Result<Identified, Error> {
        let by_workload = leg.client.auth == ClientAuth::MutualTls && leg.client.certificate_file.is_none();
        let certificate = if by_workload { self.identity(order)?.source.certificate().await? } else { None };
        let certificate = certificate.map(Arc::new);
        let (subject, grant) = (leg.subject, leg.grant);
        let means = Means { env: &self.env, outbound: &self.outbound, subject, certificate, grant };
        self.registrations.identify(&leg.name, leg.client, leg.party, &means).await.map_err(Error::from)
    }
}
