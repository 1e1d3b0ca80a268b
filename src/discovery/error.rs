//! Why discovery stopped, and who has to act.

use std::time::Duration;

use crate::outbound::{self, Answer};

/// Why discovery stopped. Each says who has to act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No answer, or a bad one on the way.
    #[error("{place}: {error}")]
    Outbound {
        /// Which document.
        place: &'static str,
        /// What happened.
        error: outbound::Error,
    },
    /// The server is there and has trouble of its own.
    #[error("{place} at {host} answers status {status}")]
    Busy {
        /// Which document.
        place: &'static str,
        /// Who.
        host: String,
        /// 429 or 5xx.
        status: u16,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// The document is not what it should be.
    #[error("{place} at {host}: {what}")]
    Malformed {
        /// Which document.
        place: &'static str,
        /// Who.
        host: String,
        /// What is wrong.
        what: String,
    },
    /// The metadata speaks for another server: a copy-paste error, a wrong proxy setting, or an attack.
    #[error("the resource metadata is for {found:?}, which does not stand for {server:?}")]
    ResourceMismatch {
        /// The `resource` it names.
        found: String,
        /// The configured URL.
        server: String,
    },
    /// The authorization server publishes another issuer than the one asked for.
    #[error("the server metadata is for issuer {found:?}, not for {asked:?}")]
    IssuerMismatch {
        /// The `issuer` it names.
        found: String,
        /// The one asked for.
        asked: String,
    },
    /// All well-known places say 404.
    #[error("{issuer} publishes no authorization server metadata")]
    NoServerMetadata {
        /// Who.
        issuer: String,
    },
    /// No metadata and no pin: nobody says who issues tokens.
    #[error("{server} publishes no protected resource metadata")]
    NoResourceMetadata {
        /// Who.
        server: String,
    },
}

impl Error {
    /// Would the same request have a chance a little later?
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Outbound { error, .. } => error.is_temporary(),
            Self::Busy { .. } => true,
            _ => false,
        }
    }

    /// The cure and whose turn it is.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Outbound { error, .. } => return error.hint(),
            Self::Busy { .. } => return None,
            Self::Malformed { .. } => "the operator of that host must mend the document (RFC 9728, RFC 8414)".to_owned(),
            Self::ResourceMismatch { .. } => "configure the URL exactly as the server names itself, or its operator must mend `resource` (RFC 9728 section 3.3)".to_owned(),
            Self::IssuerMismatch { found, .. } => format!("if {found:?} is right, pin exactly that as `issuer`; else its operator must mend `issuer` (RFC 8414 section 3.3)"),
            Self::NoServerMetadata { .. } => "check `issuer`: it is the identifier, not the token endpoint; its operator must publish RFC 8414 metadata; or name its endpoint with `token_endpoint`".to_owned(),
            Self::NoResourceMetadata { .. } => "pin the authorization server with `issuer`, or `--issuer URL`; the server's operator should publish RFC 9728 metadata".to_owned(),
        })
    }
}

pub(super) fn malformed(place: &'static str, url: &str, what: &str) -> Error {
    Error::Malformed { place, host: host(url), what: what.to_owned() }
}

pub(super) fn busy(place: &'static str, url: &str, answer: &Answer) -> Error {
    Error::Busy { place, host: host(url), status: answer.status, retry_after: answer.retry_after() }
}

fn host(url: &str) -> String {
    url::Url::parse(url).map(|url| crate::oauth::host_of(&url)).unwrap_or_default()
}
