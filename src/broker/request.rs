//! What a caller asks for, and for which server.

use super::{Action, Least};
use crate::oauth::{Scopes, ServerUrl, quoted_words};

/// How a caller names a server.
#[derive(Clone, Debug)]
pub enum Target {
    /// By its configured name.
    Name(String),
    /// By its URL, in any spelling, or a URL below it.
    Url(ServerUrl),
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which server.
    pub target: Target,
    /// The scopes that the caller names, if any.
    pub scopes: Option<Scopes>,
    /// How long the token should still be valid.
    pub least: Least,
    /// Ask for a new token instead of a cached one.
    pub fresh: bool,
    /// The form of the answer: a bare token, or header fields.
    pub action: Action,
    /// The caller is a credential helper, not the client itself.
    pub helper: bool,
    /// May the last token have failed? True for a helper that asks for headers: a client runs it again without giving a
    /// reason.
    pub may_be_a_retry: bool,
}

impl Request {
    /// Is an old token of no use? Whoever has a helper ask for a new one must be told if there is none.
    pub(super) fn insists(&self) -> bool {
        self.fresh && self.helper
    }
}

/// The HTTP request that header fields are made for.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its method. Without one nothing is signed.
    pub method: Option<String>,
    /// Its URL.
    pub url: ServerUrl,
    /// The nonce that the server sent last (RFC 9449 section 9), if the caller has seen one.
    pub nonce: Option<String>,
    /// SHA-256 of its body in lower-case hexadecimal, if the request is signed.
    pub body_sha256: Option<String>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(&quoted_words(name)),
            Self::Url(url) => url.fmt(f),
        }
    }
}
