//! `entra`: exchanges an identity token of another issuer for an Entra access token (workload identity federation).
//!
//! An app registration or a user-assigned managed identity (`client_id`) trusts the platform's issuer through a
//! federated identity credential. The workload's JWT, made for [`Cloud::audience`], is the client's assertion (RFC 7523
//! section 2.2). The token is for one application: `scopes = ["api://…/.default"]`. Nothing is discovered: the tenant
//! is configured and the hosts are those of the cloud.
//!
//! With `agent_identity` the application is the blueprint of an agent: it first requests an assertion for that agent
//! (`fmi_path`), which then authenticates the agent. Entra refuses token exchange (RFC 8693) for agents (AADSTS82001).
//!
//! Without `client_id` the workload is a managed identity of the tenant (source `azure`). Entra's token for it, made
//! for the application in `scopes`, is the access token; no other request is made. A token that this directory did not
//! sign is never passed on.
//!
//! Sources: Microsoft, "OAuth 2.0 client credentials flow", third case; "Workload identity federation"; "Agent OAuth
//! flows: autonomous app".

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Deserialize;

use super::answer;
use super::client_auth::{Client, JWT_BEARER, Proof};
use super::cure::Sent;
use super::table::plain;
use super::{
    Asks, ClientAuth, Descriptor, Destination, Error, Exchange, ExchangeTable, Form, Grant, IdentityRef, Issued,
    LinkExchange, Place, Provider, Request, ResolvedClient, Subject, TokenEndpoint, Traits, Unfit, client_credentials,
};
use crate::digest::Fields;
use crate::oauth::{Audience, Issuer, Scopes, quoted_words};
use crate::outbound::Answer;
use crate::setting::{self, Missing, Problem, Setting};
use crate::token::{AccessToken, SubjectToken};

mod cloud;

pub use cloud::Cloud;

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "entra",
    sets: &["fmi_path"],
    of_server: Some(Form {
        settings: &[TENANT, CLOUD, AGENT],
        check,
        from_config: |written| Ok(Arc::new(Entra::of(written)?)),
    }),
    of_link: Some(Form {
        settings: &[TENANT, CLOUD, AGENT],
        check,
        from_config: |written| Ok(Arc::new(Entra::of(written)?)),
    }),
};

const TENANT: Setting = Setting::required("tenant", setting::Kind::Text, "the directory, by id or domain.")
    .like("\"contoso.example\"")
    .checked(plain);
const CLOUD: Setting = Setting::optional(
    "cloud",
    setting::Kind::Text,
    "whose hosts: \"public\", \"us-government\" or \"china\". Omit: public.",
)
.like("\"public\"")
.checked(|text| match Cloud::parse(text) {
    Some(_) => Ok(()),
    None => Err("is not known; there are: public, us-government, china".to_owned()),
});
const AGENT: Setting = Setting::optional(
    "agent_identity",
    setting::Kind::Text,
    "the client id of the agent identity that the application acts as (`fmi_path`).",
)
.like("\"2f6e…\"");

const GRANT: &str = client_credentials::GRANT;
/// The suffix that makes an identifier URI the scope of a client that acts for itself.
const DEFAULT: &str = "/.default";
/// The identity source of managed identities.
const MANAGED: &str = "azure";
/// How much our clock may differ from Entra's when a new assertion is checked.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The exchange for the application of `client_id`, or for the managed identity itself.
#[derive(Clone, Debug)]
struct Entra {
    /// The directory: its id or one of its domains.
    tenant: String,
    /// The cloud whose hosts are used.
    cloud: Cloud,
    /// The client id of the agent identity that the application (the blueprint) acts as (`fmi_path`).
    agent: Option<String>,
    /// Without an application: the target that the managed identity's token is made for.
    own_target: Option<String>,
}

/// Checks the keys around it: scope, client and client authentication.
fn check(written: &ExchangeTable<'_>) -> Vec<Problem> {
    let mut problems = written.asks_provider(EXCHANGE.name);
    let mut problem = |key: &str, what: String| problems.push(Problem::new(key, what));
    let is_link = written.place == Place::Link;
    if !is_link && written.scopes.is_some_and(|scopes| the_target(scopes).is_none()) {
        let what = "\"entra\" needs exactly one scope, the identifier URI of the MCP server's application with `/.default` at its \
            end: scopes = [\"api://…/.default\"]";
        problem("scopes", what.to_owned());
    }
    let is_nameless = !(written.has)("client_id");
    if is_link && is_nameless {
        let what = "missing: the application that has a federated credential for the identity in `from`";
        problem("client_id", what.to_owned());
    }
    if !is_link && is_nameless {
        let about = [("agent_identity", written.given.has(&AGENT)), ("client_auth", (written.has)("client_auth"))];
        for (key, _) in about.iter().filter(|(_, is_there)| *is_there) {
            problem("client_id", format!("missing: `{key}` is about an application"));
        }
    }
    if matches!(written.client_auth, Some(ClientAuth::PrivateKeyJwt | ClientAuth::MutualTls)) {
        let what = "Entra takes the identity token (\"workload\") or a \"secret\": a key would have to be that of a certificate";
        problem("client_auth", what.to_owned());
    }
    problems
}

/// The target of the scope, if there is exactly one.
fn the_target(scopes: &[String]) -> Option<&str> {
    match scopes {
        [only] => target(only),
        _ => None,
    }
}

/// By default the client authenticates with the workload's JWT. Without `client_id` there is no client.
fn by_workload(client: Client) -> Client {
    match (client.auth, &client.id) {
        (ClientAuth::None, Some(_)) => Client { auth: ClientAuth::Workload, ..client },
        _ => client,
    }
}

impl Entra {
    fn of(written: &ExchangeTable<'_>) -> Result<Self, Missing> {
        let given = &written.given;
        let is_own = written.place != Place::Link && !(written.has)("client_id");
        let target = written.scopes.and_then(the_target).unwrap_or_default();
        Ok(Self {
            tenant: given.required(&TENANT)?.to_owned(),
            cloud: given.text(&CLOUD).and_then(Cloud::parse).unwrap_or_default(),
            agent: given.text(&AGENT).map(str::to_owned),
            own_target: is_own.then(|| target.to_owned()),
        })
    }

    fn issuer(&self) -> Issuer {
        Issuer::verbatim(&format!("{}/{}/v2.0", self.cloud.authority(), self.tenant))
    }

    fn token_endpoint(&self) -> String {
        format!("{}/{}/oauth2/v2.0/token", self.cloud.authority(), self.tenant)
    }

    fn subject_audience(&self) -> Audience {
        Audience::from(self.cloud.audience())
    }

    /// The provider. For a managed identity the audience of the subject token is the MCP server's application.
    fn asks(&self) -> Provider {
        Provider {
            issuer: self.issuer(),
            token_endpoint: self.token_endpoint(),
            subject_audience: self.own_target.clone().unwrap_or_else(|| self.subject_audience().to_string()),
            role_arn: None,
        }
    }

    /// Did this directory sign the token? If the directory is configured by a domain, any directory id is accepted.
    fn signs_as(&self, issuer: &str) -> bool {
        let tenant = self.cloud.issuers().iter().find_map(|base| issuer.strip_prefix(base)?.strip_prefix('/'));
        let tenant = tenant.and_then(|rest| rest.split('/').next()).filter(|tenant| !tenant.is_empty());
        let by_domain = self.tenant.contains('.');
        tenant.is_some_and(|tenant| by_domain || tenant.eq_ignore_ascii_case(&self.tenant))
    }

    /// Passes on the managed identity's own token. Fails if this directory did not sign it.
    fn own(&self, endpoint: &TokenEndpoint<'_>, subject: Option<&SubjectToken>) -> Result<Issued, Error> {
        let subject =
            subject.ok_or_else(|| endpoint.malformed("there is no token of a managed identity".to_owned()))?;
        let issuer = subject.claims.iss.as_deref().unwrap_or_default();
        if !self.signs_as(issuer) {
            return Err(Error::Misconfigured {
                what: format!(
                    "\"entra\" without `client_id` passes on a managed identity's token, and this one is issued by {:?}, not by \
                    the directory {}",
                    quoted_words(issuer),
                    self.tenant
                ),
                hint: "set `client_id` to the application that has a federated credential for this identity; or, on Azure, \
                    `source = \"azure\"` and the `tenant` of the managed identity"
                    .to_owned(),
            });
        }
        let left = subject.claims.exp.unwrap_or(0).saturating_sub(endpoint.clock.unix());
        let access_token =
            AccessToken::parse(subject.expose().to_owned()).map_err(|why| endpoint.malformed(why.to_string()))?;
        // The token may have been cached, so use its remaining lifetime.
        Ok(Issued {
            grant: Grant::Token(access_token),
            expires_in: Some(Duration::from_secs(u64::try_from(left).unwrap_or(0))),
            scopes: None,
        })
    }

    /// Requests a token for the application, or for the agent whose blueprint it is.
    async fn ask(&self, endpoint: &TokenEndpoint<'_>, request: &Request) -> Result<Answer, Error> {
        let Some(agent) = &self.agent else { return ask(endpoint, request, &[]).await };
        let scopes = one_scope(endpoint, self.cloud.audience())?;
        let first = Request { scopes, extra: Vec::new(), ..request.clone() };
        let answer = ask(endpoint, &first, &[("fmi_path", agent)]).await?;
        let assertion = issued(endpoint, &answer)?;
        let fit = assertion.fit_for(&self.subject_audience(), endpoint.clock.unix(), CLOCK_SKEW);
        fit.map_err(|unfit| endpoint.malformed(format!("the agent's assertion: {unfit}")))?;
        let client = ResolvedClient { id: Some(agent.clone()), proof: Proof::Workload(Box::new(assertion), None) };
        ask(endpoint, &Request { client, ..request.clone() }, &[]).await
    }
}

#[async_trait]
impl Exchange for Entra {
    fn name(&self) -> &'static str {
        EXCHANGE.name
    }

    fn traits(&self) -> Traits {
        let subject = if self.own_target.is_some() { Subject::Jwt } else { Subject::ProofOfClient };
        Traits { asks: Asks::Provider(self.asks()), subject, ..Traits::of_grant(GRANT) }
    }

    fn fields(&self) -> Fields {
        let Self { tenant, cloud, agent, own_target } = self;
        Fields::default().text(tenant).text(cloud.authority()).option(agent.as_deref()).option(own_target.as_deref())
    }

    fn client(&self, client: Client) -> Client {
        by_workload(client)
    }

    /// Without an application only a managed identity has a token that can be passed on.
    fn check_identity(&self, identity: &IdentityRef<'_>) -> Result<(), Unfit> {
        let whose = match identity.source {
            _ if self.own_target.is_none() => return Ok(()),
            _ if identity.is_chain => "is a chain",
            Some(source) if source != MANAGED => "is not of Azure",
            _ => return Ok(()),
        };
        Err(Unfit {
            problem: Problem::new(
                "client_id",
                format!(
                    "missing: the application with a federated credential for the identity {:?}, which {whose}; only a managed \
                    identity of the tenant needs none",
                    identity.name
                ),
            ),
            what: format!(
                "\"entra\" without `client_id` passes on a managed identity's token, and this identity {whose}"
            ),
            hint: "set `client_id` to the application that has a federated credential for this identity",
        })
    }

    async fn exchange(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        if self.own_target.is_some() {
            return self.own(endpoint, subject);
        }
        let answer = self.ask(endpoint, request).await?;
        answer::read(&endpoint.server.issuer, &answer, request)
    }
}

#[async_trait]
impl LinkExchange for Entra {
    fn name(&self) -> &'static str {
        EXCHANGE.name
    }

    fn provider(&self) -> Option<Provider> {
        Some(self.asks())
    }

    fn fields(&self) -> Fields {
        Exchange::fields(self)
    }

    fn client(&self, client: Client) -> Client {
        by_workload(client)
    }

    /// Requests an access token of the application, which the next party accepts as an identity. The next party must be
    /// registered in the tenant: its audience is the identifier URI (version 1 tokens) or the application id (version 2
    /// tokens). It must accept assertions without `jti`, because Entra's have none.
    async fn change(
        &self,
        endpoint: &TokenEndpoint<'_>,
        _subject: &SubjectToken,
        client: ResolvedClient,
        destination: &Destination<'_>,
    ) -> Result<SubjectToken, Error> {
        let scopes = one_scope(endpoint, destination.audience.as_str())?;
        let answer = self.ask(endpoint, &Request { client, scopes, ..Request::default() }).await?;
        issued(endpoint, &answer)
    }
}

/// The scope `URI/.default`. A trailing slash of the identifier is kept.
fn one_scope(endpoint: &TokenEndpoint<'_>, target: &str) -> Result<Scopes, Error> {
    let scope = format!("{target}{DEFAULT}");
    Scopes::from_list([scope.as_str()])
        .map_err(|why| endpoint.malformed(format!("{target:?} cannot be a scope: {why}")))
}

/// The application of a scope: the part before `/.default`.
fn target(scope: &str) -> Option<&str> {
    scope.strip_suffix(DEFAULT).filter(|target| !target.is_empty())
}

/// Sends a token request with the proof of the client and the parameters `more`.
async fn ask(endpoint: &TokenEndpoint<'_>, request: &Request, more: &[(&str, &str)]) -> Result<Answer, Error> {
    let (Proof::Workload(subject, _), Some(id)) = (&request.client.proof, &request.client.id) else {
        return endpoint.ask(GRANT, more, request).await;
    };
    // A SPIFFE identity is sent as a plain JWT as well: Entra does not know the SPIFFE assertion type.
    let proof =
        [("client_id", id.as_str()), ("client_assertion_type", JWT_BEARER), ("client_assertion", subject.expose())];
    let own: Vec<(&str, &str)> = proof.iter().chain(more).copied().collect();
    endpoint.ask(GRANT, &own, &Request { client: ResolvedClient::default(), ..request.clone() }).await
}

/// The token of the answer, read as an assertion.
fn issued(endpoint: &TokenEndpoint<'_>, answer: &Answer) -> Result<SubjectToken, Error> {
    #[derive(Deserialize)]
    struct Wire {
        access_token: SecretString,
    }
    if answer.status != 200 {
        return Err(answer::failed(&endpoint.server.issuer, answer, Sent::default()));
    }
    let wire: Wire = answer.json().map_err(|what| endpoint.malformed(what.to_owned()))?;
    SubjectToken::parse(wire.access_token).map_err(|error| endpoint.malformed(format!("what it issued is {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entra(tenant: &str, cloud: Cloud) -> Entra {
        Entra { tenant: tenant.to_owned(), cloud, agent: None, own_target: None }
    }

    #[test]
    fn a_token_is_passed_on_only_if_the_directory_signed_it() {
        let id = "5369a35c-46a5-4677-8ff9-2e65587654e7";
        let by_id = entra(id, Cloud::Public);
        assert!(by_id.signs_as(&format!("https://sts.windows.net/{id}/")));
        assert!(by_id.signs_as(&format!("https://login.microsoftonline.com/{}/v2.0", id.to_uppercase())));
        for other in [
            "",
            "https://sts.windows.net/",
            "https://sts.windows.net/72f988bf-86f1-41af-91ab-2d7cd011db47/",
            "https://sts.windows.net.example/5369a35c-46a5-4677-8ff9-2e65587654e7/",
            "https://login.microsoftonline.us/5369a35c-46a5-4677-8ff9-2e65587654e7/v2.0",
            "https://token.actions.githubusercontent.com",
        ] {
            assert!(!by_id.signs_as(other), "{other}");
        }
        let by_domain = entra("contoso.example", Cloud::UsGovernment);
        assert!(by_domain.signs_as("https://login.microsoftonline.us/5369a35c-46a5-4677-8ff9-2e65587654e7/v2.0"));
        assert!(!by_domain.signs_as("https://login.microsoftonline.com/5369a35c-46a5-4677-8ff9-2e65587654e7/v2.0"));
    }

    #[test]
    fn the_target_of_a_scope_is_what_stands_before_its_end() {
        assert_eq!(target("api://a/.default"), Some("api://a"));
        assert_eq!(target("https://a.example//.default"), Some("https://a.example/"));
        assert_eq!((target("/.default"), target("api://a/read")), (None, None));
    }

    #[test]
    fn each_cloud_has_hosts_and_an_audience_of_its_own() {
        for (name, cloud) in Cloud::ALL {
            let entra = entra("t", cloud);
            assert_eq!(Cloud::parse(name), Some(cloud));
            assert!(
                entra.token_endpoint().starts_with(cloud.authority())
                    && entra.token_endpoint().ends_with("/t/oauth2/v2.0/token")
            );
            assert!(entra.signs_as(entra.issuer().as_str()), "{name}");
        }
        let audiences: std::collections::BTreeSet<_> = Cloud::ALL.iter().map(|(_, cloud)| cloud.audience()).collect();
        assert_eq!(audiences.len(), 3);
    }
}
