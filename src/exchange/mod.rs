//! How the access token is asked for: one file an exchange, one row an exchange in [`EXCHANGES`].
//!
//! From metadata alone only `jwt-bearer` is ever chosen; everything else is configured. After a refusal there
//! is no second attempt with another grant.

use std::time::Duration;

use async_trait::async_trait;

use crate::oauth::{Audience, AuthorizationServer, Issuer, OauthError, Resource, Scopes};
use crate::outbound::{self, Answer, Ask, Body, NamedBy, Outbound};
use crate::token::{AccessToken, SubjectToken};

mod answer;
mod client_auth;
mod client_credentials;
mod form;
mod jwt_bearer;
pub(crate) mod pace;
pub(crate) mod revocation;
mod token_exchange;

pub(crate) use answer::ABSURD_LIFE;
pub use client_auth::ClientAuth;

/// Every exchange we know. Adding one: its file, its `mod` line, its row here.
pub(crate) const EXCHANGES: &[Descriptor] =
    &[jwt_bearer::EXCHANGE, client_credentials::EXCHANGE, token_exchange::EXCHANGE];

/// One row of the table of exchanges.
pub(crate) struct Descriptor {
    /// As written in `exchange = "…"`.
    pub name: &'static str,
    /// The grant type on the wire.
    pub grant: &'static str,
    /// The form parameters it sets beside those that all set; `extra` may set neither.
    pub sets: &'static [&'static str],
    /// The step itself.
    pub exchange: &'static dyn Exchange,
}

/// From subject token to access token.
#[async_trait]
pub(crate) trait Exchange: Send + Sync {
    /// For whom the subject token must be made: the authorization server, under the name it is trusted by.
    fn audience(&self, issuer: &Issuer, request: &Request) -> Audience {
        Audience::from(request.subject_audience.as_deref().unwrap_or(issuer.as_str()))
    }

    /// One round trip to the token endpoint, no retry.
    async fn exchange(&self, way: &Way<'_>, subject: &SubjectToken, request: &Request) -> Result<Issued, Error>;
}

/// Where a token request goes.
pub(crate) struct Way<'a> {
    /// The client.
    pub outbound: &'a Outbound,
    /// Whose token endpoint.
    pub server: &'a AuthorizationServer,
    /// Who named that server.
    pub named_by: NamedBy,
}

impl Way<'_> {
    /// Sends a form to the token endpoint.
    async fn post(&self, body: Body) -> Result<Answer, Error> {
        let answer = self.outbound.send(Ask::post(&self.server.token_endpoint, self.named_by, body)).await;
        answer.map_err(|error| Error::Outbound { issuer: self.server.issuer.clone(), error })
    }
}

/// The form parameters that `extra` may not set.
pub(crate) fn reserved() -> Vec<&'static str> {
    EXCHANGES.iter().flat_map(|row| row.sets.iter().copied()).chain(form::SHARED).chain(["audience"]).collect()
}

/// What is asked for, and as whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// RFC 8707; `None` is not sent.
    pub resource: Option<Resource>,
    /// Empty is not sent.
    pub scopes: Scopes,
    /// The client identifier, where a server wants one.
    pub client_id: Option<String>,
    /// How the client proves itself.
    pub client_auth: ClientAuth,
    /// The `audience` parameter (RFC 8693 section 2.1; Auth0, Google).
    pub audience: Option<String>,
    /// The audience of the subject token, when it is not the issuer.
    pub subject_audience: Option<String>,
    /// Further form parameters.
    pub extra: Vec<(String, String)>,
}

/// What was granted.
#[derive(Debug)]
pub(crate) struct Issued {
    /// The secret.
    pub access_token: AccessToken,
    /// As the server says it; `None` when it says nothing.
    pub expires_in: Option<Duration>,
    /// As the server says it; `None` means as requested (RFC 6749 section 5.1).
    pub scopes: Option<Scopes>,
}

/// Why there is no access token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The authorization server said no. It is not asked again with the same assertion.
    #[error("{issuer} refuses with {error}")]
    Refused {
        /// Who.
        issuer: Issuer,
        /// What it said.
        error: OauthError,
    },
    /// It is there and has trouble of its own, or too many of us.
    #[error("the token endpoint of {issuer} answers status {status}")]
    Busy {
        /// Who.
        issuer: Issuer,
        /// 429 or 5xx, or 400 with `temporarily_unavailable`.
        status: u16,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// No answer, or a bad one on the way.
    #[error("the token endpoint of {issuer}: {error}")]
    Outbound {
        /// Who.
        issuer: Issuer,
        /// What happened.
        error: outbound::Error,
    },
    /// The answer is not RFC 6749's.
    #[error("the token answer of {issuer}: {what}")]
    Malformed {
        /// Who.
        issuer: Issuer,
        /// What is wrong.
        what: String,
    },
}

impl Error {
    /// Would a new request have a chance a little later?
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Busy { .. } => true,
            Self::Outbound { error, .. } => error.is_temporary(),
            Self::Refused { .. } | Self::Malformed { .. } => false,
        }
    }

    /// The cure and whose turn it is.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Busy { .. } => None,
            Self::Outbound { error, .. } => error.hint(),
            Self::Malformed { .. } => Some(
                "the operator of the authorization server must mend its token endpoint (RFC 6749 section 5.1)"
                    .to_owned(),
            ),
            Self::Refused { error, .. } => Some(cure(&error.code).to_owned()),
        }
    }
}

fn cure(code: &str) -> &'static str {
    match code {
        "invalid_grant" => {
            "the authorization server does not trust this identity: compare `wayleave whoami --audience ISSUER` with its trust policy (iss, sub, aud), and both clocks"
        }
        "invalid_client" | "unauthorized_client" => {
            "the authorization server does not know this client or its proof: check `client_id` and `client_auth` with its operator, and what it trusts with `wayleave whoami --audience ISSUER`"
        }
        "invalid_target" => {
            "the authorization server does not know this `resource`: its operator must register it, or set `resource`"
        }
        "invalid_scope" => "the authorization server does not grant these scopes: check `scopes` with its operator",
        "unsupported_grant_type" => {
            "the authorization server does not have this grant for this client: its operator must allow it, or set `exchange`"
        }
        _ => "ask the operator of the authorization server, with the time and these words",
    }
}

/// Which exchange to use: the configured one, else `jwt-bearer` if the server lists it, or if it says nothing
/// and the operator pinned the issuer. `None` means that it has to be configured.
pub(crate) fn choose(
    configured: Option<&str>,
    server: &AuthorizationServer,
    pinned: IssuerIs,
) -> Option<&'static Descriptor> {
    match configured {
        Some(name) => row(name),
        None => match (server.offers(jwt_bearer::EXCHANGE.grant), pinned) {
            (Some(true), _) | (None, IssuerIs::Pinned) => Some(&jwt_bearer::EXCHANGE),
            _ => None,
        },
    }
}

/// The row of that name.
pub(crate) fn row(name: &str) -> Option<&'static Descriptor> {
    EXCHANGES.iter().find(|row| row.name == name)
}

/// Who decided on the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IssuerIs {
    /// The operator, for this server.
    Pinned,
    /// The operator's list, among those the server names.
    Listed,
    /// The server alone.
    Discovered,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(grants: Option<&[&str]>) -> AuthorizationServer {
        AuthorizationServer {
            issuer: Issuer::parse("https://as.example.com").expect("good"),
            token_endpoint: "https://as.example.com/token".into(),
            grant_types: grants.map(|grants| grants.iter().map(|&grant| grant.to_owned()).collect()),
            revocation_endpoint: None,
        }
    }

    fn chosen(configured: Option<&str>, grants: Option<&[&str]>, pinned: IssuerIs) -> Option<&'static str> {
        choose(configured, &server(grants), pinned).map(|row| row.name)
    }

    const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

    #[test]
    fn only_jwt_bearer_is_ever_chosen_from_metadata() {
        assert_eq!(chosen(None, Some(&[JWT_BEARER]), IssuerIs::Discovered), Some("jwt-bearer"));
        assert_eq!(chosen(None, Some(&["client_credentials"]), IssuerIs::Pinned), None);
        assert_eq!(chosen(None, Some(&[]), IssuerIs::Pinned), None);
    }

    #[test]
    fn silence_about_grants_is_enough_only_with_a_pin() {
        assert_eq!(chosen(None, None, IssuerIs::Pinned), Some("jwt-bearer"));
        assert_eq!(chosen(None, None, IssuerIs::Listed), None);
        assert_eq!(chosen(None, None, IssuerIs::Discovered), None);
    }

    #[test]
    fn a_configured_exchange_overrules_the_metadata() {
        assert_eq!(chosen(Some("jwt-bearer"), Some(&["client_credentials"]), IssuerIs::Discovered), Some("jwt-bearer"));
    }
}
