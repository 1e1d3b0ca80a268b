//! The keys that a server and its front door have in common. Reports contradictions between them.

use std::sync::Arc;

use super::exchange::{self, Chosen};
use super::identities;
use super::parameters::extra_of;
use super::reader::{Reader, Section};
use super::{client, issuer, keys};
use crate::broker::{AssertionAudience, Client, ClientAuth, DEFAULT, Order, Pin, ResourceParameter, TokenFor};
use crate::exchange::{Asks, DEFAULT_EXCHANGE, Place, Subject, Traits};
use crate::oauth::Resource;

/// An order and the traits of its exchange.
pub(super) struct Read {
    pub(super) order: Order,
    /// `None` if the exchange is unknown.
    pub(super) traits: Option<Traits>,
}

/// Reads the order `name` from this kind of table.
pub(super) fn order_of<'a>(reader: &mut Reader<'a>, section: &Section<'a>, (name, place): (&str, Place)) -> Read {
    let issuer = issuer::issuer_of(reader, section);
    let client = client::client_of(reader, section);
    let (exchange, traits) = match exchange::of_server(reader, section, place) {
        Chosen::Known(exchange) => (Some(Arc::clone(&exchange)), Some(exchange.traits())),
        Chosen::Omitted => (None, Some(DEFAULT_EXCHANGE.traits())),
        Chosen::Unknown => (None, None),
    };
    let client = match &exchange {
        // If it is unknown how the client proves itself, the default of the exchange is not what is meant.
        Some(exchange) if client::auth_named(section).is_some() => exchange.client(client),
        _ => client,
    };
    if let Some(traits) = &traits {
        contradictions(reader, section, place, traits, &client);
    }
    if traits.is_none() || (section.has("identity") && section.text("identity").is_none()) {
        reader.undecided_orders.insert(name.into());
    }
    let idp = reader.nested(section, "idp", &keys::IDP, &exchange::key_names_of_idp());
    let idp = idp.and_then(|section| identities::idp_of(reader, &section));
    let token_endpoint = identities::endpoint_of(reader, section);
    let asks = traits.as_ref().map(|traits| &traits.asks);
    let provider = match asks {
        Some(Asks::Provider(provider)) => Some(provider),
        Some(Asks::Discovered | Asks::Nobody) | None => None,
    };
    let text = |key: &str| section.text(key).map(|(text, _)| text.to_owned());
    // For a front door, `audience` is the audience of the platform's own token.
    let is_own = place == Place::FrontDoor && asks == Some(&Asks::Nobody);
    let (audience, of_own) = if is_own { (None, text("audience")) } else { (text("audience"), None) };
    let subject_audience = audience_of(reader, section, traits.as_ref());
    let (extra, assertions) = extra_of(reader, section, traits.as_ref());
    let conventional = provider.map(|provider| provider.subject_audience.clone());
    let issuer = issuer.or_else(|| provider.map(|provider| provider.issuer.clone()));
    let token_endpoint = token_endpoint.or_else(|| provider.map(|provider| provider.token_endpoint.clone()));
    // Without an issuer, `token_endpoint` and `extra` were already reported. The identities in `extra` are still to check.
    let pinned = issuer.or_else(|| (!assertions.is_empty()).then(|| issuer::stand_in(section)));
    let pin = pinned.map(|issuer| Pin { issuer, token_endpoint, assertions });
    let order = Order {
        opens: if place == Place::FrontDoor { TokenFor::FrontDoor } else { TokenFor::Server },
        pin,
        exchange,
        identity: section.text("identity").map_or(DEFAULT, |(name, _)| name).into(),
        client,
        idp,
        audience,
        subject_audience: subject_audience.or_else(|| of_own.or(conventional).map(AssertionAudience::Fixed)),
        resource: resource_of(reader, section, place, provider.is_some()),
        extra,
        ..Order::discovered(name.into())
    };
    Read { order, traits }
}

/// The audience of the subject token. A word for the authorization server stands only where the token is the grant there.
fn audience_of(reader: &mut Reader<'_>, section: &Section<'_>, traits: Option<&Traits>) -> Option<AssertionAudience> {
    let (text, line) = section.text("subject_audience")?;
    let audience = AssertionAudience::parse(text);
    let is_grant =
        |traits: &Traits| traits.asks == Asks::Discovered && traits.subject == Subject::Jwt && !traits.needs_idp;
    if !matches!(audience, AssertionAudience::Fixed(_)) && traits.is_some_and(|traits| !is_grant(traits)) {
        let what = format!("{text:?} is a word for \"jwt-bearer\" alone; spell the audience out");
        reader.problem(line, &section.key("subject_audience"), what);
    }
    Some(audience)
}

/// The `resource` parameter: as configured, else the default for this exchange and place.
fn resource_of(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    place: Place,
    asks_a_provider: bool,
) -> ResourceParameter {
    match section.text("resource") {
        // Providers do not know the parameter (RFC 8707), and some refuse it. A front door is not the resource.
        None if asks_a_provider || place == Place::FrontDoor => ResourceParameter::Omitted,
        None => ResourceParameter::FromMetadata,
        Some(("", _)) => ResourceParameter::Omitted,
        Some((text, line)) => {
            if let Err(why) = Resource::parse(text) {
                reader.problem(line, &section.key("resource"), why.to_string());
            }
            ResourceParameter::Fixed(Resource::verbatim(text))
        }
    }
}

/// Rejects contradictory keys, and keys that would send replayable data to an issuer that is not pinned.
fn contradictions(reader: &mut Reader<'_>, section: &Section<'_>, place: Place, traits: &Traits, client: &Client) {
    if section.has("idp") && !traits.needs_idp {
        let what = "has no effect without `exchange = \"id-jag\"`";
        reader.problem(section.line_of("idp"), &section.key("idp"), what);
    }
    if traits.asks != Asks::Discovered || section.has("issuer") {
        return;
    }
    if place == Place::FrontDoor {
        let what = "missing: nobody can ask a front door who guards it";
        reader.problem(section.line, &section.key("issuer"), what);
        return;
    }
    let keys =
        ["client_id", "client_metadata", "register", "token_endpoint", "idp", "audience", "subject_audience", "extra"];
    let named = keys.into_iter().filter(|key| section.has(key));
    let by_value = [("client_auth", client.auth != ClientAuth::None), ("exchange", traits.needs_pin)];
    for key in named.chain(by_value.into_iter().filter(|(_, so)| *so).map(|(key, _)| key)) {
        let what = "needs `issuer`: without a pin it would be sent to whoever the server names";
        reader.problem(section.line_of(key), &section.key(key), what);
    }
}
