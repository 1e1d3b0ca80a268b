//! A link of a chain: one subject token becomes another, by token exchange at somebody who is trusted on both sides
//! (RFC 8693). An identity provider's ID-JAG is one; a security token service in front of the authorization server is
//! another.
//!
//! A provider's own way (an AWS role, an Entra application, a Google pool) is a link as well ([`Provider`]).
//!
//! The issuer of a link is always configured: an identity goes to nobody that a server named. What comes back must be a
//! JWT made for the next party alone, or it would be good for others as well.

use serde::Deserialize;

use super::client_auth::{Client, ClientAuth};
use super::provider::Provider;
use super::{Error, Request, Way, answer, entra, gcp, token_exchange};
use crate::digest::Fields;
use crate::oauth::{Audience, Issuer, Resource, Scopes};
use crate::token::{JWT, SubjectToken};
use secrecy::SecretString;

/// What changes an identity, as written in `exchange = "…"` of a link.
pub(crate) const CHANGES: &[&str] =
    &["token-exchange", entra::EXCHANGE.name, gcp::EXCHANGE.name, super::aws_role::NAME];

/// One link, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who changes the token.
    pub issuer: Issuer,
    /// Its token endpoint, where it publishes no metadata.
    pub token_endpoint: Option<String>,
    /// The OAuth client that we are there.
    pub client: Client,
    /// The `subject_token_type` of what goes in.
    pub subject_token_type: SubjectType,
    /// The audience of what goes in, when it is not the issuer.
    pub subject_audience: Option<String>,
    /// What comes out.
    pub yields: Yield,
    /// Whose own way it goes; `None` is token exchange.
    pub provider: Option<Provider>,
}

/// What a link turns a subject token into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yield {
    /// A JWT for the next party.
    Jwt,
    /// An ID-JAG: the same, and it says for which resource and scopes.
    IdJag,
}

impl Yield {
    /// The step, as the hop of a chain.
    fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "token-exchange",
            Self::IdJag => "id-jag",
        }
    }

    fn token_type(self) -> &'static str {
        match self {
            Self::Jwt => JWT,
            Self::IdJag => "urn:ietf:params:oauth:token-type:id-jag",
        }
    }
}

/// What a subject token is called in a token exchange (RFC 8693 section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubjectType {
    /// A JWT that is an assertion.
    #[default]
    Jwt,
    /// An OpenID Connect ID token.
    IdToken,
    /// An access token of that very server.
    AccessToken,
}

impl SubjectType {
    /// As written in the configuration.
    pub const ALL: [(&str, Self); 3] =
        [("jwt", Self::Jwt), ("id_token", Self::IdToken), ("access_token", Self::AccessToken)];

    /// The one of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    fn as_uri(self) -> &'static str {
        match self {
            Self::Jwt => JWT,
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
            Self::AccessToken => "urn:ietf:params:oauth:token-type:access_token",
        }
    }
}

impl Link {
    /// For whom the token that goes in must be made.
    pub(crate) fn audience(&self) -> Audience {
        Audience::from(self.subject_audience.as_deref().unwrap_or(self.issuer.as_str()))
    }

    /// May what goes in be something else than a JWT?
    pub(crate) fn names_its_subject(&self) -> bool {
        self.client.auth != ClientAuth::Workload && matches!(self.provider, None | Some(Provider::Gcp(_)))
    }

    /// The step, as the hop of a chain.
    pub(crate) fn step(&self) -> &'static str {
        self.provider.as_ref().map_or(self.yields.as_str(), Provider::exchange)
    }

    /// Everything of it that reaches the wire, for the cache key.
    pub(crate) fn fields(&self) -> Fields {
        let Self { issuer, token_endpoint, client, subject_token_type, subject_audience, yields, provider } = self;
        Fields::default()
            .text(issuer.as_str())
            .option(token_endpoint.as_deref())
            .group(&client.fields())
            .text(subject_token_type.as_uri())
            .option(subject_audience.as_deref())
            .text(yields.token_type())
            .option_group(provider.as_ref().map(Provider::fields).as_ref())
    }
}

/// What the token that comes out is for.
pub(crate) struct Destination<'a> {
    /// The next party.
    pub audience: &'a Audience,
    /// The MCP server.
    pub resource: Option<&'a Resource>,
    /// What will be asked for there.
    pub scopes: &'a Scopes,
}

/// Changes a subject token. One round trip, no retry.
pub(crate) async fn change(
    way: &Way<'_>,
    link: &Link,
    subject: &SubjectToken,
    client: super::Identified,
    destination: &Destination<'_>,
) -> Result<SubjectToken, Error> {
    if let Some(provider) = &link.provider {
        return provider.change(way, subject, client, destination).await;
    }
    let is_jag = link.yields == Yield::IdJag;
    let request = Request {
        client,
        audience: Some(destination.audience.to_string()),
        // Another link's token is for the next party whole; an ID-JAG says what it is good for there.
        resource: destination.resource.filter(|_| is_jag).cloned(),
        scopes: if is_jag { destination.scopes.clone() } else { Scopes::default() },
        ..Request::default()
    };
    let wanted = link.yields.token_type();
    let own = [
        ("subject_token", subject.expose()),
        ("subject_token_type", if subject.is_jwt() { link.subject_token_type.as_uri() } else { subject.token_type() }),
        ("requested_token_type", wanted),
    ];
    let answer = way.ask(token_exchange::EXCHANGE.grant, &own, &request).await?;
    if answer.status != 200 {
        return Err(answer::failed(&way.server.issuer, answer.status, &answer));
    }
    token_exchange::of_type(&answer, &[wanted]).map_err(|what| way.malformed(what))?;
    #[derive(Deserialize)]
    struct Wire {
        /// Whatever was issued, access token or not (RFC 8693 section 2.2.1).
        access_token: SecretString,
    }
    let wire: Wire = answer.json().map_err(|what| way.malformed(what.to_owned()))?;
    SubjectToken::parse(wire.access_token).map_err(|error| way.malformed(format!("what it issued is {error}")))
}
