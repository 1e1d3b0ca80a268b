//! `client-credentials`: the client asks for itself (RFC 6749 section 4.4), and the workload's JWT proves the client.
//!
//! The MCP client-credentials extension with `client_auth = "workload"`: the authorization server knows a client that
//! it federates with the platform (Keycloak's federated clients, Entra's federated credentials, Okta, Auth0). The
//! assertion's only audience is the issuer (draft-ietf-oauth-rfc7523bis section 4), never the token endpoint that the
//! server chose.

use async_trait::async_trait;

use super::{Descriptor, Error, Exchange, Issued, Request, Way, answer, form};
use crate::token::SubjectToken;

pub(super) const EXCHANGE: Descriptor =
    Descriptor { name: "client-credentials", grant: "client_credentials", sets: &[], exchange: &ClientCredentials };

struct ClientCredentials;

#[async_trait]
impl Exchange for ClientCredentials {
    async fn exchange(&self, way: &Way<'_>, subject: &SubjectToken, request: &Request) -> Result<Issued, Error> {
        let body = form::body(EXCHANGE.grant, &[], subject, request);
        answer::read(&way.server.issuer, &way.post(body).await?)
    }
}
