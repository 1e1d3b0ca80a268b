//! Certifies workload identity federation: what the authorization server demands of an identity token, measured with the tokens
//! that the platform really gives.
//!
//! Each row says what was seen, or as a note why it could not be seen. Beside the one token request these are sent, each at most
//! once: after a refusal of the identity, one with the other form of audience, if both forms name the same party; after a refusal
//! of the target, one without `resource`; after a grant, the same identity token again. What they bring is shown to nobody, and
//! is revoked like the token that was asked for. Of a chain of identities only what the last link minted is described.

use std::sync::Arc;
use std::time::Duration;

use super::super::flight::Sent;
use super::super::{Error, Order, ResourceParameter, TokenRequest};
use super::attempt::LATE;
use super::{Check, ExaminationRun, Party, Rule, rules};
use crate::exchange::{AssertionAudience, ClientAuth, Demand};
use crate::oauth::{Issuer, quoted_words};
use crate::token::SubjectToken;

/// An access token that lives longer than this after the end of the identity token gets a warning.
const OUTLIVES: i64 = 3_600;
const CHAIN: &str = "a chain of identities leads there";

/// How the one token request ended.
#[derive(Default)]
pub(super) enum Outcome {
    #[default]
    NotAsked,
    /// With the time when the refusal arrived, in seconds since 1970.
    Refused(TokenRequest, Error, i64),
    Granted(Box<Grant>),
}

/// What was granted, as far as the rows depend on it.
pub(super) struct Grant {
    pub(super) want: TokenRequest,
    pub(super) sent: Arc<Sent>,
    /// How long the access token lives, if the answer or the token says so.
    pub(super) life: Option<Duration>,
    /// Whether its audience shows that `resource` was taken.
    pub(super) resource: Check,
}

/// How a further request ended.
enum Probe {
    Taken,
    Refused(Error),
    NotTried(String),
}

impl ExaminationRun<'_> {
    /// Adds the rows about the identity token.
    pub(super) async fn federation(&mut self, subject: Option<&SubjectToken>) {
        self.report.waits_for("the token endpoint");
        let outcome = std::mem::take(&mut self.outcome);
        let is_provider = !self.server.order.is_discovered();
        match (outcome, subject) {
            (_, None) => self.unmeasured("no identity token was presented"),
            (_, Some(subject)) if !subject.is_jwt() => {
                self.unmeasured("what was presented is a signed request of AWS, and no JWT");
            }
            _ if is_provider => self.unmeasured("a provider's own hosts are not tried out"),
            (Outcome::NotAsked, _) => self.unmeasured("no token was issued, and none was refused"),
            (Outcome::Refused(want, ..), _) if self.is_through_chain(&want) => self.unmeasured(CHAIN),
            (Outcome::Refused(want, error, unix), Some(subject)) => {
                self.after_refusal(want, (&error, unix), subject).await;
            }
            (Outcome::Granted(grant), _) => self.after_grant(*grant).await,
        }
    }

    /// Is the token that the authorization server gets another than the platform's?
    fn is_through_chain(&self, want: &TokenRequest) -> bool {
        self.maker.chain(&want.order).is_ok_and(|chain| !chain.is_empty())
    }

    /// A note in place of each row.
    pub(super) fn unmeasured(&mut self, why: &str) {
        rules::FEDERATION_ROWS.iter().for_each(|rule| self.report.push(rule.note(why)));
    }

    async fn after_grant(&mut self, grant: Grant) {
        let Grant { want, sent, life, resource } = grant;
        let Some(subject) = sent.subject.as_ref() else { return self.unmeasured("no identity token was presented") };
        let (at, audience) = (sent.unix, audience_of(subject));
        let check = if audience == sent.issuer().as_str() {
            rules::ASSERTION_AUDIENCE.pass("takes its issuer identifier as `aud`")
        } else {
            let issuer = self.with_audience(&want, sent.issuer(), AssertionAudience::Issuer, &audience).await;
            let shown = quoted_words(&audience);
            match issuer {
                Probe::Taken => rules::ASSERTION_AUDIENCE.pass(format!(
                    "takes {shown} as `aud`, and its issuer identifier too: `subject_audience` is not needed"
                )),
                Probe::Refused(_) => rules::ASSERTION_AUDIENCE.warn(
                    format!("takes {shown} as `aud`, and not its issuer identifier"),
                    "accept the issuer identifier, which every client knows; until then `subject_audience` is needed",
                ),
                Probe::NotTried(why) => rules::ASSERTION_AUDIENCE
                    .note(format!("takes {shown} as `aud`; its issuer identifier was not tried: {why}")),
            }
        };
        self.report.push(check);
        let now = self.maker.clock.unix();
        let again = if subject.claims.exp.is_some_and(|exp| exp <= now) {
            Probe::NotTried("it was over before it could be sent again".to_owned())
        } else {
            self.again(&want, &sent).await
        };
        let oldest = if matches!(again, Probe::Taken) { now } else { at };
        let lives = subject
            .claims
            .life()
            .map_or_else(String::new, |life| format!(", of the {} s that it lives", life.as_secs()));
        self.report.push(match subject.age(oldest) {
            Some(age) => {
                rules::ASSERTION_AGE.pass(format!("taken at an age of {age} s{lives}; an older one was not sent"))
            }
            None => rules::ASSERTION_AGE.note("the identity token has no `iat`, so its age is not known"),
        });
        let is_fresh = !self.maker.keeps_identity(&want.order);
        if matches!(again, Probe::Refused(_)) && !is_fresh {
            self.report.proof_is_spent(&want.order, sent.issuer());
        }
        self.report.push(once(again, is_fresh, subject.age(now)));
        self.report.push(rules::ASSERTION_TYP.pass(format!("taken with {}", typ_of(subject))));
        self.report.push(resource);
        self.report.push(outlives(life, subject.claims.exp.map(|exp| exp.saturating_sub(at))));
    }

    async fn after_refusal(&mut self, want: TokenRequest, (error, unix): (&Error, i64), subject: &SubjectToken) {
        let (code, demand) = (error.code().to_owned(), error.demand());
        let about = |rule: &Rule, seen: &str, of: Demand| match demand {
            Some(found) if found == of => {
                rule.fail(format!("refused ({code}): {seen}"), error.hint().unwrap_or_default())
            }
            _ => rule.note(format!("refused ({code}): {seen}, which is not seen to be the cause")),
        };
        let audience = audience_of(subject);
        let is_about_it = demand == Some(Demand::Audience)
            || (demand.is_none()
                && (code == "invalid_grant"
                    // A wrong secret is no matter of the identity token.
                    || (code == "invalid_client" && want.order.client.auth == ClientAuth::Workload)));
        let check = if is_about_it {
            let known = subject.claims.aud.first().map(String::as_str);
            let issuer = self.issuer_asked.clone();
            let other = match &issuer {
                Some(issuer) if known == Some(issuer.as_str()) => AssertionAudience::TokenEndpoint,
                _ => AssertionAudience::Issuer,
            };
            match &issuer {
                Some(issuer) => {
                    let probe = self.with_audience(&want, issuer, other.clone(), &audience).await;
                    refused_audience(probe, &audience, &other)
                }
                None => rules::ASSERTION_AUDIENCE.note("the authorization server is not known"),
            }
        } else {
            about(&rules::ASSERTION_AUDIENCE, &format!("`aud` is {}", quoted_words(&audience)), Demand::Audience)
        };
        self.report.push(check);
        let age = subject.age(unix);
        let age = age.map_or_else(|| "its age is not known".to_owned(), |age| format!("at an age of {age} s"));
        self.report.push(about(&rules::ASSERTION_AGE, &age, Demand::Age).by(Party::Workload));
        self.report.push(about(&rules::ASSERTION_ONCE, "sent once", Demand::Once).by(Party::Workload));
        self.report.push(about(&rules::ASSERTION_TYP, &format!("with {}", typ_of(subject)), Demand::Typ));
        let is_target = code == "invalid_target" || demand == Some(Demand::Resource);
        let check = if is_target && want.order.resource != ResourceParameter::Omitted {
            self.without_resource(&want, &code).await
        } else {
            rules::RESOURCE_PARAMETER.note(format!("refused ({code}), which does not speak of `resource`"))
        };
        self.report.push(check);
        self.report.push(rules::TOKEN_OUTLIVES.note("no token was issued"));
    }

    /// The same request with the other form of audience, made for the same party.
    async fn with_audience(
        &mut self,
        want: &TokenRequest,
        issuer: &Issuer,
        form: AssertionAudience,
        had: &str,
    ) -> Probe {
        let identity = match self.maker.identity(&want.order) {
            Ok(identity) => identity,
            Err(error) => return Probe::NotTried(error.to_string()),
        };
        if self.is_through_chain(want) {
            return Probe::NotTried(CHAIN.to_owned());
        }
        if !identity.source.mints_anew() && !identity.source.repeats() {
            return Probe::NotTried("the platform made this one token, for one audience".to_owned());
        }
        let origins = self.maker.origins(self.server, issuer);
        let endpoint = match self.maker.metadata(issuer, want.order.token_endpoint(), &origins).await {
            Ok(server) => server.token_endpoint.clone(),
            Err(error) => return Probe::NotTried(error.to_string()),
        };
        let origin = |url: &str| url::Url::parse(url).ok().map(|url| url.origin());
        if want.order.pin.is_none() && origin(&endpoint) != origin(issuer.as_str()) {
            return Probe::NotTried("the token endpoint is elsewhere; pin `issuer` if you trust it".to_owned());
        }
        if form == AssertionAudience::TokenEndpoint && *endpoint == *had {
            return Probe::NotTried("both forms are the same".to_owned());
        }
        let mut order = Order { subject_audience: Some(form), ..(*want.order).clone() };
        order.pin_to(issuer);
        self.probe(&TokenRequest { order: Arc::new(order), ..want.clone() }).await
    }

    /// The same request without `resource`.
    async fn without_resource(&mut self, want: &TokenRequest, code: &str) -> Check {
        let order = Order { resource: ResourceParameter::Omitted, ..(*want.order).clone() };
        let rule = &rules::RESOURCE_PARAMETER;
        match self.probe(&TokenRequest { order: Arc::new(order), ..want.clone() }).await {
            Probe::Taken => rule.fail(
                format!("refused ({code}); without `resource` a token is issued"),
                "take the resource of the MCP server (RFC 8707); until then `resource = \"\"`, and name the target by `scopes` or `audience`",
            ),
            Probe::Refused(error) => {
                rule.note(format!("refused ({code}), and without `resource` too ({})", error.code()))
            }
            Probe::NotTried(why) => rule.note(format!("refused ({code}); it was not tried without `resource`: {why}")),
        }
    }

    async fn probe(&mut self, want: &TokenRequest) -> Probe {
        if self.is_late() {
            return Probe::NotTried(LATE.to_owned());
        }
        judged(self.issue(want).await.map(|_| ()))
    }

    /// The same identity token in the same request.
    async fn again(&mut self, want: &TokenRequest, sent: &Sent) -> Probe {
        if self.is_late() {
            return Probe::NotTried(LATE.to_owned());
        }
        let issued = self.maker.again(want, sent).await;
        judged(issued.map(|issued| self.report.keep(want, sent.issuer(), issued.token())))
    }
}

fn judged(outcome: Result<(), Error>) -> Probe {
    match outcome {
        Ok(()) => Probe::Taken,
        Err(error) if error.said_no() => Probe::Refused(error),
        Err(error) => Probe::NotTried(error.to_string()),
    }
}

fn audience_of(subject: &SubjectToken) -> String {
    subject.claims.aud.join(", ")
}

fn typ_of(subject: &SubjectToken) -> String {
    subject.typ().map_or_else(|| "no `typ`".to_owned(), |typ| format!("`typ` {:?}", quoted_words(&typ)))
}

fn refused_audience(probe: Probe, had: &str, other: &AssertionAudience) -> Check {
    let rule = &rules::ASSERTION_AUDIENCE;
    let is_endpoint = *other == AssertionAudience::TokenEndpoint;
    let other = if is_endpoint { "its token endpoint" } else { "its issuer identifier" };
    let had = quoted_words(had);
    match probe {
        Probe::Taken if is_endpoint => rule.fail(
            format!("refused with its issuer identifier ({had}) as `aud`, taken with {other}"),
            "accept the issuer identifier; until then `subject_audience = \"token_endpoint\"`, with `issuer`",
        ),
        Probe::Taken => rule
            .fail(format!("refused with `aud` {had}, taken with {other}"), "leave `subject_audience` out")
            .by(Party::Workload),
        Probe::Refused(error) => rule
            .note(format!("refused with `aud` {had}, and with {other} too ({}): it is not this alone", error.code())),
        Probe::NotTried(why) => rule.note(format!("refused with `aud` {had}; {other} was not tried: {why}")),
    }
}

/// The row about a second presentation. `is_fresh`: each request has a new token.
fn once(again: Probe, is_fresh: bool, age: Option<i64>) -> Check {
    let rule = &rules::ASSERTION_ONCE;
    let age = age.map_or_else(String::new, |age| format!(", at an age of {age} s"));
    match (again, is_fresh) {
        (Probe::Taken, true) => rule.warn(
            format!("the same identity token is taken twice (again{age})"),
            "remember each `jti` until its `exp`: then an identity token that was seen once is worth nothing",
        ),
        (Probe::Taken, false) => {
            rule.pass(format!("taken twice (again{age}), which is needed: the platform gives the same one for a while"))
        }
        (Probe::Refused(error), true) => rule.pass(format!("taken once: again it is refused ({})", error.code())),
        (Probe::Refused(error), false) => rule
            .warn(
                format!("taken once: again it is refused ({}), and the platform gives the same one for a while", error.code()),
                "use a source that mints anew, or have the server's operator allow reuse: there is one access token for each identity token",
            )
            .by(Party::Workload),
        (Probe::NotTried(why), _) => rule.note(format!("not seen: {why}")),
    }
}

/// The row about the life of the access token beside what was left of the identity token.
fn outlives(life: Option<Duration>, left: Option<i64>) -> Check {
    let rule = &rules::TOKEN_OUTLIVES;
    let (Some(life), Some(left)) = (life, left) else { return rule.note("one of the two lives is not known") };
    let life = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
    let what = format!("the access token lives {life} s, and the identity token had {left} s left");
    if life.saturating_sub(left) <= OUTLIVES {
        return rule.pass(what);
    }
    rule.warn(
        what,
        "end the access token about when the identity token ends: who has lost its identity keeps access until then",
    )
}
