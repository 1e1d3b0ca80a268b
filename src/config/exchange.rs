//! Creates the exchange that a table names and reports keys that contradict it.

use std::sync::Arc;

use super::reader::{Reader, Section};
use crate::broker::Client;
use crate::exchange::{DEFAULT_EXCHANGE, EXCHANGES, Exchange, ExchangeTable, Form, IDP, LinkExchange, Place};
use crate::setting::{Given, Need, Setting};

/// The exchange that a table names.
pub(super) enum Chosen<T: ?Sized> {
    /// The table names none.
    Omitted,
    /// Unknown or incomplete. The problem is already reported.
    Wrong,
    /// A complete exchange.
    Known(Arc<T>),
}

impl<T: ?Sized> Chosen<T> {
    /// The exchange, if it is complete.
    pub(super) fn known(&self) -> Option<&Arc<T>> {
        match self {
            Self::Known(made) => Some(made),
            Self::Omitted | Self::Wrong => None,
        }
    }
}

/// The name of an exchange and its form for one kind of table.
type Named<T> = (&'static str, &'static Form<T>);

/// The exchanges that produce an access token.
fn of_servers() -> Vec<Named<dyn Exchange>> {
    EXCHANGES.iter().filter_map(|row| Some((row.name, row.of_server.as_ref()?))).collect()
}

/// The exchanges that can be a link of a chain.
fn of_links() -> Vec<Named<dyn LinkExchange>> {
    EXCHANGES.iter().filter_map(|row| Some((row.name, row.of_link.as_ref()?))).collect()
}

/// The own keys of all exchanges in this kind of table. Equal keys are listed once, with the names of their exchanges.
pub(super) fn own_keys(place: Place) -> Vec<(Vec<&'static str>, &'static Setting)> {
    let all: Vec<(&'static str, &'static [Setting])> = match place {
        Place::Server | Place::FrontDoor => of_servers().iter().map(|(name, form)| (*name, form.settings)).collect(),
        Place::Link => of_links().iter().map(|(name, form)| (*name, form.settings)).collect(),
    };
    let mut found: Vec<(Vec<&'static str>, &'static Setting)> = Vec::new();
    for (name, one) in all.iter().flat_map(|(name, settings)| settings.iter().map(move |one| (*name, one))) {
        match found.iter_mut().find(|(_, known)| known.name == one.name && known.doc == one.doc) {
            Some((names, _)) => names.push(name),
            None => found.push((vec![name], one)),
        }
    }
    found
}

/// The names of the own keys of all exchanges in this kind of table.
pub(super) fn key_names(place: Place) -> Vec<&'static str> {
    own_keys(place).iter().map(|(_, one)| one.name).collect()
}

/// The names of the own keys of an identity provider.
pub(super) fn key_names_of_idp() -> Vec<&'static str> {
    IDP.settings.iter().map(|one| one.name).collect()
}

/// Reads the exchange of a server or of its front door.
pub(super) fn of_server(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    place: Place,
    client: &Client,
) -> Chosen<dyn Exchange> {
    let forms = of_servers();
    let Some((name, line)) = section.text("exchange") else {
        without_effect(reader, section, &[]);
        if section.has("exchange") {
            return Chosen::Wrong;
        }
        // Report keys that contradict the only exchange that is chosen automatically.
        if let (Place::Server, Some((_, form))) =
            (place, forms.iter().find(|(name, _)| *name == DEFAULT_EXCHANGE.name()))
        {
            made(reader, section, form, place, client);
        }
        return Chosen::Omitted;
    };
    let found = forms.iter().find(|(known, _)| *known == name);
    without_effect(reader, section, found.map_or(&[], |(_, form)| form.settings));
    if let Some((_, form)) = found {
        return made(reader, section, form, place, client);
    }
    let what = if EXCHANGES.iter().any(|row| row.name == name) {
        format!(
            "{name:?} changes an identity and gives no access token: put it into a link, \
            `[identities.NAME]` with `from`, and name that with `identity`"
        )
    } else {
        let known: Vec<&str> = forms.iter().map(|(known, _)| *known).collect();
        format!("{name:?} is not known or not built in this version; it knows: {}", known.join(", "))
    };
    reader.problem(line, &section.key("exchange"), what);
    Chosen::Wrong
}

/// Reads the exchange of a link of an identity.
pub(super) fn of_link(reader: &mut Reader<'_>, section: &Section<'_>, client: &Client) -> Chosen<dyn LinkExchange> {
    let forms = of_links();
    let name = section.text("exchange").map_or("", |(name, _)| name);
    let found = forms.iter().find(|(known, _)| *known == name);
    without_effect(reader, section, found.map_or(&[], |(_, form)| form.settings));
    if let Some((_, form)) = found {
        return made(reader, section, form, Place::Link, client);
    }
    let what = match section.text("exchange") {
        Some((other, _)) => {
            let known: Vec<&str> = forms.iter().map(|(known, _)| *known).collect();
            format!("{other:?} does not change an identity; there are: {}", known.join(", "))
        }
        None => "missing: how `from` is changed".to_owned(),
    };
    reader.problem(section.line_of("exchange"), &section.key("exchange"), what);
    Chosen::Wrong
}

/// Reads the identity provider of a server.
pub(super) fn of_idp(reader: &mut Reader<'_>, section: &Section<'_>, client: &Client) -> Chosen<dyn LinkExchange> {
    made(reader, section, &IDP, Place::Link, client)
}

/// Reports keys that belong to an exchange other than the one that is named.
fn without_effect(reader: &mut Reader<'_>, section: &Section<'_>, own: &[Setting]) {
    let all: Vec<_> = own_keys(Place::Link).into_iter().chain(own_keys(Place::Server)).collect();
    for key in section.rest.keys().filter(|key| !own.iter().any(|one| one.name == **key)) {
        let mut with: Vec<&str> =
            all.iter().filter(|(_, one)| one.name == *key).flat_map(|(names, _)| names.iter().copied()).collect();
        with.sort_unstable();
        with.dedup();
        if !with.is_empty() {
            let with: Vec<String> = with.iter().map(|name| format!("{name:?}")).collect();
            let what = format!("has no effect without `exchange` = {}", with.join(" or "));
            reader.problem(section.line_of(key), &section.key(key), what);
        }
    }
}

/// Checks the form's keys and creates the exchange. Reports all problems.
fn made<T: ?Sized>(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    form: &Form<T>,
    place: Place,
    client: &Client,
) -> Chosen<T> {
    let is_own = |key: &str| form.settings.iter().any(|one| one.name == key);
    let own: toml::Table =
        section.rest.iter().filter(|(key, _)| is_own(key)).map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut problem = |key: &str, what: String| {
        let line = if section.has(key) { section.line_of(key) } else { section.line_of("exchange") };
        reader.problem(line, &section.key(key), what);
    };
    let given = match Given::of(form.settings, &own) {
        Ok(given) => given,
        Err(problems) => {
            for one in problems {
                let is_it = |setting: &&Setting| setting.name == one.key && setting.need == Need::Required;
                let needed = form.settings.iter().find(is_it).filter(|_| !section.has(&one.key));
                problem(&one.key, needed.map_or(one.what, |setting| missing(section, setting.doc)));
            }
            return Chosen::Wrong;
        }
    };
    let scopes = section.texts("scopes").map(|(list, _)| list).unwrap_or_default();
    let written = ExchangeTable { place, given, client, scopes, has: &|key| section.has(key) };
    let problems = (form.check)(&written);
    let made = (form.from_config)(&written);
    if let Err(absent) = &made
        && !problems.iter().any(|one| one.key == absent.name)
    {
        problem(absent.name, missing(section, absent.doc));
    }
    problems.into_iter().for_each(|one| problem(&one.key, one.what));
    made.map_or(Chosen::Wrong, Chosen::Known)
}

fn missing(section: &Section<'_>, doc: &str) -> String {
    let needs = section.text("exchange").map(|(name, _)| format!("{name:?} needs it: ")).unwrap_or_default();
    format!("missing: {needs}{}", doc.trim_end_matches('.'))
}
