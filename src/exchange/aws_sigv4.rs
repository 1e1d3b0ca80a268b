//! `aws-sigv4`: no token at all. Each request to the MCP server is signed with the credentials of a role.
//!
//! For servers behind AWS IAM. The role is the identity's own (`source = "aws"`), or with `role_arn` the one that a JWT of
//! another issuer may take on. What is signed, and with which service and region, is configured; `/v1/headers` signs one
//! request at a time, its body by its digest, and there is nothing that `/v1/token` could give.
//!
//! ```toml
//! [servers.tools]
//! url      = "https://gateway-1.bedrock-agentcore.eu-central-1.amazonaws.com/mcp"
//! exchange = "aws-sigv4"
//! service  = "bedrock-agentcore"
//! region   = "eu-central-1"
//! ```
//!
//! Source: AWS, "Create a signed AWS API request" (IAM User Guide).

use std::sync::Arc;

use async_trait::async_trait;

use super::{Aws, Descriptor, Error, Exchange, Issued, Provider, Request, Signed, Way};
use crate::aws::{self, Assumed};
use crate::oauth::Scopes;
use crate::sigv4::Signer;
use crate::token::{AccessToken, SubjectToken};

pub(super) const EXCHANGE: Descriptor =
    Descriptor { name: "aws-sigv4", grant: "", discovers: false, sets: &[], exchange: &AwsSigv4 };

struct AwsSigv4;

#[async_trait]
impl Exchange for AwsSigv4 {
    async fn exchange(
        &self,
        way: &Way<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        let Some(Provider::Aws(aws @ Aws { service: Some(service), region, .. })) = &request.provider else {
            return Err(way.malformed("it is configured for another exchange".to_owned()));
        };
        let assumed = match (&aws.role_arn, subject, &request.aws_credentials) {
            (Some(role), Some(subject), _) => aws.assume(way, role, subject).await?,
            (None, _, Some(own)) => Assumed { credentials: own.clone(), arn: None },
            _ => return Err(no_credentials()),
        };
        let Assumed { credentials, arn } = assumed;
        // The key's name stands for the credentials, which are never shown.
        let name = AccessToken::parse(credentials.access_key_id().to_owned());
        let access_token = name.map_err(|_| way.malformed("the name of the role's key cannot be one".to_owned()))?;
        let expires_in = aws::rest(&credentials, way.clock.wall());
        let signer = Arc::new(Signer::new(credentials, region, service));
        let signed = Some(Signed { signer, arn });
        Ok(Issued { access_token, expires_in, scopes: Some(Scopes::default()), signed })
    }
}

fn no_credentials() -> Error {
    Error::Misconfigured {
        what: "\"aws-sigv4\" needs the credentials of a role, and this identity has none".to_owned(),
        hint: "on AWS use `source = \"aws\"`; elsewhere name the role that the identity may take on with `role_arn`"
            .to_owned(),
    }
}
