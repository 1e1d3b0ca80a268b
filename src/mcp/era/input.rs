//! What a server needs before it answers: questions to the client, and a state that it wants back.

use super::super::object::{Object, quoted};

/// The most questions at the same time. More than a person can look at.
const MOST: usize = 16;

/// What the server asks in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) questions: Vec<Question>,
    /// As JSON, to be sent back byte for byte.
    state: Option<String>,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Under which the server wants the answer.
    key: String,
    /// `None`: no client can be asked this.
    pub(crate) kind: Option<Kind>,
    method: String,
    /// As JSON.
    params: Option<String>,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Roots,
    Sampling,
    /// The model may call tools of the server.
    SamplingWithTools,
    /// A person fills in a form.
    Form,
    /// A person opens a page.
    Url,
}

impl Kind {
    fn of(method: &str, params: Option<&str>) -> Option<Self> {
        let params = params.map_or_else(|| Some(Object::default()), Object::read)?;
        match method {
            "roots/list" => Some(Self::Roots),
            "sampling/createMessage" => {
                let has_tools = params.get("tools").or_else(|| params.get("toolChoice")).is_some();
                Some(if has_tools { Self::SamplingWithTools } else { Self::Sampling })
            }
            "elicitation/create" => match params.get("mode").map(|_| params.text("mode")) {
                None => Some(Self::Form),
                Some(mode) => match mode?.as_str() {
                    "form" => Some(Self::Form),
                    "url" => Some(Self::Url),
                    _ => None,
                },
            },
            _ => None,
        }
    }
}

impl Asked {
    /// Reads a result that needs input. `None` if it asks for nothing and has no state, or asks for too much.
    pub(super) fn read(result: &Object<'_>) -> Option<Self> {
        let requests = result.get("inputRequests").map_or_else(|| Some(Object::default()), Object::read)?;
        let state = result.get("requestState");
        let is_state = state.is_none_or(|state| state.starts_with('"'));
        if !is_state || requests.len() > MOST || (requests.is_empty() && state.is_none()) {
            return None;
        }
        let questions = requests.members().map(|(key, request)| Question::read(key, request)).collect::<Option<_>>()?;
        Some(Self { questions, state: state.map(str::to_owned) })
    }

    /// What the next round carries: these results, which are JSON and in the order of the questions, and the state.
    pub(crate) fn carried(&self, results: &[String]) -> Carried {
        let mut answers = Object::default();
        for (question, result) in self.questions.iter().zip(results) {
            answers.set(&question.key, &**result);
        }
        Carried { answers: (!answers.is_empty()).then(|| answers.to_json()), state: self.state.clone() }
    }
}

impl Question {
    fn read(key: &str, request: &str) -> Option<Self> {
        let request = Object::read(request)?;
        let (method, params) = (request.text("method")?, request.get("params"));
        let kind = Kind::of(&method, params);
        Some(Self { key: key.to_owned(), kind, method, params: params.map(str::to_owned) })
    }

    /// The request to the client. The id is JSON.
    pub(crate) fn to_request(&self, id: &str) -> String {
        let method = quoted(&self.method);
        match &self.params {
            Some(params) => format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#),
            None => format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method}}}"#),
        }
    }
}

/// What a round brought for the next one, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(super) answers: Option<String>,
    pub(super) state: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(result: &str) -> Option<Asked> {
        Asked::read(&Object::read(result).expect("an object"))
    }

    #[test]
    fn questions_become_requests_and_their_results_come_back_under_their_keys() {
        let result = r#"{"inputRequests":{"b\u0061":{"method":"roots/list"},"a":{"method":"sampling/createMessage","params":{ "maxTokens":1.0}}},
            "requestState":"s\u0061\/ä"}"#;
        let asked = asked(result).expect("it is good");
        let [roots, sampling] = &asked.questions[..] else { panic!("{asked:?}") };
        assert_eq!((roots.kind, sampling.kind), (Some(Kind::Roots), Some(Kind::Sampling)));
        assert_eq!(roots.to_request("\"x\""), r#"{"jsonrpc":"2.0","id":"x","method":"roots/list"}"#);
        let expected = r#"{"jsonrpc":"2.0","id":2,"method":"sampling/createMessage","params":{ "maxTokens":1.0}}"#;
        assert_eq!(sampling.to_request("2"), expected);
        let carried = asked.carried(&[r#"{"roots":[ ]}"#.to_owned(), r#"{"role":"user"}"#.to_owned()]);
        assert_eq!(carried.answers.as_deref(), Some(r#"{"ba":{"roots":[ ]},"a":{"role":"user"}}"#));
        assert_eq!(carried.state.as_deref(), Some(r#""s\u0061\/ä""#), "byte for byte");
    }

    #[test]
    fn a_state_alone_is_enough_and_nothing_at_all_is_not() {
        let carried = asked(r#"{"requestState":""}"#).expect("it is good").carried(&[]);
        assert_eq!(carried, Carried { answers: None, state: Some("\"\"".to_owned()) });
        let many: Vec<String> = (0..=MOST).map(|key| format!(r#""{key}":{{"method":"roots/list"}}"#)).collect();
        let many = format!(r#"{{"inputRequests":{{{}}}}}"#, many.join(","));
        for bad in [
            "{}",
            r#"{"inputRequests":{}}"#,
            r#"{"inputRequests":[]}"#,
            r#"{"inputRequests":{"a":{}}}"#,
            r#"{"inputRequests":{"a":{"method":1}}}"#,
            r#"{"inputRequests":{"a":{"method":"roots/list"},"a":{"method":"roots/list"}}}"#,
            r#"{"requestState":1}"#,
            &many,
        ] {
            assert_eq!(asked(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_asked_is_known_by_its_method_and_its_mode() {
        for (request, kind) in [
            (r#"{"method":"elicitation/create","params":{"message":"?"}}"#, Some(Kind::Form)),
            (r#"{"method":"elicitation/create","params":{"mode":"form"}}"#, Some(Kind::Form)),
            (r#"{"method":"elicitation/create","params":{"mode":"url"}}"#, Some(Kind::Url)),
            (r#"{"method":"elicitation/create","params":{"mode":"u\u0072l"}}"#, Some(Kind::Url)),
            (r#"{"method":"elicitation/create","params":{"mode":"voice"}}"#, None),
            (r#"{"method":"elicitation/create","params":{"mode":null}}"#, None),
            (r#"{"method":"elicitation/create","params":{"mode":"form","mode":"url"}}"#, None),
            (r#"{"method":"sampling/createMessage","params":{"tools":[]}}"#, Some(Kind::SamplingWithTools)),
            (r#"{"method":"sampling/createMessage","params":{"toolChoice":{}}}"#, Some(Kind::SamplingWithTools)),
            (r#"{"method":"tools/call","params":{}}"#, None),
            (r#"{"method":"ping"}"#, None),
        ] {
            assert_eq!(Question::read("a", request).expect("a question").kind, kind, "{request}");
        }
    }
}
