//! `jwt-bearer`: the workload's JWT is the grant (RFC 7523 section 2.1).
//!
//! Used by MCP workload identity federation (SEP-1933, draft-carleton-workload-authz-grant): no client, no
//! registration, no secret. The assertion has a single audience, the published issuer of the authorization server, so
//! that it cannot be replayed elsewhere. If a server requires a client as well (Keycloak, Hydra), `client_auth`
//! authenticates it.

use std::sync::Arc;

use async_trait::async_trait;

use super::answer;
use super::{Descriptor, Error, Exchange, Form, Issued, Request, TokenEndpoint, Traits};
use crate::token::SubjectToken;

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "jwt-bearer",
    sets: &["assertion"],
    of_server: Some(Form {
        settings: &[],
        check: |written| {
            written.not_by_workload(
                "\"workload\" would send one JWT as grant and as proof, and a server may take it only once; \
                set `exchange = \"client-credentials\"`",
            )
        },
        from_config: |_| Ok(Arc::new(JwtBearer { name: EXCHANGE.name })),
    }),
    of_link: None,
};

pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The grant, with the platform's JWT or with one from a link.
#[derive(Debug)]
pub(super) struct JwtBearer {
    /// The name of the exchange: this one, or the one whose second leg this is.
    pub(super) name: &'static str,
}

#[async_trait]
impl Exchange for JwtBearer {
    fn name(&self) -> &'static str {
        self.name
    }

    fn traits(&self) -> Traits {
        Traits::of_grant(GRANT)
    }

    async fn exchange(
        &self,
        endpoint: &TokenEndpoint<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        let assertion = subject.map_or("", SubjectToken::expose);
        let answer = endpoint.ask(GRANT, &[("assertion", assertion)], request).await?;
        answer::read(&endpoint.server.issuer, &answer, request)
    }
}
