//! `jwt-bearer`: the workload's JWT is the grant (RFC 7523 section 2.1).
//!
//! What MCP workload identity federation (SEP-1933, draft-carleton-workload-authz-grant) uses: no client, no
//! registration, no secret. The assertion's audience is the issuer of the authorization server as published,
//! one value, so that it is worthless to anybody else who gets hold of it.

use async_trait::async_trait;

use super::{Descriptor, Error, Exchange, Issued, Request, Way, answer, form};
use crate::token::SubjectToken;

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "jwt-bearer",
    grant: "urn:ietf:params:oauth:grant-type:jwt-bearer",
    sets: &["assertion"],
    exchange: &JwtBearer,
};

struct JwtBearer;

#[async_trait]
impl Exchange for JwtBearer {
    async fn exchange(&self, way: &Way<'_>, subject: &SubjectToken, request: &Request) -> Result<Issued, Error> {
        let body = form::body(EXCHANGE.grant, &[("assertion", subject.expose())], subject, request);
        answer::read(&way.server.issuer, &way.post(body).await?)
    }
}
