//! The tables of `docs/configuration.md`.

use crate::config::document::built;
use crate::config::exchange::own_keys;
use crate::config::keys::{self, Kind, Table};
use crate::exchange::{IDP, Place};
use crate::setting::tests::page::{Page, cells, code};

#[test]
fn the_page_about_the_configuration_says_what_the_code_says() {
    let mut page = Page::read("docs/configuration.md");
    for table in keys::TABLES {
        let own: Vec<(String, [String; 4])> = match table.name {
            "servers.NAME" => of_exchanges(Place::Server),
            "identities.NAME" => of_exchanges(Place::Link),
            "servers.NAME.idp" => IDP.settings.iter().map(|one| (String::new(), cells(one))).collect(),
            _ => Vec::new(),
        };
        let own =
            own.into_iter().map(|(exchanges, [name, value, _, doc])| vec![name, value, format!("{exchanges}{doc}")]);
        page.table(table.name, &["key", "value", "meaning"], rows(table).chain(own));
    }
    page.compare();
}

fn rows(table: &'static Table) -> impl Iterator<Item = Vec<String>> {
    built(table).map(|key| vec![code(key.name), value(key.kind, key.example), key.doc.to_owned()])
}

fn of_exchanges(place: Place) -> Vec<(String, [String; 4])> {
    own_keys(place).iter().map(|(names, one)| (format!("{}: ", names.join(", ")), cells(one))).collect()
}

/// The type, with the example that `config init` shows.
fn value(kind: Kind, example: &str) -> String {
    let kind = match kind {
        Kind::Text => "a text",
        Kind::Texts => "a list of texts",
        Kind::Flag => "true or false",
        Kind::Parameters | Kind::Provider | Kind::FrontDoor => "a table",
        Kind::Rules => "a list of tables",
        Kind::Number => "a number",
        Kind::Span => "a duration",
        Kind::Rate => "a rate",
        Kind::Later => "not yet",
    };
    format!("{kind}: {}", code(example))
}
