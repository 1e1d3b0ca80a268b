//! The environment variables that hold a secret by the configuration's word.

use super::Config;
use crate::broker::{Client, SecretFrom};

impl Config {
    /// Their names: the secrets of clients and the tokens of identities. Programs that we start do not get them.
    pub(crate) fn secret_variables(&self) -> Vec<String> {
        let orders = || self.servers.iter().flat_map(|server| server.orders());
        let links = self.identities.values().flat_map(|identity| &identity.links);
        let links = links.chain(orders().filter_map(|order| order.idp.as_ref()));
        let clients = orders().map(|order| &order.client).chain(links.map(|link| &link.client));
        let tokens = self.identities.values().flat_map(|identity| identity.choice.token_variables()).map(str::to_owned);
        clients.filter_map(secret_of).chain(tokens).collect()
    }
}

fn secret_of(client: &Client) -> Option<String> {
    match &client.secret {
        Some(SecretFrom::Variable(name)) => Some(name.clone()),
        Some(SecretFrom::File(_)) | None => None,
    }
}
