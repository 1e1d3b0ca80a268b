//! How an exchange is configured: its own keys, and what it says of the keys around them.

use std::sync::Arc;

use super::{Client, ClientAuth, Error};
use crate::setting::{Given, Missing, Problem, Setting};

/// How one row is configured in one place of the file.
pub(crate) struct Form<T: ?Sized> {
    /// The row's own keys.
    pub settings: &'static [Setting],
    /// What is wrong with the keys around them.
    pub check: fn(&Written<'_>) -> Vec<Problem>,
    /// Makes it.
    pub from_config: fn(&Written<'_>) -> Result<Arc<T>, Missing>,
}

/// The table that names an exchange. Its own keys have been checked.
pub(crate) struct Written<'a> {
    /// Where the table stands.
    pub place: Place,
    /// The exchange's own keys.
    pub given: Given<'a>,
    /// The OAuth client, as written.
    pub client: &'a Client,
    /// `scopes`, as written.
    pub scopes: &'a [String],
    /// Is this key in the table?
    pub has: &'a dyn Fn(&str) -> bool,
}

/// Where in the file an exchange is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `[servers.NAME]`
    Server,
    /// `outer` of a server: a credential for its front door.
    FrontDoor,
    /// `[identities.NAME]` with `from`, or `idp` of a server.
    Link,
}

/// An identity that an exchange cannot use: told where it is configured, or, where it was detected or named on the command
/// line, when a token is asked for.
pub(crate) struct Unfit {
    /// What is wrong with which key.
    pub problem: Problem,
    /// The same without the configuration.
    pub what: String,
    /// What to change.
    pub hint: &'static str,
}

impl Written<'_> {
    /// Those of these keys that are there have no effect.
    pub(super) fn unused(&self, keys: &[&str], what: &str) -> Vec<Problem> {
        keys.iter().filter(|key| (self.has)(key)).map(|key| Problem::new(key, what)).collect()
    }

    /// The same for an exchange that asks a provider's own hosts. They know no resource parameter.
    pub(super) fn asks_provider(&self, name: &str) -> Vec<Problem> {
        let what = format!("has no effect with `exchange = {name:?}`, which asks the provider's own hosts");
        self.unused(&["issuer", "token_endpoint", "dpop", "register", "client_metadata"], &what)
    }

    /// A grant that is the workload's JWT cannot be the proof of the client as well.
    pub(super) fn not_by_workload(&self, what: &str) -> Vec<Problem> {
        if self.client.auth == ClientAuth::Workload { vec![Problem::new("client_auth", what)] } else { Vec::new() }
    }
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Self {
        Self::Misconfigured { what: unfit.what, hint: unfit.hint.to_owned() }
    }
}

/// A text that becomes a part of a host or a path: nothing in it may be more than a word.
pub(super) fn plain(text: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte);
    if text.bytes().all(fits) && !text.contains("..") {
        return Ok(());
    }
    Err("contains characters not allowed here (letters, digits, `-._@`)".to_owned())
}
