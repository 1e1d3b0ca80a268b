//! JSON-RPC messages: what has to be known of one to relay it, and our own error answers.
//!
//! [`Message::read`] reads a message once, without building a value of it. It reads exactly what `serde_json` reads as a
//! value: no deeper than its limit of 127 levels, and no lone surrogates. Member names are compared after unescaping, because that is how
//! the receiver compares them. A member that occurs twice counts as none, because receivers differ in which one they take.
//!
//! The id of a request is kept byte for byte: `1`, `1.0` and `"1"` are three ids.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub(crate) mod cut;
pub(crate) mod refusal;
#[cfg(test)]
mod tests;

/// The code of all errors that are ours. JSON-RPC keeps −32768 to −32000 for itself.
pub(crate) const OUR_CODE: i64 = -31_080;
/// JSON-RPC's "method not found".
pub(crate) const METHOD_NOT_FOUND: i64 = -32_601;

/// What a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It has a method and an id, and must be answered.
    Request,
    /// It has a method and no id.
    Notification,
    /// It has a result or an error.
    Response,
    /// An array of messages (until 2025-03-26). Its elements are not looked at.
    Batch,
    /// No JSON, or no JSON-RPC message.
    Unreadable,
}

/// What has to be known of a message to relay it.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: Kind,
    /// The id, if it occurs once at the top level.
    pub(crate) id: Option<Id>,
    /// The method of a request or a notification.
    pub(crate) method: Option<Cow<'a, str>>,
    /// The tool that a `tools/call` names.
    pub(crate) tool: Option<Cow<'a, str>>,
    /// The version that an `initialize` asks for.
    pub(crate) protocol_version: Option<Cow<'a, str>>,
    /// The code of an error response.
    pub(crate) error_code: Option<i64>,
    /// Does a member that is read here occur more than once? The receiver may see another message than we do.
    pub(crate) is_ambiguous: bool,
}

impl<'a> Message<'a> {
    /// Reads a body. Never fails: what cannot be read is [`Kind::Unreadable`].
    pub(crate) fn read(body: &'a [u8]) -> Self {
        let text = std::str::from_utf8(body).ok();
        text.and_then(|text| whole(text, TopLevel)).unwrap_or_else(|| Self::bare(Kind::Unreadable))
    }

    fn bare(kind: Kind) -> Self {
        let (id, method, tool, protocol_version, error_code) = (None, None, None, None, None);
        Self { kind, id, method, tool, protocol_version, error_code, is_ambiguous: false }
    }
}

/// May the server carry out a request of this method twice, so that it is sent again when its answer is lost?
pub(crate) fn is_repeatable(method: &str) -> bool {
    matches!(
        method,
        "ping"
            | "initialize"
            | "server/discover"
            | "resources/read"
            | "prompts/get"
            | "logging/setLevel"
            | "resources/subscribe"
            | "resources/unsubscribe"
    ) || method.ends_with("/list")
}

/// The `params` of a message as they were sent, if they occur once.
pub(crate) fn params(body: &[u8]) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct WithParams<'a> {
        #[serde(borrow)]
        params: Option<&'a RawValue>,
    }
    serde_json::from_slice::<WithParams<'_>>(body).ok()?.params
}

/// The protocol version that the answer to an `initialize` agrees on.
pub(crate) fn negotiated(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        result: Hello,
    }
    #[derive(Deserialize)]
    struct Hello {
        #[serde(rename = "protocolVersion")]
        version: String,
    }
    serde_json::from_slice::<Answer>(body).ok().map(|answer| answer.result.version)
}

/// The id of a request, byte for byte.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Id(Box<RawValue>);

impl Id {
    /// A text, a number or null.
    fn of(raw: &RawValue) -> Option<Self> {
        let is_one = |first: &u8| matches!(first, b'"' | b'-' | b'0'..=b'9' | b'n');
        let is_id = raw.get().as_bytes().first().is_some_and(is_one) && whole(raw.get(), SKIP).is_some();
        is_id.then(|| Self(raw.to_owned()))
    }

    /// An id of ours.
    pub(crate) fn of_text(text: &str) -> Self {
        Self(serde_json::value::to_raw_value(text).expect("a text always has a JSON form"))
    }

    /// As it was sent.
    pub(crate) fn as_str(&self) -> &str {
        self.0.get()
    }

    pub(crate) fn is_null(&self) -> bool {
        self.as_str() == "null"
    }

    /// Does a response with this id answer the request with that one? Servers may write an id in another form: `1` for
    /// `1.0`, or without an escape.
    pub(crate) fn answers(&self, request: &Self) -> bool {
        if self.as_str() == request.as_str() {
            return true;
        }
        let value = |id: &Self| serde_json::from_str::<serde_json::Value>(id.as_str()).ok();
        match (value(self), value(request)) {
            (Some(serde_json::Value::Number(one)), Some(serde_json::Value::Number(other))) => {
                one == other || one.as_f64() == other.as_f64()
            }
            (one, other) => one == other,
        }
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// Reads the whole text with one seed. `None` if it is not JSON.
fn whole<'a, S: DeserializeSeed<'a>>(text: &'a str, seed: S) -> Option<S::Value> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(value)
}

/// A member of which there should be one.
#[derive(Debug, Default)]
enum Once<T> {
    #[default]
    Absent,
    One(T),
    Several,
}

impl<T> Once<T> {
    fn add(&mut self, value: T) {
        *self = if self.is_absent() { Self::One(value) } else { Self::Several };
    }

    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    fn is_several(&self) -> bool {
        matches!(self, Self::Several)
    }

    fn one(self) -> Option<T> {
        match self {
            Self::One(value) => Some(value),
            Self::Absent | Self::Several => None,
        }
    }
}

/// Reads a value of any kind, and keeps of it: nothing; or a text or an integer; or of an object the members with these
/// names.
#[derive(Clone, Copy)]
struct Pick {
    keep: bool,
    members: &'static [&'static str],
}

const SKIP: Pick = Pick { keep: false, members: &[] };
const VALUE: Pick = Pick { keep: true, members: &[] };
const PARAMS: Pick = Pick { keep: false, members: &["name", "protocolVersion"] };
const ERROR: Pick = Pick { keep: false, members: &["code"] };

#[derive(Debug)]
enum Picked<'a> {
    Text(Cow<'a, str>),
    Integer(i64),
    Members(Vec<(&'static str, Self)>),
    Other,
}

impl<'a> Picked<'a> {
    fn text(self) -> Option<Cow<'a, str>> {
        if let Picked::Text(text) = self { Some(text) } else { None }
    }

    fn integer(self) -> Option<i64> {
        if let Picked::Integer(number) = self { Some(number) } else { None }
    }

    fn members(self) -> Vec<(&'static str, Self)> {
        if let Picked::Members(members) = self { members } else { Vec::new() }
    }
}

impl<'de> DeserializeSeed<'de> for Pick {
    type Value = Picked<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick {
    type Value = Picked<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Picked::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Picked::Other)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Picked::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Picked::Other, Picked::Integer))
    }

    /// `-31080.0` is the number −31080, and is displayed without its fraction.
    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        let integer = if self.keep { number.to_string().parse().ok() } else { None };
        Ok(integer.map_or(Picked::Other, Picked::Integer))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(if self.keep { Picked::Text(Cow::Borrowed(text)) } else { Picked::Other })
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(if self.keep { Picked::Text(Cow::Owned(text.to_owned())) } else { Picked::Other })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element_seed(SKIP)?.is_some() {}
        Ok(Picked::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(&'static str, Picked<'de>)> = Vec::new();
        let keys = Self { keep: !self.members.is_empty(), ..SKIP };
        while let Some(key) = object.next_key_seed(keys)? {
            let key = key.text().unwrap_or_default();
            match self.members.iter().find(|member| **member == key) {
                Some(&name) => {
                    let value = object.next_value_seed(VALUE)?;
                    // Two are enough to know that there are several.
                    if members.iter().filter(|(known, _)| *known == name).count() < 2 {
                        members.push((name, value));
                    }
                }
                None => {
                    object.next_value_seed(SKIP)?;
                }
            }
        }
        Ok(Picked::Members(members))
    }
}

/// The outermost value of a body.
struct TopLevel;

impl<'de> DeserializeSeed<'de> for TopLevel {
    type Value = Message<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TopLevel {
    type Value = Message<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON-RPC message")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        SKIP.visit_seq(list)?;
        Ok(Message::bare(Kind::Batch))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some(key) = object.next_key_seed(VALUE)? {
            match key.text().as_deref() {
                Some("id") => {
                    let id = Id::of(object.next_value::<&RawValue>()?);
                    members.id.add(id.ok_or_else(|| A::Error::custom("an id is a text, a number or null"))?);
                }
                Some("method") => {
                    members.method.add(object.next_value_seed(VALUE)?.text());
                }
                Some("params") => members.params.add(object.next_value_seed(PARAMS)?.members()),
                Some("error") => members.error.add(object.next_value_seed(ERROR)?.members()),
                Some("result") => members.result.add(object.next_value_seed(SKIP)?),
                _ => {
                    object.next_value_seed(SKIP)?;
                }
            }
        }
        Ok(members.message())
    }
}

/// The members of a message.
#[derive(Default)]
struct Members<'a> {
    id: Once<Id>,
    /// `None` if it is no text.
    method: Once<Option<Cow<'a, str>>>,
    params: Once<Vec<(&'static str, Picked<'a>)>>,
    error: Once<Vec<(&'static str, Picked<'a>)>>,
    result: Once<Picked<'a>>,
}

impl<'a> Members<'a> {
    fn message(self) -> Message<'a> {
        let kind = match (!self.method.is_absent(), !self.id.is_absent()) {
            _ if matches!(self.method, Once::One(None)) => Kind::Unreadable,
            (true, true) => Kind::Request,
            (true, false) => Kind::Notification,
            _ if !self.result.is_absent() || !self.error.is_absent() => Kind::Response,
            _ => Kind::Unreadable,
        };
        let several = self.id.is_several() || self.method.is_several() || self.params.is_several();
        let mut is_ambiguous = several || self.error.is_several() || self.result.is_several();
        let mut params = self.params.one().unwrap_or_default();
        let mut error = self.error.one().unwrap_or_default();
        let [name, version] = ["name", "protocolVersion"].map(|name| take(&mut params, name));
        let code = take(&mut error, "code");
        is_ambiguous |= [&name, &version, &code].into_iter().any(|member| member.is_several());
        let method = self.method.one().flatten();
        let is = |wanted: &str| method.as_deref() == Some(wanted);
        Message {
            kind,
            id: self.id.one(),
            tool: name.one().filter(|_| is("tools/call")).and_then(Picked::text),
            protocol_version: version.one().filter(|_| is("initialize")).and_then(Picked::text),
            method,
            error_code: code.one().filter(|_| kind == Kind::Response).and_then(Picked::integer),
            is_ambiguous,
        }
    }
}

/// Takes the members of this name out of a list.
fn take<'a>(members: &mut Vec<(&'static str, Picked<'a>)>, name: &str) -> Once<Picked<'a>> {
    let mut found = Once::default();
    for (_, value) in members.extract_if(.., |(known, _)| *known == name) {
        found.add(value);
    }
    found
}
