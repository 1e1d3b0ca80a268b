//! The keys whose values are sent as they are: `scopes` and `extra`.

use super::reader::{Parameter, Reader, Section};
use crate::broker::Assertion;
use crate::exchange::{Asks, Traits, reserved};
use crate::oauth::Scopes;

/// Reads `extra`: strings, and tokens of identities.
pub(super) fn extra_of(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    traits: Option<&Traits>,
) -> (Vec<(String, String)>, Vec<Assertion>) {
    let (mut texts, mut assertions) = (Vec::new(), Vec::new());
    let Some((parameters, line)) = section.parameters("extra") else { return (texts, assertions) };
    let own_parameters = traits.map_or(&[][..], |traits| traits.own_parameters);
    let set = reserved();
    for (name, value) in parameters {
        if set.iter().chain(own_parameters).any(|own| own == name) {
            let what = format!("{name:?} is set by the exchange itself or is a secret");
            reader.problem(line, &section.key("extra"), what);
        }
        match value {
            Parameter::Text(text) => texts.push((name.clone(), text.clone())),
            Parameter::Identity(identity) => assertions.push(Assertion::of(name, identity)),
        }
    }
    if !assertions.is_empty() && traits.is_some_and(|traits| traits.asks != Asks::Discovered) {
        let what = "a token of an identity is made for the pinned `issuer`, and this exchange asks none";
        reader.problem(line, &section.key("extra"), what);
    }
    (texts, assertions)
}

/// Reads `extra` of a link: texts alone, because nobody makes tokens for it.
pub(super) fn texts_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<(String, String)> {
    let (texts, assertions) = extra_of(reader, section, None);
    if !assertions.is_empty() {
        let what = "a token of an identity is for a server's `extra`; here all values are texts";
        reader.problem(section.line_of("extra"), &section.key("extra"), what);
    }
    texts
}

pub(super) fn scopes_of(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<Scopes> {
    let (list, line) = section.texts(key)?;
    Scopes::from_list(list.iter().map(String::as_str))
        .map_err(|why| reader.problem(line, &section.key(key), why.to_string()))
        .ok()
}
