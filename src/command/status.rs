//! `safeconduct status`: shows the daemon's servers, tokens and callers.

use std::time::Duration;

use serde_json::Value;

use super::obtain::Refused;
use super::{Context, Failure, Printable, print};
use crate::broker::Class;
use crate::cli::Status;
use crate::door::{self, Place};

const LIMIT: Duration = Duration::from_secs(5);
const BAR: usize = 20;

pub(super) fn run(context: &Context<'_>, verb: &Status) -> Result<(), Failure> {
    if verb.json {
        return print(&Printable::json(&format!("{:#}\n", fetch(context)?), context.env));
    }
    if !verb.watch {
        return print(&Printable::text(&table(&fetch(context)?), context.env));
    }
    loop {
        // Cursor home and clear screen. The loop ends with the daemon or with Ctrl-C.
        let page = Printable::text(&table(&fetch(context)?), context.env);
        print(&Printable::own("\x1b[H\x1b[2J").then(&page))?;
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

fn table(status: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut out = format!(
        "safeconduct {} (pid {})  identity {} ({})\n",
        text(&status["version"]),
        status["pid"],
        text(&status["identity"]["source"]),
        text(&status["identity"]["evidence"])
    );
    out.push_str(&listening(&status["listen"]));
    if let Some(file) = status["audit"]["file"].as_str() {
        let (seq, head) = (&status["audit"]["seq"], text(&status["audit"]["head"]));
        out.push_str(&format!("audit {file}, line {seq}, head {head}\n"));
        if let Some(error) = status["audit"]["error"].as_str() {
            out.push_str(&format!("  failing: {error}; nothing is served meanwhile\n"));
        }
    }
    let servers = status["servers"].as_array().cloned().unwrap_or_default();
    if servers.is_empty() {
        out.push_str("no servers\n");
    }
    let width = servers.iter().map(|server| text(&server["name"]).len()).max().unwrap_or(0);
    for server in &servers {
        let required = if server["required"].as_bool() == Some(true) { "  required" } else { "" };
        out.push_str(&format!("\n{:width$}  {}{required}\n", text(&server["name"]), text(&server["url"])));
        let indent = " ".repeat(width + 2);
        for token in server["tokens"].as_array().into_iter().flatten() {
            out.push_str(&format!(
                "{indent}{}  scope {:?}, last renewed {}\n",
                bar(token),
                text(&token["scope"]),
                text(&token["minted_at"])
            ));
        }
        if let Some(error) = server["error"].as_object() {
            let of = |key: &str| error.get(key).map(&text).unwrap_or_default();
            out.push_str(&format!("{indent}failing ({}): {}\n", of("class"), of("error_description")));
            if error.get("hint").is_some_and(Value::is_string) {
                out.push_str(&format!("{indent}hint: {}\n", of("hint")));
            }
        } else if text(&server["state"]) == "idle" {
            out.push_str(&format!("{indent}idle: nobody has asked\n"));
        }
        let callers: Vec<String> = server["callers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|caller| format!("uid {} {}×", caller["uid"], caller["served"]))
            .collect();
        if !callers.is_empty() {
            out.push_str(&format!("{indent}served {}\n", callers.join(", ")));
        }
        if server["proxy"].is_object() {
            out.push_str(&format!("{indent}{}\n", proxy(&server["proxy"])));
        }
    }
    out
}

/// Where the daemon listens besides its socket.
fn listening(listen: &Value) -> String {
    let mut out = String::new();
    for address in listen["http"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let secret = listen["http_secret"].as_str().unwrap_or("-");
        out.push_str(&format!("http {address}  (secret in {secret})\n"));
    }
    if let Some(address) = listen["health"].as_str() {
        out.push_str(&format!("health {address}\n"));
    }
    out
}

/// What passed through the proxy.
fn proxy(status: &Value) -> String {
    let of = |key: &str| status[key].as_u64().unwrap_or(0);
    let (requests, again, healed) = (of("requests"), of("repetitions"), of("sessions_healed"));
    format!(
        "proxy: requests {requests}, sent again {again}, sessions healed {healed}, open streams {}",
        of("open_streams")
    )
}

/// The remaining lifetime of a token as a bar.
fn bar(token: &Value) -> String {
    let (left, life) = (token["expires_in"].as_u64().unwrap_or(0), token["lifetime"].as_u64().unwrap_or(0).max(1));
    let full = usize::try_from(left.min(life) * BAR as u64 / life).unwrap_or(0);
    format!("[{}{}] {left} s of {life} s left", "█".repeat(full), "·".repeat(BAR - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_at_first_and_empty_at_last() {
        let bar = |left: u64| bar(&serde_json::json!({ "expires_in": left, "lifetime": 60 }));
        assert_eq!(bar(60), format!("[{}] 60 s of 60 s left", "█".repeat(20)));
        assert_eq!(bar(0), format!("[{}] 0 s of 60 s left", "·".repeat(20)));
        assert!(bar(30).starts_with(&format!("[{}·", "█".repeat(10))));
    }
}
