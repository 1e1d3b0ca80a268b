//! Why a request was not served: one type for every front-end.
//!
//! Each cause is one variant with its message, and one row of [`Facts`]: the stage, who has to act, the class, the code
//! and the hint. The broker's own causes are in [`request`], [`route`] and [`judged`]; [`rooms`] has the rows for the
//! errors of other modules. No decision depends on the text of a message.

use std::sync::Arc;
use std::time::Duration;

use super::{Server, Target};
use crate::audit;
use crate::cache::{Failure, Lost, Verdict};
use crate::discovery;
use crate::exchange::{self, revocation};
use crate::identity;
use crate::oauth::OauthError;
use crate::policy::Denied;
use crate::token::SubjectToken;

mod class;
mod facts;
mod judged;
mod request;
mod rooms;
mod route;

pub use class::Class;
use facts::Facts;
pub use facts::Party;
pub(super) use judged::Unusable;
pub(crate) use request::{BoundTo, Refusal};
pub(super) use route::{NoRoute, Words};

/// A failure. Cheap to clone, because all callers of a flight share it.
#[derive(Clone, Debug)]
pub struct Error {
    cause: Arc<Cause>,
    server: Option<Arc<str>>,
    retry_in: Option<Duration>,
    /// The broker has counted, logged and recorded it.
    is_noted: bool,
    /// It passes when the platform gives another identity token, and nobody is asked until then.
    waits_for_identity: bool,
    /// See [`Error::presented`].
    presented: Option<Arc<String>>,
}

#[derive(Clone, Debug, thiserror::Error)]
enum Cause {
    #[error("{0}")]
    Request(Refusal),
    #[error("{0}")]
    Denied(Denied),
    #[error("{0}")]
    Identity(identity::Error),
    #[error("{0}")]
    Discovery(discovery::Error),
    #[error("{0}")]
    Route(NoRoute),
    #[error("{0}")]
    Exchange(exchange::Error),
    #[error("{0}")]
    Judged(Unusable),
    #[error("{0}")]
    Revocation(revocation::Error),
    #[error("{0}")]
    Audit(audit::Error),
    #[error("{}", match .0 {
        Lost::Panic => "the exchange was lost",
        Lost::TooLong => "the exchange took longer than any may",
        Lost::StaleToken => "the authorization server hands out the same, nearly expired token again",
        Lost::SameToken => "the authorization server hands out the token again that was there before",
        Lost::Crowded => "too many tokens are being fetched at the moment",
    })]
    Lost(Lost),
    #[error("{0}")]
    Internal(&'static str),
}

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        let (cause, server, retry_in, presented) = (Arc::new(cause), None, None, None);
        Self { cause, server, retry_in, is_noted: false, waits_for_identity: false, presented }
    }
}

impl From<identity::Error> for Error {
    fn from(error: identity::Error) -> Self {
        Cause::Identity(error).into()
    }
}

impl From<discovery::Error> for Error {
    fn from(error: discovery::Error) -> Self {
        Cause::Discovery(error).into()
    }
}

impl From<exchange::Error> for Error {
    fn from(error: exchange::Error) -> Self {
        Cause::Exchange(error).into()
    }
}

impl From<audit::Error> for Error {
    fn from(error: audit::Error) -> Self {
        Cause::Audit(error).into()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(server) = &self.server {
            write!(f, "{server}: ")?;
        }
        if let Some(stage) = self.facts().stage {
            write!(f, "{stage}: ")?;
        }
        self.cause.fmt(f)
    }
}

impl std::error::Error for Error {}

impl Error {
    fn facts(&self) -> Facts<'_> {
        match &*self.cause {
            Cause::Request(refusal) => refusal.facts(),
            Cause::Denied(denied) => rooms::policy(denied),
            Cause::Identity(error) => rooms::identity(error),
            Cause::Discovery(error) => rooms::discovery(error),
            Cause::Route(refusal) => refusal.facts(),
            Cause::Exchange(error) => rooms::exchange(error),
            Cause::Judged(refusal) => refusal.facts(),
            Cause::Revocation(error) => rooms::revocation(error),
            Cause::Audit(error) => rooms::audit(error),
            Cause::Lost(lost) => rooms::flight(*lost),
            Cause::Internal(_) => rooms::bug(),
        }
    }

    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        self.facts().class
    }

    /// Is it about a document of the MCP server or of its authorization server?
    pub(crate) fn is_of_discovery(&self) -> bool {
        self.facts().stage == Some(facts::Stage::Discovery)
    }

    /// A stable code for scripts: the authorization server's own if it refused.
    pub fn code(&self) -> &str {
        self.facts().code
    }

    /// What to do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        self.facts().hint.map(std::borrow::Cow::into_owned)
    }

    /// What the authorization server said, cut and cleaned.
    pub(crate) fn said(&self) -> Option<&str> {
        self.refusal()?.description.as_deref()
    }

    /// Did an authorization server refuse?
    pub(super) fn said_no(&self) -> bool {
        self.refusal().is_some()
    }

    /// What the authorization server wants otherwise, where it says so.
    pub(super) fn demand(&self) -> Option<exchange::Demand> {
        match &*self.cause {
            Cause::Exchange(error) => error.demand(),
            Cause::Judged(Unusable::UsedUp { .. }) => Some(exchange::Demand::Once),
            _ => None,
        }
    }

    /// The answer of an authorization server that refused.
    fn refusal(&self) -> Option<&OauthError> {
        match &*self.cause {
            Cause::Exchange(exchange::Error::Refused { error, .. })
            | Cause::Judged(Unusable::RefusedBefore { error, .. } | Unusable::UsedUp { error, .. }) => Some(error),
            _ => None,
        }
    }

    /// What the identity tokens say that were refused: `iss`, `sub`, `aud`, age and `typ`. For the operator and for the
    /// daemon's own user, and for no model.
    pub(crate) fn presented(&self) -> Option<&str> {
        self.presented.as_deref().map(String::as_str)
    }

    /// The message, with what was presented.
    pub(crate) fn in_full(&self) -> String {
        self.and_presented(self.to_string())
    }

    /// The message without the stage, for output that already names the stage, with what was presented.
    pub(super) fn without_stage(&self) -> String {
        self.and_presented(match &self.server {
            Some(server) => format!("{server}: {}", self.cause),
            None => self.cause.to_string(),
        })
    }

    /// The message as the daemon's own user or somebody else may know it.
    pub(super) fn told(&self, is_own: bool) -> String {
        if is_own { self.in_full() } else { self.to_string() }
    }

    fn and_presented(&self, message: String) -> String {
        match &self.presented {
            Some(presented) => format!("{message}; presented: {presented}"),
            None => message,
        }
    }

    /// The same failure; if it is a refusal, with what was presented.
    pub(super) fn presenting<'a>(self, tokens: impl Iterator<Item = &'a SubjectToken>, unix_now: i64) -> Self {
        if self.refusal().is_none() {
            return self;
        }
        let all: Vec<String> = tokens.map(|token| token.described(unix_now)).collect();
        Self { presented: (!all.is_empty()).then(|| all.join("; and ").into()), ..self }
    }

    /// Who has to act.
    pub fn party(&self) -> Party {
        self.facts().party
    }

    /// How long to wait before asking again; `None` unless the failure is temporary.
    pub fn retry_in(&self) -> Option<Duration> {
        (self.class() == Class::Temporary).then(|| self.retry_in.unwrap_or(Duration::from_secs(1)))
    }

    /// The time of a request was over first.
    pub(super) fn too_slow() -> Self {
        Self::lost(Lost::TooLong)
    }

    /// Was the server asked for too often?
    pub(crate) fn is_about_rate(&self) -> bool {
        matches!(&*self.cause, Cause::Request(Refusal::TooOften { .. }))
    }

    /// The server or front door it is about, if known.
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// Has the broker counted, logged and recorded it? If not, the front-end that answers with it must do so.
    pub(crate) fn is_noted(&self) -> bool {
        self.is_noted
    }

    /// The same failure, marked as counted, logged and recorded.
    pub(super) fn noted(self) -> Self {
        Self { is_noted: true, ..self }
    }

    /// The same failure as a caller may know it that asked for `target`. One that may not use a server is not told what we call
    /// the server at a URL.
    pub(super) fn without_name_for_strangers(self, target: Option<&Target>) -> Self {
        match (&*self.cause, target) {
            (Cause::Denied(Denied::Caller { .. } | Denied::Undecided { .. }), Some(Target::Url(_))) => {
                Self { server: None, ..self }
            }
            _ => self,
        }
    }

    /// The same failure, with the name of its server.
    pub(super) fn at(self, name: &Arc<str>) -> Self {
        Self { server: Some(Arc::clone(name)), ..self }
    }

    /// The same failure; if `so`, one that passes when the platform gives another identity token.
    pub(super) fn until_identity_changes(self, so: bool) -> Self {
        Self { waits_for_identity: so, ..self }
    }

    /// Does it pass when the platform gives another identity token?
    pub(super) fn waits_for_identity(&self) -> bool {
        self.waits_for_identity
    }

    pub(super) fn denied(name: &Arc<str>, denied: Denied) -> Self {
        Self::from(Cause::Denied(denied)).at(name)
    }

    /// It cannot be told yet whether the caller may use any server.
    pub(super) fn undecided(denied: Denied) -> Self {
        Cause::Denied(denied).into()
    }

    pub(super) fn revocation(server: &Server, error: revocation::Error) -> Self {
        Self::from(Cause::Revocation(error)).at(&server.name)
    }

    pub(super) fn internal(what: &'static str) -> Self {
        Cause::Internal(what).into()
    }

    /// Did a reused connection break before the token endpoint's answer began?
    pub(super) fn is_stale(&self) -> bool {
        matches!(&*self.cause, Cause::Exchange(exchange::Error::Outbound { error, .. }) if error.is_stale())
    }

    /// Did the server refuse only because it wants its DPoP nonce (RFC 9449 section 8)?
    pub(super) fn wants_nonce(&self) -> bool {
        matches!(&*self.cause, Cause::Exchange(exchange::Error::NonceWanted { .. }))
    }

    /// Was a token issued that is not bound to the resource?
    pub(super) fn is_unbound_token(&self) -> bool {
        matches!(&*self.cause, Cause::Judged(Unusable::NotBound { .. }))
    }
}

impl Failure for Error {
    fn verdict(&self) -> Verdict {
        if self.class() != Class::Temporary {
            return if self.waits_for_identity { Verdict::UntilIdentityChanges } else { Verdict::Permanent };
        }
        let retry_after = match &*self.cause {
            Cause::Discovery(discovery::Error::Busy { retry_after, .. })
            | Cause::Exchange(exchange::Error::Busy { retry_after, .. }) => *retry_after,
            // The source has obeyed it between its own tries, and the next series waits as long as the last answer asked.
            Cause::Identity(error) => error.retry_after(),
            _ => None,
        };
        let absent = match &*self.cause {
            Cause::Discovery(discovery::Error::Outbound { error, .. })
            | Cause::Exchange(exchange::Error::Outbound { error, .. }) => error.is_absence(),
            _ => false,
        };
        Verdict::Temporary { retry_after, tried_patiently: matches!(*self.cause, Cause::Identity(_)), absent }
    }

    fn for_log(&self) -> String {
        self.in_full()
    }

    fn lost(how: Lost) -> Self {
        Cause::Lost(how).into()
    }

    fn retry_in(self, wait: Duration) -> Self {
        Self { retry_in: Some(wait), ..self }
    }
}
