//! The part of the cache key that describes an identity. It includes all keys, because each may affect a request.

use toml::Value;

use super::IdentityConfig;
use crate::broker::Link;
use crate::digest::Fields;
use crate::identity::Choice;

impl IdentityConfig {
    /// All values of the identity, for the cache key.
    pub(super) fn fields(&self) -> Fields {
        let Self { choice, links } = self;
        let root = match choice {
            Choice::Detect => Fields::default().text("detect"),
            Choice::Probe => Fields::default().text("probe"),
            Choice::Named { source, settings } => Fields::default().text("named").text(source).group(&table(settings)),
        };
        links.iter().map(Link::fields).fold(Fields::default().group(&root), |all, link| all.group(&link))
    }
}

/// The fields of a table, sorted: the order of keys in the file does not matter.
fn table(table: &toml::Table) -> Fields {
    // The parser keeps it sorted.
    table.iter().fold(Fields::default(), |fields, (key, one)| fields.text(key).group(&value(one)))
}

/// The fields of a value, with its type: the string `"1"` differs from the number `1`.
fn value(value: &Value) -> Fields {
    let typed = |kind: &str| Fields::default().text(kind);
    match value {
        Value::String(text) => typed("string").text(text),
        Value::Integer(number) => typed("integer").text(&number.to_string()),
        Value::Float(number) => typed("float").text(&number.to_string()),
        Value::Boolean(yes) => typed("boolean").flag(*yes),
        Value::Datetime(moment) => typed("datetime").text(&moment.to_string()),
        Value::Array(values) => values.iter().fold(typed("array"), |fields, one| fields.group(&self::value(one))),
        Value::Table(inner) => typed("table").group(&table(inner)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn settings_that_differ_in_type_or_border_have_different_keys() {
        let key = |settings: &str| {
            let settings = settings.parse().expect("TOML");
            let choice = Choice::Named { source: "file".to_owned(), settings };
            IdentityConfig { choice, links: Vec::new() }.fields().digest()
        };
        let all = [
            "",
            "a = 1",
            "a = \"1\"",
            "a = 1.5",
            "a = true",
            "a = 2026-11-28",
            "a = \"b\\u0000c\"",
            "a = [\"b\", \"c\"]",
            "a = [\"bc\"]",
            "a = [[\"b\"], \"c\"]",
            "a = { b = \"c\" }",
            "a = \"b\"\nc = \"d\"",
        ];
        assert_eq!(all.map(key).into_iter().collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(key("b = 1\na = 2"), key("a = 2\nb = 1"));
    }
}
