//! Our own error answers, and what becomes of an upstream error that bears our number.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Id, OUR_CODE, whole};

/// JSON-RPC's "internal error".
const INTERNAL_ERROR: &str = "-32603";

/// Whose answer it is: the `id` of an error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnswerTo<'a> {
    /// The request with this id.
    Request(&'a Id),
    /// A request whose id is missing or ambiguous: `null`.
    Unknown,
    /// A notification or a response, or no message at all: no `id`.
    Nobody,
}

/// Can the caller get more access, so that the same request succeeds?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Remediation {
    Available,
    Unavailable,
    Undisclosed,
}

/// An error of ours. A model reads it, so it holds our own words, configured names and registered error codes, and no command,
/// path, claim or URL of another party.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Refusal<'a> {
    /// What happened and who must act, in one sentence.
    #[serde(skip)]
    pub(crate) message: &'a str,
    /// The class of the failure, as the local API names it.
    pub(crate) class: &'a str,
    /// A registered error code, or one of ours.
    pub(crate) error: &'a str,
    /// In how many seconds the same request may succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after: Option<u64>,
    /// The configured name.
    pub(crate) server: &'a str,
    /// Under which log and audit have the rest.
    pub(crate) request_id: &'a str,
    pub(crate) remediation: Remediation,
    /// What another party said, cut and cleaned by `oauth::quoted_words`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) said: Option<&'a str>,
}

impl Refusal<'_> {
    /// The JSON-RPC error, on one line.
    pub(crate) fn to_json(&self, to: AnswerTo<'_>) -> Vec<u8> {
        #[derive(Serialize)]
        struct Wire<'a> {
            jsonrpc: &'static str,
            #[serde(skip_serializing_if = "is_nobody")]
            id: AnswerTo<'a>,
            error: Body<'a>,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            code: i64,
            message: &'a str,
            data: Data<'a>,
        }
        #[derive(Serialize)]
        struct Data<'a> {
            by: &'static str,
            #[serde(flatten)]
            of: &'a Refusal<'a>,
        }
        let data = Data { by: "safeconduct", of: self };
        let error = Body { code: OUR_CODE, message: self.message, data };
        serde_json::to_vec(&Wire { jsonrpc: "2.0", id: to, error }).expect("texts and numbers always have a JSON form")
    }
}

fn is_nobody(to: &AnswerTo<'_>) -> bool {
    matches!(to, AnswerTo::Nobody)
}

impl Serialize for AnswerTo<'_> {
    fn serialize<S: Serializer>(&self, writer: S) -> Result<S::Ok, S::Error> {
        match self {
            AnswerTo::Request(id) => id.serialize(writer),
            AnswerTo::Unknown | AnswerTo::Nobody => writer.serialize_none(),
        }
    }
}

/// The same message with −32603 wherever its error bears our number, so that no other party's error looks like ours. `None`
/// if nothing is to be changed.
pub(crate) fn without_our_code(message: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(message).ok()?;
    // A batch is an array of messages.
    let messages =
        serde_json::from_str::<Vec<&RawValue>>(text).map(|list| list.into_iter().map(RawValue::get).collect());
    let errors = messages.unwrap_or_else(|_| vec![text]).into_iter().flat_map(|one| values(one, "error"));
    let codes: Vec<&str> = errors.flat_map(|error| values(error, "code")).filter(|code| is_ours(code)).collect();
    if codes.is_empty() {
        return None;
    }
    let mut changed = String::with_capacity(text.len());
    let mut copied = 0;
    for code in codes {
        // The code lies in the text, so the difference of their addresses is its offset.
        let start = code.as_ptr().addr() - text.as_ptr().addr();
        changed.push_str(&text[copied..start]);
        changed.push_str(INTERNAL_ERROR);
        copied = start + code.len();
    }
    changed.push_str(&text[copied..]);
    Some(changed.into_bytes())
}

/// Compared as a number, because −31080.0 is the same one.
fn is_ours(code: &str) -> bool {
    let value = serde_json::from_str::<serde_json::Value>(code).ok();
    value.and_then(|value| value.as_f64()).is_some_and(|number| number.to_string() == OUR_CODE.to_string())
}

/// All members of this name, in order. None if the text is no object.
fn values<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    whole(text, All(name)).unwrap_or_default()
}

struct All<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for All<'_> {
    type Value = Vec<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for All<'_> {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(key) = object.next_key::<Cow<'de, str>>()? {
            let value = object.next_value::<&RawValue>()?;
            if key == self.0 {
                found.push(value.get());
            }
        }
        Ok(found)
    }
}
