//! `entra`: an identity token of another issuer becomes an Entra access token (workload identity federation).
//!
//! An app registration or a user-assigned managed identity (`client_id`) trusts the platform's issuer by a federated identity
//! credential; the workload's JWT, made for [`Cloud::audience`], is the client's assertion (RFC 7523 section 2.2), and
//! the token is for one application: `scopes = ["api://…/.default"]`. Nothing is discovered: the tenant is configured and
//! the hosts are the clouds' own.
//!
//! With `agent_identity` the application is the blueprint of an agent: it first asks for an assertion of that agent
//! (`fmi_path`), which then proves the agent. Token exchange (RFC 8693) is refused there (AADSTS82001).
//!
//! Without `client_id` the workload is a managed identity of the tenant (source `azure`), and Entra's token for it, made for the
//! application of `scopes`, is the access token: nobody else is asked. Whatever other token there is, its issuer is not this
//! directory, and it stays here.
//!
//! Source: Microsoft, "OAuth 2.0 client credentials flow", third case; "Workload identity federation"; "Agent OAuth flows:
//! autonomous app".

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Deserialize;

use super::answer::{self, Kind};
use super::client_auth::{JWT_BEARER, Proof};
use super::link::Destination;
use super::{ClientAuth, Descriptor, Error, Exchange, Identified, Issued, Provider, Request, Way};
use crate::digest::Fields;
use crate::oauth::{Audience, Issuer, Scopes, quoted_words};
use crate::outbound::Answer;
use crate::token::{AccessToken, SubjectToken};

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "entra",
    grant: "client_credentials",
    discovers: false,
    sets: &["fmi_path"],
    exchange: &Application,
};

/// As written in `exchange = "…"`.
pub(super) const NAME: &str = EXCHANGE.name;

/// What makes an identifier URI the scope of an application that asks for itself.
const DEFAULT: &str = "/.default";
/// How far our clock may be wrong for an assertion that was made just now.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The application that `client_id` names, or the managed identity itself.
struct Application;

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entra {
    /// The directory: its id or a domain of it.
    pub tenant: String,
    /// Whose hosts.
    pub cloud: Cloud,
    /// An agent identity that the application (the blueprint) acts as: its client id (`fmi_path`).
    pub agent: Option<String>,
}

/// The clouds of Microsoft, each with hosts and a directory of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cloud {
    /// The public one.
    #[default]
    Public,
    /// Azure Government.
    UsGovernment,
    /// Azure operated by 21Vianet.
    China,
}

impl Cloud {
    /// As written in `cloud = "…"`.
    pub const ALL: [(&str, Self); 3] =
        [("public", Self::Public), ("us-government", Self::UsGovernment), ("china", Self::China)];

    /// The one of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, cloud)| *cloud)
    }

    /// Where its directories are asked.
    pub(crate) fn authority(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::UsGovernment => "https://login.microsoftonline.us",
            Self::China => "https://login.chinacloudapi.cn",
        }
    }

    /// Under which issuers its directories sign, for either version of their tokens.
    fn issuers(self) -> &'static [&'static str] {
        match self {
            Self::Public => &["https://sts.windows.net", "https://login.microsoftonline.com"],
            Self::UsGovernment => &["https://sts.windows.net", "https://login.microsoftonline.us"],
            Self::China => &[
                "https://sts.chinacloudapi.cn",
                "https://login.chinacloudapi.cn",
                "https://login.partner.microsoftonline.cn",
            ],
        }
    }

    /// The audience of a federated token.
    pub(crate) fn audience(self) -> &'static str {
        match self {
            Self::Public => "api://AzureADTokenExchange",
            Self::UsGovernment => "api://AzureADTokenExchangeUSGov",
            Self::China => "api://AzureADTokenExchangeChina",
        }
    }
}

impl Entra {
    /// Everything of it that reaches the wire, for the cache key.
    pub(super) fn fields(&self) -> Fields {
        let Self { tenant, cloud, agent } = self;
        Fields::default().text(tenant).text(cloud.authority()).option(agent.as_deref())
    }

    pub(super) fn issuer(&self) -> Issuer {
        Issuer::verbatim(&format!("{}/{}/v2.0", self.cloud.authority(), self.tenant))
    }

    pub(super) fn token_endpoint(&self) -> String {
        format!("{}/{}/oauth2/v2.0/token", self.cloud.authority(), self.tenant)
    }

    pub(super) fn subject_audience(&self) -> Audience {
        Audience::from(self.cloud.audience())
    }

    /// Did this directory sign it? One that is configured by a domain may have any id.
    fn signs_as(&self, issuer: &str) -> bool {
        let tenant = self.cloud.issuers().iter().find_map(|base| issuer.strip_prefix(base)?.strip_prefix('/'));
        let tenant = tenant.and_then(|rest| rest.split('/').next()).filter(|tenant| !tenant.is_empty());
        let by_domain = self.tenant.contains('.');
        tenant.is_some_and(|tenant| by_domain || tenant.eq_ignore_ascii_case(&self.tenant))
    }

    /// The managed identity's own token, passed on.
    fn own(&self, way: &Way<'_>, subject: Option<&SubjectToken>) -> Result<Issued, Error> {
        let subject = subject.ok_or_else(|| way.malformed("there is no token of a managed identity".to_owned()))?;
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
        let left = subject.claims.exp.unwrap_or(0).saturating_sub(way.clock.unix());
        let access_token =
            AccessToken::parse(subject.expose().to_owned()).map_err(|why| way.malformed(why.to_string()))?;
        // It may be old already: what counts is what is left of it.
        Ok(Issued {
            access_token,
            expires_in: Some(Duration::from_secs(u64::try_from(left).unwrap_or(0))),
            scopes: None,
            signed: None,
        })
    }

    /// Asks as the application, or as the agent that it is the blueprint of.
    async fn ask(&self, way: &Way<'_>, request: &Request) -> Result<Answer, Error> {
        let Some(agent) = &self.agent else { return ask(way, request, &[]).await };
        let scopes = one_scope(way, self.cloud.audience())?;
        let first = Request { scopes, extra: Vec::new(), ..request.clone() };
        let answer = ask(way, &first, &[("fmi_path", agent)]).await?;
        let assertion = issued(way, &answer)?;
        let fit = assertion.fit_for(&self.subject_audience(), way.clock.unix(), CLOCK_SKEW);
        fit.map_err(|unfit| way.malformed(format!("the agent's assertion: {unfit}")))?;
        let client = Identified { id: Some(agent.clone()), proof: Proof::Workload(assertion) };
        ask(way, &Request { client, ..request.clone() }, &[]).await
    }
}

#[async_trait]
impl Exchange for Application {
    /// As the application's proof, or as the token itself.
    fn needs_subject(&self, client: ClientAuth) -> bool {
        matches!(client, ClientAuth::Workload | ClientAuth::None)
    }

    async fn exchange(
        &self,
        way: &Way<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        let Some(Provider::Entra(entra)) = &request.provider else {
            return Err(way.malformed("no directory is configured".to_owned()));
        };
        if request.client.id.is_none() {
            return entra.own(way, subject);
        }
        let answer = entra.ask(way, request).await?;
        answer::read(&way.server.issuer, &answer, Kind::of(request))
    }
}

/// As a link: an access token of the application for the next party, which takes it for an identity. The next party is
/// registered in the tenant, with its audience as identifier URI (tokens of version 1) or application id (version 2), and it
/// must take assertions without `jti`: Entra's have none.
pub(super) async fn change(
    way: &Way<'_>,
    entra: &Entra,
    client: Identified,
    destination: &Destination<'_>,
) -> Result<SubjectToken, Error> {
    let scopes = one_scope(way, destination.audience.as_str())?;
    let answer = entra.ask(way, &Request { client, scopes, ..Request::default() }).await?;
    issued(way, &answer)
}

/// `URI/.default`. An identifier that ends in a slash keeps it.
fn one_scope(way: &Way<'_>, target: &str) -> Result<Scopes, Error> {
    let scope = format!("{target}{DEFAULT}");
    Scopes::from_list([scope.as_str()]).map_err(|why| way.malformed(format!("{target:?} cannot be a scope: {why}")))
}

/// The application that a scope is for.
pub(crate) fn target(scope: &str) -> Option<&str> {
    scope.strip_suffix(DEFAULT).filter(|target| !target.is_empty())
}

async fn ask(way: &Way<'_>, request: &Request, more: &[(&str, &str)]) -> Result<Answer, Error> {
    let (Proof::Workload(subject), Some(id)) = (&request.client.proof, &request.client.id) else {
        return way.ask(EXCHANGE.grant, more, request).await;
    };
    // A SPIFFE identity as well: to Entra it is a JWT like any other.
    let proof =
        [("client_id", id.as_str()), ("client_assertion_type", JWT_BEARER), ("client_assertion", subject.expose())];
    let own: Vec<(&str, &str)> = proof.iter().chain(more).copied().collect();
    way.ask(EXCHANGE.grant, &own, &Request { client: Identified::default(), ..request.clone() }).await
}

/// What was issued, where it is to be an assertion.
fn issued(way: &Way<'_>, answer: &Answer) -> Result<SubjectToken, Error> {
    #[derive(Deserialize)]
    struct Wire {
        access_token: SecretString,
    }
    if answer.status != 200 {
        return Err(answer::failed(&way.server.issuer, answer.status, answer));
    }
    let wire: Wire = answer.json().map_err(|what| way.malformed(what.to_owned()))?;
    SubjectToken::parse(wire.access_token).map_err(|error| way.malformed(format!("what it issued is {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entra(tenant: &str, cloud: Cloud) -> Entra {
        Entra { tenant: tenant.to_owned(), cloud, agent: None }
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
