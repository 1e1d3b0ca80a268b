//! `jwt-bearer`: the workload's JWT is the grant (RFC 7523 section 2.1).
//!
//! What MCP workload identity federation (SEP-1933, draft-carleton-workload-authz-grant) uses: no client, no
//! registration, no secret. The assertion's audience is the issuer of the authorization server as published,
//! one value, so that it is worthless to anybody else who gets hold of it. Where a server wants a client beside the
//! grant (Keycloak, Hydra), `client_auth` proves it.

use std::sync::Arc;

use async_trait::async_trait;

use super::answer::{self, Kind};
use super::{Descriptor, Error, Exchange, Form, Issued, Request, Traits, Way};
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

/// The grant, with the platform's JWT or with one that a link gave.
#[derive(Debug)]
pub(super) struct JwtBearer {
    /// The row whose second leg it is.
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
        way: &Way<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        let assertion = subject.map_or("", SubjectToken::expose);
        let answer = way.ask(GRANT, &[("assertion", assertion)], request).await?;
        answer::read(&way.server.issuer, &answer, Kind::of(request))
    }
}
