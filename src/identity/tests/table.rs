//! Generates `docs/sources.md`: the tables of sources, keys, variables and platforms.
//!
//! The test compares the file with the code. With `UPDATE_DOCS=1` in its environment it rewrites the file.

use std::fmt::Write;
use std::path::Path;

use super::*;
use crate::setting::{Kind, Need};
use crate::trust::{Compares, PRODUCTS};

const HEAD: &str = "# Identity sources

<!-- Written from src/identity/: `UPDATE_DOCS=1 cargo test --lib identity::tests::table`. -->

From narrow to wide, decided from environment and files alone. Two usable sources in one tier are an error; one that is here
but cannot be used stops with the cure.
";

const KEYS: &str = "
## Keys

In `[identity]` or `[identities.NAME]`, beside `source`.
";

const VARIABLES: &str = "
## Variables

Which variables would let a process obtain the identity by itself. What only says where it runs is not here, nor a variable
that a key names. `*` stands for any rest.
";

const TRUST: &str = "
## Trust policies

What `safeconduct trust-policy` pins beside issuer, audience and `sub`.
";

const SHAPES: &str = "
What each side compares. The command says on stderr which claims its document pins, and which that side cannot compare.
";

fn text() -> String {
    let mut text = HEAD.to_owned();
    let mut table = |head: &str, columns: &[&str], rows: Vec<Vec<String>>| {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let names: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
        write!(text, "{head}\n{}|{}\n", line(&names), "---|".repeat(columns.len())).expect("memory");
        text.extend(rows.iter().map(|cells| line(cells)));
    };
    let sources = SOURCES.iter().map(|row| {
        let (name, tier) = (code(row.name), row.tier.as_str());
        [&name, tier, row.about, row.evidence, row.token].map(str::to_owned).to_vec()
    });
    table("", &["`source`", "tier", "what it is", "evidence", "identity token"], sources.collect());
    let keys = SOURCES.iter().flat_map(|row| row.settings.iter().map(move |one| (row, one)));
    let keys = keys.map(|(row, one)| {
        vec![code(row.name), code(one.name), one.kind.as_str().to_owned(), need(one).to_owned(), one.doc.to_owned()]
    });
    table(KEYS, &["`source`", "key", "value", "must it be there", "meaning"], keys.collect());
    let variables = SOURCES.iter().filter(|row| !row.variables.is_empty());
    let variables = variables.map(|row| {
        let names: Vec<String> = row.variables.iter().map(|name| code(name)).collect();
        vec![code(row.name), names.join(", ")]
    });
    table(VARIABLES, &["`source`", "variables"], variables.collect());
    let platforms = SOURCES.iter().filter(|row| row.trust.name == row.name).map(|row| {
        let pins: Vec<String> = row.trust.pins.iter().map(pin).collect();
        vec![code(row.name), pins.join("; "), row.trust.note.to_owned()]
    });
    table(TRUST, &["platform", "pinned beside issuer, audience and `sub`", "to know"], platforms.collect());
    let shapes = PRODUCTS.iter().filter(|product| product.makes_documents());
    let shapes = shapes.map(|product| {
        let subject = match product.compares {
            _ if product.whole_subject => "whole",
            Compares::FirstLevel => "whole; one that changes is left out",
            _ => "whole, or its beginning",
        };
        let keys = if product.fetches_keys.is_some() { "the Internet" } else { "where that side is" };
        vec![code(product.name), subject.to_owned(), compared(product.compares), keys.to_owned()]
    });
    table(SHAPES, &["`--for`", "`sub`", "other claims", "reads the issuer's keys from"], shapes.collect());
    text
}

fn compared(compares: Compares) -> String {
    match compares {
        Compares::All => "all".to_owned(),
        Compares::FirstLevel => "all of the first level".to_owned(),
        Compares::Nothing => "none".to_owned(),
        Compares::Known(rows) => {
            let row = |(issuer, names): &(&str, &[&str])| {
                let names: Vec<String> = names.iter().map(|name| code(name)).collect();
                format!("{} of `{issuer}`", names.join(", "))
            };
            rows.iter().map(row).collect::<Vec<_>>().join("; ")
        }
    }
}

fn code(name: &str) -> String {
    format!("`{name}`")
}

fn need(one: &Setting) -> &'static str {
    match (one.need, one.kind) {
        (Need::Required, _) => "yes",
        (Need::Optional, _) => "no",
        (Need::OneOf, Kind::Flag) => "exactly one of these, as true",
        (Need::OneOf, _) => "exactly one of these",
        (Need::AtMostOne, _) => "at most one of these",
    }
}

fn pin(pin: &crate::trust::Pin) -> String {
    let only = if pin.required { "" } else { ", where it is there" };
    format!("`{}`{only} ({})", pin.path.join("."), pin.why)
}

#[test]
fn the_documentation_of_the_sources_says_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sources.md");
    let text = text();
    if Env::from_process().get("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("ours");
        std::fs::write(&path, &text).expect("ours");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let other = found.lines().zip(text.lines()).find(|(found, wanted)| found != wanted);
    assert!(found == text, "docs/sources.md is old: UPDATE_DOCS=1 cargo test --lib identity::tests::table\n{other:?}");
}
