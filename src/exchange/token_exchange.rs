//! `token-exchange`: exchanges the workload's JWT for an access token (RFC 8693).
//!
//! For identity providers, gateways and security token services. `audience` names the target if the server requires a
//! logical name with or instead of `resource`. The result must be an access token: an answer with another
//! `issued_token_type` is not a bearer token, although it is in the field `access_token` (section 2.2.1).
//!
//! As a link of a chain: a security token service exchanges the identity for a JWT that the next party accepts.
//!
//! Dex takes a platform's JWT as `id_token` alone, and wants to know which of its connectors trusts the platform:
//!
//! ```toml
//! exchange = "token-exchange"
//! subject_token_type = "id_token"
//! extra = { connector_id = "ci" }
//! ```

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Deserialize;

use super::answer;
use super::cure::Sent;
use super::{
    Descriptor, Destination, Error, Exchange, Form, Issued, LinkExchange, LinkParameters, Request, ResolvedClient,
    Subject, TokenEndpoint, Traits,
};
use crate::digest::Fields;
use crate::oauth::quoted_words;
use crate::outbound::Answer;
use crate::setting::{self, Given, Setting};
use crate::token::{JWT, SubjectToken};

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "token-exchange",
    sets: &["subject_token", "subject_token_type", "requested_token_type", "actor_token", "actor_token_type"],
    of_server: Some(Form {
        settings: &[SUBJECT_TOKEN_TYPE],
        check: |_| Vec::new(),
        from_config: |table| Ok(Arc::new(TokenExchange { subject_type: subject_type(&table.given) })),
    }),
    of_link: Some(Form {
        settings: &[SUBJECT_TOKEN_TYPE, REQUESTED_TOKEN_TYPE],
        check: |_| Vec::new(),
        from_config: |table| Ok(Arc::new(TokenService::of(EXCHANGE.name, &table.given))),
    }),
};

pub(super) const SUBJECT_TOKEN_TYPE: Setting = Setting::optional(
    "subject_token_type",
    setting::Kind::Text,
    "what goes in: \"jwt\", \"id_token\" or \"access_token\" (Dex wants \"id_token\"), or a URN.",
)
.like("\"jwt\"")
.checked(is_token_type);

const REQUESTED_TOKEN_TYPE: Setting = Setting::optional(
    "requested_token_type",
    setting::Kind::Text,
    "what comes out, a JWT in any case: \"jwt\", \"id_token\" or \"access_token\" (Dex has the last two), or a URN.",
)
.like("\"jwt\"")
.checked(is_token_type);

pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The types of tokens (section 3) that have a short name in the configuration.
const TYPES: [(&str, &str); 3] =
    [("jwt", JWT), ("id_token", "urn:ietf:params:oauth:token-type:id_token"), ("access_token", ACCESS_TOKEN)];

fn is_token_type(text: &str) -> Result<(), String> {
    let is_known = TYPES.iter().any(|(name, _)| *name == text);
    let is_urn = text.starts_with("urn:") && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_known || is_urn { Ok(()) } else { Err("is not known; there are: jwt, id_token, access_token".to_owned()) }
}

/// The whole name of a configured type; without one, that of a JWT.
fn token_type(written: Option<&str>) -> Cow<'static, str> {
    let Some(text) = written else { return JWT.into() };
    let known = TYPES.iter().find(|(name, _)| *name == text);
    known.map_or_else(|| text.to_owned().into(), |(_, whole)| (*whole).into())
}

fn subject_type(given: &Given<'_>) -> Cow<'static, str> {
    token_type(given.text(&SUBJECT_TOKEN_TYPE))
}

#[derive(Debug)]
struct TokenExchange {
    /// How a JWT is called that goes in.
    subject_type: Cow<'static, str>,
}

/// The type under which this token goes in. Whatever is no JWT has a type of its own.
fn called<'a>(subject: &'a SubjectToken, jwt: &'a str) -> &'a str {
    if subject.is_jwt() { jwt } else { subject.token_type() }
}

#[async_trait]
impl Exchange for TokenExchange {
    fn name(&self) -> &'static str {
        EXCHANGE.name
    }

    fn traits(&self) -> Traits {
        Traits { subject: Subject::Named, needs_pin: true, ..Traits::of_grant(GRANT) }
    }

    fn fields(&self) -> Fields {
        Fields::default().text(&self.subject_type)
    }

    async fn exchange(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        // By default not `access_token`: the subject token is an identity (section 3).
        let (subject, kind) =
            subject.map_or(("", JWT), |subject| (subject.expose(), called(subject, &self.subject_type)));
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
    /// How a JWT is called that goes in.
    subject_type: Cow<'static, str>,
    /// What is asked for: a JWT for the next party.
    issues: Cow<'static, str>,
}

/// An ID-JAG. It states the resource and the scopes that it is valid for.
const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";

impl TokenService {
    /// The link of the exchange `name`.
    fn of(name: &'static str, given: &Given<'_>) -> Self {
        let issues = token_type(given.text(&REQUESTED_TOKEN_TYPE));
        Self { name, subject_type: subject_type(given), issues }
    }

    /// The identity provider that issues an ID-JAG.
    pub(super) fn of_id_jags(name: &'static str, given: &Given<'_>) -> Self {
        Self { name, subject_type: subject_type(given), issues: ID_JAG.into() }
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

    fn takes(&self) -> &'static [&'static str] {
        // An ID-JAG is for the scopes that are asked for at the server.
        if self.issues == ID_JAG { &["extra"] } else { &["extra", "scopes"] }
    }

    fn fields(&self) -> Fields {
        Fields::default().text(&self.subject_type).text(&self.issues)
    }

    async fn change(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: &SubjectToken,
        client: ResolvedClient,
        destination: &Destination<'_>,
    ) -> Result<SubjectToken, Error> {
        let LinkParameters { scopes, extra } = destination.parameters;
        let (audience, scopes, extra) = (Some(destination.audience.to_string()), scopes.clone(), extra.clone());
        let mut request = Request { client, audience, scopes, extra, ..Request::default() };
        if self.issues == ID_JAG {
            request.resource = destination.resource.cloned();
            request.scopes = destination.scopes.clone();
        }
        changed(endpoint, subject, self, &request).await
    }
}

/// Exchanges a subject token for one of the requested type. Fails if the server issues another type.
async fn changed(
    endpoint: &TokenEndpoint<'_>,
    subject: &SubjectToken,
    service: &TokenService,
    request: &Request,
) -> Result<SubjectToken, Error> {
    let wanted = &*service.issues;
    let subject_type = called(subject, &service.subject_type);
    let own =
        [("subject_token", subject.expose()), ("subject_token_type", subject_type), ("requested_token_type", wanted)];
    let answer = endpoint.ask(GRANT, &own, request).await?;
    if answer.status != 200 {
        return Err(answer::failed(&endpoint.server.issuer, &answer, Sent::of(request)));
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
