//! The two local protocols under test, as raw bytes: HTTP/1.1 for safeconduct, the floor and nginx, one JSON object per connection
//! for oidc-agent. They are parsed by hand, so that the client's time is small and equal for every daemon.

use clap::ValueEnum;

/// A call of a tool.
pub const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":2}}}"#;

/// The protocol of the daemon under test.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// HTTP/1.1 with a `Content-Length` answer.
    Http,
    /// A call of a tool, posted to an MCP server; the answer is as for `Http`.
    Mcp,
    /// oidc-agent's JSON request; the answer ends with the connection.
    OidcAgent,
}

/// The state of the answer after the bytes received so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Incomplete,
    Complete { ok: bool },
}

impl Protocol {
    /// The request's bytes. `what` is the path with its query for HTTP, the account's short name for oidc-agent.
    pub fn request(self, what: &str) -> Vec<u8> {
        match self {
            Self::Http => format!("GET {what} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes(),
            Self::Mcp => {
                let length = CALL.len();
                format!("POST {what} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: {length}\r\n\r\n{CALL}").into_bytes()
            }
            Self::OidcAgent => format!(
                r#"{{"request":"access_token","account":"{what}","min_valid_period":0,"application_hint":"load"}}"#
            )
            .into_bytes(),
        }
    }

    /// Judges the received bytes; `ended` says that the peer has closed.
    pub fn judge(self, received: &[u8], ended: bool) -> Answer {
        match self {
            Self::Http => judge_http(received),
            // An error is a 200 too.
            Self::Mcp => match judge_http(received) {
                Answer::Complete { ok } => Answer::Complete {
                    ok: ok && received.windows(8).any(|window| window == b"\"result\""),
                },
                Answer::Incomplete => Answer::Incomplete,
            },
            Self::OidcAgent => judge_oidc_agent(received, ended),
        }
    }
}

/// Where the header block ends, counted from the first byte of the answer.
pub fn head_length(received: &[u8]) -> Option<usize> {
    received
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

fn judge_http(received: &[u8]) -> Answer {
    let Some(head) = head_length(received) else {
        return Answer::Incomplete;
    };
    if received.len() < head + content_length(&received[..head]) {
        return Answer::Incomplete;
    }
    Answer::Complete {
        ok: received.starts_with(b"HTTP/1.1 200"),
    }
}

fn content_length(head: &[u8]) -> usize {
    head.split(|byte| *byte == b'\n')
        .find_map(|line| {
            let (name, value) = line.split_at_checked(b"content-length:".len())?;
            name.eq_ignore_ascii_case(b"content-length:")
                .then(|| str::from_utf8(value).ok()?.trim().parse().ok())?
        })
        .unwrap_or(0)
}

/// oidc-agent closes after its answer; a client may also stop at the closing brace, as its own clients do.
fn judge_oidc_agent(received: &[u8], ended: bool) -> Answer {
    let text = received.trim_ascii_end();
    if text.ends_with(b"}") || ended {
        let mark = br#""success""#;
        return Answer::Complete {
            ok: text.windows(mark.len()).any(|window| window == mark),
        };
    }
    Answer::Incomplete
}

#[cfg(test)]
mod tests {
    use super::{Answer, Protocol};

    #[test]
    fn an_http_answer_is_complete_with_its_last_byte() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(
            Protocol::Http.judge(&whole[..whole.len() - 1], false),
            Answer::Incomplete
        );
        assert_eq!(
            Protocol::Http.judge(whole, false),
            Answer::Complete { ok: true }
        );
    }

    #[test]
    fn an_http_refusal_is_not_ok() {
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(
            Protocol::Http.judge(refusal, false),
            Answer::Complete { ok: false }
        );
    }

    #[test]
    fn an_oidc_agent_answer_needs_success_in_it() {
        assert_eq!(
            Protocol::OidcAgent.judge(br#"{"status":"success"}"#, false),
            Answer::Complete { ok: true }
        );
        assert_eq!(
            Protocol::OidcAgent.judge(br#"{"status":"failure"}"#, false),
            Answer::Complete { ok: false }
        );
        assert_eq!(
            Protocol::OidcAgent.judge(br#"{"status":"#, false),
            Answer::Incomplete
        );
    }
}
