//! `[identities.NAME]` and `idp`: further identities and the links of their chains.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::DeTable;

use super::exchange::{self, Chosen};
use super::reader::{Found, Reader, Section};
use super::{IdentityConfig, client, identity, insecure, is_name, keys};
use crate::broker::{Client, DEFAULT, Link};
use crate::exchange::{LinkExchange, Place};
use crate::identity::Choice;
use crate::oauth::Issuer;

/// An identity in the file: a source, or a link that starts from another identity.
enum Written {
    Source(Choice),
    From { from: String, line: usize, link: Option<Box<Link>> },
}

/// Reads all identities and resolves their chains. Reports cycles and unknown names.
pub(super) fn identities_of<'a>(
    reader: &mut Reader<'a>,
    table: &'a DeTable<'a>,
    default: &Choice,
) -> BTreeMap<Arc<str>, IdentityConfig> {
    let mut written = BTreeMap::new();
    for (name, value) in table {
        let (name, at) = (name.get_ref().as_ref(), name.span().start);
        let (path, line) = (format!("identities.{name}"), reader.line(at));
        if !is_name(name) || name == DEFAULT {
            reader.problem(
                line,
                &path,
                "a name has letters, digits, `-`, `_` and `.`, at most 64, and is not \"default\"",
            );
        }
        match value.get_ref().as_table() {
            Some(table) => drop(written.insert(name.to_owned(), written_of(reader, &path, at, table))),
            None => reader.problem(line, &path, format!("must be a table: [{path}]")),
        }
    }
    let names: Vec<&String> = written.keys().collect();
    let resolved = names.into_iter().filter_map(|name| {
        let found = resolve(reader, name, &written, default)?;
        Some((Arc::from(name.as_str()), found))
    });
    resolved.collect()
}

fn written_of<'a>(reader: &mut Reader<'a>, path: &str, at: usize, table: &'a DeTable<'a>) -> Written {
    let of_links = exchange::key_names(Place::Link);
    let foreign: Vec<&str> = identity::settings().into_iter().chain(of_links.iter().copied()).collect();
    let mut section = reader.section(Found { path, at, table }, &keys::IDENTITIES, &foreign);
    let Some((from, line)) = section.text("from").map(|(from, line)| (from.to_owned(), line)) else {
        let own = section.text("source").and_then(|(source, _)| crate::identity::row(source)).map(|row| row.settings);
        let is_own = |name: &str| own.is_some_and(|own| own.iter().any(|one| one.name == name));
        let ours = keys::IDENTITIES.keys.iter().map(|key| key.name).filter(|key| *key != "source");
        let of_a_link = |key: &&str| section.has(key) && !is_own(key);
        let of_a_link: Vec<&str> = ours.chain(of_links).filter(of_a_link).collect();
        for key in of_a_link {
            let what = "belongs to a link, which says with `from` what it changes";
            reader.problem(section.line_of(key), &section.key(key), what);
            section.rest.remove(key);
        }
        return Written::Source(identity::choice_of(reader, section));
    };
    if let Some((_, line)) = section.text("source") {
        reader.problem(line, &section.key("source"), "is given beside `from`: an identity has one root");
    }
    let is_ours = |key: &str| section.has_own(key) || of_links.contains(&key);
    for key in section.rest.keys().filter(|key| !is_ours(key) && !section.has("source")) {
        reader.problem(section.line_of(key), &section.key(key), "belongs to a source, and this identity is a link");
    }
    let client = client::client_of(reader, &section);
    let change = exchange::of_link(reader, &section, &client);
    let link = link_of(reader, &section, client, &change);
    Written::From { from, line, link: link.map(Box::new) }
}

/// Reads `idp`, the identity provider of a server.
pub(super) fn idp_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Link> {
    if let Some((_, line)) = section.text("exchange") {
        reader.problem(line, &section.key("exchange"), "is always token exchange here; take it out");
    }
    let client = client::client_of(reader, section);
    let change = exchange::of_idp(reader, section, &client);
    link_of(reader, section, client, &change)
}

/// Reads a link. Its issuer must be configured, because it receives an identity.
fn link_of(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    client: Client,
    change: &Chosen<dyn LinkExchange>,
) -> Option<Link> {
    let token_endpoint = endpoint_of(reader, section);
    let change = Arc::clone(change.known()?);
    let subject_audience = section.text("subject_audience").map(|(text, _)| text.to_owned());
    let client = change.client(client);
    if let Some(provider) = change.provider() {
        return Some(Link {
            issuer: provider.issuer,
            token_endpoint: Some(provider.token_endpoint),
            client,
            subject_audience: subject_audience.or(Some(provider.subject_audience)),
            change,
        });
    }
    let issuer = match section.text("issuer") {
        Some((text, line)) => {
            insecure(reader, line, &section.key("issuer"), text);
            Issuer::parse(text).map_err(|why| reader.problem(line, &section.key("issuer"), why.to_string())).ok()
        }
        None => {
            reader.problem(section.line, &section.key("issuer"), "missing: who changes the identity");
            None
        }
    };
    Some(Link { issuer: issuer?, token_endpoint, client, subject_audience, change })
}

/// Reads the token endpoint of an issuer that publishes no metadata.
pub(super) fn endpoint_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<String> {
    let (text, line) = section.text("token_endpoint")?;
    insecure(reader, line, &section.key("token_endpoint"), text);
    if let Err(why) = crate::oauth::ServerUrl::parse(text) {
        reader.problem(line, &section.key("token_endpoint"), why.to_string());
    }
    Some(text.to_owned())
}

/// Follows `from` to the source and returns the links, starting at the source.
fn resolve(
    reader: &mut Reader<'_>,
    name: &str,
    written: &BTreeMap<String, Written>,
    default: &Choice,
) -> Option<IdentityConfig> {
    let (mut links, mut seen, mut at) = (Vec::new(), vec![name.to_owned()], name.to_owned());
    let choice = loop {
        match written.get(&at) {
            None if at == DEFAULT => break default.clone(),
            // The problem is already reported at that table.
            None => return None,
            Some(Written::Source(choice)) => break choice.clone(),
            Some(Written::From { from, line, link }) => {
                links.push(*link.clone()?);
                let path = format!("identities.{at}.from");
                if seen.contains(from) {
                    reader.problem(*line, &path, format!("goes in a circle: {} -> {from}", seen.join(" -> ")));
                    return None;
                }
                if from != DEFAULT && !written.contains_key(from) {
                    reader.problem(*line, &path, format!("there is no identity {from:?}"));
                    return None;
                }
                seen.push(from.clone());
                at.clone_from(from);
            }
        }
    };
    links.reverse();
    Some(IdentityConfig { choice, links })
}
