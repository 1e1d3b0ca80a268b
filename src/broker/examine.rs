//! The examination that `doctor` prints: the path to a server, step by step against the live parties, with one check
//! for each requirement.
//!
//! Documents are fetched without the cache of discovery, at every place where they may be published. One token is
//! requested, once, as in a normal request; `--other-resource` requests a second one, and `federation` says what else is. The MCP
//! server gets that token, broken forms of it, garbage, and the tokens that the operator hands in; never the identity token.
//! Every access token for the server, and for a front door before it, is revoked, also if the time for the checks was too short (`revoking`).
//!
//! The steps are in `examine/`: `door` (the front door), `challenge` (the MCP endpoint without a token), `resource`
//! (its metadata), `issuer` (the authorization server's metadata), `grant` (identity and exchange), `presenting` (what
//! the MCP server accepts), `federation` (what the authorization server demands of an identity token). The requirements are one table, `rules`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use tokio::time::{Instant, timeout_at};

use super::flight::Minter;
use super::{Broker, Error, Server, Target, TokenRequest};
use crate::caller::Caller;
use crate::dpop;
use crate::exchange::Gives;
use crate::oauth::{Challenge, Issuer, Resource, Scopes};
use crate::token::{AccessToken, Credential, SubjectToken};

mod attempt;
mod challenge;
mod check;
mod door;
mod federation;
mod grant;
mod issuer;
mod presenting;
mod resource;
mod revoking;
mod rules;

pub(crate) use attempt::LATE;
use federation::Outcome;
use grant::Granted;
use revoking::ToRevoke;

pub use check::{Check, Rule, State};

use super::Party;

/// With less time left than this, no token is presented: the answers would come too late.
const TO_PRESENT: Duration = Duration::from_millis(500);
const NOBODY_ASKED: &str = "no authorization server is asked";

/// The options of an examination.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Scopes to ask for.
    pub scopes: Option<Scopes>,
    /// Wait for the end of a token that lives at most this long.
    pub wait_expiry: Duration,
    /// How long it may take, with the revocation of what was issued.
    pub limit: Duration,
    /// When that is over.
    pub deadline: Instant,
    /// Another resource at the same authorization server. A token is requested for it, which the MCP server must
    /// refuse.
    pub other_resource: Option<Resource>,
    /// A token for this MCP server that has expired.
    pub expired_token: Option<AccessToken>,
    /// A valid token for another resource.
    pub foreign_token: Option<AccessToken>,
}

/// The checks so far. It grows with every step, so that an examination that runs out of time has a report too.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of the path.
    pub checks: Vec<Check>,
    /// The party or document that the current step waits for.
    waiting_for: &'static str,
    /// What was issued.
    to_revoke: Vec<ToRevoke>,
}

impl Report {
    /// Adds the check that fails because the examination did not end within `limit`.
    fn out_of_time(&mut self, limit: Duration) {
        let what =
            format!("not everything was over within {:.1} s; it waited for {}", limit.as_secs_f32(), self.waiting_for);
        let check = rules::IN_TIME.fail(what, "give it longer with `--timeout`");
        self.push(check.of(super::Class::Temporary));
    }

    fn push(&mut self, check: Check) {
        self.checks.push(check);
    }

    fn waits_for(&mut self, what: &'static str) {
        self.waiting_for = what;
    }
}

/// The state of one examination.
struct ExaminationRun<'a> {
    maker: &'a Minter,
    server: &'a Arc<Server>,
    caller: &'a Caller,
    wishes: &'a Examination,
    report: &'a mut Report,
    /// How far the clocks of the servers are ahead of ours, in seconds.
    skews: Vec<(Party, i64)>,
    /// The resource metadata requires tokens that are bound to a key (DPoP).
    dpop_required: bool,
    /// The key that the token is bound to, if it is.
    key: Option<Arc<dpop::Key>>,
    /// The status with which the MCP server accepted the good token.
    good_status: Option<u16>,
    /// The header field for the front door before the server.
    pass: Option<(HeaderName, HeaderValue)>,
    /// The authorization server that is asked.
    issuer_asked: Option<Issuer>,
    /// How the token request ended.
    outcome: Outcome,
}

impl Broker {
    /// How many requests were sent so far, and where.
    pub fn requests(&self) -> [(&'static str, usize); 4] {
        let [mcp, documents] = self.maker.discovery.sent();
        let [tokens, revocations] = self.maker.sent.each_ref().map(|count| count.load(Ordering::Relaxed));
        [("mcp_server", mcp), ("metadata", documents), ("token_endpoint", tokens), ("revocation_endpoint", revocations)]
    }

    /// Examines the path to one server, and adds each check to `report`. Fails only if there is no such server.
    pub async fn examine(
        &self,
        caller: &Caller,
        target: &Target,
        wishes: &Examination,
        report: &mut Report,
    ) -> Result<(), Error> {
        let server = self.configured(caller, target)?;
        let maker = &*self.maker;
        let (skews, dpop_required, key, good_status, pass) = (Vec::new(), false, None, None, None);
        let mut walk = ExaminationRun {
            maker,
            server: &server,
            caller,
            wishes,
            report,
            skews,
            dpop_required,
            key,
            good_status,
            pass,
            issuer_asked: None,
            outcome: Outcome::NotAsked,
        };
        let is_late = timeout_at(wishes.checks_until(), walk.all()).await.is_err();
        report.revoke_all(maker, wishes.deadline).await;
        if is_late {
            report.out_of_time(wishes.for_checks());
        }
        Ok(())
    }
}

impl ExaminationRun<'_> {
    /// Makes all checks, in the order of the path.
    async fn all(&mut self) {
        self.front_door().await;
        let knocked = self.request_head().await;
        let asks_for_a_token = knocked.as_ref().is_some_and(|knocked| knocked.status == 401);
        let reachable = knocked.is_some();
        match self.server.order.expected().traits().gives {
            Gives::Token => {}
            Gives::OwnToken => return self.direct(asks_for_a_token).await,
            Gives::Signer => return self.signed().await,
        }
        let (issuer, is_known) = if !self.server.order.is_discovered() {
            self.skip_discovery("the exchange asks the provider's own hosts, whatever the MCP server says");
            (self.server.order.issuer().cloned(), true)
        } else if reachable || self.server.order.issuer().is_some() {
            self.discovered(knocked.map(|knocked| knocked.challenge)).await
        } else {
            self.skip_discovery("the MCP server was not reached");
            (None, false)
        };
        let standing = self.identity(issuer.as_ref()).await;
        self.clocks();
        self.issuer_asked = issuer;
        let granted = match &standing {
            Some(_) if is_known => self.exchange().await,
            _ => {
                self.report.push(rules::TOKEN_ISSUED.skip("not asked for: a step before it failed"));
                None
            }
        };
        let subject = standing.flatten();
        self.present_all(asks_for_a_token, granted, subject.as_ref()).await;
        self.federation(subject.as_ref()).await;
    }

    /// The authorization server, from pin or metadata, and whether its metadata is good enough to ask for a token.
    async fn discovered(&mut self, challenge: Option<Challenge>) -> (Option<Issuer>, bool) {
        let protection = self.protection(challenge).await;
        let Some((issuer, issuer_is)) = protection.and_then(|protection| self.issuer(&protection)) else {
            self.report.push(rules::SERVER_METADATA.skip("no authorization server is known"));
            return (None, false);
        };
        if self.server.order.token_endpoint().is_some() {
            self.report
                .push(rules::SERVER_METADATA.skip("`token_endpoint` is configured, for a server that publishes none"));
            return (Some(issuer), true);
        }
        let metadata = self.metadata(&issuer, issuer_is).await;
        (Some(issuer), metadata.is_some())
    }

    /// Skips the checks of both metadata documents.
    fn skip_discovery(&mut self, why: &str) {
        for rule in [rules::RESOURCE_METADATA, rules::SERVER_METADATA] {
            self.report.push(rule.skip(why));
        }
    }

    /// For a server that accepts the platform's own token: no authorization server is asked.
    async fn direct(&mut self, asks_for_a_token: bool) {
        let name = self.server.order.expected().name();
        self.skip_discovery(&format!("`exchange = {name:?}`: the server takes the platform's own tokens"));
        let granted = self.platforms_own().await;
        self.clocks();
        self.present_all(asks_for_a_token, granted, None).await;
        self.unmeasured(NOBODY_ASKED);
    }

    /// For a server whose requests are signed: no authorization server is asked, and there is no token to present.
    async fn signed(&mut self) {
        let name = self.server.order.expected().name();
        self.skip_discovery(&format!("`exchange = {name:?}`: each request is signed, and nobody issues a token"));
        let issuer = self.server.order.issuer().cloned();
        if self.identity(issuer.as_ref()).await.is_some() {
            self.credentials().await;
        } else {
            self.report.push(rules::TOKEN_ISSUED.skip("not asked for: a step before it failed"));
        }
        self.clocks();
        let what = "requests are signed one by one: try one with the headers of `/v1/headers`";
        self.report.push(rules::TOKEN_ACCEPTED.skip(what));
        self.unmeasured(NOBODY_ASKED);
    }

    /// Is too little time left for a further request?
    fn is_late(&self) -> bool {
        Instant::now() + TO_PRESENT > self.wishes.checks_until()
    }

    /// Presents tokens to the MCP server, if it asks for one and there is time for it.
    async fn present_all(&mut self, asks_for_a_token: bool, granted: Option<Granted>, subject: Option<&SubjectToken>) {
        self.key = match granted.as_ref().map(|granted| &granted.token.credential) {
            Some(Credential::Dpop(_, key)) => Some(Arc::clone(key)),
            _ => None,
        };
        if self.is_late() {
            self.report.push(rules::TOKEN_ACCEPTED.skip(LATE));
        } else if asks_for_a_token {
            self.presenting(granted, subject).await;
        } else {
            self.report.push(rules::TOKEN_ACCEPTED.skip("the MCP server did not ask for a token with 401"));
        }
    }

    /// Notes how far the clock of a server is ahead of ours.
    fn saw_date(&mut self, party: Party, date: Option<i64>) {
        self.skews.extend(date.map(|date| (party, date - self.maker.clock.unix())));
    }
}
