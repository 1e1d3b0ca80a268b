//! docs/troubleshooting.md against the sources: it has every error code with its classes, and no other.
//!
//! A code is a text in the sources, beside the class of its failure. This test finds them by what stands before them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use crate::tables::{literal, read, rows};

static PAGE: LazyLock<&str> = LazyLock::new(|| read("docs/troubleshooting.md"));

/// The classes, as the sources and as the pages spell them.
const CLASSES: [(&str, &str); 7] = [
    ("BadRequest", "bad_request"),
    ("Denied", "denied"),
    ("Config", "config"),
    ("NoIdentity", "no_identity"),
    ("Refused", "refused"),
    ("Temporary", "temporary"),
    ("Internal", "internal"),
];

/// What stands before a code whose class is not beside it.
const BEFORE: [&str; 8] = [
    "class, ",
    "class(), ",
    "row(",
    "recorded_as(",
    "code: ",
    "CODE: &str = ",
    "text(\"error\", ",
    "\"error\": self.lost().then_some(",
];

/// Files with nothing but codes in texts of several words.
const TABLES: [&str; 4] = ["judged.rs", "request.rs", "rooms.rs", "route.rs"];

/// Each code, with the classes that stand beside it.
type Codes = BTreeMap<String, BTreeSet<&'static str>>;

/// Adds the codes in the text of one file.
fn find(text: &str, is_table: bool, codes: &mut Codes) {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = product.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let text = lines.collect::<Vec<_>>().join(" ").replace("( ", "(");
    for (at, _) in text.match_indices('"') {
        let (before, rest) = (&text[..at], &text[at + 1..]);
        let Some((word, _)) = rest.split_once('"') else { continue };
        if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            continue;
        }
        let class = class_before(before);
        let is_code = class.is_some() || (is_table && word.contains('_')) || is_after_word(before);
        if is_code {
            codes.entry(word.to_owned()).or_default().extend(class);
        }
    }
}

/// The class that stands directly before a text, perhaps with a status between them.
fn class_before(before: &str) -> Option<&'static str> {
    let before = before.strip_suffix(", ")?;
    let before = before.trim_end_matches(|c: char| c.is_ascii_digit());
    let before = before.strip_suffix(", ").unwrap_or(before);
    let ends = |(name, on_page): &&(&str, &str)| {
        let start = before.strip_suffix(name);
        let is_name = start.is_some_and(|start| !start.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        is_name || before.ends_with(&format!("(\"{on_page}\""))
    };
    CLASSES.iter().find(ends).map(|(_, on_page)| *on_page)
}

fn is_after_word(before: &str) -> bool {
    let is_of_chain = before.rsplit_once(".broken(").is_some_and(|(_, argument)| {
        argument.strip_suffix(", ").is_some_and(|at| at.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'.'))
    });
    // All texts of a function that gives a code are codes.
    let is_in_function = before.rsplit_once("fn code(").is_some_and(|(_, body)| !body.contains("} }"));
    is_of_chain || is_in_function || BEFORE.iter().any(|start| before.ends_with(start))
}

/// The codes of the sources.
fn codes() -> Codes {
    let mut codes = Codes::new();
    let mut pending = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(path) = pending.pop() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "tests" {
            pending.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let is_table =
                path.parent().is_some_and(|folder| folder.ends_with("broker/error")) && TABLES.contains(&name);
            find(&fs::read_to_string(&path).expect("UTF-8"), is_table, &mut codes);
        }
    }
    codes
}

#[test]
fn a_code_is_found_by_what_stands_before_it() {
    let mut codes = Codes::new();
    let text = "// row(\"comment\")\nSelf::new(\n    Class::Denied,\n    \"a_a\",\n    words(\"other\")); Failure::new(class, \"b\"); \
        new(Class::BadRequest, 404, \"c\"); Self::X => (\"refused\", \"d_d\"), self.broken(self.at, \"e\", \"not this\"); \
        fn code(self) -> &'static str { match self { Self::A => \"f\", Self::B => \"g\", } } fn words() { \"other\" }\n\
        #[cfg(test)]\nmod tests { row(\"test\") }";
    find(text, false, &mut codes);
    let found: Vec<(&str, Vec<&str>)> =
        codes.iter().map(|(code, classes)| (code.as_str(), classes.iter().copied().collect())).collect();
    let wanted: [(&str, Vec<&str>); 7] = [
        ("a_a", vec!["denied"]),
        ("b", vec![]),
        ("c", vec!["bad_request"]),
        ("d_d", vec!["refused"]),
        ("e", vec![]),
        ("f", vec![]),
        ("g", vec![]),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn the_page_has_every_code_of_the_sources_with_its_classes_and_no_other() {
    let codes = codes();
    assert!(codes.len() > 70, "the codes are not where they were: {:?}", codes.keys());
    let mut on_page = Codes::new();
    for row in rows(&PAGE, "code") {
        let classes = row[1].split(", ").filter(|cell| cell.starts_with('`')).map(literal);
        let known = |class: &str| CLASSES.iter().find(|(_, on_page)| *on_page == class).map(|(_, on_page)| *on_page);
        let classes = classes.map(|class| known(class).unwrap_or_else(|| panic!("no class: {row:?}")));
        on_page.entry(literal(row[0]).to_owned()).or_default().extend(classes);
        assert!(row.len() == 5 && row.iter().all(|cell| !cell.is_empty()), "a cell is empty: {row:?}");
    }
    let missing: Vec<_> = codes.keys().filter(|code| !on_page.contains_key(*code)).collect();
    assert!(missing.is_empty(), "codes that docs/troubleshooting.md lacks: {missing:?}");
    let foreign: Vec<_> = on_page.keys().filter(|code| !codes.contains_key(*code)).collect();
    assert!(foreign.is_empty(), "codes of docs/troubleshooting.md that the program does not have: {foreign:?}");
    for (code, classes) in &codes {
        let lacking: Vec<_> = classes.difference(&on_page[code]).collect();
        assert!(lacking.is_empty(), "docs/troubleshooting.md: {code} lacks {lacking:?}");
    }
}

/// Codes that the authorization server chose: they are passed on, so no list of them is complete.
#[test]
fn each_error_of_the_other_page_is_here_or_is_the_issuers() {
    let foreign: BTreeSet<&str> = rows(&PAGE, "said").iter().map(|row| literal(row[0])).collect();
    assert!(foreign.contains("invalid_grant"), "{foreign:?}");
    let here: BTreeSet<&str> = rows(&PAGE, "code").iter().map(|row| literal(row[0])).collect();
    let errors = rows(read("docs/api.md"), "error");
    assert!(errors.len() > 20, "the errors of docs/api.md are not where they were");
    let lost: Vec<&str> = errors.iter().map(|row| literal(row[0])).collect();
    let lost: Vec<&str> = lost.into_iter().filter(|code| !here.contains(code) && !foreign.contains(code)).collect();
    assert!(lost.is_empty(), "docs/troubleshooting.md has no word of {lost:?}");
}
