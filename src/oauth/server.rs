//! The metadata of an authorization server (RFC 8414 section 2).

use std::sync::Arc;

use super::Issuer;

/// What an authorization server says about itself (RFC 8414 section 2), as far as we use it.
#[derive(Clone, Debug)]
pub(crate) struct AuthorizationServer {
    /// Who it is, byte for byte as asked for.
    pub issuer: Issuer,
    /// Where tokens are asked for.
    pub token_endpoint: Arc<str>,
    /// The grants it lists; `None` when it says nothing, which proves nothing.
    pub grant_types: Option<Vec<String>>,
    /// Where RFC 7009 revocation is offered.
    pub revocation_endpoint: Option<Arc<str>>,
    /// Where RFC 7591 registration is offered.
    pub registration_endpoint: Option<Arc<str>>,
    /// How clients may prove themselves; `None` when it says nothing.
    pub auth_methods: Option<Vec<String>>,
    /// With which algorithms a client's assertion may be signed; `None` when it says nothing.
    pub auth_algorithms: Option<Vec<String>>,
    /// It takes the URL of a client's metadata document as client identifier.
    pub takes_metadata_documents: bool,
    /// With which algorithms DPoP proofs may be signed (RFC 9449 section 5.1); `None` when it says nothing.
    pub dpop_algorithms: Option<Vec<String>>,
    /// The endpoints for clients with a certificate (RFC 8705 section 5).
    pub mutual_tls: MutualTls,
}

/// Endpoints that a client with a certificate uses in the place of the usual ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct MutualTls {
    /// Where tokens are asked for.
    pub token_endpoint: Option<Arc<str>>,
    /// Where they are revoked.
    pub revocation_endpoint: Option<Arc<str>>,
}

impl AuthorizationServer {
    /// A server that publishes nothing: what the operator wrote is all there is to know.
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

    /// Does it list this grant? `None` when it lists none at all.
    pub(crate) fn offers(&self, grant: &str) -> Option<bool> {
        self.grant_types.as_ref().map(|listed| listed.iter().any(|one| one == grant))
    }
}
