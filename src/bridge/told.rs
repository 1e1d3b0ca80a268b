//! What the client is told when there is no answer of the server to pass on. Pure.
//!
//! A model reads these sentences: they hold our own words and the configured name of the server alone.

use crate::jitter::request_id;
use crate::mcp::rpc::refusal::{AnswerTo, Refusal, Remediation};

/// JSON-RPC's "invalid request".
const INVALID_REQUEST: i64 = -32_600;

/// Why there is no answer of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nobody listens at the daemon's socket.
    DaemonAway,
    /// What listens there cannot be used: it is another user's, or closed to us.
    DaemonNotUsable,
    /// The daemon serves no such server.
    NotServed,
    /// The connection broke before the answer.
    AnswerLost,
    /// The same for a `tools/call`.
    ToolMayHaveRun,
    /// The request was accepted without an answer.
    NoAnswer,
    /// The answer is no JSON-RPC message, or one for another request.
    Malformed,
    /// The answer has this status, and is no JSON-RPC message.
    Status(u16),
    /// The answer is longer than what is kept.
    AnswerTooLong,
    /// The client's line is longer than this.
    LineTooLong(usize),
    /// A name in the request is too long for a field.
    NameTooLong,
    /// Too many requests have no answer.
    TooMany,
    /// The server speaks the transport of 2024-11-05.
    OldTransport,
    /// The request cannot be read so that it means one thing only.
    NotTranslatable,
    /// The server asks for input that this client cannot give, or where none may be asked for.
    InputNotPossible,
    /// The server asks for input again and again.
    TooManyRounds,
    /// The client answers a question of the server with an error.
    InputRefused,
    /// The client does not answer a question of the server.
    InputMissing,
    /// The request is too long to be kept until the client has answered the questions of the server.
    TooLongToRepeat,
    /// The result is of a type that this client does not know.
    UnknownResult,
    /// The server does not send updates of this resource.
    NotSubscribed,
}

impl Why {
    /// The class as the local API names it, and the code.
    fn class_and_code(self) -> (&'static str, &'static str) {
        match self {
            Self::DaemonAway => ("temporary", "unreachable"),
            Self::DaemonNotUsable => ("denied", "access_denied"),
            Self::NotServed => ("config", "server_not_configured"),
            Self::AnswerLost | Self::ToolMayHaveRun => ("temporary", "answer_lost"),
            Self::NoAnswer => ("refused", "no_answer"),
            Self::Malformed => ("refused", "malformed_answer"),
            Self::Status(500..) => ("temporary", "http_status"),
            Self::Status(_) => ("refused", "http_status"),
            Self::AnswerTooLong => ("refused", "answer_too_long"),
            Self::LineTooLong(_) | Self::NameTooLong => ("bad_request", "too_long"),
            Self::TooMany => ("temporary", "rate_limited"),
            Self::OldTransport => ("refused", "old_transport"),
            Self::NotTranslatable => ("bad_request", "ambiguous_request"),
            Self::InputNotPossible => ("refused", "input_not_possible"),
            Self::TooManyRounds => ("refused", "too_many_rounds"),
            Self::InputRefused => ("refused", "input_refused"),
            Self::InputMissing => ("refused", "input_missing"),
            Self::TooLongToRepeat => ("bad_request", "too_long"),
            Self::UnknownResult => ("refused", "unknown_result"),
            Self::NotSubscribed => ("refused", "not_subscribed"),
        }
    }

    fn words(self) -> String {
        let fixed = match self {
            Self::DaemonAway => "the daemon of safeconduct cannot be reached; whoever runs it must act",
            Self::DaemonNotUsable => "the daemon of safeconduct may not be used from here; whoever runs it must act",
            Self::NotServed => "the daemon of safeconduct does not serve it; whoever configures safeconduct must act",
            Self::AnswerLost => "the connection broke before the answer; the request may have been carried out",
            Self::ToolMayHaveRun => {
                "the connection broke before the answer; the tool may have run, so check before it is called again"
            }
            Self::NoAnswer => "the server accepted the request without an answer; its operator must act",
            Self::Malformed => "the answer of the server is no answer to this request; its operator must act",
            Self::AnswerTooLong => "the answer of the server is too long for this program; ask for less",
            Self::NameTooLong => "a name in the request is too long to be sent; whoever wrote the client must act",
            Self::TooMany => "too many requests have no answer yet; try again later",
            Self::OldTransport => {
                "the server speaks the HTTP+SSE transport of 2024-11-05, which is not supported; its operator must act"
            }
            Self::NotTranslatable => {
                "the parameters of the request are no object, or a name occurs twice in them; whoever wrote the client must act"
            }
            Self::InputNotPossible => {
                "the server asks for input that this client has not declared or cannot give; its operator must act"
            }
            Self::TooManyRounds => {
                "the server asked for more input ten times and gave no answer; its operator must act"
            }
            Self::InputRefused => {
                "the client answered a question of the server with an error, so the request has no answer"
            }
            Self::InputMissing => "the client did not answer a question of the server in time; ask again",
            Self::TooLongToRepeat => {
                "the server asks for more input, and the request is too long to be sent again; send less"
            }
            Self::UnknownResult => {
                "the result is of a type that is not known on the wire of this client; its operator must act"
            }
            Self::NotSubscribed => "the server does not send updates of this resource, or not now; read it instead",
            Self::Status(status) => {
                return format!("the server answers with HTTP status {status} and no message; its operator must act");
            }
            Self::LineTooLong(cap) => {
                return format!("the message is longer than {cap} bytes; `--max-message` sets the limit");
            }
        };
        fixed.to_owned()
    }

    /// The error, without a line end.
    pub(super) fn to_json(self, server: &str, to: AnswerTo<'_>) -> Vec<u8> {
        let (class, error) = self.class_and_code();
        let message = match server {
            "" => self.words(),
            name => format!("{name}: {}", self.words()),
        };
        let request_id = request_id();
        tracing::warn!(server, error, request_id, "{}", self.words());
        // What may have been carried out is not to be repeated without a look.
        let may_repeat = matches!(self, Self::DaemonAway | Self::TooMany | Self::Status(500..));
        let remediation = match class {
            "temporary" if may_repeat => Remediation::Available,
            "temporary" | "refused" => Remediation::Undisclosed,
            _ => Remediation::Unavailable,
        };
        let retry_after = may_repeat.then_some(1);
        let refusal = Refusal {
            message: &message,
            class,
            error,
            retry_after,
            server,
            request_id: &request_id,
            remediation,
            said: None,
        };
        refusal.to_json(to)
    }
}

/// The error for what is no single request, notification or response. JSON-RPC has a code of its own for it.
pub(super) fn invalid(to: AnswerTo<'_>, words: &str) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Wire<'a> {
        jsonrpc: &'static str,
        id: AnswerTo<'a>,
        error: Body<'a>,
    }
    #[derive(serde::Serialize)]
    struct Body<'a> {
        code: i64,
        message: &'a str,
    }
    let error = Body { code: INVALID_REQUEST, message: words };
    serde_json::to_vec(&Wire { jsonrpc: "2.0", id: to, error }).expect("texts and numbers always have a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_one_sentence_about_one_server_with_our_number() {
        let all = [
            Why::DaemonAway,
            Why::DaemonNotUsable,
            Why::NotServed,
            Why::AnswerLost,
            Why::ToolMayHaveRun,
            Why::NoAnswer,
            Why::Malformed,
            Why::Status(404),
            Why::Status(503),
            Why::AnswerTooLong,
            Why::LineTooLong(64),
            Why::NameTooLong,
            Why::TooMany,
            Why::OldTransport,
            Why::NotTranslatable,
            Why::InputNotPossible,
            Why::TooManyRounds,
            Why::InputRefused,
            Why::InputMissing,
            Why::TooLongToRepeat,
            Why::UnknownResult,
            Why::NotSubscribed,
        ];
        for why in all {
            let json = why.to_json("demo", AnswerTo::Unknown);
            assert!(!json.contains(&b'\n'));
            let error: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            let (message, data) = (error["error"]["message"].as_str().expect("a text"), &error["error"]["data"]);
            assert!(message.starts_with("demo: ") && !message.contains('/'), "{message}");
            assert_eq!((&error["error"]["code"], &data["by"]), (&(-31_080).into(), &"safeconduct".into()), "{why:?}");
            // As in the local API.
            let classes = ["bad_request", "denied", "config", "refused", "temporary"];
            assert!(classes.iter().any(|class| data["class"] == *class), "{why:?}");
            assert_eq!(data["retry_after"].is_null(), data["remediation"] != "available", "{why:?}");
        }
    }
}
