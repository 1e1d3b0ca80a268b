//! Why discovery failed, and who has to fix it.

use std::time::Duration;

use crate::oauth::{BadUrl, host_in, shell_word};
use crate::outbound::{self, Answer};

/// Why discovery failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request failed without a usable answer.
    #[error("{place}: {error}")]
    Outbound {
        /// The document that was requested.
        place: &'static str,
        /// The cause.
        error: outbound::Error,
    },
    /// The server is overloaded, has an internal error, or limits our rate.
    #[error("{place} at {host} answers status {status}")]
    Busy {
        /// The document that was requested.
        place: &'static str,
        /// The host.
        host: String,
        /// The status: 429 or 5xx.
        status: u16,
        /// The delay that the server asks for, if any.
        retry_after: Option<Duration>,
    },
    /// The document is invalid.
    #[error("{place} at {host}: {what}")]
    Malformed {
        /// The document.
        place: &'static str,
        /// The host.
        host: String,
        /// The problem.
        what: String,
    },
    /// The resource metadata is for another server: a copied document, a misconfigured proxy, or an attack.
    #[error("the resource metadata is for {found:?}, which does not stand for {server:?}")]
    ResourceMismatch {
        /// The `resource` in the metadata.
        found: String,
        /// The configured URL.
        server: String,
    },
    /// The metadata of the authorization server is for another issuer.
    #[error("the server metadata is for issuer {found:?}, not for {asked:?}")]
    IssuerMismatch {
        /// The `issuer` in the metadata.
        found: String,
        /// The issuer whose metadata was requested.
        asked: String,
    },
    /// No well-known URL of the issuer has metadata.
    #[error("{issuer} publishes no authorization server metadata")]
    NoServerMetadata {
        /// The issuer.
        issuer: String,
    },
    /// The MCP server publishes no metadata and no issuer is pinned, so the issuer is unknown.
    #[error("{server} publishes no protected resource metadata")]
    NoResourceMetadata {
        /// The MCP server.
        server: String,
    },
    /// The MCP server's challenge names a place for the metadata that is not asked, and no well-known place has it.
    #[error("{server}: the challenge names a place of its metadata that cannot be asked: {why}")]
    RefusedPlace {
        /// The MCP server.
        server: String,
        /// What is wrong with the URL.
        why: BadUrl,
    },
    /// The metadata is there and names no authorization server.
    #[error("the protected resource metadata of {server} names no authorization server")]
    NamesNoIssuer {
        /// The MCP server.
        server: String,
    },
}

impl Error {
    /// Can the same request succeed a little later?
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Outbound { error, .. } => error.is_temporary(),
            Self::Busy { .. } => true,
            _ => false,
        }
    }

    /// How to fix it, and who has to.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Outbound { error, .. } => return error.hint(),
            Self::Busy { .. } => return None,
            Self::Malformed { .. } => "the operator of that host must mend the document (RFC 9728, RFC 8414)".to_owned(),
            Self::ResourceMismatch { .. } => "configure the URL exactly as the server names itself, or its operator must mend `resource` (RFC 9728 section 3.3)".to_owned(),
            Self::IssuerMismatch { found, .. } => {
                let it = shell_word(found).unwrap_or_else(|| "what it says".to_owned());
                format!("if {it} is right, pin exactly that as `issuer`; else its operator must mend `issuer` (RFC 8414 section 3.3)")
            }
            Self::NoServerMetadata { .. } => "check `issuer`: it is the identifier, not the token endpoint; its operator must publish RFC 8414 metadata; or name its endpoint with `token_endpoint`".to_owned(),
            Self::RefusedPlace { .. } => "the operator of the MCP server must mend `resource_metadata` in its challenge (RFC 9728 section 5.1); until then pin the authorization server with `issuer`, or `--issuer URL`".to_owned(),
            Self::NamesNoIssuer { .. } => "pin the authorization server with `issuer`, or `--issuer URL`; the server's operator should name it in `authorization_servers` (RFC 9728 section 2)".to_owned(),
            Self::NoResourceMetadata { .. } => "pin the authorization server with `issuer`, or `--issuer URL`; the server's operator should publish RFC 9728 metadata".to_owned(),
        })
    }
}

pub(super) fn malformed(place: &'static str, url: &str, what: &str) -> Error {
    Error::Malformed { place, host: host_in(url), what: what.to_owned() }
}

pub(super) fn busy(place: &'static str, url: &str, answer: &Answer) -> Error {
    Error::Busy { place, host: host_in(url), status: answer.status, retry_after: answer.retry_after() }
}
