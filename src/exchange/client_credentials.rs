//! `client-credentials`: the client asks for itself (RFC 6749 section 4.4), and `client_auth` says how it proves itself.
//!
//! The MCP client-credentials extension. With `client_auth = "workload"` the authorization server knows a client that
//! it federates with the platform (Keycloak's federated clients, Entra's federated credentials, Okta, Auth0); the
//! assertion's only audience is the issuer (draft-ietf-oauth-rfc7523bis section 4), never the token endpoint that the
//! server chose. With the other proofs no workload identity is needed.

use async_trait::async_trait;

use super::answer::{self, Kind};
use super::{ClientAuth, Descriptor, Error, Exchange, Issued, Request, Way};
use crate::token::SubjectToken;

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "client-credentials",
    grant: "client_credentials",
    discovers: true,
    sets: &[],
    exchange: &ClientCredentials,
};

struct ClientCredentials;

#[async_trait]
impl Exchange for ClientCredentials {
    fn needs_subject(&self, client: ClientAuth) -> bool {
        client == ClientAuth::Workload
    }

    async fn exchange(
        &self,
        way: &Way<'_>,
        _subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        let answer = way.ask(EXCHANGE.grant, &[], request).await?;
        answer::read(&way.server.issuer, &answer, Kind::of(request))
    }
}
