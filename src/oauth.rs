//! OAuth's terms as types: parsed once, kept byte for byte, no I/O.

use std::fmt;
use std::sync::Arc;

pub(crate) use self::url::{BadUrl, host_in, host_of, names_this_machine};
pub use self::url::{Issuer, Resource, ServerUrl};
pub(crate) use challenge::Challenge;
pub(crate) use error::OauthError;
pub(crate) use members::Members;
pub(crate) use nearest::{nearest, suggestion};
pub(crate) use said::Said;
pub use scope::Scopes;
pub(crate) use server::{AuthorizationServer, MutualTls};
pub(crate) use words::{quoted_words, shell_word};

pub(crate) mod challenge;
mod error;
pub(crate) mod members;
mod nearest;
mod said;
mod scope;
mod segment;
mod server;
#[cfg(test)]
mod tests;
mod url;
pub(crate) mod words;

/// The audience of a subject token: the authorization server, never the MCP server.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Audience(Arc<str>);

impl Audience {
    /// As it appears in the `aud` claim.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Is this `aud` the audience? Compares byte for byte, with one exception: Entra's tokens for its token exchange carry the
    /// application id when the identifier URI was requested. Both values are fixed, equal in every tenant of the public
    /// cloud, and belong to one party.
    pub(crate) fn is_called(&self, aud: &str) -> bool {
        aud == self.as_str() || (ENTRA_EXCHANGE.contains(&aud) && ENTRA_EXCHANGE.contains(&self.as_str()))
    }
}

/// The application in Entra that accepts federated tokens in the public cloud: its identifier URI and its id.
const ENTRA_EXCHANGE: [&str; 2] = ["api://AzureADTokenExchange", "fb60f99c-7a34-4190-8149-302f77469936"];

impl From<&str> for Audience {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}
