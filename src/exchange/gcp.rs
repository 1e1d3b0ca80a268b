//! `gcp`: exchanges an identity token of another issuer for a Google token (workload identity federation).
//!
//! For MCP servers behind Cloud Run or IAP, and those that accept Google's access tokens. The workload's JWT has the
//! pool's provider as its audience. The Security Token Service exchanges it for a federated access token. Then:
//!
//! - with `service_account` and `audience`, that account issues an identity token for that audience
//!   (`generateIdToken`). It is the access token of the MCP server; `exp` gives its lifetime and it has no scopes;
//! - with `service_account` and `scopes`, the account issues a Google access token (`generateAccessToken`);
//! - with `scopes` alone, the federated token itself is used.
//!
//! Nothing is discovered: pool and account are configured and the hosts are Google's own. A workload on Google Cloud
//! needs no pool: use `exchange = "direct"` with `subject_audience`. As a link of a chain it produces the identity
//! token (the first case) for the next party.
//!
//! For a front door (`outer`) without `pool`, the workload's own identity token is used, which must be Google's.
//!
//! Sources: Google Cloud, "Workload Identity Federation with other providers"; "Service Account Credentials API".

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::cure::{Sent, cure};
use super::table::plain;
use super::{
    Asks, Descriptor, Destination, Error, Exchange, ExchangeTable, Form, Grant, IdentityRef, Issued, LinkExchange,
    Place, Provider, Request, ResolvedClient, Subject, TokenEndpoint, Traits, Unfit, direct, token_exchange,
};
use crate::digest::Fields;
use crate::google::{self, Account, Failure, Federation, Google, Hosts, IAM_SCOPE};
use crate::oauth::{Audience, Issuer, Scopes};
use crate::setting::{Kind, Missing, Problem, Setting};
use crate::token::{AccessToken, SubjectToken};

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "gcp",
    sets: &["subject_token", "subject_token_type", "requested_token_type"],
    of_server: Some(Form { settings: &[POOL, SERVICE_ACCOUNT, DELEGATES], check, from_config }),
    of_link: Some(Form {
        settings: &[POOL, SERVICE_ACCOUNT, DELEGATES],
        check,
        from_config: |written| Ok(Arc::new(Gcp::of(written)?)),
    }),
};

const POOL: Setting = Setting::optional("pool", Kind::Text, "the full name of the workload identity provider.")
    .like("\"projects/123456789/locations/global/workloadIdentityPools/agents/providers/ci\"")
    .checked(|text| match pool_of(text) {
        Some(_) => Ok(()),
        None => Err("not a provider's full name: \
                projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER"
            .to_owned()),
    });
const SERVICE_ACCOUNT: Setting =
    Setting::optional("service_account", Kind::Text, "the service account that gives the token. Omit: the pool's own.")
        .like("\"agent@project.iam.gserviceaccount.com\"")
        .checked(plain);
const DELEGATES: Setting =
    Setting::optional("delegates", Kind::Texts, "service accounts between the pool and that one, in order.")
        .like("[\"between@project.iam.gserviceaccount.com\"]")
        .checked(|text| match google::is_account(text) {
            true => Ok(()),
            false => Err("is no email of a service account".to_owned()),
        });

/// How much our clock may differ from Google's when a new token is checked.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The exchange through a workload identity pool.
#[derive(Clone, Debug)]
struct Gcp {
    /// The provider's full name: `projects/N/locations/global/workloadIdentityPools/P/providers/R`.
    pool: String,
    /// The service account that issues the token; without it the federated token is used.
    service_account: Option<String>,
    /// The service accounts that delegate from the pool to that account, in order.
    delegates: Vec<String>,
    /// Is the result an identity token for `audience`?
    gives_identity: bool,
}

/// The exchange that passes on the own identity token of a workload on Google Cloud.
#[derive(Debug)]
struct OwnIdentity;

/// Checks the keys around it: a Google token has either one audience or scopes.
fn check(written: &ExchangeTable<'_>) -> Vec<Problem> {
    let (given, has) = (&written.given, written.has);
    let mut problems = written.asks_provider(EXCHANGE.name);
    let no_client = "has no effect with `exchange = \"gcp\"`: Google knows the pool, and no client";
    problems.extend(written.unused(&["client_id", "client_auth", "subject_token_type"], no_client));
    let mut problem = |key: &str, what: &str| problems.push(Problem::new(key, what));
    let (has_account, is_own) = (given.has(&SERVICE_ACCOUNT), is_own(written));
    if is_own {
        for key in [SERVICE_ACCOUNT, DELEGATES].iter().filter(|key| given.has(key)) {
            let what = "has no effect without `pool`: on Google Cloud the identity of the workload itself is shown \
                (`service_account` and `impersonate` of [identity] make it another one)";
            problem(key.name, what);
        }
    } else if !given.has(&POOL) {
        problem(
            POOL.name,
            "missing: the workload identity provider. A workload on Google itself needs none: `exchange = \"direct\"` \
             with `subject_audience`",
        );
    }
    if written.place == Place::Link && !has_account {
        problem(SERVICE_ACCOUNT.name, "missing: a federated token is no identity; that of a service account is");
    }
    match (written.place, has("audience"), has("scopes")) {
        (Place::Link, ..) => return problems,
        (_, true, true) => {
            problem("scopes", "limit nothing beside `audience`: an identity token has no scopes; one of the two");
        }
        (_, true, false) if !is_own && !has_account => {
            problem("audience", "needs `service_account`: only a service account gives an identity token");
        }
        (Place::FrontDoor, false, _) => {
            problem(
                "audience",
                "missing: the OAuth client's id (Identity-Aware Proxy) or the service's URL (Cloud Run)",
            );
        }
        (Place::Server, false, false) => {
            problem(
                "exchange",
                "\"gcp\" needs `audience` (an identity token, for Cloud Run or IAP) or `scopes` (an access token)",
            );
        }
        _ => {}
    }
    if !is_own && given.has(&DELEGATES) && !has_account {
        problem(DELEGATES.name, "lie before `service_account`, which is missing");
    }
    problems
}

/// Is the workload's own identity token used? In every other place a pool is required.
fn is_own(written: &ExchangeTable<'_>) -> bool {
    written.place == Place::FrontDoor && !written.given.has(&POOL)
}

fn from_config(written: &ExchangeTable<'_>) -> Result<Arc<dyn Exchange>, Missing> {
    if is_own(written) {
        return Ok(Arc::new(OwnIdentity));
    }
    Ok(Arc::new(Gcp::of(written)?))
}

/// The provider's full name without the host; `None` if `text` is not such a name.
fn pool_of(text: &str) -> Option<&str> {
    let name = text.trim_start_matches("https:").trim_start_matches("//iam.googleapis.com/");
    let parts: Vec<&str> = name.split('/').collect();
    let named = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    match parts.as_slice() {
        ["projects", project, "locations", location, "workloadIdentityPools", pool, "providers", provider] => {
            [project, location, pool, provider].into_iter().all(named).then_some(name)
        }
        _ => None,
    }
}

impl Gcp {
    fn of(written: &ExchangeTable<'_>) -> Result<Self, Missing> {
        let given = &written.given;
        Ok(Self {
            pool: pool_of(given.required(&POOL)?).unwrap_or_default().to_owned(),
            service_account: given.text(&SERVICE_ACCOUNT).map(str::to_owned),
            delegates: given.texts(&DELEGATES),
            gives_identity: (written.has)("audience"),
        })
    }

    fn asks(&self) -> Provider {
        Provider {
            issuer: Issuer::verbatim("https://sts.googleapis.com"),
            token_endpoint: google::STS.to_owned(),
            subject_audience: format!("https:{}", self.provider_name()),
            role_arn: None,
        }
    }

    /// The full resource name of the provider.
    fn provider_name(&self) -> String {
        format!("//iam.googleapis.com/{}", self.pool)
    }

    fn account(&self) -> Option<Account<'_>> {
        self.service_account.as_deref().map(|email| Account { email, delegates: &self.delegates })
    }
}

#[async_trait]
impl Exchange for OwnIdentity {
    fn name(&self) -> &'static str {
        EXCHANGE.name
    }

    fn traits(&self) -> Traits {
        direct::traits()
    }

    fn check_identity(&self, identity: &IdentityRef<'_>) -> Result<(), Unfit> {
        // The source for Google's own platform has the same name as this exchange.
        let Some(other) = identity.source.filter(|source| *source != EXCHANGE.name) else { return Ok(()) };
        Err(Unfit {
            problem: Problem::new(
                POOL.name,
                format!(
                    "missing: the identity {:?} is of {other:?}, and the front door takes Google's identity tokens alone",
                    identity.name
                ),
            ),
            what: format!("a front door of Google takes Google's identity tokens, and this workload's is of {other:?}"),
            hint: "set `pool` and `service_account` in `outer`",
        })
    }

    async fn exchange(
        &self,
        _endpoint: &TokenEndpoint<'_>,
        subject: Option<&SubjectToken>,
        _request: &Request,
    ) -> Result<Issued, Error> {
        direct::pass_through(subject)
    }
}

#[async_trait]
impl Exchange for Gcp {
    fn name(&self) -> &'static str {
        EXCHANGE.name
    }

    fn traits(&self) -> Traits {
        Traits {
            asks: Asks::Provider(self.asks()),
            subject: Subject::Named,
            limits_scopes: !self.gives_identity,
            ..Traits::of_grant(token_exchange::GRANT)
        }
    }

    fn fields(&self) -> Fields {
        let Self { pool, service_account, delegates, gives_identity } = self;
        let delegates = delegates.iter().map(String::as_str);
        Fields::default().text(pool).option(service_account.as_deref()).list(delegates).flag(*gives_identity)
    }

    async fn exchange(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        let Some(subject) = subject else { return Err(lacking("\"gcp\" has no identity to change")) };
        let asked: Vec<String> = request.scopes.to_string().split_whitespace().map(str::to_owned).collect();
        let scope = if self.service_account.is_some() { IAM_SCOPE.to_owned() } else { asked.join(" ") };
        if scope.is_empty() {
            return Err(lacking("Google gives no access token without a scope"));
        }
        let hosts = Hosts::default();
        let google = Google { outbound: endpoint.outbound, hosts: &hosts, certificate: None };
        let federated = federate(&google, self, subject, &scope, &request.extra);
        let federated = federated.await.map_err(|failure| failed(endpoint, failure))?;
        match (self.account(), &request.audience) {
            (None, _) => {
                Ok(Issued { grant: Grant::Token(federated.token), expires_in: federated.expires_in, scopes: None })
            }
            (Some(account), Some(audience)) => {
                let token = google.id_token(&federated.token, &account, audience).await;
                identity(endpoint, token.map_err(|failure| failed(endpoint, failure))?, audience)
            }
            (Some(_), None) if asked.is_empty() => Err(lacking("Google gives no access token without a scope")),
            (Some(account), None) => {
                let access = google.access_token(&federated.token, &account, &asked, endpoint.clock.unix()).await;
                let access = access.map_err(|failure| failed(endpoint, failure))?;
                Ok(Issued { grant: Grant::Token(access.token), expires_in: access.expires_in, scopes: None })
            }
        }
    }
}

/// Exchanges the subject token at the Security Token Service.
async fn federate(
    google: &Google<'_>,
    gcp: &Gcp,
    subject: &SubjectToken,
    scope: &str,
    extra: &[(String, String)],
) -> Result<google::Access, Failure> {
    let provider = gcp.provider_name();
    google
        .federate(&Federation {
            provider: &provider,
            subject: subject.expose(),
            subject_type: subject.token_type(),
            scope,
            extra,
        })
        .await
}

/// Uses the identity token as access token. Fails unless it has that single audience: otherwise it could be replayed
/// elsewhere.
fn identity(endpoint: &TokenEndpoint<'_>, token: SubjectToken, audience: &str) -> Result<Issued, Error> {
    let now = endpoint.clock.unix();
    let wanted = Audience::from(audience);
    token.fit_for(&wanted, now, CLOCK_SKEW).map_err(|unfit| endpoint.malformed(unfit.to_string()))?;
    let access_token = AccessToken::parse(token.expose().to_owned());
    let access_token = access_token.map_err(|error| endpoint.malformed(error.to_string()))?;
    // It may have been issued earlier. Without `iat` only the remaining lifetime is known.
    let left = token.claims.exp.map(|exp| exp.saturating_sub(token.claims.iat.unwrap_or(now)));
    let expires_in = left.and_then(|left| u64::try_from(left).ok()).map(Duration::from_secs);
    Ok(Issued { grant: Grant::Token(access_token), expires_in, scopes: Some(Scopes::default()) })
}

#[async_trait]
impl LinkExchange for Gcp {
    fn name(&self) -> &'static str {
        EXCHANGE.name
    }

    fn provider(&self) -> Option<Provider> {
        Some(self.asks())
    }

    fn takes_any_subject_type(&self) -> bool {
        true
    }

    fn fields(&self) -> Fields {
        Exchange::fields(self)
    }

    /// Requests an identity token of the service account for the next party.
    async fn change(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: &SubjectToken,
        _client: ResolvedClient,
        destination: &Destination<'_>,
    ) -> Result<SubjectToken, Error> {
        let Some(account) = self.account() else {
            return Err(lacking("a federated token is no identity that another party could read"));
        };
        let hosts = Hosts::default();
        let google = Google { outbound: endpoint.outbound, hosts: &hosts, certificate: None };
        let federated = federate(&google, self, subject, IAM_SCOPE, &[]).await;
        let federated = federated.map_err(|failure| failed(endpoint, failure))?;
        let token = google.id_token(&federated.token, &account, destination.audience.as_str()).await;
        token.map_err(|failure| failed(endpoint, failure))
    }
}

fn lacking(what: &str) -> Error {
    Error::Misconfigured {
        what: what.to_owned(),
        hint: "set `service_account` with `audience` (an identity token) or `scopes` (an access token)".to_owned(),
    }
}

fn failed(endpoint: &TokenEndpoint<'_>, failure: Failure) -> Error {
    let issuer = endpoint.server.issuer.clone();
    match failure {
        Failure::Outbound(error) => Error::Outbound { issuer, error },
        Failure::Busy { status, retry_after } => {
            Error::Busy { issuer, status, retry_after, said: None, by_resource: false }
        }
        Failure::Refused { error, cure: known } => {
            let cure = known.unwrap_or_else(|| cure(&error.code, error.description.as_deref(), Sent::default()));
            Error::Refused { issuer, error, cure }
        }
        Failure::Malformed(what) => Error::Malformed { issuer, what },
    }
}
