//! The two wires of MCP, and the translation between them: a client of the wire until 2025-11-25 works with a server that speaks
//! 2026-07-28 alone. Pure: JSON in, JSON out.
//!
//! | until 2025-11-25 | since 2026-07-28 | file |
//! |---|---|---|
//! | `initialize`, which says once who the client is | `server/discover`, and `_meta` in each request | [`declared`], [`discovered`] |
//! | a request | the same with `_meta` | [`request`] |
//! | a result | the same with `resultType` | [`answer`] |
//! | requests of the server | `input_required`, and the request once more with the answers | [`input`] |
//! | notifications on the stream of the session, `resources/subscribe` | `subscriptions/listen` with a filter | [`filter`] |
//! | | arguments of a tool that are fields, too (`Mcp-Param-*`) | [`params`] |

use super::rpc::{METHOD_NOT_FOUND, Message};

pub(crate) mod answer;
pub(crate) mod declared;
pub(crate) mod discovered;
pub(crate) mod filter;
pub(crate) mod input;
pub(crate) mod params;
pub(crate) mod request;

/// The protocol version that is spoken to a server without sessions.
pub(crate) const VERSION: &str = "2026-07-28";
/// The versions that a client of the older wire can ask for, the newest first.
const SESSION_VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// The field that repeats a value of the body differs from it, or is missing.
const HEADER_MISMATCH: i64 = -32_020;
const MISSING_CAPABILITY: i64 = -32_021;
const UNSUPPORTED_VERSION: i64 = -32_022;
/// JSON-RPC's "invalid params": a server that requires `_meta` says so.
const INVALID_PARAMS: i64 = -32_602;

/// Is this what a server without sessions answers to `initialize`? Then it is worth a `server/discover`, whose answer decides. Other
/// errors with 400 or 404, and all other statuses, are the answer of a server that knows sessions.
pub(crate) fn is_worth_a_probe(status: u16, answer: &[u8]) -> bool {
    let code = Message::read(answer).error_code;
    let codes = [HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION, METHOD_NOT_FOUND, INVALID_PARAMS];
    matches!(status, 400 | 404) && code.is_some_and(|code| codes.contains(&code))
}

/// Was the request refused because a field that repeats a value of the body is missing or another one? Then it was not carried out.
pub(crate) fn is_header_mismatch(status: u16, answer: &[u8]) -> bool {
    status == 400 && Message::read(answer).error_code == Some(HEADER_MISMATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_63_only_a_modern_error_with_400_or_404_is_worth_a_probe() {
        let is = |status, code: i64| {
            let answer = format!(r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"x"}}}}"#);
            is_worth_a_probe(status, answer.as_bytes())
        };
        for code in [-32_020, -32_021, -32_022, -32_601, -32_602] {
            assert!(is(400, code) && is(404, code), "{code}");
            for status in [200, 401, 403, 405, 500, 503] {
                assert!(!is(status, code), "{status}");
            }
        }
        for code in [-32_000, -32_001, -32_600, -32_603, -32_700, -31_080, 1] {
            assert!(!is(400, code) && !is(404, code), "{code}");
        }
        assert!(!is_worth_a_probe(400, b"Bad Request") && !is_worth_a_probe(404, br#"{"result":{}}"#));
    }
}
