//! The handlers of the local API. Each takes one request and gives an answer or a failure; `route.rs` says which path leads
//! to which.

use std::collections::HashSet;

use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::{Answer, Failure, Outcome};
use super::desk::Listening;
use super::dialect;
use super::funnel::{Asked, Finished};
use super::operator::{Loaded, Unchanged};
use super::query::{Named, Query, Rejected, read, servers, target};
use crate::broker::{self, Action, AtOnce, Class, Lease, NotReady};
use crate::oauth::words;
use crate::token::Digest;

/// The parameters of `/v1/token`.
const TOKEN: &[&str] = &["server", "scope", "min_ttl", "fresh", "use", "unlisted"];

/// The parameters of `/v1/headers`.
pub(super) const HEADERS: &[&str] =
    &["server", "scope", "min_ttl", "fresh", "use", "unlisted", "method", "url", "body_sha256", "dpop_nonce"];

/// The most servers that one question about readiness may name. Each name is one line of the audit.
const MOST_NAMES: usize = 64;

/// `GET /v1/token`
pub(super) fn token(asked: Asked<'_>) -> Finished<'_> {
    let query = Query::read(asked.query(), TOKEN);
    let request = match query.and_then(|query| request(&asked, &query, Action::Token)) {
        Ok(request) => request,
        Err(failure) => return Finished::now(Err(failure), asked),
    };
    match asked.desk.broker.token_at_once(asked.caller, &request) {
        AtOnce::Decided(decided) => Finished::now(bare(&asked, decided), asked),
        AtOnce::Awaits(wanted) => Finished::later(asked.late(), async move {
            let decided = asked.desk.broker.awaited_token(asked.caller, &request, wanted).await;
            (bare(&asked, decided), asked)
        }),
    }
}

fn bare(asked: &Asked<'_>, decided: Result<Lease, broker::Error>) -> Outcome {
    let lease = decided?;
    let around = dialect::token_json(&lease.token, &asked.desk.fixed.clock);
    Ok(Answer::token(&lease.token, around))
}

/// `GET /v1/headers`
pub(super) async fn headers(asked: &Asked<'_>) -> Outcome {
    let query = Query::read(asked.query(), HEADERS)?;
    let request = request(asked, &query, Action::Headers)?;
    let head = query.head().map_err(|failure| failure.about(&request))?;
    let (lease, authorized) = asked.desk.broker.headers(asked.caller, &request, head.as_ref()).await?;
    // The usual answer goes from the cache to the connection without another text.
    if lease.outer.is_none() && lease.token.credential.bare().is_ok() {
        let around = dialect::listed_bearer(&lease.token.expires_at(asked.desk.fixed.clock.now()));
        return Ok(Answer::token(&lease.token, around.into()));
    }
    Ok(Answer::secret(dialect::listed_fields(&authorized.fields, &authorized.expires_at)))
}

/// What is asked for, refused here if only a configured server will do and this is none.
fn request(asked: &Asked<'_>, query: &Query<'_>, action: Action) -> Result<broker::Request, Failure> {
    let request = query.request(action)?;
    if query.configured_only().map_err(|failure| failure.about(&request))? {
        let found = asked.desk.broker.configured(asked.caller, &request.target);
        found.map_err(|error| Failure::from(error).about(&request))?;
    }
    Ok(request)
}

/// `POST /v1/reject`
pub(super) async fn reject(asked: &Asked<'_>, body: Incoming) -> Outcome {
    may_use_any(asked)?;
    let wire: Rejected = read(body).await?;
    let digest = Digest::parse(&wire.access_token_sha256)
        .ok_or_else(|| Failure::asked("access_token_sha256 is no SHA-256 in hexadecimal or base64url"))?;
    asked.desk.broker.reject(asked.caller, &target(&wire.server)?, &digest)?;
    Ok(Answer::empty())
}

/// `POST /v1/revoke`
pub(super) async fn revoke(asked: &Asked<'_>, body: Incoming) -> Outcome {
    may_use_any(asked)?;
    let wire: Named = read(body).await?;
    let revoked = asked.desk.broker.revoke(asked.caller, asked.desk.fixed.uid, &target(&wire.server)?).await?;
    Ok(Answer::json(json!({ "revoked": revoked }).to_string().as_bytes()))
}

/// `POST /v1/stop`
pub(super) fn stop(asked: &Asked<'_>) -> Outcome {
    may_operate(asked)?;
    asked.desk.broker.note_operation(Action::Stop, asked.caller);
    let stopping = asked.desk.fixed.operator.stop();
    stopping.ok_or_else(|| Failure::asked("this endpoint ends with the command that it was started for"))?;
    Ok(Answer::json(
        json!({ "stopping": true, "pid": std::process::id(), "linger": asked.desk.fixed.linger.as_secs() })
            .to_string()
            .as_bytes(),
    ))
}

/// `POST /v1/reload`
pub(super) async fn reload(asked: &Asked<'_>) -> Outcome {
    may_operate(asked)?;
    asked.desk.broker.note_operation(Action::Reload, asked.caller);
    match asked.desk.fixed.operator.reload().await {
        Some(Ok(Loaded { servers, needs_restart })) => {
            Ok(Answer::json(json!({ "servers": servers, "needs_restart": needs_restart }).to_string().as_bytes()))
        }
        Some(Err(Unchanged { class, words, hint })) => {
            Err(Failure::new(class, "configuration_unchanged", format!("{words} (the old configuration stays in use)"))
                .hint(hint))
        }
        None => Err(Failure::asked("this daemon reads no configuration file")),
    }
}

/// What `/v1/status` shows: the broker's part and the listeners.
#[derive(Serialize)]
struct Status<'a> {
    #[serde(flatten)]
    status: broker::Status,
    listen: &'a Listening,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<Value>,
}

/// `GET /v1/status`
pub(super) fn status(asked: &Asked<'_>) -> Outcome {
    may_look(asked)?;
    let fixed = asked.desk.fixed;
    let status = asked.desk.broker.explain(asked.caller, fixed.uid);
    let configuration = asked.caller.may_operate(fixed.uid).then(|| fixed.loads.explain());
    let status = Status { status, listen: &fixed.listening, configuration };
    let document = serde_json::to_string(&status).map_err(|_| Failure::bug())?;
    Ok(Answer::json(words::json(&document).as_bytes()))
}

/// `GET /readyz`
pub(super) fn ready(asked: &Asked<'_>) -> Outcome {
    let mut names = servers(asked.query())?;
    let mut named = HashSet::new();
    names.retain(|name| named.insert(name.clone()));
    if names.len() > MOST_NAMES {
        return Err(Failure::asked(&format!("more than {MOST_NAMES} servers are named")));
    }
    let (broker, uid) = (&asked.desk.broker, asked.desk.fixed.uid);
    broker.keep_named(asked.caller, uid, &names)?;
    let missing = broker.not_ready(asked.caller, uid, &names);
    // What needs somebody's help comes first: waiting for the rest does not help then.
    let first = missing.iter().find(|one| one.class != Class::Temporary).or_else(|| missing.first());
    Ok(readiness(missing.iter().map(|one| &*one.why), first))
}

/// `GET /metrics`
pub(super) fn metrics(asked: &Asked<'_>) -> Outcome {
    may_look(asked)?;
    let (broker, uid) = (&asked.desk.broker, asked.desk.fixed.uid);
    let is_named = |server: &str| broker.may_know_of(asked.caller, uid, server);
    let (lives, last) = (broker.lives(asked.caller, uid), asked.desk.fixed.loads.last());
    let text = asked.desk.fixed.metrics.text_of(is_named, &lives, last);
    Ok(Answer::metrics(&text.map_err(|_| Failure::bug())?))
}

/// `GET /readyz` where nobody says who they are: counts and classes, and no name.
pub(super) fn ready_counts(asked: &Asked<'_>) -> Outcome {
    Ok(readiness(asked.desk.broker.not_ready_counts().iter().map(String::as_str), None))
}

fn readiness<'a>(reasons: impl Iterator<Item = &'a str>, first: Option<&NotReady>) -> Answer {
    let shown: Vec<_> = reasons.map(words::one_line).collect();
    let is_ready = shown.is_empty();
    let mut document = json!({ "ready": is_ready, "reasons": shown });
    if let Some(first) = first {
        document["class"] = json!(first.class.as_str());
        document["hint"] = json!(first.hint.as_deref().map(words::one_line));
    }
    let document = document.to_string();
    if is_ready { Answer::json(document.as_bytes()) } else { Answer::unready(document.as_bytes()) }
}

/// `GET /metrics` where nobody says who they are: no label names a server.
pub(super) fn nameless_metrics(asked: &Asked<'_>) -> Outcome {
    let text = asked.desk.fixed.metrics.nameless_text(asked.desk.fixed.loads.last());
    let text = text.map_err(|_| Failure::bug())?;
    Ok(Answer::metrics(&text))
}

/// A caller that no rule names is refused before its body is read.
fn may_use_any(asked: &Asked<'_>) -> Result<(), Failure> {
    let foreign = asked.desk.broker.foreign(asked.caller, asked.desk.fixed.uid);
    foreign.map_or(Ok(()), |denied| Err(Failure::denied(denied.to_string()).hint(Some(denied.hint()))))
}

fn may_operate(asked: &Asked<'_>) -> Result<(), Failure> {
    if asked.caller.may_operate(asked.desk.fixed.uid) {
        return Ok(());
    }
    Err(Failure::denied("only the daemon's own user and root may do this, at its Unix socket".to_owned()))
}

fn may_look(asked: &Asked<'_>) -> Result<(), Failure> {
    if asked.desk.broker.may_look(asked.caller, asked.desk.fixed.uid)? {
        return Ok(());
    }
    let failure = Failure::denied(format!("{} is not allowed to use any server here", asked.caller));
    let uid = asked.caller.uid;
    let cure = format!("the daemon's operator lets it in with `allow = [{{ uid = {uid} }}]` at a server");
    Err(failure.hint(asked.caller.is_known().then_some(cure)))
}
