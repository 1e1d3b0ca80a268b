//! Tables in the pages of `docs` that are written from the code: what stands between `<!-- table NAME -->` and `<!-- end -->`.
//! A test compares each page with the code, or rewrites its tables with `UPDATE_DOCS=1` in the environment.

use std::fs;
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::setting::{Kind, Need, Setting};

pub(crate) struct Page {
    file: PathBuf,
    found: String,
    /// With the tables as the code has them.
    wanted: String,
}

impl Page {
    pub(crate) fn read(path: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let found = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { file, wanted: found.clone(), found }
    }

    pub(crate) fn table(&mut self, name: &str, columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let names: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
        let mut table = format!("\n{}|{}\n", line(&names), "---|".repeat(columns.len()));
        table.extend(rows.into_iter().map(|cells| line(&cells)));
        let (head, tail) = (format!("<!-- table {name} -->\n"), "\n<!-- end -->");
        let start = self.wanted.find(&head).unwrap_or_else(|| panic!("no {head:?} in {:?}", self.file)) + head.len();
        let end = start + self.wanted[start..].find(tail).unwrap_or_else(|| panic!("no end after {head:?}"));
        self.wanted.replace_range(start..end, &table);
    }

    /// Panics if the page has something else, with the first line that differs.
    pub(crate) fn compare(self) {
        if Env::from_process().get("UPDATE_DOCS").is_some() {
            return fs::write(&self.file, &self.wanted).expect("ours");
        }
        let other = self.found.lines().zip(self.wanted.lines()).find(|(found, wanted)| found != wanted);
        assert!(
            self.found == self.wanted,
            "{:?} is old: run this test again with UPDATE_DOCS=1 in the environment\n{other:?}",
            self.file
        );
    }
}

/// A name as Markdown shows code.
pub(crate) fn code(name: &str) -> String {
    format!("`{name}`")
}

/// The cells of a key: its name, its type, whether it must be there, and its meaning.
pub(crate) fn cells(one: &Setting) -> [String; 4] {
    [code(one.name), one.kind.as_str().to_owned(), need(one).to_owned(), one.doc.to_owned()]
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
