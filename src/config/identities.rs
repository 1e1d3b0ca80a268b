//! `[identities.NAME]` and `idp`: further identities and the links of their chains.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::de::DeTable;

use super::exchange::{self, Chosen};
use super::reader::{Found, Reader, Section};
use super::{IdentityConfig, client, identity, insecure, is_name, issuer, keys, parameters};
use crate::broker::{AssertionAudience, Client, DEFAULT, Link};
use crate::exchange::{LinkExchange, LinkParameters, Place};
use crate::identity::Choice;

/// An identity in the file: a source, or a link that starts from another identity.
enum Written {
    Source(Choice),
    /// Without a link if its exchange is unknown.
    From {
        from: String,
        line: usize,
        link: Option<Box<Link>>,
    },
    /// No table, or one with an ill-typed `from`. The problem is already reported.
    Unknown,
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
            None => {
                reader.problem(line, &path, format!("must be a table: [{path}]"));
                drop(written.insert(name.to_owned(), Written::Unknown));
            }
        }
    }
    let mut resolved = BTreeMap::new();
    for name in written.keys() {
        match resolve(reader, name, &written, default) {
            Some(found) => drop(resolved.insert(Arc::from(name.as_str()), found)),
            None => drop(reader.unresolved_identities.insert(name.clone())),
        }
    }
    resolved
}

fn written_of<'a>(reader: &mut Reader<'a>, path: &str, at: usize, table: &'a DeTable<'a>) -> Written {
    let of_links = exchange::key_names(Place::Link);
    let foreign: Vec<&str> = identity::settings().into_iter().chain(of_links.iter().copied()).collect();
    let mut section = reader.section(Found { path, at, table }, &keys::IDENTITIES, &foreign);
    if !section.has("from") {
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
    }
    if section.has("source") {
        let what = "is given beside `from`: an identity has one root";
        reader.problem(section.line_of("source"), &section.key("source"), what);
    }
    let is_ours = |key: &str| section.has_own(key) || of_links.contains(&key);
    for key in section.rest.keys().filter(|key| !is_ours(key) && !section.has("source")) {
        reader.problem(section.line_of(key), &section.key(key), "belongs to a source, and this identity is a link");
    }
    let client = client::client_of(reader, &section);
    let change = exchange::of_link(reader, &section);
    let link = link_of(reader, &section, client, &change).map(Box::new);
    match section.text("from") {
        Some((from, line)) => Written::From { from: from.to_owned(), line, link },
        None => Written::Unknown,
    }
}

/// Reads `idp`, the identity provider of a server.
pub(super) fn idp_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Link> {
    if let Some((_, line)) = section.text("exchange") {
        reader.problem(line, &section.key("exchange"), "is always token exchange here; take it out");
    }
    let client = client::client_of(reader, section);
    let change = exchange::of_idp(reader, section);
    link_of(reader, section, client, &change)
}

/// Reads a link. Its issuer must be configured, because it receives an identity. `None` if the exchange is unknown.
fn link_of(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    client: Client,
    change: &Chosen<dyn LinkExchange>,
) -> Option<Link> {
    let token_endpoint = endpoint_of(reader, section);
    let issuer = issuer::issuer_of(reader, section);
    let parameters = parameters_of(reader, section, change.known());
    let subject_audience = section.text("subject_audience").map(|(text, line)| {
        if !matches!(AssertionAudience::parse(text), AssertionAudience::Fixed(_)) {
            let what = format!("{text:?} is a word for a server with \"jwt-bearer\" alone; spell the audience out");
            reader.problem(line, &section.key("subject_audience"), what);
        }
        text.to_owned()
    });
    let change = Arc::clone(change.known()?);
    let client = change.client(client);
    if let Some(provider) = change.provider() {
        return Some(Link {
            issuer: provider.issuer,
            token_endpoint: Some(provider.token_endpoint),
            client,
            subject_audience: subject_audience.or(Some(provider.subject_audience)),
            parameters,
            change,
        });
    }
    if !section.has("issuer") {
        reader.problem(section.line, &section.key("issuer"), "missing: who changes the identity");
    }
    let issuer = issuer.unwrap_or_else(|| issuer::stand_in(section));
    Some(Link { issuer, token_endpoint, client, subject_audience, parameters, change })
}

/// Reads what a link's request has beside the token. Reports what this kind of link does not send.
fn parameters_of(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    change: Option<&Arc<dyn LinkExchange>>,
) -> LinkParameters {
    for key in ["extra", "scopes"] {
        if section.has_own(key) && change.is_some_and(|change| !change.takes().contains(&key)) {
            let what = "has no effect here: this exchange does not send it";
            reader.problem(section.line_of(key), &section.key(key), what);
        }
    }
    let extra = parameters::texts_of(reader, section);
    LinkParameters { scopes: parameters::scopes_of(reader, section, "scopes").unwrap_or_default(), extra }
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
    let mut is_whole = true;
    let choice = loop {
        match written.get(&at) {
            None if at == DEFAULT => break default.clone(),
            // The problem is already reported at that table.
            None | Some(Written::Unknown) => return None,
            Some(Written::Source(choice)) => break choice.clone(),
            Some(Written::From { from, line, link }) => {
                links.extend(link.as_deref().cloned());
                is_whole &= link.is_some();
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
    is_whole.then_some(IdentityConfig { choice, links })
}
