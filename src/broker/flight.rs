//! One flight: discovery, identity, exchange. The critical path holds no avoidable round trip.
//!
//! With a pinned issuer the audience is known at once, so the resource metadata, the server metadata and the
//! subject token are fetched side by side. Without a pin the resource metadata comes first, because it names
//! the issuer. With warm discovery what is left is the subject token, then the token request.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::{NoRoute, Unusable, Words};
use super::identities::Identity;
use super::refused::{Presented, Refused};
use super::{Class, Error, ResourceParameter, Server};
use crate::clock::{Clock, rfc3339};
use crate::discovery::{self, Discovery, Protection};
use crate::dpop;
use crate::env::Env;
use crate::exchange::pace::Pace;
use crate::exchange::registration::{Means, Registrations};
use crate::exchange::{
    self, Asks, Client, ClientAuth, Destination, Exchange, Gives, Identified, Issued, IssuerIs, Link, Root, Way,
    revocation,
};
use crate::identity::{self, CLOCK_SKEW};
use crate::oauth::{Audience, AuthorizationServer, Issuer, Resource, Scopes};
use crate::outbound::{NamedBy, Outbound};
use crate::policy::{Denied, Permit};
use crate::token::{Binding, Claims, Hop, SubjectToken, Token};

/// Without `expires_in` and without a JWT to read, a token is believed for this long.
const UNKNOWN_LIFE: Duration = Duration::from_secs(300);

/// More servers than a daemon has.
const KEYS: usize = 1_024;

/// Makes tokens. It knows identity and exchange, and nobody else knows both.
pub(super) struct Maker {
    /// By name; a server's is always among them.
    pub(super) identities: BTreeMap<Arc<str>, Result<Identity, identity::Error>>,
    pub(super) outbound: Outbound,
    pub(super) discovery: Discovery,
    pub(super) pace: Arc<Pace>,
    pub(super) registrations: Arc<Registrations>,
    pub(super) nonces: Arc<dpop::Nonces>,
    /// One for each server, so that two servers cannot tell that they have the same client.
    pub(super) keys: Arc<Mutex<HashMap<Arc<str>, Arc<dpop::Key>>>>,
    pub(super) issuers: Option<Vec<Issuer>>,
    pub(super) clock: Clock,
    pub(super) env: Env,
    /// All servers, for what one of them says about the others.
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) refused: Arc<Refused>,
}

/// What was asked for, and the answer as it came.
pub(super) struct Granting {
    route: Route,
    pub(super) request: exchange::Request,
    pub(super) resource: Resource,
    hops: Vec<Hop>,
    pub(super) issued: Issued,
}

/// What a token is put together from.
struct Parts {
    resource: Resource,
    issuer: Issuer,
    hops: Vec<Hop>,
    issued: Issued,
    /// Those of the token itself, where it is a JWT.
    claims: Option<Claims>,
    binding: Binding,
}

/// Everything that must be known before a token is asked for.
struct Route {
    protection: Arc<Protection>,
    server: Arc<AuthorizationServer>,
    /// Who we are to the platform, where that is asked for.
    subject: Option<SubjectToken>,
    issuer_is: IssuerIs,
    /// The parties on the way, in the order of the chain.
    parties: Vec<Arc<AuthorizationServer>>,
}

/// Who we are to the authorization server, and how we came to be that.
struct Standing {
    subject: Option<SubjectToken>,
    hops: Vec<Hop>,
}

impl Maker {
    /// The flight, from nothing to a token.
    pub(super) async fn mint(&self, server: &Server, permit: &Permit) -> Result<Token, Error> {
        let mut outcome = self.attempt(server, permit).await;
        if outcome.as_ref().is_err_and(|error| error.wants_nonce() || error.is_stale()) {
            // The nonce is known now, or the dead connection is gone. What was presented may count as used, so all of it is
            // made anew.
            outcome = self.attempt(server, permit).await;
        }
        // What was wrong in the server's document may have been mended: the next flight reads it again.
        if outcome.as_ref().is_err_and(|error| matches!(error.class(), Class::Refused | Class::Config | Class::Denied))
        {
            self.discovery.forget(&server.url, None);
        }
        outcome
    }

    async fn attempt(&self, server: &Server, permit: &Permit) -> Result<Token, Error> {
        if server.expected().traits().asks == Asks::Nobody {
            return self.direct(server).await;
        }
        let granting = self.issue(server, permit).await?;
        self.token(server, granting)
    }

    /// Everything up to the authorization server's answer, which is not yet judged.
    pub(super) async fn issue(&self, server: &Server, permit: &Permit) -> Result<Granting, Error> {
        let route = self.route(server).await?;
        let exchange = exchange::choose(server.exchange.as_deref(), &route.server, route.issuer_is)
            .ok_or_else(|| NoRoute::no_exchange(&route.server))?;
        let resource = resource(server, &route.protection);
        self.not_shared(server, &resource)?;
        let scopes = wanted(permit, &route.protection).map_err(|denied| Error::denied(server, denied))?;
        within_ceiling(permit, &scopes).map_err(|denied| Error::denied(server, denied))?;
        let mut request = exchange::Request {
            resource: (server.resource != ResourceParameter::Omitted).then(|| resource.clone()),
            scopes,
            dpop: self.dpop_key(server, &route)?,
            ..plain_request(server)
        };
        let audience = exchange.audience(&route.server.issuer, &request);
        let standing = self.stand(server, &route, &audience, &request).await?;
        request.client = self.client(server, &route, &standing, exchange).await?;
        request.aws_credentials = self.own_credentials(server).await?;
        let issued = self.ask(server, exchange, &route, &standing, &request).await?;
        let mut hops = standing.hops;
        if let Some(signed) = &issued.signed {
            let source = if hops.is_empty() { self.identity(server)?.source.name() } else { exchange.name() };
            hops.push(Hop { source, iss: None, sub: signed.arn.clone() });
        }
        Ok(Granting { route, request, resource, hops, issued })
    }

    /// The keys of the workload's own role, where requests are signed with them.
    async fn own_credentials(&self, server: &Server) -> Result<Option<crate::aws::Credentials>, Error> {
        if !server.signs_as_itself() {
            return Ok(None);
        }
        let identity = self.identity(server)?;
        // What lies at the root of a chain is somebody else.
        if !identity.links.is_empty() {
            return Ok(None);
        }
        identity.source.aws_credentials().await.map_err(Error::from)
    }

    /// The workload's own JWT is what the server wants: nothing is discovered and nobody is asked.
    pub(super) async fn direct(&self, server: &Server) -> Result<Token, Error> {
        let identity = self.identity(server)?;
        let exchange = server.expected();
        let source = identity.source.name();
        let is_chain = !identity.links.is_empty();
        exchange
            .suits(&Root { name: &server.identity, source: Some(source), is_chain })
            .map_err(exchange::Error::from)?;
        let audience = Audience::from(server.subject_audience.as_deref().unwrap_or_default());
        let subject = identity.source.subject_token(&audience).await.map_err(Error::from)?;
        let now = self.clock.unix();
        let fit = subject.must_be_jwt().and_then(|()| subject.fit_for(&audience, now, Duration::ZERO));
        fit.map_err(|unfit| Unusable::Subject { source_name: source, unfit })?;
        let left = u64::try_from(subject.claims.exp.unwrap_or(now).saturating_sub(now)).unwrap_or(0);
        let issuer = Issuer::verbatim(subject.claims.iss.as_deref().unwrap_or("unknown"));
        let resource = resource(server, &Protection::default());
        self.not_shared(server, &resource)?;
        let silent = AuthorizationServer::silent(issuer.clone(), "");
        let request = plain_request(server);
        let mut issued = exchange.exchange(&self.way(&silent), Some(&subject), &request).await?;
        // From a file it may be old already: what counts is what is left of it.
        issued.expires_in = Some(Duration::from_secs(left));
        let hops = vec![Hop::of(source, &subject.claims)];
        let claims = Claims::read(issued.access_token.expose()).ok();
        let binding = Binding::Bearer;
        lasting(self.assembled(server, &request.scopes, Parts { resource, issuer, hops, issued, claims, binding }))
    }

    /// A token for a resource that covers two servers is good for both. If these allow different callers, a caller of
    /// the one would get what is meant for callers of the other.
    pub(super) fn not_shared(&self, server: &Server, resource: &Resource) -> Result<(), Error> {
        // A front door's token is no resource's.
        if server.is_outer {
            return Ok(());
        }
        let covers = |other: &Server| {
            resource.stands_for(&other.url)
                || matches!(&other.resource, ResourceParameter::Fixed(same) if same == resource)
        };
        let mut covered =
            self.servers.iter().filter(|other| other.name != server.name && !other.is_outer && covers(other));
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

    async fn route(&self, server: &Server) -> Result<Route, Error> {
        let chain = self.chain(server)?;
        let parties = self.parties(&chain);
        if let Some(pinned) = &server.issuer {
            let (protection, metadata, subject, parties) = tokio::try_join!(
                async { self.protection_beside_pin(server, pinned).await },
                self.metadata(pinned, server.token_endpoint.as_deref()),
                self.subject(server, &chain, pinned),
                parties,
            )?;
            return Ok(Route { protection, server: metadata, subject, issuer_is: IssuerIs::Pinned, parties });
        }
        let protection = self.discovery.protection(&server.url, server.named_by).await?;
        let (issuer, issuer_is) = self.pick(server, &protection)?;
        let (metadata, subject, parties) =
            tokio::try_join!(self.metadata(&issuer, None), self.subject(server, &chain, &issuer), parties)?;
        Ok(Route { protection, server: metadata, subject, issuer_is, parties })
    }

    /// What an authorization server says of itself, or what the operator says of a silent one.
    pub(super) async fn metadata(
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
    async fn parties(&self, chain: &[&Link]) -> Result<Vec<Arc<AuthorizationServer>>, Error> {
        let parties = chain.iter().map(|link| self.metadata(&link.issuer, link.token_endpoint.as_deref()));
        futures_util::future::try_join_all(parties).await
    }

    /// The links between the platform's token and the server's authorization server.
    pub(super) fn chain<'a>(&'a self, server: &'a Server) -> Result<Vec<&'a Link>, Error> {
        if !server.needs_subject() {
            return Ok(Vec::new());
        }
        Ok(self.identity(server)?.links.iter().chain(&server.idp).collect())
    }

    pub(super) fn identity(&self, server: &Server) -> Result<&Identity, Error> {
        match self.identities.get(&server.identity) {
            Some(Ok(identity)) => Ok(identity),
            Some(Err(error)) => Err(error.clone().into()),
            None => Err(Error::internal("an identity that configuration let pass is unknown")),
        }
    }

    /// The platform's token, made for the first party that it goes to.
    pub(super) async fn subject(
        &self,
        server: &Server,
        chain: &[&Link],
        issuer: &Issuer,
    ) -> Result<Option<SubjectToken>, Error> {
        if !server.needs_subject() {
            return Ok(None);
        }
        let audience = match chain.first() {
            Some(link) => link.audience(),
            None => expected_audience(server, issuer),
        };
        let subject = self.identity(server)?.source.subject_token(&audience).await?;
        Ok(Some(subject))
    }

    /// Walks the chain, and checks before each step that what leaves is made for the one party it goes to.
    async fn stand(
        &self,
        server: &Server,
        route: &Route,
        audience: &Audience,
        request: &exchange::Request,
    ) -> Result<Standing, Error> {
        let Some(subject) = &route.subject else { return Ok(Standing { subject: None, hops: Vec::new() }) };
        let (mut subject, mut source) = (subject.clone(), self.identity(server)?.source.name());
        let mut hops = vec![Hop::of(source, &subject.claims)];
        let fit = |subject: &SubjectToken, audience: &Audience, source, is_named: bool| {
            let known = if is_named { Ok(()) } else { subject.must_be_jwt() };
            let fit = known.and_then(|()| subject.fit_for(audience, self.clock.unix(), CLOCK_SKEW));
            fit.map_err(|unfit| Unusable::Subject { source_name: source, unfit })
        };
        let chain = self.chain(server)?;
        for (i, (link, party)) in chain.iter().zip(&route.parties).enumerate() {
            fit(&subject, &link.audience(), source, link.names_its_subject())?;
            let next = chain.get(i + 1).map_or_else(|| audience.clone(), |next| next.audience());
            let destination =
                Destination { audience: &next, resource: request.resource.as_ref(), scopes: &request.scopes };
            subject = self.change(server, link, party, &subject, &destination).await?;
            source = link.step();
            hops.push(Hop::of(source, &subject.claims));
        }
        fit(&subject, audience, source, server.names_its_subject())?;
        Ok(Standing { subject: Some(subject), hops })
    }

    #[expect(clippy::too_many_arguments, reason = "one link of a chain; ends with the noun `Leg`")]
    async fn change(
        &self,
        server: &Server,
        link: &Link,
        party: &AuthorizationServer,
        subject: &SubjectToken,
        destination: &Destination<'_>,
    ) -> Result<SubjectToken, Error> {
        let asked = [destination.audience.as_str(), destination.resource.map_or("", Resource::as_str)];
        let presented = Presented::of(subject, &party.issuer, &asked, destination.scopes, &[]);
        self.refused.check(&presented)?;
        let name: Arc<str> = format!("{}@{}", server.name, link.issuer).into();
        let client = self.identify(&name, &link.client, party, Some(subject), exchange::LINK_GRANT, server).await?;
        let place = self.pace.enter(&party.issuer).await;
        let changed = link.change.change(&self.way(party), subject, client, destination).await;
        drop(place);
        changed.map_err(|error| {
            self.refused.remember(&presented, &error);
            if error.may_come_of_old_documents() {
                self.discovery.forget(&server.url, Some(&party.issuer));
            }
            error.into()
        })
    }

    /// The client that we are to the server's authorization server.
    async fn client(
        &self,
        server: &Server,
        route: &Route,
        standing: &Standing,
        exchange: &dyn Exchange,
    ) -> Result<Identified, Error> {
        let subject = standing.subject.as_ref();
        self.identify(&server.name, &server.client, &route.server, subject, exchange.traits().grant, server).await
    }

    #[expect(clippy::too_many_arguments, reason = "one link of a chain; ends with the noun `Leg`")]
    async fn identify(
        &self,
        name: &Arc<str>,
        client: &Client,
        party: &AuthorizationServer,
        subject: Option<&SubjectToken>,
        grant: &'static str,
        server: &Server,
    ) -> Result<Identified, Error> {
        let by_workload = client.auth == ClientAuth::MutualTls && client.certificate_file.is_none();
        let certificate = if by_workload { self.identity(server)?.source.certificate().await? } else { None };
        let certificate = certificate.map(Arc::new);
        let means = Means { env: &self.env, outbound: &self.outbound, subject, certificate, grant };
        self.registrations.identify(name, client, party, &means).await.map_err(Error::from)
    }

    /// The key to bind the token to, where the server wants that or the operator.
    fn dpop_key(&self, server: &Server, route: &Route) -> Result<Option<Arc<dpop::Key>>, Error> {
        let required = route.protection.metadata.as_ref().is_some_and(|metadata| metadata.wants_dpop);
        if !server.dpop.unwrap_or(required) {
            return Ok(None);
        }
        if let Some(listed) = &route.server.dpop_algorithms
            && !listed.iter().any(|one| one == dpop::ALGORITHM)
        {
            return Err(NoRoute::NoDpop { issuer: route.server.issuer.clone() }.into());
        }
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get(&server.name) {
            return Ok(Some(Arc::clone(key)));
        }
        // Servers that are not configured come and go; a key that no token is bound to any more is of no use.
        if keys.len() >= KEYS {
            keys.retain(|_, key| Arc::strong_count(key) > 1);
        }
        let key = Arc::new(dpop::Key::generate().ok_or_else(|| Error::internal("no key could be made"))?);
        keys.insert(Arc::clone(&server.name), Arc::clone(&key));
        Ok(Some(key))
    }

    fn way<'a>(&'a self, server: &'a AuthorizationServer) -> Way<'a> {
        Way { outbound: &self.outbound, server, named_by: NamedBy::Them, clock: &self.clock, nonces: &self.nonces }
    }

    /// A pin needs no resource metadata, but metadata that contradicts it is an error.
    async fn protection_beside_pin(&self, server: &Server, pinned: &Issuer) -> Result<Arc<Protection>, Error> {
        // Nobody gets past a front door without its credential, and who guards the server is pinned.
        if server.outer.is_some() || !server.is_discovered() {
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
    pub(super) fn pick(&self, server: &Server, protection: &Protection) -> Result<(Issuer, IssuerIs), Error> {
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

    #[expect(clippy::too_many_arguments, reason = "one link of a chain; ends with the noun `Leg`")]
    async fn ask(
        &self,
        server: &Server,
        exchange: &dyn Exchange,
        route: &Route,
        standing: &Standing,
        request: &exchange::Request,
    ) -> Result<Issued, Error> {
        let issuer = &route.server.issuer;
        let asked = [request.resource.as_ref().map_or("", Resource::as_str), request.audience.as_deref().unwrap_or("")];
        // What a client signs for one request is never the same twice; only an identity can be refused for good.
        let presented = standing
            .subject
            .as_ref()
            .map(|subject| Presented::of(subject, issuer, &asked, &request.scopes, &request.extra));
        presented.as_ref().map_or(Ok(()), |presented| self.refused.check(presented))?;
        let place = self.pace.enter(issuer).await;
        let issued = exchange.exchange(&self.way(&route.server), standing.subject.as_ref(), request).await;
        drop(place);
        let error = match issued {
            Ok(issued) => return Ok(issued),
            Err(error) => error,
        };
        if let Some(presented) = &presented {
            self.refused.remember(presented, &error);
        }
        if error.is_about_the_client() {
            self.registrations.forget(&server.name, &server.client, issuer, request.client.id.as_deref()).await;
        }
        if error.may_come_of_old_documents() {
            self.discovery.forget(&server.url, Some(issuer));
        }
        Err(error.into())
    }

    /// Checks what was issued and puts the token together.
    pub(super) fn token(&self, server: &Server, granting: Granting) -> Result<Token, Error> {
        let Granting { route, request, resource, hops, issued } = granting;
        let issuer = &route.server.issuer;
        let claims = Claims::read(issued.access_token.expose()).ok();
        if route.issuer_is == IssuerIs::Discovered && !server.trust_discovered_issuer {
            bound(claims.as_ref(), &resource).map_err(|why| Unusable::NotBound {
                issuer: issuer.clone(),
                resource: resource.clone(),
                why,
            })?;
        }
        let binding = match &issued.signed {
            Some(signed) => Binding::SigV4(Arc::clone(&signed.signer)),
            None => binding(claims.as_ref(), &request)
                .map_err(|why| Unusable::ForeignKey { issuer: issuer.clone(), why })?,
        };
        let issuer = issuer.clone();
        lasting(self.assembled(server, &request.scopes, Parts { resource, issuer, hops, issued, claims, binding }))
    }

    fn assembled(&self, server: &Server, asked: &Scopes, parts: Parts) -> Token {
        let Parts { resource, issuer, hops, issued, claims, binding } = parts;
        let inherent = claims.as_ref().and_then(Claims::life);
        let life = [issued.expires_in, inherent].into_iter().flatten().min().unwrap_or(UNKNOWN_LIFE);
        let minted_wall = self.clock.wall();
        let scopes = issued.scopes.unwrap_or_else(|| asked.clone());
        let missing = asked.minus(&scopes);
        if !missing.is_empty() {
            tracing::warn!(server = %server.name, ?missing, "the authorization server granted less than was asked for");
        }
        Token {
            digest: issued.access_token.digest(),
            access_token: issued.access_token,
            scopes,
            missing,
            server: Arc::clone(&server.name),
            resource,
            issuer,
            minted: self.clock.boot(),
            minted_wall,
            expires_at: rfc3339(minted_wall + life.min(exchange::ABSURD_LIFE)),
            dates_itself: inherent.is_some(),
            life,
            binding,
            jti: claims.and_then(|claims| claims.jti),
            hops: hops.into(),
        }
    }

    /// Revokes a token where it was issued, as the client that it was issued to.
    pub(super) async fn revoke(&self, server: &Server, token: &Token) -> Result<(), revocation::Error> {
        if server.expected().traits().gives != Gives::Token {
            return Err(revocation::Error::NotOffered);
        }
        let prepare = async {
            let metadata = self.metadata(&token.issuer, server.token_endpoint.as_deref()).await?;
            let subject = self.proof_of_client(server, &metadata).await?;
            let grant = server.expected().traits().grant;
            let client =
                self.identify(&server.name, &server.client, &metadata, subject.as_ref(), grant, server).await?;
            Ok::<_, Error>((metadata, client))
        };
        let (metadata, client) = prepare.await.map_err(|error| revocation::Error::Client {
            why: error.to_string(),
            is_temporary: error.class() == Class::Temporary,
        })?;
        revocation::revoke(&self.way(&metadata), &client, &token.access_token).await
    }

    /// The identity that proves the client where no token is asked for. The whole chain is walked as for a token, and what
    /// is not made for the party it goes to, or was refused there, does not leave.
    async fn proof_of_client(
        &self,
        server: &Server,
        metadata: &Arc<AuthorizationServer>,
    ) -> Result<Option<SubjectToken>, Error> {
        if server.client.auth != ClientAuth::Workload {
            return Ok(None);
        }
        let chain = self.chain(server)?;
        let parties = self.parties(&chain).await?;
        let subject = self.subject(server, &chain, &metadata.issuer).await?;
        let (protection, metadata) = (Arc::default(), Arc::clone(metadata));
        let route = Route { protection, server: metadata, subject, issuer_is: IssuerIs::Pinned, parties };
        let issuer = &route.server.issuer;
        let audience = expected_audience(server, issuer);
        let standing = self.stand(server, &route, &audience, &plain_request(server)).await?;
        let subject = standing.subject;
        let presented = subject.as_ref().map(|one| Presented::of(one, issuer, &[], &Scopes::default(), &[]));
        presented.as_ref().map_or(Ok(()), |presented| self.refused.check(presented))?;
        Ok(subject)
    }
}

/// Refuses a lifetime of zero, and one beyond a year: that is a broken date, and no timer reaches that far.
fn lasting(token: Token) -> Result<Token, Error> {
    if token.life.is_zero() {
        return Err(Unusable::DeadOnArrival { issuer: token.issuer }.into());
    }
    if token.life > exchange::ABSURD_LIFE {
        return Err(Unusable::Immortal { issuer: token.issuer }.into());
    }
    Ok(token)
}

/// For whom the identity is made that goes to the server's authorization server.
pub(super) fn expected_audience(server: &Server, issuer: &Issuer) -> Audience {
    server.expected().audience(issuer, &plain_request(server))
}

/// What is asked for whatever discovery finds.
fn plain_request(server: &Server) -> exchange::Request {
    exchange::Request {
        audience: server.audience.clone(),
        subject_audience: server.subject_audience.clone(),
        extra: server.extra.clone(),
        ..exchange::Request::default()
    }
}

/// What the token is bound to. A JWT that says it is bound to a key that is not ours is of no use to us.
fn binding(claims: Option<&Claims>, request: &exchange::Request) -> Result<Binding, &'static str> {
    let confirmed = claims.and_then(|claims| claims.cnf.as_ref());
    let named = confirmed.and_then(|cnf| cnf.jkt.as_deref());
    let shown = request.client.certificate().map(|ours| URL_SAFE_NO_PAD.encode(ours.thumbprint.as_bytes()));
    let bound_to_ours = |x5t: &str| shown.as_deref() == Some(x5t);
    let x5t = confirmed.and_then(|cnf| cnf.x5t.as_deref());
    match (&request.dpop, named) {
        _ if x5t.is_some_and(|x5t| !bound_to_ours(x5t)) => Err("it is bound to a certificate that is not ours"),
        (Some(key), Some(named)) if named != key.thumbprint() => Err("it is bound to another DPoP key than ours"),
        (Some(key), _) => Ok(Binding::Dpop(Arc::clone(key))),
        (None, Some(_)) => Err("it is bound to a DPoP key, and none of ours was named"),
        (None, None) if x5t.is_some() => Ok(Binding::Certificate),
        (None, None) => Ok(Binding::Bearer),
    }
}

/// A pin that the server's metadata does not name: one of the two is out of date.
pub(super) fn listed(pinned: &Issuer, protection: &Protection) -> Result<(), Error> {
    match &protection.metadata {
        Some(metadata)
            if !metadata.authorization_servers.is_empty()
                && !metadata.authorization_servers.iter().any(|listed| listed == pinned.as_str()) =>
        {
            let named = Words::list(&metadata.authorization_servers);
            Err(NoRoute::PinNotListed { pinned: pinned.clone(), named }.into())
        }
        _ => Ok(()),
    }
}

/// The resource the token is for: configured, else as the metadata spells it, else the URL.
fn resource(server: &Server, protection: &Protection) -> Resource {
    match (&server.resource, &protection.metadata) {
        (ResourceParameter::Fixed(resource), _) => resource.clone(),
        (_, Some(metadata)) => metadata.resource.clone(),
        (_, None) => Resource::verbatim(server.url.as_str()),
    }
}

/// The scopes to ask for: the caller's own, else the challenge's, else all the metadata lists, always cut to the
/// ceiling; with a ceiling and nothing else, the ceiling.
fn wanted(permit: &Permit, protection: &Protection) -> Result<Scopes, Denied> {
    if let Some(asked) = &permit.ask {
        return Ok(asked.clone());
    }
    let listed = protection.metadata.as_ref().and_then(|metadata| metadata.scopes_supported.as_ref());
    let challenge = protection.challenge_scopes.as_ref().filter(|challenge| !challenge.is_empty());
    match (permit.ceiling(), challenge, listed) {
        (None, challenge, listed) => Ok(challenge.or(listed).cloned().unwrap_or_default()),
        (Some(ceiling), Some(challenge), _) => {
            let cut = challenge.within(ceiling);
            if cut.is_empty() {
                return Err(Denied::AskedTooMuch { asked: challenge.to_string(), ceiling: ceiling.to_string() });
            }
            Ok(cut)
        }
        (Some(ceiling), None, Some(listed)) => {
            let cut = listed.within(ceiling);
            Ok(if cut.is_empty() { ceiling.clone() } else { cut })
        }
        (Some(ceiling), None, None) => Ok(ceiling.clone()),
    }
}

/// Under a ceiling something must be asked for: without `scope` a server grants its default, and need not say what.
fn within_ceiling(permit: &Permit, asked: &Scopes) -> Result<(), Denied> {
    match permit.ceiling() {
        Some(ceiling) if asked.is_empty() => {
            Err(Denied::AskedTooMuch { asked: "no scope at all".to_owned(), ceiling: ceiling.to_string() })
        }
        _ => Ok(()),
    }
}

/// A merely discovered issuer was named by the MCP server itself. If it ignores `resource`, its token may be good
/// at other servers too, and a hostile server would have tricked us out of it.
fn bound(claims: Option<&Claims>, resource: &Resource) -> Result<(), &'static str> {
    match claims.map(|claims| claims.aud.as_slice()) {
        None => Err("it is not a JWT, so nothing shows for whom it is"),
        Some([only]) if only == resource.as_str() => Ok(()),
        Some([]) => Err("it names no audience"),
        Some([_]) => Err("its audience is another one"),
        Some(_) => Err("it names several audiences"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Caller;
    use crate::discovery::ResourceMetadata;
    use crate::policy::{Policy, Rule};

    fn scopes(text: &str) -> Scopes {
        Scopes::parse(text).expect("good scopes")
    }

    fn permit(ceiling: Option<&str>, asked: Option<&str>) -> Permit {
        let allow = vec![Rule::default()];
        let policy = Policy { allow, ceiling: ceiling.map(scopes), tolerate: Scopes::default() };
        policy.permit(&Caller::own(1, 1), asked.map(scopes).as_ref()).expect("allowed")
    }

    fn protection(challenge: Option<&str>, listed: Option<&str>) -> Protection {
        let metadata = ResourceMetadata {
            resource: Resource::verbatim("https://mcp.example.com"),
            authorization_servers: Vec::new(),
            scopes_supported: listed.map(scopes),
            wants_dpop: false,
        };
        Protection { metadata: Some(metadata), challenge_scopes: challenge.map(scopes) }
    }

    #[test]
    fn scopes_come_from_the_caller_the_challenge_the_metadata_in_that_order() {
        let all = protection(Some("b"), Some("a b c"));
        let wanted =
            |permit: Permit, protection: &Protection| wanted(&permit, protection).map(|scopes| scopes.to_string());
        assert_eq!(wanted(permit(None, Some("x")), &all), Ok("x".to_owned()));
        assert_eq!(wanted(permit(None, None), &all), Ok("b".to_owned()));
        assert_eq!(wanted(permit(None, None), &protection(None, Some("a b c"))), Ok("a b c".to_owned()));
        assert_eq!(wanted(permit(None, None), &protection(None, None)), Ok(String::new()));
        assert_eq!(wanted(permit(Some("c"), None), &protection(None, Some("a b c"))), Ok("c".to_owned()));
        assert_eq!(wanted(permit(Some("c d"), None), &protection(None, None)), Ok("c d".to_owned()));
        assert!(wanted(permit(Some("c"), None), &all).is_err(), "the challenge wants only what may not be had");
        assert_eq!(wanted(permit(Some("c"), None), &protection(Some(""), None)), Ok("c".to_owned()));
    }

    #[test]
    fn under_a_ceiling_something_must_be_asked_for() {
        assert!(within_ceiling(&permit(Some("a"), None), &Scopes::default()).is_err());
        assert!(within_ceiling(&permit(Some("a"), None), &scopes("a")).is_ok());
        assert!(within_ceiling(&permit(None, None), &Scopes::default()).is_ok());
    }

    #[test]
    fn a_token_of_a_discovered_issuer_must_be_for_this_resource_alone() {
        let resource = Resource::verbatim("https://mcp.example.com/mcp");
        let claims =
            |aud: &[&str]| Claims { aud: aud.iter().map(|&one| one.to_owned()).collect(), ..Claims::default() };
        assert_eq!(bound(Some(&claims(&["https://mcp.example.com/mcp"])), &resource), Ok(()));
        for aud in [&[][..], &["https://mcp.example.com/"], &["https://mcp.example.com/mcp", "https://other.example"]] {
            assert!(bound(Some(&claims(aud)), &resource).is_err(), "{aud:?}");
        }
        assert!(bound(None, &resource).is_err());
    }
}
