//! One flight: discovery, identity, exchange. With cached metadata it takes two requests in a row: one for the subject
//! token, one for the access token.
//!
//! `route` finds the authorization servers, `chain` gets the identity and the client for each of them, `judge` decides
//! what to ask for and whether the issued token may be used, `revoke` revokes tokens.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::error::{NoRoute, Unusable};
use super::identities::Identity;
use super::refused::{Presented, Refused};
use super::to_give_back::ToGiveBack;
use super::{Class, Error, FrontDoor, Order, ResourceParameter, Server};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::discovery::{Discovery, Protection};
use crate::dpop;
use crate::env::Env;
use crate::exchange::pace::Pace;
use crate::exchange::registration::Registrations;
use crate::exchange::{self, Asks, Exchange, Grant, IdentityRef, Issued, TokenEndpoint};
use crate::identity;
use crate::oauth::{Audience, AuthorizationServer, Issuer, Resource};
use crate::outbound::{Origins, Outbound};
use crate::policy::Permit;
use crate::token::{Credential, Hop, Token};
use crate::urgency::Urgency;

mod chain;
mod judge;
mod revoke;
mod route;
mod sent;

use chain::Leg;
pub(super) use chain::expected_audience;
use judge::{Evidence, resource, wanted, within_ceiling};
pub(super) use judge::{confirmed, listed};
use route::Route;
pub(super) use sent::Sent;

/// About a token that names no audience.
pub(super) const FOR_NOBODY: &str = "its operator should add one (Keycloak: an audience mapper with the MCP server's URL); a server that \
    looks for it refuses the token, and one that does not may use it at others";

/// More DPoP keys than a daemon needs: it has one per server.
const KEYS: usize = 1_024;

/// The newest failure of any try, if there was one.
pub(crate) type LastFailure = Arc<Mutex<Option<Error>>>;

/// The token that a flight has to make: for this order and this permit.
#[derive(Clone, Debug)]
pub(super) struct TokenRequest {
    pub(super) server: Arc<Server>,
    /// The server's own order, or that of its front door.
    pub(super) order: Arc<Order>,
    pub(super) permit: Permit,
    /// How urgent it is, and for whom it is made. Not part of the key.
    pub(super) urgency: Urgency,
}

impl TokenRequest {
    /// A server's own token, as the daemon asks for it on its own behalf: with the widest permit of any caller.
    pub(super) fn of(server: &Arc<Server>) -> Self {
        let permit = server.policy.permit_for_all();
        Self { server: Arc::clone(server), order: Arc::clone(&server.order), permit, urgency: Urgency::AWAITED }
    }

    /// The credential for the front door. Every caller of the server may have it.
    pub(super) fn for_front_door(server: &Arc<Server>, door: &FrontDoor) -> Self {
        let (server, order) = (Arc::clone(server), Arc::clone(&door.order));
        Self { server, order, permit: door.permit(), urgency: Urgency::AWAITED }
    }

    /// The credential for the front door, if there is one, and the server's own token.
    pub(super) fn all(server: &Arc<Server>) -> Vec<Self> {
        let door = server.front_door.iter().map(|door| Self::for_front_door(server, door));
        door.chain([Self::of(server)]).collect()
    }

    /// The key of its token in the cache.
    pub(super) fn key(&self) -> Digest {
        self.server.key_of(&self.order, &self.permit)
    }
}

/// Makes tokens. No other type knows both identities and exchanges.
pub(super) struct Minter {
    /// By name. The configuration guarantees that the identity of every server is in here.
    pub(super) identities: BTreeMap<Arc<str>, Result<Identity, identity::Error>>,
    pub(super) outbound: Outbound,
    pub(super) discovery: Discovery,
    pub(super) pace: Arc<Pace>,
    pub(super) registrations: Arc<Registrations>,
    pub(super) nonces: Arc<dpop::Nonces>,
    /// One DPoP key per server, so that two servers cannot detect that they have the same client.
    pub(super) keys: Arc<Mutex<HashMap<Arc<str>, Arc<dpop::Key>>>>,
    /// The only authorization servers that discovery may choose; `None` is no limit.
    pub(super) issuers: Option<Vec<Issuer>>,
    pub(super) clock: Clock,
    pub(super) env: Env,
    /// All configured servers, to find out whether two of them share a resource.
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) refused: Arc<Refused>,
    /// The newest failure of any try, for a command that waits.
    pub(super) last_failure: LastFailure,
    /// What is to be revoked at the end, beside what the cache holds.
    pub(super) to_give_back: Arc<ToGiveBack>,
    /// How many requests went to token endpoints, and how many to revocation endpoints.
    pub(super) sent: [AtomicUsize; 2],
}

/// The token request, and the answer before any check.
pub(super) struct TokenAnswer {
    pub(super) sent: Arc<Sent>,
    pub(super) resource: Resource,
    hops: Vec<Hop>,
    pub(super) issued: Issued,
}

impl Minter {
    /// Makes the token. Tries a second time if the server wants a DPoP nonce or a reused connection broke.
    pub(super) async fn mint(&self, want: &TokenRequest) -> Result<Token, Error> {
        let mut outcome = self.attempt(want).await;
        if outcome.as_ref().is_err_and(|error| error.wants_nonce() || error.is_stale()) {
            // The nonce is known now, or the dead connection is gone. The server may count the assertion as used, so
            // start again from the beginning.
            outcome = self.attempt(want).await;
        }
        // The cause may be the resource metadata: let the next flight fetch it again. Not where only the next identity token is waited
        // for: the look for it asks nobody but the platform.
        let may_be_stale = |error: &Error| {
            !error.waits_for_identity() && matches!(error.class(), Class::Refused | Class::Config | Class::Denied)
        };
        if outcome.as_ref().is_err_and(may_be_stale) {
            self.discovery.forget(&want.server.url, None);
        }
        if let Err(error) = &outcome {
            *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(error.clone().at(&want.order.name));
        }
        outcome.inspect(|token| self.to_give_back.remember(&want.server, token, self.clock.boot()))
    }

    /// One try, without repetition.
    async fn attempt(&self, want: &TokenRequest) -> Result<Token, Error> {
        if want.order.expected().traits().asks == Asks::Nobody {
            return self.direct(want).await;
        }
        let granting = self.issue(want).await?;
        self.token(want, granting)
    }

    /// Everything up to the authorization server's answer, which is not checked yet. Fails if there is no usable route,
    /// if policy leaves no scope to ask for, if the identity cannot be presented, or if the server refuses.
    pub(super) async fn issue(&self, want: &TokenRequest) -> Result<TokenAnswer, Error> {
        let TokenRequest { server, order, permit, .. } = want;
        let route = self.route(want).await?;
        let exchange = route.exchange(order)?;
        let resource = resource(server, order, &route.protection)?;
        self.check_not_shared(server, order, &resource)?;
        let scopes = wanted(permit, &route.protection).map_err(|denied| Error::denied(&order.name, denied))?;
        within_ceiling(permit, &scopes).map_err(|denied| Error::denied(&order.name, denied))?;
        let mut request = exchange::Request {
            resource: (order.resource != ResourceParameter::Omitted).then(|| resource.clone()),
            scopes,
            dpop: self.dpop_key(order, &route)?,
            assertions: route.assertions.clone(),
            ..plain_request(order)
        };
        let audience = exchange.audience(&route.server, &request);
        let standing = self.identity_for_server(want, &route, &audience, &request).await?;
        let leg = Leg {
            name: Arc::clone(&order.name),
            identity: &order.identity,
            client: &order.client,
            party: &route.server,
            origins: &self.origins(server, &route.server.issuer),
            grant: exchange.traits().grant,
            subject: standing.subject.as_ref(),
        };
        request.client = self.identify(&leg).await?;
        request.aws_credentials = self.own_credentials(order).await?;
        let unix = self.clock.unix();
        let issued = self.ask(want, exchange, &leg, &request).await?;
        let mut hops = standing.hops;
        if let Grant::Signer(signed) = &issued.grant {
            let source = if hops.is_empty() { self.identity(order)?.source.name() } else { exchange.name() };
            hops.push(Hop { source, iss: None, sub: signed.arn.clone() });
        }
        let sent = Arc::new(Sent { route, request, subject: standing.subject, unix });
        Ok(TokenAnswer { sent, resource, hops, issued })
    }

    /// The credentials of the workload's own AWS role, if requests are signed with them.
    async fn own_credentials(&self, order: &Order) -> Result<Option<crate::aws::Credentials>, Error> {
        if !order.signs_with_own_role() {
            return Ok(None);
        }
        let identity = self.identity(order)?;
        // With links, the role that signs is not the one at the root of the chain.
        if !identity.links.is_empty() {
            return Ok(None);
        }
        identity.source.aws_credentials().await.map_err(Error::from)
    }

    /// The workload's own token, for a server that accepts it directly: the platform's, or the last of a chain. No discovery
    /// and no token request. Fails if it is not a valid JWT for the configured audience.
    pub(super) async fn direct(&self, want: &TokenRequest) -> Result<Token, Error> {
        let (order, exchange) = (&*want.order, want.order.expected());
        let identity = self.identity(order)?;
        let source = identity.source.name();
        let root = IdentityRef { name: &order.identity, source: Some(source), is_chain: !identity.links.is_empty() };
        exchange.check_identity(&root).map_err(exchange::Error::from)?;
        let resource = resource(&want.server, order, &Protection::default())?;
        self.check_not_shared(&want.server, order, &resource)?;
        let audience = Audience::from(order.named_audience().unwrap_or_default());
        let (subject, hops) = self.through_chain(want, &order.identity, &audience).await?;
        let now = self.clock.unix();
        let source_name = hops.last().map_or(source, |hop| hop.source);
        let fit = subject.must_be_jwt().and_then(|()| subject.fit_for(&audience, now, Duration::ZERO));
        fit.map_err(|unfit| Unusable::Subject { source_name, unfit })?;
        let left = u64::try_from(subject.claims.exp.unwrap_or(now).saturating_sub(now)).unwrap_or(0);
        let issuer = Issuer::verbatim(subject.claims.iss.as_deref().unwrap_or("unknown"));
        let silent = AuthorizationServer::silent(issuer.clone(), "");
        let request = plain_request(order);
        let mut issued =
            exchange.exchange(&self.endpoint(&silent, &Origins::default()), Some(&subject), &request).await?;
        // A token from a file may be old: only the time left counts.
        issued.expires_in = Some(Duration::from_secs(left));
        let (asked, now) = (&request.scopes, (self.clock.boot(), self.clock.wall()));
        let credential = match &issued.grant {
            // No authorization server issued it for us, so it is not bound to a key of ours.
            Grant::Token(token) => Credential::Bearer(token.clone()),
            Grant::Signer(signed) => Credential::Signer(Arc::clone(&signed.signer)),
        };
        judge::build_token(Evidence { order, resource, issuer, hops, issued, asked, now }, credential)
    }

    /// Sends the token request. Fails without sending it if the identity token was refused before. After a refusal it
    /// forgets what may have caused it: the client registration or the metadata.
    async fn ask(
        &self,
        want: &TokenRequest,
        exchange: &dyn Exchange,
        leg: &Leg<'_>,
        request: &exchange::Request,
    ) -> Result<Issued, Error> {
        let issuer = &leg.party.issuer;
        // A client's own assertion is different in every request, so only identity tokens can be remembered as refused.
        let shown = leg.subject.or_else(|| request.assertions.first().map(|(_, token)| token));
        let presented = shown.map(|subject| {
            let asked = (&want.order.way(), &asked_for(request)[..]);
            Presented::of((&want.order, &want.permit), subject, issuer, asked, &request.scopes)
        });
        let refused = |error: Error| {
            let tokens = leg.subject.into_iter().chain(request.assertions.iter().map(|(_, token)| token));
            self.looked_for(&want.order, error.presenting(tokens, self.clock.unix()))
        };
        presented.as_ref().map_or(Ok(()), |presented| self.refused.check(presented)).map_err(refused)?;
        let place = self.pace.enter(issuer, &want.urgency).await?;
        let issued = exchange.exchange(&self.endpoint(leg.party, leg.origins), leg.subject, request).await;
        drop(place);
        let error = match (issued, &presented) {
            (Ok(issued), presented) => {
                let kept = presented.as_ref().filter(|_| self.keeps_identity(&want.order));
                kept.into_iter().for_each(|presented| self.refused.granted(presented));
                return Ok(issued);
            }
            (Err(error), _) => error,
        };
        if error.is_unknown_client() {
            self.registrations.forget(&leg.name, leg.client, issuer, request.client.id.as_deref()).await;
        }
        if error.may_be_stale_metadata() {
            self.discovery.forget(&want.server.url, Some(issuer));
        }
        let Some(presented) = &presented else { return Err(error.into()) };
        Err(refused(self.refused.remember(presented, error, self.clock.unix())))
    }

    /// Is the token that this order presents the platform's own, and given again until somebody or something renews it?
    pub(super) fn keeps_identity(&self, order: &Order) -> bool {
        let is_kept = |identity: &Identity| identity.links.is_empty() && !identity.source.mints_anew();
        // Each look would ask for these too.
        let mut assertions = order.assertions().iter().map(|assertion| self.named_identity(&assertion.identity));
        order.idp.is_none()
            && self.identity(order).is_ok_and(is_kept)
            && assertions.all(|identity| identity.is_ok_and(is_kept))
    }

    /// The same failure, which passes with the next identity token only if the platform is all that has to be asked for it. Who
    /// mints at each call would be asked in vain again and again, and so would the parties of a chain.
    fn looked_for(&self, order: &Order, error: Error) -> Error {
        let so = error.waits_for_identity() && self.keeps_identity(order);
        error.until_identity_changes(so)
    }

    /// Checks the answer and builds the token. Fails if the token must not be used.
    pub(super) fn token(&self, want: &TokenRequest, granting: TokenAnswer) -> Result<Token, Error> {
        let TokenAnswer { sent, resource, hops, issued } = granting;
        let Sent { route, request, .. } = &*sent;
        let issuer = &route.server.issuer;
        judge::trusted(&want.server, route.issuer_is, issuer, (&issued, &resource))?;
        let credential =
            judge::binding(&issued, request).map_err(|why| Unusable::ForeignKey { issuer: issuer.clone(), why })?;
        let (order, asked, now) = (&*want.order, &request.scopes, (self.clock.boot(), self.clock.wall()));
        let issuer = issuer.clone();
        let token = judge::build_token(Evidence { order, resource, issuer, hops, issued, asked, now }, credential)?;
        if token.is_for_nobody {
            tracing::warn!(server = %order.name, issuer = %token.issuer, hint = FOR_NOBODY, "the token names no audience");
        }
        if !token.missing.is_empty() {
            let missing = &token.missing;
            tracing::warn!(server = %order.name, ?missing, "the authorization server granted less than was asked for");
        }
        Ok(token)
    }

    /// The key to bind the token to, if the server requires it or the operator configured it: one for each server, so that two servers
    /// cannot see that they share a client. Fails if the authorization server does not support our algorithm.
    fn dpop_key(&self, order: &Order, route: &Route) -> Result<Option<Arc<dpop::Key>>, Error> {
        let required = route.protection.metadata.as_ref().is_some_and(|metadata| metadata.wants_dpop);
        if !order.dpop.unwrap_or(required) {
            return Ok(None);
        }
        if let Some(listed) = &route.server.dpop_algorithms
            && !listed.iter().any(|one| one == dpop::ALGORITHM)
        {
            return Err(NoRoute::NoDpop { issuer: route.server.issuer.clone() }.into());
        }
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get(&order.name) {
            return Ok(Some(Arc::clone(key)));
        }
        // Unlisted servers come and go: drop the keys that no token is bound to any more.
        if keys.len() >= KEYS {
            keys.retain(|_, key| Arc::strong_count(key) > 1);
        }
        let key = Arc::new(dpop::Key::generate().ok_or_else(|| Error::internal("no key could be made"))?);
        keys.insert(Arc::clone(&order.name), Arc::clone(&key));
        Ok(Some(key))
    }

    /// What an exchange needs to send requests to this authorization server.
    fn endpoint<'a>(&'a self, server: &'a AuthorizationServer, origins: &'a Origins) -> TokenEndpoint<'a> {
        let Self { outbound, clock, nonces, sent, .. } = self;
        TokenEndpoint { outbound, server, origins, clock, nonces, sent }
    }
}

/// The rest of a request, without its subject token and scopes.
fn asked_for(request: &exchange::Request) -> Vec<&str> {
    let own = [request.resource.as_ref().map_or("", Resource::as_str), request.audience.as_deref().unwrap_or("")];
    let extra = request.extra.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    let assertions = request.assertions.iter().flat_map(|(name, token)| [name.as_str(), token.expose()]);
    own.into_iter().chain(extra).chain(assertions).collect()
}

/// The part of a request that does not depend on discovery.
fn plain_request(order: &Order) -> exchange::Request {
    exchange::Request {
        audience: order.audience.clone(),
        subject_audience: order.subject_audience.clone(),
        extra: order.extra.clone(),
        ..exchange::Request::default()
    }
}
