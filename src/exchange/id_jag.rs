//! `id-jag`: requests an identity assertion (ID-JAG) from the enterprise's identity provider, then uses it as JWT
//! bearer grant.
//!
//! MCP enterprise-managed authorization (draft-ietf-oauth-identity-assertion-authz-grant). The workload's JWT is sent
//! to the identity provider in `idp`, whose ID-JAG states that this client may access the resource. The MCP server's
//! authorization server accepts the ID-JAG as grant. The first leg is a link of a chain ([`IDP`],
//! [`TokenService`]); the second is [`JwtBearer`].

use std::sync::Arc;

use async_trait::async_trait;

use super::jwt_bearer::{self, JwtBearer};
use super::token_exchange::{SUBJECT_TOKEN_TYPE, TokenService};
use super::{Descriptor, Error, Exchange, ExchangeTable, Form, Issued, LinkExchange, Request, TokenEndpoint, Traits};
use crate::setting::Problem;
use crate::token::SubjectToken;

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "id-jag",
    of_server: Some(Form { settings: &[], check, from_config: |_| Ok(Arc::new(IdJag(JwtBearer { name: NAME }))) }),
    ..jwt_bearer::EXCHANGE
};

/// `idp`: the identity provider, which is called first.
pub(crate) const IDP: Form<dyn LinkExchange> = Form {
    settings: &[SUBJECT_TOKEN_TYPE],
    check: |_| Vec::new(),
    from_config: |table| Ok(Arc::new(TokenService::of_id_jags(NAME, &table.given))),
};

const NAME: &str = "id-jag";

/// The second leg: the grant at the authorization server.
#[derive(Debug)]
struct IdJag(JwtBearer);

fn check(written: &ExchangeTable<'_>) -> Vec<Problem> {
    let mut problems = written.not_by_workload(
        "\"workload\" would show the ID-JAG, which is the grant, as proof of the client too; use another proof",
    );
    if !(written.has)("idp") {
        let what = "\"id-jag\" needs `idp`: the identity provider that says what may be had";
        problems.push(Problem::new("exchange", what));
    }
    problems
}

#[async_trait]
impl Exchange for IdJag {
    fn name(&self) -> &'static str {
        NAME
    }

    fn traits(&self) -> Traits {
        Traits { needs_pin: true, needs_idp: true, ..self.0.traits() }
    }

    async fn exchange(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        self.0.exchange(endpoint, subject, request).await
    }
}
