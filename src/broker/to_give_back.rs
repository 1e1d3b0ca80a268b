//! The tokens to revoke at the end, beside what the cache holds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::Server;
use crate::clock::Boot;
use crate::token::{Digest, Token};

/// The most tokens that are remembered after a newer one has taken their place.
const REMEMBERED: usize = 256;

/// The tokens of servers with `revoke_on_exit` that still live, also those that were renewed: somebody may still have them.
#[derive(Default)]
pub(super) struct ToGiveBack(Mutex<VecDeque<Arc<Token>>>);

impl ToGiveBack {
    pub(super) fn remember(&self, server: &Server, token: &Token, now: Boot) {
        if !server.revoke_on_exit {
            return;
        }
        let mut issued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        issued.retain(|token| may_live(token, now));
        if issued.len() >= REMEMBERED && issued.pop_front().is_some() {
            tracing::warn!(server = %server.name, "over {REMEMBERED} tokens still live; the oldest is not revoked at the end");
        }
        issued.push_back(Arc::new(token.clone()));
    }

    /// A token that is revoked already.
    pub(super) fn forget(&self, revoked: &Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|token| token.digest != *revoked);
    }

    pub(super) fn living(&self, now: Boot) -> Vec<Arc<Token>> {
        let issued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        issued.iter().filter(|token| may_live(token, now)).cloned().collect()
    }
}

/// A life over a day counts as a day, so such a token may live on when that is over.
fn may_live(token: &Token, now: Boot) -> bool {
    token.is_cut || !token.left(now).is_zero()
}
