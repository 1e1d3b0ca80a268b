//! Why an exchange failed. Variants differ by what fixes them.

use std::path::PathBuf;
use std::time::Duration;

use crate::oauth::{Issuer, OauthError, shell_word};
use crate::outbound;

/// Why an exchange produced no access token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The authorization server refused. The same assertion is not sent again.
    #[error("{issuer} refuses with {error}")]
    Refused {
        /// The authorization server.
        issuer: Issuer,
        /// Its OAuth error.
        error: OauthError,
        /// How to fix it. Chosen by the error's description where that is more specific than its code.
        cure: &'static str,
    },
    /// The server is overloaded, has an internal error, or limits our rate.
    #[error("the token endpoint of {issuer} answers status {status}{}", said.as_deref().map(told).unwrap_or_default())]
    Busy {
        /// The authorization server.
        issuer: Issuer,
        /// 429 or 5xx, or 400 with `temporarily_unavailable`.
        status: u16,
        /// The delay that the server asks for, if any.
        retry_after: Option<Duration>,
        /// What it says about it, if anything.
        said: Option<Box<OauthError>>,
        /// The parameter `resource` may be what it stumbles over.
        by_resource: bool,
    },
    /// It was not asked: too many requests of ours wait for it.
    #[error("too many requests wait for the token endpoint of {issuer}")]
    Crowded {
        /// The authorization server.
        issuer: Issuer,
    },
    /// The request failed without a usable answer.
    #[error("the token endpoint of {issuer}: {error}")]
    Outbound {
        /// The authorization server.
        issuer: Issuer,
        /// The cause.
        error: outbound::Error,
    },
    /// The server requires its nonce in the DPoP proof (RFC 9449 section 8). Not a refusal: the request is sent once
    /// more.
    #[error("{issuer} wants another DPoP nonce with every proof")]
    NonceWanted {
        /// The authorization server.
        issuer: Issuer,
    },
    /// A file, key or setting that the request needs is missing, or the server does not accept it.
    #[error("{what}")]
    Misconfigured {
        /// The problem.
        what: String,
        /// How to fix it.
        hint: String,
    },
    /// A file that the request needs cannot be read now, because the machine is busy or its disk does not answer.
    #[error("{} cannot be read now: {why}", path.display())]
    FileBusy {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// The server names a different issuer than the one where we are registered.
    #[error("the server named {from} before and names {to} now; we are registered with the first alone")]
    Moved {
        /// The issuer where we are registered.
        from: Issuer,
        /// The issuer that the server names now.
        to: Issuer,
    },
    /// The endpoint that answered is not the provider's own.
    #[error("{issuer}: {what}")]
    Elsewhere {
        /// The provider.
        issuer: Issuer,
        /// The problem.
        what: String,
        /// How to fix it.
        cure: &'static str,
    },
    /// The answer does not follow RFC 6749.
    #[error("the token answer of {issuer}: {what}")]
    Malformed {
        /// The authorization server.
        issuer: Issuer,
        /// The problem.
        what: String,
    },
}

/// What a server in trouble says, behind the status that the message names already.
fn told(said: &OauthError) -> String {
    match (&said.status, &said.description) {
        (None, _) => format!(": {said}"),
        (Some(_), Some(words)) => format!(", in its words: \"{words}\""),
        (Some(_), None) => String::new(),
    }
}

/// For a server that fails at a request with `resource` (Keycloak 26.7 does with its preview of RFC 8707).
const STUMBLES: &str = "if that goes on, the server may stumble over the parameter `resource` (RFC 8707): leave it out with `resource = \"\"`; else its operator's log says more";

impl Error {
    /// Can a new request succeed a little later?
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::FileBusy { .. } | Self::Crowded { .. } => true,
            Self::Outbound { error, .. } => error.is_temporary(),
            Self::NonceWanted { .. } | Self::Refused { .. } | Self::Malformed { .. } | Self::Elsewhere { .. } => false,
            Self::Misconfigured { .. } | Self::Moved { .. } => false,
        }
    }

    /// Can this error be caused by outdated metadata? No if the server is busy, wants a nonce, or the connection broke:
    /// then the endpoint is the right one.
    pub(crate) fn may_be_stale_metadata(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::FileBusy { .. } | Self::Crowded { .. } | Self::NonceWanted { .. } => false,
            Self::Outbound { error, .. } => {
                !matches!(error, outbound::Error::Broken { .. } | outbound::Error::Stale { .. })
            }
            _ => true,
        }
    }

    /// Does the server no longer know the client that it registered?
    pub(crate) fn is_unknown_client(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if matches!(&*error.code, "invalid_client" | "unauthorized_client"))
    }

    /// How to fix it, and who has to.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Busy { by_resource: true, .. } => Some(STUMBLES.to_owned()),
            Self::Busy { .. } | Self::FileBusy { .. } | Self::Crowded { .. } => None,
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
                let pin = shell_word(to.as_str()).map_or_else(String::new, |word| format!(" = {word}"));
                Some(format!("if the move is meant, pin it with `issuer{pin}`, or start again"))
            }
            Self::Refused { cure, .. } | Self::Elsewhere { cure, .. } => Some((*cure).to_owned()),
        }
    }
}
