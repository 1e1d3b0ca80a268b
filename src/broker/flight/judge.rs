//! Which scopes to ask for, and whether an issued token may be used. Pure functions.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::error::{NoRoute, Unusable, Words};
use super::super::{Error, Order, ResourceParameter, Server};
use crate::clock::{Boot, rfc3339};
use crate::discovery::{Protection, ResourceMetadata};
use crate::exchange::{self, Grant, Issued, IssuerOrigin};
use crate::identity::CLOCK_SKEW;
use crate::oauth::{Issuer, Resource, Scopes};
use crate::outbound::NamedBy;
use crate::policy::{Denied, Permit};
use crate::token::{AccessToken, Claims, Credential, Hop, Token};

/// The assumed lifetime of a token without `expires_in` that is not a readable JWT.
const UNKNOWN_LIFE: Duration = Duration::from_secs(300);

/// A longer life counts as this everywhere: timers, renewals and what callers are told.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);

/// A longer life is a wrong date, or a token that nobody should hold: the log says so with each such token.
const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// What was issued, for whom, and with which identity.
pub(super) struct Evidence<'a> {
    pub(super) order: &'a Order,
    pub(super) resource: Resource,
    pub(super) issuer: Issuer,
    pub(super) hops: Vec<Hop>,
    pub(super) issued: Issued,
    /// The scopes that were asked for.
    pub(super) asked: &'a Scopes,
    /// When it was received.
    pub(super) now: (Boot, SystemTime),
}

/// Builds the token. A life over a day counts as a day. Fails if it is zero, or if the token has expired by its own `exp`.
pub(super) fn build_token(evidence: Evidence<'_>, credential: Credential) -> Result<Token, Error> {
    let Evidence { order, resource, issuer, hops, issued, asked, now: (minted, minted_wall) } = evidence;
    let claims = claims(issued.token());
    let inherent = match &claims {
        Some(claims) => claims
            .life_from(unix(minted_wall), CLOCK_SKEW)
            .map_err(|seconds| Unusable::ExpiredOnArrival { issuer: issuer.clone(), seconds })?,
        None => None,
    };
    let life = [issued.expires_in, inherent].into_iter().flatten().min().unwrap_or(UNKNOWN_LIFE);
    if life > YEAR {
        tracing::warn!(server = %order.name, %issuer, "a token that lives for more than a year; it is used for a day");
    }
    let is_cut = life > LONGEST_LIFE;
    let life = life.min(LONGEST_LIFE);
    let in_token = claims.as_ref().and_then(Claims::scopes);
    let scopes = granted(issued.scopes.as_ref(), in_token.as_ref(), asked);
    let missing = asked.minus(&scopes);
    check_lifetime(Token {
        digest: credential.digest(),
        credential,
        scopes,
        missing,
        server: Arc::clone(&order.name),
        resource,
        issuer,
        minted,
        minted_wall,
        expires_at: rfc3339(minted_wall + life),
        dates_itself: inherent.is_some(),
        is_cut,
        life,
        is_for_nobody: claims.as_ref().is_some_and(|claims| claims.aud.is_empty()),
        jti: claims.and_then(|claims| claims.jti),
        hops: hops.into(),
        beside_token: Default::default(),
        in_audit: Default::default(),
    })
}

/// In seconds since 1970.
fn unix(wall: SystemTime) -> i64 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// What was granted: what the answer says and what the token itself says, because servers look at the token. An answer
/// that says nothing grants what was asked for (RFC 6749 section 5.1).
fn granted(answer: Option<&Scopes>, in_token: Option<&Scopes>, asked: &Scopes) -> Scopes {
    match (answer, in_token) {
        (Some(answer), Some(in_token)) => answer.union(in_token),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => asked.clone(),
    }
}

/// Fails if a token of a discovered issuer is not for this resource alone. Pinned and listed issuers are trusted with the
/// servers that the operator named. For any other server the token must be bound, whoever issued it: a hostile server
/// could name a listed issuer that ignores `resource`.
pub(super) fn trusted(
    server: &Server,
    issuer_is: IssuerOrigin,
    issuer: &Issuer,
    (issued, resource): (&Issued, &Resource),
) -> Result<(), Error> {
    let is_unlisted = server.named_by == NamedBy::Them;
    if !is_unlisted && (issuer_is != IssuerOrigin::Discovered || server.trust_discovered_issuer) {
        return Ok(());
    }
    let claims = claims(issued.token());
    bound(claims.as_ref(), resource).map_err(|why| {
        Unusable::NotBound { issuer: issuer.clone(), resource: resource.clone(), why, is_unlisted }.into()
    })
}

/// Refuses a lifetime of zero.
fn check_lifetime(token: Token) -> Result<Token, Error> {
    if token.life.is_zero() {
        return Err(Unusable::ExpiredAtIssue { issuer: token.issuer }.into());
    }
    Ok(token)
}

/// The credential, with the key or certificate that it is bound to. Fails if the JWT names a key or certificate that is
/// not ours.
pub(super) fn binding(issued: &Issued, request: &exchange::Request) -> Result<Credential, &'static str> {
    let token = match &issued.grant {
        Grant::Token(token) => token.clone(),
        Grant::Signer(signed) => return Ok(Credential::Signer(Arc::clone(&signed.signer))),
    };
    let confirmed = claims(Some(&token)).and_then(|claims| claims.cnf).unwrap_or_default();
    let shown = request.client.certificate().map(|ours| ours.thumbprint);
    let bound_to_ours = |x5t: &String| shown.is_some_and(|ours| URL_SAFE_NO_PAD.encode(ours.as_bytes()) == *x5t);
    match (&request.dpop, &confirmed.jkt, &confirmed.x5t, shown) {
        (_, _, Some(x5t), _) if !bound_to_ours(x5t) => Err("it is bound to a certificate that is not ours"),
        (Some(key), Some(named), ..) if named != key.thumbprint() => Err("it is bound to another DPoP key than ours"),
        (Some(key), ..) => Ok(Credential::Dpop(token, Arc::clone(key))),
        (None, Some(_), ..) => Err("it is bound to a DPoP key, and none of ours was named"),
        (None, None, Some(_), Some(ours)) => Ok(Credential::Certificate(token, ours)),
        (None, None, ..) => Ok(Credential::Bearer(token)),
    }
}

/// The claims of a token, if it is a JWT.
fn claims(token: Option<&AccessToken>) -> Option<Claims> {
    Claims::read(token?.expose()).ok()
}

/// Fails if the server's metadata does not list the pinned issuer: one of the two is out of date.
pub(in crate::broker) fn listed(pinned: &Issuer, protection: &Protection) -> Result<(), Error> {
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

/// The resource the token is for: configured, else as the metadata spells it, else the URL. Fails if the request would name
/// a resource above the URL that does not confirm it: the token would also be good at the server's neighbours.
pub(super) fn resource(server: &Server, order: &Order, protection: &Protection) -> Result<Resource, Error> {
    match (&order.resource, &protection.metadata) {
        (ResourceParameter::Fixed(resource), _) => Ok(resource.clone()),
        (ResourceParameter::FromMetadata, Some(metadata)) => confirmed(metadata),
        (ResourceParameter::Omitted, Some(metadata)) if metadata.confirm_at.is_none() => Ok(metadata.resource.clone()),
        (_, _) => Ok(Resource::verbatim(server.url.as_str())),
    }
}

/// The resource in the metadata. Fails if its own well-known place had to confirm it, and does not.
pub(in crate::broker) fn confirmed(metadata: &ResourceMetadata) -> Result<Resource, Error> {
    let resource = metadata.resource.clone();
    match &metadata.confirm_at {
        None => Ok(resource),
        Some(place) => Err(NoRoute::NotConfirmed { resource, place: place.clone() }.into()),
    }
}

/// The scopes to ask for: the caller's own, else the challenge's, else all that the metadata lists, always limited to
/// the ceiling. With a ceiling and nothing else, the ceiling. Fails if the challenge asks only for scopes beyond the
/// ceiling.
pub(super) fn wanted(permit: &Permit, protection: &Protection) -> Result<Scopes, Denied> {
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

/// Fails if there is a ceiling and no scope to ask for: without `scope` a server grants its default, and need not say
/// which.
pub(super) fn within_ceiling(permit: &Permit, asked: &Scopes) -> Result<(), Denied> {
    match permit.ceiling() {
        Some(ceiling) if asked.is_empty() => {
            Err(Denied::AskedTooMuch { asked: "no scope at all".to_owned(), ceiling: ceiling.to_string() })
        }
        _ => Ok(()),
    }
}

/// Fails unless this resource is the only audience. The MCP server itself named the discovered issuer. If that issuer
/// ignores `resource`, its token may also work at other servers, and a hostile MCP server could use it there.
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
    use crate::policy::{Policy, Rule};

    fn scopes(text: &str) -> Scopes {
        Scopes::parse(text).expect("good scopes")
    }

    fn permit(ceiling: Option<&str>, asked: Option<&str>) -> Permit {
        let allow = vec![Rule::default()];
        let policy = Policy { allow, ceiling: ceiling.map(scopes), tolerate: Scopes::default(), usual: None };
        policy.permit(&Caller::own(1, 1), asked.map(scopes).as_ref()).expect("allowed")
    }

    fn protection(challenge: Option<&str>, listed: Option<&str>) -> Protection {
        let metadata = ResourceMetadata {
            resource: Resource::verbatim("https://mcp.example.com"),
            confirm_at: None,
            authorization_servers: Vec::new(),
            scopes_supported: listed.map(scopes),
            wants_dpop: false,
        };
        Protection { metadata: Some(metadata), challenge_scopes: challenge.map(scopes), ..Protection::default() }
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
    fn what_was_granted_is_the_union_of_the_answer_and_the_token() {
        let granted = |answer: Option<&str>, in_token: Option<&str>| {
            granted(answer.map(scopes).as_ref(), in_token.map(scopes).as_ref(), &scopes("asked")).to_string()
        };
        assert_eq!(granted(None, None), "asked");
        assert_eq!(granted(Some("a"), None), "a");
        assert_eq!(granted(None, Some("a admin")), "a admin");
        assert_eq!(granted(Some("a"), Some("admin")), "a admin");
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
