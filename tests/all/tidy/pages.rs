//! Checks the length of files, that only its own room uses the name of a source or an exchange, and the paths that pages name.

use std::collections::BTreeSet;
use std::fs;

use super::{built, root, sources};

/// The limit for a file without its tests.
const LINES: usize = 400;

/// Known longer files. Do not add to this list.
const LONG: &[&str] = &["src/config/keys.rs"];

/// Names that are also ordinary words: `"file"` is a key of several answers.
const WORDS: [&str; 3] = ["command", "env", "file"];

/// Known files that contain the name of a source or an exchange, with that name. In `trust` the names are those of policy
/// formats, and of types in them. Do not add to this list.
const NAMED_ELSEWHERE: &[(&str, &str)] = &[
    ("src/trust/documents.rs", "kubernetes"),
    ("src/trust/documents.rs", "spiffe"),
    ("src/trust/shapes.rs", "aws"),
    ("src/trust/shapes.rs", "entra"),
    ("src/trust/shapes.rs", "gcp"),
];

#[test]
fn no_file_is_longer_than_400_lines_without_its_tests() {
    let long = |text: &str| text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count() > LINES;
    let found: BTreeSet<String> =
        sources().into_iter().filter(|one| !one.is_test() && long(&one.text)).map(|one| one.path).collect();
    let known: BTreeSet<String> = LONG.iter().map(|&path| path.to_owned()).collect();
    assert_eq!(found, known, "files over {LINES} lines, and those that are known");
}

#[test]
fn a_source_or_an_exchange_is_named_in_its_room_and_the_configuration_alone() {
    let mut names: BTreeSet<String> = built("identity").into_iter().chain(built("exchange")).collect();
    names.retain(|name| !WORDS.contains(&name.as_str()));
    let mut found = BTreeSet::new();
    for source in sources().iter().filter(|one| !one.is_test()) {
        if matches!(source.room(), "config" | "identity" | "exchange") {
            continue;
        }
        let product = source.product();
        let said = names.iter().filter(|name| product.contains(&format!("\"{name}\"")));
        found.extend(said.map(|name| (source.path.clone(), name.clone())));
    }
    let known: BTreeSet<(String, String)> =
        NAMED_ELSEWHERE.iter().map(|&(path, name)| (path.to_owned(), name.to_owned())).collect();
    assert_eq!(found, known, "names in other rooms, and those that are known");
}

#[test]
fn every_path_that_a_page_names_is_there() {
    const PAGES: [&str; 3] = ["README.md", "docs/kubernetes.md", "docs/platforms.md"];
    const FOLDERS: [&str; 5] = ["src/", "packaging/", "examples/", "docs/", "tests/"];
    let is_path = |word: &&str| FOLDERS.iter().any(|folder| word.starts_with(folder)) && !word.contains([' ', '*']);
    for page in PAGES {
        let text = fs::read_to_string(root().join(page)).expect("readable");
        // Every second piece is in backticks.
        let paths: Vec<&str> = text.split('`').skip(1).step_by(2).filter(is_path).collect();
        assert!(!paths.is_empty(), "{page} names no path");
        let gone: Vec<&str> = paths.into_iter().filter(|path| !root().join(path).exists()).collect();
        assert!(gone.is_empty(), "{page}: {gone:?}");
    }
}
