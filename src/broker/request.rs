//! What a caller asks for, and of which server.

use super::{Action, Least};
use crate::oauth::{Scopes, ServerUrl, quoted_words};

/// Which server is meant.
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
    /// The scopes it names itself.
    pub scopes: Option<Scopes>,
    /// How much life it would like.
    pub least: Least,
    /// It wants a new one.
    pub fresh: bool,
    /// In which form it wants it.
    pub action: Action,
    /// It is a helper, not the client itself.
    pub helper: bool,
    /// A helper asks for headers, and helpers are never told why they are run again.
    pub may_be_a_retry: bool,
}

/// The request that headers are for.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its method. Without one nothing is signed.
    pub method: Option<String>,
    /// Where it goes.
    pub url: ServerUrl,
    /// The nonce that the server sent last (RFC 9449 section 9), if the caller has seen one.
    pub nonce: Option<String>,
    /// SHA-256 of its body in lower-case hexadecimal, where the request is signed.
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
