//! `aws-sigv4`: no access token. Each request to the MCP server is signed with the credentials of a role.
//!
//! For servers behind AWS IAM. The role is the identity's own (`source = "aws"`) or, with `role_arn`, one that a JWT of
//! another issuer may assume. Service and region of the signature are configured. `/v1/headers` signs one request at a
//! time; the digest of the body is part of the signature. `/v1/token` has nothing to return.
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

use super::aws_role::{Aws, ENDPOINT, REGION, ROLE_ARN};
use super::table::plain;
use super::{
    Asks, Descriptor, Error, Exchange, ExchangeTable, Form, Gives, Grant, Issued, Request, Signed, Subject,
    TokenEndpoint, Traits,
};
use crate::aws::{self, Assumed};
use crate::digest::Fields;
use crate::oauth::Scopes;
use crate::setting::{Kind, Missing, Problem, Setting};
use crate::sigv4::Signer;
use crate::token::SubjectToken;

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "aws-sigv4",
    sets: &[],
    of_server: Some(Form { settings: &[REGION, SERVICE, ROLE_ARN, ENDPOINT], check, from_config }),
    of_link: None,
};

const SERVICE: Setting = Setting::required("service", Kind::Text, "the service that requests are signed for.")
    .like("\"bedrock-agentcore\"")
    .checked(plain);

/// A role that signs requests to one service.
#[derive(Debug)]
struct AwsSigv4 {
    aws: Aws,
    service: String,
}

/// Checks the keys around it: those for a token have no effect.
fn check(written: &ExchangeTable<'_>) -> Vec<Problem> {
    let keys =
        ["scopes", "tolerate_scopes", "client_id", "client_auth", "audience", "resource", "extra", "revoke_on_exit"];
    let what = "has no effect with `exchange = \"aws-sigv4\"`: there is no token, and nothing limits scopes";
    let mut problems = written.unused(&keys, what);
    problems.extend(written.asks_provider(EXCHANGE.name));
    if !written.given.has(&ROLE_ARN) {
        let what = "has no effect without `role_arn`: no identity is presented to anybody";
        problems.extend(written.unused(&["subject_audience"], what));
    }
    problems
}

fn from_config(written: &ExchangeTable<'_>) -> Result<Arc<dyn Exchange>, Missing> {
    let service = written.given.required(&SERVICE)?.to_owned();
    Ok(Arc::new(AwsSigv4 { aws: Aws::of(written)?, service }))
}

#[async_trait]
impl Exchange for AwsSigv4 {
    fn name(&self) -> &'static str {
        EXCHANGE.name
    }

    fn traits(&self) -> Traits {
        Traits {
            asks: Asks::Provider(self.aws.provider()),
            subject: if self.aws.role_arn.is_some() { Subject::Jwt } else { Subject::None },
            gives: Gives::Signer,
            limits_scopes: false,
            ..Traits::of_grant("")
        }
    }

    fn fields(&self) -> Fields {
        let Self { aws, service } = self;
        Fields::default().group(&aws.fields()).text(service)
    }

    async fn exchange(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        let assumed = match (&self.aws.role_arn, subject, &request.aws_credentials) {
            (Some(role), Some(subject), _) => self.aws.assume(endpoint, role, subject).await?,
            (None, _, Some(own)) => Assumed { credentials: own.clone(), arn: None },
            _ => return Err(no_credentials()),
        };
        let Assumed { credentials, arn } = assumed;
        let expires_in = aws::remaining(&credentials, endpoint.clock.wall());
        let signer = Arc::new(Signer::new(credentials, &self.aws.region, &self.service));
        let grant = Grant::Signer(Signed { signer, arn });
        Ok(Issued { grant, expires_in, scopes: Some(Scopes::default()) })
    }
}

fn no_credentials() -> Error {
    Error::Misconfigured {
        what: "\"aws-sigv4\" needs the credentials of a role, and this identity has none".to_owned(),
        hint: "on AWS use `source = \"aws\"`; elsewhere name the role that the identity may take on with `role_arn`"
            .to_owned(),
    }
}
