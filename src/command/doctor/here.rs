//! Checks of this machine, without network: the daemon and its view of us, the helper as clients start it, and the system.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use serde_json::Value;

use super::helper::{self, Heard};
use crate::assembly;
use crate::broker::{Check, Class, Party, Persistence, Rule};
use crate::caller::Caller;
use crate::command::{Context, Failure, status};
use crate::config::Config;
use crate::door::{self, Place};
use crate::env::Env;
use crate::oauth::{quoted_words, shell_word};

const LIMIT: Duration = Duration::from_secs(3);
/// A time before this version existed. An earlier clock is wrong.
const BEFORE_US: i64 = 1_767_225_600;
/// A low limit of file descriptors: each caller needs two.
const FEW_DESCRIPTORS: u64 = 1_024;

const DAEMON: &str = "daemon";
const HELPERS: &str = "helpers";
const MACHINE: &str = "machine";
const SETTINGS: &str = "settings";

const CONFIGURATION: Rule = Rule::new(SETTINGS, "configuration", Party::Workload, "`safeconduct config schema`");
const IDENTITY: Rule = Rule::new(SETTINGS, "identity", Party::Workload, "`safeconduct whoami`");
const SOCKET: Rule = Rule::new(DAEMON, "socket", Party::Machine, "`safeconduct run --help`");
const OWNER: Rule = Rule::new(DAEMON, "daemon-owner", Party::Machine, "");
const STATUS: Rule = Rule::new(DAEMON, "daemon-lets-us-in", Party::Machine, "`allow` in `safeconduct config schema`");
const SERVERS: Rule = Rule::new(DAEMON, "daemon-servers", Party::Machine, "`safeconduct status`");
const RELOAD: Rule = Rule::new(DAEMON, "daemon-configuration", Party::Machine, "`safeconduct reload`");
const CODEX: Rule = Rule::new(HELPERS, "helper-under-codex", Party::Workload, "Codex: http_headers_helper");
const CLAUDE_CODE: Rule = Rule::new(HELPERS, "helper-under-claude-code", Party::Workload, "Claude Code: headersHelper");
const PROXY: Rule = Rule::new(HELPERS, "loopback-proxy", Party::Machine, "");
const CLOCK: Rule = Rule::new(MACHINE, "clock", Party::Machine, "RFC 7519 section 4.1.4");
const DESCRIPTORS: Rule = Rule::new(MACHINE, "descriptor-limit", Party::Machine, "getrlimit(2): RLIMIT_NOFILE");
const CORE_DUMPS: Rule = Rule::new(MACHINE, "core-dumps-off", Party::Machine, "getrlimit(2): RLIMIT_CORE");

pub(super) fn checks(context: &Context<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    let places = door::places(context.global.socket.as_ref(), context.env);
    let (found, socket) = look(&places, context.env);
    checks.push(socket);
    let status = found.map(|place| daemon(context, place, &mut checks));
    let config = configuration(context, &mut checks);
    checks.push(identity(context, config, status.as_ref()));
    checks.extend(helpers(found, context.env));
    checks.push(proxy(context.env));
    checks.push(clock(context.clock().unix()));
    checks.push(descriptors());
    checks.push(core_dumps());
    checks
}

/// Checks the default paths in order. Returns the first where a daemon answers.
fn look<'a>(places: &'a [Place], env: &Env) -> (Option<&'a Place>, Check) {
    let (mut seen, mut trouble) = (Vec::new(), None);
    for place in places {
        let how = if place.named { ", named by --socket or SAFECONDUCT_SOCKET" } else { ", a compiled-in place" };
        match door::ask(std::slice::from_ref(place), "GET /healthz", None, env.uid(), LIMIT) {
            Ok(reply) if reply.status == 200 => {
                let before = if seen.is_empty() { String::new() } else { format!("; before it: {}", seen.join("; ")) };
                let what = format!("a daemon answers at {}{how}{before}", place.path.display());
                return (Some(place), SOCKET.pass(what));
            }
            Ok(reply) => seen.push(format!("{} answers {}", place.path.display(), reply.status)),
            Err(door::Error::Absent { .. }) if !door::may_be_ours(place, env.uid()) => {
                seen.push(format!("{}: its directory belongs to another user", place.path.display()));
            }
            Err(door::Error::Absent { .. }) => seen.push(format!("{}: nobody listens", place.path.display())),
            Err(error) => {
                seen.push(error.to_string());
                trouble = trouble.or_else(|| Some(Failure::from(error)));
            }
        }
    }
    let looked = seen.join("; ");
    let check = match trouble {
        Some(failure) => {
            let class = class_of(&failure);
            SOCKET.fail(looked, failure.hint.unwrap_or_default()).of(class)
        }
        None => SOCKET.warn(
            format!("no daemon is running: {looked}"),
            if places.iter().any(|place| place.named) {
                "a socket that is named must answer: start a daemon there with `safeconduct run`, or correct `--socket` or SAFECONDUCT_SOCKET"
            } else {
                "helpers do the work in their own process; start one with `safeconduct run`, or name its socket with `--socket`"
            },
        ),
    };
    (None, check)
}

fn class_of(failure: &Failure) -> Class {
    const ALL: [Class; 7] = [
        Class::BadRequest,
        Class::Denied,
        Class::Config,
        Class::NoIdentity,
        Class::Refused,
        Class::Temporary,
        Class::Internal,
    ];
    ALL.into_iter().find(|class| class.exit_code() == failure.exit).unwrap_or(Class::Internal)
}

/// Checks the daemon's user and our permissions. Returns its status.
fn daemon(context: &Context<'_>, place: &Place, checks: &mut Vec<Check>) -> Value {
    let (uid, gid) = (context.env.uid(), context.env.gid());
    checks.push(match door::owner(place, LIMIT) {
        Ok(owner) if owner == uid || owner == 0 => {
            OWNER.pass(format!("it runs as uid {owner}; we are uid {uid}, gid {gid}"))
        }
        Ok(owner) => OWNER.warn(
            format!("it runs as uid {owner}, we are uid {uid}, gid {gid}; it is trusted because its socket was named"),
            "name a socket only if you trust that user with your tokens",
        ),
        Err(error) => OWNER.skip(format!("the kernel does not say: {error}")),
    });
    match status::fetch(context) {
        Ok(status) => {
            let names: Vec<&str> = status["servers"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|server| server["name"].as_str())
                .collect();
            checks.push(if names.is_empty() {
                STATUS.warn(
                    "it serves nothing that we may use",
                    "add [servers.NAME] with `url`, or NAME=URL to `safeconduct run`",
                )
            } else {
                STATUS.pass(format!(
                    "to it we are uid {uid}, gid {gid}, and may know of: {}",
                    quoted_words(&names.join(", "))
                ))
            });
            checks.extend(servers(&status));
            checks.extend(reload(&status));
            status
        }
        Err(failure) => {
            let (class, cure) = (class_of(&failure), failure.hint.unwrap_or_default());
            checks.push(STATUS.fail(failure.message, cure).of(class));
            Value::Null
        }
    }
}

/// The servers of the daemon: a required one without a token is a failure, another failure a warning.
fn servers(status: &Value) -> Vec<Check> {
    let all = || status["servers"].as_array().into_iter().flatten();
    let text = |value: &Value| quoted_words(value.as_str().unwrap_or("-"));
    let failing = |server: &&Value| server["error"].is_object();
    let mut checks: Vec<Check> = all()
        .filter(failing)
        .map(|server| {
            let (error, class) = (&server["error"], server["error"]["class"].as_str().and_then(Class::parse));
            let what = format!("since {}: {}", text(&error["since"]), text(&error["error_description"]));
            let cure = error["hint"].as_str().map(quoted_words).unwrap_or_default();
            if server["required"] == true && server["state"] == "failing" {
                SERVERS.fail(format!("required, without a token {what}"), cure).of(class.unwrap_or(Class::Internal))
            } else if server["state"] == "failing" {
                SERVERS.warn(format!("without a token {what}"), cure)
            } else {
                SERVERS.warn(format!("served from a token that cannot be renewed {what}"), cure)
            }
        })
        .collect();
    if checks.is_empty() && all().next().is_some() {
        checks.push(SERVERS.pass("no server of the daemon fails"));
    }
    checks
}

/// Could the daemon read its configuration the last time?
fn reload(status: &Value) -> Option<Check> {
    let failed = &status["configuration"]["failed_reload"];
    let text = |value: &Value| quoted_words(value.as_str().unwrap_or("-"));
    let what = format!(
        "the reload at {} failed, and what was read before is in use: {}",
        text(&failed["at"]),
        text(&failed["error_description"])
    );
    failed.is_object().then(|| RELOAD.fail(what, "correct the file, then `safeconduct reload`").of(Class::Config))
}

fn configuration(context: &Context<'_>, checks: &mut Vec<Check>) -> Option<Config> {
    match context.config() {
        Ok(config) => {
            let file = config.file.as_ref().map_or_else(
                || "no file: everything is detected and discovered".to_owned(),
                |file| format!("{}: {} server(s)", file.display(), config.servers.len()),
            );
            checks.push(CONFIGURATION.pass(file));
            Some(config)
        }
        Err(failure) => {
            let problems = context.problems();
            if problems.is_empty() {
                checks.push(CONFIGURATION.fail(failure.message, failure.hint.unwrap_or_default()).of(Class::Config));
            }
            let cure = "`safeconduct config schema` lists every key";
            checks
                .extend(problems.iter().map(|problem| CONFIGURATION.fail(problem.to_string(), cure).of(Class::Config)));
            None
        }
    }
}

/// Checks the daemon's identity, or ours if there is no daemon.
fn identity(context: &Context<'_>, config: Option<Config>, status: Option<&Value>) -> Check {
    if let Some(source) = status.and_then(|status| status["identity"]["source"].as_str()) {
        let evidence = status.and_then(|status| status["identity"]["evidence"].as_str()).unwrap_or("-");
        return IDENTITY.pass(format!("the daemon's: {source} ({})", quoted_words(evidence)));
    }
    let Some(config) = config else { return IDENTITY.skip("the configuration must be corrected first") };
    let config = Config { audit: None, ..config };
    let found = context.block_on(async {
        let (env, clock) = (context.env.clone(), context.clock());
        let core = assembly::core(config, env, clock, Persistence::OneShot(LIMIT))?;
        let uid = context.env.uid();
        Ok(core.broker.explain(&Caller::own(uid, context.env.gid()), uid).identity)
    });
    match found {
        Ok(Some(identity)) => IDENTITY.pass(format!("{} ({})", identity.source, quoted_words(&identity.evidence))),
        Ok(None) => IDENTITY.skip("none is here, and no configured server needs one"),
        Err(failure) => {
            let class = class_of(&failure);
            let what = failure.message.strip_prefix("identity: ").unwrap_or(&failure.message).to_owned();
            IDENTITY.fail(what, failure.hint.unwrap_or_default()).of(class)
        }
    }
}

/// Runs our own binary as the two clients with helpers do.
fn helpers(found: Option<&Place>, env: &Env) -> Vec<Check> {
    let clients = [(CODEX, helper::under_codex(env)), (CLAUDE_CODE, helper::under_claude_code(env))];
    let Some(place) = found else {
        return clients.map(|(rule, _)| rule.skip("there is no daemon to be found")).into();
    };
    clients.map(|(rule, environment)| helper_check(&rule, &environment, place)).into()
}

fn helper_check(rule: &Rule, environment: &[(String, String)], place: &Place) -> Check {
    let socket = place.path.to_str().and_then(shell_word).unwrap_or_else(|| "PATH".to_owned());
    match helper::ask(environment, None) {
        Ok(Heard::Daemon) => {
            rule.pass("`safeconduct headers` finds the daemon with nothing but the client's environment")
        }
        Ok(Heard::Nobody) => match helper::ask(environment, Some(&place.path)) {
            Ok(Heard::Daemon) => rule.warn(
                "the client's environment does not lead to this socket",
                format!("name it in the client's configuration: `safeconduct --socket {socket} headers NAME`"),
            ),
            Ok(Heard::Nobody) => {
                rule.fail("not even with `--socket`", "start the daemon where this user may connect").of(Class::Denied)
            }
            Ok(Heard::Trouble(words)) => rule.fail(words, "see the words of the helper").of(Class::Denied),
            Err(why) => rule.skip(why),
        },
        Ok(Heard::Trouble(words)) => rule
            .fail(words, "another socket lies before the right one: name the right one with `--socket`")
            .of(Class::Denied),
        Err(why) => rule.skip(why),
    }
}

/// Checks `NO_PROXY`: without it clients send requests for loopback URLs to the proxy too.
fn proxy(env: &Env) -> Check {
    let first =
        |names: &[&'static str]| names.iter().find_map(|name| env.get(name).map(|value| (*name, value.to_owned())));
    let Some((name, _)) = first(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]) else {
        return PROXY.pass("no proxy would swallow requests to loopback");
    };
    let exempt = first(&["NO_PROXY", "no_proxy"]).map(|(_, value)| value).unwrap_or_default();
    let exempt: Vec<&str> = exempt.split([',', ' ']).map(str::trim).collect();
    let has = |host: &str| exempt.contains(&host);
    if has("*") || (has("localhost") && has("127.0.0.1")) {
        return PROXY.pass(format!("{name} is set, and NO_PROXY exempts loopback"));
    }
    PROXY.warn(
        format!(
            "{name} is set, and NO_PROXY does not exempt loopback: clients with a loopback URL ask the proxy for it"
        ),
        "set NO_PROXY=localhost,127.0.0.1 for the clients too",
    )
}

fn clock(now: i64) -> Check {
    if now >= BEFORE_US {
        CLOCK.pass("it shows a time after this program was made; with a target it is compared with the servers'")
    } else {
        CLOCK.fail("it shows a time before this program was made", "set the clock, by NTP").of(Class::Config)
    }
}

fn descriptors() -> Check {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft.max(hard) < FEW_DESCRIPTORS => DESCRIPTORS.warn(
            format!("at most {hard} descriptors: a daemon with many callers runs out of them"),
            "raise it: `ulimit -n`, or LimitNOFILE of the unit",
        ),
        Ok((soft, hard)) => DESCRIPTORS.pass(format!("{soft}, which a daemon may raise to {hard}")),
        Err(error) => DESCRIPTORS.skip(error.to_string()),
    }
}

fn core_dumps() -> Check {
    match getrlimit(Resource::RLIMIT_CORE) {
        Ok((0, _)) => CORE_DUMPS.pass("off in this program"),
        Ok(_) => CORE_DUMPS
            .fail("they could not be switched off", "a core dump would hold tokens: `ulimit -c 0`")
            .of(Class::Config),
        Err(error) => CORE_DUMPS.skip(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::State;

    fn judged(vars: &[(&str, &str)]) -> State {
        proxy(&Env::from_vars(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))).state
    }

    #[test]
    fn a_proxy_counts_unless_both_names_of_loopback_are_exempt() {
        assert_eq!(judged(&[]), State::Pass);
        assert_eq!(judged(&[("HTTP_PROXY", "http://p:3128")]), State::Warn);
        assert_eq!(judged(&[("all_proxy", "http://p:3128"), ("NO_PROXY", "localhost")]), State::Warn);
        assert_eq!(judged(&[("http_proxy", "http://p:3128"), ("no_proxy", "localhost, 127.0.0.1")]), State::Pass);
        assert_eq!(judged(&[("HTTP_PROXY", "http://p:3128"), ("NO_PROXY", "*")]), State::Pass);
    }

    #[test]
    fn a_required_server_without_a_token_is_a_failure_and_a_passing_one_a_warning() {
        let server = |required: bool, state: &str| {
            serde_json::json!({ "required": required, "state": state, "error": {
                "class": "refused", "since": "2026-01-01T00:00:00Z", "error_description": "deploy: no", "hint": "ask them",
            }})
        };
        let judged = |server: Value| {
            let checks = servers(&serde_json::json!({ "servers": [server] }));
            (checks[0].state, checks[0].class)
        };
        assert_eq!(judged(server(true, "failing")), (State::Fail, Some(Class::Refused)));
        assert_eq!(judged(server(false, "failing")).0, State::Warn);
        assert_eq!(judged(server(true, "fresh")).0, State::Warn);
        assert_eq!(judged(serde_json::json!({ "state": "fresh", "error": null })).0, State::Pass);
        let failed = serde_json::json!({ "at": "2026-01-01T00:00:00Z", "error_description": "line 1: no" });
        let status = serde_json::json!({ "configuration": { "failed_reload": failed } });
        assert!(reload(&status).is_some_and(|check| check.what.contains("line 1: no")));
        assert!(reload(&serde_json::json!({ "configuration": { "failed_reload": null } })).is_none());
    }

    #[test]
    fn a_clock_before_this_program_is_wrong() {
        assert_eq!(clock(0).state, State::Fail);
        assert_eq!(clock(BEFORE_US + 1).state, State::Pass);
    }
}
