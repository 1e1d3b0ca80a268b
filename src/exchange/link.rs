//! A link of a chain: the issuer that exchanges one subject token for another, and our OAuth client there.
//!
//! The issuer of a link is always configured, so that an identity is never sent to an issuer that a server named.

use std::sync::Arc;

use super::LinkExchange;
use super::client_auth::{Client, ClientAuth};
use crate::digest::Fields;
use crate::oauth::{Audience, Issuer, Scopes};
use crate::outbound::Origins;

/// A configured link.
#[derive(Clone, Debug)]
pub struct Link {
    /// The issuer that exchanges the token.
    pub issuer: Issuer,
    /// Its token endpoint, if it publishes no metadata.
    pub token_endpoint: Option<String>,
    /// Our OAuth client there.
    pub client: Client,
    /// The audience of the incoming subject token, if it is not the issuer.
    pub subject_audience: Option<String>,
    /// What is asked for there beside the token.
    pub parameters: LinkParameters,
    /// The kind of exchange.
    pub(crate) change: Arc<dyn LinkExchange>,
}

/// The parameters of a link's request that are as configured.
#[derive(Clone, Debug, Default)]
pub struct LinkParameters {
    /// The scopes; an empty set is not sent.
    pub scopes: Scopes,
    /// Further form parameters.
    pub extra: Vec<(String, String)>,
}

impl Link {
    /// The origins that the configuration names for this link.
    pub(crate) fn origins(&self) -> Origins {
        Origins::of(std::iter::once(self.issuer.as_str()).chain(self.token_endpoint.as_deref()))
    }

    /// The audience that the incoming subject token must have.
    pub(crate) fn audience(&self) -> Audience {
        Audience::from(self.subject_audience.as_deref().unwrap_or(self.issuer.as_str()))
    }

    /// Can the incoming subject token be something other than a JWT?
    pub(crate) fn takes_any_subject_type(&self) -> bool {
        self.client.auth != ClientAuth::Workload && self.change.takes_any_subject_type()
    }

    /// The name of the hop in the chain.
    pub(crate) fn step(&self) -> &'static str {
        self.change.name()
    }

    /// All values that affect the request, for the cache key.
    pub(crate) fn fields(&self) -> Fields {
        let Self { issuer, token_endpoint, client, subject_audience, parameters, change } = self;
        let LinkParameters { scopes, extra } = parameters;
        Fields::default()
            .text(issuer.as_str())
            .option(token_endpoint.as_deref())
            .group(&client.fields())
            .option(subject_audience.as_deref())
            .text(change.name())
            .group(&change.fields())
            .text(&scopes.to_string())
            .list(extra.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]))
    }
}
