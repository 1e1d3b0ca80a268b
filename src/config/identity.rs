//! `[identity]`: which source, and its own keys.

use toml::de::DeTable;

use super::reader::{Reader, Section};
use super::{identity_sources, keys};
use crate::identity::{self, Choice};

pub(super) fn identity_of<'a>(reader: &mut Reader<'a>, at: usize, table: &'a DeTable<'a>) -> Choice {
    let section = reader.section("identity", at, table, &keys::IDENTITY, &settings());
    choice_of(reader, section)
}

/// The own keys of all sources.
pub(super) fn settings() -> Vec<&'static str> {
    identity::SOURCES.iter().flat_map(|row| row.settings.iter().map(|(name, _)| *name)).collect()
}

/// The source that a table names, with its own keys.
pub(super) fn choice_of(reader: &mut Reader<'_>, section: Section<'_>) -> Choice {
    let Some((source, line)) = section.text("source") else {
        if !section.rest.is_empty() {
            reader.problem(section.line, &section.path, "its keys need `source`, which says whose they are");
        }
        return Choice::Detect;
    };
    let Some(row) = identity::row(source) else {
        let known = identity_sources();
        reader.problem(
            line,
            &section.key("source"),
            format!("{source:?} is not known; this version knows: {}", known.join(", ")),
        );
        return Choice::Detect;
    };
    for key in section.rest.keys().filter(|key| !row.settings.iter().any(|(name, _)| name == key)) {
        reader.problem(section.line, &section.key(key), format!("belongs to another source than {source:?}"));
    }
    for (name, doc) in row.settings.iter().filter(|(name, _)| !section.rest.contains_key(*name)) {
        reader.problem(line, &section.key(name), format!("missing: {doc}"));
    }
    Choice::Named { source: source.to_owned(), settings: section.rest }
}
