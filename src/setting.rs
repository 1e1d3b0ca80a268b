//! The declaration of the keys of one identity source or exchange: name, kind, whether required, and meaning.
//!
//! The configuration reader and the JSON Schema use these declarations. `from_config` reads values only through them:
//! the values in [`Given`] have been checked, and a key that is not declared cannot be read. This module does no I/O.

use std::path::PathBuf;

/// One key of an identity source or exchange (a row).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The name in the file.
    pub(crate) name: &'static str,
    /// The type of its value.
    pub(crate) kind: Kind,
    /// Is it required?
    pub(crate) need: Need,
    /// Its meaning, shown in error messages, in the schema and in the starter file.
    pub(crate) doc: &'static str,
    /// An example value in TOML, for the starter file; empty if that file does not show the key.
    pub(crate) example: &'static str,
    /// Checks a string beyond its kind. Returns the problem.
    pub(crate) check: fn(&str) -> Result<(), String>,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string.
    Text,
    /// A list of strings.
    Texts,
    /// A program and its arguments: a list of strings. Only the program is checked.
    Command,
    /// A boolean; false means the same as absent.
    Flag,
}

/// Whether a key is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Always.
    Required,
    /// Never.
    Optional,
    /// Exactly one of the row's keys with this need.
    OneOf,
    /// At most one of the row's keys with this need.
    AtMostOne,
}

impl Setting {
    /// A required key.
    pub(crate) const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, need: Need::Required, doc, example: "", check: |_| Ok(()) }
    }

    /// An optional key.
    pub(crate) const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { need: Need::Optional, ..Self::required(name, kind, doc) }
    }

    /// One of several keys, exactly one of which is required.
    pub(crate) const fn one_of(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { need: Need::OneOf, ..Self::required(name, kind, doc) }
    }

    /// One of several keys, at most one of which is allowed.
    pub(crate) const fn at_most_one(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { need: Need::AtMostOne, ..Self::required(name, kind, doc) }
    }

    /// Adds a check of the string. Its message must not repeat the string, which may be a secret in the wrong place.
    pub(crate) const fn checked(self, check: fn(&str) -> Result<(), String>) -> Self {
        Self { check, ..self }
    }

    /// Adds an example.
    pub(crate) const fn like(self, example: &'static str) -> Self {
        Self { example, ..self }
    }

    /// The same key with another need, for another row.
    pub(crate) const fn needed(self, need: Need) -> Self {
        Self { need, ..self }
    }

    /// The example; `None` if there is none.
    pub(crate) fn example_value(&self) -> Option<toml::Value> {
        self.example.parse().ok()
    }

    /// Checks the kind and the content of a value.
    pub(crate) fn judge(&self, value: &toml::Value) -> Result<(), String> {
        let wrong = || format!("must be {}", self.kind.as_str());
        match (self.kind, value) {
            (Kind::Text, toml::Value::String(text)) if text.is_empty() => Err("is empty".to_owned()),
            (Kind::Text, toml::Value::String(text)) => (self.check)(text),
            (Kind::Texts | Kind::Command, toml::Value::Array(list)) => {
                let texts: Option<Vec<&str>> = list.iter().map(toml::Value::as_str).collect();
                self.judge_list(&texts.ok_or_else(wrong)?)
            }
            (Kind::Flag, toml::Value::Boolean(_)) => Ok(()),
            _ => Err(wrong()),
        }
    }

    fn judge_entry(&self, text: &str) -> Result<(), String> {
        if text.is_empty() { Err("is empty".to_owned()) } else { (self.check)(text) }
    }

    fn judge_list(&self, texts: &[&str]) -> Result<(), String> {
        match (self.kind, texts) {
            (_, []) => Err("is empty".to_owned()),
            (Kind::Command, [program, ..]) => (self.check)(program),
            (_, [only]) => self.judge_entry(only),
            (_, several) => {
                let judged = several.iter().enumerate();
                let mut bad = judged.filter_map(|(at, text)| Some((at + 1, self.judge_entry(text).err()?)));
                bad.next().map_or(Ok(()), |(at, what)| Err(format!("entry {at} {what}")))
            }
        }
    }
}

impl Kind {
    /// The name of the kind in messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Texts | Self::Command => "a list of texts",
            Self::Flag => "true or false",
        }
    }
}

/// A problem with a row's table.
pub(crate) struct Problem {
    /// The key, present or missing.
    pub(crate) key: String,
    /// The problem.
    pub(crate) what: String,
}

impl Problem {
    pub(crate) fn new(key: &str, what: impl Into<String>) -> Self {
        Self { key: key.to_owned(), what: what.into() }
    }
}

/// A required key is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The name of the key.
    pub(crate) name: &'static str,
    /// Its meaning.
    pub(crate) doc: &'static str,
}

/// The keys of a table that these settings do not declare.
pub(crate) fn foreign<'a>(settings: &[Setting], table: &'a toml::Table) -> impl Iterator<Item = &'a String> {
    table.keys().filter(move |key| !settings.iter().any(|one| one.name == *key))
}

/// All problems with the keys of one row. Other keys are ignored.
pub(crate) fn problems(settings: &[Setting], table: &toml::Table) -> Vec<Problem> {
    let mut found = Vec::new();
    for one in settings {
        match table.get(one.name).map(|value| one.judge(value)) {
            Some(Err(what)) => found.push(Problem::new(one.name, what)),
            None if one.need == Need::Required => found.push(Problem::new(one.name, format!("missing: {}", one.doc))),
            _ => {}
        }
    }
    found.extend(alternatives(settings, table));
    found.extend(exclusive(settings, table));
    found
}

/// The row's keys, with an example for each that is wrong or missing, so that the rest of the file can be checked. Only
/// for a file that is refused: an example is nobody's configuration.
pub(crate) fn completed(settings: &[Setting], table: &toml::Table) -> toml::Table {
    let mut completed = toml::Table::new();
    for one in settings {
        let value = match table.get(one.name) {
            Some(value) if one.judge(value).is_ok() => Some(value.clone()),
            None if one.need != Need::Required => None,
            Some(_) | None => one.example_value(),
        };
        completed.extend(value.map(|value| (one.name.to_owned(), value)));
    }
    completed
}

/// The values of a row's own keys: of the right kind, checked, and complete.
pub(crate) struct Given<'a> {
    table: &'a toml::Table,
}

impl<'a> Given<'a> {
    /// Checks the keys that these settings declare. Fails with all problems.
    pub(crate) fn of(settings: &[Setting], table: &'a toml::Table) -> Result<Self, Vec<Problem>> {
        let problems = problems(settings, table);
        if problems.is_empty() { Ok(Self { table }) } else { Err(problems) }
    }

    /// The string of an optional key.
    pub(crate) fn text(&self, key: &Setting) -> Option<&'a str> {
        self.table.get(key.name)?.as_str()
    }

    /// The string of a required key. Fails if it is missing.
    pub(crate) fn required(&self, key: &Setting) -> Result<&'a str, Missing> {
        self.text(key).ok_or(Missing { name: key.name, doc: key.doc })
    }

    /// The path of an optional key.
    pub(crate) fn path(&self, key: &Setting) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// The strings of a list; empty if the key is absent.
    pub(crate) fn texts(&self, key: &Setting) -> Vec<String> {
        let list = self.table.get(key.name).and_then(toml::Value::as_array);
        list.into_iter().flatten().filter_map(toml::Value::as_str).map(str::to_owned).collect()
    }

    /// Is the key present?
    pub(crate) fn has(&self, key: &Setting) -> bool {
        self.table.contains_key(key.name)
    }

    /// Is the key present and true?
    pub(crate) fn flag(&self, key: &Setting) -> bool {
        self.table.get(key.name).and_then(toml::Value::as_bool).unwrap_or(false)
    }
}

/// Reports the second key if several keys with [`Need::AtMostOne`] are present.
fn exclusive(settings: &[Setting], table: &toml::Table) -> Option<Problem> {
    let mut given = settings.iter().filter(|one| one.need == Need::AtMostOne && table.contains_key(one.name));
    let (first, second) = (given.next()?, given.next()?);
    Some(Problem::new(second.name, both(first)))
}

fn both(other: &Setting) -> String {
    format!("`{}` is there as well, and only one of them can be", other.name)
}

/// Reports a problem unless exactly one key with [`Need::OneOf`] is present.
fn alternatives(settings: &[Setting], table: &toml::Table) -> Option<Problem> {
    let given = |one: &&&Setting| table.get(one.name).is_some_and(|value| value.as_bool() != Some(false));
    let all: Vec<&Setting> = settings.iter().filter(|one| one.need == Need::OneOf).collect();
    let (first, others) = all.split_first()?;
    let others: Vec<String> = others.iter().map(|one| format!("`{}`: {}", one.name, one.doc)).collect();
    let mut given = all.iter().filter(given);
    match (given.next(), given.next()) {
        (Some(_), None) => None,
        (None, _) => Some(Problem::new(first.name, format!("missing: {} Or {}", first.doc, others.join(" Or ")))),
        (Some(one), Some(other)) => Some(Problem::new(other.name, both(one))),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) mod page;

    use super::*;

    const SETTINGS: [Setting; 4] = [
        Setting::one_of("file", Kind::Text, "A file."),
        Setting::one_of("request", Kind::Flag, "Ask."),
        Setting::required("words", Kind::Texts, "Words."),
        Setting::optional("name", Kind::Text, "A name.")
            .checked(|text| if text == "bad" { Err("is bad".to_owned()) } else { Ok(()) }),
    ];

    fn of(settings: &[Setting], table: &str) -> Vec<String> {
        let table = table.parse().expect("a table");
        problems(settings, &table).into_iter().map(|one| format!("{}: {}", one.key, one.what)).collect()
    }

    fn found(table: &str) -> Vec<String> {
        of(&SETTINGS, table)
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
        let found = |table: &str| of(&NAMES, table);
        assert!(found("").is_empty() && found("by_name = 'a'").is_empty() && found("by_number = '1'").is_empty());
        let both = found("by_name = 'a'\nby_number = '1'");
        assert_eq!(both, ["by_number: `by_name` is there as well, and only one of them can be"]);
    }

    #[test]
    fn every_text_of_a_list_is_checked_but_the_arguments_of_a_program() {
        fn good(text: &str) -> Result<(), String> {
            if text == "-" { Err(String::new()) } else { Ok(()) }
        }
        const LISTS: [Setting; 2] = [
            Setting::optional("all", Kind::Texts, "All.").checked(|text| good(text).map_err(|_| "is none".to_owned())),
            Setting::optional("run", Kind::Command, "A program.")
                .checked(|text| good(text).map_err(|_| "has no name".to_owned())),
        ];
        assert!(of(&LISTS, "all = ['a', 'b']\nrun = ['p', '-', '']").is_empty());
        assert_eq!(of(&LISTS, "all = ['a', '-']"), ["all: entry 2 is none"]);
        assert_eq!(of(&LISTS, "all = ['a', '']"), ["all: entry 2 is empty"]);
        assert_eq!(of(&LISTS, "all = ['']\nrun = ['-', 'a']"), ["all: is empty", "run: has no name"]);
    }

    #[test]
    fn what_is_given_is_checked() {
        let table = "file = 'x'\nwords = ['a', 'b']".parse().expect("a table");
        let given = Given::of(&SETTINGS, &table).map_err(|problems| problems.len()).expect("nothing is wrong");
        assert_eq!((given.text(&SETTINGS[0]), given.required(&SETTINGS[0])), (Some("x"), Ok("x")));
        assert_eq!(
            (given.flag(&SETTINGS[1]), given.texts(&SETTINGS[2])),
            (false, vec!["a".to_owned(), "b".to_owned()])
        );
        assert!(given.required(&SETTINGS[3]).is_err() && !given.has(&SETTINGS[3]));
        for (bad, key) in [("file = 'x'\nwords = 'SECRET'", "words"), ("file = 'x'", "words")] {
            let table = bad.parse().expect("a table");
            let Err(problems) = Given::of(&SETTINGS, &table) else { panic!("{bad}") };
            assert!(problems.len() == 1 && problems[0].key == key, "{bad}");
            assert!(!problems[0].what.contains("SECRET"), "{}", problems[0].what);
        }
    }
}
