//! `gcp`: an identity token of another issuer becomes a Google token (workload identity federation).
//!
//! The security token service changes it for a federated access token of the pool; the service account that the pool may
//! act as then gives an identity token for one audience (`generateIdToken`: IAP, Cloud Run) or an access token
//! (`generateAccessToken`). Nothing is discovered: pool and account are configured and the hosts are Google's own.
//!
//! Source: Google Cloud, "Workload Identity Federation with other providers"; "Service Account Credentials API".

use super::link::Destination;
use super::{Error, Way};
use crate::oauth::{Audience, Issuer};
use crate::token::SubjectToken;

/// As written in `exchange = "…"`.
pub(super) const NAME: &str = "gcp";

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gcp {
    /// The provider's full name: `projects/N/locations/global/workloadIdentityPools/P/providers/R`.
    pub pool: String,
    /// The service account that gives the token; omitted: the federated token itself.
    pub service_account: Option<String>,
    /// Service accounts between the pool and that one.
    pub delegates: Vec<String>,
    /// What stands for Google's hosts in tests, on loopback.
    pub endpoint: Option<String>,
}

impl Gcp {
    pub(super) fn issuer(&self) -> Issuer {
        Issuer::verbatim(self.endpoint.as_deref().unwrap_or("https://sts.googleapis.com"))
    }

    pub(super) fn token_endpoint(&self) -> String {
        format!("{}/v1/token", self.endpoint.as_deref().unwrap_or("https://sts.googleapis.com"))
    }

    pub(super) fn subject_audience(&self) -> Audience {
        Audience::from(format!("https://iam.googleapis.com/{}", self.pool).as_str())
    }
}

/// As a link: an identity token of the service account for the next party.
pub(super) async fn change(
    way: &Way<'_>,
    _gcp: &Gcp,
    _subject: &SubjectToken,
    _destination: &Destination<'_>,
) -> Result<SubjectToken, Error> {
    Err(way.malformed("not in this version".to_owned()))
}
