//! `issuer`: the same key for a server, its front door, an `idp` and a link of an identity.

use super::insecure;
use super::reader::{Reader, Section};
use crate::oauth::Issuer;

/// Reads the issuer. `None` if it is not there or is wrong.
pub(super) fn issuer_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Issuer> {
    let (text, line) = section.text("issuer")?;
    insecure(reader, line, &section.key("issuer"), text);
    Issuer::parse(text).map_err(|why| reader.problem(line, &section.key("issuer"), why.to_string())).ok()
}

/// Stands in for an issuer whose problem is reported, so that what depends on it can be checked. It is nobody's name.
pub(super) fn stand_in(section: &Section<'_>) -> Issuer {
    Issuer::verbatim(&section.key("issuer"))
}
