//! The fields of the requests to `/mcp/NAME`. Pure.
//!
//! A message of the stateless wire (2026-07-28 and later) carries its protocol version in `_meta`, and its fields are made
//! from its body. Messages of the wire before belong to a session.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mcp::fields::{PROTOCOL_VERSION, SESSION_ID, is_media, is_unencoded};
use crate::mcp::rpc;

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The longest protocol version and session id that is sent back.
const VERSION_CAP: usize = 64;
const SESSION_ID_CAP: usize = 1_024;
/// The longest name that becomes a field. The server limits the head of a request.
const NAME_CAP: usize = 8 * 1_024;

/// To which wire a message of the client belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// Until 2025-11-25.
    Session,
    /// Since 2026-07-28: with the fields that repeat what is in the body.
    Stateless(Box<HeaderMap>),
}

/// A name of the body that cannot be a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameTooLong;

impl Wire {
    /// The wire of this message.
    pub(super) fn of(body: &[u8], method: &str) -> Result<Self, NameTooLong> {
        #[derive(Deserialize)]
        struct Params<'a> {
            #[serde(borrow, rename = "_meta")]
            meta: Option<&'a RawValue>,
            #[serde(borrow)]
            name: Option<&'a RawValue>,
            #[serde(borrow)]
            uri: Option<&'a RawValue>,
            #[serde(borrow, rename = "taskId")]
            task_id: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Meta {
            #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
            version: String,
        }
        let params = rpc::params(body).and_then(|params| serde_json::from_str::<Params<'_>>(params.get()).ok());
        let Some(params) = params else { return Ok(Self::Session) };
        let meta = params.meta.and_then(|meta| serde_json::from_str::<Meta>(meta.get()).ok());
        let Some(version) = meta.and_then(|meta| version(&meta.version)) else { return Ok(Self::Session) };
        let mut fields = HeaderMap::new();
        fields.insert(PROTOCOL_VERSION, version);
        fields.insert(METHOD, encoded(method)?);
        let name = match method {
            "tools/call" | "prompts/get" => params.name,
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => params.uri,
            "tasks/get" | "tasks/update" | "tasks/cancel" => params.task_id,
            _ => None,
        };
        if let Some(name) = name.and_then(|name| serde_json::from_str::<String>(name.get()).ok()) {
            fields.insert(NAME, encoded(&name)?);
        }
        Ok(Self::Stateless(Box::new(fields)))
    }
}

/// A text as the value of a field: as it is, or in base64 if it could not be read back otherwise.
pub(super) fn encoded(text: &str) -> Result<HeaderValue, NameTooLong> {
    // An empty field is lost on some ways.
    let is_plain = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let is_trimmed = text.trim_matches(' ').len() == text.len();
    let looks_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    let value = match is_plain && is_trimmed && !looks_encoded {
        true => text.to_owned(),
        false => format!("=?base64?{}?=", STANDARD.encode(text)),
    };
    let value = Some(value).filter(|value| value.len() <= NAME_CAP);
    value.and_then(|value| HeaderValue::from_str(&value).ok()).ok_or(NameTooLong)
}

/// A protocol version that can be sent.
pub(super) fn version(text: &str) -> Option<HeaderValue> {
    let is_one = !text.is_empty() && text.len() <= VERSION_CAP && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_one { HeaderValue::from_str(text).ok() } else { None }
}

/// The session id of an answer, if it can be sent back. The specification permits visible ASCII alone.
pub(super) fn session_id(answer: &HeaderMap) -> Option<HeaderValue> {
    let value = answer.get(SESSION_ID)?;
    let bytes = value.as_bytes();
    let is_one = !bytes.is_empty() && bytes.len() <= SESSION_ID_CAP && bytes.iter().all(u8::is_ascii_graphic);
    is_one.then(|| value.clone())
}

/// The fields of every request, after those that the user wants.
pub(super) fn common(mut extra: HeaderMap) -> HeaderMap {
    extra.insert(HOST, HeaderValue::from_static("localhost"));
    extra.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!("safeconduct/", env!("CARGO_PKG_VERSION"))));
    extra
}

/// The fields of a POST.
pub(super) fn post(common: &HeaderMap) -> HeaderMap {
    let mut fields = common.clone();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    fields
}

/// May a user add this field to each request? Not if the data path makes it itself, drops it, or refuses a request for it.
pub(crate) fn may_be_added(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is_ours = matches!(
        name,
        "accept"
            | "accept-encoding"
            | "host"
            | "last-event-id"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "expect"
    );
    let is_secret = matches!(
        name,
        "authorization" | "cookie" | "cookie2" | "dpop" | "proxy-authorization" | "x-serverless-authorization"
    );
    let leads =
        matches!(name, "origin" | "referer" | "forwarded" | "via" | "x-real-ip" | "client-ip" | "true-client-ip");
    let of_a_family =
        ["mcp-", "content-", "sec-", "x-amz-", "x-forwarded-"].iter().any(|start| name.starts_with(start));
    !(is_ours || is_secret || leads || of_a_family)
}

/// What the content of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    Events,
    Other,
}

/// Without an encoding: we asked for none.
pub(super) fn media(fields: &HeaderMap) -> Media {
    match () {
        () if !is_unencoded(fields) => Media::Other,
        () if is_media(fields, "application/json") => Media::Json,
        () if is_media(fields, "text/event-stream") => Media::Events,
        () => Media::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stateless(method: &str, params: &str) -> Vec<(String, String)> {
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{{{meta}{params}}}}}");
        let Ok(Wire::Stateless(fields)) = Wire::of(body.as_bytes(), method) else { panic!("{body} is stateless") };
        let text = |value: &HeaderValue| value.to_str().expect("ASCII").to_owned();
        fields.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    fn name(method: &str, params: &str) -> Option<String> {
        stateless(method, params).into_iter().find(|(name, _)| name == "mcp-name").map(|(_, value)| value)
    }

    #[test]
    fn wire_55_method_name_and_version_come_from_the_body() {
        let fields = stateless("tools/call", r#","name":"add","uri":"no""#);
        let of = |wanted: &str| {
            fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| &**value).collect::<Vec<_>>()
        };
        assert_eq!(of("mcp-protocol-version"), ["2026-07-28"]);
        assert_eq!(of("mcp-method"), ["tools/call"]);
        assert_eq!(of("mcp-name"), ["add"]);
        assert_eq!(name("tools/list", r#","name":"add""#), None);
        assert_eq!(name("prompts/get", r#","name":"p""#).as_deref(), Some("p"));
        assert_eq!(name("tools/call", r#","name":5"#), None, "what is no text is the server's to refuse");
    }

    #[test]
    fn wire_56_the_name_of_a_resource_is_its_uri() {
        assert_eq!(name("resources/read", r#","uri":"file:///a","name":"no""#).as_deref(), Some("file:///a"));
        assert_eq!(name("resources/subscribe", r#","uri":"file:///a""#).as_deref(), Some("file:///a"));
        assert_eq!(name("tasks/get", r#","taskId":"t1""#).as_deref(), Some("t1"));
    }

    #[test]
    fn wire_57_what_a_field_cannot_hold_or_looks_encoded_is_base64() {
        for (plain, encoded) in [
            ("sp\u{e4}t", "=?base64?c3DDpHQ=?="),
            (" a", "=?base64?IGE=?="),
            ("=?base64?YQ==?=", "=?base64?PT9iYXNlNjQ/WVE9PT89?="),
            ("a\\r\\nx: y", "=?base64?YQ0KeDogeQ==?="),
            ("a b", "a b"),
            ("", "=?base64??="),
        ] {
            assert_eq!(name("tools/call", &format!(",\"name\":\"{plain}\"")).as_deref(), Some(encoded), "{plain}");
        }
        let long = format!(
            r#"{{"method":"tools/call","params":{{"name":"{}","_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#,
            "x".repeat(1 << 20)
        );
        assert_eq!(Wire::of(long.as_bytes(), "tools/call"), Err(NameTooLong), "1 MiB is no field");
    }

    #[test]
    fn wire_61_a_message_of_a_session_has_no_fields_of_its_own() {
        for body in [
            r#"{"id":1,"method":"tools/call","params":{"name":"add"}}"#,
            r#"{"id":1,"method":"tools/call","params":{"name":"add","_meta":{"progressToken":1}}}"#,
            r#"{"id":1,"method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"a\r\nb"}}}"#,
            r#"{"id":1,"method":"tools/call","params":[]}"#,
            r#"{"id":1,"method":"tools/call"}"#,
        ] {
            assert_eq!(Wire::of(body.as_bytes(), "tools/call"), Ok(Wire::Session), "{body}");
        }
    }

    #[test]
    fn wire_47_the_media_type_is_compared_without_case_and_parameters() {
        let media =
            |value: &'static str| media(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]));
        assert_eq!(media("Application/JSON; charset=utf-8"), Media::Json);
        assert_eq!(media("text/event-stream;charset=utf-8"), Media::Events);
        for other in ["application/jsonl", "text/event-streams", "text/plain", "application/problem+json", ""] {
            assert_eq!(media(other), Media::Other, "{other}");
        }
    }

    #[test]
    fn a_session_id_that_could_change_a_head_is_none() {
        let id = |value: &[u8]| {
            let value = HeaderValue::from_bytes(value).expect("a value");
            session_id(&HeaderMap::from_iter([(SESSION_ID, value)]))
        };
        assert!(id(b"abc-123").is_some());
        assert!(id(b"").is_none() && id(b"a b").is_none() && id("\u{e4}".as_bytes()).is_none());
        assert!(id(&[b'x'; 1_024]).is_some() && id(&[b'x'; 1 << 20]).is_none());
    }

    #[test]
    fn wire_60_no_field_that_the_data_path_makes_can_be_added() {
        let may = |name: &str| may_be_added(&name.parse().expect("a name"));
        for name in [
            "Authorization",
            "Cookie",
            "Host",
            "Mcp-Session-Id",
            "mcp-name",
            "MCP-Protocol-Version",
            "Content-Type",
            "Accept",
            "Origin",
            "Sec-Fetch-Site",
            "X-Forwarded-For",
            "Last-Event-ID",
            "Content-Length",
        ] {
            assert!(!may(name), "{name}");
        }
        assert!(may("X-Tenant") && may("traceparent") && may("User-Agent"));
    }
}
