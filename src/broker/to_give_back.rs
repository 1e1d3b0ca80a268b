//! The tokens to revoke at the end, beside what the cache holds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::Server;
use crate::clock::Boot;
use crate::token::Token;

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
        issued.retain(|token| !token.left(now).is_zero());
        if issued.len() >= REMEMBERED {
            issued.pop_front();
        }
        issued.push_back(Arc::new(token.clone()));
    }

    pub(super) fn living(&self, now: Boot) -> Vec<Arc<Token>> {
        let issued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        issued.iter().filter(|token| !token.left(now).is_zero()).cloned().collect()
    }
}
