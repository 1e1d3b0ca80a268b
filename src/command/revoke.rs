//! `safeconduct revoke`: revokes the daemon's tokens. This process keeps none between two runs.

use std::time::Duration;

use serde_json::json;

use super::obtain::{Refused, Wanted};
use super::{Context, Failure, Printable, print};
use crate::broker::Class;
use crate::cli::Revoke;

const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn run(context: &Context<'_>, verb: &Revoke) -> Result<(), Failure> {
    let servers = match &verb.target {
        Some(target) => {
            let wanted = Wanted::parse(target)?;
            vec![wanted.url.map(|url| url.as_str().to_owned()).or(wanted.name).unwrap_or_default()]
        }
        None => names(context)?,
    };
    let (mut lines, mut failed) = (String::new(), None);
    for server in servers {
        let reply = context.ask_daemon("POST /v1/revoke", Some(&json!({ "server": server }).to_string()), LIMIT)?;
        if reply.status == 200 {
            let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            lines.push_str(&format!("{server}: {} revoked\n", body["revoked"].as_u64().unwrap_or(0)));
            continue;
        }
        // Revoke the other servers' tokens even if one fails.
        failed.get_or_insert_with(|| {
            Refused::read(&reply).map_or_else(
                || Failure::new(Class::Config, "the daemon does not answer like safeconduct"),
                Refused::into_failure,
            )
        });
    }
    print(&Printable::text(&lines, context.env))?;
    failed.map_or(Ok(()), Err)
}

fn names(context: &Context<'_>) -> Result<Vec<String>, Failure> {
    let status = super::status::fetch(context)?;
    let servers = status["servers"].as_array().cloned().unwrap_or_default();
    // The token of a front door is revoked with the server behind it.
    let all = servers.iter().filter(|server| server["front_door_of"].is_null());
    let holding = all.filter(|server| server["tokens"].as_array().is_some_and(|tokens| !tokens.is_empty()));
    Ok(holding.filter_map(|server| server["name"].as_str().map(str::to_owned)).collect())
}
