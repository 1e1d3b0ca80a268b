//! `safeconduct ready`: exits with 0 if the required (or named) tokens are available. For exec and startup probes and CI.

use std::time::Duration;

use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::obtain::{Refused, Wanted};
use super::{Context, Failure, Printable, print};
use crate::broker::Class;
use crate::cli::Ready;
use crate::door::{self, NOTICE};

pub(super) const LIMIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) fn run(context: &Context<'_>, verb: &Ready) -> Result<(), Failure> {
    let mut query = Serializer::new(String::new());
    for target in &verb.targets {
        let wanted = Wanted::parse(target)?;
        let name = wanted.name.ok_or_else(|| {
            Failure::asked("readiness is asked for by name")
                .hint("as configured, or as in NAME=URL of `safeconduct run`")
        })?;
        query.append_pair("server", &name);
    }
    let request = format!("GET /readyz?{}", query.finish());
    let mut ask = || Ok(context.ask_daemon(&request, None, LIMIT));
    let notice = if verb.json { Duration::MAX } else { NOTICE };
    match wait(context, &mut ask, Patience { limit: verb.wait, notice })? {
        None => print(&Printable::own(if verb.json { "{\"ready\":true}\n" } else { "ready\n" })),
        Some(missing) => {
            let json = serde_json::json!({
                "ready": false, "class": missing.class().as_str(), "reasons": missing.reasons, "hint": missing.hint
            });
            let mut failure = missing.into_failure("wait with `--wait 30s`; `safeconduct status` shows more");
            failure.json = verb.json.then(|| json.to_string().into());
            Err(failure)
        }
    }
}

/// How long to wait, and when to say for what.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub(super) limit: Duration,
    pub(super) notice: Duration,
}

impl Patience {
    pub(super) fn of(limit: Duration) -> Self {
        Self { limit, notice: NOTICE }
    }
}

/// Why the tokens are not there: what `/readyz` answers.
#[derive(Deserialize)]
pub(super) struct Missing {
    #[serde(default)]
    pub(super) reasons: Vec<String>,
    #[serde(default)]
    class: String,
    #[serde(default)]
    hint: Option<String>,
}

impl Missing {
    /// `Temporary` as long as waiting may help.
    pub(super) fn class(&self) -> Class {
        Class::parse(&self.class).unwrap_or(Class::Temporary)
    }

    /// `hint` is for what has no cure of its own.
    pub(super) fn into_failure(self, hint: &str) -> Failure {
        let message = format!("not ready: {}", self.reasons.join("; "));
        Failure::new(self.class(), message).hint(self.hint.as_deref().unwrap_or(hint))
    }

    /// `also` is said beside the cure.
    pub(super) fn into_failure_of(self, also: &str) -> Failure {
        let hint = self.hint.as_ref().map_or_else(|| also.to_owned(), |hint| format!("{hint}; {also}"));
        Failure { hint: Some(hint), ..self.into_failure("") }
    }
}

/// An answer of the daemon. Fails if there is no use in asking again.
type Asked = Result<Result<door::Reply, door::Error>, Failure>;

/// Asks until the tokens are there, until one of them cannot be had without help, or until the time is over.
pub(super) fn wait(
    context: &Context<'_>,
    ask: &mut dyn FnMut() -> Asked,
    patience: Patience,
) -> Result<Option<Missing>, Failure> {
    let clock = context.clock();
    let started = clock.boot();
    let mut is_told = false;
    loop {
        let missing = match ask()? {
            Ok(reply) if reply.status == 200 => return Ok(None),
            Ok(reply) if reply.status == 503 => {
                serde_json::from_slice(&reply.body).map_err(|_| super::obtain::strange())?
            }
            Ok(reply) => {
                return Err(Refused::read(&reply).map_or_else(super::obtain::strange, Refused::into_failure));
            }
            // The daemon may be about to start, or to be replaced.
            Err(error @ (door::Error::Absent { .. } | door::Error::Broken { .. })) => Missing {
                reasons: vec![error.to_string()],
                class: Class::Temporary.as_str().to_owned(),
                hint: Some(
                    "start it with `safeconduct run`, check its socket's name, or wait with `--wait 30s`".into(),
                ),
            },
            Err(error) => return Err(error.into()),
        };
        let waited = clock.boot().since(started);
        if missing.class() != Class::Temporary || waited + LOOK_AGAIN > patience.limit {
            return Ok(Some(missing));
        }
        if !is_told && waited > patience.notice {
            is_told = true;
            context.tell_waiting(&missing.reasons.join("; "));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
