//! One configured MCP server, and the key under which its tokens are cached.

use std::borrow::Borrow;
use std::sync::{Arc, OnceLock};

use super::{DEFAULT, Rate};
use crate::exchange::link::Link;
use crate::exchange::{self, Client, Provider};
use crate::oauth::{Issuer, Resource, Scopes, ServerUrl};
use crate::outbound::NamedBy;
use crate::policy::{Permit, Policy, Rule};
use crate::token::Digest;

/// What is asked for when somebody asks for this server.
#[derive(Clone, Debug)]
pub struct Server {
    /// As configured.
    pub name: Arc<str>,
    /// The MCP endpoint.
    pub url: ServerUrl,
    /// The pinned authorization server.
    pub issuer: Option<Issuer>,
    /// Use tokens of a merely discovered issuer even when they are not bound to this resource.
    pub trust_discovered_issuer: bool,
    /// Who may have what.
    pub policy: Policy,
    /// The configured exchange.
    pub exchange: Option<String>,
    /// The token endpoint of a pinned server that publishes no metadata.
    pub token_endpoint: Option<String>,
    /// Which of the identities is presented.
    pub identity: Arc<str>,
    /// Everything about that identity that reaches the wire, for the cache key.
    pub identity_fields: Vec<String>,
    /// The OAuth client that we are, and its proof.
    pub client: Client,
    /// What the exchange of a provider needs.
    pub provider: Option<Provider>,
    /// The identity provider that says what we may have there.
    pub idp: Option<Link>,
    /// Bind tokens to a key; `None` where the server requires it.
    pub dpop: Option<bool>,
    /// The `audience` parameter of the token request.
    pub audience: Option<String>,
    /// The audience of the subject token.
    pub subject_audience: Option<String>,
    /// The `resource` parameter.
    pub resource: ResourceParameter,
    /// Further form parameters.
    pub extra: Vec<(String, String)>,
    /// Readiness waits for it.
    pub required: bool,
    /// At shutdown what is held for it is revoked.
    pub revoke_on_exit: bool,
    /// How often each user may ask for it.
    pub rate: Option<Rate>,
    /// The front door before it, which wants a credential of its own.
    pub outer: Option<Outer>,
    /// It is such a front door: no URL leads to it.
    pub is_outer: bool,
    /// Who named its URL: the operator, or a caller of a daemon that serves unlisted servers.
    pub(crate) named_by: NamedBy,
    /// The key of what nearly everybody asks for.
    pub(crate) usual_key: OnceLock<Digest>,
}

/// A front door before a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    /// The field of the header that its token goes into.
    pub header: String,
    /// The server that stands for it.
    pub server: Arc<str>,
}

/// What to send as `resource` (RFC 8707).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceParameter {
    /// From the server's metadata, byte for byte; without metadata the configured URL.
    FromMetadata,
    /// This, whatever the metadata says.
    Fixed(Resource),
    /// Nothing: some servers refuse the parameter.
    Omitted,
}

/// The server that a URL belongs to: of those that cover it, the one whose own URL is the narrowest, however either is
/// spelled.
pub(crate) fn narrowest<'a, S: Borrow<Server>>(servers: impl Iterator<Item = &'a S>, url: &ServerUrl) -> Option<&'a S> {
    servers
        .filter(|one| !(*one).borrow().is_outer && (*one).borrow().url.covers(url))
        .max_by_key(|one| (*one).borrow().url.depth())
}

/// The configured server beside which an unconfigured URL lies. On its origin a spelling or path that its own URL does
/// not cover must not get round its policy, so nothing else is served there, by the daemon or by one command.
pub(crate) fn beside<'a, S: Borrow<Server>>(
    mut servers: impl Iterator<Item = &'a S>,
    url: &ServerUrl,
) -> Option<&'a S> {
    servers.find(|one| !(*one).borrow().is_outer && (*one).borrow().url.same_origin(url))
}

impl Server {
    /// A server of which the URL alone is known: everything else is discovered.
    pub(crate) fn discovered(name: Arc<str>, url: ServerUrl, allow: Vec<Rule>) -> Self {
        Self {
            name,
            url,
            issuer: None,
            trust_discovered_issuer: false,
            policy: Policy { allow, ceiling: None, tolerate: Scopes::default() },
            exchange: None,
            token_endpoint: None,
            identity: DEFAULT.into(),
            identity_fields: Vec::new(),
            client: Client::default(),
            provider: None,
            idp: None,
            dpop: None,
            audience: None,
            subject_audience: None,
            resource: ResourceParameter::FromMetadata,
            extra: Vec::new(),
            required: false,
            revoke_on_exit: false,
            rate: None,
            outer: None,
            is_outer: false,
            named_by: NamedBy::Us,
            usual_key: OnceLock::new(),
        }
    }

    /// The front door before it, among all servers.
    pub(super) fn door<'a>(&self, servers: &'a [Arc<Self>]) -> Option<&'a Arc<Self>> {
        let outer = self.outer.as_ref()?;
        servers.iter().find(|one| one.name == outer.server)
    }

    /// The cache key: everything of ours that reaches the wire, each field with its length. What discovery finds
    /// belongs to the flight: when it changes, the next flight's token takes the place of the last.
    pub fn key(&self, permit: &Permit) -> Digest {
        let own_ceiling = match (permit.ceiling(), &self.policy.ceiling) {
            (None, None) => true,
            (Some(one), Some(other)) => one.is_same(other),
            _ => false,
        };
        if own_ceiling && permit.ask.is_none() {
            return *self.usual_key.get_or_init(|| self.digest(permit));
        }
        self.digest(permit)
    }

    fn digest(&self, permit: &Permit) -> Digest {
        let set = |set: Option<&Scopes>| set.map_or_else(|| "*".to_owned(), |set| format!("={set}"));
        let resource = match &self.resource {
            ResourceParameter::FromMetadata => "*".to_owned(),
            ResourceParameter::Fixed(resource) => format!("={resource}"),
            ResourceParameter::Omitted => String::new(),
        };
        let (ask, ceiling) = (set(permit.ask.as_ref()), set(permit.ceiling()));
        let text = |text: &Option<String>| text.as_ref().map_or_else(|| "*".to_owned(), |text| format!("={text}"));
        let (exchange, endpoint) = (text(&self.exchange), text(&self.token_endpoint));
        let idp = self.idp.as_ref().map(Link::fields).unwrap_or_default();
        let (audience, subject_audience) = (text(&self.audience), text(&self.subject_audience));
        // Each list is one field, so that no value can move from one to the next; none of them can hold a zero.
        let provider = self.provider.as_ref().map(Provider::fields).unwrap_or_default();
        let lists = [self.client.fields(), idp, provider, self.identity_fields.clone()].map(|list| list.join("\u{0}"));
        let fixed = [
            &*self.name,
            self.url.as_str(),
            self.issuer.as_ref().map_or("", Issuer::as_str),
            if self.trust_discovered_issuer { "trusts" } else { "" },
            &resource,
            &ask,
            &ceiling,
            &exchange,
            &endpoint,
            &audience,
            &subject_audience,
            &self.identity,
            self.dpop.map_or("", |required| if required { "bound" } else { "bearer" }),
        ];
        let extra = self.extra.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let all = fixed.into_iter().chain(lists.iter().map(String::as_str)).chain(extra);
        Digest::of_fields(all.map(str::as_bytes))
    }

    /// The exchange as far as it is known without the server's metadata: the configured one, or the only one ever chosen.
    pub(super) fn expected_exchange(&self) -> Option<&'static exchange::Descriptor> {
        exchange::row(self.exchange.as_deref().unwrap_or("jwt-bearer"))
    }

    /// Is the workload's identity presented, as grant or as proof of the client?
    pub(crate) fn needs_subject(&self) -> bool {
        !self.signs_as_itself()
            && self.expected_exchange().is_none_or(|row| row.exchange.needs_subject(self.client.auth))
    }

    /// May the identity be something else than a JWT?
    pub(crate) fn names_its_subject(&self) -> bool {
        self.client.auth != exchange::ClientAuth::Workload
            && self.expected_exchange().is_some_and(|row| row.exchange.names_its_subject())
    }

    /// Are requests signed with the workload's own role?
    pub(crate) fn signs_as_itself(&self) -> bool {
        self.provider.as_ref().is_some_and(Provider::signs_as_itself)
    }

    /// Is anything of the identity needed, its certificate included?
    pub(crate) fn needs_identity(&self) -> bool {
        let by_certificate = self.client.auth == exchange::ClientAuth::MutualTls;
        self.needs_subject() || self.signs_as_itself() || (by_certificate && self.client.certificate_file.is_none())
    }
}
