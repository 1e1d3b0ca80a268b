//! Failures between discovery and exchange: the metadata of the servers gives no way to ask for a token.

use std::fmt;

use super::facts::{Facts, Party, Stage};
use super::{Cause, Class, Error};
use crate::exchange;
use crate::oauth::{AuthorizationServer, BadUrl, Issuer, Resource, ServerUrl, quoted_words};

/// Why no authorization server can be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NoRoute {
    #[error("{issuer} offers no grant that can be chosen without configuration (it lists: {offers})")]
    NoExchange { issuer: Issuer, offers: Words, cure: String },
    #[error("the pinned issuer {pinned} is not among those the server names: {named}")]
    PinNotListed { pinned: Issuer, named: Words },
    #[error("none of the issuers that the server names is in [egress] issuers: {0}")]
    IssuerNotListed(Words),
    #[error("the server names several authorization servers: {0}")]
    SeveralIssuers(Words),
    #[error("the server names {issuer:?} as its authorization server, which cannot be one: {why}")]
    BadIssuer { issuer: Words, why: BadUrl },
    #[error("the server calls itself {resource}, which stands for its neighbours too, and {place} does not say so")]
    NotConfirmed { resource: Resource, place: ServerUrl },
    #[error("{resource} is one resource for {server} and {other}")]
    SharedResource { resource: Resource, server: String, other: String },
    #[error("{issuer} takes no DPoP proof of ours: it does not list ES256")]
    NoDpop { issuer: Issuer },
}

/// Text of another party, made safe to show.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Words(String);

impl Words {
    /// From one text.
    pub(crate) fn of(text: &str) -> Self {
        Self(quoted_words(text))
    }

    /// From several texts, separated by spaces.
    pub(crate) fn list(texts: &[String]) -> Self {
        Self::of(&texts.join(" "))
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// In quotation marks.
impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl NoRoute {
    /// The failure for a server that lists no grant we can choose.
    pub(crate) fn no_exchange(server: &AuthorizationServer) -> Self {
        let offers = server.grant_types.as_ref().map_or_else(|| Words::of("nothing"), |listed| Words::list(listed));
        Self::NoExchange { issuer: server.issuer.clone(), offers, cure: what_to_configure(server) }
    }

    /// The facts of each variant.
    pub(super) fn facts(&self) -> Facts<'_> {
        use Class::{Config, Denied, Refused};
        use Party::{AuthorizationServer, Machine, McpServer, Workload};
        let row = |party, class, code| Facts::of(Stage::Discovery, party, class, code);
        match self {
            Self::NoExchange { cure, .. } => row(Workload, Config, "no_exchange").hint(cure.clone()),
            Self::PinNotListed { .. } => row(AuthorizationServer, Refused, "issuer_not_named")
                .hint("name the one that the server names with `issuer` or `--issuer`, or leave it out; nothing is sent to either until then"),
            Self::IssuerNotListed(_) => row(Machine, Denied, "issuer_not_listed")
                .hint("add the right one to `issuers` in [egress], or pin it with `issuer`"),
            Self::SeveralIssuers(_) => {
                row(Workload, Config, "several_issuers").hint("pin the right one with `issuer`, or `--issuer URL`")
            }
            Self::BadIssuer { .. } => row(McpServer, Refused, "invalid_metadata")
                .hint("the operator of the MCP server must fix `authorization_servers` (RFC 9728)"),
            Self::NotConfirmed { resource, .. } => row(McpServer, Refused, "resource_not_confirmed").hint(format!(
                "its operator must name the URL of the server as `resource`, or publish the document of that resource there (RFC 9728 section 3.1); if tokens for all of it are meant, set `resource = '{resource}'`"
            )),
            Self::SharedResource { .. } => row(Workload, Config, "shared_resource").hint(
                "a token for one is good for the other: if that is meant, set `resource` at both and give both the same `allow`; else configure one of them",
            ),
            Self::NoDpop { .. } => row(AuthorizationServer, Refused, "no_dpop")
                .hint("its operator must accept ES256, or the MCP server must not require DPoP"),
        }
    }
}

/// Which exchange goes with what an authorization server lists.
fn what_to_configure(server: &AuthorizationServer) -> String {
    if exchange::is_entra(&server.issuer) {
        return "this is Microsoft Entra: `exchange = \"entra\"`, with `client_id` and the target's `scopes`"
            .to_owned();
    }
    let all_the_same =
        "if it accepts the JWT bearer grant all the same, say so with `exchange = \"jwt-bearer\"` and `issuer`";
    let ways: Vec<String> = exchange::for_grants(server.grant_types.as_deref().unwrap_or_default())
        .map(|(name, keys)| format!("`exchange = \"{name}\"` with {keys}"))
        .collect();
    if ways.is_empty() {
        return all_the_same.to_owned();
    }
    format!("for what it lists, configure {}; {all_the_same}", ways.join(", or "))
}

impl From<NoRoute> for Error {
    fn from(refusal: NoRoute) -> Self {
        Cause::Route(refusal).into()
    }
}
