//! Refusals of the request itself: it names no server that is served, comes too often, or asks for a form that the
//! server's credential does not have.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Rate, Server, Target};
use super::facts::{Facts, Party};
use super::{Cause, Class, Error};
use crate::caller::Caller;
use crate::oauth::{ServerUrl, quoted_words, suggestion};

/// Why a request is refused, whatever other parties say.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no server is called {name:?}")]
    UnknownServer { name: String, known: Vec<String> },
    #[error("{url} is not a configured server")]
    NotServed { url: BareUrl, known: Vec<String> },
    /// Is there such a server? Who may not use it is not told.
    #[error("{caller} is not allowed to use this server, or there is no such server")]
    NotYours { caller: String, uid: u32, code: &'static str, known: Vec<String> },
    #[error("{url} lies on the origin of the configured server {server:?} but not on or under its URL")]
    Beside { url: BareUrl, server: Arc<str> },
    #[error("{0} has a query, and no server is configured for it")]
    UnlistedQuery(BareUrl),
    #[error("{0} servers that are not configured are in use")]
    TooManyUnlisted(usize),
    /// The message names no server: policy has not yet decided whether this caller may use it.
    #[error("`url` does not lie on or under the server's own")]
    OtherUrl,
    #[error("asked for more often than {rate} by this user")]
    TooOften { rate: Rate, wait: Duration },
    #[error("its tokens were revoked or forced anew too often by this user")]
    RevokedTooOften { wait: Duration },
    #[error("its tokens are in use by other users too, and are not revoked")]
    InUseByOthers,
    #[error("{server}: its tokens are bound to {to}; a bare token is of no use")]
    Bound { server: Arc<str>, to: BoundTo },
    #[error("{0}: it has no token; each request to it is signed (SigV4)")]
    Signed(Arc<str>),
    #[error("{0}: `body_sha256` is missing, and a request is signed with its body")]
    NoDigest(Arc<str>),
}

/// What a token is bound to, which makes it useless as a bare token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BoundTo {
    /// The broker's DPoP key (RFC 9449).
    DpopKey,
    /// A client certificate (RFC 8705).
    Certificate,
}

impl fmt::Display for BoundTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DpopKey => "a DPoP key of this broker",
            Self::Certificate => "a certificate",
        })
    }
}

/// A URL without its query, which may contain a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BareUrl(String);

impl From<&ServerUrl> for BareUrl {
    fn from(url: &ServerUrl) -> Self {
        Self(url.as_str().split('?').next().unwrap_or_default().to_owned())
    }
}

impl fmt::Display for BareUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The wait at the cap of unlisted servers. Tokens live for minutes, so a place becomes free soon.
const UNLISTED_WAIT: Duration = Duration::from_secs(10);

impl Refusal {
    /// The caller chose `name`, so it is made safe to show.
    pub(crate) fn unknown_server<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        Self::UnknownServer { name: quoted_words(name), known: known.map(str::to_owned).collect() }
    }

    pub(crate) fn not_served<'a>(url: &ServerUrl, known: impl Iterator<Item = &'a str>) -> Self {
        Self::NotServed { url: url.into(), known: known.map(str::to_owned).collect() }
    }

    /// For a target that this caller may not know of, whether it exists or not. A helper that is asked about every URL has
    /// nothing to say about one that is not configured for its user, so URLs have that code.
    pub(crate) fn not_yours<'a>(caller: &Caller, target: &Target, known: impl Iterator<Item = &'a str>) -> Self {
        let code = match target {
            Target::Name(_) => "access_denied",
            Target::Url(_) => "server_not_configured",
        };
        let known = known.map(str::to_owned).collect();
        Self::NotYours { caller: caller.to_string(), uid: caller.uid, code, known }
    }

    pub(crate) fn beside(url: &ServerUrl, server: &Server) -> Self {
        Self::Beside { url: url.into(), server: Arc::clone(&server.name) }
    }

    /// The facts of each variant.
    pub(super) fn facts(&self) -> Facts<'_> {
        use Class::{BadRequest, Denied, Temporary};
        use Party::{Machine, Workload};
        let row = Facts::before;
        match self {
            Self::UnknownServer { known, .. } if known.is_empty() => row(Workload, BadRequest, "unknown_server")
                .hint("no server is configured that this caller may use: give a URL, or add [servers.NAME] with `url`"),
            Self::UnknownServer { name, known } => {
                let near = suggestion(name, known.iter().map(String::as_str));
                row(Workload, BadRequest, "unknown_server").hint(format!("configured: {}{near}", known.join(", ")))
            }
            Self::NotYours { uid, code, known, .. } => {
                let cure = format!("let it in with `allow = [{{ uid = {uid} }}]` at the server, or run as a user that is named there");
                let known = if known.is_empty() { cure } else { format!("configured: {}; else {cure}", known.join(", ")) };
                row(Machine, Denied, code).hint(known)
            }
            Self::NotServed { known, .. } => {
                let served = if known.is_empty() { String::new() } else { format!("configured: {}; ", known.join(", ")) };
                row(Machine, Denied, "server_not_configured")
                    .hint(format!("{served}add it as [servers.NAME] with `url`, spelled as the server names itself"))
            }
            Self::Beside { .. } | Self::UnlistedQuery(_) => {
                row(Machine, Denied, "server_not_configured").hint("configure it as a server of its own")
            }
            Self::OtherUrl => row(Workload, Denied, "access_denied"),
            Self::TooManyUnlisted(_) => row(Machine, Temporary, "temporarily_unavailable")
                .hint("configure those that are always needed; the tokens of the others lapse when nobody asks"),
            Self::TooOften { .. } => row(Workload, Temporary, "asked_too_often")
                .hint("keep the token for its life, or raise `rate` at the server"),
            Self::RevokedTooOften { .. } => {
                row(Workload, Temporary, "asked_too_often").hint("a revoked token needs no second revocation")
            }
            Self::InUseByOthers => row(Workload, Denied, "access_denied")
                .hint("have the daemon's own user revoke them, or root if `allow` at the server names it"),
            Self::Bound { to: BoundTo::DpopKey, .. } => row(Workload, Denied, "token_bound")
                .hint("ask `/v1/headers` with `method` and `url`, which gives the proof with the token"),
            Self::Bound { to: BoundTo::Certificate, .. } => row(Workload, Denied, "token_bound")
                .hint("ask `/v1/headers`, and connect with the same certificate"),
            Self::Signed(_) => row(Workload, Denied, "no_token")
                .hint("ask `/v1/headers` with `method`, `url` and `body_sha256`, once for each request"),
            Self::NoDigest(_) => row(Workload, BadRequest, "invalid_request").hint(
                "add the SHA-256 of the body as 64 hexadecimal digits; that of no body is e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
        }
    }

    /// How long to wait before asking again, if known.
    fn wait(&self) -> Option<Duration> {
        match self {
            Self::TooManyUnlisted(_) => Some(UNLISTED_WAIT),
            Self::TooOften { wait, .. } | Self::RevokedTooOften { wait } => Some(*wait),
            _ => None,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self { retry_in: refusal.wait(), ..Cause::Request(refusal).into() }
    }
}
