//! One flight: discovery, identity, exchange. The critical path holds no avoidable round trip.
//!
//! With a pinned issuer the audience is known at once, so the resource metadata, the server metadata and the
//! subject token are fetched side by side. Without a pin the resource metadata comes first, because it names
//! the issuer. With warm discovery what is left is the subject token, then the token request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Class, Error, ResourceParameter, Server};
use crate::clock::{Clock, rfc3339};
use crate::discovery::{self, Discovery, Protection};
use crate::exchange::pace::Pace;
use crate::exchange::{self, Descriptor, Issued, IssuerIs, Way};
use crate::identity::{CLOCK_SKEW, Chosen};
use crate::oauth::{AuthorizationServer, Issuer, Resource, Scopes};
use crate::outbound::{NamedBy, Outbound};
use crate::policy::{Denied, Permit};
use crate::token::{Claims, Digest, Hop, SubjectToken, Token};

/// Without `expires_in` and without a JWT to read, a token is believed for this long.
const UNKNOWN_LIFE: Duration = Duration::from_secs(300);
/// How many refused assertions are remembered.
const REFUSED_KEPT: usize = 64;

/// Makes tokens. It knows identity and exchange, and nobody else knows both.
pub(super) struct Maker {
    pub(super) identity: Chosen,
    pub(super) outbound: Outbound,
    pub(super) discovery: Discovery,
    pub(super) pace: Pace,
    pub(super) issuers: Option<Vec<Issuer>>,
    pub(super) clock: Clock,
    /// All servers, for what one of them says about the others.
    pub(super) servers: Vec<Arc<Server>>,
    /// Assertions that a server refused: they are never presented again.
    pub(super) refused: Mutex<VecDeque<(Digest, exchange::Error)>>,
}

/// An assertion as it is presented to one issuer: alone, and together with what is asked for.
struct Presented {
    alone: Digest,
    with_request: Digest,
}

impl Presented {
    fn of(subject: &SubjectToken, issuer: &Issuer, request: &exchange::Request) -> Self {
        let assertion = [issuer.as_str(), subject.expose()];
        let resource = request.resource.as_ref().map_or("", Resource::as_str);
        let scopes = request.scopes.to_string();
        let extra = request.extra.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let audience = request.audience.as_deref().unwrap_or_default();
        let asked = assertion.into_iter().chain([resource, scopes.as_str(), audience]).chain(extra);
        Self {
            alone: Digest::of_fields(assertion.map(str::as_bytes)),
            with_request: Digest::of_fields(asked.map(str::as_bytes)),
        }
    }

    /// What must not be presented again. If the identity is refused, it is of no use for anything; if what was asked
    /// for is refused, another server or scope must not suffer for it.
    fn refused_with(&self, code: &str) -> Digest {
        match code {
            "invalid_grant" | "invalid_client" | "unauthorized_client" => self.alone,
            _ => self.with_request,
        }
    }
}

/// What was asked for, and the answer as it came.
pub(super) struct Granting {
    route: Route,
    pub(super) request: exchange::Request,
    pub(super) resource: Resource,
    pub(super) issued: Issued,
}

/// Everything that must be known before a token is asked for.
struct Route {
    protection: Arc<Protection>,
    server: Arc<AuthorizationServer>,
    subject: SubjectToken,
    issuer_is: IssuerIs,
}

impl Maker {
    /// The flight, from nothing to a token.
    pub(super) async fn mint(&self, server: &Server, permit: &Permit) -> Result<Token, Error> {
        let outcome = self.attempt(server, permit).await;
        // What was wrong in the server's document may have been mended: the next flight reads it again.
        if outcome.as_ref().is_err_and(|error| matches!(error.class(), Class::Refused | Class::Config | Class::Denied))
        {
            self.discovery.forget(&server.url, None);
        }
        outcome
    }

    async fn attempt(&self, server: &Server, permit: &Permit) -> Result<Token, Error> {
        let granting = self.issue(server, permit).await?;
        self.token(server, granting)
    }

    /// Everything up to the authorization server's answer, which is not yet judged.
    pub(super) async fn issue(&self, server: &Server, permit: &Permit) -> Result<Granting, Error> {
        let mut request = self.first_request(server);
        let route = self.route(server, &request).await?;
        let exchange = exchange::choose(server.exchange.as_deref(), &route.server, route.issuer_is)
            .ok_or_else(|| Error::no_exchange(&route.server))?;
        let resource = resource(server, &route.protection);
        self.not_shared(server, &resource)?;
        request.resource = (server.resource != ResourceParameter::Omitted).then(|| resource.clone());
        request.scopes = wanted(permit, &route.protection).map_err(|denied| Error::denied(server, denied))?;
        within_ceiling(permit, &request.scopes).map_err(|denied| Error::denied(server, denied))?;
        let audience = exchange.exchange.audience(&route.server.issuer, &request);
        route
            .subject
            .fit_for(&audience, self.clock.unix(), CLOCK_SKEW)
            .map_err(|unfit| Error::unfit(self.identity.source.name(), unfit))?;
        let issued = self.ask(server, exchange, &route, &request).await?;
        Ok(Granting { route, request, resource, issued })
    }

    /// A token for a resource that covers two servers is good for both. If these allow different callers, a caller of
    /// the one would get what is meant for callers of the other.
    fn not_shared(&self, server: &Server, resource: &Resource) -> Result<(), Error> {
        let covers = |other: &Server| {
            resource.stands_for(&other.url)
                || matches!(&other.resource, ResourceParameter::Fixed(same) if same == resource)
        };
        let mut covered = self.servers.iter().filter(|other| other.name != server.name && covers(other));
        match covered.find(|other| other.policy.allow != server.policy.allow) {
            Some(other) => Err(Error::shared_resource(resource, &server.name, &other.name)),
            None => Ok(()),
        }
    }

    pub(super) fn first_request(&self, server: &Server) -> exchange::Request {
        exchange::Request {
            client_id: server.client_id.clone(),
            client_auth: server.client_auth,
            audience: server.audience.clone(),
            subject_audience: server.subject_audience.clone(),
            extra: server.extra.clone(),
            ..exchange::Request::default()
        }
    }

    async fn route(&self, server: &Server, request: &exchange::Request) -> Result<Route, Error> {
        if let Some(pinned) = &server.issuer {
            let (protection, metadata, subject) = tokio::try_join!(
                async { self.protection_beside_pin(server, pinned).await },
                async { self.discovery.server(pinned, NamedBy::Them).await.map_err(Error::from) },
                self.subject(server, pinned, request),
            )?;
            return Ok(Route { protection, server: metadata, subject, issuer_is: IssuerIs::Pinned });
        }
        let protection = self.discovery.protection(&server.url).await?;
        let (issuer, issuer_is) = self.pick(server, &protection)?;
        let (metadata, subject) = tokio::try_join!(
            async { self.discovery.server(&issuer, NamedBy::Them).await.map_err(Error::from) },
            self.subject(server, &issuer, request),
        )?;
        Ok(Route { protection, server: metadata, subject, issuer_is })
    }

    pub(super) async fn subject(
        &self,
        server: &Server,
        issuer: &Issuer,
        request: &exchange::Request,
    ) -> Result<SubjectToken, Error> {
        // Before the metadata is here, the audience follows the configured exchange, or the only one ever chosen.
        let row = exchange::row(server.exchange.as_deref().unwrap_or("jwt-bearer"));
        let audience = row
            .ok_or_else(|| Error::internal("an exchange that configuration let pass is unknown"))?
            .exchange
            .audience(issuer, request);
        self.identity.source.subject_token(&audience).await.map_err(Error::from)
    }

    /// A pin needs no resource metadata, but metadata that contradicts it is an error.
    async fn protection_beside_pin(&self, server: &Server, pinned: &Issuer) -> Result<Arc<Protection>, Error> {
        let protection = match self.discovery.protection(&server.url).await {
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
            [only] => Issuer::parse(only).map(|issuer| (issuer, issuer_is)).map_err(|why| Error::bad_issuer(only, why)),
            [] if issuer_is == IssuerIs::Listed => Err(Error::issuer_not_listed(named)),
            [] => Err(discovery::Error::NoResourceMetadata { server: server.url.to_string() }.into()),
            _ => Err(Error::several_issuers(named)),
        }
    }

    async fn ask(
        &self,
        server: &Server,
        exchange: &Descriptor,
        route: &Route,
        request: &exchange::Request,
    ) -> Result<Issued, Error> {
        let issuer = &route.server.issuer;
        let presented = Presented::of(&route.subject, issuer, request);
        if let Some(error) = self.refused_before(&presented) {
            return Err(Error::refused_before(error));
        }
        let way = Way { outbound: &self.outbound, server: &route.server, named_by: NamedBy::Them };
        let place = self.pace.enter(issuer).await;
        let issued = exchange.exchange.exchange(&way, &route.subject, request).await;
        drop(place);
        issued.map_err(|error| {
            if let exchange::Error::Refused { error: words, .. } = &error {
                self.remember_refusal(presented.refused_with(&words.code), &error);
            }
            if !matches!(error, exchange::Error::Busy { .. }) {
                // Either document may have moved since it was read.
                self.discovery.forget(&server.url, Some(issuer));
            }
            error.into()
        })
    }

    fn refused_before(&self, presented: &Presented) -> Option<exchange::Error> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |digest: &Digest| *digest == presented.alone || *digest == presented.with_request;
        refused.iter().find(|(digest, _)| known(digest)).map(|(_, error)| error.clone())
    }

    fn remember_refusal(&self, digest: Digest, error: &exchange::Error) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= REFUSED_KEPT {
            refused.pop_front();
        }
        refused.push_back((digest, error.clone()));
    }

    /// Checks what was issued and puts the token together.
    pub(super) fn token(&self, server: &Server, granting: Granting) -> Result<Token, Error> {
        let Granting { route, request, resource, issued } = granting;
        let claims = Claims::read(issued.access_token.expose()).ok();
        if route.issuer_is == IssuerIs::Discovered && !server.trust_discovered_issuer {
            bound(claims.as_ref(), &resource).map_err(|why| Error::not_bound(&route.server.issuer, &resource, why))?;
        }
        let inherent = claims.as_ref().and_then(Claims::life);
        let life = [issued.expires_in, inherent].into_iter().flatten().min().unwrap_or(UNKNOWN_LIFE);
        if life.is_zero() {
            return Err(Error::dead_on_arrival(&route.server.issuer));
        }
        if life > exchange::ABSURD_LIFE {
            return Err(Error::immortal(&route.server.issuer));
        }
        let minted_wall = self.clock.wall();
        let scopes = issued.scopes.unwrap_or_else(|| request.scopes.clone());
        let missing = request.scopes.minus(&scopes);
        if !missing.is_empty() {
            tracing::warn!(server = %server.name, ?missing, "the authorization server granted less than was asked for");
        }
        Ok(Token {
            digest: issued.access_token.digest(),
            access_token: issued.access_token,
            scopes,
            missing,
            server: Arc::clone(&server.name),
            resource,
            issuer: route.server.issuer.clone(),
            minted: self.clock.boot(),
            minted_wall,
            expires_at: rfc3339(minted_wall + life),
            dates_itself: inherent.is_some(),
            life,
            jti: claims.and_then(|claims| claims.jti),
            hops: [Hop::of(self.identity.source.name(), &route.subject.claims)].into(),
            revocation_endpoint: route.server.revocation_endpoint.clone(),
        })
    }
}

/// A pin that the server's metadata does not name: one of the two is out of date.
pub(super) fn listed(pinned: &Issuer, protection: &Protection) -> Result<(), Error> {
    match &protection.metadata {
        Some(metadata)
            if !metadata.authorization_servers.is_empty()
                && !metadata.authorization_servers.iter().any(|listed| listed == pinned.as_str()) =>
        {
            Err(Error::pin_not_listed(pinned, &metadata.authorization_servers))
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
        let allow = vec![Rule { uid: None, gid: None, scopes: None }];
        let policy = Policy { allow, ceiling: ceiling.map(scopes), tolerate: Scopes::default() };
        policy.permit(&Caller::own(1, 1), asked.map(scopes).as_ref()).expect("allowed")
    }

    fn protection(challenge: Option<&str>, listed: Option<&str>) -> Protection {
        let metadata = ResourceMetadata {
            resource: Resource::verbatim("https://mcp.example.com"),
            authorization_servers: Vec::new(),
            scopes_supported: listed.map(scopes),
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
    fn a_refused_scope_does_not_spoil_the_identity_for_others() {
        use base64::Engine;
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode("{}");
        let subject = SubjectToken::parse(format!("e30.{payload}.c2ln").into()).expect("a JWT");
        let issuer = Issuer::parse("https://as.example.com").expect("good");
        let request = |text: &str| exchange::Request { scopes: scopes(text), ..exchange::Request::default() };
        let (one, other) =
            (Presented::of(&subject, &issuer, &request("a")), Presented::of(&subject, &issuer, &request("b")));
        assert_eq!(one.refused_with("invalid_grant"), other.alone, "a refused identity is refused for everything");
        let scope = one.refused_with("invalid_scope");
        assert!(scope != other.alone && scope != other.with_request, "a refused scope is refused for itself");
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
