//! Reads a TOML table against its keys. Every problem is collected with its line; none stops the reading.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Key, Kind, Table};
use crate::broker::Rate;
use crate::clock::span;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line in the file, from 1; none for what is missing altogether.
    pub line: Option<usize>,
    /// The key with its table.
    pub key: String,
    /// What is wrong, and the cure.
    pub what: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// The file's text and what was found wrong with it so far.
pub(super) struct Reader<'a> {
    text: &'a str,
    pub(super) problems: Vec<Problem>,
}

/// A table where it was found in the file.
pub(super) struct Found<'p, 'a> {
    pub(super) path: &'p str,
    /// The offset of its head.
    pub(super) at: usize,
    pub(super) table: &'a DeTable<'a>,
}

/// One table, read: every value has the kind its key wants.
#[derive(Default)]
pub(super) struct Section<'a> {
    pub(super) path: String,
    pub(super) line: usize,
    values: BTreeMap<&'static str, (Value<'a>, usize)>,
    /// Every key of ours that is there, readable or not.
    present: BTreeMap<&'static str, usize>,
    /// Keys that belong to a row of another table, as they stand.
    pub(super) rest: toml::Table,
    /// Where those are, readable or not.
    pub(super) rest_lines: BTreeMap<String, usize>,
}

/// The value of a form parameter.
pub(super) enum Parameter {
    /// This text.
    Text(String),
    /// A token of the identity of this name.
    Identity(String),
}

enum Value<'a> {
    Text(String),
    Texts(Vec<String>),
    Flag(bool),
    Number(u32),
    Span(Duration),
    Rate(Rate),
    Parameters(Vec<(String, Parameter)>),
    Tables(Vec<(&'a DeTable<'a>, usize)>),
    Table(&'a DeTable<'a>, usize),
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, problems: Vec::new() }
    }

    pub(super) fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|&&byte| byte == b'\n').count()
    }

    pub(super) fn problem(&mut self, line: impl Into<Option<usize>>, key: &str, what: impl Into<String>) {
        self.problems.push(Problem { line: line.into(), key: key.to_owned(), what: what.into() });
    }

    /// Reads a table. Keys that `foreign` names are kept as they stand.
    pub(super) fn section(&mut self, found: Found<'_, 'a>, wanted: &'static Table, foreign: &[&str]) -> Section<'a> {
        let Found { path, at, table } = found;
        let mut section = Section { path: path.to_owned(), line: self.line(at), ..Section::default() };
        for (name, value) in table {
            let (text, line) = (name.get_ref().as_ref(), self.line(name.span().start));
            let full = format!("{path}.{text}");
            // What a table and a row of another have in common is kept for either.
            if foreign.contains(&text) {
                section.rest_lines.insert(text.to_owned(), line);
                section.rest.insert(text.to_owned(), plain(value.get_ref()));
            }
            match wanted.keys.iter().find(|key| key.name == text) {
                Some(Key { kind: Kind::Later, doc, .. }) => {
                    self.problem(
                        line,
                        &full,
                        format!("not built in this version ({}); take it out", doc.trim_end_matches('.')),
                    );
                }
                Some(key) if section.present.insert(key.name, line).is_some() => {}
                Some(key) => match read(key.kind, value) {
                    Some(value) => drop(section.values.insert(key.name, (value, line))),
                    None => self.problem(
                        line,
                        &full,
                        format!("must be {}, for example `{} = {}`", describe(key.kind), key.name, key.example),
                    ),
                },
                None if foreign.contains(&text) => {}
                None => {
                    let known = wanted.keys.iter().map(|key| key.name).chain(foreign.iter().copied());
                    self.problem(line, &full, format!("unknown key{}", suggestion(text, known)));
                }
            }
        }
        section
    }

    /// The tables of an `allow` list.
    pub(super) fn rules(&mut self, section: &Section<'a>) -> Option<Vec<Section<'a>>> {
        let (Value::Tables(tables), _) = section.values.get("allow")? else { return None };
        let path = format!("{}.allow", section.path);
        let found = tables.iter().map(|(table, at)| Found { path: &path, at: *at, table });
        Some(found.map(|found| self.section(found, &keys::RULE, &[])).collect())
    }
}

impl<'a> Reader<'a> {
    /// The table under a key of its own.
    pub(super) fn nested(
        &mut self,
        section: &Section<'a>,
        key: &str,
        keys: &'static Table,
        foreign: &[&str],
    ) -> Option<Section<'a>> {
        let (Value::Table(table, at), _) = section.values.get(key)? else { return None };
        Some(self.section(Found { path: &section.key(key), at: *at, table }, keys, foreign))
    }
}

impl Section<'_> {
    pub(super) fn text(&self, key: &str) -> Option<(&str, usize)> {
        match self.values.get(key) {
            Some((Value::Text(text), line)) => Some((text, *line)),
            _ => None,
        }
    }

    pub(super) fn texts(&self, key: &str) -> Option<(&[String], usize)> {
        match self.values.get(key) {
            Some((Value::Texts(texts), line)) => Some((texts, *line)),
            _ => None,
        }
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.maybe_flag(key) == Some(true)
    }

    pub(super) fn maybe_flag(&self, key: &str) -> Option<bool> {
        match self.values.get(key) {
            Some((Value::Flag(flag), _)) => Some(*flag),
            _ => None,
        }
    }

    pub(super) fn number(&self, key: &str) -> Option<u32> {
        match self.values.get(key) {
            Some((Value::Number(number), _)) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn span(&self, key: &str) -> Option<Duration> {
        match self.values.get(key) {
            Some((Value::Span(span), _)) => Some(*span),
            _ => None,
        }
    }

    pub(super) fn rate(&self, key: &str) -> Option<Rate> {
        match self.values.get(key) {
            Some((Value::Rate(rate), _)) => Some(*rate),
            _ => None,
        }
    }

    pub(super) fn parameters(&self, key: &str) -> Option<(&[(String, Parameter)], usize)> {
        match self.values.get(key) {
            Some((Value::Parameters(parameters), line)) => Some((parameters, *line)),
            _ => None,
        }
    }

    pub(super) fn line_of(&self, key: &str) -> usize {
        self.present.get(key).or_else(|| self.rest_lines.get(key)).copied().unwrap_or(self.line)
    }

    /// Is this key in the table, whosever it is?
    pub(super) fn has(&self, key: &str) -> bool {
        self.has_own(key) || self.rest_lines.contains_key(key)
    }

    /// Is this key of the table itself there?
    pub(super) fn has_own(&self, key: &str) -> bool {
        self.present.contains_key(key)
    }

    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }
}

fn read<'a>(kind: Kind, value: &'a Spanned<DeValue<'a>>) -> Option<Value<'a>> {
    let texts = |value: &DeValue<'_>| {
        value.as_array()?.iter().map(|one| one.get_ref().as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    };
    let inner = value.get_ref();
    match kind {
        Kind::Text => inner.as_str().map(|text| Value::Text(text.to_owned())),
        Kind::Texts => texts(inner).map(Value::Texts),
        Kind::Flag => inner.as_bool().map(Value::Flag),
        Kind::Number => {
            let number = inner.as_integer()?;
            u32::from_str_radix(number.as_str(), number.radix()).ok().map(Value::Number)
        }
        Kind::Span => inner.as_str().and_then(span).map(Value::Span),
        Kind::Rate => inner.as_str().and_then(Rate::parse).map(Value::Rate),
        Kind::Parameters => {
            let all = inner.as_table()?.iter();
            let all = all.map(|(name, value)| Some((name.get_ref().to_string(), parameter(value.get_ref())?)));
            all.collect::<Option<Vec<_>>>().map(Value::Parameters)
        }
        Kind::Rules => {
            let tables = inner.as_array()?.iter().map(|one| Some((one.get_ref().as_table()?, one.span().start)));
            tables.collect::<Option<Vec<_>>>().map(Value::Tables)
        }
        Kind::Provider | Kind::FrontDoor => Some(Value::Table(inner.as_table()?, value.span().start)),
        Kind::Later => None,
    }
}

/// A text, or a table with the key `identity` alone.
fn parameter(value: &DeValue<'_>) -> Option<Parameter> {
    if let Some(text) = value.as_str() {
        return Some(Parameter::Text(text.to_owned()));
    }
    let table = value.as_table()?;
    let identity = table.get("identity")?.get_ref().as_str()?;
    (table.len() == 1).then(|| Parameter::Identity(identity.to_owned()))
}

/// A value as it stands. What no row's key can be becomes a number, which none takes.
fn plain(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Boolean(flag) => toml::Value::Boolean(*flag),
        DeValue::Array(list) => toml::Value::Array(list.iter().map(|one| plain(one.get_ref())).collect()),
        _ => toml::Value::Integer(0),
    }
}

pub(super) fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "a text",
        Kind::Texts => "a list of texts",
        Kind::Flag => "true or false",
        Kind::Number => "a number from 0 to 4294967295",
        Kind::Span => "a number with s, m or h",
        Kind::Rate => "a number of times a second, minute or hour",
        Kind::Parameters => "a table of texts and of `{ identity = \"NAME\" }`",
        Kind::Rules => "a list of tables",
        Kind::Provider | Kind::FrontDoor => "a table",
        Kind::Later => "absent",
    }
}

/// `; did you mean …?` when a known name is a slip away.
pub(super) fn suggestion<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known.map(|name| (distance(text, name), name)).min();
    match near {
        Some((distance, name)) if distance <= 2 && distance < name.len() / 2 => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}

/// Edit distance, for names of a few letters.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let next = (diagonal + usize::from(a != *b)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[other.len()]
}
