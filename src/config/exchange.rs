//! Creates the exchange that a table names and reports keys that contradict it.

use std::sync::Arc;

use super::client;
use super::reader::{Reader, Section};
use crate::exchange::{DEFAULT_EXCHANGE, EXCHANGES, Exchange, ExchangeTable, Form, IDP, LinkExchange, Place};
use crate::oauth::suggestion;
use crate::setting::{self, Given, Missing, Need, Problem, Setting};

/// The exchange that a table names.
pub(super) enum Chosen<T: ?Sized> {
    /// The table names none.
    Omitted,
    /// The name is not known, so nothing is certain about the keys around it. The problem is already reported.
    Unknown,
    /// The exchange. If its own keys have problems, these are already reported, and examples stand in for the values: what
    /// the exchange requires of the other keys can be checked all the same.
    Known(Arc<T>),
}

impl<T: ?Sized> Chosen<T> {
    /// The exchange, if its name is known.
    pub(super) fn known(&self) -> Option<&Arc<T>> {
        match self {
            Self::Known(made) => Some(made),
            Self::Omitted | Self::Unknown => None,
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
pub(super) fn of_server(reader: &mut Reader<'_>, section: &Section<'_>, place: Place) -> Chosen<dyn Exchange> {
    let forms = of_servers();
    let Some((name, line)) = section.text("exchange") else {
        if section.has("exchange") {
            return Chosen::Unknown;
        }
        if place == Place::FrontDoor {
            let what = "missing: how the credential is made; nobody can ask a front door which exchange it takes";
            reader.problem(section.line, &section.key("exchange"), what);
            return Chosen::Unknown;
        }
        without_effect(reader, section, &[]);
        // Report keys that contradict the only exchange that is chosen automatically.
        if let Some((_, form)) = forms.iter().find(|(name, _)| *name == DEFAULT_EXCHANGE.name()) {
            made(reader, section, form, place);
        }
        return Chosen::Omitted;
    };
    if let Some((_, form)) = forms.iter().find(|(known, _)| *known == name) {
        without_effect(reader, section, form.settings);
        return made(reader, section, form, place);
    }
    let what = if EXCHANGES.iter().any(|row| row.name == name) {
        format!(
            "{name:?} changes an identity and gives no access token: put it into a link, \
            `[identities.NAME]` with `from`, and name that with `identity`"
        )
    } else {
        let known: Vec<&str> = forms.iter().map(|(known, _)| *known).collect();
        let near = suggestion(name, known.iter().copied());
        format!("{name:?} is not known or not built in this version; it knows: {}{near}", known.join(", "))
    };
    reader.problem(line, &section.key("exchange"), what);
    Chosen::Unknown
}

/// Reads the exchange of a link of an identity.
pub(super) fn of_link(reader: &mut Reader<'_>, section: &Section<'_>) -> Chosen<dyn LinkExchange> {
    let forms = of_links();
    let name = section.text("exchange").map_or("", |(name, _)| name);
    if let Some((_, form)) = forms.iter().find(|(known, _)| *known == name) {
        without_effect(reader, section, form.settings);
        return made(reader, section, form, Place::Link);
    }
    let what = match section.text("exchange") {
        Some((other, _)) => {
            let known: Vec<&str> = forms.iter().map(|(known, _)| *known).collect();
            format!("{other:?} does not change an identity; there are: {}", known.join(", "))
        }
        None if section.has("exchange") => return Chosen::Unknown,
        None => "missing: how `from` is changed".to_owned(),
    };
    reader.problem(section.line_of("exchange"), &section.key("exchange"), what);
    Chosen::Unknown
}

/// Reads the identity provider of a server.
pub(super) fn of_idp(reader: &mut Reader<'_>, section: &Section<'_>) -> Chosen<dyn LinkExchange> {
    made(reader, section, &IDP, Place::Link)
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

/// Checks the form's keys and the keys around them, and creates the exchange. Reports all problems.
fn made<T: ?Sized>(reader: &mut Reader<'_>, section: &Section<'_>, form: &Form<T>, place: Place) -> Chosen<T> {
    let mut problem = |key: &str, what: String| {
        let line = if section.has(key) { section.line_of(key) } else { section.line_of("exchange") };
        reader.problem(line, &section.key(key), what);
    };
    for one in setting::problems(form.settings, &section.rest) {
        let is_it = |setting: &&Setting| setting.name == one.key && setting.need == Need::Required;
        let needed = form.settings.iter().find(is_it).filter(|_| !section.has(&one.key));
        problem(&one.key, needed.map_or(one.what, |setting| missing(section, setting.doc)));
    }
    let mut own = setting::completed(form.settings, &section.rest);
    let Some((problems, mut created)) = create(section, form, place, &own) else { return Chosen::Unknown };
    if let Err(absent) = &created
        && !problems.iter().any(|one| one.key == absent.name)
    {
        problem(absent.name, missing(section, absent.doc));
    }
    problems.into_iter().for_each(|one| problem(&one.key, one.what));
    loop {
        let absent = match created {
            Ok(made) => return Chosen::Known(made),
            Err(absent) => absent,
        };
        let example = form.settings.iter().find(|one| one.name == absent.name).and_then(Setting::example_value);
        let Some(example) = example.filter(|_| !own.contains_key(absent.name)) else { return Chosen::Unknown };
        own.insert(absent.name.to_owned(), example);
        let Some((_, again)) = create(section, form, place, &own) else { return Chosen::Unknown };
        created = again;
    }
}

/// The problems of the keys around an exchange, and the exchange itself, unless a key is missing that only the exchange
/// knows to be required.
type Created<T> = (Vec<Problem>, Result<Arc<T>, Missing>);

/// Checks the keys around the exchange, and creates it. `None` if `own` is not what the form declares.
fn create<T: ?Sized>(section: &Section<'_>, form: &Form<T>, place: Place, own: &toml::Table) -> Option<Created<T>> {
    let scopes = match section.texts("scopes") {
        Some((list, _)) => Some(list),
        None if section.has("scopes") => None,
        None => Some([].as_slice()),
    };
    let written = ExchangeTable {
        place,
        given: Given::of(form.settings, own).ok()?,
        client_auth: client::auth_named(section),
        scopes,
        has: &|key| section.has(key),
    };
    Some(((form.check)(&written), (form.from_config)(&written)))
}

fn missing(section: &Section<'_>, doc: &str) -> String {
    let needs = section.text("exchange").map(|(name, _)| format!("{name:?} needs it: ")).unwrap_or_default();
    format!("missing: {needs}{}", doc.trim_end_matches('.'))
}
