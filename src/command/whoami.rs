//! `safeconduct whoami`: which workload identity is here, by what evidence, and what was not found or not used.

use std::time::Duration;

use serde_json::json;

use super::paper::{Paper, span};
use super::{Context, Failure, Printable, print};
use crate::broker::Class;
use crate::cli::{Level, Whoami};
use crate::identity::{self, Ambient, Choice, Chosen};
use crate::oauth::Audience;
use crate::outbound::Outbound;
use crate::token::{Digest, SubjectToken};
use report::{Seen, Sources, Steps};

mod report;

/// Asked for unless told otherwise. No server takes it.
const USUAL_AUDIENCE: &str = "safeconduct:whoami";

/// Longer than the patience of any source.
const LIMIT: Duration = Duration::from_secs(80);

pub(super) fn run(context: &Context<'_>, verb: &Whoami) -> Result<(), Failure> {
    context.log(Level::Error)?;
    let config = context.config()?;
    let (choice, servers) = (config.identity().clone(), report::servers(&config));
    let env = context.env.clone().with_secrets(config.secret_variables());
    let outbound = Outbound::until(config.egress, context.clock(), None);
    let ambient = Ambient { env, outbound, clock: context.clock() };
    let mut steps = Steps::new(&ambient.clock);
    let found = identity::survey(&ambient);
    let chosen = identity::choose(&choice, &ambient);
    steps.done("detect");
    let audience = Audience::from(verb.audience.as_deref().unwrap_or(USUAL_AUDIENCE));
    let waiting = || "the platform gives no identity token yet".to_owned();
    let (chosen, token, certificate) = context.block_on_telling(&waiting, async {
        let chosen = match chosen {
            Ok(chosen) if choice == Choice::Probe && chosen.is_of_the_host() => {
                let probed = identity::look_at_the_host(&ambient).await;
                steps.done("probe");
                probed
            }
            chosen => chosen,
        };
        let Ok(one) = &chosen else { return Ok((chosen, None, None)) };
        let (claims, certificate) = tokio::join!(token(one, &audience), certificate(one));
        steps.done("identity");
        Ok((chosen, Some(claims), certificate))
    })?;
    let (chosen, token) = match (chosen, token) {
        (Ok(chosen), Some(token)) => (Some(chosen), token),
        (Ok(_), None) => return Err(Failure::bug("an identity that was chosen was not asked")),
        (Err(error), _) => (None, Err(error)),
    };
    let seen = Seen {
        chosen: chosen.as_ref(),
        found: &found,
        token: token.as_ref().ok(),
        certificate,
        servers,
        steps: steps.into_json(),
    };
    let mut report = seen.report(ambient.clock.unix());
    let paper = Paper::new(context.env);
    let of_sources = if verb.all { Sources::Each } else { Sources::Present };
    let (class, error) = match token {
        Ok(token) => match ended(chosen.as_ref(), &token, ambient.clock.unix()) {
            None if verb.json => return print(&Printable::json(&format!("{report:#}\n"), context.env)),
            None => return print(&paper.printable(&report::text(&paper, &report, of_sources), context.env)),
            Some(error) => (Class::NoIdentity, error),
        },
        Err(error) if error.is_temporary() => (Class::Temporary, error),
        Err(error) => (Class::NoIdentity, error),
    };
    let hint = cure(&error, chosen.is_some() && verb.audience.is_none());
    let mut failure = Failure::new(class, format!("identity: {error}")).hint_maybe(hint.clone());
    if verb.json {
        report["error"] = described(class, &error, hint.as_deref());
        failure.json = Some(report.to_string().into());
    } else {
        // It goes to stderr with the message, as plain text.
        failure.seen = report::seen(&Paper { colours: false, ..paper }, &report, of_sources).into();
    }
    Err(failure)
}

fn described(class: Class, error: &identity::Error, hint: Option<&str>) -> serde_json::Value {
    json!({ "class": class.as_str(), "error": error.code(), "error_description": error.to_string(), "hint": hint })
}

/// The hint. `is_usual`: an identity was found and asked for the usual audience, which it may not be able to have.
fn cure(error: &identity::Error, is_usual: bool) -> Option<String> {
    let hint = error.hint().map(str::to_owned);
    if is_usual && matches!(error, identity::Error::Rejected { .. } | identity::Error::Misconfigured { .. }) {
        let asked = hint.unwrap_or_default();
        return Some(format!("{asked}; this asked for {USUAL_AUDIENCE:?}: name another with `whoami --audience A`"));
    }
    hint
}

/// An identity whose time is over is none.
fn ended(chosen: Option<&Chosen>, token: &SubjectToken, now: i64) -> Option<identity::Error> {
    let over = token.claims.life_from(now, identity::CLOCK_SKEW).err()?;
    Some(identity::Error::Malformed {
        source_name: chosen?.source.name(),
        what: format!("the identity token ended {} ago by this machine's clock", span(over.unsigned_abs())),
        hint: "have the platform renew it, and compare this machine's clock with another: a file in a `subPath` mount stays as it was \
            when the pod started, and a token that was fixed when a job started ends before a long job"
            .to_owned(),
    })
}

async fn token(chosen: &Chosen, audience: &Audience) -> Result<SubjectToken, identity::Error> {
    let asked = chosen.source.subject_token(audience);
    match tokio::time::timeout(LIMIT, asked).await {
        Ok(outcome) => outcome,
        Err(_) => Err(identity::Error::Unreachable {
            source_name: chosen.source.name(),
            what: format!("no answer within {} s", LIMIT.as_secs()),
            hint: None,
        }),
    }
}

/// The thumbprint of the certificate that the platform issues besides the JWT. `None` if it issues none.
async fn certificate(chosen: &Chosen) -> Option<Digest> {
    match tokio::time::timeout(LIMIT, chosen.source.certificate()).await {
        Ok(Ok(certificate)) => certificate.map(|certificate| certificate.thumbprint),
        Ok(Err(error)) => {
            tracing::warn!(%error, "no certificate for mutual TLS");
            None
        }
        Err(_) => None,
    }
}
