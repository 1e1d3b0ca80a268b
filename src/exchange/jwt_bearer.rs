//! `jwt-bearer`: the workload's JWT is the grant (RFC 7523 section 2.1).
//!
//! What MCP workload identity federation (SEP-1933, draft-carleton-workload-authz-grant) uses: no client, no
//! registration, no secret. The assertion's audience is the issuer of the authorization server as published,
//! one value, so that it is worthless to anybody else who gets hold of it. Where a server wants a client beside the
//! grant (Keycloak, Hydra), `client_auth` proves it.

use async_trait::async_trait;

use super::answer::{self, Kind};
use super::{Descriptor, Error, Exchange, Issued, Request, Way};
use crate::token::SubjectToken;

pub(super) const EXCHANGE: Descriptor =
    Descriptor { name: "jwt-bearer", grant: GRANT, discovers: true, sets: &["assertion"], exchange: &JwtBearer };

pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

struct JwtBearer;

#[async_trait]
impl Exchange for JwtBearer {
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
