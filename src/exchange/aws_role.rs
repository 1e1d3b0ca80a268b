//! `aws-role`: an identity token of another issuer becomes a role of AWS, and the role a JWT for the next party.
//!
//! A link of a chain: `AssumeRoleWithWebIdentity`, then `sts:GetWebIdentityToken`, both at the region's own STS. The role's
//! trust policy names the issuer of the identity that goes in, whose token is made for `sts.amazonaws.com`; what comes out is
//! signed by the account's own issuer, for one audience. A JWT of AWS itself goes in nowhere: STS refuses it.
//!
//! ```toml
//! [identities.ci]
//! from     = "default"                # GitHub, GitLab, Kubernetes, SPIFFE: any issuer that IAM knows
//! exchange = "aws-role"
//! role_arn = "arn:aws:iam::123456789012:role/agent"
//! region   = "eu-central-1"
//! ```
//!
//! Source: AWS STS API reference, "AssumeRoleWithWebIdentity" and "GetWebIdentityToken".

use super::link::Destination;
use super::{Error, Way};
use crate::aws::{self, Algorithm, Assumed, Sts};
use crate::digest::Fields;
use crate::oauth::{Audience, Issuer};
use crate::token::SubjectToken;

/// As written in `exchange = "…"`.
pub(super) const NAME: &str = "aws-role";

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
    /// Everything of it that reaches the wire, for the cache key.
    pub(super) fn fields(&self) -> Fields {
        let Self { role_arn, region, service, endpoint } = self;
        Fields::default()
            .option(role_arn.as_deref())
            .text(region)
            .option(service.as_deref())
            .option(endpoint.as_deref())
    }

    pub(super) fn exchange(&self) -> &'static str {
        if self.service.is_some() { super::aws_sigv4::EXCHANGE.name } else { NAME }
    }

    pub(super) fn issuer(&self) -> Issuer {
        Issuer::verbatim(&self.endpoint())
    }

    pub(super) fn endpoint(&self) -> String {
        self.endpoint.clone().unwrap_or_else(|| aws::endpoint(&self.region))
    }

    pub(super) fn subject_audience(&self) -> Audience {
        Audience::from(aws::AUDIENCE)
    }

    fn sts(&self, way: &Way<'_>) -> Sts {
        Sts::new(way.outbound, way.clock, &self.region, &self.endpoint())
    }

    /// Takes on the role. One request, no retry.
    pub(super) async fn assume(&self, way: &Way<'_>, role: &str, subject: &SubjectToken) -> Result<Assumed, Error> {
        self.sts(way).assume(role, None, subject).await.map_err(|error| said(way, error))
    }
}

/// As a link: the role's own JWT for the next party. Two requests, no retry.
pub(super) async fn change(
    way: &Way<'_>,
    aws: &Aws,
    subject: &SubjectToken,
    destination: &Destination<'_>,
) -> Result<SubjectToken, Error> {
    let role = aws.role_arn.as_deref().unwrap_or_default();
    let Assumed { credentials, .. } = aws.assume(way, role, subject).await?;
    let audience = destination.audience.as_str();
    let token = aws.sts(way).web_identity_token(&credentials, audience, Algorithm::default()).await;
    let token = token.map_err(|error| said(way, error))?;
    token.ok_or_else(|| way.malformed("the role's session ends at once".to_owned()))
}

fn said(way: &Way<'_>, error: aws::Error) -> Error {
    let issuer = way.server.issuer.clone();
    match error {
        aws::Error::Refused { error, cure } => Error::Refused { issuer, error, cure },
        aws::Error::Busy { status, code } => {
            tracing::debug!(%issuer, status, code, "busy");
            Error::Busy { issuer, status, retry_after: None }
        }
        aws::Error::Outbound(error) => Error::Outbound { issuer, error },
        aws::Error::Malformed(what) => Error::Elsewhere { issuer, what, cure: aws::NOT_STS },
    }
}
