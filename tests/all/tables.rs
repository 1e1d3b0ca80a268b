//! The tables of the pages in `docs`, for the tests that compare them with the program.

use std::fs;
use std::path::Path;

/// A file of the tree, for as long as the tests run.
pub(crate) fn read(path: &str) -> &'static str {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}")).leak()
}

/// The rows of every table whose first column has this heading, as cells.
pub(crate) fn rows<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let mut rows = Vec::new();
    let mut is_wanted = false;
    for line in text.lines() {
        if !line.starts_with('|') {
            is_wanted = false;
            continue;
        }
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        match cells[0] {
            first if first == heading => is_wanted = true,
            first if is_wanted && !first.starts_with("--") => rows.push(cells),
            _ => {}
        }
    }
    rows
}

/// The text of a cell that is in backticks.
pub(crate) fn literal(cell: &str) -> &str {
    let inside = cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
    inside.unwrap_or_else(|| panic!("the cell is not in backticks: {cell}"))
}
