//! How the access token is asked for: one file an exchange, one row an exchange in [`EXCHANGES`].
//!
//! From metadata alone only `jwt-bearer` is ever chosen; everything else is configured. After a refusal there
//! is no second attempt with another grant. Who the client is and how it proves that is another choice
//! ([`client_auth`], [`registration`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::digest::Fields;
use crate::dpop;
use crate::oauth::{Audience, AuthorizationServer, Issuer, Resource, Scopes};
use crate::sigv4::Signer;
use crate::token::{AccessToken, SubjectToken};

mod answer;
mod aws_role;
mod aws_sigv4;
mod client_auth;
mod client_credentials;
mod cure;
mod direct;
mod entra;
mod error;
mod form;
mod gcp;
mod id_jag;
mod jwt_bearer;
mod key;
mod link;
pub(crate) mod pace;
pub(crate) mod registration;
pub(crate) mod revocation;
mod token_exchange;
mod way;
mod written;

pub(crate) use answer::ABSURD_LIFE;
pub(crate) use client_auth::Identified;
pub use client_auth::{Client, ClientAuth, SecretFrom, SecretPlace};
pub use entra::Cloud;
pub(crate) use error::Error;
pub(crate) use id_jag::IDP;
pub use link::Link;
pub(crate) use way::Way;
pub(crate) use written::{Form, Place, Unfit, Written};

/// Every exchange we know. Adding one: its file, its `mod` line, its row here.
pub(crate) const EXCHANGES: &[Descriptor] = &[
    jwt_bearer::EXCHANGE,
    client_credentials::EXCHANGE,
    token_exchange::EXCHANGE,
    id_jag::EXCHANGE,
    gcp::EXCHANGE,
    entra::EXCHANGE,
    aws_role::EXCHANGE,
    aws_sigv4::EXCHANGE,
    direct::EXCHANGE,
];

/// The exchange that is used where none is configured, if the server takes it: the only one that is ever chosen.
pub(crate) static USUAL: &dyn Exchange = &jwt_bearer::JwtBearer { name: jwt_bearer::EXCHANGE.name };

/// The grant for which a client of a link is registered.
pub(crate) const LINK_GRANT: &str = token_exchange::GRANT;

/// One row of the table of exchanges.
pub(crate) struct Descriptor {
    /// As written in `exchange = "…"`.
    pub name: &'static str,
    /// The form parameters with an identity or its type, which `extra` may not set whatever the exchange. Those that it sends
    /// from keys of its own are in [`Traits::own_parameters`].
    pub sets: &'static [&'static str],
    /// How it is configured for a server; `None` where it gives no access token.
    pub of_server: Option<Form<dyn Exchange>>,
    /// How it is configured as a link of a chain; `None` where it changes no identity into another.
    pub of_link: Option<Form<dyn Change>>,
}

/// From subject token to access token, as configured.
#[async_trait]
pub(crate) trait Exchange: fmt::Debug + Send + Sync {
    /// As written in `exchange = "…"`.
    fn name(&self) -> &'static str;

    /// What the rest of the program must know of it.
    fn traits(&self) -> Traits;

    /// Its own keys as they reach the wire, for the cache key.
    fn fields(&self) -> Fields {
        Fields::default()
    }

    /// The client, with what the exchange takes for granted where nothing is said.
    fn client(&self, client: Client) -> Client {
        client
    }

    /// Checks that this identity is one whose token it may use.
    fn suits(&self, _identity: &Root<'_>) -> Result<(), Unfit> {
        Ok(())
    }

    /// For whom the subject token must be made: the authorization server, under the name it is trusted by.
    fn audience(&self, issuer: &Issuer, request: &Request) -> Audience {
        Audience::from(request.subject_audience.as_deref().unwrap_or(issuer.as_str()))
    }

    /// One round trip to the token endpoint, no retry. There is a subject wherever the exchange needs one.
    async fn exchange(&self, way: &Way<'_>, subject: Option<&SubjectToken>, request: &Request)
    -> Result<Issued, Error>;
}

/// From one subject token to another, as configured: a link of a chain.
///
/// What comes back must be a JWT made for the next party alone, or it would be good for others as well.
#[async_trait]
pub(crate) trait Change: fmt::Debug + Send + Sync {
    /// As written in `exchange = "…"`, and the name of the hop.
    fn name(&self) -> &'static str;

    /// Whose own hosts it asks; `None` where the issuer is configured.
    fn provider(&self) -> Option<Provider> {
        None
    }

    /// Does it say what the subject token is, so that it may be something else than a JWT?
    fn names_its_subject(&self) -> bool {
        false
    }

    /// Its own keys as they reach the wire, for the cache key.
    fn fields(&self) -> Fields;

    /// The client, with what the link takes for granted where nothing is said.
    fn client(&self, client: Client) -> Client {
        client
    }

    /// One attempt, no retry.
    async fn change(
        &self,
        way: &Way<'_>,
        subject: &SubjectToken,
        client: Identified,
        destination: &Destination<'_>,
    ) -> Result<SubjectToken, Error>;
}

/// What the rest of the program must know of an exchange. Nobody else compares its name.
#[derive(Clone, Debug)]
pub(crate) struct Traits {
    /// Whom it asks.
    pub asks: Asks,
    /// What it takes for a subject token.
    pub subject: Subject,
    /// What comes of it.
    pub gives: Gives,
    /// The grant type on the wire; empty where no token endpoint is asked.
    pub grant: &'static str,
    /// Do `scopes` limit what the token is good for?
    pub limits_scopes: bool,
    /// Must the issuer be pinned? Not if all that is sent is a JWT for that issuer alone, which is worthless to others.
    pub needs_pin: bool,
    /// Does it ask an identity provider first (`idp`)?
    pub needs_idp: bool,
    /// The form parameters that it sends from keys of its own: beside this exchange, and no other, `extra` may not set them.
    pub own_parameters: &'static [&'static str],
}

impl Traits {
    /// Those of a grant at a discovered or pinned authorization server, with a JWT as subject token.
    pub(crate) const fn of_grant(grant: &'static str) -> Self {
        Self {
            asks: Asks::Discovered,
            subject: Subject::Jwt,
            gives: Gives::Token,
            grant,
            limits_scopes: true,
            needs_pin: false,
            needs_idp: false,
            own_parameters: &[],
        }
    }
}

/// Whom an exchange asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// The authorization server that is pinned, or that the MCP server names.
    Discovered,
    /// A provider's own hosts, whatever the MCP server says.
    Provider(Provider),
    /// Nobody: the platform's own token is what the server takes.
    Nobody,
}

/// A provider with hosts of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Provider {
    /// The name by which errors and the audit call it.
    pub issuer: Issuer,
    /// Where it is asked.
    pub token_endpoint: String,
    /// The audience of the subject token where nothing else is configured. Only this provider takes tokens with it.
    pub subject_audience: String,
    /// The account whose role is taken on, where there is one.
    pub account: Option<String>,
}

/// What an exchange takes for a subject token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// None.
    None,
    /// A JWT.
    Jwt,
    /// Anything: the request says what it is.
    Named,
    /// None, unless the client proves itself with one.
    ProofOfClient,
}

/// What comes of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gives {
    /// A token that was issued for us.
    Token,
    /// The platform's own token, which nobody else issued and nobody can revoke.
    OwnToken,
    /// Credentials with which each request is signed.
    Signer,
}

/// The identity that an exchange is to use, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root<'a> {
    /// The configured name.
    pub name: &'a str,
    /// The source; `None` where it is still to be detected.
    pub source: Option<&'a str>,
    /// Are there links between that source and the exchange?
    pub is_chain: bool,
}

/// For what the subject token that a link gives is used.
pub(crate) struct Destination<'a> {
    /// The next party.
    pub audience: &'a Audience,
    /// The MCP server.
    pub resource: Option<&'a Resource>,
    /// What will be asked for there.
    pub scopes: &'a Scopes,
}

/// The form parameters that `extra` may not set, whatever the exchange.
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
    /// Further form parameters that are tokens of identities, made for this authorization server.
    pub assertions: Vec<(String, SubjectToken)>,
    /// The credentials of the workload's own role, where requests are signed with them.
    pub aws_credentials: Option<crate::aws::Credentials>,
}

/// What was granted.
#[derive(Debug)]
pub(crate) struct Issued {
    /// A token, or what signs requests.
    pub grant: Grant,
    /// As the server says it; `None` when it says nothing.
    pub expires_in: Option<Duration>,
    /// As the server says it; `None` means as requested (RFC 6749 section 5.1).
    pub scopes: Option<Scopes>,
}

/// A token, or what signs requests in its place.
#[derive(Debug)]
pub(crate) enum Grant {
    /// A token.
    Token(AccessToken),
    /// There is none: with this each request is signed.
    Signer(Signed),
}

impl Issued {
    /// The token, if there is one.
    pub(crate) fn token(&self) -> Option<&AccessToken> {
        match &self.grant {
            Grant::Token(token) => Some(token),
            Grant::Signer(_) => None,
        }
    }
}

/// What signs requests, and as whom.
#[derive(Debug)]
pub(crate) struct Signed {
    /// Signs.
    pub signer: Arc<Signer>,
    /// The role's session, where somebody told.
    pub arn: Option<String>,
}

/// Which exchange to use: the configured one, else `jwt-bearer` if the server lists it, or if it says nothing
/// and the operator pinned the issuer. `None` means that it has to be configured.
pub(crate) fn choose<'a>(
    configured: Option<&'a dyn Exchange>,
    server: &AuthorizationServer,
    pinned: IssuerIs,
) -> Option<&'a dyn Exchange> {
    if configured.is_some() {
        return configured;
    }
    match (server.offers(USUAL.traits().grant), pinned) {
        (Some(true), _) | (None, IssuerIs::Pinned) => Some(USUAL),
        _ => None,
    }
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

    fn chosen(configured: Option<&'static str>, grants: Option<&[&str]>, pinned: IssuerIs) -> Option<&'static str> {
        let configured = configured.map(|name| jwt_bearer::JwtBearer { name });
        let configured = configured.as_ref().map(|one| one as &dyn Exchange);
        choose(configured, &server(grants), pinned).map(Exchange::name)
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
