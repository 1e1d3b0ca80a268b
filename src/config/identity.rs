//! `[identity]`: the identity source and its own keys.

use toml::de::DeTable;

use super::reader::{Found, Reader, Section};
use super::{identity_sources, keys};
use crate::identity::{self, Choice};
use crate::oauth::suggestion;
use crate::setting::Problem;

pub(super) fn identity_of<'a>(reader: &mut Reader<'a>, at: usize, table: &'a DeTable<'a>) -> Choice {
    let section = reader.section(Found { path: "identity", at, table }, &keys::IDENTITY, &settings());
    let probes = section.flag("probe");
    if let (true, Some((source, _))) = (probes, section.text("source")) {
        let what = format!("has no effect beside `source = {source:?}`, which is asked without any looking");
        reader.problem(section.line_of("probe"), &section.key("probe"), what);
    }
    match choice_of(reader, section) {
        Choice::Detect if probes => Choice::Probe,
        choice => choice,
    }
}

/// The names of the own keys of all sources.
pub(super) fn settings() -> Vec<&'static str> {
    identity::SOURCES.iter().flat_map(|row| row.settings.iter().map(|one| one.name)).collect()
}

/// Reads the source that a table names, with its own keys.
pub(super) fn choice_of(reader: &mut Reader<'_>, section: Section<'_>) -> Choice {
    let Some((source, line)) = section.text("source") else {
        if !section.rest.is_empty() && !section.has("source") {
            reader.problem(section.line, &section.path, "its keys need `source`, which says whose they are");
        }
        return Choice::Detect;
    };
    let Some(row) = identity::row(source) else {
        let known = identity_sources();
        reader.problem(
            line,
            &section.key("source"),
            format!(
                "{source:?} is not known; this version knows: {}{}",
                known.join(", "),
                suggestion(source, known.iter().copied())
            ),
        );
        return Choice::Detect;
    };
    let line_of = |key: &str| section.foreign_lines.get(key).copied().unwrap_or(line);
    for Problem { key, what } in identity::problems(row, &section.rest) {
        reader.problem(line_of(&key), &section.key(&key), what);
    }
    Choice::Named { source: source.to_owned(), settings: section.rest }
}
