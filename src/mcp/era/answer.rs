//! What a server without sessions sends, for a client that knows sessions.

use super::super::object::Object;
use super::SUBSCRIPTION_ID;
use super::filter::Filter;
use super::input::Asked;

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The result for the client, as JSON.
    Result(String),
    /// The error for the client, as JSON.
    Error(String),
    /// The server needs more input.
    Input(Asked),
    /// It cannot be read, or the type of the result is unknown.
    Unknown,
}

impl Answer {
    /// Reads the answer to a request.
    pub(crate) fn read(answer: &str) -> Self {
        Self::of(answer).unwrap_or(Self::Unknown)
    }

    fn of(answer: &str) -> Option<Self> {
        let answer = Object::read(answer)?;
        if let Some(error) = answer.get("error") {
            return Some(Self::Error(error.to_owned()));
        }
        let mut result = Object::read(answer.get("result")?)?;
        let kind = result.remove("resultType");
        match kind.map(|kind| serde_json::from_str::<String>(&kind)).transpose().ok()?.as_deref() {
            None | Some("complete") => Some(Self::Result(result.to_json())),
            Some("input_required") => Asked::read(&result).map(Self::Input),
            Some(_) => None,
        }
    }
}

/// A notification for the client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notified {
    /// It is passed on as it is.
    AsItIs,
    /// It is passed on so.
    So(String),
    /// The server begins to send what passes this filter.
    Acknowledged(Filter),
    /// The client cannot know what it is about.
    Nothing,
}

impl Notified {
    /// Reads a notification of this method.
    pub(crate) fn read(method: &str, notification: &str) -> Self {
        match method {
            "notifications/subscriptions/acknowledged" => Self::Acknowledged(Filter::acknowledged(notification)),
            // It names a request by an id that the client does not know.
            "notifications/cancelled" => Self::Nothing,
            _ if !notification.contains("subscriptionId") => Self::AsItIs,
            _ => without_subscription(notification).map_or(Self::AsItIs, Self::So),
        }
    }
}

/// The same without the subscription that it belongs to. `None` if it names none.
fn without_subscription(notification: &str) -> Option<String> {
    let mut notification = Object::read(notification)?;
    let params = notification.remove("params")?;
    let mut params = Object::read(&params)?;
    let meta = params.remove("_meta")?;
    let mut meta = Object::read(&meta)?;
    meta.remove(SUBSCRIPTION_ID)?;
    if !meta.is_empty() {
        let meta = meta.to_json();
        params.set("_meta", meta);
    }
    let params = params.to_json();
    if params != "{}" {
        notification.set("params", params);
    }
    Some(notification.to_json())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_result_is_taken_out() {
        for (result, expected) in [
            (r#"{"resultType":"complete","content":[ 1.0 ],"ttlMs":0}"#, r#"{"content":[ 1.0 ],"ttlMs":0}"#),
            (r#"{"content":[]}"#, r#"{"content":[]}"#),
            (r#"{"resultType":"complete"}"#, "{}"),
        ] {
            let answer = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
            assert_eq!(Answer::read(&answer), Answer::Result(expected.to_owned()), "{result}");
        }
        let error = r#"{"id":1,"error":{"code":-32602, "message":"x"}}"#;
        assert_eq!(Answer::read(error), Answer::Error(r#"{"code":-32602, "message":"x"}"#.to_owned()));
    }

    #[test]
    fn a_result_of_an_unknown_type_is_never_taken_for_the_answer() {
        for result in [
            r#"{"resultType":"task","taskId":"1"}"#,
            r#"{"resultType":1}"#,
            r#"{"resultType":"input_required"}"#,
            r#"{"resultType":"complete","resultType":"input_required"}"#,
            "[]",
        ] {
            assert_eq!(Answer::read(&format!(r#"{{"id":1,"result":{result}}}"#)), Answer::Unknown, "{result}");
        }
        assert_eq!(Answer::read(r#"{"id":1}"#), Answer::Unknown);
    }

    #[test]
    fn a_notification_comes_without_the_subscription_that_the_client_does_not_know() {
        let id = r#""io.modelcontextprotocol/subscriptionId":"n""#;
        for (params, expected) in [
            (format!(r#"{{"_meta":{{{id}}}}}"#), r#"{"method":"x"}"#),
            (
                format!(r#"{{"uri":"a\u0062","_meta":{{{id},"y":1}}}}"#),
                r#"{"method":"x","params":{"uri":"a\u0062","_meta":{"y":1}}}"#,
            ),
        ] {
            let notification = format!(r#"{{"method":"x","params":{params}}}"#);
            assert_eq!(Notified::read("x", &notification), Notified::So(expected.to_owned()));
        }
        let data = r#"{"method":"notifications/message","params":{"data":"subscriptionId"}}"#;
        assert_eq!(Notified::read("notifications/message", data), Notified::AsItIs);
        assert_eq!(Notified::read("notifications/cancelled", "{}"), Notified::Nothing);
    }
}
