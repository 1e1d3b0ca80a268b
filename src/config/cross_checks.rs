//! Checks across tables: names that must exist, and tables that contradict each other.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::reader::Reader;
use super::{Config, IdentityConfig, one_resource};
use crate::broker::{Link, Order, Server, TokenFor, UNLISTED};
use crate::exchange::{Asks, IdentityRef};
use crate::oauth::Issuer;

/// Checks that every order names an existing identity that its exchange can use, and adds the identity to its cache
/// key.
pub(super) fn identities_in_use(reader: &mut Reader<'_>, config: &mut Config) {
    for order in config.servers.iter_mut().flat_map(Server::orders_mut) {
        assertions_in_use(reader, &config.identities, order);
        match config.identities.get(&order.identity) {
            Some(identity) => {
                if !reader.undecided_orders.contains(&order.name) {
                    fits(reader, order, identity);
                }
                order.identity_fields = identity.fields();
            }
            None if reader.unresolved_identities.contains(&*order.identity) => {}
            None => {
                let key = format!("servers.{}.identity", order.name);
                reader.problem(None, &key, format!("there is no identity {:?} in [identities]", &*order.identity));
            }
        }
    }
}

/// Checks that the order's exchange can use the identity.
fn fits(reader: &mut Reader<'_>, order: &Order, identity: &IdentityConfig) {
    let root =
        IdentityRef { name: &order.identity, source: identity.choice.source(), is_chain: !identity.links.is_empty() };
    if let Some(Err(unfit)) = order.exchange.as_ref().map(|exchange| exchange.check_identity(&root)) {
        reader.problem(None, &format!("servers.{}.{}", order.name, unfit.problem.key), unfit.problem.what);
    }
    if signs_where_a_jwt_is_wanted(order, identity) {
        let key = format!("servers.{}.identity", order.name);
        let what = "is a signed request of AWS (`token = \"caller-identity\"`): it is for \"token-exchange\" and \"gcp\" \
            alone, and proves no client";
        reader.problem(None, &key, what);
    }
}

/// Checks that the identities in `extra` exist and produce a JWT.
fn assertions_in_use(reader: &mut Reader<'_>, identities: &BTreeMap<Arc<str>, IdentityConfig>, order: &mut Order) {
    let key = format!("servers.{}.extra", order.name);
    for assertion in order.pin.iter_mut().flat_map(|pin| &mut pin.assertions) {
        let name = &*assertion.identity;
        let Some(identity) = identities.get(name) else {
            if !reader.unresolved_identities.contains(name) {
                reader.problem(None, &key, format!("there is no identity {name:?} in [identities]"));
            }
            continue;
        };
        let is_told = identity.links.first().is_some_and(Link::takes_any_subject_type);
        if identity.choice.signs_requests() && !is_told {
            let what =
                format!("the identity {name:?} is a signed request of AWS (`token = \"caller-identity\"`), and no JWT");
            reader.problem(None, &key, what);
        }
        assertion.identity_fields = identity.fields();
    }
}

/// Is the identity a signed AWS request, although its first recipient expects a JWT?
fn signs_where_a_jwt_is_wanted(order: &Order, identity: &IdentityConfig) -> bool {
    let is_told = match identity.links.first() {
        Some(link) => link.takes_any_subject_type(),
        None => !order.needs_subject() || order.takes_any_subject_type(),
    };
    identity.choice.signs_requests() && !is_told
}

/// Reports a platform's own token whose audience is an authorization server: the MCP server, which receives the token,
/// could present it there.
fn not_for_an_issuer(reader: &mut Reader<'_>, config: &Config) {
    let orders: Vec<&Arc<Order>> = config.servers.iter().flat_map(Server::orders).collect();
    let pinned = orders.iter().filter_map(|order| order.issuer());
    let links = config.identities.values().flat_map(|identity| &identity.links);
    let links = links.chain(orders.iter().filter_map(|order| order.idp.as_ref())).map(|link| &link.issuer);
    let issuers: HashSet<&str> =
        pinned.chain(links).chain(config.issuers.iter().flatten()).map(Issuer::as_str).collect();
    for order in orders.iter().filter(|order| order.expected().traits().asks == Asks::Nobody) {
        if let Some(issuer) = order.named_audience().and_then(|audience| issuers.get(audience)) {
            let key = if order.opens == TokenFor::FrontDoor { "audience" } else { "subject_audience" };
            let key = format!("servers.{}.{key}", order.name);
            reader.problem(
                None,
                &key,
                format!("{issuer} is an authorization server: whoever gets this token could present it there"),
            );
        }
    }
}

/// Reports names that differ only in case, and names that equal the generated name of a front door.
fn names(reader: &mut Reader<'_>, config: &Config) {
    let mut before: HashMap<String, &Arc<Order>> = HashMap::new();
    for other in config.servers.iter().flat_map(Server::orders) {
        let one = match before.entry(other.name.to_ascii_lowercase()) {
            Entry::Vacant(free) => {
                free.insert(other);
                continue;
            }
            Entry::Occupied(taken) => *taken.get(),
        };
        let what = if one.name == other.name {
            "is the name of the front door of another server; choose another".to_owned()
        } else {
            format!("differs from servers.{} by case alone", one.name)
        };
        reader.problem(None, &format!("servers.{}", other.name), what);
    }
}

/// Checks tables against each other.
pub(super) fn check(reader: &mut Reader<'_>, config: &mut Config) {
    one_resource::check(reader, &config.servers);
    names(reader, config);
    not_for_an_issuer(reader, config);
    if let (true, Some(server)) = (config.listen.unlisted, config.servers.iter().find(|one| &*one.name == UNLISTED)) {
        let what = "with `unlisted = true` this name stands for all servers that are not configured; choose another";
        reader.problem(None, &format!("servers.{}", server.name), what);
    }
}
