//! Remembers identity tokens that a party refused. Such a token is not presented there again, as the conformance suite
//! demands. A newer token of the platform is.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::error::Unusable;
use super::{Error, Order};
use crate::exchange;
use crate::oauth::{Issuer, OauthError, Scopes};
use crate::policy::Permit;
use crate::token::{Digest, SubjectToken};

/// How many refusals are remembered.
const KEPT: usize = 64;

/// The last refusals: the digest of what was presented, and the error.
#[derive(Default)]
pub(super) struct Refused(Mutex<VecDeque<(Digest, Refusal)>>);

#[derive(Clone)]
/// Who refused, and with which error.
struct Refusal {
    issuer: Issuer,
    error: OauthError,
}

/// Two digests of a subject token that is presented to one issuer: alone, and together with the rest of the request.
pub(super) struct Presented {
    alone: Digest,
    with_request: Digest,
    /// Somebody else than the operator had a part in the request: the caller named the scopes.
    by_caller: bool,
}

impl Presented {
    /// The subject token in one request for this order and permit. `asked` is the rest of the request, without the scopes.
    ///
    /// Without a pin the MCP server chose the issuer, and it may have chosen what the issuer refuses. So such a refusal
    /// counts for that server alone.
    pub(super) fn of(
        (order, permit): (&Order, &Permit),
        subject: &SubjectToken,
        issuer: &Issuer,
        asked: &[&str],
        scopes: &Scopes,
    ) -> Self {
        let unpinned = if order.pin.is_none() { &*order.name } else { "" };
        let assertion = [issuer.as_str(), subject.expose(), unpinned];
        let scopes = scopes.to_string();
        // The name of the order stands for its client and its grant.
        let all = assertion.into_iter().chain([&*order.name, scopes.as_str()]).chain(asked.iter().copied());
        Self {
            alone: Digest::of_fields(assertion.map(str::as_bytes)),
            with_request: Digest::of_fields(all.map(str::as_bytes)),
            by_caller: permit.ask.is_some(),
        }
    }

    /// The digest that must not be presented again after this error code. A refused identity is refused in every
    /// request; a refused scope or resource only in this one, so that other servers and scopes still work, and so is
    /// whatever is refused in a request with a caller's own scopes. `unauthorized_client` speaks of the client and the
    /// grant, not of the identity.
    fn refused_with(&self, code: &str) -> Digest {
        match code {
            "invalid_grant" | "invalid_client" if !self.by_caller => self.alone,
            _ => self.with_request,
        }
    }
}

impl Refused {
    /// Fails with the remembered error if this was refused before.
    pub(super) fn check(&self, presented: &Presented) -> Result<(), Error> {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |digest: &Digest| *digest == presented.alone || *digest == presented.with_request;
        let found = refused.iter().position(|(digest, _)| known(digest)).and_then(|at| refused.remove(at));
        let Some((digest, refusal)) = found else { return Ok(()) };
        // Move it to the end, so that newer refusals do not push out one that is still in use.
        let Refusal { issuer, error } = refusal.clone();
        refused.push_back((digest, refusal));
        Err(Unusable::RefusedBefore { issuer, error }.into())
    }

    /// Remembers a refusal. Ignores other failures: they say nothing about what was presented.
    pub(super) fn remember(&self, presented: &Presented, error: &exchange::Error) {
        let exchange::Error::Refused { issuer, error, .. } = error else { return };
        let refusal = Refusal { issuer: issuer.clone(), error: error.clone() };
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= KEPT {
            refused.pop_front();
        }
        refused.push_back((presented.refused_with(&error.code), refusal));
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
        Presented::of((&want.order, &want.permit), &subject(jti), &issuer, &[want.server.url.as_str()], &scopes)
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
        refused.remember(&presented(&want, 0), &error);
        for jti in 1..=2 * KEPT {
            refused.remember(&presented(&want, jti), &error);
            assert!(refused.check(&presented(&want, 0)).is_err(), "after {jti} others");
        }
        assert!(refused.check(&presented(&want, 2 * KEPT + 1)).is_ok());
        assert_eq!(refused.0.lock().expect("whole").len(), KEPT);
    }

    /// Is the request for `then` still sent, with the same identity token, after the issuer refused the one for `first`?
    fn is_sent(first: &TokenRequest, code: &str, then: &TokenRequest) -> bool {
        let refused = Refused::default();
        refused.remember(&presented(first, 0), &refusal(code));
        assert!(refused.check(&presented(first, 0)).is_err(), "{code}: the same request is not sent again");
        refused.check(&presented(then, 0)).is_ok()
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
    fn a_client_that_may_not_use_a_grant_says_nothing_about_the_identity() {
        let (one, other) = (want("a", Some(ISSUER), None), want("b", Some(ISSUER), None));
        assert!(is_sent(&one, "unauthorized_client", &other));
    }
}
