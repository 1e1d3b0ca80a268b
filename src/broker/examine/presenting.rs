//! Checks which tokens the MCP server accepts: the good one, a tampered one, garbage, an expired one, one for another
//! audience.
//!
//! The identity token is never sent to it. Tokens go into the header only; the URL gets garbage. Only the head of an
//! answer is read, because an accepted request may open a stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::{Error, Order, ResourceParameter, TokenRequest};
use super::attempt::{Attempt, LATE, audience_check, garbage_check, refused};
use super::grant::Granted;
use super::{Check, ExaminationRun, State, rules};
use crate::oauth::quoted_words;
use crate::token::{AccessToken, Claims, SubjectToken, Token};

/// Not a token: only a server that checks nothing accepts it.
const GARBAGE: &str = "safeconduct-doctor-sends-this-on-purpose";
/// The wait after `exp`, which counts whole seconds; clocks also differ a little.
const JUST_AFTER: Duration = Duration::from_secs(2);
/// If the server still accepts the token then, it is asked again after this time.
const ONCE_MORE: Duration = Duration::from_secs(8);

const NO_TOKEN: &str = "there is no token to try it with";

impl ExaminationRun<'_> {
    /// Presents one token after another, and adds a check for each.
    pub(super) async fn presenting(&mut self, granted: Option<Granted>, subject: Option<&SubjectToken>) {
        self.report.waits_for("the MCP server's answer to a token");
        let garbage = AccessToken::parse(GARBAGE.to_owned()).ok();
        let good = granted.as_ref();
        let accepted = match good {
            Some(granted) => self.good(granted).await,
            None => {
                self.report.push(rules::TOKEN_ACCEPTED.skip(NO_TOKEN));
                false
            }
        };
        let without = self.present(None).await;
        self.report.push(refused(
            &rules::EVERY_REQUEST,
            "a second request, without a token,",
            &without,
            self.good_status,
        ));
        if let Some(garbage) = &garbage {
            let taken = self.present(Some(garbage)).await;
            self.report.push(garbage_check(&taken, self.good_status));
        }
        self.query().await;
        self.tampered(good).await;
        self.foreign(good, accepted, subject).await;
        self.expired(good, accepted, subject).await;
    }

    /// Presents the good token. True if the server accepts it.
    async fn good(&mut self, granted: &Granted) -> bool {
        let rule = &rules::TOKEN_ACCEPTED;
        let taken = self.present(granted.token.credential.token()).await;
        let accepted = matches!(taken, Attempt::Accepted(_));
        if let Attempt::Accepted(status) = taken {
            self.good_status = Some(status);
        }
        if granted.is_foreign {
            self.report.push(rule.skip("the token is for another resource; see wrong-audience-refused"));
            self.report.push(audience_check("the issued token", &taken, None));
            return accepted;
        }
        let check = match taken {
            Attempt::Accepted(status @ ..300) => rule.pass(format!("the token lets us in (status {status})")),
            // The `ping` is outside of a session, or the server does not know it.
            Attempt::Accepted(status) => rule.pass(format!(
                "the token lets us in (status {status} is the MCP server's own answer to a bare `ping`)"
            )),
            Attempt::Inconclusive(error) => rule.fail_with(&error),
            Attempt::NoTime => rule.skip(LATE),
            Attempt::Refused(knocked) => {
                let words = knocked
                    .challenge
                    .error
                    .as_deref()
                    .map_or_else(String::new, |error| format!(", {}", quoted_words(error)));
                let cure = match knocked.status {
                    403 => {
                        "it wants more scope than was granted: compare `scope` of its challenge with what the authorization server grants this workload"
                    }
                    _ => {
                        "accept tokens of the authorization servers that the metadata lists: check the issuer, the key set and the audience that the server is configured with"
                    }
                };
                rule.fail(format!("a token made for this server is refused: {}{words}", knocked.status), cure)
            }
        };
        self.report.push(check);
        accepted
    }

    /// Presents the good token with a changed signature.
    async fn tampered(&mut self, good: Option<&Granted>) {
        let rule = &rules::TAMPERED_REFUSED;
        let tampered = good.and_then(|granted| tampered(granted.token.credential.token()?.expose()));
        let Some(tampered) = tampered else {
            self.report.push(rule.skip(NO_TOKEN));
            return;
        };
        let taken = self.present(Some(&tampered)).await;
        self.report.push(refused(rule, "the token with its signature changed", &taken, self.good_status));
    }

    /// Sends garbage as token in the URL. A server that reads tokens from the URL answers this differently from a
    /// request without a token.
    async fn query(&mut self) {
        let rule = &rules::QUERY_REFUSED;
        let mut url = self.server.url.url().clone();
        url.query_pairs_mut().append_pair("access_token", GARBAGE);
        let check = match self.taken(self.ping(url.as_str())).await {
            Attempt::Accepted(status @ ..300) => rule.fail(
                format!("a word of no worth as `access_token` in the URL lets us in (status {status})"),
                "look for tokens in the Authorization header alone",
            ),
            Attempt::Refused(knocked) if knocked.challenge.error.as_deref() == Some("invalid_token") => {
                match self.present(None).await {
                    Attempt::Refused(plain) if plain.challenge.error.is_none() => rule.warn(
                        "the server reads tokens from the URL: it calls the one there invalid",
                        "look for tokens in the Authorization header alone: URLs end up in logs",
                    ),
                    _ => rule.pass("a token in the URL does not let us in"),
                }
            }
            // A server that refuses every query does not let the token in either.
            Attempt::Accepted(_) | Attempt::Refused(_) => rule.pass("a token in the URL does not let us in"),
            Attempt::Inconclusive(error) => rule.skip(error.to_string()),
            Attempt::NoTime => rule.skip(LATE),
        };
        self.report.push(check);
    }

    /// Presents a token for another audience: the operator's, or one requested for `--other-resource`.
    async fn foreign(&mut self, good: Option<&Granted>, accepted: bool, subject: Option<&SubjectToken>) {
        let rule = &rules::AUDIENCE_REFUSED;
        if self.report.checks.iter().any(|check| check.is_of(&rules::AUDIENCE_REFUSED)) {
            return;
        }
        if let Some(token) = &self.wishes.foreign_token {
            let here = Claims::read(token.expose())
                .is_ok_and(|claims| claims.aud.iter().any(|aud| aud == self.server.url.as_str()));
            let check = match self.may_be_shown(token, subject) {
                Err(why) => rule.skip(why),
                Ok(()) if here => rule.skip("the token in --wrong-audience-token-file is for this server"),
                Ok(()) => {
                    let taken = self.present(Some(token)).await;
                    audience_check("the token of --wrong-audience-token-file", &taken, self.good_status)
                }
            };
            self.report.push(check);
            return;
        }
        let wishes = self.wishes;
        let Some(other) = &wishes.other_resource else {
            let is_unbound = |check: &Check| check.is_of(&rules::TOKEN_BOUND) && check.state == State::Fail;
            if self.report.checks.iter().any(is_unbound) {
                self.report.push(rule.skip("its tokens are not bound to a resource: see token-bound-to-resource"));
                return;
            }
            self.report.push(rule.skip(
                "a token for another resource is needed: `--other-resource URL`, or `--wrong-audience-token-file FILE`",
            ));
            return;
        };
        if good.is_none() || !accepted {
            self.report.push(rule.skip("a good token is not accepted either"));
            return;
        }
        let resource = ResourceParameter::Fixed(other.clone());
        let order = Arc::new(Order { resource, ..(*self.server.order).clone() });
        let minted = match self.server.policy.permit(self.caller, self.wishes.scopes.as_ref()) {
            Ok(permit) => {
                let want = TokenRequest { order, permit, ..TokenRequest::of(self.server) };
                self.issue(&want).await
            }
            Err(denied) => Err(Error::denied(&self.server.name, denied)),
        };
        let check = match minted {
            Ok(granting) => {
                let what = format!("a token for {}", quoted_words(other.as_str()));
                audience_check(&what, &self.present(granting.issued.token()).await, self.good_status)
            }
            Err(error) => rule.skip(format!("no token for --other-resource: {error}")),
        };
        self.report.push(check);
    }

    /// Presents an expired token: the operator's, or the good one after its end.
    async fn expired(&mut self, good: Option<&Granted>, accepted: bool, subject: Option<&SubjectToken>) {
        let rule = &rules::EXPIRED_REFUSED;
        if let Some(token) = &self.wishes.expired_token {
            let now = self.maker.clock.unix();
            let good_still = Claims::read(token.expose()).is_ok_and(|claims| claims.exp.is_none_or(|exp| exp > now));
            let check = match self.may_be_shown(token, subject) {
                Err(why) => rule.skip(why),
                Ok(()) if good_still => rule.skip("the token in --expired-token-file has not expired"),
                Ok(()) => {
                    let taken = self.present(Some(token)).await;
                    refused(rule, "the expired token of --expired-token-file", &taken, self.good_status)
                }
            };
            self.report.push(check);
            return;
        }
        let check = match good {
            None => rule.skip(NO_TOKEN),
            Some(_) if !accepted => rule.skip("the token is not accepted while it is good"),
            Some(granted) => match self.end_of(granted) {
                Ok(end) => self.after(end, &granted.token).await,
                Err(why) => rule.skip(why),
            },
        };
        self.report.push(check);
    }

    /// When the token has certainly expired. Fails with the reason if the examination cannot wait for that.
    fn end_of(&self, granted: &Granted) -> Result<Instant, String> {
        let life = granted.claims.as_ref().and_then(Claims::life).unwrap_or_default().max(granted.token.life);
        if life > self.wishes.wait_expiry {
            return Err(format!(
                "the token lives {} s: `--wait-expiry {0}s` waits for its end, `--expired-token-file FILE` takes an old one",
                life.as_secs()
            ));
        }
        let age = self.maker.clock.boot().since(granted.token.minted);
        let end = Instant::now() + life.saturating_sub(age) + JUST_AFTER;
        if end < self.wishes.checks_until() {
            Ok(end)
        } else {
            Err(format!(
                "the token lives {} s, longer than there is time: give it longer with `--timeout`",
                life.as_secs()
            ))
        }
    }

    /// Waits for the end of the token, then presents it.
    async fn after(&mut self, end: Instant, token: &Token) -> Check {
        let rule = &rules::EXPIRED_REFUSED;
        self.report.waits_for("the token to expire");
        tokio::time::sleep_until(end).await;
        let taken = self.present(token.credential.token()).await;
        if !taken.is_let_in(self.good_status) || end + ONCE_MORE >= self.wishes.checks_until() {
            return refused(rule, "the token after its expiry", &taken, self.good_status);
        }
        // A small leeway for clocks is allowed, so ask once more later.
        tokio::time::sleep_until(end + ONCE_MORE).await;
        let taken = self.present(token.credential.token()).await;
        let late = (JUST_AFTER + ONCE_MORE).as_secs();
        match &taken {
            Attempt::Inconclusive(error) => rule.fail_with(error),
            Attempt::NoTime => rule.skip(LATE),
            Attempt::Accepted(status) if taken.is_let_in(self.good_status) => rule.fail(
                format!("the token is still accepted {late} s after its expiry (status {status})"),
                "look at `exp` of every token and answer 401 once it has passed; if this is a leeway for clocks (some libraries allow a minute, or five), make it a few seconds",
            ),
            _ => rule.warn(
                format!("accepted {} s after its expiry, refused {late} s after it", JUST_AFTER.as_secs()),
                "a leeway for clocks is allowed; keep it small",
            ),
        }
    }

    /// Fails if a token that the operator hands in may be an identity token: the MCP server must not get one.
    fn may_be_shown(&self, token: &AccessToken, subject: Option<&SubjectToken>) -> Result<(), String> {
        let Some(subject) = subject else { return Ok(()) };
        let same =
            Claims::read(token.expose()).is_ok_and(|claims| claims.iss.is_some() && claims.iss == subject.claims.iss);
        if same || token.expose() == subject.expose() {
            return Err("the file holds a token of the identity's own issuer, which no MCP server may see".to_owned());
        }
        Ok(())
    }
}

/// The token with one character in the middle of its signature changed.
fn tampered(token: &str) -> Option<AccessToken> {
    let start = token.rfind('.').map_or(0, |dot| dot + 1);
    let at = start + token[start..].len() / 2;
    let changed = if token[at..].starts_with('A') { "B" } else { "A" };
    let rest = token.get(at + 1..)?;
    AccessToken::parse(format!("{}{changed}{rest}", &token[..at])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tampered_token_differs_in_its_signature_alone() {
        let token = "aaaa.bbbb.cccccccc";
        let tampered = tampered(token).expect("a token");
        assert!(tampered.expose() != token && tampered.expose().starts_with("aaaa.bbbb."));
        assert_eq!(tampered.expose().len(), token.len());
    }
}
