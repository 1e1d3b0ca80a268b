//! The exchanges: how an access token is requested. One file per exchange, and one row per exchange in [`EXCHANGES`].
//!
//! Only `jwt-bearer` is ever chosen from metadata; every other exchange has to be configured. After a refusal no other
//! grant is tried. The OAuth client and its proof are chosen separately ([`client_auth`], [`registration`]).

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
#[cfg(any(test, safeconduct_fuzz))]
pub(crate) mod fuzzed;
mod gcp;
mod id_jag;
mod jwt_bearer;
mod key;
mod link;
pub(crate) mod pace;
pub(crate) mod registration;
pub(crate) mod revocation;
mod table;
mod token_endpoint;
mod token_exchange;

pub(crate) use client_auth::ResolvedClient;
pub use client_auth::{AssertionAudience, AssertionType, Client, ClientAuth, SecretFrom, SecretPlace};
pub(crate) use cure::Demand;
pub use entra::Cloud;
pub(crate) use error::Error;
pub(crate) use id_jag::IDP;
pub use link::Link;
pub(crate) use link::LinkParameters;
pub(crate) use table::{ExchangeTable, Form, Place, Unfit};
pub(crate) use token_endpoint::TokenEndpoint;

/// All exchanges. To add one, add its file, its `mod` line and its row here.
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

/// The exchange that is used when none is configured and the server supports it. No other is chosen automatically.
pub(crate) static DEFAULT_EXCHANGE: &dyn Exchange = &jwt_bearer::JwtBearer { name: jwt_bearer::EXCHANGE.name };

/// The grant type with which the client of a link is registered.
pub(crate) const LINK_GRANT: &str = token_exchange::GRANT;

/// One row of [`EXCHANGES`].
pub(crate) struct Descriptor {
    /// As written in `exchange = "…"`.
    pub name: &'static str,
    /// The form parameters of this exchange that carry an identity or its type. `extra` may not set them, whichever
    /// exchange is configured. Parameters that the exchange sends from its own keys are in [`Traits::own_parameters`].
    pub sets: &'static [&'static str],
    /// How it is configured for a server; `None` if it does not produce an access token.
    pub of_server: Option<Form<dyn Exchange>>,
    /// How it is configured as a link of a chain; `None` if it does not produce a subject token.
    pub of_link: Option<Form<dyn LinkExchange>>,
}

/// A configured exchange: turns a subject token into an access token.
#[async_trait]
pub(crate) trait Exchange: fmt::Debug + Send + Sync {
    /// As written in `exchange = "…"`.
    fn name(&self) -> &'static str;

    /// The properties of the exchange that other modules depend on.
    fn traits(&self) -> Traits;

    /// The values of its own keys that affect the request, for the cache key.
    fn fields(&self) -> Fields {
        Fields::default()
    }

    /// Returns the client with this exchange's defaults for keys that are not configured.
    fn client(&self, client: Client) -> Client {
        client
    }

    /// Checks that the exchange can use the token of this identity.
    fn check_identity(&self, _identity: &IdentityRef<'_>) -> Result<(), Unfit> {
        Ok(())
    }

    /// The audience that the subject token must have: `subject_audience` if configured, else the issuer.
    fn audience(&self, server: &AuthorizationServer, request: &Request) -> Audience {
        Audience::from(request.subject_audience.as_ref().map_or(server.issuer.as_str(), |named| named.at(server)))
    }

    /// Requests the token: one round trip to the token endpoint, no retry. `subject` is `Some` if [`Traits::subject`]
    /// requires one.
    async fn exchange(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error>;
}

/// A configured link of a chain: turns one subject token into another.
///
/// The result must be a JWT whose only audience is the next party; otherwise it could be replayed elsewhere.
#[async_trait]
pub(crate) trait LinkExchange: fmt::Debug + Send + Sync {
    /// As written in `exchange = "…"`; also the name of the hop.
    fn name(&self) -> &'static str;

    /// The provider whose fixed hosts it calls; `None` if the issuer is configured.
    fn provider(&self) -> Option<Provider> {
        None
    }

    /// Does the request state the type of the subject token, so that it need not be a JWT?
    fn takes_any_subject_type(&self) -> bool {
        false
    }

    /// Which of `extra` and `scopes` it sends.
    fn takes(&self) -> &'static [&'static str] {
        &[]
    }

    /// The values of its own keys that affect the request, for the cache key.
    fn fields(&self) -> Fields;

    /// Returns the client with this link's defaults for keys that are not configured.
    fn client(&self, client: Client) -> Client {
        client
    }

    /// Requests the new subject token: one attempt, no retry.
    async fn change(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: &SubjectToken,
        client: ResolvedClient,
        destination: &Destination<'_>,
    ) -> Result<SubjectToken, Error>;
}

/// The properties of an exchange that other modules depend on. They must use these instead of comparing its name.
#[derive(Clone, Debug)]
pub(crate) struct Traits {
    /// Which party it sends its request to.
    pub asks: Asks,
    /// Which kind of subject token it needs.
    pub subject: Subject,
    /// What it produces.
    pub gives: Gives,
    /// The grant type on the wire; empty if no token endpoint is called.
    pub grant: &'static str,
    /// Do `scopes` limit what the token can be used for?
    pub limits_scopes: bool,
    /// Must the issuer be pinned? Not necessary if the request contains only a JWT for that issuer, which is of no use
    /// to others.
    pub needs_pin: bool,
    /// Does it first call an identity provider (`idp`)?
    pub needs_idp: bool,
    /// The form parameters that it sends from its own keys. `extra` may not set them for this exchange, but may for
    /// others.
    pub own_parameters: &'static [&'static str],
}

impl Traits {
    /// The traits of a grant at a discovered or pinned authorization server, with a JWT as subject token.
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

/// Which party an exchange sends its request to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// The authorization server that is pinned, or that the MCP server names.
    Discovered,
    /// A provider's fixed hosts, regardless of what the MCP server names.
    Provider(Provider),
    /// None: the MCP server accepts the platform's own token.
    Nobody,
}

/// A provider with fixed hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Provider {
    /// The name of the provider in errors and in the audit log.
    pub issuer: Issuer,
    /// The URL of its token endpoint.
    pub token_endpoint: String,
    /// The default audience of the subject token. Only this provider accepts tokens with this audience.
    pub subject_audience: String,
    /// The role to assume, if any.
    pub role_arn: Option<String>,
}

/// Which kind of subject token an exchange needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// None.
    None,
    /// A JWT.
    Jwt,
    /// Any token: the request states its type.
    Named,
    /// None, unless the client authenticates with it.
    ProofOfClient,
}

/// What an exchange produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gives {
    /// A token that was issued to us.
    Token,
    /// The platform's own token. No authorization server issued it and it cannot be revoked.
    OwnToken,
    /// Credentials that sign each request.
    Signer,
}

/// The identity that an exchange will use, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdentityRef<'a> {
    /// Its name in the configuration.
    pub name: &'a str,
    /// The source; `None` if it is not detected yet.
    pub source: Option<&'a str>,
    /// Are there links between that source and the exchange?
    pub is_chain: bool,
}

/// Where the subject token that a link produces will be used.
pub(crate) struct Destination<'a> {
    /// The audience: the party that will receive the token.
    pub audience: &'a Audience,
    /// The MCP server that the token is for.
    pub resource: Option<&'a Resource>,
    /// The scopes that will be requested there.
    pub scopes: &'a Scopes,
    /// What the link's own request has beside that.
    pub parameters: &'a LinkParameters,
}

/// The form parameters that `extra` may not set, whichever exchange is configured.
pub(crate) fn reserved() -> Vec<&'static str> {
    EXCHANGES.iter().flat_map(|row| row.sets.iter().copied()).chain(form::SHARED).chain(["audience"]).collect()
}

/// The parameters of a token request that do not depend on the exchange.
#[derive(Clone, Default)]
pub(crate) struct Request {
    /// The resource (RFC 8707); `None` is not sent.
    pub resource: Option<Resource>,
    /// The scopes; an empty set is not sent.
    pub scopes: Scopes,
    /// The client and its proof.
    pub client: ResolvedClient,
    /// The key that the token will be bound to (RFC 9449).
    pub dpop: Option<Arc<dpop::Key>>,
    /// The `audience` parameter (RFC 8693 section 2.1; Auth0, Google).
    pub audience: Option<String>,
    /// The audience of the subject token, if it is not the issuer.
    pub subject_audience: Option<AssertionAudience>,
    /// Further form parameters.
    pub extra: Vec<(String, String)>,
    /// Further form parameters whose values are tokens of identities, made for this authorization server.
    pub assertions: Vec<(String, SubjectToken)>,
    /// The credentials of the workload's own role, if they sign the requests.
    pub aws_credentials: Option<crate::aws::Credentials>,
}

/// What was granted.
#[derive(Debug)]
pub(crate) struct Issued {
    /// The token or the signer.
    pub grant: Grant,
    /// The lifetime that the server states, if any.
    pub expires_in: Option<Duration>,
    /// The scopes that the server states; `None` means the requested ones (RFC 6749 section 5.1).
    pub scopes: Option<Scopes>,
}

/// A token, or a signer that replaces it.
#[derive(Debug)]
pub(crate) enum Grant {
    /// A token.
    Token(AccessToken),
    /// No token: each request is signed with this.
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

/// A signer and the session that it signs for.
#[derive(Debug)]
pub(crate) struct Signed {
    /// Signs requests with the session's credentials.
    pub signer: Arc<Signer>,
    /// The ARN of the role's session, if known.
    pub arn: Option<String>,
}

/// Selects the exchange: the configured one; else `jwt-bearer` if the server lists it, or if the server lists no grants
/// and the operator pinned the issuer. `None` means that the exchange has to be configured.
pub(crate) fn choose<'a>(
    configured: Option<&'a dyn Exchange>,
    server: &AuthorizationServer,
    pinned: IssuerOrigin,
) -> Option<&'a dyn Exchange> {
    if configured.is_some() {
        return configured;
    }
    match (server.offers(DEFAULT_EXCHANGE.traits().grant), pinned) {
        (Some(true), _) | (None, IssuerOrigin::Pinned) => Some(DEFAULT_EXCHANGE),
        _ => None,
    }
}

/// The exchanges for grants that a server lists and that are never chosen from metadata, each with the keys that it needs.
pub(crate) fn for_grants(listed: &[String]) -> impl Iterator<Item = (&'static str, &'static str)> {
    const WAYS: [(&str, &str, &str); 2] = [
        (client_credentials::GRANT, "client-credentials", "`client_auth = \"workload\"`, `client_id` and `issuer`"),
        (token_exchange::GRANT, "token-exchange", "`issuer`"),
    ];
    WAYS.into_iter().filter(|(grant, ..)| listed.iter().any(|one| one == grant)).map(|(_, name, keys)| (name, keys))
}

/// Is this an issuer of Microsoft Entra, in any of its clouds?
pub(crate) fn is_entra(issuer: &Issuer) -> bool {
    Cloud::is_issuer(issuer.as_str())
}

/// How the issuer was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IssuerOrigin {
    /// The operator pinned it for this server.
    Pinned,
    /// The server names it and it is in the operator's list.
    Listed,
    /// The server names it; the operator configured nothing.
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

    fn chosen(configured: Option<&'static str>, grants: Option<&[&str]>, pinned: IssuerOrigin) -> Option<&'static str> {
        let configured = configured.map(|name| jwt_bearer::JwtBearer { name });
        let configured = configured.as_ref().map(|one| one as &dyn Exchange);
        choose(configured, &server(grants), pinned).map(Exchange::name)
    }

    const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

    #[test]
    fn only_jwt_bearer_is_ever_chosen_from_metadata() {
        assert_eq!(chosen(None, Some(&[JWT_BEARER]), IssuerOrigin::Discovered), Some("jwt-bearer"));
        assert_eq!(chosen(None, Some(&["client_credentials"]), IssuerOrigin::Pinned), None);
        assert_eq!(chosen(None, Some(&[]), IssuerOrigin::Pinned), None);
    }

    #[test]
    fn silence_about_grants_is_enough_only_with_a_pin() {
        assert_eq!(chosen(None, None, IssuerOrigin::Pinned), Some("jwt-bearer"));
        assert_eq!(chosen(None, None, IssuerOrigin::Listed), None);
        assert_eq!(chosen(None, None, IssuerOrigin::Discovered), None);
    }

    #[test]
    fn a_configured_exchange_overrules_the_metadata() {
        assert_eq!(
            chosen(Some("jwt-bearer"), Some(&["client_credentials"]), IssuerOrigin::Discovered),
            Some("jwt-bearer")
        );
    }
}
