//! Reads TOML tables by the declarations in [`keys`]. Problems are collected with their lines and do not stop the
//! reading.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Key, Kind, Table};
use crate::broker::Rate;
use crate::clock::span;
use crate::oauth::suggestion;

/// A problem in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line in the file, from 1; `None` if the problem has no single line.
    pub line: Option<usize>,
    /// The key with its table.
    pub key: String,
    /// The problem and how to fix it.
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

/// The text of the file, the problems so far, and what they leave unknown.
pub(super) struct Reader<'a> {
    /// The byte offsets of the line feeds.
    line_ends: Vec<usize>,
    text: PhantomData<&'a str>,
    pub(super) problems: Vec<Problem>,
    /// The orders whose exchange or identity is unknown, by name: whether the two fit together is not known either.
    pub(super) undecided_orders: BTreeSet<Arc<str>>,
    /// The identities that are in the file and whose source is unknown.
    pub(super) unresolved_identities: BTreeSet<String>,
}

/// A table and its position in the file.
pub(super) struct Found<'p, 'a> {
    pub(super) path: &'p str,
    /// The byte offset of its header.
    pub(super) at: usize,
    pub(super) table: &'a DeTable<'a>,
}

/// A table that was read. Every value in `values` has the kind of its key.
#[derive(Default)]
pub(super) struct Section<'a> {
    pub(super) path: String,
    pub(super) line: usize,
    values: BTreeMap<&'static str, (Value<'a>, usize)>,
    /// The line of every declared key that is present, even if its value is invalid.
    present: BTreeMap<&'static str, usize>,
    /// The values of foreign keys (of a source or an exchange), not checked yet.
    pub(super) rest: toml::Table,
    /// The lines of those keys, even if their values are invalid.
    pub(super) foreign_lines: BTreeMap<String, usize>,
}

/// The value of a form parameter.
pub(super) enum Parameter {
    /// This string.
    Text(String),
    /// A token of the identity with this name.
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
        let line_ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self {
            line_ends,
            text: PhantomData,
            problems: Vec::new(),
            undecided_orders: BTreeSet::new(),
            unresolved_identities: BTreeSet::new(),
        }
    }

    pub(super) fn line(&self, at: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < at)
    }

    pub(super) fn problem(&mut self, line: impl Into<Option<usize>>, key: &str, what: impl Into<String>) {
        self.problems.push(Problem { line: line.into(), key: key.to_owned(), what: what.into() });
    }

    /// Reads a table. The values of keys in `foreign` are copied to `rest` unchecked.
    pub(super) fn section(&mut self, found: Found<'_, 'a>, wanted: &'static Table, foreign: &[&str]) -> Section<'a> {
        let Found { path, at, table } = found;
        let mut section = Section { path: path.to_owned(), line: self.line(at), ..Section::default() };
        for (name, value) in table {
            let (text, line) = (name.get_ref().as_ref(), self.line(name.span().start));
            let full = format!("{path}.{text}");
            // A key can be both declared and foreign; then both keep its value.
            if foreign.contains(&text) {
                section.foreign_lines.insert(text.to_owned(), line);
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

    /// Reads the tables of an `allow` list.
    pub(super) fn rules(&mut self, section: &Section<'a>) -> Option<Vec<Section<'a>>> {
        let (Value::Tables(tables), _) = section.values.get("allow")? else { return None };
        let path = format!("{}.allow", section.path);
        let found = tables.iter().map(|(table, at)| Found { path: &path, at: *at, table });
        Some(found.map(|found| self.section(found, &keys::RULE, &[])).collect())
    }
}

impl<'a> Reader<'a> {
    /// Reads the table that is the value of `key`.
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
        self.present.get(key).or_else(|| self.foreign_lines.get(key)).copied().unwrap_or(self.line)
    }

    /// Is this key present, declared or foreign?
    pub(super) fn has(&self, key: &str) -> bool {
        self.has_own(key) || self.foreign_lines.contains_key(key)
    }

    /// Is this declared key present?
    pub(super) fn has_own(&self, key: &str) -> bool {
        self.present.contains_key(key)
    }

    /// The key with its table, for messages.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }
}

/// Converts a value. `None` if it has the wrong kind.
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

/// A string, or a table with only the key `identity`.
fn parameter(value: &DeValue<'_>) -> Option<Parameter> {
    if let Some(text) = value.as_str() {
        return Some(Parameter::Text(text.to_owned()));
    }
    let table = value.as_table()?;
    let identity = table.get("identity")?.get_ref().as_str()?;
    (table.len() == 1).then(|| Parameter::Identity(identity.to_owned()))
}

/// Copies a value. Types that no foreign key can have become a number, which every foreign key refuses.
fn plain(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Boolean(flag) => toml::Value::Boolean(*flag),
        DeValue::Array(list) => toml::Value::Array(list.iter().map(|one| plain(one.get_ref())).collect()),
        _ => toml::Value::Integer(0),
    }
}

/// The kind in words, for messages.
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
