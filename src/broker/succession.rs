//! What a reload carries over from one broker to the next.
//!
//! What was learnt about other parties is kept: refused identity tokens, nonces, pacing, client registrations and keys.
//! A token is kept if its cache key is unchanged, that is, if a new request for it would be the same. Only the new
//! policy decides who may have it.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::parts::CarriedOver;
use super::{Broker, Parts, TokenFor, TokenRequest};
use crate::cache::Key;
use crate::policy::Permit;

/// More than the number of entries in the cache.
const REMEMBERED: usize = 8_192;

impl Broker {
    /// Builds the broker that replaces `before`, with its state and its cached tokens as far as they are still valid.
    pub(crate) fn after(parts: Parts, before: &Self) -> Self {
        let maker = &before.maker;
        let same_store = maker.registrations.are_kept_in(&parts.store);
        let mut broker = Self::with(
            parts,
            CarriedOver {
                pace: Some(Arc::clone(&maker.pace)),
                registrations: same_store.then(|| Arc::new(maker.registrations.under_a_new_configuration())),
                nonces: Arc::clone(&maker.nonces),
                keys: Arc::clone(&maker.keys),
                refused: Arc::clone(&maker.refused),
                to_give_back: Arc::clone(&maker.to_give_back),
                retries: Arc::clone(&before.retries),
                newest: Arc::clone(&before.newest),
            },
        );
        // Check again whether the issuer is trusted before a cached token is taken over.
        let same_trust = broker.maker.issuers == maker.issuers;
        broker.cache.inherit(&before.cache, |key, token| {
            let (name, permit) = before.lock_made().get(key).cloned()?;
            let of_all = broker.servers.iter().flat_map(TokenRequest::all).find(|want| want.order.name == name)?;
            let within = of_all.permit.admit(&token.scopes).is_ok();
            // Every caller may pass the front door, so its permit comes from the new configuration.
            let permit = if of_all.order.opens == TokenFor::FrontDoor { of_all.permit.clone() } else { permit };
            let want = TokenRequest { permit, ..of_all };
            let order = &want.order;
            let trusted = same_trust || order.issuer().is_some() || !order.is_discovered();
            let shared = broker.maker.check_not_shared(&want.server, order, &token.resource).is_err();
            let holds = want.key() == *key && trusted && within && !shared;
            holds.then(|| broker.recipe(want))
        });
        broker.generation = broker.newest.replace(&broker.servers);
        broker
    }

    /// Remembers the order and the permit behind a cache entry, for the next reload.
    pub(super) fn remember(&self, want: &TokenRequest) {
        self.lock_made().insert(want.key(), (Arc::clone(&want.order.name), want.permit.clone()));
    }

    /// Forgets what is remembered of entries that the cache no longer has, if that is much. The cache is locked while
    /// [`Self::remember`] runs, so this is separate.
    pub(super) fn tidy_memory(&self) {
        if self.lock_made().len() >= REMEMBERED {
            let keys = self.cache.keys();
            self.lock_made().retain(|key, _| keys.contains(key));
        }
    }

    fn lock_made(&self) -> MutexGuard<'_, MadeFor> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The order's name and the permit behind each cache key.
pub(super) type MadeFor = HashMap<Key, (Arc<str>, Permit)>;
