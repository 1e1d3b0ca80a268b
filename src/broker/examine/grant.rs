//! Checks of the identity, the clocks, and the one token request.

use std::sync::Arc;
use std::time::Duration;

use super::super::error::Unusable;
use super::super::flight::{FOR_NOBODY, TokenAnswer, expected_audience};
use super::super::{Class, Error, ResourceParameter};
use super::federation::{Grant, Outcome};
use super::{Check, ExaminationRun, Party, State, TokenRequest, rules};
use crate::identity::CLOCK_SKEW;
use crate::oauth::{Audience, Issuer, quoted_words};
use crate::token::{Claims, SubjectToken, Token, Unfit};

/// In seconds. Clocks that are further apart get a warning: a JWT of GitHub or of a SPIFFE agent may live for a minute.
const SKEW_NOTED: i64 = 60;
/// In seconds. Clocks that are further apart are a failure: assertions are refused as expired or as not yet valid.
const SKEW_BORNE: i64 = 300;
/// A token that lives longer than a day gets a warning: it is not short-lived.
const LONG_LIFE: Duration = Duration::from_secs(86_400);

/// An issued token, and what the checks found out about it.
pub(super) struct Granted {
    pub(super) token: Token,
    pub(super) claims: Option<Claims>,
    /// It is a JWT that names another audience, so the MCP server has to refuse it.
    pub(super) is_foreign: bool,
}

impl ExaminationRun<'_> {
    /// Fetches the identity token and checks whether it may be sent. `None` after a failure; `Some(None)` if no token
    /// is needed.
    pub(super) async fn identity(&mut self, issuer: Option<&Issuer>) -> Option<Option<SubjectToken>> {
        self.report.waits_for("the identity token of the platform");
        if self.server.order.signs_with_own_role() {
            return match self.maker.identity(&self.server.order) {
                Ok(identity) => {
                    let found = format!("{} ({})", identity.source.name(), identity.evidence);
                    self.report.push(rules::IDENTITY_FOUND.pass(found));
                    Some(None)
                }
                Err(error) => {
                    self.report.push(rules::IDENTITY_FOUND.fail_with(&error));
                    None
                }
            };
        }
        if !self.server.order.needs_subject() {
            let auth = self.server.order.client.auth.as_str();
            self.report.push(rules::IDENTITY_FOUND.skip(format!("none is needed: the client proves itself ({auth})")));
            return Some(None);
        }
        let identity = match self.maker.identity(&self.server.order) {
            Ok(identity) => identity.clone(),
            Err(error) => {
                self.report.push(rules::IDENTITY_FOUND.fail_with(&error));
                return None;
            }
        };
        let (source, evidence) = (identity.source.name(), identity.evidence);
        self.report.push(rules::IDENTITY_FOUND.pass(format!("{source} ({evidence})")));
        let Some(issuer) = issuer else {
            self.report.push(rules::SUBJECT_TOKEN.skip("for whom it has to be made is not known"));
            return None;
        };
        let (subject, wanted) = match self.asked(issuer).await {
            Ok(asked) => asked,
            Err(error) => {
                self.report.push(rules::SUBJECT_TOKEN.fail_with(&error));
                return None;
            }
        };
        let of = |claim: &Option<String>| claim.as_deref().map_or_else(|| "nobody".to_owned(), quoted_words);
        let who = format!("issued by {} for {}", of(&subject.claims.iss), of(&subject.claims.sub));
        self.report.push(rules::SUBJECT_TOKEN.pass(who));
        self.fit(&subject, source, &wanted).then_some(Some(subject))
    }

    /// The platform's token, as a flight asks for it, and the audience that it must have.
    async fn asked(&self, issuer: &Issuer) -> Result<(SubjectToken, Audience), Error> {
        let order = &self.server.order;
        let chain = self.maker.chain(order)?;
        let addressee = self.maker.addressee(order, issuer, &self.server.origins()).await?;
        let subject = self.maker.needed_subject(order, &chain, &addressee).await?;
        Ok((subject, chain.first().map_or_else(|| expected_audience(order, &addressee), |link| link.audience())))
    }

    /// Gets the platform's own token, for a server that accepts it directly. `None` after a failure.
    pub(super) async fn platforms_own(&mut self) -> Option<Granted> {
        self.report.waits_for("the identity token of the platform");
        match self.maker.direct(&TokenRequest::of(self.server)).await {
            Ok(token) => {
                self.report.push(rules::TOKEN_ISSUED.pass("the platform's own token, made for this server"));
                let claims = token.credential.token().and_then(|token| Claims::read(token.expose()).ok());
                Some(Granted { token, claims, is_foreign: false })
            }
            Err(error) => {
                self.report.push(rules::TOKEN_ISSUED.fail_with(&error).by(Party::Platform));
                None
            }
        }
    }

    /// Gets the credentials that sign requests.
    pub(super) async fn credentials(&mut self) {
        self.report.waits_for("the credentials of the role");
        let want = TokenRequest::of(self.server);
        let issued = match self.maker.issue(&want).await {
            Ok(granting) => self.maker.token(&want, granting),
            Err(error) => Err(error),
        };
        self.report.push(match issued {
            Ok(token) => {
                let who = token.hops.last().and_then(|hop| hop.sub.as_deref()).map(quoted_words);
                let who = who.unwrap_or_else(|| "the workload's own role".to_owned());
                rules::TOKEN_ISSUED.pass(format!("credentials to sign with, of {who}, good until {}", token.expires_at))
            }
            Err(error) => rules::TOKEN_ISSUED.fail_with(&error),
        });
    }

    /// Checks audience, expiry and `jti` of the identity token. True if it may be sent.
    fn fit(&mut self, subject: &SubjectToken, source: &'static str, wanted: &Audience) -> bool {
        let unfit = subject.fit_for(wanted, self.maker.clock.unix(), CLOCK_SKEW).err();
        let is_late = matches!(unfit, Some(Unfit::Expired { .. } | Unfit::NoExpiry));
        let failure = unfit.map(|unfit| Error::from(Unusable::Subject { source_name: source, unfit }));
        match &failure {
            Some(error) if !is_late => self.report.push(rules::SUBJECT_AUDIENCE.fail_with(error)),
            _ => self
                .report
                .push(rules::SUBJECT_AUDIENCE.pass(format!("`aud` is {} alone", quoted_words(wanted.as_str())))),
        }
        match &failure {
            Some(error) if is_late => self.report.push(rules::SUBJECT_EXPIRY.fail_with(error)),
            _ => self.report.push(expiry(subject, self.maker.clock.unix())),
        }
        self.report.push(match subject.claims.jti {
            _ if !subject.is_jwt() => rules::SUBJECT_JTI.skip("a signed request has none"),
            Some(_) => rules::SUBJECT_JTI.pass("`jti` is there: a replay can be noticed"),
            None => rules::SUBJECT_JTI.warn(
                "the identity token has no `jti`, which workload identity federation asks for",
                "have the platform add it where it can; servers that insist on it will refuse",
            ),
        });
        failure.is_none()
    }

    /// Checks how far the clocks of the servers are from ours.
    pub(super) fn clocks(&mut self) {
        let check = judge_clocks(&self.skews);
        self.report.push(check);
    }

    /// Asks for the token, once, and checks it. `None` if there is none, or if a flight would not use it.
    pub(super) async fn exchange(&mut self) -> Option<Granted> {
        self.report.waits_for("the token endpoint");
        let permit = match self.server.policy.permit(self.caller, self.wishes.scopes.as_ref()) {
            Ok(permit) => permit,
            Err(denied) => {
                let error = Error::denied(&self.server.name, denied);
                self.report.push(rules::TOKEN_ISSUED.fail_with(&error).by(Party::Machine));
                return None;
            }
        };
        let want = TokenRequest { permit, ..TokenRequest::of(self.server) };
        let granting = match self.issue(&want).await {
            Ok(granting) => granting,
            Err(error) => {
                let unix = self.maker.clock.unix();
                self.report.push(rules::TOKEN_ISSUED.fail_with(&error).by(error.party()));
                if error.said_no() || error.demand().is_some() {
                    self.outcome = Outcome::Refused(want, error, unix);
                }
                return None;
            }
        };
        let kind = if granting.sent.request.dpop.is_some() { "DPoP" } else { "Bearer" };
        self.report.push(rules::TOKEN_ISSUED.pass(format!("issued, token_type {kind}")));
        let claims = granting.issued.token().and_then(|token| Claims::read(token.expose()).ok());
        let bound = self.bound(&granting, claims.as_ref());
        let is_foreign = matches!(bound, Bound::Elsewhere(_));
        self.report.push(bound.check(granting.resource.as_str()));
        let life = lifetime(&granting, claims.as_ref());
        let lives = [granting.issued.expires_in, claims.as_ref().and_then(Claims::life)].into_iter().flatten().min();
        let (sent, resource) = (Arc::clone(&granting.sent), bound.parameter());
        self.outcome = Outcome::Granted(Box::new(Grant { want: want.clone(), sent, life: lives, resource }));
        let asked = granting.sent.request.scopes.clone();
        let token = match self.maker.token(&want, granting) {
            Ok(token) => token,
            Err(error) if error.is_unbound_token() => return self.not_used(&error),
            Err(error) => {
                self.report.push(rules::TOKEN_LIFETIME.fail_with(&error));
                return None;
            }
        };
        self.report.push(life);
        if let Err(denied) = want.permit.admit(&token.scopes) {
            self.report.push(rules::TOKEN_SCOPE.fail_with(&Error::denied(&self.server.name, denied)));
            return None;
        }
        self.report.push(if token.missing.is_empty() {
            rules::TOKEN_SCOPE.pass(format!("granted {:?}, as asked", token.scopes.to_string()))
        } else {
            let (asked, granted) = (asked.to_string(), token.scopes.to_string());
            rules::TOKEN_SCOPE.warn(
                format!("asked for {asked:?}, granted {granted:?}"),
                "let the authorization server's rule for this workload grant what the MCP server asks for, or ask for less (`scopes`)",
            )
        });
        Some(Granted { token, claims, is_foreign })
    }

    /// A flight would not use this token, so it is not presented to the MCP server either.
    fn not_used(&mut self, error: &Error) -> Option<Granted> {
        // With a discovered issuer an uncertain binding is a failure, not a warning.
        if self.report.checks.pop_if(|check| check.is_of(&rules::TOKEN_BOUND) && check.state == State::Warn).is_some() {
            self.report.push(rules::TOKEN_BOUND.fail_with(error));
        }
        None
    }

    /// Compares the token's audience with the requested resource.
    fn bound(&self, granting: &TokenAnswer, claims: Option<&Claims>) -> Bound {
        let Some(claims) = claims else { return Bound::Opaque };
        let asks_for_it = self.server.order.is_discovered() && self.server.order.resource != ResourceParameter::Omitted;
        if claims.aud.is_empty() && (!asks_for_it || self.server.order.pin.is_some()) {
            return Bound::Nowhere;
        }
        if !self.server.order.is_discovered() {
            return Bound::Named(claims.aud.join(", "));
        }
        if self.server.order.resource == ResourceParameter::Omitted {
            return Bound::NotAsked(claims.aud.join(", "));
        }
        let resource = granting.resource.as_str();
        match claims.aud.as_slice() {
            [only] if only == resource => Bound::Here,
            several if several.iter().any(|one| one == resource) => Bound::AlsoElsewhere(several.join(", ")),
            other => Bound::Elsewhere(other.join(", ")),
        }
    }
}

/// What the audience of the issued token says.
enum Bound {
    /// This resource only.
    Here,
    /// This resource and others.
    AlsoElsewhere(String),
    /// Not this resource.
    Elsewhere(String),
    /// The request had no `resource`.
    NotAsked(String),
    /// The provider's exchange names the audience in another way, by a scope or a parameter of its own.
    Named(String),
    /// The token names no audience at all.
    Nowhere,
    /// The token is not a JWT.
    Opaque,
}

impl Bound {
    /// What it shows of the parameter `resource`.
    fn parameter(&self) -> Check {
        let rule = &rules::RESOURCE_PARAMETER;
        match self {
            Self::Here | Self::AlsoElsewhere(_) => rule.pass("taken: `aud` is what was asked for"),
            Self::Elsewhere(_) => rule.note("ignored: see token-bound-to-resource"),
            Self::NotAsked(_) | Self::Named(_) => rule.note("not sent, as configured"),
            Self::Nowhere | Self::Opaque => rule.note("not refused; the token does not show for whom it is"),
        }
    }

    fn check(&self, resource: &str) -> Check {
        let rule = &rules::TOKEN_BOUND;
        match self {
            Self::Here => rule.pass("`aud` is this resource alone"),
            Self::AlsoElsewhere(aud) => rule.warn(
                format!("`aud` names this resource and others: {}", quoted_words(aud)),
                "issue one token for one resource: any of these servers could use it at the others",
            ),
            Self::Elsewhere(aud) => rule.fail(
                format!(
                    "the authorization server ignores `resource`: {} was asked for, and `aud` is {}",
                    quoted_words(resource),
                    if aud.is_empty() { "not there".to_owned() } else { quoted_words(aud) }
                ),
                "issue tokens whose `aud` is the `resource` that was asked for, or refuse with invalid_target (RFC 8707 section 2)",
            ),
            Self::NotAsked(aud) => rule.warn(
                format!("the configuration sends no `resource`; `aud` is {}", quoted_words(aud)),
                "send it where the server takes it: leave `resource = \"\"` out",
            ),
            Self::Named(aud) => rule.pass(format!("`aud` is {}, for what the configuration names", quoted_words(aud))),
            Self::Nowhere => rule.warn("the token names no audience (`aud`)", FOR_NOBODY),
            Self::Opaque => rule.warn(
                "the token is not a JWT: whether it is bound to this resource cannot be seen from here",
                "show it with `--other-resource URL`: a token for another resource must be refused by this server",
            ),
        }
    }
}

fn expiry(subject: &SubjectToken, now: i64) -> Check {
    let left = subject.claims.exp.unwrap_or(now).saturating_sub(now);
    if left > 0 {
        return rules::SUBJECT_EXPIRY.pass(format!("`exp` is {left} s ahead"));
    }
    rules::SUBJECT_EXPIRY.warn(
        format!("`exp` passed {} s ago by this machine's clock; the server may see it otherwise", -left),
        "whoever writes this token must renew it earlier; check this machine's clock",
    )
}

fn lifetime(granting: &TokenAnswer, claims: Option<&Claims>) -> Check {
    let rule = &rules::TOKEN_LIFETIME;
    let inherent = claims.and_then(Claims::life);
    let told = granting.issued.expires_in;
    let seconds = |life: Duration| format!("{} s", life.as_secs());
    match (told, inherent) {
        (None, None) => rule.warn(
            "neither `expires_in` nor a JWT says how long the token lives; 300 s are assumed",
            "add `expires_in` to the token answer",
        ),
        (None, Some(life)) => rule.warn(
            format!("no `expires_in`; the JWT says {}", seconds(life)),
            "add `expires_in` to the token answer: a client need not read the token",
        ),
        // Tolerate two seconds: lifetimes are rounded.
        (Some(told), Some(life)) if told > life + Duration::from_secs(2) => rule.warn(
            format!("`expires_in` says {}, the JWT itself {}", seconds(told), seconds(life)),
            "give the same life in both: clients go by `expires_in`",
        ),
        (Some(told), _) if told > LONG_LIFE => {
            rule.warn(format!("it lives for {}", seconds(told)), "issue short-lived tokens: minutes, at most hours")
        }
        (Some(told), _) => rule.pass(format!("it lives for {}", seconds(told))),
    }
}

fn judge_clocks(skews: &[(Party, i64)]) -> Check {
    let rule = &rules::CLOCKS;
    let Some((party, worst)) = skews.iter().max_by_key(|(_, skew)| skew.abs()).copied() else {
        return rule.skip("nobody sent a Date");
    };
    let spread = skews.iter().map(|(_, skew)| (skew - worst).abs()).max().unwrap_or(0);
    // If the servers differ, the one furthest from us is wrong; if they agree, we are wrong.
    let party = if spread > SKEW_NOTED { party } else { Party::Machine };
    let direction = if worst > 0 { "ahead of" } else { "behind" };
    let what = format!("the clock of a server is {} s {direction} ours", worst.abs());
    let cure = "set the clock by NTP: tokens seem expired, or not valid yet, to a party whose clock is wrong";
    match worst.abs() {
        0..=SKEW_NOTED => rule.pass(format!("at most {} s apart", worst.abs())),
        ..=SKEW_BORNE => rule.warn(what, cure).by(party),
        _ if party == Party::Machine => rule.fail(what, cure).of(Class::Config),
        _ => rule.fail(what, cure).by(party),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(skews: &[(Party, i64)]) -> (State, Party, Option<Class>) {
        let check = judge_clocks(skews);
        (check.state, check.party, check.class)
    }

    #[test]
    fn whoever_is_alone_with_its_time_has_to_set_its_clock() {
        use Party::{AuthorizationServer, Machine, McpServer};
        assert_eq!(judged(&[(McpServer, 3), (AuthorizationServer, -2)]).0, State::Pass);
        assert_eq!(judged(&[(McpServer, 100), (AuthorizationServer, 0)]), (State::Warn, McpServer, None));
        let alone = judged(&[(McpServer, 1), (AuthorizationServer, -4_000)]);
        assert_eq!(alone, (State::Fail, AuthorizationServer, Some(Class::Refused)));
        let both = judged(&[(McpServer, 3_600), (AuthorizationServer, 3_590)]);
        assert_eq!(both, (State::Fail, Machine, Some(Class::Config)));
        assert_eq!(judged(&[]).0, State::Skip);
    }

    #[test]
    fn a_token_for_somebody_else_is_a_failure_and_an_opaque_one_a_warning() {
        assert_eq!(Bound::Here.check("https://a.example/mcp").state, State::Pass);
        assert_eq!(Bound::Opaque.check("https://a.example/mcp").state, State::Warn);
        let elsewhere = Bound::Elsewhere("https://b.example/mcp".to_owned()).check("https://a.example/mcp");
        assert_eq!((elsewhere.state, elsewhere.party), (State::Fail, Party::AuthorizationServer));
        assert!(elsewhere.section.contains("RFC 8707 section 2"));
    }
}
