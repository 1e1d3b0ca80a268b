//! How the MCP server answers a request with or without a token, and the checks of that answer.

use std::sync::Arc;

use reqwest::header::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::super::Error;
use super::{Check, ExaminationRun, Rule, State, rules};
use crate::discovery::{self, Document, EndpointHead};
use crate::outbound::{self, Ask};
use crate::token::{AccessToken, Credential, Head};

/// How the server answered a request.
pub(super) enum Attempt {
    /// The token check let it pass. The status is that of the program behind it.
    Accepted(u16),
    /// 401 or 403.
    Refused(EndpointHead),
    /// No answer, a redirect, or a server that is busy or broken.
    Inconclusive(Error),
    /// Not sent: the time of the examination is over.
    NoTime,
}

/// The text of a check that was skipped for lack of time.
pub(crate) const LATE: &str = "no time is left for it: give it longer with `--timeout`";

impl Attempt {
    /// Was it accepted? `good` is the status for the good token: another token that gets the same status was not
    /// refused.
    pub(super) fn is_let_in(&self, good: Option<u16>) -> bool {
        matches!(self, Self::Accepted(status) if *status < 300 || good == Some(*status))
    }
}

impl ExaminationRun<'_> {
    /// Sends one request with this token, and with a DPoP proof if tokens are bound to a key. Sends it again if the
    /// server wants its nonce in the proof.
    pub(super) async fn present(&self, token: Option<&AccessToken>) -> Attempt {
        let taken = self.presented(token).await;
        let Attempt::Refused(EndpointHead { nonce: Some(nonce), challenge, .. }) = &taken else { return taken };
        if self.key.is_none() || challenge.error.as_deref() != Some("use_dpop_nonce") {
            return taken;
        }
        // This is not a refusal: the server sent its nonce, and the next proof contains it (RFC 9449 section 9).
        self.maker.nonces.learn(self.server.url.url(), Some(nonce));
        self.presented(token).await
    }

    /// Sends the request once, whatever the server says about nonces.
    async fn presented(&self, token: Option<&AccessToken>) -> Attempt {
        let mut ask = self.ping(self.server.url.as_str());
        if let Some(token) = token {
            let Some(headers) = self.headers(token) else {
                return Attempt::Inconclusive(Error::internal("a token that was checked is no header value"));
            };
            ask.headers.extend(headers);
        }
        self.taken(ask).await
    }

    /// The header fields for this token, in the scheme of the good token. The token may be a broken one.
    fn headers(&self, token: &AccessToken) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let credential = match &self.key {
            Some(key) => Credential::Dpop(token.clone(), Arc::clone(key)),
            None => Credential::Bearer(token.clone()),
        };
        let url = self.server.url.url();
        let nonce = self.maker.nonces.newest(url);
        let now = self.maker.clock.wall();
        let head = Head { method: "POST", url, nonce: nonce.as_deref(), body_sha256: None, now };
        let fields = credential.authorize(Some(&head)).ok()?;
        let field = |(name, value): (String, Zeroizing<String>)| {
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
        };
        fields.into_iter().map(field).collect()
    }

    /// Sends one request and classifies the answer.
    pub(super) async fn taken(&self, ask: Ask) -> Attempt {
        match self.maker.discovery.request_head(ask).await {
            Ok(knocked) if matches!(knocked.status, 401 | 403) => Attempt::Refused(knocked),
            Ok(knocked) if matches!(knocked.status, 429 | 500..) => {
                let host = crate::oauth::host_of(self.server.url.url()).to_owned();
                let status = knocked.status;
                Attempt::Inconclusive(
                    discovery::Error::Busy { document: Document::Challenge, host, status, retry_after: None }.into(),
                )
            }
            Ok(knocked) => Attempt::Accepted(knocked.status),
            Err(outbound::Error::NoTimeLeft { .. }) => Attempt::NoTime,
            Err(error) => {
                Attempt::Inconclusive(discovery::Error::Outbound { document: Document::Challenge, error }.into())
            }
        }
    }
}

/// The check of a request that must get 401.
pub(super) fn refused(rule: &Rule, what: &str, taken: &Attempt, good: Option<u16>) -> Check {
    match taken {
        Attempt::Accepted(status) if !taken.is_let_in(good) => rule.warn(
            format!("{what} gets {status}, where 401 is due"),
            "look at the token before anything else in a request, and answer 401",
        ),
        Attempt::Refused(knocked) if knocked.status == 401 => rule.pass(format!("{what} gets 401")),
        Attempt::Refused(knocked) => rule.warn(
            format!("{what} gets {}, where 401 is due", knocked.status),
            "401 makes a client fetch a new token; 403 tells it that none would help",
        ),
        Attempt::Accepted(status) => rule.fail(
            format!("{what} is accepted (status {status})"),
            "verify signature, issuer, audience and expiry of every token, on every request, and answer 401",
        ),
        Attempt::Inconclusive(error) => rule.fail_with(error),
        Attempt::NoTime => rule.skip(LATE),
    }
}

/// The check of garbage sent as token: it must get 401 with `invalid_token`.
pub(super) fn garbage_check(taken: &Attempt, good: Option<u16>) -> Check {
    let check = refused(&rules::GARBAGE_REFUSED, "a word of no worth as token", taken, good);
    match taken {
        Attempt::Refused(knocked)
            if check.state == State::Pass && knocked.challenge.error.as_deref() != Some("invalid_token") =>
        {
            rules::GARBAGE_REFUSED.warn(
                "a word of no worth as token gets 401, without error=\"invalid_token\"",
                "say `error=\"invalid_token\"` in the challenge when a token was sent: clients then fetch a new one",
            )
        }
        _ => check,
    }
}

/// The check of a token for another audience: it must get 401.
pub(super) fn audience_check(what: &str, taken: &Attempt, good: Option<u16>) -> Check {
    match taken {
        Attempt::Accepted(status) if *status < 300 || good.is_none_or(|good| good == *status) => {
            rules::AUDIENCE_REFUSED.fail(
                format!("{what}, which is not for this server, is accepted (status {status})"),
                "refuse tokens whose `aud` is not this server's own resource identifier",
            )
        }
        _ => refused(&rules::AUDIENCE_REFUSED, what, taken, good),
    }
}
