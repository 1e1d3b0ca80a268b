//! Why discovery failed, and who has to fix it.

use std::time::Duration;

use super::oddity::{Document, Oddity};
use crate::oauth::{ServerUrl, shell_word};
use crate::outbound;

/// Why discovery failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request failed without a usable answer.
    #[error("{document}: {error}")]
    Outbound {
        /// What was requested.
        document: Document,
        /// The cause.
        error: outbound::Error,
    },
    /// The server is overloaded, has an internal error, or limits our rate.
    #[error("{document} at {host} answers status {status}")]
    Busy {
        /// What was requested.
        document: Document,
        /// The host.
        host: String,
        /// The status: 429 or 5xx.
        status: u16,
        /// The delay that the server asks for, if any.
        retry_after: Option<Duration>,
    },
    /// No place has the document, and this one tells most about the cause.
    #[error("{document} at {place}: {why}")]
    Unusable {
        /// What was searched for.
        document: Document,
        /// The URL, without its query.
        place: String,
        /// What is odd there.
        why: Oddity,
    },
    /// The resource metadata is for another server: a copied document, a misconfigured proxy, or an attack.
    #[error("the resource metadata is for {found:?}, which does not stand for {server:?}")]
    ResourceMismatch {
        /// The `resource` in the metadata.
        found: String,
        /// The configured URL.
        server: String,
    },
    /// The metadata of the authorization server is for another issuer.
    #[error("the server metadata is for issuer {found:?}, not for {asked:?}")]
    IssuerMismatch {
        /// The `issuer` in the metadata.
        found: String,
        /// The issuer whose metadata was requested.
        asked: String,
        /// Its token endpoint, if it is a usable URL.
        endpoint: Option<String>,
    },
    /// No well-known URL of the issuer has metadata.
    #[error("{issuer} publishes no authorization server metadata")]
    NoServerMetadata {
        /// The issuer.
        issuer: String,
    },
    /// The MCP server publishes no metadata and no issuer is pinned, so the issuer is unknown.
    #[error("{server} publishes no protected resource metadata")]
    NoResourceMetadata {
        /// The MCP server.
        server: String,
    },
    /// The metadata is there and names no authorization server.
    #[error("the protected resource metadata of {server} names no authorization server")]
    NamesNoIssuer {
        /// The MCP server.
        server: String,
    },
}

impl Error {
    /// Can the same request succeed a little later?
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Outbound { error, .. } => error.is_temporary(),
            Self::Busy { .. } => true,
            _ => false,
        }
    }

    /// Does it say nothing of the document? Its place cannot be reached, is busy, or gives no valid answer.
    pub(super) fn is_no_document(&self) -> bool {
        self.is_temporary() || matches!(self, Self::Outbound { error: outbound::Error::Malformed { .. }, .. })
    }

    /// How to fix it, and who has to.
    pub fn hint(&self) -> Option<String> {
        const PIN: &str = "pin the authorization server with `issuer`, or `--issuer URL`";
        Some(match self {
            Self::Outbound { error, .. } => return error.hint(),
            Self::Busy { .. } => return None,
            Self::Unusable { document, why, .. } => return why_not(*document, why, PIN),
            Self::ResourceMismatch { .. } => "configure the URL exactly as the server names itself, or its operator must fix `resource` (RFC 9728 section 3.3)".to_owned(),
            Self::IssuerMismatch { found, asked, endpoint } => mismatch(found, asked, endpoint.as_deref()),
            Self::NoServerMetadata { issuer } if issuer.contains("/.well-known/") => "an issuer is the identifier, not the place of its metadata: whoever names it (`issuer` here, or `authorization_servers` of the MCP server) must leave out `/.well-known/…`".to_owned(),
            Self::NoServerMetadata { .. } => "check `issuer`: it is the identifier, not the token endpoint; its operator must publish RFC 8414 metadata; or name its endpoint with `token_endpoint`".to_owned(),
            Self::NamesNoIssuer { .. } => format!("{PIN}; the server's operator should name it in `authorization_servers` (RFC 9728 section 2)"),
            Self::NoResourceMetadata { .. } => format!("check the path of the URL; if it is right: {PIN}; the server's operator should publish RFC 9728 metadata"),
        })
    }
}

/// What helps where a place was odd, and who has to do it.
fn why_not(document: Document, why: &Oddity, pin: &str) -> Option<String> {
    let (operator, way_round) = match document {
        Document::Server => ("the operator of the authorization server", "name its endpoint with `token_endpoint`"),
        Document::Challenge | Document::Resource => ("the operator of the MCP server", pin),
    };
    Some(match why {
        Oddity::Content(_) | Oddity::Endpoint(_) => {
            format!("{operator} must fix the document (RFC 9728, RFC 8414); until then {way_round}")
        }
        Oddity::BadUrl(_) => format!(
            "{operator} must fix `resource_metadata` in its challenge (RFC 9728 section 5.1); until then {way_round}"
        ),
        Oddity::Refused(outbound::Error::Redirect { .. }) => format!(
            "{operator} must publish the document at that place itself, without a redirect or a login before it; until then {way_round}"
        ),
        Oddity::Refused(outbound::Error::Insecure { .. }) => format!(
            "{operator} must name the place as https; behind a proxy, the application must be told by which URL it is reached; until then {way_round}"
        ),
        Oddity::Refused(error) => return error.hint(),
        Oddity::Status(401 | 403) => {
            format!("{operator} must publish the document without a login before it; until then {way_round}")
        }
        Oddity::Status(_) => {
            format!("{operator} must answer there with 200 and the document, or with 404; until then {way_round}")
        }
    })
}

/// What helps where two issuers differ. Which of the two strings is right is for their operators to say.
fn mismatch(found: &str, asked: &str, endpoint: Option<&str>) -> String {
    let word = |text: &str| shell_word(text).unwrap_or_else(|| "what it says".to_owned());
    if found.contains(['{', '}']) {
        return "that is a template: pin `issuer` to the tenant's own issuer, with its id in place of the braces; its operator must name that in `authorization_servers`".to_owned();
    }
    let without_scheme = |text: &str| text.split_once("://").map(|(_, rest)| rest.to_owned());
    if without_scheme(found) == without_scheme(asked) {
        return "they differ by http and https alone: the application behind a proxy must be told by which URL it is reached; its operator must fix `issuer` (RFC 8414 section 3.3)".to_owned();
    }
    let place = |text: &str| text.trim_end_matches('/').to_owned();
    let why = if place(found) == place(asked) { "they differ by a final slash alone: " } else { "" };
    // Where the MCP server names one string and the authorization server another, only these three together agree with both. They
    // are printed only if all of it lies on one origin: nobody is to paste another party's endpoint.
    let origin = |text: &str| ServerUrl::parse(text).ok().map(|url| url.url().origin());
    let on_one_origin =
        |endpoint: &&str| [found, endpoint].iter().all(|text| origin(text).is_some() && origin(text) == origin(asked));
    let keys = endpoint.filter(on_one_origin).and_then(shell_word).map_or_else(String::new, |endpoint| {
        let (asked, found) = (word(asked), word(found));
        format!("; where the MCP server names {asked} and that cannot be changed: `issuer = {asked}`, `token_endpoint = {endpoint}`, `subject_audience = {found}`")
    });
    format!(
        "{why}if {} is right, pin exactly that as `issuer`; else its operator must fix `issuer` (RFC 8414 section 3.3){keys}",
        word(found)
    )
}
