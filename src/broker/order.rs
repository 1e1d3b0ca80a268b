//! Orders: what the configuration says about a token request. A server has one, and its front door has another.

use std::sync::{Arc, OnceLock};

use super::DEFAULT;
use crate::digest::{Digest, Fields};
use crate::exchange::{Asks, AssertionAudience, Client, ClientAuth, DEFAULT_EXCHANGE, Exchange, Gives, Link, Subject};
use crate::oauth::{Issuer, Resource};

/// What to ask for, at which authorization server, and with which client and identity.
#[derive(Clone, Debug)]
pub struct Order {
    /// The name of the server or front door. It identifies the tokens and failures of this order.
    pub name: Arc<str>,
    /// Are its tokens for the server or for the front door?
    pub opens: TokenFor,
    /// The authorization server, if the operator named it.
    pub pin: Option<Pin>,
    /// The configured exchange; `None` leaves the choice to the broker.
    pub(crate) exchange: Option<Arc<dyn Exchange>>,
    /// The name of the identity that is presented.
    pub identity: Arc<str>,
    /// Everything about that identity that requests depend on, for the cache key.
    pub identity_fields: Fields,
    /// Our OAuth client and how it authenticates.
    pub client: Client,
    /// The identity provider that first exchanges the subject token for one that the authorization server accepts
    /// (`idp`).
    pub idp: Option<Link>,
    /// Bind tokens to a key (DPoP)? `None` does so if the server requires it.
    pub dpop: Option<bool>,
    /// The `audience` parameter of the token request.
    pub audience: Option<String>,
    /// The audience of the subject token; `None` is the issuer.
    pub subject_audience: Option<AssertionAudience>,
    /// The `resource` parameter.
    pub resource: ResourceParameter,
    /// Further form parameters.
    pub extra: Vec<(String, String)>,
    /// The cache key for callers that name no scopes, computed once.
    pub(crate) usual_key: OnceLock<Digest>,
}

/// The authorization server that the operator named, and what is sent to it alone.
#[derive(Clone, Debug)]
pub struct Pin {
    /// Its identifier.
    pub issuer: Issuer,
    /// Its token endpoint, if it publishes no metadata.
    pub token_endpoint: Option<String>,
    /// Further form parameters that are tokens of identities.
    pub assertions: Vec<Assertion>,
}

/// A further form parameter whose value is a token of an identity, made for the pinned issuer.
#[derive(Clone, Debug)]
pub struct Assertion {
    /// The parameter's name.
    pub parameter: String,
    /// The identity.
    pub identity: Arc<str>,
    /// Everything about that identity that requests depend on, for the cache key.
    pub identity_fields: Fields,
}

/// What a token gives access to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFor {
    /// The MCP server.
    Server,
    /// A front door before it.
    FrontDoor,
}

/// What to send as `resource` (RFC 8707).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceParameter {
    /// From the server's metadata, byte for byte; without metadata the configured URL.
    FromMetadata,
    /// This value, whatever the metadata says.
    Fixed(Resource),
    /// Not sent: some servers refuse the parameter.
    Omitted,
}

impl Assertion {
    /// A token of the identity of this name.
    pub(crate) fn of(parameter: &str, identity: &str) -> Self {
        Self { parameter: parameter.to_owned(), identity: identity.into(), identity_fields: Fields::default() }
    }

    fn fields(&self) -> Fields {
        let Self { parameter, identity, identity_fields } = self;
        Fields::default().text(parameter).text(identity).group(identity_fields)
    }
}

impl Pin {
    fn fields(&self) -> Fields {
        let Self { issuer, token_endpoint, assertions } = self;
        let assertions = assertions.iter().fold(Fields::default(), |all, one| all.group(&one.fields()));
        Fields::default().text(issuer.as_str()).option(token_endpoint.as_deref()).group(&assertions)
    }
}

impl Order {
    /// An order without configuration: everything is discovered.
    pub(crate) fn discovered(name: Arc<str>) -> Self {
        Self {
            name,
            opens: TokenFor::Server,
            pin: None,
            exchange: None,
            identity: DEFAULT.into(),
            identity_fields: Fields::default(),
            client: Client::default(),
            idp: None,
            dpop: None,
            audience: None,
            subject_audience: None,
            resource: ResourceParameter::FromMetadata,
            extra: Vec::new(),
            usual_key: OnceLock::new(),
        }
    }

    /// Everything in it that requests depend on, for the cache key.
    pub(super) fn fields(&self) -> Fields {
        let Self {
            name,
            pin,
            exchange,
            identity,
            identity_fields,
            client,
            idp,
            dpop,
            audience,
            subject_audience,
            resource,
            extra,
            // A server and its front door already differ by name.
            opens: _,
            usual_key: _,
        } = self;
        let resource = match resource {
            ResourceParameter::FromMetadata => Fields::default().text("from metadata"),
            ResourceParameter::Fixed(resource) => Fields::default().text("fixed").text(resource.as_str()),
            ResourceParameter::Omitted => Fields::default().text("omitted"),
        };
        let own = |exchange: &dyn Exchange| Fields::default().text(exchange.name()).group(&exchange.fields());
        let dpop = dpop.map(|bound| if bound { "bound" } else { "bearer" });
        Fields::default()
            .text(name)
            .option_group(pin.as_ref().map(Pin::fields).as_ref())
            .option_group(exchange.as_deref().map(own).as_ref())
            .text(identity)
            .group(identity_fields)
            .group(&client.fields())
            .option_group(idp.as_ref().map(Link::fields).as_ref())
            .option(dpop)
            .option(audience.as_deref())
            .option(subject_audience.as_ref().map(AssertionAudience::as_str))
            .group(&resource)
            .list(extra.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]))
    }

    /// In which way an identity token is presented: as what, and by which client. Another way may be taken where this one is
    /// refused.
    pub(super) fn way(&self) -> Fields {
        let exchange = self.expected();
        let extra = self.extra.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        Fields::default().text(exchange.name()).group(&exchange.fields()).group(&self.client.fields()).list(extra)
    }

    /// The pinned authorization server.
    pub fn issuer(&self) -> Option<&Issuer> {
        self.pin.as_ref().map(|pin| &pin.issuer)
    }

    /// Pins this issuer. Keeps the other values of an existing pin.
    pub(crate) fn pin_to(&mut self, issuer: &Issuer) {
        let new = || Pin { issuer: issuer.clone(), token_endpoint: None, assertions: Vec::new() };
        self.pin.get_or_insert_with(new).issuer = issuer.clone();
    }

    /// The token endpoint of a pinned authorization server that publishes no metadata.
    pub(crate) fn token_endpoint(&self) -> Option<&str> {
        self.pin.as_ref()?.token_endpoint.as_deref()
    }

    /// The audience of the subject token, if the configuration spells it out.
    pub(crate) fn named_audience(&self) -> Option<&str> {
        match self.subject_audience.as_ref()? {
            AssertionAudience::Fixed(text) => Some(text),
            AssertionAudience::Issuer | AssertionAudience::TokenEndpoint => None,
        }
    }

    /// The further form parameters that are tokens of identities.
    pub(crate) fn assertions(&self) -> &[Assertion] {
        self.pin.as_ref().map_or(&[], |pin| &pin.assertions)
    }

    /// The exchange to expect before any metadata is read: the configured one, or the only one that the broker chooses
    /// by itself.
    pub(crate) fn expected(&self) -> &dyn Exchange {
        self.exchange.as_deref().unwrap_or(DEFAULT_EXCHANGE)
    }

    /// Is a subject token needed, as grant or for client authentication?
    pub(crate) fn needs_subject(&self) -> bool {
        match self.expected().traits().subject {
            Subject::None => false,
            Subject::Jwt | Subject::Named => true,
            Subject::ProofOfClient => self.client.auth == ClientAuth::Workload,
        }
    }

    /// May the subject token be something other than a JWT?
    pub(crate) fn takes_any_subject_type(&self) -> bool {
        self.client.auth != ClientAuth::Workload && self.expected().traits().subject == Subject::Named
    }

    /// Are requests signed with the credentials of the workload's own AWS role?
    pub(crate) fn signs_with_own_role(&self) -> bool {
        let traits = self.expected().traits();
        traits.gives == Gives::Signer && traits.subject == Subject::None
    }

    /// Is the MCP server asked for its authorization server?
    pub(crate) fn is_discovered(&self) -> bool {
        self.expected().traits().asks == Asks::Discovered
    }

    /// Is this identity needed, for the grant, the client or a further parameter?
    pub(crate) fn needs(&self, identity: &str) -> bool {
        let of_assertion = self.assertions().iter().any(|assertion| *assertion.identity == *identity);
        of_assertion || (*self.identity == *identity && self.needs_identity())
    }

    /// Is the identity needed for anything: its token, its AWS credentials or its certificate?
    fn needs_identity(&self) -> bool {
        let by_certificate = self.client.auth == ClientAuth::MutualTls;
        self.needs_subject() || self.signs_with_own_role() || (by_certificate && self.client.certificate_file.is_none())
    }
}
