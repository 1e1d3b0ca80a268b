//! What a server says of itself: in its answer to `server/discover`, and from that in the answer to `initialize`.

use serde::Deserialize;
use serde_json::Value;

use super::super::object::{Object, quoted};
use super::declared::Declared;
use super::filter::Filter;
use super::{SERVER_INFO, SESSION_VERSIONS, VERSION};

/// A server without sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discovered {
    capabilities: String,
    info: Option<String>,
    instructions: Option<String>,
    /// The notifications that it has.
    pub(crate) offer: Filter,
    /// Can resources be subscribed to?
    pub(crate) has_subscriptions: bool,
    /// Has it a log that can be sent?
    pub(crate) has_log: bool,
}

/// What is read of the capabilities.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Capability {
    list_changed: Value,
    subscribe: Value,
}

impl Discovered {
    /// Reads the answer to `server/discover`. `None` if it is an error, or if no version is there that we speak.
    pub(crate) fn read(answer: &str) -> Option<Self> {
        let answer = Object::read(answer)?;
        let result = Object::read(answer.get("result")?)?;
        let versions: Vec<String> = serde_json::from_str(result.get("supportedVersions")?).ok()?;
        if !versions.iter().any(|version| version == VERSION) {
            return None;
        }
        let raw = result.get("capabilities")?;
        let capabilities = Object::read(raw)?;
        let of = |name| capabilities.get(name).and_then(|value| serde_json::from_str::<Capability>(value).ok());
        let changes = |name| of(name).is_some_and(|found| found.list_changed == Value::Bool(true));
        let offer = Filter {
            tools: changes("tools"),
            prompts: changes("prompts"),
            resources: changes("resources"),
            ..Filter::default()
        };
        let meta = result.get("_meta").and_then(Object::read);
        let info = meta.as_ref().and_then(|meta| meta.get(SERVER_INFO)).filter(|info| is_implementation(info));
        Some(Self {
            offer,
            has_subscriptions: of("resources").is_some_and(|found| found.subscribe == Value::Bool(true)),
            has_log: capabilities.get("logging").and_then(Object::read).is_some(),
            info: info.map(str::to_owned),
            instructions: result.text("instructions"),
            capabilities: raw.to_owned(),
        })
    }

    /// The result of the `initialize` of this client. `name` is that of the server if it has not told its own.
    pub(crate) fn hello(&self, declared: &Declared, name: &str) -> String {
        let wanted = declared.version.as_deref();
        let version =
            SESSION_VERSIONS.into_iter().find(|version| Some(*version) == wanted).unwrap_or(SESSION_VERSIONS[0]);
        let unnamed = || format!(r#"{{"name":{},"version":"0"}}"#, quoted(name));
        let mut result = Object::default();
        result.set("protocolVersion", quoted(version));
        result.set("capabilities", &*self.capabilities);
        result.set("serverInfo", self.info.clone().unwrap_or_else(unnamed));
        if let Some(instructions) = &self.instructions {
            result.set("instructions", quoted(instructions));
        }
        result.to_json()
    }
}

/// Clients refuse a server without a name and a version.
fn is_implementation(info: &str) -> bool {
    Object::read(info).is_some_and(|info| info.text("name").is_some() && info.text("version").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(version: &str) -> Declared {
        let body =
            format!(r#"{{"method":"initialize","params":{{"capabilities":{{}},"protocolVersion":"{version}"}}}}"#);
        Declared::read(body.as_bytes()).expect("it is good")
    }

    #[test]
    fn initialize_is_answered_from_what_was_discovered() {
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","supportedVersions":["2099-01-01","2026-07-28"],
            "capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":false},"logging":{},"x":1.0},
            "ttlMs":0,"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1","title":"\u00e4"}},
            "instructions":"\u00e4\n"}}"#;
        let found = Discovered::read(answer).expect("it is good");
        let expected = concat!(
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true,"#,
            r#""listChanged":false},"logging":{},"x":1.0},"serverInfo":{"name":"s","version":"1","title":"\u00e4"},"instructions":"ä\n"}"#
        );
        assert_eq!(found.hello(&declared("2025-06-18"), "demo"), expected);
        assert_eq!((found.has_subscriptions, found.has_log), (true, true));
        assert_eq!(found.offer, Filter { tools: true, ..Filter::default() });
        let bare = r#"{"id":1,"result":{"supportedVersions":["2026-07-28"],"capabilities":{},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}}}"#;
        let bare = Discovered::read(bare).expect("it is good");
        for unknown in ["2026-07-28", "1", "2025-11-25"] {
            let expected =
                r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"demo","version":"0"}}"#;
            assert_eq!(bare.hello(&declared(unknown), "demo"), expected, "{unknown}");
        }
        assert_eq!((bare.offer.is_empty(), bare.has_subscriptions, bare.has_log), (true, false, false));
    }

    #[test]
    fn what_is_no_such_answer_is_no_such_server() {
        for answer in [
            r#"{"id":1,"error":{"code":-32601,"message":"x"}}"#,
            r#"{"id":1,"result":{}}"#,
            r#"{"id":1,"result":{"supportedVersions":["2025-11-25"],"capabilities":{}}}"#,
            r#"{"id":1,"result":{"supportedVersions":"2026-07-28","capabilities":{}}}"#,
            r#"{"id":1,"result":{"supportedVersions":["2026-07-28"]}}"#,
            r#"{"id":1,"result":{"supportedVersions":["2026-07-28"],"capabilities":[]}}"#,
            "{}",
            "",
        ] {
            assert_eq!(Discovered::read(answer), None, "{answer}");
        }
    }
}
