//! A JSON object as the list of its members, to take some out or put others in. What is not touched stays byte for byte, in its order.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object, each with its name and its value as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Object<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Object<'a> {
    /// Reads an object. `None` if it is none, or if a name occurs twice: receivers differ in which of the two they take.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let object: Self = serde_json::from_str(text).ok()?;
        let mut names: Vec<&str> = object.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        let is_unique = names.windows(2).all(|pair| pair[0] != pair[1]);
        is_unique.then_some(object)
    }

    /// The value of a member.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The value of a member that is a text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?).ok()
    }

    /// Puts a value in the place of the member with this name, or at the end.
    pub(crate) fn set(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((Cow::Borrowed(name), value.into())),
        }
    }

    /// Takes a member out.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Name and value of each member.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(crate) fn to_json(&self) -> String {
        let room = self.0.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
        let mut json = String::with_capacity(room + 2);
        json.push('{');
        for (name, value) in &self.0 {
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(&quoted(name));
            json.push(':');
            json.push_str(value);
        }
        json.push('}');
        json
    }
}

/// A text as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text always has a JSON form")
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Name(name)) = object.next_key()? {
            members.push((name, Cow::Borrowed(object.next_value::<&RawValue>()?.get())));
        }
        Ok(Object(members))
    }
}

/// A member's name, which is borrowed unless it has an escape.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_stays_byte_for_byte() {
        let text = r#"{ "b" : 1.0 , "a\u0062":{"x":[1, 2],"x":0}, "c":"\u00e4" }"#;
        let mut object = Object::read(text).expect("an object");
        assert_eq!(object.get("ab"), Some(r#"{"x":[1, 2],"x":0}"#));
        object.set("b", "2");
        object.set("d", "null");
        assert_eq!(object.remove("c").as_deref(), Some(r#""\u00e4""#));
        assert_eq!(object.remove("c"), None);
        assert_eq!(object.to_json(), r#"{"b":2,"ab":{"x":[1, 2],"x":0},"d":null}"#);
        assert_eq!(Object::default().to_json(), "{}");
    }

    #[test]
    fn what_is_no_object_or_has_a_name_twice_is_refused() {
        for text in ["[]", "1", "null", "", "{", r#"{"a":1,"\u0061":2}"#, r#"{"a":1} x"#] {
            assert_eq!(Object::read(text), None, "{text}");
        }
    }
}
