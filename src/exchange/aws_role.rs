//! `aws-role`: an identity token of another issuer becomes a role of AWS, and the role a JWT for the next party.
//!
//! A link of a chain: `AssumeRoleWithWebIdentity`, then `sts:GetWebIdentityToken`, both at the region's own STS.
//!
//! Source: AWS STS API reference; AWS, "Outbound identity federation".

use super::link::Destination;
use super::{Error, Way};
use crate::oauth::{Audience, Issuer};
use crate::token::SubjectToken;

/// As written in `exchange = "…"`.
pub(super) const NAME: &str = "aws-role";
/// The other exchange with a role: requests that are signed instead of a token.
pub(super) const SIGNED: &str = "aws-sigv4";

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aws {
    /// The role that the identity may assume; omitted: the identity's own role (`aws-sigv4`).
    pub role_arn: Option<String>,
    /// Never guessed: the call is not to be had at the global endpoint.
    pub region: String,
    /// The service that requests are signed for (`aws-sigv4`).
    pub service: Option<String>,
    /// Another STS: of a VPC endpoint, or on loopback in tests.
    pub endpoint: Option<String>,
}

impl Aws {
    pub(super) fn exchange(&self) -> &'static str {
        if self.service.is_some() { SIGNED } else { NAME }
    }

    pub(super) fn issuer(&self) -> Issuer {
        Issuer::verbatim(&self.endpoint())
    }

    pub(super) fn endpoint(&self) -> String {
        let suffix = if self.region.starts_with("cn-") { ".cn" } else { "" };
        self.endpoint.clone().unwrap_or_else(|| format!("https://sts.{}.amazonaws.com{suffix}", self.region))
    }

    pub(super) fn subject_audience(&self) -> Audience {
        Audience::from("sts.amazonaws.com")
    }
}

/// As a link: the role's own JWT for the next party.
pub(super) async fn change(
    way: &Way<'_>,
    _aws: &Aws,
    _subject: &SubjectToken,
    _destination: &Destination<'_>,
) -> Result<SubjectToken, Error> {
    Err(way.malformed("not in this version".to_owned()))
}
