use proptest::prelude::*;
use serde_json::{Value, json};

use super::refusal::{AnswerTo, Refusal, Remediation, without_our_code};
use super::*;

/// A body, and what is read of it: kind, id, method, tool, version, error code, ambiguity.
type Case =
    (&'static str, Kind, Option<&'static str>, Option<&'static str>, [Option<&'static str>; 2], Option<i64>, bool);

const CALL: Option<&str> = Some("tools/call");
const NO: [Option<&str>; 2] = [None, None];

const CASES: &[Case] = &[
    (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Kind::Request, Some("1"), Some("ping"), NO, None, false),
    // Ids keep type and form.
    (r#"{"id":0,"method":"ping"}"#, Kind::Request, Some("0"), Some("ping"), NO, None, false),
    (r#"{"id": 1.0 ,"method":"ping"}"#, Kind::Request, Some("1.0"), Some("ping"), NO, None, false),
    (r#"{"id":-1e2,"method":"ping"}"#, Kind::Request, Some("-1e2"), Some("ping"), NO, None, false),
    (r#"{"id":"1","method":"ping"}"#, Kind::Request, Some("\"1\""), Some("ping"), NO, None, false),
    (r#"{"id":"\u0061\/","method":"ping"}"#, Kind::Request, Some(r#""\u0061\/""#), Some("ping"), NO, None, false),
    (
        r#"{"id":123456789012345678901234567890,"method":"ping"}"#,
        Kind::Request,
        Some("123456789012345678901234567890"),
        Some("ping"),
        NO,
        None,
        false,
    ),
    (r#"{"id":null,"method":"ping"}"#, Kind::Request, Some("null"), Some("ping"), NO, None, false),
    (r#"{"id":true,"method":"ping"}"#, Kind::Unreadable, None, None, NO, None, false),
    (r#"{"id":[1],"method":"ping"}"#, Kind::Unreadable, None, None, NO, None, false),
    (r#"{"id":"\ud800","method":"ping"}"#, Kind::Unreadable, None, None, NO, None, false),
    // An id that is not at the top level is none; one that occurs twice is none, under any spelling.
    (r#"{"method":"x","params":{"id":7}}"#, Kind::Notification, None, Some("x"), NO, None, false),
    (r#"{"id":1,"method":"x","id":1}"#, Kind::Request, None, Some("x"), NO, None, true),
    (r#"{"id":1,"method":"x","i\u0064":2}"#, Kind::Request, None, Some("x"), NO, None, true),
    // A method that occurs twice may be the harmless one to us and the other one to the server.
    (r#"{"id":1,"method":"ping","method":"tools/call"}"#, Kind::Request, Some("1"), None, NO, None, true),
    (r#"{"id":1,"m\u0065thod":"tools/call"}"#, Kind::Request, Some("1"), CALL, NO, None, false),
    (r#"{"id":1,"method":7}"#, Kind::Unreadable, Some("1"), None, NO, None, false),
    // Tools and versions, in any order of members.
    (
        r#"{"params":{"arguments":{"name":"b"},"name":"a"},"method":"tools/call","id":1}"#,
        Kind::Request,
        Some("1"),
        CALL,
        [Some("a"), None],
        None,
        false,
    ),
    (
        r#"{"id":1,"method":"tools/call","params":{"name":"a","n\u0061me":"b"}}"#,
        Kind::Request,
        Some("1"),
        CALL,
        NO,
        None,
        true,
    ),
    (
        r#"{"id":1,"method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}"#,
        Kind::Request,
        Some("1"),
        CALL,
        NO,
        None,
        true,
    ),
    (r#"{"id":1,"method":"tools/call","params":{"name":7}}"#, Kind::Request, Some("1"), CALL, NO, None, false),
    (r#"{"id":1,"method":"tools/call","params":["name"]}"#, Kind::Request, Some("1"), CALL, NO, None, false),
    (
        r#"{"id":1,"method":"prompts/get","params":{"name":"a"}}"#,
        Kind::Request,
        Some("1"),
        Some("prompts/get"),
        NO,
        None,
        false,
    ),
    (
        r#"{"id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","name":"n"}}"#,
        Kind::Request,
        Some("1"),
        Some("initialize"),
        [None, Some("2025-06-18")],
        None,
        false,
    ),
    // Responses.
    (r#"{"id":1,"result":{}}"#, Kind::Response, Some("1"), None, NO, None, false),
    (
        r#"{"id":"a","error":{"code":-32601,"message":"m"}}"#,
        Kind::Response,
        Some("\"a\""),
        None,
        NO,
        Some(-32_601),
        false,
    ),
    (r#"{"error":{"code":-31080.0}}"#, Kind::Response, None, None, NO, Some(-31_080), false),
    (r#"{"error":{"code":1.5}}"#, Kind::Response, None, None, NO, None, false),
    (r#"{"error":{"code":1,"code":1}}"#, Kind::Response, None, None, NO, None, true),
    (r#"{"error":"code"}"#, Kind::Response, None, None, NO, None, false),
    (r#"{"id":1}"#, Kind::Unreadable, Some("1"), None, NO, None, false),
    // Batches and bodies that hold no message.
    (r#"[{"id":1,"method":"ping"}]"#, Kind::Batch, None, None, NO, None, false),
    ("[]", Kind::Batch, None, None, NO, None, false),
    ("[1,]", Kind::Unreadable, None, None, NO, None, false),
    ("", Kind::Unreadable, None, None, NO, None, false),
    ("null", Kind::Unreadable, None, None, NO, None, false),
    (r#"{"id":1,"method":"ping"} x"#, Kind::Unreadable, None, None, NO, None, false),
    (r#"{"id":1,"method":"ping""#, Kind::Unreadable, None, None, NO, None, false),
    ("\u{feff}{\"id\":1,\"method\":\"ping\"}", Kind::Unreadable, None, None, NO, None, false),
];

#[test]
fn what_a_message_is_can_be_told_from_its_bytes() {
    for (body, kind, id, method, [tool, version], error_code, is_ambiguous) in CASES {
        let read = Message::read(body.as_bytes());
        assert_eq!(read.kind, *kind, "{body}");
        assert_eq!(read.id.as_ref().map(Id::as_str), *id, "{body}");
        assert_eq!(read.method.as_deref(), *method, "{body}");
        assert_eq!((read.tool.as_deref(), read.protocol_version.as_deref()), (*tool, *version), "{body}");
        assert_eq!((read.error_code, read.is_ambiguous), (*error_code, *is_ambiguous), "{body}");
    }
}

#[test]
fn what_is_no_utf8_is_unreadable() {
    assert_eq!(Message::read(b"{\"id\":1,\"method\":\"\xff\"}").kind, Kind::Unreadable);
}

#[test]
fn nesting_has_the_limit_of_serde_json() {
    for (levels, kind) in [(126, Kind::Request), (127, Kind::Unreadable), (1_000_000, Kind::Unreadable)] {
        let body = format!("{{\"id\":1,\"method\":\"x\",\"params\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(Message::read(body.as_bytes()).kind, kind, "{levels}");
        assert_eq!(serde_json::from_str::<Value>(&body).is_ok(), kind == Kind::Request, "{levels}");
    }
    let deep_id = format!("{{\"method\":\"x\",\"id\":{}", "[".repeat(1_000_000));
    assert_eq!(Message::read(deep_id.as_bytes()).kind, Kind::Unreadable);
}

#[test]
fn params_are_kept_as_they_were_sent() {
    let body = br#"{"id":1,"params": {"a": 1.0, "b":"\u0061"} ,"method":"initialize"}"#;
    assert_eq!(params(body).map(RawValue::get), Some(r#"{"a": 1.0, "b":"\u0061"}"#));
    assert!(params(br#"{"params":{},"params":{}}"#).is_none());
    assert!(params(br#"{"id":1}"#).is_none() && params(b"[]").is_none());
}

fn id(text: &str) -> Id {
    Id::of(serde_json::from_str(text).expect("JSON")).expect("an id")
}

#[test]
fn an_id_in_another_form_answers_the_same_request() {
    for (one, other, same) in [
        ("1", "1", true),
        ("1", "1.0", true),
        (r#""a""#, r#""\u0061""#, true),
        ("1", r#""1""#, false),
        ("0", "null", false),
        ("1", "2", false),
        ("9007199254740993", "9007199254740993", true),
    ] {
        assert_eq!(id(one).answers(&id(other)), same, "{one} and {other}");
    }
    assert_ne!(id("1"), id("1.0"), "to compare form for form");
}

fn refusal() -> Refusal<'static> {
    Refusal {
        message: "files: the server refuses the token; its operator must act",
        class: "refused",
        error: "invalid_token",
        retry_after: None,
        server: "files",
        request_id: "r-1",
        remediation: Remediation::Undisclosed,
        said: None,
    }
}

#[test]
fn our_error_carries_the_id_byte_for_byte() {
    let ids = [id("1.0"), id(r#""\u0061""#), id("0")];
    for id in &ids {
        let text = String::from_utf8(refusal().to_json(AnswerTo::Request(id))).expect("UTF-8");
        assert!(
            text.starts_with(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{{\"code\":-31080,", id.as_str()))
        );
        assert!(!text.contains('\n'), "a line of its own");
    }
}

#[test]
fn our_error_has_the_documented_members() {
    let read = |refusal: &Refusal<'_>, to: AnswerTo<'_>| -> Value {
        serde_json::from_slice(&refusal.to_json(to)).expect("JSON")
    };
    assert_eq!(
        read(&refusal(), AnswerTo::Unknown),
        json!({"jsonrpc": "2.0", "id": null, "error": {"code": -31080, "message": refusal().message, "data": {
            "by": "safeconduct", "class": "refused", "error": "invalid_token", "server": "files", "request_id": "r-1",
            "remediation": "undisclosed"}}})
    );
    let full =
        Refusal { retry_after: Some(3), said: Some("no \"way\""), remediation: Remediation::Unavailable, ..refusal() };
    let error = read(&full, AnswerTo::Nobody);
    assert!(error.get("id").is_none(), "an answer to a notification has no id");
    let data = &error["error"]["data"];
    assert_eq!(
        (&data["retry_after"], &data["said"], &data["remediation"]),
        (&json!(3), &json!("no \"way\""), &json!("unavailable"))
    );
}

#[test]
fn an_upstream_error_of_our_number_becomes_an_internal_error() {
    for (before, after) in [
        (
            r#"{"id":1,"error":{"code":-31080,"message":"m"}}"#,
            Some(r#"{"id":1,"error":{"code":-32603,"message":"m"}}"#),
        ),
        (r#"{"error":{"code": -31080.0 }}"#, Some(r#"{"error":{"code": -32603 }}"#)),
        (r#"{"error":{"code":-3.108e4}}"#, Some(r#"{"error":{"code":-32603}}"#)),
        (
            r#"{"error":{"code":1,"c\u006fde":-31080},"error":{"code":-31080}}"#,
            Some(r#"{"error":{"code":1,"c\u006fde":-32603},"error":{"code":-32603}}"#),
        ),
        (r#"[{"error":{"code":-31080}},1]"#, Some(r#"[{"error":{"code":-32603}},1]"#)),
        (r#"{"error":{"code":-32603,"data":{"code":-31080}}}"#, None),
        (r#"{"result":{"error":{"code":-31080}}}"#, None),
        (r#"{"error":{"code":"-31080"}}"#, None),
        ("no JSON, -31080", None),
    ] {
        let changed = without_our_code(before.as_bytes()).map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
        assert_eq!(changed.as_deref(), after, "{before}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["tools/call", "initialize", "name", "", "\"\\\u{2028}\n"]).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop::sample::select(vec![
            "id",
            "method",
            "params",
            "name",
            "protocolVersion",
            "error",
            "code",
            "result",
            "x\n",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5)
                .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

/// Kind, id, method, tool and version, error code.
type Expected<'a> = (Kind, Option<&'a Value>, Option<&'a str>, [Option<&'a str>; 2], Option<i64>);

/// What `serde_json` reads of a message, in the words of [`Message`].
fn expected(value: &Value) -> Expected<'_> {
    let nothing = |kind| (kind, None, None, [None, None], None);
    let Some(message) = value.as_object() else {
        return nothing(if value.is_array() { Kind::Batch } else { Kind::Unreadable });
    };
    let (id, method) = (message.get("id"), message.get("method"));
    if id.is_some_and(|id| id.is_boolean() || id.is_array() || id.is_object())
        || method.is_some_and(|method| !method.is_string())
    {
        return nothing(Kind::Unreadable);
    }
    let kind = match (method, id) {
        (Some(_), Some(_)) => Kind::Request,
        (Some(_), None) => Kind::Notification,
        _ if message.contains_key("result") || message.contains_key("error") => Kind::Response,
        _ => Kind::Unreadable,
    };
    let method = method.and_then(Value::as_str);
    let param = |name: &str, of: &str| value["params"][name].as_str().filter(|_| method == Some(of));
    let code = &value["error"]["code"];
    let integral = || code.as_f64().and_then(|code| code.to_string().parse().ok());
    let code = code.as_i64().or_else(integral).filter(|_| kind == Kind::Response);
    (kind, id, method, [param("name", "tools/call"), param("protocolVersion", "initialize")], code)
}

proptest! {
    #[test]
    fn every_value_is_read_as_serde_json_reads_it(value in any_json()) {
        for text in [serde_json::to_vec(&value), serde_json::to_vec_pretty(&value)] {
            let text = text.expect("JSON");
            let read = Message::read(&text);
            // Not the value itself: serde_json reads some floats as their neighbours.
            let value = serde_json::from_slice(&text).expect("JSON");
            let (kind, id, method, params, code) = expected(&value);
            prop_assert_eq!(read.kind, kind);
            let parsed = read.id.as_ref().map(|id| serde_json::from_str::<Value>(id.as_str()).expect("JSON"));
            if kind != Kind::Unreadable {
                prop_assert_eq!(parsed.as_ref(), id);
            }
            prop_assert_eq!(read.method.as_deref(), method);
            prop_assert_eq!([read.tool.as_deref(), read.protocol_version.as_deref()], params);
            prop_assert_eq!(read.error_code, code);
            prop_assert!(!read.is_ambiguous);
        }
    }

    /// What we can read, serde_json can read: there is no text that is a message to us and none to others.
    #[test]
    fn any_bytes_are_read_without_panic_and_never_more_than_serde_json_reads(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let kind = Message::read(&bytes).kind;
        prop_assert!(kind == Kind::Unreadable || serde_json::from_slice::<Value>(&bytes).is_ok());
        let _ = (params(&bytes), without_our_code(&bytes));
    }

    #[test]
    fn any_mixture_of_syntax_is_read_without_panic_and_never_more_than_serde_json_reads(parts in prop::collection::vec(
        prop::sample::select(vec!["{", "}", "[", "]", ":", ",", "\"id\"", "\"method\"", "\"\\ud800\"", "1e999", "-", "0", "\"",
            "\\", "null", "\"error\"", "\"code\"", "-31080", "\"params\"", "\"name\"", " ", "\n"]), 0..40)) {
        let text = parts.concat();
        let kind = Message::read(text.as_bytes()).kind;
        prop_assert!(kind == Kind::Unreadable || serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
        let _ = (params(text.as_bytes()), without_our_code(text.as_bytes()));
    }
}
