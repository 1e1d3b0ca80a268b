//! Revokes the tokens of servers with `revoke_on_exit`, at shutdown and after a reload (RFC 7009).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use super::{Broker, Server, TokenRequest};
use crate::token::Token;

/// Limits all revocations together, so that a revocation endpoint that does not answer cannot delay the shutdown. Each
/// request has its own limit within this.
const LIMIT: Duration = Duration::from_secs(5);
/// The most revocations at a time, so that a shutdown does not flood the authorization servers.
const AT_ONCE: usize = 64;

impl Broker {
    /// Revokes the living tokens of servers with `revoke_on_exit`, concurrently. A failure is only logged: the token expires by
    /// itself.
    pub(crate) async fn revoke_at_exit(&self) {
        let mut seen = HashSet::new();
        let held = self.cache.held().into_iter().map(|(_, token)| token);
        let mut living: Vec<_> = held.chain(self.maker.to_give_back.living(self.clock.boot())).collect();
        living.retain(|token| seen.insert(token.digest));
        self.give_back_all(living).await;
    }

    /// The same after a reload, for the tokens that the next broker did not take over: it cannot revoke them at its
    /// end.
    pub(crate) async fn revoke_not_taken_over(&self, next: &Self) {
        let taken: HashSet<_> = next.cache.held().into_iter().map(|(_, token)| token.digest).collect();
        let held = self.cache.held().into_iter().map(|(_, token)| token);
        self.give_back_all(held.filter(|token| !taken.contains(&token.digest)).collect()).await;
    }

    async fn give_back_all(&self, held: Vec<Arc<Token>>) {
        let wanted = held.iter().filter_map(|token| Some((self.revoking(token)?, token)));
        let revoking: Vec<_> = wanted.map(|(server, token)| self.give_back(server, token)).collect();
        let count = revoking.len();
        if count == 0 {
            return;
        }
        let outcomes = stream::iter(revoking).buffer_unordered(AT_ONCE);
        let failed = outcomes.filter_map(|outcome| std::future::ready(outcome.err())).collect::<Vec<_>>();
        match tokio::time::timeout(LIMIT, failed).await {
            Err(_) => tracing::warn!(tokens = count, "not every token was revoked in time; they lapse by themselves"),
            Ok(failed) => report(count, &failed),
        }
    }

    /// The server of this token, if its tokens are to be revoked.
    fn revoking(&self, token: &Token) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.revoke_on_exit && server.name == token.server)
    }

    async fn give_back(&self, server: &Arc<Server>, token: &Token) -> Result<(), String> {
        self.maker.revoke(&TokenRequest::of(server), token).await.map_err(|error| format!("{}: {error}", server.name))
    }
}

fn report(count: usize, failed: &[String]) {
    match failed.first() {
        None => tracing::info!(tokens = count, "revoked"),
        Some(first) => {
            let failed = failed.len();
            tracing::warn!(tokens = count, failed, %first, "not every token was revoked; they lapse by themselves");
        }
    }
}
