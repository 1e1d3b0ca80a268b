//! What a server offers in its answer to `initialize`.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The most text of one offer that is kept.
const CAP: usize = 16 * 1_024;

/// The protocol version and the capabilities of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    version: String,
    /// `tools`, and `tools.listChanged` if that is on. Two levels, as the specification defines them.
    capabilities: BTreeSet<String>,
}

impl Offer {
    /// Reads the server's answer. `None` if it is an error, or too large to be kept.
    pub(crate) fn read(answer: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            result: Result,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Result {
            protocol_version: String,
            #[serde(default)]
            capabilities: Map<String, Value>,
        }
        let Answer { result } = serde_json::from_slice(answer).ok()?;
        let mut capabilities = BTreeSet::new();
        for (name, value) in result.capabilities {
            let is_on = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
            let parts = value.as_object().into_iter().flatten().filter(|(_, value)| is_on(value));
            capabilities.extend(parts.map(|(part, _)| format!("{name}.{part}")));
            if is_on(&value) {
                capabilities.insert(name);
            }
        }
        let offer = Self { version: result.protocol_version, capabilities };
        (offer.weight() <= CAP).then_some(offer)
    }

    /// The version that the server speaks in this session.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Can it take the place of that one: the same version, and no capability less?
    pub(super) fn stands_in_for(&self, before: &Self) -> bool {
        self.version == before.version && self.capabilities.is_superset(&before.capabilities)
    }

    /// The notifications of changed lists that the client was offered, as whole messages.
    pub(super) fn list_changes(&self) -> Vec<&'static str> {
        let offered = LIST_CHANGES.iter().filter(|(capability, _)| self.capabilities.contains(*capability));
        offered.map(|(_, message)| *message).collect()
    }

    /// How much memory its texts take.
    pub(super) fn weight(&self) -> usize {
        self.version.len() + self.capabilities.iter().map(|name| name.len() + 32).sum::<usize>()
    }
}

const LIST_CHANGES: [(&str, &str); 3] = [
    ("tools.listChanged", r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#),
    ("prompts.listChanged", r#"{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}"#),
    ("resources.listChanged", r#"{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}"#),
];
