//! The tables of `docs/sources.md`.

use super::*;
use crate::setting::tests::page::{Page, cells, code};

#[test]
fn the_page_about_the_sources_says_what_the_code_says() {
    let mut page = Page::read("docs/sources.md");
    let sources = SOURCES.iter().map(|row| {
        let (name, tier) = (code(row.name), row.tier.as_str());
        [&name, tier, row.about, row.evidence, row.token].map(str::to_owned).to_vec()
    });
    page.table("sources", &["`source`", "tier", "what it is", "evidence", "identity token"], sources);
    let keys = SOURCES.iter().flat_map(|row| row.settings.iter().map(move |one| (row, one)));
    let keys = keys.map(|(row, one)| [code(row.name)].into_iter().chain(cells(one)).collect());
    page.table("keys", &["`source`", "key", "value", "must it be there", "meaning"], keys);
    let variables = SOURCES.iter().filter(|row| !row.variables.is_empty());
    let variables = variables.map(|row| {
        let names: Vec<String> = row.variables.iter().map(|name| code(name)).collect();
        vec![code(row.name), names.join(", ")]
    });
    page.table("variables", &["`source`", "variables"], variables);
    page.compare();
}
