//! What was asked for, and why a place does not have it.

use std::fmt;

use crate::oauth::BadUrl;
use crate::outbound;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// The challenge of the MCP server.
    Challenge,
    /// The metadata of the protected resource (RFC 9728).
    Resource,
    /// The metadata of the authorization server (RFC 8414).
    Server,
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Challenge => "the MCP server",
            Self::Resource => "the resource metadata",
            Self::Server => "the server metadata",
        })
    }
}

/// Why a place does not have the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Oddity {
    /// The answer is no JSON object, or one that lacks what makes it this document.
    #[error("{0}")]
    Content(String),
    /// The document of the right authorization server names no token endpoint that can be used.
    #[error("{0}")]
    Endpoint(String),
    /// No request is sent there, or the answer is not taken: a redirect, plain http, a forbidden address, a huge body.
    #[error("{0}")]
    Refused(outbound::Error),
    /// No request can be built from what the challenge says.
    #[error("the challenge names a place that cannot be asked: {0}")]
    BadUrl(BadUrl),
    /// Any other status than 200.
    #[error("it answers status {0}")]
    Status(u16),
}

impl Oddity {
    /// How much it tells about the cause, the most telling first. `None`: it says only that nothing is there.
    pub(super) fn rank(&self) -> Option<u8> {
        match self {
            Self::Endpoint(_) => Some(0),
            Self::Content(_) => Some(1),
            Self::Refused(_) => Some(2),
            Self::BadUrl(_) => Some(3),
            Self::Status(401 | 403) => Some(4),
            Self::Status(404 | 410) => None,
            Self::Status(_) => Some(5),
        }
    }
}
