//! Requests to a server without sessions.

use super::super::object::{Object, quoted};
use super::declared::Meta;
use super::filter::Filter;
use super::input::Carried;

/// The methods whose answer may ask for more input.
pub(crate) fn may_need_input(method: &str) -> bool {
    matches!(method, "tools/call" | "resources/read" | "prompts/get")
}

/// A request of the client for a server without sessions: with this id, which is JSON, with its `_meta`, and with what a round before
/// it brought. `None` if its parameters are no object, or a name in them occurs twice.
pub(crate) fn translated(request: &str, id: &str, meta: &Meta, carried: &Carried) -> Option<String> {
    let mut request = Object::read(request)?;
    let params = request.remove("params");
    let mut params = params.as_deref().map_or_else(|| Some(Object::default()), Object::read)?;
    let with_meta = meta.added_to(params.get("_meta"))?;
    params.set("_meta", with_meta);
    for (name, value) in [("inputResponses", &carried.answers), ("requestState", &carried.state)] {
        match value {
            Some(value) => params.set(name, &**value),
            None => drop(params.remove(name)),
        }
    }
    let params = params.to_json();
    request.set("id", id);
    request.set("params", params);
    Some(request.to_json())
}

/// A request of ours. `params` are members of its parameters as JSON, besides `_meta`.
fn own(id: &str, method: &str, meta: &str, params: &[(&'static str, String)]) -> String {
    let mut object = Object::default();
    for (name, value) in params {
        object.set(name, &**value);
    }
    object.set("_meta", meta);
    let (method, params) = (quoted(method), object.to_json());
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#)
}

/// Asks who the server is.
pub(crate) fn discover(id: &str, meta: &str) -> String {
    own(id, "server/discover", meta, &[])
}

/// Asks for the notifications that pass the filter.
pub(crate) fn listen(id: &str, meta: &str, filter: &Filter) -> String {
    own(id, "subscriptions/listen", meta, &[("notifications", filter.to_json())])
}

/// Asks for the tools after this cursor.
pub(crate) fn list_tools(id: &str, meta: &str, cursor: Option<&str>) -> String {
    let cursor = cursor.map(|cursor| ("cursor", quoted(cursor)));
    own(id, "tools/list", meta, cursor.as_slice())
}

/// The `_meta` of a request of the client, for a request of ours to the same server. A progress token belongs to one request.
pub(crate) fn meta_of(request: &str) -> Option<String> {
    let request = Object::read(request)?;
    let params = Object::read(request.get("params")?)?;
    let mut meta = Object::read(params.get("_meta")?)?;
    meta.remove("progressToken");
    Some(meta.to_json())
}

#[cfg(test)]
mod tests {
    use super::super::declared::Declared;
    use super::*;

    fn meta() -> Meta {
        let body = br#"{"method":"initialize","params":{"capabilities":{"roots":{}}}}"#;
        Meta::new(Declared::read(body).expect("it is good"))
    }

    /// What each request of the tests has in its `_meta`.
    const META: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"roots":{}}"#;

    #[test]
    fn a_request_keeps_all_but_its_id_and_gets_a_meta() {
        for (request, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
                r#"{"jsonrpc":"2.0","id":"n","method":"tools/list","params":{"_meta":{META}}}"#,
            ),
            (
                r#"{ "jsonrpc": "2.0", "method": "tools/call", "id": 1.0, "params": {"arguments": {"b": 1.0, "a": "\u00e4"}, "name": "x"}, "z": 0 }"#,
                r#"{"jsonrpc":"2.0","method":"tools/call","id":"n","z":0,"params":{"arguments":{"b": 1.0, "a": "\u00e4"},"name":"x","_meta":{META}}}"#,
            ),
            (
                r#"{"id":1,"method":"x","params":{"_meta":{"progressToken":"p"},"requestState":"forged","inputResponses":{}}}"#,
                r#"{"id":"n","method":"x","params":{"_meta":{"progressToken":"p",META}}}"#,
            ),
        ] {
            let request = translated(request, "\"n\"", &meta(), &Carried::default()).expect("it is good");
            // Blanks between a name and its value are no part of either.
            assert_eq!(request, expected.replace("META", META));
        }
    }

    #[test]
    fn the_next_round_has_the_answers_and_the_state_byte_for_byte() {
        let carried =
            Carried { answers: Some(r#"{"q":{"roots":[]}}"#.to_owned()), state: Some(r#""\u0061/ä""#.to_owned()) };
        let request = r#"{"id":1,"method":"tools/call","params":{"name":"x","_meta":{}}}"#;
        let request = translated(request, "2", &meta(), &carried).expect("it is good");
        let expected = r#"{"id":2,"method":"tools/call","params":{"name":"x","_meta":{META},"inputResponses":{"q":{"roots":[]}},"requestState":"\u0061/ä"}}"#;
        assert_eq!(request, expected.replace("META", META));
    }

    #[test]
    fn parameters_that_receivers_read_differently_are_not_translated() {
        for params in ["[]", "1", "null", r#"{"name":"a","name":"b"}"#, r#"{"_meta":1}"#, r#"{"_meta":{"a":1,"a":2}}"#]
        {
            let request = format!(r#"{{"id":1,"method":"x","params":{params}}}"#);
            assert_eq!(translated(&request, "1", &meta(), &Carried::default()), None, "{params}");
        }
    }

    #[test]
    fn our_own_requests_are_whole_messages() {
        assert_eq!(discover("1", "{}"), r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{}}}"#);
        let expected = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"\"","_meta":{}}}"#;
        assert_eq!(list_tools("1", "{}", Some("\"")), expected);
        let filter = Filter { tools: true, ..Filter::default() };
        let expected = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true},"_meta":{}}}"#;
        assert_eq!(listen("1", "{}", &filter), expected);
        let request = r#"{"params":{"name":"x","_meta":{"a":1.0,"progressToken":7}}}"#;
        assert_eq!(meta_of(request).as_deref(), Some(r#"{"a":1.0}"#));
    }
}
