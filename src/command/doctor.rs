//! `safeconduct doctor`: finds what is wrong, who must fix it, and which specification says so.
//!
//! Without a target it examines this machine (`here`). With a target it examines a live MCP server and its authorization
//! server. It uses the broker in this process, never a daemon, to see every step; at last it tries the proxy of a daemon, if one
//! answers. The report goes to stdout even if a
//! check fails; the exit code tells who must fix it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::obtain::{Unconfigured, Wanted, settle};
use super::{Context, Failure, Printable, print};
use crate::assembly::{self, Core};
use crate::broker::{Check, Class, Examination, Persistence, Report, State, Target};
use crate::caller::Caller;
use crate::cli::{self, Level};
use crate::oauth::{Issuer, Resource, Scopes};
use crate::token::AccessToken;

mod helper;
mod here;
mod page;
mod proxy;

/// The longest token lifetime to wait for without `--wait-expiry`.
const SHORT_LIFE: Duration = Duration::from_secs(30);

pub(super) fn run(context: &Context<'_>, verb: &cli::Doctor) -> Result<(), Failure> {
    context.log(Level::Error)?;
    let (title, checks, sent) = match &verb.target {
        None => ("this side".to_owned(), here::checks(context), Vec::new()),
        Some(target) => there(context, verb, target)?,
    };
    let text = if verb.json {
        Printable::json(&format!("{:#}\n", as_data(&title, &checks, &sent)), context.env)
    } else {
        page::Page::new(context.env, verb.verbose).printable(&title, &checks, &sent, context.env)
    };
    print(&text)?;
    verdict(&checks)
}

/// How many requests went to each party.
type Requests = Vec<(&'static str, usize)>;

/// Examines one MCP server. Returns its URL, the checks, and what was sent for them.
fn there(context: &Context<'_>, verb: &cli::Doctor, target: &str) -> Result<(String, Vec<Check>, Requests), Failure> {
    let mut config = context.config()?;
    let wanted = Wanted::parse(target)?;
    let name = settle(context, &mut config, &wanted, Unconfigured::Discover)?
        .ok_or_else(|| Failure::bug("a server that was just added is not served"))?;
    if let Some(issuer) = &verb.issuer {
        let issuer = Issuer::parse(issuer).map_err(|why| Failure::asked(format!("--issuer cannot be used: {why}")))?;
        config.pin(&name, &issuer);
    }
    let url = config.servers.iter().find(|server| *server.name == *name).map(|server| server.url.to_string());
    let limit = verb.timeout + verb.wait_expiry.unwrap_or_default();
    let wishes = wishes(context, verb, limit)?;
    let deadline = wishes.deadline;
    let caller = Caller::own(context.env.uid(), context.env.gid());
    let (mut report, mut sent) = (Report::default(), Requests::new());
    context.block_on_telling(&|| "the servers have not answered every question, or the issued token has not expired yet (`--wait-expiry 0s` does without its end)".to_owned(), async {
        let (env, clock) = (context.env.clone(), context.clock());
        let core: Core = assembly::core_even_without_identity(config, env, clock, Persistence::OneShot(wishes.for_checks()))?;
        let target = Target::Name(name);
        let walked = core.broker.examine(&caller, &target, &wishes, &mut report).await;
        core.stop.cancel();
        sent.extend(core.broker.requests());
        Ok(walked?)
    })?;
    let url = url.unwrap_or_default();
    let mut checks = report.checks;
    checks.extend(proxy::check(context, &url, deadline));
    Ok((url, checks, sent))
}

fn wishes(context: &Context<'_>, verb: &cli::Doctor, limit: Duration) -> Result<Examination, Failure> {
    let scopes = match verb.scopes.as_slice() {
        [] => None,
        scopes => {
            let scopes = Scopes::from_list(scopes.iter().map(String::as_str));
            Some(scopes.map_err(|why| Failure::asked(format!("--scope cannot be used: {why}")))?)
        }
    };
    let other = verb.other_resource.as_deref().map(Resource::parse).transpose();
    let token = |flag, file: &Option<_>| file.as_deref().map(|file| token_in(context, flag, file)).transpose();
    Ok(Examination {
        scopes,
        wait_expiry: verb.wait_expiry.unwrap_or(SHORT_LIFE),
        limit,
        deadline: Instant::now() + limit,
        other_resource: other.map_err(|why| Failure::asked(format!("--other-resource cannot be used: {why}")))?,
        expired_token: token("--expired-token-file", &verb.expired_token_file)?,
        foreign_token: token("--wrong-audience-token-file", &verb.wrong_audience_token_file)?,
    })
}

/// Reads a token from the operator's file. It is never on the command line, which other users can read.
fn token_in(context: &Context<'_>, flag: &str, file: &Path) -> Result<AccessToken, Failure> {
    const CAP: u64 = 64 * 1024;
    let refuse = |what: String| Failure::asked(format!("{flag}: {what}")).hint("a file that holds one access token");
    let content = context.env.read(file, CAP).map_err(|error| refuse(format!("the file cannot be read: {error}")))?;
    let text = std::str::from_utf8(&content).map_err(|_| refuse("the file is not UTF-8".to_owned()))?;
    AccessToken::parse(text.trim().to_owned()).map_err(|why| refuse(why.to_string()))
}

fn count(checks: &[Check], state: State) -> usize {
    checks.iter().filter(|check| check.state == state).count()
}

fn as_data(title: &str, checks: &[Check], sent: &[(&'static str, usize)]) -> Value {
    let of = |state| count(checks, state);
    let mut requests = Map::new();
    requests.extend(sent.iter().map(|(to, count)| ((*to).to_owned(), json!(count))));
    json!({
        "target": title, "ok": of(State::Fail) == 0, "exit": exit(checks).map_or(0, Class::exit_code),
        "passed": of(State::Pass), "warnings": of(State::Warn), "failed": of(State::Fail), "not_tried": of(State::Skip),
        "notes": of(State::Note), "requests": requests,
        "checks": checks,
    })
}

fn verdict(checks: &[Check]) -> Result<(), Failure> {
    let Some(class) = exit(checks) else { return Ok(()) };
    let failed: Vec<&str> = checks.iter().filter(|check| check.state == State::Fail).map(|check| check.code).collect();
    Err(Failure::new(class, format!("not as it should be: {}", failed.join(", "))))
}

/// Of several failures, those on our own side come first: until they are solved, the others cannot be judged.
fn exit(checks: &[Check]) -> Option<Class> {
    const ORDER: [Class; 7] = [
        Class::Internal,
        Class::Config,
        Class::NoIdentity,
        Class::Denied,
        Class::Refused,
        Class::Temporary,
        Class::BadRequest,
    ];
    let has = |class: &Class| checks.iter().any(|check| check.state == State::Fail && check.class == Some(*class));
    ORDER.into_iter().find(has)
}
