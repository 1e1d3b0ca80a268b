//! Checks the proxy of a running daemon for the examined server: a `ping` through `/mcp/NAME` and back.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::broker::{Check, Class, LATE, Party, Rule};
use crate::command::Context;
use crate::command::stdio::listed;
use crate::door;
use crate::oauth::{ServerUrl, quoted_words};

const PROXY: Rule = Rule::new("proxy", "proxy-path", Party::Machine, "`/mcp/NAME` of the daemon");

const STATUS_LIMIT: Duration = Duration::from_secs(3);
/// A client of the proxy gets its answer, or an error, within ten seconds where a token is waited for.
const LIMIT: Duration = Duration::from_secs(15);

/// With less time left than this, nothing is sent.
const TO_ASK: Duration = Duration::from_millis(500);

/// Both wires have it, and it does no harm.
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// `None` where no daemon answers, or it shows us nothing: then there is no proxy to check.
pub(super) fn check(context: &Context<'_>, url: &str, deadline: Instant) -> Option<Check> {
    let places = door::places(context.global.socket.as_ref(), context.env);
    let uid = context.env.uid();
    door::listening(&places, uid).ok()?;
    let left = || deadline.saturating_duration_since(Instant::now());
    if left() < TO_ASK {
        return Some(PROXY.skip(LATE));
    }
    let ask = |request: &str, body, limit: Duration| door::ask(&places, request, body, uid, limit.min(left()));
    let status = match ask("GET /v1/status", None, STATUS_LIMIT) {
        Err(_) if left().is_zero() => return Some(PROXY.skip(LATE)),
        status => status.ok().filter(|reply| reply.status == 200)?,
    };
    let Some(name) = listed(&status.body, &ServerUrl::parse(url).ok()?) else {
        return Some(PROXY.skip("the daemon does not serve this server to us by a name"));
    };
    Some(match ask(&format!("POST /mcp/{name}"), Some(PING), LIMIT) {
        Ok(reply) => judge(&name, reply.status, &reply.body),
        // Our time is over, and not that of the daemon.
        Err(_) if left().is_zero() => PROXY.skip(LATE),
        Err(error) => PROXY
            .fail(format!("a ping through /mcp/{name} has no answer: {error}"), "look at the daemon's log")
            .of(Class::Temporary),
    })
}

/// Any answer of the server itself shows that the path works. An error of ours says what is wrong.
fn judge(name: &str, status: u16, body: &[u8]) -> Check {
    let error = serde_json::from_slice::<Value>(body).map(|json| json["error"].clone()).unwrap_or_default();
    if error["data"]["by"] != "safeconduct" {
        return PROXY.pass(format!("a ping through /mcp/{name} reaches the server, which answers status {status}"));
    }
    let words = |value: &Value| value.as_str().map(quoted_words).unwrap_or_default();
    let data = &error["data"];
    let class = data["class"].as_str().and_then(Class::parse).unwrap_or(Class::Internal);
    let said = data["said"].as_str().map(|said| format!(", in its words: \"{}\"", quoted_words(said)));
    let what =
        format!("a ping through /mcp/{name} is not relayed: {}{}", words(&error["message"]), said.unwrap_or_default());
    let cure = format!("look for request_id {} in the daemon's log and audit", words(&data["request_id"]));
    PROXY.fail(what, cure).of(class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::State;

    #[test]
    fn an_answer_of_the_server_shows_that_the_path_works_and_an_error_of_ours_that_it_does_not() {
        for (status, body) in [(200, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), (400, "no session"), (404, "")] {
            assert_eq!(judge("demo", status, body.as_bytes()).state, State::Pass, "{body}");
        }
        let ours = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-31080,"message":"demo: no","data":{"by":"safeconduct","class":"refused","request_id":"ab","said":"never"}}}"#;
        let check = judge("demo", 200, ours.as_bytes());
        assert_eq!((check.state, check.class), (State::Fail, Some(Class::Refused)));
        assert!(check.what.contains("demo: no") && check.what.contains("never"), "{}", check.what);
        assert!(check.cure.is_some_and(|cure| cure.contains("ab")));
    }
}
