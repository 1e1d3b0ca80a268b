//! Checks the length of files, that only its own room uses the name of a source or an exchange, and that the paths and links of pages lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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
    const FOLDERS: [&str; 5] = ["src/", "packaging/", "examples/", "docs/", "tests/"];
    // `NAME` in a path stands for any name.
    let is_variable = |part: &str| ["NAME", "CASE", "GROUP"].iter().any(|name| part.split('.').next() == Some(name));
    let is_path = |word: &&str| {
        let inside = FOLDERS.iter().any(|folder| word.starts_with(folder)) && !word.contains([' ', '*']);
        inside && !word.trim_end_matches('/').split('/').any(is_variable)
    };
    for (page, text) in pages() {
        // Every second piece is in backticks.
        let paths: Vec<&str> = text.split('`').skip(1).step_by(2).filter(is_path).collect();
        let gone: Vec<&str> = paths.into_iter().filter(|path| !root().join(path).exists()).collect();
        assert!(gone.is_empty(), "{page}: {gone:?}");
    }
}

/// A page links to files, and to headings of pages, that are there.
#[test]
fn every_link_of_a_page_leads_somewhere() {
    let pages = pages();
    let mut gone = BTreeSet::new();
    for (page, text) in &pages {
        let folder = Path::new(page).parent().expect("a file");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            if link.starts_with("https:") || path.contains(' ') {
                continue;
            }
            let target = if path.is_empty() { PathBuf::from(page) } else { folder.join(path) };
            let is_there = root().join(&target).exists();
            let has_heading = heading.is_empty()
                || fs::read_to_string(root().join(&target)).is_ok_and(|text| headings(&text).any(|one| one == heading));
            if !is_there || !has_heading {
                gone.insert(format!("{page}: {link}"));
            }
        }
    }
    assert!(gone.is_empty(), "{gone:#?}");
}

/// The anchors of a page, as GitHub makes them from its headings.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().filter(|line| line.starts_with('#'));
    lines.map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        words.chars().filter(|char| char.is_alphanumeric() || ['-', '_'].contains(char)).collect()
    })
}

/// The pages for people: path and text.
fn pages() -> Vec<(String, String)> {
    let docs = fs::read_dir(root().join("docs")).expect("there is one").map(|entry| entry.expect("readable").path());
    let pages = docs.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let pages = pages.map(|path| format!("docs/{}", path.file_name().expect("a file").to_string_lossy()));
    let tops = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned);
    let read = |page: String| {
        let text = fs::read_to_string(root().join(&page)).expect("readable");
        (page, text)
    };
    tops.into_iter().chain(pages).map(read).collect()
}
