//! `gcp`: an identity token of another issuer becomes a Google token (workload identity federation).
//!
//! For MCP servers behind Cloud Run or IAP, or that take Google's access tokens. The Security Token Service changes the
//! workload's JWT, made for the pool's provider, into a federated access token. Then:
//!
//! - with `service_account` and `audience` that account gives an identity token for that one audience (`generateIdToken`),
//!   which is the access token of the MCP server: `exp` says how long it lives, and nothing limits its scopes;
//! - with `service_account` and `scopes` it gives an access token of Google's (`generateAccessToken`);
//! - with `scopes` alone the federated token itself is given.
//!
//! Nothing is discovered: pool and account are configured and the hosts are Google's own. A workload on Google itself needs
//! no pool: `exchange = "direct"` with `subject_audience`. As a link of a chain it is the first of these, for the next party.
//!
//! Sources: Google Cloud, "Workload Identity Federation with other providers"; "Service Account Credentials API".

use std::time::Duration;

use async_trait::async_trait;

use super::cure::cure;
use super::link::Destination;
use super::provider::Provider;
use super::{Descriptor, Error, Exchange, Issued, Request, Way};
use crate::digest::Fields;
use crate::google::{self, Account, Failure, Federation, Google, Hosts, IAM_SCOPE};
use crate::oauth::{Audience, Issuer, Scopes};
use crate::token::{AccessToken, SubjectToken};

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "gcp",
    grant: "urn:ietf:params:oauth:grant-type:token-exchange",
    discovers: false,
    sets: &["subject_token", "subject_token_type", "requested_token_type"],
    exchange: &WorkloadIdentityFederation,
};

/// How far our clock may be wrong for a token that was made just now.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gcp {
    /// The provider's full name: `projects/N/locations/global/workloadIdentityPools/P/providers/R`.
    pub pool: String,
    /// The service account that gives the token; omitted: the federated token itself.
    pub service_account: Option<String>,
    /// Service accounts between the pool and that one.
    pub delegates: Vec<String>,
}

impl Gcp {
    /// Everything of it that reaches the wire, for the cache key.
    pub(super) fn fields(&self) -> Fields {
        let Self { pool, service_account, delegates } = self;
        Fields::default().text(pool).option(service_account.as_deref()).list(delegates.iter().map(String::as_str))
    }

    pub(super) fn issuer(&self) -> Issuer {
        Issuer::verbatim("https://sts.googleapis.com")
    }

    pub(super) fn token_endpoint(&self) -> String {
        google::STS.to_owned()
    }

    pub(super) fn subject_audience(&self) -> Audience {
        Audience::from(format!("https:{}", self.provider()).as_str())
    }

    /// The full resource name.
    fn provider(&self) -> String {
        format!("//iam.googleapis.com/{}", self.pool)
    }

    fn account(&self) -> Option<Account<'_>> {
        self.service_account.as_deref().map(|email| Account { email, delegates: &self.delegates })
    }
}

struct WorkloadIdentityFederation;

#[async_trait]
impl Exchange for WorkloadIdentityFederation {
    fn names_its_subject(&self) -> bool {
        true
    }

    async fn exchange(
        &self,
        way: &Way<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        let (Some(Provider::Gcp(gcp)), Some(subject)) = (&request.provider, subject) else {
            return Err(lacking("\"gcp\" has no pool or no identity to change"));
        };
        let asked: Vec<String> = request.scopes.to_string().split_whitespace().map(str::to_owned).collect();
        let scope = if gcp.service_account.is_some() { IAM_SCOPE.to_owned() } else { asked.join(" ") };
        if scope.is_empty() {
            return Err(lacking("Google gives no access token without a scope"));
        }
        let hosts = Hosts::default();
        let google = Google { outbound: way.outbound, hosts: &hosts, certificate: None };
        let federated = federate(&google, gcp, subject, &scope, &request.extra);
        let federated = federated.await.map_err(|failure| failed(way, failure))?;
        match (gcp.account(), &request.audience) {
            (None, _) => Ok(Issued {
                access_token: federated.token,
                expires_in: federated.expires_in,
                scopes: None,
                signed: None,
            }),
            (Some(account), Some(audience)) => {
                let token = google.id_token(&federated.token, &account, audience).await;
                identity(way, token.map_err(|failure| failed(way, failure))?, audience)
            }
            (Some(_), None) if asked.is_empty() => Err(lacking("Google gives no access token without a scope")),
            (Some(account), None) => {
                let access = google.access_token(&federated.token, &account, &asked, way.clock.unix()).await;
                let access = access.map_err(|failure| failed(way, failure))?;
                Ok(Issued { access_token: access.token, expires_in: access.expires_in, scopes: None, signed: None })
            }
        }
    }
}

async fn federate(
    google: &Google<'_>,
    gcp: &Gcp,
    subject: &SubjectToken,
    scope: &str,
    extra: &[(String, String)],
) -> Result<google::Access, Failure> {
    let provider = gcp.provider();
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

/// The identity token as an access token: made for that audience alone, or it would be good elsewhere too.
fn identity(way: &Way<'_>, token: SubjectToken, audience: &str) -> Result<Issued, Error> {
    let now = way.clock.unix();
    let wanted = Audience::from(audience);
    token.fit_for(&wanted, now, CLOCK_SKEW).map_err(|unfit| way.malformed(unfit.to_string()))?;
    let access_token = AccessToken::parse(token.expose().to_owned());
    let access_token = access_token.map_err(|error| way.malformed(error.to_string()))?;
    // It may have been made a while ago; without `iat` its end is all that is known.
    let left = token.claims.exp.map(|exp| exp.saturating_sub(token.claims.iat.unwrap_or(now)));
    let expires_in = left.and_then(|left| u64::try_from(left).ok()).map(Duration::from_secs);
    Ok(Issued { access_token, expires_in, scopes: Some(Scopes::default()), signed: None })
}

/// As a link: an identity token of the service account for the next party.
pub(super) async fn change(
    way: &Way<'_>,
    gcp: &Gcp,
    subject: &SubjectToken,
    destination: &Destination<'_>,
) -> Result<SubjectToken, Error> {
    let Some(account) = gcp.account() else {
        return Err(lacking("a federated token is no identity that another party could read"));
    };
    let hosts = Hosts::default();
    let google = Google { outbound: way.outbound, hosts: &hosts, certificate: None };
    let federated = federate(&google, gcp, subject, IAM_SCOPE, &[]).await.map_err(|failure| failed(way, failure))?;
    let token = google.id_token(&federated.token, &account, destination.audience.as_str()).await;
    token.map_err(|failure| failed(way, failure))
}

fn lacking(what: &str) -> Error {
    Error::Misconfigured {
        what: what.to_owned(),
        hint: "set `service_account` with `audience` (an identity token) or `scopes` (an access token)".to_owned(),
    }
}

fn failed(way: &Way<'_>, failure: Failure) -> Error {
    let issuer = way.server.issuer.clone();
    match failure {
        Failure::Outbound(error) => Error::Outbound { issuer, error },
        Failure::Busy { status, retry_after } => Error::Busy { issuer, status, retry_after },
        Failure::Refused { error, cure: known } => {
            let cure = known.unwrap_or_else(|| cure(&error.code, error.description.as_deref()));
            Error::Refused { issuer, error, cure }
        }
        Failure::Malformed(what) => Error::Malformed { issuer, what },
    }
}
