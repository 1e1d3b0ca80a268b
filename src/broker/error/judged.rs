//! Failures that we detect ourselves in the exchange: a subject token that must not be sent, or an access token that
//! must not be used.

use super::facts::{Facts, Party, Stage};
use super::{Cause, Class, Error};
use crate::oauth::{Issuer, OauthError, Resource, shell_word};
use crate::token::Unfit;

/// Why a token is not sent or not used.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{source_name}: {unfit}")]
    Subject { source_name: &'static str, unfit: Unfit },
    #[error("this identity token was refused before and is not presented again; then: {issuer} refuses with {error}")]
    RefusedBefore { issuer: Issuer, error: OauthError },
    #[error("{issuer} takes each identity token once, and this one is used up: it refuses with {error}")]
    UsedUp { issuer: Issuer, error: OauthError },
    #[error("the token of {issuer} is not bound to {resource}: {why}")]
    NotBound { issuer: Issuer, resource: Resource, why: &'static str, is_unlisted: bool },
    #[error("the token of {issuer}: {why}")]
    ForeignKey { issuer: Issuer, why: &'static str },
    #[error("{issuer} issues tokens that have expired already")]
    ExpiredAtIssue { issuer: Issuer },
    #[error("the token of {issuer} expired {seconds} s ago by its own `exp` and this machine's clock")]
    ExpiredOnArrival { issuer: Issuer, seconds: i64 },
}

/// The code for an identity token that a server takes once and has taken.
pub(super) const USED_UP: &str = "identity_token_used";

/// The hint for tokens with a lifetime of zero, or one that is too long.
pub(super) const BAD_LIFETIME: &str = "the operator of the authorization server must fix the lifetime of its tokens";

impl Unusable {
    /// The facts of each variant.
    pub(super) fn facts(&self) -> Facts<'_> {
        use Class::{NoIdentity, Refused};
        use Party::{AuthorizationServer, Platform};
        let row = |code| Facts::of(Stage::Exchange, AuthorizationServer, Refused, code);
        match self {
            Self::Subject { unfit, .. } => {
                Facts::of(Stage::Identity, Platform, NoIdentity, "subject_token_unfit").hint(unfit_hint(unfit))
            }
            Self::RefusedBefore { error, .. } => row(&error.code).hint(
                "fix the trust policy at the authorization server; a new identity token is tried automatically (a managed identity's or a file's may come hours later: restart the daemon then)",
            ),
            Self::UsedUp { .. } => row(USED_UP).hint(
                "the next identity token of the platform is presented as soon as it is there, by itself; to get a token at any time use a source that mints anew (`safeconduct whoami` says whether it does), or have the server's operator allow reuse",
            ),
            Self::NotBound { is_unlisted: true, .. } => row("resource_not_bound").hint(
                "add the server to the configuration if you trust it with such tokens; the operator of the authorization server should bind tokens to `resource` (RFC 8707)",
            ),
            Self::NotBound { issuer, .. } => {
                let how = shell_word(issuer.as_str()).map_or_else(
                    || "with `issuer`".to_owned(),
                    |word| format!("`issuer = {word}`, or `--issuer {word}`"),
                );
                row("resource_not_bound").hint(format!(
                    "pin it if you trust it with this server: {how}; its operator should bind tokens to `resource` (RFC 8707)"
                ))
            }
            Self::ForeignKey { .. } => row("token_not_ours").hint(
                "the operator of the authorization server must fix what it binds tokens to (RFC 9449 section 6)",
            ),
            Self::ExpiredOnArrival { .. } => row("invalid_metadata").hint(
                "the operator of the authorization server must issue tokens that are still good; check this machine's clock too",
            ),
            Self::ExpiredAtIssue { .. } => row("invalid_metadata").hint(BAD_LIFETIME),
        }
    }
}

fn unfit_hint(unfit: &Unfit) -> String {
    match unfit {
        Unfit::OtherAudience { wanted, .. } => {
            format!(
                "have the platform make the token for {wanted:?}, or, if the authorization server accepts this audience, set `subject_audience` with a pinned `issuer`"
            )
        }
        Unfit::SeveralAudiences { .. } | Unfit::NoAudience => {
            "have the platform make the token for the authorization server alone".to_owned()
        }
        Unfit::NoJwt => "leave `token` out of the identity, for a JWT of the role; a signed request is for \"token-exchange\" and \
            \"gcp\" alone, proves no client, and whoever takes it trusts the ARN that `aws sts get-caller-identity` shows"
            .to_owned(),
        Unfit::NoExpiry => "have the platform issue tokens with `exp`".to_owned(),
        Unfit::Expired { .. } => "whoever writes this token must renew it; check this machine's clock too".to_owned(),
    }
}

impl From<Unusable> for Error {
    fn from(refusal: Unusable) -> Self {
        Cause::Judged(refusal).into()
    }
}
