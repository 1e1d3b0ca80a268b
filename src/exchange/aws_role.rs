//! `aws-role`: exchanges an identity token of another issuer for an AWS role, and the role for a JWT for the next
//! party.
//!
//! A link of a chain: `AssumeRoleWithWebIdentity`, then `sts:GetWebIdentityToken`, both at the STS of the region. The
//! role's trust policy names the issuer of the incoming identity, whose token has the audience `sts.amazonaws.com`. The
//! resulting JWT is signed by the account's own issuer and has one audience. STS refuses JWTs that AWS itself issued.
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

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Descriptor, Destination, Error, ExchangeTable, Form, LinkExchange, Provider, ResolvedClient, TokenEndpoint,
};
use crate::aws::{self, Algorithm, Assumed, Sts};
use crate::digest::Fields;
use crate::oauth::Issuer;
use crate::setting::{Kind, Missing, Need, Setting};
use crate::token::SubjectToken;

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "aws-role",
    sets: &[],
    of_server: None,
    of_link: Some(Form {
        settings: &[ROLE_ARN.needed(Need::Required), REGION, ENDPOINT],
        check: |written| written.asks_provider(EXCHANGE.name),
        from_config: |written| {
            written.given.required(&ROLE_ARN)?;
            Ok(Arc::new(AwsRole(Aws::of(written)?)))
        },
    }),
};

/// The role to assume with the identity.
pub(super) const ROLE_ARN: Setting = Setting::optional("role_arn", Kind::Text, "the role to assume with the identity.")
    .like("\"arn:aws:iam::123456789012:role/agent\"")
    .checked(|text| match text.splitn(6, ':').collect::<Vec<_>>().as_slice() {
        ["arn", _, "iam", "", account, role] if account.len() == 12 && role.starts_with("role/") => Ok(()),
        _ => Err("not the ARN of a role: arn:aws:iam::ACCOUNT:role/NAME".to_owned()),
    });

/// Required, because the global endpoint does not support `GetWebIdentityToken`.
pub(super) const REGION: Setting = Setting::required("region", Kind::Text, "never guessed.")
    .like("\"eu-central-1\"")
    .checked(|text| match aws::is_region(text) {
        true => Ok(()),
        false => Err("not a region such as \"eu-central-1\"; the global ones have no such call".to_owned()),
    });

/// Must be a host of AWS or of this machine, because it receives the identity.
pub(super) const ENDPOINT: Setting =
    Setting::optional("endpoint", Kind::Text, "another STS than the region's: that of a VPC endpoint.")
        .like("\"https://vpce-1a2b.sts.eu-central-1.vpce.amazonaws.com\"")
        .checked(|text| match aws::may_be_endpoint(text) {
            true => Ok(()),
            false => Err("must be an https host of AWS, or on loopback for tests".to_owned()),
        });

/// The role to assume, and the STS to call.
#[derive(Clone, Debug)]
pub(super) struct Aws {
    pub(super) role_arn: Option<String>,
    pub(super) region: String,
    /// An STS other than the region's.
    endpoint: Option<String>,
}

/// The exchange as a link of a chain.
#[derive(Debug)]
struct AwsRole(Aws);

impl Aws {
    pub(super) fn of(written: &ExchangeTable<'_>) -> Result<Self, Missing> {
        let given = &written.given;
        Ok(Self {
            role_arn: given.text(&ROLE_ARN).map(str::to_owned),
            region: given.required(&REGION)?.to_owned(),
            endpoint: given.text(&ENDPOINT).map(|text| text.trim_end_matches('/').to_owned()),
        })
    }

    pub(super) fn provider(&self) -> Provider {
        Provider {
            issuer: Issuer::verbatim(&self.endpoint()),
            token_endpoint: self.endpoint(),
            subject_audience: aws::AUDIENCE.to_owned(),
            role_arn: self.role_arn.clone(),
        }
    }

    pub(super) fn fields(&self) -> Fields {
        let Self { role_arn, region, endpoint } = self;
        Fields::default().option(role_arn.as_deref()).text(region).option(endpoint.as_deref())
    }

    fn endpoint(&self) -> String {
        self.endpoint.clone().unwrap_or_else(|| aws::endpoint(&self.region))
    }

    fn sts(&self, endpoint: &TokenEndpoint<'_>) -> Sts {
        Sts::new(endpoint.outbound, endpoint.clock, &self.region, &self.endpoint())
    }

    /// Assumes the role. One request, no retry.
    pub(super) async fn assume(
        &self,
        endpoint: &TokenEndpoint<'_>,
        role: &str,
        subject: &SubjectToken,
    ) -> Result<Assumed, Error> {
        self.sts(endpoint).assume(role, None, subject).await.map_err(|error| said(endpoint, error))
    }
}

#[async_trait]
impl LinkExchange for AwsRole {
    fn name(&self) -> &'static str {
        EXCHANGE.name
    }

    fn provider(&self) -> Option<Provider> {
        Some(self.0.provider())
    }

    fn fields(&self) -> Fields {
        self.0.fields()
    }

    /// Requests the role's own JWT for the next party. Two requests, no retry.
    async fn change(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: &SubjectToken,
        _client: ResolvedClient,
        destination: &Destination<'_>,
    ) -> Result<SubjectToken, Error> {
        let role = self.0.role_arn.as_deref().unwrap_or_default();
        let Assumed { credentials, .. } = self.0.assume(endpoint, role, subject).await?;
        let audience = destination.audience.as_str();
        let token = self.0.sts(endpoint).web_identity_token(&credentials, audience, Algorithm::default()).await;
        let token = token.map_err(|error| said(endpoint, error))?;
        token.ok_or_else(|| endpoint.malformed("the role's session ends at once".to_owned()))
    }
}

fn said(endpoint: &TokenEndpoint<'_>, error: aws::Error) -> Error {
    let issuer = endpoint.server.issuer.clone();
    match error {
        aws::Error::Refused { error, cure } => Error::Refused { issuer, error, cure },
        aws::Error::Busy { status, code } => {
            debug!(%issuer, status, code, "busy");
            Error::Busy { issuer, status, retry_after: None, said: None, by_resource: false }
        }
        aws::Error::Outbound(error) => Error::Outbound { issuer, error },
        aws::Error::Malformed(what) => Error::Elsewhere { issuer, what, cure: aws::NOT_STS },
    }
}
