//! Identity tokens that somebody refused: none of them is presented there again (product rule, and the conformance
//! suite's). The platform's next token is.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::Error;
use super::error::Unusable;
use crate::exchange;
use crate::oauth::{Issuer, OauthError, Scopes};
use crate::token::{Digest, SubjectToken};

/// How many are remembered.
const KEPT: usize = 64;

/// What was refused, and with which words.
#[derive(Default)]
pub(super) struct Refused(Mutex<VecDeque<(Digest, Refusal)>>);

#[derive(Clone)]
struct Refusal {
    issuer: Issuer,
    error: OauthError,
}

/// A subject token as it is presented to one issuer: alone, and together with what is asked for.
pub(super) struct Presented {
    alone: Digest,
    with_request: Digest,
}

impl Presented {
    /// `asked` is everything else in the request, scopes apart.
    pub(super) fn of(subject: &SubjectToken, issuer: &Issuer, asked: &[&str], scopes: &Scopes) -> Self {
        let assertion = [issuer.as_str(), subject.expose()];
        let scopes = scopes.to_string();
        let all = assertion.into_iter().chain([scopes.as_str()]).chain(asked.iter().copied());
        Self {
            alone: Digest::of_fields(assertion.map(str::as_bytes)),
            with_request: Digest::of_fields(all.map(str::as_bytes)),
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

impl Refused {
    /// Fails with the old refusal if this was refused before.
    pub(super) fn check(&self, presented: &Presented) -> Result<(), Error> {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |digest: &Digest| *digest == presented.alone || *digest == presented.with_request;
        let found = refused.iter().position(|(digest, _)| known(digest)).and_then(|at| refused.remove(at));
        let Some((digest, refusal)) = found else { return Ok(()) };
        // What is still tried stays remembered, however many others are refused meanwhile.
        let Refusal { issuer, error } = refusal.clone();
        refused.push_back((digest, refusal));
        Err(Unusable::RefusedBefore { issuer, error }.into())
    }

    /// Remembers a refusal; any other failure says nothing about what was presented.
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
