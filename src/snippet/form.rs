//! One tree for the three forms of configuration files: JSON, TOML and YAML.
//!
//! Texts of ours are borrowed and texts of users are owned, so YAML knows which need quotes. A text in double quotes is that of
//! JSON in all three: TOML's basic strings and YAML's double-quoted scalars know the escapes that JSON writes.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

/// The key of a field. One of a user is owned.
pub(super) type Key = Cow<'static, str>;

/// A value.
pub(super) enum Node {
    Text(Cow<'static, str>),
    Flag(bool),
    Number(u16),
    List(Vec<Self>),
    Table(Vec<(Key, Self)>),
}

/// A user's text.
pub(super) fn text(text: &str) -> Node {
    Node::Text(Cow::Owned(text.to_owned()))
}

/// A text of ours.
pub(super) fn word(word: &'static str) -> Node {
    Node::Text(Cow::Borrowed(word))
}

/// A table.
pub(super) fn table(fields: impl IntoIterator<Item = (Key, Node)>) -> Node {
    Node::Table(fields.into_iter().collect())
}

/// A table with one field.
pub(super) fn entry(key: impl Into<Key>, value: Node) -> Node {
    table([(key.into(), value)])
}

/// A list.
pub(super) fn list(items: impl IntoIterator<Item = Node>) -> Node {
    Node::List(items.into_iter().collect())
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Number(number) => serializer.serialize_u16(*number),
            Self::List(items) => serializer.collect_seq(items),
            Self::Table(fields) => serializer.collect_map(fields.iter().map(|(key, value)| (key, value))),
        }
    }
}

impl Node {
    /// As JSON.
    pub(super) fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("keys are texts");
        text.push('\n');
        text
    }

    /// On one line: JSON, which a scalar or a list of them is in TOML, YAML, Python and TypeScript too.
    pub(super) fn scalar(&self) -> String {
        match self {
            Self::List(items) => format!("[{}]", items.iter().map(Self::scalar).collect::<Vec<_>>().join(", ")),
            one => serde_json::to_string(one).expect("keys are texts"),
        }
    }

    /// A table of tables of fields, as TOML. Keys have the characters of bare keys.
    pub(super) fn toml(&self) -> String {
        let mut out = String::new();
        for (outer, inner) in self.fields() {
            for (name, fields) in inner.fields() {
                out.push_str(&format!("[{outer}.{name}]\n"));
                for (key, value) in fields.fields() {
                    out.push_str(&format!("{key} = {}\n", value.scalar()));
                }
            }
        }
        out
    }

    /// As YAML.
    pub(super) fn yaml(&self) -> String {
        self.yaml_at(0)
    }

    fn yaml_at(&self, depth: usize) -> String {
        let (indent, mut out) = ("  ".repeat(depth), String::new());
        match self {
            Self::Table(fields) => {
                for (key, value) in fields {
                    let key = match key {
                        Cow::Borrowed(ours) => (*ours).to_owned(),
                        Cow::Owned(_) => Self::Text(key.clone()).scalar(),
                    };
                    let value = match value {
                        Self::Table(_) | Self::List(_) => format!("\n{}", value.yaml_at(depth + 1)),
                        scalar => format!(" {}", scalar.yaml_at(0)),
                    };
                    out.push_str(&format!("{indent}{key}:{value}"));
                }
            }
            Self::List(items) => {
                for item in items {
                    out.push_str(&format!("{indent}- {}", item.yaml_at(depth + 1).trim_start()));
                }
            }
            Self::Text(Cow::Borrowed(ours)) => out.push_str(&format!("{ours}\n")),
            // In single quotes nothing but these is escaped.
            Self::Text(theirs) if theirs.contains(['"', '\\']) && !theirs.contains(char::is_control) => {
                out.push_str(&format!("'{}'\n", theirs.replace('\'', "''")));
            }
            scalar => out.push_str(&format!("{}\n", scalar.scalar())),
        }
        out
    }

    fn fields(&self) -> &[(Key, Self)] {
        match self {
            Self::Table(fields) => fields,
            _ => &[],
        }
    }
}
