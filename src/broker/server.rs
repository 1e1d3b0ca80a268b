//! One configured MCP server, with the front door before it.

use std::borrow::Borrow;
use std::sync::Arc;

use super::Rate;
use super::order::{Opens, Order};
use crate::digest::{Digest, Fields};
use crate::oauth::{Scopes, ServerUrl};
use crate::outbound::NamedBy;
use crate::policy::{Permit, Policy, Rule};

/// What is asked for when somebody asks for this server.
#[derive(Clone, Debug)]
pub struct Server {
    /// As configured.
    pub name: Arc<str>,
    /// The MCP endpoint.
    pub url: ServerUrl,
    /// Use tokens of a merely discovered issuer even when they are not bound to this resource.
    pub trust_discovered_issuer: bool,
    /// Who may have what.
    pub policy: Policy,
    /// What is asked for.
    pub order: Arc<Order>,
    /// The front door before it, which wants a credential of its own.
    pub front_door: Option<FrontDoor>,
    /// Readiness waits for it.
    pub required: bool,
    /// At shutdown what is held for it is revoked.
    pub revoke_on_exit: bool,
    /// How often each user may ask for it.
    pub rate: Option<Rate>,
    /// Who named its URL: the operator, or a caller of a daemon that serves unlisted servers.
    pub(crate) named_by: NamedBy,
}

/// A front door before a server.
#[derive(Clone, Debug)]
pub struct FrontDoor {
    /// The field of the header that its credential goes into.
    pub header: String,
    /// What is asked for.
    pub order: Arc<Order>,
    /// The scopes that are asked for; whoever may use the server may have them.
    pub scopes: Option<Scopes>,
}

/// The server that a URL belongs to: of those that cover it, the one whose own URL is the narrowest, however either is
/// spelled.
pub(crate) fn narrowest<'a, S: Borrow<Server>>(servers: impl Iterator<Item = &'a S>, url: &ServerUrl) -> Option<&'a S> {
    servers.filter(|one| (*one).borrow().url.covers(url)).max_by_key(|one| (*one).borrow().url.depth())
}

/// The configured server beside which an unconfigured URL lies. On its origin a spelling or path that its own URL does
/// not cover must not get round its policy, so nothing else is served there, by the daemon or by one command.
pub(crate) fn beside<'a, S: Borrow<Server>>(
    mut servers: impl Iterator<Item = &'a S>,
    url: &ServerUrl,
) -> Option<&'a S> {
    servers.find(|one| (*one).borrow().url.same_origin(url))
}

impl Server {
    /// A server of which the URL alone is known: everything else is discovered.
    pub(crate) fn discovered(name: Arc<str>, url: ServerUrl, allow: Vec<Rule>) -> Self {
        Self {
            order: Arc::new(Order::discovered(Arc::clone(&name))),
            name,
            url,
            trust_discovered_issuer: false,
            policy: Policy { allow, ceiling: None, tolerate: Scopes::default() },
            front_door: None,
            required: false,
            revoke_on_exit: false,
            rate: None,
            named_by: NamedBy::Us,
        }
    }

    /// What is asked for at the server and, where there is one, at its front door.
    pub(crate) fn orders(&self) -> impl Iterator<Item = &Arc<Order>> {
        self.front_door.iter().map(|door| &door.order).chain([&self.order])
    }

    /// The same to be changed, while the configuration is read.
    pub(crate) fn orders_mut(&mut self) -> impl Iterator<Item = &mut Order> {
        let door = self.front_door.as_mut().map(|door| Arc::make_mut(&mut door.order));
        door.into_iter().chain([Arc::make_mut(&mut self.order)])
    }

    /// The cache key of the server's own token.
    pub fn key(&self, permit: &Permit) -> Digest {
        self.key_of(&self.order, permit)
    }

    /// The cache key of what an order of this server gives: everything of ours that reaches the wire, each field with its
    /// length. It contains nothing that discovery finds: when that changes, the next flight's token replaces the last.
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
            // The order that is asked for is one of these two.
            order: _,
            front_door: _,
            // The permit says what the policy makes of this caller's scopes.
            policy: _,
            // The order has a name of its own; nothing else reaches the wire.
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

    /// The configured ceiling of what such a token may be good for.
    fn ceiling_of(&self, opens: Opens) -> Option<&Scopes> {
        match opens {
            Opens::Server => self.policy.ceiling.as_ref(),
            Opens::FrontDoor => self.front_door.as_ref().and_then(|door| door.scopes.as_ref()),
        }
    }

    /// Does an order of this name belong to it?
    pub(super) fn is_about(&self, name: &str) -> bool {
        self.orders().any(|order| *order.name == *name)
    }
}

impl FrontDoor {
    /// What is asked for there, whoever asks.
    pub(super) fn permit(&self) -> Permit {
        Permit::within(self.scopes.clone())
    }
}
