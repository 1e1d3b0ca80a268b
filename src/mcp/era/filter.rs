//! Which notifications are wanted: the filter of a `subscriptions/listen`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::super::object::{Object, quoted};
use super::SUBSCRIPTION_ID;

/// The most resources that are subscribed to, and the most bytes of their URIs. Each change sends all of them.
const MOST: usize = 1_024;
const BYTES: usize = 256 * 1_024;

/// What passes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Filter {
    #[serde(rename = "toolsListChanged", skip_serializing_if = "is_off")]
    pub(crate) tools: bool,
    #[serde(rename = "promptsListChanged", skip_serializing_if = "is_off")]
    pub(crate) prompts: bool,
    #[serde(rename = "resourcesListChanged", skip_serializing_if = "is_off")]
    pub(crate) resources: bool,
    #[serde(rename = "resourceSubscriptions", skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) uris: BTreeSet<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_off(is_on: &bool) -> bool {
    !is_on
}

impl Filter {
    /// The filter of an acknowledgement: what the server will send of what was asked for. Empty if it cannot be read.
    pub(crate) fn acknowledged(notification: &str) -> Self {
        let read = || {
            let notification = Object::read(notification)?;
            let params = Object::read(notification.get("params")?)?;
            serde_json::from_str(params.get("notifications")?).ok()
        };
        let said: Self = read().unwrap_or_default();
        // No more than can be asked for.
        let mut filter = Self { uris: BTreeSet::new(), ..said };
        said.uris.iter().all(|uri| filter.add(uri));
        filter
    }

    /// Without what this one, which was asked for, has not.
    pub(crate) fn within(mut self, asked: &Self) -> Self {
        self.tools &= asked.tools;
        self.prompts &= asked.prompts;
        self.resources &= asked.resources;
        self.uris.retain(|uri| asked.uris.contains(uri));
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds a resource. `false` if there are too many.
    pub(crate) fn add(&mut self, uri: &str) -> bool {
        let bytes: usize = self.uris.iter().map(String::len).sum();
        let has_room = self.uris.contains(uri) || (self.uris.len() < MOST && bytes + uri.len() <= BYTES);
        if has_room {
            self.uris.insert(uri.to_owned());
        }
        has_room
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and truth values always have a JSON form")
    }

    /// A notification of each change that passes: after a gap in a subscription nobody knows what has changed. `id` is that of the
    /// subscription, for clients that know it.
    pub(crate) fn changes(&self, id: Option<&str>) -> Vec<String> {
        let lists = [(self.tools, "tools"), (self.prompts, "prompts"), (self.resources, "resources")];
        let lists = lists.into_iter().filter(|(is_on, _)| *is_on);
        let lists = lists.map(|(_, name)| (format!("notifications/{name}/list_changed"), None));
        let updates = self.uris.iter().map(|uri| ("notifications/resources/updated".to_owned(), Some(uri)));
        let mut changes = Vec::new();
        for (method, uri) in lists.chain(updates) {
            let mut params = Object::default();
            if let Some(uri) = uri {
                params.set("uri", quoted(uri));
            }
            if let Some(id) = id {
                params.set("_meta", format!("{{{}:{id}}}", quoted(SUBSCRIPTION_ID)));
            }
            let mut notification = Object::default();
            notification.set("jsonrpc", quoted("2.0"));
            notification.set("method", quoted(&method));
            if !params.is_empty() {
                notification.set("params", params.to_json());
            }
            changes.push(notification.to_json());
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_acknowledges_no_more_than_was_asked_for() {
        let mut asked = Filter { tools: true, ..Filter::default() };
        assert!(asked.add("file:///a"));
        let said = Filter {
            tools: true,
            prompts: true,
            resources: true,
            uris: ["file:///a", "file:///b"].map(str::to_owned).into(),
        };
        assert_eq!(said.within(&asked), asked);
        let many: Vec<String> = (0..2 * MOST).map(|number| format!("\"x:{number}\"")).collect();
        let text = format!(r#"{{"params":{{"notifications":{{"resourceSubscriptions":[{}]}}}}}}"#, many.join(","));
        assert_eq!(Filter::acknowledged(&text).uris.len(), MOST);
    }

    #[test]
    fn a_filter_asks_for_what_is_wanted_and_nothing_else() {
        let mut filter = Filter { tools: true, resources: true, ..Filter::default() };
        assert!(!filter.is_empty() && Filter::default().is_empty());
        assert!(filter.add("file:///b") && filter.add("file:///a") && filter.add("file:///a"));
        let json = r#"{"toolsListChanged":true,"resourcesListChanged":true,"resourceSubscriptions":["file:///a","file:///b"]}"#;
        assert_eq!((filter.to_json(), Filter::default().to_json()), (json.to_owned(), "{}".to_owned()));
        let acknowledged = format!(r#"{{"method":"x","params":{{"_meta":{{}},"notifications":{json}}}}}"#);
        assert_eq!(Filter::acknowledged(&acknowledged), filter);
        for nothing in
            ["{}", r#"{"params":{"notifications":[]}}"#, r#"{"params":{"notifications":{"toolsListChanged":1}}}"#]
        {
            assert!(Filter::acknowledged(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn there_is_a_most_of_resources() {
        let mut filter = Filter::default();
        assert!((0..MOST).all(|number| filter.add(&number.to_string())));
        assert!(!filter.add("one more") && filter.add("0"), "one of them again is none more");
        assert!(!Filter::default().add(&"x".repeat(BYTES + 1)));
    }

    #[test]
    fn after_a_gap_everything_may_have_changed() {
        let filter = Filter { prompts: true, uris: BTreeSet::from(["a".to_owned()]), ..Filter::default() };
        let bare = [
            r#"{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a"}}"#,
        ];
        assert_eq!(filter.changes(None), bare);
        let of = |filter: Filter| filter.changes(Some("\"n\""));
        let expected = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"n"}}}"#;
        assert_eq!(of(Filter { tools: true, ..Filter::default() }), [expected]);
    }
}
