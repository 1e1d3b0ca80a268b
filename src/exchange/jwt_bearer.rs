//! `jwt-bearer`: the workload's JWT is the grant (RFC 7523 section 2.1).
//!
//! What MCP workload identity federation (SEP-1933, draft-carleton-workload-authz-grant) uses: no client, no
//! registration, no secret. The assertion's audience is the issuer of the authorization server as published,
//! one value, so that it is worthless to anybody else who gets hold of it.

use async_trait::async_trait;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::{Descriptor, Error, Exchange, Issued, Request, Way, answer};
use crate::oauth::{Audience, Issuer};
use crate::outbound::{Ask, Body};
use crate::token::SubjectToken;

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "jwt-bearer",
    grant: "urn:ietf:params:oauth:grant-type:jwt-bearer",
    sets: &["grant_type", "assertion", "scope", "resource", "client_id"],
    exchange: &JwtBearer,
};

struct JwtBearer;

#[async_trait]
impl Exchange for JwtBearer {
    fn audience(&self, issuer: &Issuer, request: &Request) -> Audience {
        Audience::from(request.subject_audience.as_deref().unwrap_or(issuer.as_str()))
    }

    async fn exchange(&self, way: &Way<'_>, subject: &SubjectToken, request: &Request) -> Result<Issued, Error> {
        let body = Body { content_type: "application/x-www-form-urlencoded", bytes: form(subject, request) };
        let issuer = &way.server.issuer;
        let answer = way.outbound.send(Ask::post(&way.server.token_endpoint, way.named_by, body)).await;
        answer::read(issuer, &answer.map_err(|error| Error::Outbound { issuer: issuer.clone(), error })?)
    }
}

fn form(subject: &SubjectToken, request: &Request) -> Zeroizing<Vec<u8>> {
    // Room for everything at once: growing would leave copies of the assertion in freed memory.
    let room = subject.expose().len() * 2 + 8 * 1024;
    let mut form = Serializer::new(String::with_capacity(room));
    form.append_pair("grant_type", EXCHANGE.grant);
    form.append_pair("assertion", subject.expose());
    if let Some(resource) = &request.resource {
        form.append_pair("resource", resource.as_str());
    }
    if !request.scopes.is_empty() {
        form.append_pair("scope", &request.scopes.to_string());
    }
    if let Some(client_id) = &request.client_id {
        form.append_pair("client_id", client_id);
    }
    for (name, value) in &request.extra {
        form.append_pair(name, value);
    }
    Zeroizing::new(form.finish().into_bytes())
}
