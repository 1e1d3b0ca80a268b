//! One configured MCP server, and the key under which its tokens are cached.

use std::borrow::Borrow;
use std::sync::{Arc, OnceLock};

use super::{DEFAULT, Rate};
use crate::digest::{Digest, Fields};
use crate::exchange::{Asks, Client, ClientAuth, Exchange, Gives, Link, Subject, USUAL};
use crate::oauth::{Issuer, Resource, Scopes, ServerUrl};
use crate::outbound::NamedBy;
use crate::policy::{Permit, Policy, Rule};

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
    pub(crate) exchange: Option<Arc<dyn Exchange>>,
    /// The token endpoint of a pinned server that publishes no metadata.
    pub token_endpoint: Option<String>,
    /// Which of the identities is presented.
    pub identity: Arc<str>,
    /// Everything about that identity that reaches the wire, for the cache key.
    pub identity_fields: Fields,
    /// The OAuth client that we are, and its proof.
    pub client: Client,
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
            identity_fields: Fields::default(),
            client: Client::default(),
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

    /// The cache key: everything of ours that reaches the wire, each field with its length. It contains nothing that
    /// discovery finds: when that changes, the next flight's token replaces the last.
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
        let Self {
            name,
            url,
            issuer,
            trust_discovered_issuer,
            exchange,
            token_endpoint,
            identity,
            identity_fields,
            client,
            idp,
            dpop,
            audience,
            subject_audience,
            resource,
            extra,
            // The permit says what the policy makes of this caller's scopes.
            policy: _,
            // Nothing below reaches the wire.
            required: _,
            revoke_on_exit: _,
            rate: _,
            outer: _,
            is_outer: _,
            named_by: _,
            usual_key: _,
        } = self;
        let resource = match resource {
            ResourceParameter::FromMetadata => Fields::default().text("from metadata"),
            ResourceParameter::Fixed(resource) => Fields::default().text("fixed").text(resource.as_str()),
            ResourceParameter::Omitted => Fields::default().text("omitted"),
        };
        let own = |exchange: &dyn Exchange| Fields::default().text(exchange.name()).group(&exchange.fields());
        let scopes = |scopes: Option<&Scopes>| scopes.map(ToString::to_string);
        let dpop = dpop.map(|bound| if bound { "bound" } else { "bearer" });
        Fields::default()
            .text(name)
            .text(url.as_str())
            .option(issuer.as_ref().map(Issuer::as_str))
            .flag(*trust_discovered_issuer)
            .option_group(exchange.as_deref().map(own).as_ref())
            .option(token_endpoint.as_deref())
            .text(identity)
            .group(identity_fields)
            .group(&client.fields())
            .option_group(idp.as_ref().map(Link::fields).as_ref())
            .option(dpop)
            .option(audience.as_deref())
            .option(subject_audience.as_deref())
            .group(&resource)
            .list(extra.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]))
            .option(scopes(permit.ask.as_ref()).as_deref())
            .option(scopes(permit.ceiling()).as_deref())
            .digest()
    }

    /// The exchange as far as it is known without the server's metadata: the configured one, or the only one ever chosen.
    pub(crate) fn expected(&self) -> &dyn Exchange {
        self.exchange.as_deref().unwrap_or(USUAL)
    }

    /// Is the workload's identity presented, as grant or as proof of the client?
    pub(crate) fn needs_subject(&self) -> bool {
        match self.expected().traits().subject {
            Subject::None => false,
            Subject::Jwt | Subject::Named => true,
            Subject::ProofOfClient => self.client.auth == ClientAuth::Workload,
        }
    }

    /// May the identity be something else than a JWT?
    pub(crate) fn names_its_subject(&self) -> bool {
        self.client.auth != ClientAuth::Workload && self.expected().traits().subject == Subject::Named
    }

    /// Are requests signed with the workload's own role?
    pub(crate) fn signs_as_itself(&self) -> bool {
        let traits = self.expected().traits();
        traits.gives == Gives::Signer && traits.subject == Subject::None
    }

    /// Is the MCP server asked who guards it?
    pub(crate) fn is_discovered(&self) -> bool {
        self.expected().traits().asks == Asks::Discovered
    }

    /// Is anything of the identity needed, its certificate included?
    pub(crate) fn needs_identity(&self) -> bool {
        let by_certificate = self.client.auth == ClientAuth::MutualTls;
        self.needs_subject() || self.signs_as_itself() || (by_certificate && self.client.certificate_file.is_none())
    }
}
