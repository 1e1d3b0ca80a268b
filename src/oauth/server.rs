//! The metadata of an authorization server (RFC 8414 section 2).

use std::sync::Arc;

use super::Issuer;

/// The metadata of an authorization server (RFC 8414 section 2) that we use.
#[derive(Clone, Debug)]
pub(crate) struct AuthorizationServer {
    /// Its identifier, byte for byte as requested.
    pub issuer: Issuer,
    /// The token endpoint.
    pub token_endpoint: Arc<str>,
    /// The grant types it lists. `None` if it lists none; it may still support any.
    pub grant_types: Option<Vec<String>>,
    /// The revocation endpoint (RFC 7009).
    pub revocation_endpoint: Option<Arc<str>>,
    /// The registration endpoint (RFC 7591).
    pub registration_endpoint: Option<Arc<str>>,
    /// The client authentication methods it lists. `None` if it lists none.
    pub auth_methods: Option<Vec<String>>,
    /// The signing algorithms for client assertions. `None` if it lists none.
    pub auth_algorithms: Option<Vec<String>>,
    /// It accepts the URL of a client's metadata document as client identifier.
    pub takes_metadata_documents: bool,
    /// The signing algorithms for DPoP proofs (RFC 9449 section 5.1). `None` if it lists none.
    pub dpop_algorithms: Option<Vec<String>>,
    /// The endpoints for clients with a certificate (RFC 8705 section 5).
    pub mutual_tls: MutualTls,
}

/// Endpoints for clients with a certificate, instead of the usual ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct MutualTls {
    /// The token endpoint.
    pub token_endpoint: Option<Arc<str>>,
    /// The revocation endpoint.
    pub revocation_endpoint: Option<Arc<str>>,
}

impl AuthorizationServer {
    /// A server without published metadata, known only by its configuration.
    pub(crate) fn silent(issuer: Issuer, token_endpoint: &str) -> Self {
        Self {
            issuer,
            token_endpoint: token_endpoint.into(),
            grant_types: None,
            revocation_endpoint: None,
            registration_endpoint: None,
            auth_methods: None,
            auth_algorithms: None,
            takes_metadata_documents: false,
            dpop_algorithms: None,
            mutual_tls: MutualTls::default(),
        }
    }

    /// Does it list this grant type? `None` if it lists none at all.
    pub(crate) fn offers(&self, grant: &str) -> Option<bool> {
        self.grant_types.as_ref().map(|listed| listed.iter().any(|one| one == grant))
    }
}
