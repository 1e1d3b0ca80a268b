//! One MCP server, with the front door before it, if there is one.

use std::borrow::Borrow;
use std::sync::Arc;

use super::Rate;
use super::order::{Order, TokenFor};
use crate::digest::{Digest, Fields};
use crate::oauth::{Issuer, Scopes, ServerUrl};
use crate::outbound::{NamedBy, Origins};
use crate::policy::{Permit, Policy, Rule};

/// An MCP server, and everything needed to get a token for it.
#[derive(Clone, Debug)]
pub struct Server {
    /// The configured name, or a generated one for an unlisted server.
    pub name: Arc<str>,
    /// The MCP endpoint.
    pub url: ServerUrl,
    /// Use tokens of a discovered issuer even if they are not bound to this resource.
    pub trust_discovered_issuer: bool,
    /// Which caller may have which scopes.
    pub policy: Policy,
    /// How its token is asked for.
    pub order: Arc<Order>,
    /// The front door before it, which needs a credential of its own.
    pub front_door: Option<FrontDoor>,
    /// The daemon is ready only with a token for it.
    pub required: bool,
    /// Revoke its tokens at shutdown.
    pub revoke_on_exit: bool,
    /// How often each user may ask for it.
    pub rate: Option<Rate>,
    /// Who named its URL: the operator, or a caller that asked for an unlisted server. The egress rules depend on it.
    pub(crate) named_by: NamedBy,
}

/// A gateway before a server, such as Google's Identity-Aware Proxy, that checks a credential of its own.
#[derive(Clone, Debug)]
pub struct FrontDoor {
    /// The header field that carries its credential.
    pub header: String,
    /// How its credential is asked for.
    pub order: Arc<Order>,
    /// The scopes to ask for. Every caller of the server may have them.
    pub scopes: Option<Scopes>,
}

/// The server that a URL belongs to: of those whose URL covers it, the most specific one. Spelling does not matter.
pub(crate) fn most_specific<'a, S: Borrow<Server>>(
    servers: impl Iterator<Item = &'a S>,
    url: &ServerUrl,
) -> Option<&'a S> {
    servers.filter(|one| (*one).borrow().url.covers(url)).max_by_key(|one| (*one).borrow().url.depth())
}

/// The configured server on the same origin as an unconfigured URL. Nothing unconfigured is served on its origin, by
/// the daemon or by a one-shot command: another path or spelling must not bypass its policy.
pub(crate) fn beside<'a, S: Borrow<Server>>(
    mut servers: impl Iterator<Item = &'a S>,
    url: &ServerUrl,
) -> Option<&'a S> {
    servers.find(|one| (*one).borrow().url.same_origin(url))
}

impl Server {
    /// A server that is known by its URL only: everything else is discovered.
    pub(crate) fn discovered(name: Arc<str>, url: ServerUrl, allow: Vec<Rule>) -> Self {
        Self {
            order: Arc::new(Order::discovered(Arc::clone(&name))),
            name,
            url,
            trust_discovered_issuer: false,
            policy: Policy { allow, ceiling: None, tolerate: Scopes::default(), usual: None },
            front_door: None,
            required: false,
            revoke_on_exit: false,
            rate: None,
            named_by: NamedBy::Us,
        }
    }

    /// The orders of the front door, if there is one, and of the server.
    pub(crate) fn orders(&self) -> impl Iterator<Item = &Arc<Order>> {
        self.front_door.iter().map(|door| &door.order).chain([&self.order])
    }

    /// The same, mutable, while the configuration is read.
    pub(crate) fn orders_mut(&mut self) -> impl Iterator<Item = &mut Order> {
        let door = self.front_door.as_mut().map(|door| Arc::make_mut(&mut door.order));
        door.into_iter().chain([Arc::make_mut(&mut self.order)])
    }

    /// The origins that the configuration names for this server: its URL, its authorization servers and their token
    /// endpoints. None for an unlisted server.
    pub(crate) fn origins(&self) -> Origins {
        if self.named_by != NamedBy::Us {
            return Origins::default();
        }
        let parties = self
            .orders()
            .flat_map(|order| order.issuer().map(Issuer::as_str).into_iter().chain(order.token_endpoint()));
        Origins::of(parties.chain([self.url.as_str()]))
    }

    /// The cache key of the server's own token.
    pub fn key(&self, permit: &Permit) -> Digest {
        self.key_of(&self.order, permit)
    }

    /// The cache key for one of this server's orders: a digest of everything in the configuration that requests depend
    /// on, each field with its length. Discovered values are not part of it: if they change, the next flight's token
    /// replaces the old one.
    pub(super) fn key_of(&self, order: &Order, permit: &Permit) -> Digest {
        let own_ceiling = match (permit.ceiling(), self.ceiling_of(order.opens)) {
            (None, None) => true,
            (Some(one), Some(other)) => one.is_same(other),
            _ => false,
        };
        if own_ceiling && permit.ask.is_none() {
            return *order.usual_key.get_or_init(|| self.digest(order, permit));
        }
        self.digest(order, permit)
    }

    fn digest(&self, order: &Order, permit: &Permit) -> Digest {
        let Self {
            url,
            trust_discovered_issuer,
            // The argument `order` is one of these two.
            order: _,
            front_door: _,
            // The permit holds what the policy grants to this caller.
            policy: _,
            // The order has a name of its own; requests do not depend on the others.
            name: _,
            required: _,
            revoke_on_exit: _,
            rate: _,
            named_by: _,
        } = self;
        let scopes = |scopes: Option<&Scopes>| scopes.map(ToString::to_string);
        Fields::default()
            .text(url.as_str())
            .flag(*trust_discovered_issuer)
            .group(&order.fields())
            .option(scopes(permit.ask.as_ref()).as_deref())
            .option(scopes(permit.ceiling()).as_deref())
            .digest()
    }

    /// The configured ceiling for the scopes of such a token.
    fn ceiling_of(&self, opens: TokenFor) -> Option<&Scopes> {
        match opens {
            TokenFor::Server => self.policy.ceiling.as_ref(),
            TokenFor::FrontDoor => self.front_door.as_ref().and_then(|door| door.scopes.as_ref()),
        }
    }

    /// Does an order of this name belong to it?
    pub(super) fn is_about(&self, name: &str) -> bool {
        self.orders().any(|order| *order.name == *name)
    }
}

impl FrontDoor {
    /// The permit for its credential, which is the same for all callers.
    pub(super) fn permit(&self) -> Permit {
        Permit::within(self.scopes.clone())
    }
}
