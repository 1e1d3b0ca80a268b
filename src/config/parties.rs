//! The authorization servers that the configuration names.

use super::Config;
use crate::broker::Server;
use crate::exchange::Asks;
use crate::oauth::Issuer;

impl Config {
    /// The authorization servers that the configuration names for a server and its front door: those that are pinned, providers,
    /// and the links of chains. One that accepts the platform's own token has none, which is an empty name.
    pub(crate) fn asked_for<'a>(&'a self, server: &'a Server) -> impl Iterator<Item = String> {
        server.orders().flat_map(|order| {
            let chain = self.identities.get(&order.identity).into_iter().flat_map(|identity| &identity.links);
            let links = chain.chain(&order.idp).map(|link| link.issuer.as_str());
            let provider = match &order.expected().traits().asks {
                Asks::Provider(provider) => Some(provider.issuer.as_str().to_owned()),
                Asks::Nobody => Some(String::new()),
                Asks::Discovered => None,
            };
            order.issuer().map(Issuer::as_str).into_iter().chain(links).map(str::to_owned).chain(provider)
        })
    }
}
