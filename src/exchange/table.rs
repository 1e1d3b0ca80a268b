//! The configuration of an exchange: its own keys, and its checks of the keys around them.

use std::sync::Arc;

use super::{ClientAuth, Error};
use crate::setting::{Given, Missing, Problem, Setting};

/// How an exchange is configured in one kind of table.
pub(crate) struct Form<T: ?Sized> {
    /// Its own keys, each with an example.
    pub settings: &'static [Setting],
    /// Checks the other keys of the table.
    pub check: fn(&ExchangeTable<'_>) -> Vec<Problem>,
    /// Creates it from the checked keys. Fails if a required key is missing.
    pub from_config: fn(&ExchangeTable<'_>) -> Result<Arc<T>, Missing>,
}

/// The table that names an exchange. The exchange's own keys are already checked. The other keys may have a wrong value,
/// which is reported elsewhere: then it is unknown here, and only [`ExchangeTable::has`] knows of the key.
pub(crate) struct ExchangeTable<'a> {
    /// The kind of table.
    pub place: Place,
    /// The values of the exchange's own keys.
    pub given: Given<'a>,
    /// How the OAuth client of the table proves itself.
    pub client_auth: Option<ClientAuth>,
    /// The value of `scopes`, empty if they are not in the table.
    pub scopes: Option<&'a [String]>,
    /// Is this key in the table?
    pub has: &'a dyn Fn(&str) -> bool,
}

/// The kinds of table that can name an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `[servers.NAME]`
    Server,
    /// `outer` of a server: the credential for its front door.
    FrontDoor,
    /// `[identities.NAME]` with `from`, or `idp` of a server.
    Link,
}

/// An identity that an exchange cannot use. Reported by the configuration check if the identity is configured; if it
/// was detected or named on the command line, reported when a token is requested.
pub(crate) struct Unfit {
    /// The problem, with the configuration key.
    pub problem: Problem,
    /// The problem, worded without the configuration.
    pub what: String,
    /// How to fix it.
    pub hint: &'static str,
}

impl ExchangeTable<'_> {
    /// Reports each of these keys that is in the table: it has no effect.
    pub(super) fn unused(&self, keys: &[&str], what: &str) -> Vec<Problem> {
        keys.iter().filter(|key| (self.has)(key)).map(|key| Problem::new(key, what)).collect()
    }

    /// Reports the keys that have no effect if a provider's fixed hosts are called.
    pub(super) fn asks_provider(&self, name: &str) -> Vec<Problem> {
        let what = format!("has no effect with `exchange = {name:?}`, which asks the provider's own hosts");
        self.unused(&["issuer", "token_endpoint", "dpop", "register", "client_metadata"], &what)
    }

    /// Reports `client_auth = "workload"`: the workload's JWT cannot be both grant and client assertion.
    pub(super) fn not_by_workload(&self, what: &str) -> Vec<Problem> {
        if self.client_auth == Some(ClientAuth::Workload) {
            vec![Problem::new("client_auth", what)]
        } else {
            Vec::new()
        }
    }
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Self {
        Self::Misconfigured { what: unfit.what, hint: unfit.hint.to_owned() }
    }
}

/// Accepts only characters that are safe in a host name or in a path segment.
pub(super) fn plain(text: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte);
    if text.bytes().all(fits) && !text.contains("..") {
        return Ok(());
    }
    Err("contains characters not allowed here (letters, digits, `-._@`)".to_owned())
}
