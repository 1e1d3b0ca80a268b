//! Why a request was not served: one type for every front-end, with its class, its cure and whose turn it is.

use std::sync::Arc;
use std::time::Duration;

use super::{Rate, Server};
use crate::audit;
use crate::cache::{Failure, Lost, Verdict};
use crate::discovery;
use crate::exchange::{self, revocation};
use crate::identity;
use crate::oauth::{AuthorizationServer, BadUrl, Issuer, Resource, ServerUrl, quoted_words};
use crate::outbound;
use crate::policy::Denied;
use crate::token::Unfit;

/// What kind of failure it is. Front-ends and exit codes follow from it, retry as well; text never decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The caller asked wrongly.
    BadRequest,
    /// Our policy says no.
    Denied,
    /// We are set up wrongly.
    Config,
    /// No usable workload identity here.
    NoIdentity,
    /// The other party says no, or is wrong.
    Refused,
    /// Try again.
    Temporary,
    /// Our bug.
    Internal,
}

impl Class {
    /// As it appears in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Denied => "denied",
            Self::Config => "config",
            Self::NoIdentity => "no_identity",
            Self::Refused => "refused",
            Self::Temporary => "temporary",
            Self::Internal => "internal",
        }
    }

    /// The class of that name.
    pub fn parse(name: &str) -> Option<Self> {
        let all = [
            Self::BadRequest,
            Self::Denied,
            Self::Config,
            Self::NoIdentity,
            Self::Refused,
            Self::Temporary,
            Self::Internal,
        ];
        all.into_iter().find(|class| class.as_str() == name)
    }

    /// The exit code, after sysexits.h.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::BadRequest => 64,
            Self::NoIdentity => 69,
            Self::Internal => 70,
            Self::Temporary => 75,
            Self::Refused => 76,
            Self::Denied => 77,
            Self::Config => 78,
        }
    }

    /// The HTTP status of the local API.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Denied => 403,
            Self::Config | Self::Internal => 500,
            Self::Refused => 502,
            Self::NoIdentity | Self::Temporary => 503,
        }
    }
}

/// A failure, cheap to clone, because flights share it.
#[derive(Clone, Debug)]
pub struct Error {
    cause: Arc<Cause>,
    server: Option<Arc<str>>,
    retry_in: Option<Duration>,
}

#[derive(Clone, Debug, thiserror::Error)]
enum Cause {
    #[error("no server is called {name:?}")]
    UnknownServer { name: String, known: Vec<String> },
    #[error("{url} is not a configured server")]
    NotServed { url: String },
    #[error("{url} lies on the origin of the configured server {server:?} but not on or under its URL")]
    Beside { url: String, server: Arc<str> },
    #[error("{url} has a query, and no server is configured for it")]
    UnlistedQuery { url: String },
    #[error("{0} servers that are not configured are in use")]
    TooManyUnlisted(usize),
    #[error("asked for more often than {0} by this user")]
    TooOften(Rate),
    #[error("{0}")]
    Denied(Denied),
    #[error("identity: {0}")]
    Identity(identity::Error),
    #[error("identity: {source_name}: {unfit}")]
    Unfit { source_name: &'static str, unfit: Unfit },
    #[error("discovery: {0}")]
    Discovery(discovery::Error),
    #[error("exchange: {0}")]
    Exchange(exchange::Error),
    #[error("exchange: this identity token was refused before and is not presented again; then: {0}")]
    RefusedBefore(exchange::Error),
    #[error("discovery: {issuer} offers no grant that can be chosen without configuration (it lists: {offers})")]
    NoExchange { issuer: Issuer, offers: String },
    #[error("discovery: the pinned issuer {pinned} is not among those the server names: {named}")]
    PinNotListed { pinned: Issuer, named: String },
    #[error("discovery: none of the issuers that the server names is in [egress] issuers: {named}")]
    IssuerNotListed { named: String },
    #[error("discovery: the server names several authorization servers: {named}")]
    SeveralIssuers { named: String },
    #[error("discovery: the server names {issuer:?} as its authorization server, which cannot be one: {why}")]
    BadIssuer { issuer: String, why: BadUrl },
    #[error("exchange: the token of {issuer} is not bound to {resource}: {why}")]
    NotBound { issuer: Issuer, resource: Resource, why: &'static str },
    #[error("discovery: {resource} is one resource for {server} and {other}, which allow different callers")]
    SharedResource { resource: Resource, server: String, other: String },
    #[error("exchange: the token of {issuer}: {why}")]
    ForeignKey { issuer: Issuer, why: &'static str },
    #[error("discovery: {issuer} takes no DPoP proof of ours: it does not list ES256")]
    NoDpop { issuer: Issuer },
    #[error("{server}: its tokens are bound to {to}; a bare token is of no use")]
    Bound { server: Arc<str>, to: &'static str },
    #[error("{server}: it has no token; each request to it is signed (SigV4)")]
    Signed { server: Arc<str> },
    #[error("{server}: `body_sha256` is missing, and a request is signed with its body")]
    NoDigest { server: Arc<str> },
    #[error("exchange: {issuer} issues tokens that have expired already")]
    DeadOnArrival { issuer: Issuer },
    #[error("exchange: {issuer} issues tokens that live more than a year")]
    Immortal { issuer: Issuer },
    #[error("revocation: {0}")]
    Revocation(revocation::Error),
    #[error("{0}")]
    Audit(audit::Error),
    #[error("{}", match .0 { Lost::Panic => "the exchange was lost", Lost::TooLong => "the exchange took longer than any may", Lost::StaleToken => "exchange: the authorization server hands out the same, nearly expired token again" })]
    Lost(Lost),
    #[error("{0}")]
    Internal(&'static str),
}

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        Self { cause: Arc::new(cause), server: None, retry_in: None }
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
        self.cause.fmt(f)
    }
}

impl std::error::Error for Error {}

impl Error {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match &*self.cause {
            Cause::UnknownServer { .. } => Class::BadRequest,
            Cause::NotServed { .. } | Cause::Denied(_) => Class::Denied,
            Cause::Beside { .. } | Cause::UnlistedQuery { .. } => Class::Denied,
            Cause::TooManyUnlisted(_) | Cause::TooOften(_) => Class::Temporary,
            Cause::Identity(identity::Error::Unreachable { .. }) => Class::Temporary,
            Cause::Identity(_) | Cause::Unfit { .. } => Class::NoIdentity,
            Cause::Discovery(error) if error.is_temporary() => Class::Temporary,
            Cause::Discovery(discovery::Error::Outbound { error, .. }) => of_outbound(error),
            Cause::Exchange(error) if error.is_temporary() => Class::Temporary,
            Cause::Exchange(exchange::Error::Outbound { error, .. }) => of_outbound(error),
            Cause::Exchange(exchange::Error::Misconfigured { .. }) => Class::Config,
            Cause::Bound { .. } | Cause::Signed { .. } => Class::Denied,
            Cause::NoDigest { .. } => Class::BadRequest,
            Cause::Revocation(error) if error.is_temporary() => Class::Temporary,
            Cause::NoExchange { .. } | Cause::SeveralIssuers { .. } | Cause::SharedResource { .. } => Class::Config,
            Cause::IssuerNotListed { .. } => Class::Denied,
            Cause::Lost(Lost::TooLong | Lost::StaleToken) | Cause::Audit(_) => Class::Temporary,
            Cause::Lost(Lost::Panic) | Cause::Internal(_) => Class::Internal,
            Cause::Discovery(_)
            | Cause::Exchange(_)
            | Cause::RefusedBefore(_)
            | Cause::PinNotListed { .. }
            | Cause::ForeignKey { .. }
            | Cause::NoDpop { .. }
            | Cause::BadIssuer { .. } => Class::Refused,
            Cause::NotBound { .. } | Cause::DeadOnArrival { .. } | Cause::Immortal { .. } | Cause::Revocation(_) => {
                Class::Refused
            }
        }
    }

    /// A stable code: the authorization server's own where it refused.
    pub fn code(&self) -> &str {
        match &*self.cause {
            Cause::UnknownServer { .. } => "unknown_server",
            Cause::NotServed { .. } | Cause::Beside { .. } | Cause::UnlistedQuery { .. } => "server_not_configured",
            Cause::TooOften(_) => "asked_too_often",
            Cause::Denied(Denied::Caller { .. }) => "access_denied",
            Cause::Denied(Denied::AskedTooMuch { .. }) => "invalid_scope",
            Cause::Denied(Denied::GrantedTooMuch { .. }) => "scope_beyond_ceiling",
            Cause::Identity(_) => match self.class() {
                Class::Temporary => "identity_unreachable",
                _ => "no_identity",
            },
            Cause::Unfit { .. } => "subject_token_unfit",
            Cause::Exchange(exchange::Error::Refused { error, .. })
            | Cause::RefusedBefore(exchange::Error::Refused { error, .. }) => &error.code,
            Cause::Discovery(discovery::Error::ResourceMismatch { .. }) => "resource_mismatch",
            Cause::Discovery(discovery::Error::IssuerMismatch { .. }) => "issuer_mismatch",
            Cause::Discovery(
                discovery::Error::NoServerMetadata { .. } | discovery::Error::NoResourceMetadata { .. },
            ) => "no_metadata",
            Cause::NoExchange { .. } => "no_exchange",
            Cause::PinNotListed { .. } => "issuer_not_named",
            Cause::IssuerNotListed { .. } => "issuer_not_listed",
            Cause::SeveralIssuers { .. } => "several_issuers",
            Cause::NotBound { .. } => "resource_not_bound",
            Cause::ForeignKey { .. } => "token_not_ours",
            Cause::NoDpop { .. } => "no_dpop",
            Cause::Bound { .. } => "token_bound",
            Cause::Signed { .. } => "no_token",
            Cause::NoDigest { .. } => "invalid_request",
            Cause::Exchange(exchange::Error::Misconfigured { .. }) => "client_misconfigured",
            Cause::Exchange(exchange::Error::Moved { .. }) => "issuer_changed",
            Cause::SharedResource { .. } => "shared_resource",
            Cause::Revocation(_) => "revocation_failed",
            Cause::Audit(_) => "audit_failed",
            Cause::Internal(_) | Cause::Lost(Lost::Panic) => "server_error",
            _ => match self.class() {
                Class::Temporary => "temporarily_unavailable",
                _ => "invalid_metadata",
            },
        }
    }

    /// The cure, where there is one.
    #[expect(clippy::too_many_lines, reason = "one arm a refusal; ends when each refusal is one row")]
    pub fn hint(&self) -> Option<String> {
        Some(match &*self.cause {
            Cause::UnknownServer { known, .. } if known.is_empty() => {
                "no server is configured: give a URL, or add [servers.NAME] with `url`".to_owned()
            }
            Cause::UnknownServer { known, .. } => format!("configured: {}", known.join(", ")),
            Cause::NotServed { .. } => {
                "add it as [servers.NAME] with `url`, spelled as the server names itself".to_owned()
            }
            Cause::Beside { .. } | Cause::UnlistedQuery { .. } => "configure it as a server of its own".to_owned(),
            Cause::TooManyUnlisted(_) => {
                "configure those that are always needed; the tokens of the others lapse when nobody asks".to_owned()
            }
            Cause::TooOften(_) => "keep the token for its life, or raise `rate` at the server".to_owned(),
            Cause::Denied(denied) => denied.hint(),
            Cause::Identity(error) => return error.hint().map(str::to_owned),
            Cause::Unfit { unfit, .. } => unfit_hint(unfit),
            Cause::Discovery(error) => return error.hint(),
            Cause::Exchange(error) => return error.hint(),
            Cause::RefusedBefore(_) => {
                "mend the trust at the authorization server; the next identity token of the platform is presented again (a managed identity's or a file's may come hours later: restart the daemon then)"
                    .to_owned()
            }
            Cause::NoExchange { .. } => {
                "if it accepts the JWT bearer grant all the same, say so with `exchange = \"jwt-bearer\"` and `issuer`"
                    .to_owned()
            }
            Cause::PinNotListed { .. } => {
                "if the server moved, change `issuer`; nothing is sent to either until then".to_owned()
            }
            Cause::IssuerNotListed { .. } => {
                "add the right one to `issuers` in [egress], or pin it with `issuer`".to_owned()
            }
            Cause::SeveralIssuers { .. } => "pin the right one with `issuer`, or `--issuer URL`".to_owned(),
            Cause::BadIssuer { .. } => {
                "the operator of the MCP server must mend `authorization_servers` (RFC 9728)".to_owned()
            }
            Cause::NotBound { issuer, .. } => {
                format!(
                    "pin it if you trust it with this server: `issuer = \"{issuer}\"`, or `--issuer {issuer}`; its operator should bind tokens to `resource` (RFC 8707)"
                )
            }
            Cause::ForeignKey { .. } => {
                "the operator of the authorization server must mend what it binds tokens to (RFC 9449 section 6)"
                    .to_owned()
            }
            Cause::NoDpop { .. } => {
                "its operator must accept ES256, or the MCP server must not require DPoP".to_owned()
            }
            Cause::Signed { .. } => {
                "ask `/v1/headers` with `method`, `url` and `body_sha256`, once for each request".to_owned()
            }
            Cause::NoDigest { .. } => {
                "add the SHA-256 of the body as 64 hexadecimal digits; that of no body is e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned()
            }
            Cause::Bound { to, .. } if to.starts_with("a DPoP") => {
                "ask `/v1/headers` with `method` and `url`, which gives the proof with the token".to_owned()
            }
            Cause::Bound { .. } => "ask `/v1/headers`, and connect with the same certificate".to_owned(),
            Cause::SharedResource { .. } => {
                "a token for one would be good for the other: give both the same `allow`, or configure one of them"
                    .to_owned()
            }
            Cause::DeadOnArrival { .. } | Cause::Immortal { .. } | Cause::Lost(Lost::StaleToken) => {
                "the operator of the authorization server must mend the lifetime of its tokens".to_owned()
            }
            Cause::Revocation(_) => "the token is forgotten here and lapses by itself".to_owned(),
            Cause::Audit(error) => error.hint(),
            Cause::Lost(Lost::TooLong) => return None,
            Cause::Internal(_) | Cause::Lost(Lost::Panic) => {
                "this is a bug: please report it with the log at `--log debug`".to_owned()
            }
        })
    }

    /// When it is worth asking again.
    pub fn retry_in(&self) -> Option<Duration> {
        (self.class() == Class::Temporary).then(|| self.retry_in.unwrap_or(Duration::from_secs(1)))
    }

    /// The server it is about.
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    pub(super) fn at(self, server: &Server) -> Self {
        Self { server: Some(Arc::clone(&server.name)), ..self }
    }

    pub(crate) fn unknown_server<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        Cause::UnknownServer { name: quoted_words(name), known: known.map(str::to_owned).collect() }.into()
    }

    pub(super) fn not_served(url: &ServerUrl) -> Self {
        Cause::NotServed { url: without_query(url) }.into()
    }

    pub(crate) fn beside(url: &ServerUrl, server: &Server) -> Self {
        Cause::Beside { url: without_query(url), server: Arc::clone(&server.name) }.into()
    }

    pub(super) fn unlisted_query(url: &ServerUrl) -> Self {
        Cause::UnlistedQuery { url: without_query(url) }.into()
    }

    pub(super) fn too_many_unlisted(cap: usize) -> Self {
        Self { retry_in: Some(UNLISTED_WAIT), ..Cause::TooManyUnlisted(cap).into() }
    }

    pub(super) fn too_often(server: &Server, rate: Rate, wait: Duration) -> Self {
        Self { retry_in: Some(wait), ..Self::from(Cause::TooOften(rate)).at(server) }
    }

    pub(super) fn denied(server: &Server, denied: Denied) -> Self {
        Self::from(Cause::Denied(denied)).at(server)
    }

    pub(super) fn unfit(source_name: &'static str, unfit: Unfit) -> Self {
        Cause::Unfit { source_name, unfit }.into()
    }

    pub(super) fn refused_before(error: exchange::Error) -> Self {
        Cause::RefusedBefore(error).into()
    }

    pub(super) fn no_exchange(server: &AuthorizationServer) -> Self {
        let offers = match &server.grant_types {
            None => "nothing".to_owned(),
            Some(listed) => quoted_words(&listed.join(" ")),
        };
        Cause::NoExchange { issuer: server.issuer.clone(), offers }.into()
    }

    pub(super) fn pin_not_listed(pinned: &Issuer, named: &[String]) -> Self {
        Cause::PinNotListed { pinned: pinned.clone(), named: quoted_words(&named.join(" ")) }.into()
    }

    pub(super) fn issuer_not_listed(named: &[String]) -> Self {
        Cause::IssuerNotListed { named: quoted_words(&named.join(" ")) }.into()
    }

    pub(super) fn several_issuers(named: &[String]) -> Self {
        Cause::SeveralIssuers { named: quoted_words(&named.join(" ")) }.into()
    }

    pub(super) fn bad_issuer(issuer: &str, why: BadUrl) -> Self {
        Cause::BadIssuer { issuer: quoted_words(issuer), why }.into()
    }

    pub(super) fn not_bound(issuer: &Issuer, resource: &Resource, why: &'static str) -> Self {
        Cause::NotBound { issuer: issuer.clone(), resource: resource.clone(), why }.into()
    }

    pub(super) fn shared_resource(resource: &Resource, server: &str, other: &str) -> Self {
        Cause::SharedResource { resource: resource.clone(), server: server.to_owned(), other: other.to_owned() }.into()
    }

    pub(super) fn foreign_key(issuer: &Issuer, why: &'static str) -> Self {
        Cause::ForeignKey { issuer: issuer.clone(), why }.into()
    }

    pub(super) fn no_dpop(issuer: &Issuer) -> Self {
        Cause::NoDpop { issuer: issuer.clone() }.into()
    }

    pub(super) fn signed(server: &Server) -> Self {
        Cause::Signed { server: Arc::clone(&server.name) }.into()
    }

    pub(super) fn no_digest(server: &Server) -> Self {
        Cause::NoDigest { server: Arc::clone(&server.name) }.into()
    }

    pub(super) fn bound(server: &Server, to: &'static str) -> Self {
        Cause::Bound { server: Arc::clone(&server.name), to }.into()
    }

    /// Is it only that the server's nonce was not known yet?
    pub(super) fn wants_nonce(&self) -> bool {
        matches!(&*self.cause, Cause::Exchange(exchange::Error::NonceWanted { .. }))
    }

    pub(super) fn immortal(issuer: &Issuer) -> Self {
        Cause::Immortal { issuer: issuer.clone() }.into()
    }

    pub(super) fn dead_on_arrival(issuer: &Issuer) -> Self {
        Cause::DeadOnArrival { issuer: issuer.clone() }.into()
    }

    pub(super) fn revocation(server: &Server, error: revocation::Error) -> Self {
        Self::from(Cause::Revocation(error)).at(server)
    }

    pub(super) fn internal(what: &'static str) -> Self {
        Cause::Internal(what).into()
    }
}

/// Tokens live for minutes; one of so many lapses soon.
const UNLISTED_WAIT: Duration = Duration::from_secs(10);

/// A query may hold anything and does not belong into an error.
fn without_query(url: &ServerUrl) -> String {
    url.as_str().split('?').next().unwrap_or_default().to_owned()
}

fn of_outbound(error: &outbound::Error) -> Class {
    match error {
        outbound::Error::NotAllowed { .. }
        | outbound::Error::Forbidden { kind: outbound::Kind::Unlisted, .. }
        | outbound::Error::InsecureLoopback { .. } => Class::Denied,
        outbound::Error::Roots { .. } | outbound::Error::Proxy { .. } => Class::Config,
        _ => Class::Refused,
    }
}

fn unfit_hint(unfit: &Unfit) -> String {
    match unfit {
        Unfit::OtherAudience { wanted, .. } => {
            format!(
                "have the platform make the token for {wanted:?}, or, if the authorization server accepts this audience, set `subject_audience` with a pinned `issuer`"
            )
        }
        Unfit::SeveralAudiences { .. } | Unfit::NoAudience => {
            "have the platform make the token for the authorization server alone".to_owned()
        }
        Unfit::NoJwt => "leave `token` out of the identity, for a JWT of the role; a signed request is for \"token-exchange\" and \
            \"gcp\" alone, proves no client, and whoever takes it trusts the ARN that `aws sts get-caller-identity` shows"
            .to_owned(),
        Unfit::NoExpiry => "have the platform issue tokens with `exp`".to_owned(),
        Unfit::Expired { .. } => "whoever writes this token must renew it; check this machine's clock too".to_owned(),
    }
}

impl Failure for Error {
    fn verdict(&self) -> Verdict {
        if self.class() != Class::Temporary {
            return Verdict::Permanent;
        }
        let retry_after = match &*self.cause {
            Cause::Discovery(discovery::Error::Busy { retry_after, .. })
            | Cause::Exchange(exchange::Error::Busy { retry_after, .. }) => *retry_after,
            _ => None,
        };
        Verdict::Temporary { retry_after, tried_patiently: matches!(*self.cause, Cause::Identity(_)) }
    }

    fn lost(how: Lost) -> Self {
        Cause::Lost(how).into()
    }

    fn retry_in(self, wait: Duration) -> Self {
        Self { retry_in: Some(wait), ..self }
    }
}
