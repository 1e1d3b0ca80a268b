//! Replaces a token that a server refused, and revokes the tokens of a server (RFC 7009). What one caller says of a token
//! takes it from no other.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Action, AuditSubject, Broker, Error, Refusal, Target, TokenRequest};
use crate::cache::{Kept, Key, Revoker};
use crate::caller::Caller;
use crate::token::{Digest, Token};

impl Broker {
    /// Notes that the server refused a cached token, as the caller reports, and starts to fetch the next one. Until it is
    /// there, this caller's user waits and others are served the old one. Returns true if it is newly noted. A digest that
    /// is not in the cache is ignored: another caller already got a new token. Fails if there is no such server, or if
    /// the caller may not use it.
    pub fn reject(&self, caller: &Caller, target: &Target, digest: &Digest) -> Result<bool, Error> {
        let decided = self.decide_reject(caller, target, digest);
        let matter = AuditSubject { rejected: Some(digest), ..AuditSubject::new(Action::Reject, caller, Some(target)) };
        self.note(&matter, decided, |_| None)
    }

    fn decide_reject(&self, caller: &Caller, target: &Target, digest: &Digest) -> Result<bool, Error> {
        let server = self.server(caller, target)?;
        let permit = server.policy.permit(caller, None).map_err(|denied| Error::denied(&server.name, denied))?;
        let mut noted = self.cache.reject(&server.key(&permit), digest, caller.uid);
        for (key, token) in self.cache.held() {
            // The token may be one of other scopes, or the front door's: the digest identifies it.
            if token.digest == *digest && server.is_about(&token.server) {
                noted |= self.cache.reject(&key, digest, caller.uid);
            }
        }
        if noted {
            tracing::info!(server = %server.name, %caller, "the server refused the token; the next one is fetched");
        }
        Ok(noted)
    }

    /// Forgets the cached tokens of a server and revokes them (RFC 7009). Returns the number revoked. Tokens that other
    /// users ask for too are revoked for the daemon's own user, and for root where a rule names it. Fails if none may be
    /// revoked for this caller now, with the first failed revocation, and if there is no such server or the caller may not
    /// use it.
    pub async fn revoke(&self, caller: &Caller, own_uid: u32, target: &Target) -> Result<usize, Error> {
        let decided = self.decide_revoke(caller, own_uid, target).await;
        self.note(&AuditSubject::new(Action::Revoke, caller, Some(target)), decided, |_| None)
    }

    async fn decide_revoke(&self, caller: &Caller, own_uid: u32, target: &Target) -> Result<usize, Error> {
        let server = self.server(caller, target)?;
        let permit = server.policy.permit(caller, None).map_err(|denied| Error::denied(&server.name, denied))?;
        self.pace(caller, &server)?;
        // The policy let root pass, so a rule names it.
        let by = Revoker { user: caller.uid, is_operator: caller.is_user(own_uid) || caller.uid == 0 };
        // A caller may revoke only tokens that it could get itself.
        let its_own = |token: &Token| *token.server == *server.name && permit.admit(&token.scopes).is_ok();
        // Forget them first, so that nobody gets them even if the revocation fails.
        let tokens = self.give_up(by, its_own).map_err(|kept| match kept {
            Kept::Shared => Error::from(Refusal::InUseByOthers).at(&server.name),
            Kept::TooOften(wait) => Error::from(Refusal::RevokedTooOften { wait }).at(&server.name),
        })?;
        // The front door's token is not revoked, but it is forgotten too, unless others need it.
        let of_door = |token: &Token| *token.server != *server.name && server.is_about(&token.server);
        if let Err(kept) = self.give_up(by, of_door) {
            debug!(server = %server.name, ?kept, "the token for the front door is kept");
        }
        let (mut revoked, mut failed) = (0, None);
        let want = TokenRequest::of(&server);
        for token in &tokens {
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

    /// Takes tokens out of the cache. Fails if there are some but none may be taken.
    fn give_up(&self, by: Revoker, which: impl Fn(&Token) -> bool) -> Result<Vec<Arc<Token>>, Kept> {
        let held = self.cache.held().into_iter().filter(|(_, token)| which(token));
        let keys: BTreeSet<Key> = held.map(|(key, _)| key).collect();
        let (mut tokens, mut kept) = (Vec::new(), None);
        for key in keys {
            match self.cache.give_up(&key, by) {
                Ok(some) => tokens.extend(some),
                Err(why) => kept = kept.or(Some(why)),
            }
        }
        match kept {
            Some(why) if tokens.is_empty() => Err(why),
            _ => Ok(tokens),
        }
    }
}
