//! `safeconduct ready`: exits with 0 if the required (or named) tokens are available. For exec and startup probes and CI.

use std::time::Duration;

use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::obtain::{Refused, Wanted};
use super::{Context, Failure, Printable, print};
use crate::broker::Class;
use crate::cli::Ready;
use crate::door;

const LIMIT: Duration = Duration::from_secs(5);
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
    let clock = context.clock();
    let started = clock.boot();
    loop {
        let mut hint = "wait with `--wait 30s`; `safeconduct status` shows more";
        let reasons = match context.ask_daemon(&request, None, LIMIT) {
            Ok(reply) if reply.status == 200 => {
                return print(&Printable::own(if verb.json { "{\"ready\":true}\n" } else { "ready\n" }));
            }
            Ok(reply) if reply.status == 503 => reasons(&reply),
            Ok(reply) => {
                return Err(Refused::read(&reply).map_or_else(
                    || Failure::new(Class::Config, "the daemon does not answer like safeconduct"),
                    Refused::into_failure,
                ));
            }
            // The daemon may be about to start, or to be replaced.
            Err(error @ (door::Error::Absent { .. } | door::Error::Broken { .. })) => {
                hint = "start it with `safeconduct run`, name its socket with `--socket`, or wait with `--wait 30s`";
                vec![error.to_string()]
            }
            Err(error) => return Err(error.into()),
        };
        if clock.boot().since(started) + LOOK_AGAIN > verb.wait {
            let message = format!("not ready: {}", reasons.join("; "));
            let mut failure = Failure::new(Class::Temporary, message).hint(hint);
            if verb.json {
                failure.json = Some(serde_json::json!({ "ready": false, "reasons": reasons }).to_string());
            }
            return Err(failure);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn reasons(reply: &door::Reply) -> Vec<String> {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let reasons = body["reasons"].as_array().cloned().unwrap_or_default();
    reasons.iter().filter_map(|reason| reason.as_str().map(str::to_owned)).collect()
}
