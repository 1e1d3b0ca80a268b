//! The path walked step by step against live servers, each requirement judged: what `doctor` prints.
//!
//! Nothing is kept and nothing is hidden: documents are fetched without the memory of discovery, and everything that
//! is published is looked at. One token is asked for, once, as the path asks for it. What is sent to the MCP server
//! is that token, broken forms of it, garbage, and what the operator hands in; never the identity token.
//!
//! The steps lie in `examine/`: `door` (what stands before the MCP endpoint), `challenge` (that endpoint), `resource` (its
//! metadata), `issuer` (the authorization
//! server's metadata), `grant` (identity and exchange), `presenting` (what the MCP server accepts). What is required is
//! one table, `rules`.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use tokio::time::Instant;

use super::flight::Maker;
use super::{Broker, Error, Server, Target, Want};
use crate::caller::Caller;
use crate::discovery::Challenge;
use crate::dpop;
use crate::exchange::Gives;
use crate::oauth::{Issuer, Resource, Scopes};
use crate::token::{AccessToken, Credential, SubjectToken};

mod challenge;
mod check;
mod door;
mod grant;
mod issuer;
mod presenting;
mod resource;
mod rules;
mod taken;

use grant::Granted;
use taken::LATE;

pub use check::{Check, Rule, State};

use super::Party;

/// With less time left than this the MCP server's answers would only be called late.
const TO_PRESENT: Duration = Duration::from_millis(500);

/// What the operator wishes beside the target.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Scopes to ask for.
    pub scopes: Option<Scopes>,
    /// The longest life of a token whose end is waited for.
    pub wait_expiry: Duration,
    /// When everything has to be over.
    pub deadline: Instant,
    /// Another resource at the same authorization server, to ask a token for that the MCP server must refuse.
    pub other_resource: Option<Resource>,
    /// A token for this MCP server that has expired.
    pub expired_token: Option<AccessToken>,
    /// A good token for another resource.
    pub foreign_token: Option<AccessToken>,
}

/// What was found so far. It grows while the steps are walked, so that a walk that is cut short has its report too.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of the path.
    pub checks: Vec<Check>,
    waiting_for: &'static str,
}

impl Report {
    /// The walk was cut short.
    pub fn out_of_time(&mut self, limit: Duration) {
        let what = format!("not everything was over within {} s; it waited for {}", limit.as_secs(), self.waiting_for);
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

/// One walk.
struct Walk<'a> {
    maker: &'a Maker,
    server: &'a Arc<Server>,
    caller: &'a Caller,
    wishes: &'a Examination,
    report: &'a mut Report,
    /// How far the clocks of others are ahead of ours, in seconds.
    skews: Vec<(Party, i64)>,
    /// The resource takes tokens only with a proof of possession.
    dpop_required: bool,
    /// The key that the token is bound to, if it is.
    key: Option<Arc<dpop::Key>>,
    /// With which status the MCP server let the good token in.
    good_status: Option<u16>,
    /// What opens the front door before the server.
    pass: Option<(HeaderName, HeaderValue)>,
}

impl Broker {
    /// Walks the path to a token for one server and beyond. Fails only if there is no such server.
    pub async fn examine(
        &self,
        caller: &Caller,
        target: &Target,
        wishes: &Examination,
        report: &mut Report,
    ) -> Result<(), Error> {
        let server = self.configured(target)?;
        let maker = &*self.maker;
        let (skews, dpop_required, key, good_status, pass) = (Vec::new(), false, None, None, None);
        let mut walk =
            Walk { maker, server: &server, caller, wishes, report, skews, dpop_required, key, good_status, pass };
        walk.all().await;
        Ok(())
    }
}

impl Walk<'_> {
    async fn all(&mut self) {
        self.front_door().await;
        let knocked = self.knock().await;
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
        let granted = match &standing {
            Some(_) if is_known => self.exchange().await,
            _ => {
                self.report.push(rules::TOKEN_ISSUED.skip("not asked for: a step before it failed"));
                None
            }
        };
        self.present_all(asks_for_a_token, granted, standing.flatten().as_ref()).await;
    }

    /// Who guards the server, as both documents say, and whether that is enough to go on.
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

    fn skip_discovery(&mut self, why: &str) {
        for rule in [rules::RESOURCE_METADATA, rules::SERVER_METADATA] {
            self.report.push(rule.skip(why));
        }
    }

    /// The platform's own token is what the server takes: no authorization server is asked for one.
    async fn direct(&mut self, asks_for_a_token: bool) {
        let name = self.server.order.expected().name();
        self.skip_discovery(&format!("`exchange = {name:?}`: the server takes the platform's own tokens"));
        let granted = self.platforms_own().await;
        self.clocks();
        self.present_all(asks_for_a_token, granted, None).await;
    }

    /// Requests are signed: no authorization server is asked, and there is no token to present.
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
    }

    async fn present_all(&mut self, asks_for_a_token: bool, granted: Option<Granted>, subject: Option<&SubjectToken>) {
        self.key = match granted.as_ref().map(|granted| &granted.token.credential) {
            Some(Credential::Dpop(_, key)) => Some(Arc::clone(key)),
            _ => None,
        };
        if Instant::now() + TO_PRESENT > self.wishes.deadline {
            self.report.push(rules::TOKEN_ACCEPTED.skip(LATE));
        } else if asks_for_a_token {
            self.presenting(granted, subject).await;
        } else {
            self.report.push(rules::TOKEN_ACCEPTED.skip("the MCP server did not ask for a token with 401"));
        }
    }

    fn saw_date(&mut self, party: Party, date: Option<i64>) {
        self.skews.extend(date.map(|date| (party, date - self.maker.clock.unix())));
    }
}
