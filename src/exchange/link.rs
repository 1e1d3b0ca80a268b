//! A link of a chain: who changes one subject token into another, and as which client we ask.
//!
//! The issuer of a link is always configured: an identity goes to nobody that a server named.

use std::sync::Arc;

use super::Change;
use super::client_auth::{Client, ClientAuth};
use crate::digest::Fields;
use crate::oauth::{Audience, Issuer};

/// One link, as configured.
#[derive(Clone, Debug)]
pub struct Link {
    /// Who changes the token.
    pub issuer: Issuer,
    /// Its token endpoint, where it publishes no metadata.
    pub token_endpoint: Option<String>,
    /// The OAuth client that we are there.
    pub client: Client,
    /// The audience of what goes in, when it is not the issuer.
    pub subject_audience: Option<String>,
    /// How it is changed.
    pub(crate) change: Arc<dyn Change>,
}

impl Link {
    /// For whom the token that goes in must be made.
    pub(crate) fn audience(&self) -> Audience {
        Audience::from(self.subject_audience.as_deref().unwrap_or(self.issuer.as_str()))
    }

    /// May what goes in be something else than a JWT?
    pub(crate) fn names_its_subject(&self) -> bool {
        self.client.auth != ClientAuth::Workload && self.change.names_its_subject()
    }

    /// The step, as the hop of a chain.
    pub(crate) fn step(&self) -> &'static str {
        self.change.name()
    }

    /// Everything of it that reaches the wire, for the cache key.
    pub(crate) fn fields(&self) -> Fields {
        let Self { issuer, token_endpoint, client, subject_audience, change } = self;
        Fields::default()
            .text(issuer.as_str())
            .option(token_endpoint.as_deref())
            .group(&client.fields())
            .option(subject_audience.as_deref())
            .text(change.name())
            .group(&change.fields())
    }
}
