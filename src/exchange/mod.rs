//! How the access token is asked for: one file an exchange, one row an exchange in [`EXCHANGES`].
//!
//! From metadata alone only `jwt-bearer` is ever chosen; everything else is configured. After a refusal there
//! is no second attempt with another grant. Who the client is and how it proves that is another choice
//! ([`client_auth`], [`registration`]).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{HeaderName, HeaderValue};
use url::Url;

use crate::clock::Clock;
use crate::dpop;
use crate::oauth::{Audience, AuthorizationServer, Issuer, OauthError, Resource, Scopes};
use crate::outbound::{self, Answer, Ask, NamedBy, Outbound};
use crate::sigv4::Signer;
use crate::token::{AccessToken, SubjectToken};

mod answer;
mod aws_role;
mod aws_sigv4;
mod client_auth;
mod client_credentials;
mod cure;
mod direct;
pub(crate) mod entra;
mod form;
mod gcp;
mod id_jag;
mod jwt_bearer;
mod key;
pub(crate) mod link;
pub(crate) mod pace;
mod provider;
pub(crate) mod registration;
pub(crate) mod revocation;
mod token_exchange;

pub(crate) use answer::ABSURD_LIFE;
pub use aws_role::Aws;
pub(crate) use client_auth::Identified;
pub use client_auth::{Client, ClientAuth, SecretFrom, SecretPlace};
pub(crate) use direct::EXCHANGE as DIRECT;
pub use entra::{Cloud, Entra};
pub use gcp::Gcp;
pub use provider::Provider;

/// Every exchange we know. Adding one: its file, its `mod` line, its row here.
pub(crate) const EXCHANGES: &[Descriptor] = &[
    jwt_bearer::EXCHANGE,
    client_credentials::EXCHANGE,
    token_exchange::EXCHANGE,
    id_jag::EXCHANGE,
    gcp::EXCHANGE,
    entra::EXCHANGE,
    aws_sigv4::EXCHANGE,
    direct::EXCHANGE,
];

/// One row of the table of exchanges.
pub(crate) struct Descriptor {
    /// As written in `exchange = "…"`.
    pub name: &'static str,
    /// The grant type on the wire; none where no token endpoint is asked.
    pub grant: &'static str,
    /// Does it ask the MCP server who guards it? Those that speak to a provider's own hosts ask nobody.
    pub discovers: bool,
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

    /// Does it need the workload's identity, when the client proves itself so?
    fn needs_subject(&self, _client: ClientAuth) -> bool {
        true
    }

    /// Does it say what the subject token is, so that it may be something else than a JWT?
    fn names_its_subject(&self) -> bool {
        false
    }

    /// One round trip to the token endpoint, no retry. There is a subject wherever the exchange needs one.
    async fn exchange(&self, way: &Way<'_>, subject: Option<&SubjectToken>, request: &Request)
    -> Result<Issued, Error>;
}

/// Where a token request goes.
pub(crate) struct Way<'a> {
    /// The client.
    pub outbound: &'a Outbound,
    /// Whose token endpoint.
    pub server: &'a AuthorizationServer,
    /// Who named that server.
    pub named_by: NamedBy,
    /// Time, for what is signed here.
    pub clock: &'a Clock,
    /// The nonces of servers that hand them out.
    pub nonces: &'a dpop::Nonces,
}

impl Way<'_> {
    /// Asks the token endpoint, with everything that says who asks and what for.
    async fn ask(&self, grant: &str, own: &[(&str, &str)], request: &Request) -> Result<Answer, Error> {
        let client = request.client.parameters(self.server, self.clock.unix())?;
        let body = form::token_request(grant, own, request, &client);
        let certificate = request.client.certificate();
        let aliased = self.server.mutual_tls.token_endpoint.as_ref().filter(|_| certificate.is_some());
        let endpoint = aliased.unwrap_or(&self.server.token_endpoint);
        let mut ask = Ask::post(endpoint, self.named_by, body);
        ask.certificate = certificate.cloned();
        ask.headers.extend(request.client.header()?);
        let place = Url::parse(endpoint).map_err(|_| self.malformed("its token endpoint is no URL".to_owned()))?;
        if let Some(key) = &request.dpop {
            ask.headers.push(self.proof(key, &place)?);
        }
        let answer = self.outbound.send(ask).await;
        let answer = answer.map_err(|error| Error::Outbound { issuer: self.server.issuer.clone(), error })?;
        if request.dpop.is_some() {
            let nonce = answer.headers.get("dpop-nonce").and_then(|value| value.to_str().ok());
            self.nonces.learn(&place, nonce);
            if nonce.is_some() && answer::wants_nonce(&answer) {
                return Err(Error::NonceWanted { issuer: self.server.issuer.clone() });
            }
        }
        Ok(answer)
    }

    fn proof(&self, key: &dpop::Key, place: &Url) -> Result<(HeaderName, HeaderValue), Error> {
        let nonce = self.nonces.newest(place);
        let unix_now = self.clock.unix();
        let purpose = dpop::Purpose { method: "POST", url: place, token: None, nonce: nonce.as_deref(), unix_now };
        let value = key.proof(&purpose).and_then(|proof| HeaderValue::from_str(&proof).ok());
        let value = value.ok_or_else(|| self.malformed("no DPoP proof could be signed".to_owned()))?;
        Ok((HeaderName::from_static("dpop"), value))
    }

    fn malformed(&self, what: String) -> Error {
        Error::Malformed { issuer: self.server.issuer.clone(), what }
    }
}

/// The form parameters that `extra` may not set.
pub(crate) fn reserved() -> Vec<&'static str> {
    EXCHANGES.iter().flat_map(|row| row.sets.iter().copied()).chain(form::SHARED).chain(["audience"]).collect()
}

/// What is asked for, and as whom.
#[derive(Clone, Default)]
pub(crate) struct Request {
    /// RFC 8707; `None` is not sent.
    pub resource: Option<Resource>,
    /// Empty is not sent.
    pub scopes: Scopes,
    /// The client and its proof.
    pub client: Identified,
    /// The key that the token is to be bound to (RFC 9449).
    pub dpop: Option<Arc<dpop::Key>>,
    /// The `audience` parameter (RFC 8693 section 2.1; Auth0, Google).
    pub audience: Option<String>,
    /// The audience of the subject token, when it is not the issuer.
    pub subject_audience: Option<String>,
    /// Further form parameters.
    pub extra: Vec<(String, String)>,
    /// What the provider's exchange needs.
    pub provider: Option<Provider>,
    /// The credentials of the workload's own role, where requests are signed with them.
    pub aws_credentials: Option<crate::aws::Credentials>,
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
    /// There is no token: with this each request is signed.
    pub signed: Option<Signed>,
}

/// What signs requests, and as whom.
#[derive(Debug)]
pub(crate) struct Signed {
    /// Signs.
    pub signer: Arc<Signer>,
    /// The role's session, where somebody told.
    pub arn: Option<String>,
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
        /// What to do about it, which its words may tell better than its code.
        cure: &'static str,
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
    /// It wants its nonce in the proof (RFC 9449 section 8): no refusal, it is asked once more.
    #[error("{issuer} wants another DPoP nonce with every proof")]
    NonceWanted {
        /// Who.
        issuer: Issuer,
    },
    /// What we are to send is not here, or not what the server takes: a file, a key, a setting.
    #[error("{what}")]
    Misconfigured {
        /// What is missing.
        what: String,
        /// What to change.
        hint: String,
    },
    /// The server names another issuer than the one that we are registered with.
    #[error("the server named {from} before and names {to} now; we are registered with the first alone")]
    Moved {
        /// Where we are registered.
        from: Issuer,
        /// Who is named now.
        to: Issuer,
    },
    /// What answers is not the provider's own endpoint.
    #[error("{issuer}: {what}")]
    Elsewhere {
        /// Who was asked.
        issuer: Issuer,
        /// What is wrong.
        what: String,
        /// What to do about it.
        cure: &'static str,
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
            Self::NonceWanted { .. } | Self::Refused { .. } | Self::Malformed { .. } | Self::Elsewhere { .. } => false,
            Self::Misconfigured { .. } | Self::Moved { .. } => false,
        }
    }

    /// May the documents that led to the token endpoint be out of date? A server that answered that it is busy or wants a
    /// nonce is the right one, and so is one whose connection broke.
    pub(crate) fn may_come_of_old_documents(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::NonceWanted { .. } => false,
            Self::Outbound { error, .. } => {
                !matches!(error, outbound::Error::Broken { .. } | outbound::Error::Stale { .. })
            }
            _ => true,
        }
    }

    /// Does the server not know the client that it gave us?
    pub(crate) fn is_about_the_client(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if matches!(&*error.code, "invalid_client" | "unauthorized_client"))
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
            Self::NonceWanted { .. } => {
                Some("the operator of the authorization server must mend its nonces (RFC 9449 section 8)".to_owned())
            }
            Self::Misconfigured { hint, .. } => Some(hint.clone()),
            Self::Moved { to, .. } => {
                Some(format!("if the move is meant, pin it with `issuer = \"{to}\"`, or start again"))
            }
            Self::Refused { cure, .. } | Self::Elsewhere { cure, .. } => Some((*cure).to_owned()),
        }
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
            grant_types: grants.map(|grants| grants.iter().map(|&grant| grant.to_owned()).collect()),
            ..AuthorizationServer::silent(
                Issuer::parse("https://as.example.com").expect("good"),
                "https://as.example.com/token",
            )
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
