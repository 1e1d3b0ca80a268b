//! Drops a token that a server refused, and revokes the tokens of a server (RFC 7009).

use super::{Action, AuditSubject, Broker, Error, Target, TokenRequest};
use crate::caller::Caller;
use crate::token::{Digest, Token};

impl Broker {
    /// Drops a cached token that the server refused, as the caller reports. Returns true if it was dropped. A digest
    /// that is not in the cache is ignored: another caller already got a new token. Fails if there is no such server,
    /// or if the caller may not use it.
    pub fn reject(&self, caller: &Caller, target: &Target, digest: &Digest) -> Result<bool, Error> {
        let decided = self.decide_reject(caller, target, digest);
        let matter = AuditSubject { rejected: Some(digest), ..AuditSubject::new(Action::Reject, caller, Some(target)) };
        self.note(&matter, decided, |_| None)
    }

    fn decide_reject(&self, caller: &Caller, target: &Target, digest: &Digest) -> Result<bool, Error> {
        let server = self.server(caller, target)?;
        let permit = server.policy.permit(caller, None).map_err(|denied| Error::denied(&server.name, denied))?;
        let mut dropped = self.cache.reject(&server.key(&permit), digest);
        for (key, token) in self.cache.held() {
            // The token may be one of other scopes, or the front door's: the digest identifies it.
            if token.digest == *digest && server.is_about(&token.server) {
                dropped |= self.cache.reject(&key, digest);
            }
        }
        if dropped {
            tracing::info!(server = %server.name, %caller, "the server refused the token; it is dropped");
        }
        Ok(dropped)
    }

    /// Forgets the cached tokens of a server and revokes them (RFC 7009). Returns the number revoked. Fails with the
    /// first failed revocation, and if there is no such server or the caller may not use it.
    pub async fn revoke(&self, caller: &Caller, target: &Target) -> Result<usize, Error> {
        let decided = self.decide_revoke(caller, target).await;
        self.note(&AuditSubject::new(Action::Revoke, caller, Some(target)), decided, |_| None)
    }

    async fn decide_revoke(&self, caller: &Caller, target: &Target) -> Result<usize, Error> {
        let server = self.server(caller, target)?;
        let permit = server.policy.permit(caller, None).map_err(|denied| Error::denied(&server.name, denied))?;
        // A caller may revoke only tokens that it could get itself.
        let its_own = |token: &Token| *token.server == *server.name && permit.admit(&token.scopes).is_ok();
        let held: Vec<_> = self.cache.held().into_iter().filter(|(_, token)| its_own(token)).collect();
        // Forget them first, so that nobody gets them even if the revocation fails.
        for (key, _) in &held {
            self.cache.forget(key);
        }
        for (key, token) in self.cache.held() {
            // The front door's token is not revoked, but it is forgotten too.
            if *token.server != *server.name && server.is_about(&token.server) {
                self.cache.forget(&key);
            }
        }
        let (mut revoked, mut failed) = (0, None);
        let want = TokenRequest::of(&server);
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
