//! Giving back: a token that a server refused is dropped, what is held for a server is revoked (RFC 7009).

use super::{Action, Broker, Error, Matter, Target, Want};
use crate::caller::Caller;
use crate::token::{Digest, Token};

impl Broker {
    /// A caller says that the server refused a token. True if it was dropped: a digest that is not the cached
    /// one is ignored, because another caller already got a new token.
    pub fn reject(&self, caller: &Caller, target: &Target, digest: &Digest) -> Result<bool, Error> {
        let decided = self.decide_reject(caller, target, digest);
        let matter = Matter { rejected: Some(digest), ..Matter::new(Action::Reject, caller, Some(target)) };
        self.note(&matter, decided, |_| None)
    }

    fn decide_reject(&self, caller: &Caller, target: &Target, digest: &Digest) -> Result<bool, Error> {
        let server = self.server(target)?;
        let permit = server.policy.permit(caller, None).map_err(|denied| Error::denied(&server.name, denied))?;
        let mut dropped = self.cache.reject(&server.key(&permit), digest);
        for (key, token) in self.cache.held() {
            // The same server's tokens of other scopes; the digest says whose it is.
            if token.digest == *digest && server.is_about(&token.server) {
                dropped |= self.cache.reject(&key, digest);
            }
        }
        if dropped {
            tracing::info!(server = %server.name, %caller, "the server refused the token; it is dropped");
        }
        Ok(dropped)
    }

    /// Revokes what is held for a server (RFC 7009) and forgets it. Gives the number revoked, or the first failure.
    pub async fn revoke(&self, caller: &Caller, target: &Target) -> Result<usize, Error> {
        let decided = self.decide_revoke(caller, target).await;
        self.note(&Matter::new(Action::Revoke, caller, Some(target)), decided, |_| None)
    }

    async fn decide_revoke(&self, caller: &Caller, target: &Target) -> Result<usize, Error> {
        let server = self.server(target)?;
        let permit = server.policy.permit(caller, None).map_err(|denied| Error::denied(&server.name, denied))?;
        // What a caller could not have, it cannot take from others either.
        let its_own = |token: &Token| *token.server == *server.name && permit.admit(&token.scopes).is_ok();
        let held: Vec<_> = self.cache.held().into_iter().filter(|(_, token)| its_own(token)).collect();
        // First of all nobody gets them any more, whatever the server answers.
        for (key, _) in &held {
            self.cache.forget(key);
        }
        for (key, token) in self.cache.held() {
            // The front door's is not taken back, but nobody gets it any more.
            if *token.server != *server.name && server.is_about(&token.server) {
                self.cache.forget(&key);
            }
        }
        let (mut revoked, mut failed) = (0, None);
        let want = Want::of(&server);
        for (_, token) in &held {
            match self.maker.revoke(&want, token).await {
                Ok(()) => revoked += 1,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(Error::revocation(&server, error));
        }
        Ok(revoked)
    }
}
