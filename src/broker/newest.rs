//! Asks the policy of the newest configuration before a token is handed out. A request is answered by the broker that it began
//! with, and a reload may have taken the server from the caller since.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Broker, Error, Request, Server};
use crate::caller::Caller;
use crate::policy::Denied;
use crate::token::Token;

/// The servers of the newest configuration, for the brokers of all of them.
#[derive(Default)]
pub(super) struct Newest {
    /// How many reloads there were.
    generation: AtomicU64,
    /// Empty until the first reload.
    servers: Mutex<Vec<Arc<Server>>>,
}

impl Newest {
    /// Replaces the servers, and returns the number of this configuration.
    pub(super) fn replace(&self, servers: &[Arc<Server>]) -> u64 {
        let mut newest = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.clone_into(&mut newest);
        // The lock makes sure that who sees the new number sees the new servers.
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn find(&self, name: &str) -> Option<Arc<Server>> {
        let newest = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        newest.iter().find(|server| *server.name == *name).cloned()
    }
}

impl Broker {
    /// May a call go on that this caller began at `begun`, a server of an earlier configuration? Not if the server is gone or
    /// elsewhere, if no rule names the caller any more, or if the caller's ceiling has become narrower.
    pub(crate) fn may_go_on(&self, caller: &Caller, begun: &Server) -> bool {
        let Some(now) = self.servers.iter().find(|server| server.name == begun.name) else { return false };
        let Ok(permit) = now.policy.permit(caller, None) else { return false };
        let before = begun.policy.permit(caller, None).ok();
        let is_narrower = match (before.as_ref().map(|before| before.ceiling()), permit.ceiling()) {
            (None | Some(_), None) | (None, Some(_)) => false,
            (Some(None), Some(_)) => true,
            (Some(Some(before)), Some(now)) => !before.minus(now).is_empty(),
        };
        now.url == begun.url && !is_narrower
    }

    /// Fails if a reload since this request began has taken the server, or what this token grants, from the caller.
    pub(super) fn still_permits(
        &self,
        caller: &Caller,
        request: &Request,
        server: &Arc<Server>,
        token: &Token,
    ) -> Result<(), Error> {
        if self.newest.generation.load(Ordering::Relaxed) == self.generation {
            return Ok(());
        }
        // Whether unlisted servers are served does not change with a reload.
        if !self.servers.iter().any(|configured| Arc::ptr_eq(configured, server)) {
            return Ok(());
        }
        let gone = || Denied::Caller { caller: caller.to_string(), uid: caller.uid, misses: Vec::new() };
        let now = self.newest.find(&server.name).ok_or_else(gone);
        let permit = now.and_then(|now| now.policy.permit(caller, request.scopes.as_ref()));
        let admitted = permit.and_then(|permit| permit.admit(&token.scopes));
        admitted.map_err(|denied| Error::denied(&server.name, denied))
    }
}
