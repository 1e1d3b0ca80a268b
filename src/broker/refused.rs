//! Remembers identity tokens that a party refused. Such a token is not presented there again, as the conformance suite
//! demands. A newer token of the platform is.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::error::Unusable;
use super::{Error, Order};
use crate::digest::Fields;
use crate::exchange;
use crate::oauth::{Issuer, OauthError, Scopes};
use crate::policy::Permit;
use crate::token::{Digest, SubjectToken};

/// How many refusals are remembered, and how many grants.
const KEPT: usize = 64;

/// The last refusals: the digest of what was presented, and the error. And the last requests that were granted with a token
/// that may be presented again.
#[derive(Default)]
pub(super) struct Refused(Mutex<VecDeque<(Digest, Refusal)>>, Mutex<VecDeque<Digest>>);

#[derive(Clone)]
/// Who refused, and with which error.
struct Refusal {
    issuer: Issuer,
    error: OauthError,
    /// Because it was presented before, and was taken then.
    is_used_up: bool,
}

/// The codes with which servers refuse what they have taken before (fosite: Ory Hydra, ToolHive). No standard has one.
const REPLAYED: [&str; 2] = ["jti_known", "jti_reused"];

/// Does this code speak of the identity token, and not of the rest of the request?
fn is_about_identity(code: &str) -> bool {
    matches!(code, "invalid_grant" | "invalid_client") || REPLAYED.contains(&code)
}

/// A token with less life left than this many seconds may be refused because it is over.
const FRESH_LEFT: i64 = 60;

/// Three digests of a subject token that is presented to one issuer: the token itself, with the way in which it is presented,
/// and together with the rest of the request.
pub(super) struct Presented {
    itself: Digest,
    alone: Digest,
    with_request: Digest,
    /// Somebody else than the operator had a part in the request: the caller named the scopes.
    by_caller: bool,
    /// When the token ends, in seconds since 1970.
    exp: Option<i64>,
}

impl Presented {
    /// The subject token in one request for this order and permit. `way` is how it is presented, as configured: a reload that
    /// changes it may cure the refusal. `asked` is the rest of the request, without the scopes.
    ///
    /// Without a pin the MCP server chose the issuer, and it may have chosen what the issuer refuses. So such a refusal
    /// counts for that server alone.
    pub(super) fn of(
        (order, permit): (&Order, &Permit),
        subject: &SubjectToken,
        issuer: &Issuer,
        (way, asked): (&Fields, &[&str]),
        scopes: &Scopes,
    ) -> Self {
        let unpinned = if order.pin.is_none() { &*order.name } else { "" };
        let (way, scopes) = (way.digest(), scopes.to_string());
        let itself = [issuer.as_str(), subject.expose(), unpinned].map(str::as_bytes);
        let alone = itself.into_iter().chain([way.as_bytes()]);
        let rest = [&*order.name, scopes.as_str()].into_iter().chain(asked.iter().copied()).map(str::as_bytes);
        Self {
            itself: Digest::of_fields(itself),
            alone: Digest::of_fields(alone.clone()),
            with_request: Digest::of_fields(alone.chain(rest)),
            by_caller: permit.ask.is_some(),
            exp: subject.claims.exp,
        }
    }

    /// The digest that must not be presented again after this error code. What was taken once is not taken in any way. A
    /// refused identity is refused in every request that presents it in the same way; a refused scope or resource only in this one, so that other servers and scopes still work, and so is
    /// whatever is refused in a request with a caller's own scopes. `unauthorized_client` speaks of the client and the
    /// grant, not of the identity.
    fn refused_with(&self, code: &str) -> Digest {
        match code {
            code if REPLAYED.contains(&code) => self.itself,
            code if is_about_identity(code) && !self.by_caller => self.alone,
            _ => self.with_request,
        }
    }
}

impl Refused {
    /// Fails with the remembered error if this was refused before.
    pub(super) fn check(&self, presented: &Presented) -> Result<(), Error> {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |digest: &Digest| [presented.itself, presented.alone, presented.with_request].contains(digest);
        let found = refused.iter().position(|(digest, _)| known(digest)).and_then(|at| refused.remove(at));
        let Some((digest, refusal)) = found else { return Ok(()) };
        // Move it to the end, so that newer refusals do not push out one that is still in use.
        let Refusal { issuer, error, is_used_up } = refusal.clone();
        refused.push_back((digest, refusal));
        let waits = is_about_identity(&error.code);
        let unusable =
            if is_used_up { Unusable::UsedUp { issuer, error } } else { Unusable::RefusedBefore { issuer, error } };
        Err(Error::from(unusable).until_identity_changes(waits))
    }

    /// Remembers a request that was granted: the same one may be refused later because of that.
    pub(super) fn granted(&self, presented: &Presented) {
        let mut granted = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        // Twice is enough: this server takes the token again.
        if granted.iter().filter(|one| **one == presented.with_request).count() >= 2 {
            return;
        }
        if granted.len() >= KEPT {
            granted.pop_front();
        }
        granted.push_back(presented.with_request);
    }

    /// Is it refused only because it was taken before? By its code, or because the same request was granted with it, and it is
    /// good for a while yet.
    fn is_used_up(&self, presented: &Presented, code: &str, unix_now: i64) -> bool {
        let granted = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        // A token that was granted twice is not one that this server takes once.
        let granted_once = granted.iter().filter(|one| **one == presented.with_request).count() == 1;
        let is_good = presented.exp.is_some_and(|exp| exp.saturating_sub(unix_now) > FRESH_LEFT);
        REPLAYED.contains(&code) || (is_about_identity(code) && is_good && granted_once)
    }

    /// Remembers a refusal, and says what it means. Other failures say nothing about what was presented.
    pub(super) fn remember(&self, presented: &Presented, failed: exchange::Error, unix_now: i64) -> Error {
        let exchange::Error::Refused { issuer, error, .. } = &failed else { return failed.into() };
        let is_used_up = self.is_used_up(presented, &error.code, unix_now);
        let refusal = Refusal { issuer: issuer.clone(), error: error.clone(), is_used_up };
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= KEPT {
            refused.pop_front();
        }
        let Refusal { issuer, error, .. } = refusal.clone();
        refused.push_back((presented.refused_with(&error.code), refusal));
        let waits = is_about_identity(&error.code);
        let told = if is_used_up { Unusable::UsedUp { issuer, error }.into() } else { Error::from(failed) };
        told.until_identity_changes(waits)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::super::{Server, TokenRequest};
    use super::*;
    use crate::oauth::ServerUrl;

    fn subject(jti: usize) -> SubjectToken {
        let payload = URL_SAFE_NO_PAD.encode(format!("{{\"jti\":\"{jti}\"}}"));
        SubjectToken::parse(format!("e30.{payload}.c2ln").into()).expect("a JWT")
    }

    fn want(name: &str, pin: Option<&str>, ask: Option<&str>) -> TokenRequest {
        let url = ServerUrl::parse(&format!("https://{name}.example.com/mcp")).expect("good");
        let mut server = Server::discovered(name.into(), url, Vec::new());
        if let Some(issuer) = pin {
            server.orders_mut().for_each(|order| order.pin_to(&Issuer::parse(issuer).expect("good")));
        }
        let server = Arc::new(server);
        let mut permit = Permit::within(None);
        permit.ask = ask.map(scopes);
        TokenRequest { permit, ..TokenRequest::of(&server) }
    }

    fn scopes(text: &str) -> Scopes {
        Scopes::parse(text).expect("good")
    }

    fn presented(want: &TokenRequest, jti: usize) -> Presented {
        let issuer = Issuer::parse(ISSUER).expect("good");
        let scopes = want.permit.ask.clone().unwrap_or_default();
        let asked = (&want.order.way(), &[want.server.url.as_str()][..]);
        Presented::of((&want.order, &want.permit), &subject(jti), &issuer, asked, &scopes)
    }

    fn refusal(code: &str) -> exchange::Error {
        let issuer = Issuer::parse(ISSUER).expect("good");
        exchange::Error::Refused { issuer, cure: "ours", error: OauthError::new(code, None, None) }
    }

    const ISSUER: &str = "https://as.example.com";

    #[test]
    fn what_is_tried_again_and_again_stays_refused_however_many_others_are() {
        let (want, error) = (want("a", Some(ISSUER), None), refusal("invalid_grant"));
        let refused = Refused::default();
        refused.remember(&presented(&want, 0), error.clone(), 0);
        for jti in 1..=2 * KEPT {
            refused.remember(&presented(&want, jti), error.clone(), 0);
            assert!(refused.check(&presented(&want, 0)).is_err(), "after {jti} others");
        }
        assert!(refused.check(&presented(&want, 2 * KEPT + 1)).is_ok());
        assert_eq!(refused.0.lock().expect("whole").len(), KEPT);
    }

    /// Is the request for `then` still sent, with the same identity token, after the issuer refused the one for `first`?
    fn is_sent(first: &TokenRequest, code: &str, then: &TokenRequest) -> bool {
        let refused = Refused::default();
        refused.remember(&presented(first, 0), refusal(code), 0);
        assert!(refused.check(&presented(first, 0)).is_err(), "{code}: the same request is not sent again");
        refused.check(&presented(then, 0)).is_ok()
    }

    #[test]
    fn what_was_taken_once_is_told_apart_from_what_is_not_trusted() {
        let (want, now) = (want("a", Some(ISSUER), None), 1_000);
        let lasting = |exp: i64| Presented { exp: Some(exp), ..presented(&want, 0) };
        let code = |error: Error| error.code().to_owned();
        let refused = Refused::default();
        assert_eq!(
            code(refused.remember(&lasting(2_000), refusal("invalid_grant"), now)),
            "invalid_grant",
            "never taken"
        );
        // A server that took it twice does not take each one once.
        let again = Refused::default();
        (0..2).for_each(|_| again.granted(&lasting(2_000)));
        assert_eq!(code(again.remember(&lasting(2_000), refusal("invalid_grant"), now)), "invalid_grant");
        for (granted, left, given, wanted) in [
            (true, 1_000, "invalid_grant", "identity_token_used"),
            (true, 1_000, "invalid_client", "identity_token_used"),
            (true, 30, "invalid_grant", "invalid_grant"),
            (true, 1_000, "invalid_target", "invalid_target"),
            (false, 1_000, "jti_known", "identity_token_used"),
            (false, 1_000, "jti_reused", "identity_token_used"),
        ] {
            let (refused, presented) = (Refused::default(), lasting(now + left));
            if granted {
                refused.granted(&presented);
            }
            assert_eq!(code(refused.remember(&presented, refusal(given), now)), wanted, "{given}");
            assert_eq!(refused.check(&presented).map_err(code), Err(wanted.to_owned()), "and it is not sent again");
        }
    }

    #[test]
    fn a_refused_identity_is_not_presented_by_any_server_that_the_operator_pinned_there() {
        let (one, other) = (want("a", Some(ISSUER), None), want("b", Some(ISSUER), None));
        for code in ["invalid_grant", "invalid_client"] {
            assert!(!is_sent(&one, code, &other), "{code}");
        }
    }

    #[test]
    fn a_server_that_names_an_honest_issuer_does_not_burn_the_identity_for_others() {
        let (hostile, honest, pinned) = (want("a", None, None), want("b", None, None), want("c", Some(ISSUER), None));
        for code in ["invalid_grant", "invalid_client", "unauthorized_client", "invalid_target", "invalid_scope", "x"] {
            assert!(is_sent(&hostile, code, &honest) && is_sent(&hostile, code, &pinned), "{code}");
        }
    }

    #[test]
    fn a_caller_that_names_scopes_does_not_burn_the_identity_for_others() {
        let (own, others) = (want("a", Some(ISSUER), Some("odd")), want("a", Some(ISSUER), None));
        for code in ["invalid_grant", "invalid_client", "unauthorized_client", "invalid_scope"] {
            assert!(is_sent(&own, code, &others), "{code}");
        }
    }

    #[test]
    fn a_reload_that_changes_how_the_identity_is_presented_has_it_presented_again() {
        let with = |id: &str, kind: &str| {
            let mut want = want("a", Some(ISSUER), None);
            let server = Arc::make_mut(&mut want.server);
            server.orders_mut().for_each(|order| {
                order.client.id = Some(id.to_owned());
                order.extra = vec![("connector_id".to_owned(), kind.to_owned())];
            });
            TokenRequest::of(&want.server)
        };
        for code in ["invalid_grant", "invalid_client", "invalid_request", "request_not_supported"] {
            let before = with("one", "wrong");
            assert!(is_sent(&before, code, &with("two", "wrong")), "{code}: another client");
            assert!(is_sent(&before, code, &with("one", "right")), "{code}: another type");
            assert!(!is_sent(&before, code, &with("one", "wrong")), "{code}: nothing is cured");
        }
        assert!(!is_sent(&with("one", "x"), "jti_known", &with("two", "y")), "what is spent is spent for every client");
    }

    #[test]
    fn a_client_that_may_not_use_a_grant_says_nothing_about_the_identity() {
        let (one, other) = (want("a", Some(ISSUER), None), want("b", Some(ISSUER), None));
        assert!(is_sent(&one, "unauthorized_client", &other));
    }
}
