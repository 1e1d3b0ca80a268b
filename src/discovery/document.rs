//! The two metadata documents as published, and the checks before they are used.

use std::sync::Arc;

use serde::Deserialize;

use super::error::malformed;
use super::{Error, ResourceMetadata};
use crate::oauth::{AuthorizationServer, Issuer, MutualTls, Resource, Scopes, ServerUrl, quoted_words};

/// The metadata of a protected resource as published (RFC 9728 section 2).
#[derive(Deserialize)]
pub(super) struct ResourceDocument {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
    #[serde(default)]
    scopes_supported: Option<Vec<String>>,
    #[serde(default)]
    dpop_bound_access_tokens_required: bool,
}

impl ResourceDocument {
    /// Does it name this resource, byte for byte?
    pub(super) fn is_of(&self, resource: &Resource) -> bool {
        self.resource == resource.as_str()
    }

    /// Checks the metadata that was published at `place`. Fails if `resource` does not stand for this server, or if a
    /// scope is invalid.
    ///
    /// Another origin speaks for exactly this URL only. A `resource` above the URL also stands for the server's
    /// neighbours, for which only its own well-known place speaks; elsewhere it is left to be confirmed there.
    pub(super) fn checked(self, place: &ServerUrl, server: &ServerUrl) -> Result<ResourceMetadata, Error> {
        let counts = |resource: &Resource| match place.same_origin(server) {
            true => resource.stands_for(server),
            false => resource.as_str() == server.as_str(),
        };
        let resource = Resource::parse(&self.resource).ok().filter(counts);
        let resource = resource.ok_or_else(|| Error::ResourceMismatch {
            found: quoted_words(&self.resource),
            server: server.to_string(),
        })?;
        let own_place = resource.metadata_url().filter(|_| !resource.is(server));
        let confirm_at = own_place.filter(|own| own != place);
        let scopes = |list: Vec<String>| {
            Scopes::from_list(list.iter().map(String::as_str)).map_err(|error| {
                malformed("the resource metadata", server.as_str(), &format!("scopes_supported: {error}"))
            })
        };
        Ok(ResourceMetadata {
            resource,
            confirm_at,
            authorization_servers: self.authorization_servers,
            scopes_supported: self.scopes_supported.map(scopes).transpose()?,
            wants_dpop: self.dpop_bound_access_tokens_required,
        })
    }
}

/// The metadata of an authorization server as published (RFC 8414 section 2).
#[derive(Deserialize)]
pub(super) struct ServerDocument {
    issuer: String,
    #[serde(default)]
    token_endpoint: Option<String>,
    #[serde(default)]
    grant_types_supported: Option<Vec<String>>,
    #[serde(default)]
    revocation_endpoint: Option<String>,
    #[serde(default)]
    registration_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    #[serde(default)]
    client_id_metadata_document_supported: bool,
    #[serde(default)]
    dpop_signing_alg_values_supported: Option<Vec<String>>,
    #[serde(default)]
    mtls_endpoint_aliases: Aliases,
}

#[derive(Default, Deserialize)]
struct Aliases {
    #[serde(default)]
    token_endpoint: Option<String>,
    #[serde(default)]
    revocation_endpoint: Option<String>,
}

/// Why the metadata of an authorization server is not used.
pub(super) enum BadDocument {
    Issuer(Error),
    Content(&'static str),
}

impl BadDocument {
    pub(super) fn at(self, place: &'static str, url: &str) -> Error {
        match self {
            Self::Issuer(error) => error,
            Self::Content(what) => malformed(place, url, what),
        }
    }
}

impl ServerDocument {
    /// Checks the metadata. Fails if `issuer` is not `asked`, or if there is no usable token endpoint.
    pub(super) fn checked(self, asked: &Issuer) -> Result<AuthorizationServer, BadDocument> {
        if self.issuer != asked.as_str() {
            let found = quoted_words(&self.issuer);
            return Err(BadDocument::Issuer(Error::IssuerMismatch { found, asked: asked.to_string() }));
        }
        let token_endpoint = self.token_endpoint.ok_or(BadDocument::Content("it names no token_endpoint"))?;
        let endpoint = |text: String| ServerUrl::parse(&text).map(|_| Arc::from(text));
        // An invalid optional endpoint counts as missing: it must not prevent a token request.
        let maybe = |text: Option<String>| text.and_then(|text| endpoint(text).ok());
        Ok(AuthorizationServer {
            issuer: asked.clone(),
            token_endpoint: endpoint(token_endpoint)
                .map_err(|_| BadDocument::Content("its token_endpoint is not a usable URL"))?,
            grant_types: self.grant_types_supported,
            revocation_endpoint: maybe(self.revocation_endpoint),
            registration_endpoint: maybe(self.registration_endpoint),
            auth_methods: self.token_endpoint_auth_methods_supported,
            auth_algorithms: self.token_endpoint_auth_signing_alg_values_supported,
            takes_metadata_documents: self.client_id_metadata_document_supported,
            dpop_algorithms: self.dpop_signing_alg_values_supported,
            mutual_tls: MutualTls {
                token_endpoint: maybe(self.mtls_endpoint_aliases.token_endpoint),
                revocation_endpoint: maybe(self.mtls_endpoint_aliases.revocation_endpoint),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_document_for_another_server_is_refused() {
        let server = ServerUrl::parse("https://mcp.example.com/mcp").expect("good");
        let document = |resource: &str| ResourceDocument {
            resource: resource.to_owned(),
            authorization_servers: vec!["https://as.example.com".to_owned()],
            scopes_supported: None,
            dpop_bound_access_tokens_required: false,
        };
        let place = ServerUrl::parse("https://mcp.example.com/.well-known/oauth-protected-resource/mcp").expect("good");
        let good = document("https://mcp.example.com/mcp").checked(&place, &server).expect("the same");
        assert_eq!((good.resource.as_str(), good.confirm_at), ("https://mcp.example.com/mcp", None));
        for bad in ["https://evil.example/mcp", "https://mcp.example.com/mcp/deeper", "https://mcp.example.com/m", ""] {
            assert!(matches!(document(bad).checked(&place, &server), Err(Error::ResourceMismatch { .. })), "{bad}");
        }
    }

    #[test]
    fn a_tenant_by_path_does_not_speak_for_its_neighbours() {
        let server = ServerUrl::parse("https://gw.example/evil/mcp").expect("good");
        let read = |place: &str, resource: &str| {
            let document: ResourceDocument =
                serde_json::from_value(serde_json::json!({ "resource": resource })).expect("a document");
            let checked = document.checked(&ServerUrl::parse(place).expect("good"), &server);
            checked.map(|metadata| metadata.confirm_at.map(|place| place.as_str().to_owned()))
        };
        const ROOT: &str = "https://gw.example/.well-known/oauth-protected-resource";
        let own = format!("{ROOT}/evil/mcp");
        let below = "https://gw.example/evil/mcp/document";
        let to_ask = |place: &str| Ok(Some(place.to_owned()));
        for place in [&own, below] {
            assert_eq!(read(place, "https://gw.example/evil/mcp"), Ok(None), "of itself");
            assert_eq!(read(place, "https://GW.example:443/evil/mcp/"), Ok(None), "of itself, in another spelling");
            assert_eq!(read(place, "https://gw.example"), to_ask(ROOT));
            assert_eq!(read(place, "https://gw.example/"), to_ask(ROOT));
            assert_eq!(read(place, "https://gw.example/evil"), to_ask(&format!("{ROOT}/evil")));
        }
        assert_eq!(read(ROOT, "https://gw.example"), Ok(None), "the origin speaks for itself");
        assert_eq!(read(&format!("{ROOT}/evil"), "https://gw.example/evil"), Ok(None));
        assert_eq!(read(&format!("{ROOT}/evil"), "https://gw.example"), to_ask(ROOT));
        // Another origin speaks for exactly this URL.
        let elsewhere = "https://docs.example/.well-known/oauth-protected-resource";
        assert_eq!(read(elsewhere, "https://gw.example/evil/mcp"), Ok(None));
        for resource in ["https://gw.example", "https://gw.example/evil/mcp/", "https://gw.example/evil"] {
            assert!(matches!(read(elsewhere, resource), Err(Error::ResourceMismatch { .. })), "{resource}");
        }
    }

    #[test]
    fn an_issuer_must_match_byte_for_byte() {
        let asked = Issuer::parse("https://as.example.com").expect("good");
        let document = |issuer: &str| {
            let document = serde_json::json!({ "issuer": issuer, "token_endpoint": "https://as.example.com/token" });
            serde_json::from_value::<ServerDocument>(document).expect("a document")
        };
        assert!(document("https://as.example.com").checked(&asked).is_ok());
        for bad in ["https://as.example.com/", "https://AS.example.com", "https://evil.example"] {
            assert!(matches!(document(bad).checked(&asked), Err(BadDocument::Issuer(_))), "{bad}");
        }
    }
}
