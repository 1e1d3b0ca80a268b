//! How the OAuth client proves itself, apart from the grant.

use crate::token::SubjectToken;

/// The proof of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// A public client, or none at all.
    #[default]
    None,
    /// The workload's JWT is the client's assertion (RFC 7523 section 2.2): the authorization server federates the
    /// client with the platform. A SPIFFE identity says so in its type (draft-ietf-oauth-spiffe-client-auth).
    Workload,
}

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

impl ClientAuth {
    /// As written in `client_auth = "…"`.
    pub const ALL: [(&str, Self); 2] = [("none", Self::None), ("workload", Self::Workload)];

    /// The one of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, auth)| *auth)
    }

    /// As written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Workload => "workload",
        }
    }

    /// The parameters that prove the client.
    pub(super) fn proof(self, subject: &SubjectToken) -> Vec<(&'static str, &str)> {
        match self {
            Self::None => Vec::new(),
            Self::Workload => {
                let is_spiffe = subject.claims.sub.as_deref().is_some_and(|sub| sub.starts_with("spiffe://"));
                let kind = if is_spiffe { JWT_SPIFFE } else { JWT_BEARER };
                vec![("client_assertion_type", kind), ("client_assertion", subject.expose())]
            }
        }
    }
}
