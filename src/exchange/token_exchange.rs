//! `token-exchange`: exchanges the workload's JWT for an access token (RFC 8693).
//!
//! For identity providers, gateways and security token services. `audience` names the target if the server requires a
//! logical name with or instead of `resource`. The result must be an access token: an answer with another
//! `issued_token_type` is not a bearer token, although it is in the field `access_token` (section 2.2.1).
//!
//! As a link of a chain: a security token service exchanges the identity for a JWT that the next party accepts.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Deserialize;

use super::answer;
use super::{
    Descriptor, Destination, Error, Exchange, Form, Issued, LinkExchange, Request, ResolvedClient, Subject,
    TokenEndpoint, Traits,
};
use crate::digest::Fields;
use crate::oauth::quoted_words;
use crate::outbound::Answer;
use crate::setting::{self, Given, Setting};
use crate::token::{JWT, SubjectToken};

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "token-exchange",
    sets: &["subject_token", "subject_token_type", "requested_token_type", "actor_token", "actor_token_type"],
    of_server: Some(Form { settings: &[], check: |_| Vec::new(), from_config: |_| Ok(Arc::new(TokenExchange)) }),
    of_link: Some(Form {
        settings: &[SUBJECT_TOKEN_TYPE],
        check: |_| Vec::new(),
        from_config: |table| Ok(Arc::new(TokenService::of(EXCHANGE.name, &table.given, Requested::Jwt))),
    }),
};

pub(super) const SUBJECT_TOKEN_TYPE: Setting = Setting::optional(
    "subject_token_type",
    setting::Kind::Text,
    "what goes in: \"jwt\", \"id_token\" or \"access_token\".",
)
.like("\"jwt\"")
.checked(|text| match SubjectType::parse(text) {
    Some(_) => Ok(()),
    None => Err("is not known; there are: jwt, id_token, access_token".to_owned()),
});

pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

#[derive(Debug)]
struct TokenExchange;

#[async_trait]
impl Exchange for TokenExchange {
    fn name(&self) -> &'static str {
        EXCHANGE.name
    }

    fn traits(&self) -> Traits {
        Traits { subject: Subject::Named, needs_pin: true, ..Traits::of_grant(GRANT) }
    }

    async fn exchange(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        // Not `access_token`: the subject token is an identity (section 3).
        let (subject, kind) = subject.map_or(("", JWT), |subject| (subject.expose(), subject.token_type()));
        let own = [("subject_token", subject), ("subject_token_type", kind), ("requested_token_type", ACCESS_TOKEN)];
        let answer = endpoint.ask(GRANT, &own, request).await?;
        let issued = answer::read(&endpoint.server.issuer, &answer, request)?;
        // The server may call an access token that is a JWT by either type (section 3).
        of_type(&answer, &[ACCESS_TOKEN, JWT]).map_err(|what| endpoint.malformed(what))?;
        Ok(issued)
    }
}

/// A link of a chain: a security token service, or the identity provider that issues an ID-JAG.
#[derive(Debug)]
pub(super) struct TokenService {
    name: &'static str,
    subject_type: SubjectType,
    issues: Requested,
}

/// The type of token that a link requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requested {
    /// A JWT for the next party.
    Jwt,
    /// An ID-JAG. It states the resource and the scopes that it is valid for.
    IdJag,
}

impl Requested {
    fn as_uri(self) -> &'static str {
        match self {
            Self::Jwt => JWT,
            Self::IdJag => "urn:ietf:params:oauth:token-type:id-jag",
        }
    }
}

impl TokenService {
    /// The link of the exchange `name`.
    pub(super) fn of(name: &'static str, given: &Given<'_>, issues: Requested) -> Self {
        Self { name, subject_type: SubjectType::of(given), issues }
    }
}

#[async_trait]
impl LinkExchange for TokenService {
    fn name(&self) -> &'static str {
        self.name
    }

    fn takes_any_subject_type(&self) -> bool {
        true
    }

    fn fields(&self) -> Fields {
        Fields::default().text(self.subject_type.as_uri())
    }

    async fn change(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: &SubjectToken,
        client: ResolvedClient,
        destination: &Destination<'_>,
    ) -> Result<SubjectToken, Error> {
        let mut request = Request { client, audience: Some(destination.audience.to_string()), ..Request::default() };
        if self.issues == Requested::IdJag {
            request.resource = destination.resource.cloned();
            request.scopes = destination.scopes.clone();
        }
        changed(endpoint, subject, self, &request).await
    }
}

/// The type of a subject token (section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SubjectType {
    /// A JWT that is an assertion.
    #[default]
    Jwt,
    /// An OpenID Connect ID token.
    IdToken,
    /// An access token of the same server.
    AccessToken,
}

impl SubjectType {
    /// The configured type, or the default.
    fn of(given: &Given<'_>) -> Self {
        given.text(&SUBJECT_TOKEN_TYPE).and_then(Self::parse).unwrap_or_default()
    }

    fn parse(name: &str) -> Option<Self> {
        match name {
            "jwt" => Some(Self::Jwt),
            "id_token" => Some(Self::IdToken),
            "access_token" => Some(Self::AccessToken),
            _ => None,
        }
    }

    fn as_uri(self) -> &'static str {
        match self {
            Self::Jwt => JWT,
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
            Self::AccessToken => ACCESS_TOKEN,
        }
    }
}

/// Exchanges a subject token for one of the requested type. Fails if the server issues another type.
async fn changed(
    endpoint: &TokenEndpoint<'_>,
    subject: &SubjectToken,
    service: &TokenService,
    request: &Request,
) -> Result<SubjectToken, Error> {
    let wanted = service.issues.as_uri();
    let subject_type = if subject.is_jwt() { service.subject_type.as_uri() } else { subject.token_type() };
    let own =
        [("subject_token", subject.expose()), ("subject_token_type", subject_type), ("requested_token_type", wanted)];
    let answer = endpoint.ask(GRANT, &own, request).await?;
    if answer.status != 200 {
        return Err(answer::failed(&endpoint.server.issuer, answer.status, &answer));
    }
    of_type(&answer, &[wanted]).map_err(|what| endpoint.malformed(what))?;
    #[derive(Deserialize)]
    struct Wire {
        /// The issued token, whatever its type (section 2.2.1).
        access_token: SecretString,
    }
    let wire: Wire = answer.json().map_err(|what| endpoint.malformed(what.to_owned()))?;
    SubjectToken::parse(wire.access_token).map_err(|error| endpoint.malformed(format!("what it issued is {error}")))
}

/// Checks that the type of the issued token is one of `wanted`.
fn of_type(answer: &Answer, wanted: &[&str]) -> Result<(), String> {
    match answer.members()?.text("issued_token_type")? {
        Some(kind) if wanted.contains(&kind.as_str()) => Ok(()),
        Some(kind) => Err(format!("its issued_token_type is {:?}, not {}", quoted_words(&kind), wanted[0])),
        None => Err("it has no issued_token_type (RFC 8693 section 2.2.1)".to_owned()),
    }
}
