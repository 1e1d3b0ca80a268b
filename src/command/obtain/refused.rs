//! What the daemon refuses, in its words.

use serde::Deserialize;

use crate::broker::Class;
use crate::command::Failure;
use crate::door;

/// The daemon serves no such URL.
pub(super) const NOT_SERVED: &str = "server_not_configured";

/// Does the daemon answer that it serves no such URL, or no server of that name to this caller?
pub(in crate::command) fn is_not_served(reply: &door::Reply) -> bool {
    reply.status != 200 && Refused::read(reply).is_some_and(|refused| is_unknown(&refused.error))
}

pub(super) fn is_unknown(code: &str) -> bool {
    [NOT_SERVED, "unknown_server"].contains(&code)
}

/// An error of the local API.
#[derive(Deserialize)]
pub(in crate::command) struct Refused {
    #[serde(skip)]
    from: Option<door::Answerer>,
    pub(super) error: String,
    #[serde(default)]
    error_description: String,
    class: String,
    #[serde(default)]
    hint: Option<String>,
    #[serde(default)]
    presented: Option<String>,
}

impl Refused {
    pub(in crate::command) fn read(reply: &door::Reply) -> Option<Self> {
        let refused: Self = serde_json::from_slice(&reply.body).ok()?;
        Some(Self { from: reply.from.clone(), ..refused })
    }

    /// Names the daemon: a forgotten one, which nobody thinks of, may be the one that refuses.
    pub(in crate::command) fn into_failure(self) -> Failure {
        let class = Class::parse(&self.class).unwrap_or(Class::Internal);
        let message = match &self.from {
            Some(from) => format!("{} (says {from})", self.error_description),
            None => self.error_description,
        };
        Failure::new(class, message).presented(self.presented).hint_maybe(self.hint)
    }
}

pub(in crate::command) fn strange() -> Failure {
    Failure::new(Class::Config, "what listens at the socket does not answer like safeconduct")
        .hint("check `--socket` and SAFECONDUCT_SOCKET")
}
