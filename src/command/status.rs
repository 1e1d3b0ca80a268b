//! `safeconduct status`: shows the daemon's servers, tokens and callers.

use std::time::Duration;

use serde_json::Value;

use super::obtain::Refused;
use super::paper::{Colour, Paper, span};
use super::{Context, Failure, Printable, print};
use crate::broker::Class;
use crate::cli::Status;
use crate::door::{self, Place};

const LIMIT: Duration = Duration::from_secs(5);
const BAR: usize = 20;
/// Where the texts about a server begin.
const INDENT: usize = 2;

pub(super) fn run(context: &Context<'_>, verb: &Status) -> Result<(), Failure> {
    if verb.json {
        return print(&Printable::json(&format!("{:#}\n", fetch(context)?), context.env));
    }
    let paper = Paper::new(context.env);
    let page = || Ok::<_, Failure>(paper.printable(&text(&paper, &fetch(context)?), context.env));
    if !verb.watch {
        return print(&page()?);
    }
    loop {
        // Cursor home and clear screen. The loop ends with the daemon or with Ctrl-C.
        print(&Printable::own("\x1b[H\x1b[2J").then(&page()?))?;
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The answer of `/v1/status`.
pub(super) fn fetch(context: &Context<'_>) -> Result<Value, Failure> {
    read(&context.ask_daemon("GET /v1/status", None, LIMIT)?)
}

/// Asks for it at these places.
pub(super) fn ask_at(places: &[Place], context: &Context<'_>) -> Result<door::Reply, door::Error> {
    door::ask(places, "GET /v1/status", None, context.env.uid(), LIMIT)
}

/// Reads the answer.
pub(super) fn read(reply: &door::Reply) -> Result<Value, Failure> {
    let strange = || Failure::new(Class::Config, "the daemon does not answer like safeconduct");
    if reply.status != 200 {
        return Err(Refused::read(reply).map_or_else(strange, Refused::into_failure));
    }
    serde_json::from_slice(&reply.body).map_err(|_| strange())
}

/// A value as it is shown.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(paper: &Paper, status: &Value) -> String {
    let mut out = head(paper, status);
    let mut servers = list(&status["servers"]).peekable();
    if servers.peek().is_none() {
        out.push_str("no servers\n");
    }
    for one in servers {
        out.push_str(&server(paper, one));
    }
    let mut refused = list(&status["refused_callers"]).peekable();
    if refused.peek().is_some() {
        out.push_str("\nrefused callers\n");
    }
    for caller in refused {
        let (uid, server) = (shown(&caller["uid"]), shown(&caller["server"]));
        let what = format!(
            "{}×, last at {} for {server}: {}",
            shown(&caller["refused"]),
            shown(&caller["last_at"]),
            shown(&caller["error"])
        );
        out.push_str(&paper.paragraph(INDENT, &format!("{:<9} ", format!("uid {uid}")), &what));
        if let Some(hint) = caller["hint"].as_str() {
            out.push_str(&paper.paragraph(INDENT, "cure      ", hint));
        }
    }
    out
}

/// The daemon itself: who it is, what it has read, where it listens, its record.
fn head(paper: &Paper, status: &Value) -> String {
    let mut out = format!("safeconduct {} (pid {})\n", shown(&status["version"]), shown(&status["pid"]));
    let mut line = |label: &str, text: &str| out.push_str(&paper.paragraph(0, &format!("{label:<9} "), text));
    let identity = &status["identity"];
    line("identity", &format!("{} ({})", shown(&identity["source"]), shown(&identity["evidence"])));
    let configuration = &status["configuration"];
    if configuration.is_object() {
        let file = configuration["file"].as_str().unwrap_or("none: only what the command line names");
        line("file", &format!("{file}, read at {}", shown(&configuration["read_at"])));
        let failed = &configuration["failed_reload"];
        if failed.is_object() {
            let what = format!("failed at {}: {}", shown(&failed["at"]), shown(&failed["error_description"]));
            line("reload", &format!("{what}; what was read before stays in use"));
            line("cure", failed["hint"].as_str().unwrap_or_default());
        }
    }
    let listen = &status["listen"];
    line("socket", listen["socket"].as_str().unwrap_or_default());
    for address in list(&listen["http"]).filter_map(Value::as_str) {
        line("http", &format!("{address} (secret in {})", shown(&listen["http_secret"])));
    }
    line("health", listen["health"].as_str().unwrap_or_default());
    let audit = &status["audit"];
    if let Some(file) = audit["file"].as_str() {
        line("audit", &format!("{file}, line {}, head {}", shown(&audit["seq"]), shown(&audit["head"])));
        let failing = audit["error"].as_str().map(|error| format!("failing: {error}; nothing is served meanwhile"));
        line("", &failing.unwrap_or_default());
    }
    out
}

fn server(paper: &Paper, server: &Value) -> String {
    let is_required = server["required"] == true;
    let name = paper.paint(Colour::Bold, &shown(&server["name"]));
    let state = match server["state"].as_str() {
        Some("fresh") if server["error"].is_null() => paper.paint(Colour::Green, "fresh"),
        Some("fresh") => paper.paint(Colour::Yellow, "fresh, not renewed"),
        Some("failing") => paper.paint(Colour::Red, "failing"),
        _ => paper.paint(Colour::Dim, "idle"),
    };
    let mut out = format!("\n{name}  {state}{}\n", if is_required { "  required" } else { "" });
    let mut line = |label: &str, text: &str| out.push_str(&paper.paragraph(INDENT, &format!("{label:<8} "), text));
    line("url", &shown(&server["url"]));
    for token in list(&server["tokens"]) {
        line("token", &bar(token));
        line("", &format!("scope {:?}, last renewed {}", shown(&token["scope"]), shown(&token["minted_at"])));
        line("warning", token["warning"].as_str().unwrap_or_default());
    }
    let error = &server["error"];
    if error.is_object() {
        line(
            "failing",
            &format!(
                "since {} ({}): {}",
                shown(&error["since"]),
                shown(&error["class"]),
                shown(&error["error_description"])
            ),
        );
        line("shown", error["presented"].as_str().unwrap_or_default());
        line("cure", error["hint"].as_str().unwrap_or_default());
        line("next try", &next_try(server));
    } else if server["state"] == "idle" {
        line("", "nobody has asked for a token");
    }
    let served: Vec<String> = list(&server["callers"])
        .map(|caller| format!("uid {} {}×", shown(&caller["uid"]), shown(&caller["served"])))
        .collect();
    line("served", &served.join(", "));
    if server["proxy"].is_object() {
        line("proxy", &proxy(&server["proxy"]));
    }
    out
}

/// When a token is tried for again: by itself for those that are kept, else when somebody asks.
fn next_try(server: &Value) -> String {
    let wait = server["error"]["next_try_in"].as_u64().unwrap_or(0);
    let is_kept = server["required"] == true || server["state"] == "fresh";
    match (is_kept, wait) {
        (true, 0) => "now".to_owned(),
        (true, wait) => format!("in {}", span(wait)),
        (false, 0) => "when somebody asks".to_owned(),
        (false, wait) => format!("when somebody asks, in {} at the earliest", span(wait)),
    }
}

/// What passed through the proxy.
fn proxy(status: &Value) -> String {
    let of = |key: &str| status[key].as_u64().unwrap_or(0);
    let (requests, again, healed) = (of("requests"), of("repetitions"), of("sessions_healed"));
    format!("requests {requests}, sent again {again}, sessions healed {healed}, open streams {}", of("open_streams"))
}

/// The remaining lifetime of a token as a bar.
fn bar(token: &Value) -> String {
    let (left, life) = (token["expires_in"].as_u64().unwrap_or(0), token["lifetime"].as_u64().unwrap_or(0).max(1));
    let full = usize::try_from(left.min(life) * BAR as u64 / life).unwrap_or(0);
    format!("[{}{}] {left} s of {life} s left", "█".repeat(full), "·".repeat(BAR - full))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bar_is_full_at_first_and_empty_at_last() {
        let bar = |left: u64| bar(&json!({ "expires_in": left, "lifetime": 60 }));
        assert_eq!(bar(60), format!("[{}] 60 s of 60 s left", "█".repeat(20)));
        assert_eq!(bar(0), format!("[{}] 0 s of 60 s left", "·".repeat(20)));
        assert!(bar(30).starts_with(&format!("[{}·", "█".repeat(10))));
    }

    #[test]
    fn everything_that_fails_is_said_with_its_time_and_its_cure_in_80_columns() {
        let status = json!({
            "version": "1", "pid": 7, "identity": { "source": "file", "evidence": "named" },
            "configuration": {
                "file": "/etc/safeconduct/safeconduct.toml", "read_at": "2026-01-01T00:00:00Z",
                "failed_reload": { "at": "2026-01-02T00:00:00Z", "error_description": "line 3: servers.x: unknown key", "hint": "correct it" },
            },
            "listen": { "socket": "/run/safeconduct/safeconduct.sock", "http": [], "health": null },
            "servers": [{
                "name": "deploy", "url": "https://mcp.example.com/mcp", "state": "failing", "required": true, "tokens": [],
                "error": {
                    "class": "refused", "since": "2026-01-03T00:00:00Z", "next_try_in": 25, "hint": "change the trust policy",
                    "error_description": "the authorization server refuses this identity, in words that are longer than a line",
                },
            }],
            "refused_callers": [{
                "uid": 1001, "refused": 3, "last_at": "2026-01-04T00:00:00Z", "server": "deploy", "error": "access_denied",
                "hint": "let it in with `allow = [{ uid = 1001 }]`",
            }],
        });
        let text = text(&Paper { colours: false, width: 80 }, &status);
        for part in [
            "/etc/safeconduct/safeconduct.toml, read at 2026-01-01",
            "failed at 2026-01-02T00:00:00Z: line 3: servers.x: unknown key",
            "deploy  failing  required",
            "since 2026-01-03T00:00:00Z (refused)",
            "cure     change the trust policy",
            "next try in 25 s",
            "uid 1001  3×, last at 2026-01-04T00:00:00Z for deploy",
            "{ uid = 1001 }",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
