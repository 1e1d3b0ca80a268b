//! Remembers identity tokens that a party refused. Such a token is not presented there again, as the conformance suite
//! demands. A newer token of the platform is.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::Error;
use super::error::Unusable;
use crate::exchange;
use crate::oauth::{Issuer, OauthError, Scopes};
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
}

impl Presented {
    /// `asked` is the rest of the request, without the scopes.
    pub(super) fn of(subject: &SubjectToken, issuer: &Issuer, asked: &[&str], scopes: &Scopes) -> Self {
        let assertion = [issuer.as_str(), subject.expose()];
        let scopes = scopes.to_string();
        let all = assertion.into_iter().chain([scopes.as_str()]).chain(asked.iter().copied());
        Self {
            alone: Digest::of_fields(assertion.map(str::as_bytes)),
            with_request: Digest::of_fields(all.map(str::as_bytes)),
        }
    }

    /// The digest that must not be presented again after this error code. A refused identity is refused in every
    /// request; a refused scope or resource only in this one, so that other servers and scopes still work.
    fn refused_with(&self, code: &str) -> Digest {
        match code {
            "invalid_grant" | "invalid_client" | "unauthorized_client" => self.alone,
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
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn subject(jti: usize) -> SubjectToken {
        let payload = URL_SAFE_NO_PAD.encode(format!("{{\"jti\":\"{jti}\"}}"));
        SubjectToken::parse(format!("e30.{payload}.c2ln").into()).expect("a JWT")
    }

    #[test]
    fn what_is_tried_again_and_again_stays_refused_however_many_others_are() {
        let issuer = Issuer::parse("https://as.example.com").expect("good");
        let of = |jti| Presented::of(&subject(jti), &issuer, &[], &Scopes::default());
        let words = OauthError::new("invalid_grant", None, None);
        let error = exchange::Error::Refused { issuer: issuer.clone(), cure: "ours", error: words };
        let refused = Refused::default();
        refused.remember(&of(0), &error);
        for jti in 1..=2 * KEPT {
            refused.remember(&of(jti), &error);
            assert!(refused.check(&of(0)).is_err(), "after {jti} others");
        }
        assert!(refused.check(&of(2 * KEPT + 1)).is_ok());
        assert_eq!(refused.0.lock().expect("whole").len(), KEPT);
    }

    #[test]
    fn a_refused_scope_does_not_spoil_the_identity_for_others() {
        let subject = subject(0);
        let issuer = Issuer::parse("https://as.example.com").expect("good");
        let of = |text: &str| Presented::of(&subject, &issuer, &[], &Scopes::parse(text).expect("good"));
        let (one, other) = (of("a"), of("b"));
        assert_eq!(one.refused_with("invalid_grant"), other.alone, "a refused identity is refused for everything");
        let scope = one.refused_with("invalid_scope");
        assert!(scope != other.alone && scope != other.with_request, "a refused scope is refused for itself");
    }
}
