//! Revokes what an examination was given, also if the time for its checks was too short. It has a part of the time of its own.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::super::flight::{Minter, TokenAnswer};
use super::super::{Error, Order, TokenRequest};
use super::{Examination, ExaminationRun, Party, Report, rules};
use crate::exchange::{ClientAuth, Gives, revocation};
use crate::oauth::Issuer;
use crate::token::AccessToken;

/// The longest time for all revocations together.
const LIMIT: Duration = Duration::from_secs(5);

impl Examination {
    /// The time for the checks. The rest is for revocations.
    pub(crate) fn for_checks(&self) -> Duration {
        self.limit - LIMIT.min(self.limit / 6)
    }

    /// When the checks end.
    pub(super) fn checks_until(&self) -> Instant {
        self.deadline - (self.limit - self.for_checks())
    }
}

/// A token to revoke.
#[derive(Debug)]
pub(super) struct ToRevoke {
    want: TokenRequest,
    issuer: Issuer,
    token: AccessToken,
    /// The only identity token that could prove the client is used up.
    is_proof_spent: bool,
}

impl ExaminationRun<'_> {
    /// One token request. What it brings is kept, to be revoked.
    pub(super) async fn issue(&mut self, want: &TokenRequest) -> Result<TokenAnswer, Error> {
        let answer = self.maker.issue(want).await?;
        self.report.keep(want, answer.sent.issuer(), answer.issued.token());
        Ok(answer)
    }
}

impl Report {
    /// Keeps a token, to be revoked, if an authorization server issued it to us.
    pub(super) fn keep(&mut self, want: &TokenRequest, issuer: &Issuer, token: Option<&AccessToken>) {
        let token = token.filter(|_| want.order.expected().traits().gives == Gives::Token);
        let kept = |token: &AccessToken| {
            let (want, issuer, token) = (want.clone(), issuer.clone(), token.clone());
            ToRevoke { want, issuer, token, is_proof_spent: false }
        };
        self.to_revoke.extend(token.map(kept));
    }

    /// This server takes the identity token of this order no more, and the platform gives no other.
    pub(super) fn proof_is_spent(&mut self, order: &Order, issuer: &Issuer) {
        for one in &mut self.to_revoke {
            one.is_proof_spent |= one.want.order.client.auth == ClientAuth::Workload
                && (&one.want.order.identity, &one.issuer) == (&order.identity, issuer);
        }
    }

    /// Revokes every token that was kept, and says what became of them.
    pub(super) async fn revoke_all(&mut self, maker: &Minter, deadline: Instant) {
        let limit = LIMIT.min(deadline.saturating_duration_since(Instant::now()));
        let all = std::mem::take(&mut self.to_revoke);
        let count = all.len();
        maker.outbound.leave(limit);
        let (spent, rest): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.is_proof_spent);
        let revoked = join_all(rest.into_iter().map(async |ToRevoke { want, issuer, token, .. }| {
            if !want.order.is_discovered() {
                return Err(Some(revocation::Error::NotOffered));
            }
            timeout(limit, maker.give_back(want, issuer, token)).await.map_err(|_| None)?.map_err(Some)
        }));
        let (mut done, mut not_offered, mut failed) = (0, false, None);
        for outcome in revoked.await {
            match outcome {
                Ok(()) => done += 1,
                Err(Some(revocation::Error::NotOffered)) => not_offered = true,
                Err(Some(error)) => failed = Some(error.to_string()),
                Err(None) => failed = Some(format!("no answer within {:.1} s", limit.as_secs_f32())),
            }
        }
        let (rule, so_many) = (&rules::TOKENS_REVOKED, format!("{done} of {count} revoked"));
        self.push(match failed {
            _ if count == 0 => rule.skip("no token was issued"),
            Some(why) => rule.warn(
                format!("{so_many}: {why}"),
                "let the client that a token was issued to revoke it (RFC 7009 section 2.1)",
            ),
            None if !spent.is_empty() => {
                let what = format!("{so_many}: the client's proof is spent; they lapse by themselves");
                rule.note(what).by(Party::Workload)
            }
            None if not_offered => rule.skip(format!("{so_many}: the server revokes none; they lapse by themselves")),
            None => rule.pass(format!("{count} revoked: each access token for the MCP server or the door before it")),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_has_its_part_of_the_time_and_none_beyond_it() {
        let deadline = Instant::now() + Duration::from_secs(600);
        for (limit, for_revoking) in [(600_000, 5_000), (60_000, 5_000), (6_000, 1_000), (600, 100), (0, 0)] {
            let limit = Duration::from_millis(limit);
            let (scopes, other_resource, expired_token, foreign_token) = (None, None, None, None);
            let wait_expiry = Duration::ZERO;
            let wishes =
                Examination { scopes, wait_expiry, limit, deadline, other_resource, expired_token, foreign_token };
            assert_eq!(deadline - wishes.checks_until(), Duration::from_millis(for_revoking), "{limit:?}");
            assert_eq!(limit - wishes.for_checks(), Duration::from_millis(for_revoking), "{limit:?}");
        }
    }
}
