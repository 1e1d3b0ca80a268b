//! The keys that a row has for itself in `[identity]`: name, kind, need and meaning, once.
//!
//! The configuration's reader, the JSON Schema and the row's own `from_config` follow these. Pure.

/// One key of one row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// As written in the file.
    pub(crate) name: &'static str,
    /// What its value looks like.
    pub(crate) kind: Kind,
    /// Must it be there?
    pub(crate) need: Need,
    /// What it means.
    pub(crate) doc: &'static str,
    /// What is wrong with a text, beyond its kind.
    pub(crate) check: fn(&str) -> Result<(), String>,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// True or false; false is as good as absent.
    Flag,
}

/// When a key must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Always.
    Required,
    /// Never.
    Optional,
    /// Exactly one of the row's keys of this kind.
    OneOf,
    /// One of the row's keys of this kind, or none.
    AtMostOne,
}

impl Setting {
    /// A key without which the row is of no use.
    pub(crate) const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, need: Need::Required, doc, check: |_| Ok(()) }
    }

    /// A key that may be left out.
    pub(crate) const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { need: Need::Optional, ..Self::required(name, kind, doc) }
    }

    /// One of several keys of which exactly one must be there.
    pub(crate) const fn one_of(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { need: Need::OneOf, ..Self::required(name, kind, doc) }
    }

    /// One of several keys of which at most one may be there.
    pub(crate) const fn at_most_one(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { need: Need::AtMostOne, ..Self::required(name, kind, doc) }
    }

    /// The same with a check of what the text says. What it finds wrong must not repeat the text: it may be a secret in
    /// the wrong place.
    pub(crate) const fn checked(self, check: fn(&str) -> Result<(), String>) -> Self {
        Self { check, ..self }
    }

    /// Is this value of the right kind, and sound?
    pub(crate) fn judge(&self, value: &toml::Value) -> Result<(), String> {
        let is_text = |one: &toml::Value| one.is_str();
        match (self.kind, value) {
            (Kind::Text, toml::Value::String(text)) if text.is_empty() => Err("is empty".to_owned()),
            (Kind::Text, toml::Value::String(text)) => (self.check)(text),
            (Kind::Texts, toml::Value::Array(list)) if list.iter().all(is_text) => match list.as_slice() {
                [] => Err("is empty".to_owned()),
                [first, ..] => (self.check)(first.as_str().unwrap_or_default()),
            },
            (Kind::Flag, toml::Value::Boolean(_)) => Ok(()),
            _ => Err(format!("must be {}", self.kind.as_str())),
        }
    }
}

impl Kind {
    /// For people.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Texts => "a list of texts",
            Self::Flag => "true or false",
        }
    }
}

/// One thing that is wrong with a row's table.
pub(crate) struct Problem {
    /// The key, there or missing.
    pub(crate) key: &'static str,
    /// What is wrong.
    pub(crate) what: String,
}

/// Everything that is wrong with a row's table, unknown keys apart.
pub(crate) fn problems(settings: &[Setting], table: &toml::Table) -> Vec<Problem> {
    let mut found = Vec::new();
    for one in settings {
        match table.get(one.name).map(|value| one.judge(value)) {
            Some(Err(what)) => found.push(Problem { key: one.name, what }),
            None if one.need == Need::Required => {
                found.push(Problem { key: one.name, what: format!("missing: {}", one.doc) });
            }
            _ => {}
        }
    }
    found.extend(alternatives(settings, table));
    found.extend(exclusive(settings, table));
    found
}

/// Of these keys at most one may be given.
fn exclusive(settings: &[Setting], table: &toml::Table) -> Option<Problem> {
    let mut given = settings.iter().filter(|one| one.need == Need::AtMostOne && table.contains_key(one.name));
    let (first, second) = (given.next()?, given.next()?);
    Some(Problem { key: second.name, what: both(first) })
}

fn both(other: &Setting) -> String {
    format!("`{}` is there as well, and only one of them can be", other.name)
}

/// Of the keys that exclude each other exactly one must be given.
fn alternatives(settings: &[Setting], table: &toml::Table) -> Option<Problem> {
    let given = |one: &&&Setting| table.get(one.name).is_some_and(|value| value.as_bool() != Some(false));
    let all: Vec<&Setting> = settings.iter().filter(|one| one.need == Need::OneOf).collect();
    let (first, others) = all.split_first()?;
    let others: Vec<String> = others.iter().map(|one| format!("`{}`: {}", one.name, one.doc)).collect();
    let mut given = all.iter().filter(given);
    match (given.next(), given.next()) {
        (Some(_), None) => None,
        (None, _) => {
            Some(Problem { key: first.name, what: format!("missing: {} Or {}", first.doc, others.join(" Or ")) })
        }
        (Some(one), Some(other)) => Some(Problem { key: other.name, what: both(one) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: [Setting; 4] = [
        Setting::one_of("file", Kind::Text, "A file."),
        Setting::one_of("request", Kind::Flag, "Ask."),
        Setting::required("words", Kind::Texts, "Words."),
        Setting::optional("name", Kind::Text, "A name.")
            .checked(|text| if text == "bad" { Err("is bad".to_owned()) } else { Ok(()) }),
    ];

    fn found(table: &str) -> Vec<String> {
        let table = table.parse().expect("a table");
        problems(&SETTINGS, &table).into_iter().map(|one| format!("{}: {}", one.key, one.what)).collect()
    }

    #[test]
    fn a_good_table_has_no_problem() {
        assert!(found("file = 'x'\nwords = ['a']").is_empty());
        assert!(found("request = true\nwords = ['a']\nname = 'n'").is_empty());
        assert!(found("file = 'x'\nrequest = false\nwords = ['a']").is_empty(), "false is as good as absent");
    }

    #[test]
    fn every_problem_is_found_at_once() {
        let all = found("file = 7\nwords = [1]\nname = 'bad'");
        assert_eq!(all, ["file: must be a text", "words: must be a list of texts", "name: is bad"]);
    }

    #[test]
    fn of_keys_that_exclude_each_other_exactly_one_is_wanted() {
        for (table, says) in [
            ("words = ['a']", "file: missing: A file. Or `request`: Ask."),
            ("words = ['a']\nrequest = false", "file: missing: A file. Or `request`: Ask."),
            (
                "words = ['a']\nrequest = true\nfile = 'x'",
                "request: `file` is there as well, and only one of them can be",
            ),
            ("file = 'x'", "words: missing: Words."),
            ("file = ''\nwords = ['a']", "file: is empty"),
            ("file = 'x'\nwords = []", "words: is empty"),
        ] {
            assert_eq!(found(table), [says]);
        }
    }

    #[test]
    fn of_keys_that_name_one_thing_at_most_one_is_taken() {
        const NAMES: [Setting; 2] = [
            Setting::at_most_one("by_name", Kind::Text, "A name."),
            Setting::at_most_one("by_number", Kind::Text, "A number."),
        ];
        let found = |table: &str| problems(&NAMES, &table.parse().expect("a table"));
        assert!(found("").is_empty() && found("by_name = 'a'").is_empty() && found("by_number = '1'").is_empty());
        let both = found("by_name = 'a'\nby_number = '1'");
        assert!(both.iter().map(|one| one.key).eq(["by_number"]) && both[0].what.contains("`by_name`"));
    }
}
