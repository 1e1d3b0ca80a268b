//! Why there is no access token, by remedy.

use std::time::Duration;

use crate::oauth::{Issuer, OauthError};
use crate::outbound;

/// Why there is no access token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The authorization server said no. It is not asked again with the same assertion.
    #[error("{issuer} refuses with {error}")]
    Refused {
        /// Who.
        issuer: Issuer,
        /// What it said.
        error: OauthError,
        /// What to do about it, which its words may tell better than its code.
        cure: &'static str,
    },
    /// It is there and has trouble of its own, or too many of us.
    #[error("the token endpoint of {issuer} answers status {status}")]
    Busy {
        /// Who.
        issuer: Issuer,
        /// 429 or 5xx, or 400 with `temporarily_unavailable`.
        status: u16,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// No answer, or a bad one on the way.
    #[error("the token endpoint of {issuer}: {error}")]
    Outbound {
        /// Who.
        issuer: Issuer,
        /// What happened.
        error: outbound::Error,
    },
    /// It wants its nonce in the proof (RFC 9449 section 8): no refusal, it is asked once more.
    #[error("{issuer} wants another DPoP nonce with every proof")]
    NonceWanted {
        /// Who.
        issuer: Issuer,
    },
    /// What we are to send is not here, or not what the server takes: a file, a key, a setting.
    #[error("{what}")]
    Misconfigured {
        /// What is missing.
        what: String,
        /// What to change.
        hint: String,
    },
    /// The server names another issuer than the one that we are registered with.
    #[error("the server named {from} before and names {to} now; we are registered with the first alone")]
    Moved {
        /// Where we are registered.
        from: Issuer,
        /// Who is named now.
        to: Issuer,
    },
    /// What answers is not the provider's own endpoint.
    #[error("{issuer}: {what}")]
    Elsewhere {
        /// Who was asked.
        issuer: Issuer,
        /// What is wrong.
        what: String,
        /// What to do about it.
        cure: &'static str,
    },
    /// The answer is not RFC 6749's.
    #[error("the token answer of {issuer}: {what}")]
    Malformed {
        /// Who.
        issuer: Issuer,
        /// What is wrong.
        what: String,
    },
}

impl Error {
    /// Would a new request have a chance a little later?
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Busy { .. } => true,
            Self::Outbound { error, .. } => error.is_temporary(),
            Self::NonceWanted { .. } | Self::Refused { .. } | Self::Malformed { .. } | Self::Elsewhere { .. } => false,
            Self::Misconfigured { .. } | Self::Moved { .. } => false,
        }
    }

    /// May the documents that led to the token endpoint be out of date? A server that answered that it is busy or wants a
    /// nonce is the right one, and so is one whose connection broke.
    pub(crate) fn may_come_of_old_documents(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::NonceWanted { .. } => false,
            Self::Outbound { error, .. } => {
                !matches!(error, outbound::Error::Broken { .. } | outbound::Error::Stale { .. })
            }
            _ => true,
        }
    }

    /// Does the server not know the client that it gave us?
    pub(crate) fn is_about_the_client(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if matches!(&*error.code, "invalid_client" | "unauthorized_client"))
    }

    /// The cure and whose turn it is.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Busy { .. } => None,
            Self::Outbound { error, .. } => error.hint(),
            Self::Malformed { .. } => Some(
                "the operator of the authorization server must mend its token endpoint (RFC 6749 section 5.1)"
                    .to_owned(),
            ),
            Self::NonceWanted { .. } => {
                Some("the operator of the authorization server must mend its nonces (RFC 9449 section 8)".to_owned())
            }
            Self::Misconfigured { hint, .. } => Some(hint.clone()),
            Self::Moved { to, .. } => {
                Some(format!("if the move is meant, pin it with `issuer = \"{to}\"`, or start again"))
            }
            Self::Refused { cure, .. } | Self::Elsewhere { cure, .. } => Some((*cure).to_owned()),
        }
    }
}
