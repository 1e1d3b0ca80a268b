//! A JSON object that another party sent, read member by member.
//!
//! What is needed is read strictly, and the error names the member and the kind of its value, never the value. What is optional
//! is read leniently: `null` or a value of the wrong kind counts as absent, because nobody needs it. Two members of the same name
//! are refused: parsers differ in which one they take.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::quoted_words;

/// The members of a JSON object. The values stay in the text, so secrets are not copied.
pub(crate) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// The kind of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Flag,
    /// A number.
    Number,
    /// A text.
    Text,
    /// A list.
    List,
    /// An object.
    Object,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "true or false",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Object => "an object",
        })
    }
}

impl<'a> Members<'a> {
    /// Reads an object. Fails if the text is not exactly one, or if a name occurs twice.
    pub(crate) fn read(text: &'a str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| match error.classify() {
            // The visitor's own words: a name that occurs twice.
            serde_json::error::Category::Data if text.trim_start().starts_with('{') => {
                let words = error.to_string();
                words.split(" at line ").next().unwrap_or_default().to_owned()
            }
            _ => "the answer is not the JSON object it should be".to_owned(),
        })
    }

    /// The value as it stands in the text. `None` if it is absent or `null`.
    pub(crate) fn raw(&self, name: &str) -> Option<(Kind, &'a str)> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        let value = value.get();
        let kind = match value.as_bytes().first()? {
            b'n' => return None,
            b't' | b'f' => Kind::Flag,
            b'"' => Kind::Text,
            b'[' => Kind::List,
            b'{' => Kind::Object,
            _ => Kind::Number,
        };
        Some((kind, value))
    }

    /// A text. Fails if the value is of another kind.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, String> {
        self.strictly(name, Kind::Text, Kind::Text)
    }

    /// A text, or a list of one, which is plain enough. Fails if it is absent, or of another kind.
    pub(crate) fn needed_text(&self, name: &str) -> Result<String, String> {
        let mut texts = self.texts_for(name, Kind::Text)?.ok_or_else(|| format!("it has no `{name}`"))?;
        match (texts.pop(), texts.len()) {
            (Some(only), 0) => Ok(only),
            (None, _) => Err(format!("its `{name}` is an empty list, not a text")),
            (Some(_), others) => Err(format!("its `{name}` is a list of {}, not a text", others + 1)),
        }
    }

    /// A list of texts; a single text is a list of one. Fails if the value is of another kind.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, String> {
        self.texts_for(name, Kind::List)
    }

    fn texts_for(&self, name: &str, meant: Kind) -> Result<Option<Vec<String>>, String> {
        match self.raw(name) {
            Some((Kind::Text, _)) => Ok(self.text(name)?.map(|one| vec![one])),
            _ => self.strictly(name, Kind::List, meant),
        }
    }

    /// True or false; false if it is absent. Fails if the value is of another kind.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, String> {
        Ok(self.strictly(name, Kind::Flag, Kind::Flag)?.unwrap_or_default())
    }

    /// The text of an optional member.
    pub(crate) fn optional_text(&self, name: &str) -> Option<String> {
        leniently(self.text(name))
    }

    /// The texts of an optional member. Values in the list that are no texts are left out.
    pub(crate) fn optional_texts(&self, name: &str) -> Option<Vec<String>> {
        if let Some((Kind::List, list)) = self.raw(name) {
            let all: Vec<&RawValue> = serde_json::from_str(list).ok()?;
            return Some(all.iter().filter_map(|one| serde_json::from_str(one.get()).ok()).collect());
        }
        leniently(self.texts(name))
    }

    /// The flag of an optional member; false if it is absent.
    pub(crate) fn optional_flag(&self, name: &str) -> bool {
        leniently(self.flag(name).map(Some)).unwrap_or_default()
    }

    /// The object of an optional member.
    pub(crate) fn optional_object(&self, name: &str) -> Option<Self> {
        let (_, value) = self.raw(name).filter(|(kind, _)| *kind == Kind::Object)?;
        leniently(Self::read(value).map(Some))
    }

    /// A value of this kind. `meant` is the kind that the message names.
    fn strictly<T: Deserialize<'a>>(&self, name: &str, wanted: Kind, meant: Kind) -> Result<Option<T>, String> {
        let Some((found, value)) = self.raw(name) else { return Ok(None) };
        if found != wanted {
            return Err(format!("its `{name}` is {found}, not {meant}"));
        }
        let element = if found == Kind::List { "a text" } else { "Unicode" };
        serde_json::from_str(value).map(Some).map_err(|_| format!("its `{name}` holds something that is not {element}"))
    }
}

/// What is optional counts as absent if it cannot be read.
fn leniently<T>(read: Result<Option<T>, String>) -> Option<T> {
    read.unwrap_or_else(|why| {
        debug!(%why, "an optional member of another party's JSON counts as absent");
        None
    })
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members<'de>, M::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &RawValue>()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(M::Error::custom(format!("it has two members {:?}", quoted_words(&name))));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A name, borrowed from the text where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_named_with_the_kind_of_its_value() {
        let text = r#"{"a":7,"b":["x"],"c":["x","y"],"d":[],"e":null,"f":{},"g":"x","h":[1],"i":true,"j":"\ud800"}"#;
        let members = Members::read(text).expect("an object");
        let needed = |name| members.needed_text(name).map_err(|why| why.replace('`', ""));
        assert_eq!(needed("g").as_deref(), Ok("x"));
        assert_eq!(needed("b").as_deref(), Ok("x"), "a list of one is plain enough");
        for (name, why) in [
            ("a", "its a is a number, not a text"),
            ("c", "its c is a list of 2, not a text"),
            ("d", "its d is an empty list, not a text"),
            ("e", "it has no e"),
            ("z", "it has no z"),
            ("f", "its f is an object, not a text"),
            ("h", "its h holds something that is not a text"),
            ("j", "its j holds something that is not Unicode"),
        ] {
            assert_eq!(needed(name).as_ref().map_err(String::as_str), Err(why));
        }
        assert_eq!(members.flag("i"), Ok(true));
        assert_eq!(members.flag("e"), Ok(false));
        assert!(members.flag("a").is_err());
    }

    #[test]
    fn what_is_optional_is_absent_if_it_cannot_be_read() {
        let members =
            Members::read(r#"{"a":7,"b":["x",7,null,"y"],"c":"x","d":{"e":"x"},"f":"true"}"#).expect("an object");
        assert_eq!(members.optional_text("a"), None);
        assert_eq!(members.optional_texts("b"), Some(vec!["x".to_owned(), "y".to_owned()]));
        assert_eq!(members.optional_texts("c"), Some(vec!["x".to_owned()]));
        assert_eq!(members.optional_texts("a"), None);
        assert!(!members.optional_flag("f"));
        assert_eq!(members.optional_object("d").and_then(|inner| inner.optional_text("e")).as_deref(), Some("x"));
        assert!(members.optional_object("c").is_none());
    }

    #[test]
    fn two_members_of_one_name_are_refused_and_named() {
        let why = |text| Members::read(text).err();
        assert_eq!(why(r#"{"issuer":1,"a":2,"\u0069ssuer":3}"#).as_deref(), Some("it has two members \"issuer\""));
        for text in ["[]", "7", "\"x\"", "{", "{}x", "", "{\"a\":}"] {
            assert_eq!(why(text).as_deref(), Some("the answer is not the JSON object it should be"), "{text}");
        }
    }
}
