//! `entra`: an identity token of another issuer becomes an Entra access token (workload identity federation).
//!
//! An app registration or a user-assigned managed identity trusts the platform's issuer by a federated identity
//! credential; the workload's JWT, made for [`Cloud::audience`], is the client's assertion (RFC 7523 section 2.2), and
//! the token is for one application: `scopes = ["api://…/.default"]`. Nothing is discovered: the tenant is configured and
//! the hosts are the clouds' own.
//!
//! Source: Microsoft, "OAuth 2.0 client credentials flow", third case; "Workload identity federation".

use super::link::Destination;
use super::{Error, Identified, Way};
use crate::oauth::{Audience, Issuer};
use crate::token::SubjectToken;

/// As written in `exchange = "…"`.
pub(super) const NAME: &str = "entra";

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entra {
    /// The directory: its id or a domain of it.
    pub tenant: String,
    /// Whose hosts.
    pub cloud: Cloud,
    /// An agent identity that the application (the blueprint) acts as: its client id (`fmi_path`).
    pub agent: Option<String>,
    /// What stands for the cloud's hosts in tests, on loopback.
    pub endpoint: Option<String>,
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
    fn authority(&self) -> &str {
        self.endpoint.as_deref().unwrap_or_else(|| self.cloud.authority())
    }

    pub(super) fn issuer(&self) -> Issuer {
        Issuer::verbatim(&format!("{}/{}/v2.0", self.authority(), self.tenant))
    }

    pub(super) fn token_endpoint(&self) -> String {
        format!("{}/{}/oauth2/v2.0/token", self.authority(), self.tenant)
    }

    pub(super) fn subject_audience(&self) -> Audience {
        Audience::from(self.cloud.audience())
    }
}

/// As a link: an access token of the application, which the next party takes for an identity.
pub(super) async fn change(
    way: &Way<'_>,
    _entra: &Entra,
    _subject: &SubjectToken,
    _client: Identified,
    _destination: &Destination<'_>,
) -> Result<SubjectToken, Error> {
    Err(way.malformed("not in this version".to_owned()))
}
