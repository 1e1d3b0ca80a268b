//! How the cache makes a token: one try of the minter, whose failure is counted.

use std::sync::Arc;

use futures_util::FutureExt;

use super::flight::TokenRequest;
use super::unlisted::UNLISTED;
use super::{Broker, Error};
use crate::cache::Recipe;

impl Broker {
    /// The cache's recipe for this token: discovery, identity, exchange.
    pub(super) fn recipe(&self, want: TokenRequest) -> Recipe<Error> {
        self.remember(&want);
        let (maker, metrics) = (Arc::clone(&self.maker), Arc::clone(&self.metrics));
        // Unlisted servers share one label, so that callers cannot create any.
        let is_listed = self.tallies.contains_key(&want.server.name);
        let label: Arc<str> = if is_listed { Arc::clone(&want.server.name) } else { UNLISTED.into() };
        Arc::new(move |urgency| {
            let (maker, want) = (Arc::clone(&maker), TokenRequest { urgency, ..want.clone() });
            let (metrics, label) = (Arc::clone(&metrics), Arc::clone(&label));
            let count = move |error: &Error| metrics.failed(&label, error.class().as_str());
            async move { maker.mint(&want).await.inspect_err(count) }.boxed()
        })
    }
}
