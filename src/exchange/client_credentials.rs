//! `client-credentials`: the client requests a token for itself (RFC 6749 section 4.4); `client_auth` selects its
//! proof.
//!
//! The MCP client-credentials extension. With `client_auth = "workload"` the authorization server federates a client
//! with the platform (Keycloak's federated clients, Entra's federated credentials, Okta, Auth0). The assertion's only
//! audience is the issuer (draft-ietf-oauth-rfc7523bis section 4), never the token endpoint that the server chose. The
//! other client authentication methods need no workload identity.

use std::sync::Arc;

use async_trait::async_trait;

use super::answer;
use super::{
    ClientAuth, Descriptor, Error, Exchange, ExchangeTable, Form, Issued, Request, Subject, TokenEndpoint, Traits,
};
use crate::setting::Problem;
use crate::token::SubjectToken;

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "client-credentials",
    sets: &[],
    of_server: Some(Form { settings: &[], check, from_config: |_| Ok(Arc::new(ClientCredentials)) }),
    of_link: None,
};

pub(super) const GRANT: &str = "client_credentials";

#[derive(Debug)]
struct ClientCredentials;

fn check(written: &ExchangeTable<'_>) -> Vec<Problem> {
    let what = "\"client-credentials\" needs `client_auth`: a client that proves nothing gets nothing";
    if written.client_auth == Some(ClientAuth::None) { vec![Problem::new("exchange", what)] } else { Vec::new() }
}

#[async_trait]
impl Exchange for ClientCredentials {
    fn name(&self) -> &'static str {
        EXCHANGE.name
    }

    fn traits(&self) -> Traits {
        Traits { subject: Subject::ProofOfClient, ..Traits::of_grant(GRANT) }
    }

    async fn exchange(
        &self,
        endpoint: &TokenEndpoint<'_>,
        _subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        let answer = endpoint.ask(GRANT, &[], request).await?;
        answer::read(&endpoint.server.issuer, &answer, request)
    }
}
