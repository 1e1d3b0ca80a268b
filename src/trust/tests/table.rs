//! The tables of `docs/trust-policies.md`.

use super::*;
use crate::identity::SOURCES;
use crate::setting::tests::page::{Page, code};

#[test]
fn the_page_about_trust_policies_says_what_the_code_says() {
    let mut page = Page::read("docs/trust-policies.md");
    let platforms = SOURCES.iter().filter(|row| row.trust.name == row.name).map(|row| {
        let pins: Vec<String> = row.trust.pins.iter().map(pin).collect();
        vec![code(row.name), pins.join("; "), row.trust.note.to_owned()]
    });
    page.table("platforms", &["platform", "pinned beside issuer, audience and `sub`", "to know"], platforms);
    let shapes = PRODUCTS.iter().filter(|product| product.makes_documents()).map(|product| {
        let subject = match product.compares {
            _ if product.whole_subject => "whole",
            Compares::FirstLevel => "whole; one that changes is left out",
            _ => "whole, or its beginning",
        };
        let keys = if product.fetches_keys.is_some() { "the Internet" } else { "where that side is" };
        vec![code(product.name), subject.to_owned(), compared(product.compares), keys.to_owned()]
    });
    page.table("products", &["`--for`", "`sub`", "other claims", "reads the issuer's keys from"], shapes);
    page.compare();
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

fn pin(pin: &crate::platform::Pin) -> String {
    let only = if pin.required { "" } else { ", where it is there" };
    format!("`{}`{only} ({})", pin.path.join("."), pin.why)
}
