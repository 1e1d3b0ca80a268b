//! The two metadata documents as published, and the checks before they are used.

use std::sync::Arc;

use super::oddity::Oddity;
use super::{Error, ResourceMetadata};
use crate::oauth::{AuthorizationServer, Issuer, Members, MutualTls, Resource, Scopes, ServerUrl, quoted_words};

/// Why a document that was read is not used.
pub(super) enum NotUsed {
    /// It ends the search: it speaks for somebody else.
    Ends(Error),
    /// The next place is asked.
    Oddity(Oddity),
}

impl From<String> for NotUsed {
    fn from(what: String) -> Self {
        Self::Oddity(Oddity::Content(what))
    }
}

/// The metadata of a protected resource as published (RFC 9728 section 2).
pub(super) struct ResourceDocument {
    resource: String,
    authorization_servers: Vec<String>,
    scopes_supported: Option<Vec<String>>,
    dpop_bound_access_tokens_required: bool,
}

impl ResourceDocument {
    /// Reads the members. Fails if `resource` is missing, or if one is of the wrong kind that decides who is asked or what a
    /// token must be bound to.
    pub(super) fn read(members: &Members<'_>) -> Result<Self, String> {
        // A token bound to a certificate is not asked for by this, but a value that is none shows that the document is not one.
        members.flag("tls_client_certificate_bound_access_tokens")?;
        let mut authorization_servers: Vec<String> = Vec::new();
        for one in members.texts("authorization_servers")?.unwrap_or_default() {
            // An issuer that is listed twice is still one.
            if !authorization_servers.contains(&one) {
                authorization_servers.push(one);
            }
        }
        Ok(Self {
            resource: members.needed_text("resource")?,
            authorization_servers,
            scopes_supported: members.optional_texts("scopes_supported"),
            dpop_bound_access_tokens_required: members.flag("dpop_bound_access_tokens_required")?,
        })
    }

    /// Does it name this resource, byte for byte?
    pub(super) fn is_of(&self, resource: &Resource) -> bool {
        self.resource == resource.as_str()
    }

    /// Checks the metadata that was published at `place`. Fails if `resource` does not stand for this server.
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
        Ok(ResourceMetadata {
            resource,
            confirm_at,
            authorization_servers: self.authorization_servers,
            scopes_supported: self.scopes_supported.map(usable),
            wants_dpop: self.dpop_bound_access_tokens_required,
        })
    }
}

/// The scopes of a list. Blanks, empty texts and whatever else cannot be one scope are left out.
fn usable(list: Vec<String>) -> Scopes {
    let good = list.iter().map(String::as_str).filter(|one| Scopes::from_list([*one]).is_ok_and(|one| !one.is_empty()));
    Scopes::from_list(good).unwrap_or_default()
}

/// Reads the metadata of an authorization server (RFC 8414 section 2) and checks it. Its oddity is that `issuer` is missing, or
/// that there is no usable token endpoint. The search ends if `issuer` is not `asked`.
pub(super) fn server(members: &Members<'_>, asked: &Issuer) -> Result<AuthorizationServer, NotUsed> {
    let issuer = members.needed_text("issuer")?;
    let usable = |text: String| ServerUrl::parse(&text).ok().map(|_| Arc::from(text));
    // An invalid optional endpoint counts as missing: it must not prevent a token request.
    let optional = |members: &Members<'_>, name| members.optional_text(name).and_then(usable);
    if issuer != asked.as_str() {
        let endpoint = optional(members, "token_endpoint").map(|endpoint: Arc<str>| endpoint.to_string());
        let (found, asked) = (quoted_words(&issuer), asked.to_string());
        return Err(NotUsed::Ends(Error::IssuerMismatch { found, asked, endpoint }));
    }
    let endpoint = members.needed_text("token_endpoint");
    let endpoint =
        endpoint.and_then(|text| usable(text).ok_or_else(|| "its `token_endpoint` is not a usable URL".to_owned()));
    let aliases = members.optional_object("mtls_endpoint_aliases");
    let alias = |name| aliases.as_ref().and_then(|aliases| optional(aliases, name));
    Ok(AuthorizationServer {
        issuer: asked.clone(),
        token_endpoint: endpoint.map_err(|what| NotUsed::Oddity(Oddity::Endpoint(what)))?,
        grant_types: members.optional_texts("grant_types_supported"),
        revocation_endpoint: optional(members, "revocation_endpoint"),
        registration_endpoint: optional(members, "registration_endpoint"),
        auth_methods: members.texts("token_endpoint_auth_methods_supported")?,
        auth_algorithms: members.optional_texts("token_endpoint_auth_signing_alg_values_supported"),
        takes_metadata_documents: members.optional_flag("client_id_metadata_document_supported"),
        dpop_algorithms: members.optional_texts("dpop_signing_alg_values_supported"),
        mutual_tls: MutualTls {
            token_endpoint: alias("token_endpoint"),
            revocation_endpoint: alias("revocation_endpoint"),
        },
    })
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
        let checked = |place: &str, resource: &str| {
            let document = read(&serde_json::json!({ "resource": resource }).to_string()).expect("a document");
            let metadata = document.checked(&ServerUrl::parse(place).expect("good"), &server);
            metadata.map(|metadata| metadata.confirm_at.map(|place| place.as_str().to_owned()))
        };
        const ROOT: &str = "https://gw.example/.well-known/oauth-protected-resource";
        let own = format!("{ROOT}/evil/mcp");
        let below = "https://gw.example/evil/mcp/document";
        let to_ask = |place: &str| Ok(Some(place.to_owned()));
        for place in [&own, below] {
            assert_eq!(checked(place, "https://gw.example/evil/mcp"), Ok(None), "of itself");
            assert_eq!(checked(place, "https://GW.example:443/evil/mcp/"), Ok(None), "of itself, in another spelling");
            assert_eq!(checked(place, "https://gw.example"), to_ask(ROOT));
            assert_eq!(checked(place, "https://gw.example/"), to_ask(ROOT));
            assert_eq!(checked(place, "https://gw.example/evil"), to_ask(&format!("{ROOT}/evil")));
        }
        assert_eq!(checked(ROOT, "https://gw.example"), Ok(None), "the origin speaks for itself");
        assert_eq!(checked(&format!("{ROOT}/evil"), "https://gw.example/evil"), Ok(None));
        assert_eq!(checked(&format!("{ROOT}/evil"), "https://gw.example"), to_ask(ROOT));
        // Another origin speaks for exactly this URL.
        let elsewhere = "https://docs.example/.well-known/oauth-protected-resource";
        assert_eq!(checked(elsewhere, "https://gw.example/evil/mcp"), Ok(None));
        for resource in ["https://gw.example", "https://gw.example/evil/mcp/", "https://gw.example/evil"] {
            assert!(matches!(checked(elsewhere, resource), Err(Error::ResourceMismatch { .. })), "{resource}");
        }
    }

    fn read(text: &str) -> Result<ResourceDocument, String> {
        ResourceDocument::read(&Members::read(text).expect("an object"))
    }

    #[test]
    fn what_decides_who_is_asked_is_read_strictly_and_the_rest_leniently() {
        let good = read(
            r#"{"resource":["https://h/mcp"],"authorization_servers":["https://a","https://a"],"scopes_supported":["a"," ","","b c",7,null],
                "dpop_bound_access_tokens_required":null,"resource_name":7,"jwks_uri":{}}"#,
        )
        .expect("plain enough");
        assert_eq!((&*good.resource, &*good.authorization_servers), ("https://h/mcp", &["https://a".to_owned()][..]));
        assert_eq!(usable(good.scopes_supported.expect("a list")).to_string(), "a");
        assert_eq!(
            read(r#"{"resource":"x","authorization_servers":"https://a"}"#).map(|one| one.authorization_servers),
            Ok(vec!["https://a".to_owned()])
        );
        for (bad, named) in [
            (r#"{"resource":"x","authorization_servers":{}}"#, "authorization_servers"),
            (r#"{"resource":"x","authorization_servers":[7]}"#, "authorization_servers"),
            (r#"{"resource":"x","dpop_bound_access_tokens_required":"false"}"#, "dpop_bound_access_tokens_required"),
            (
                r#"{"resource":"x","tls_client_certificate_bound_access_tokens":1}"#,
                "tls_client_certificate_bound_access_tokens",
            ),
            (r#"{"authorization_servers":[]}"#, "`resource`"),
        ] {
            assert!(read(bad).is_err_and(|why| why.contains(named)), "{bad}");
        }
    }

    #[test]
    fn an_issuer_must_match_byte_for_byte() {
        let asked = Issuer::parse("https://as.example.com").expect("good");
        let read = |issuer: &str, more: &str| {
            let text = format!(r#"{{"issuer":"{issuer}","token_endpoint":"https://as.example.com/token"{more}}}"#);
            server(&Members::read(&text).expect("an object"), &asked)
        };
        assert!(read("https://as.example.com", "").is_ok());
        for bad in ["https://as.example.com/", "https://AS.example.com", "https://evil.example"] {
            let ended = read(bad, "");
            assert!(matches!(ended, Err(NotUsed::Ends(Error::IssuerMismatch { endpoint: Some(_), .. }))), "{bad}");
        }
        let odd = r#","grant_types_supported":null,"revocation_endpoint":7,"client_id_metadata_document_supported":"yes","mtls_endpoint_aliases":[]"#;
        let read = read("https://as.example.com", odd).unwrap_or_else(|_| panic!("nobody needs these"));
        assert_eq!((read.grant_types, read.revocation_endpoint, read.takes_metadata_documents), (None, None, false));
    }

    #[test]
    fn a_document_without_a_token_endpoint_sends_the_search_on() {
        let asked = Issuer::parse("https://as.example.com").expect("good");
        for more in ["", r#","token_endpoint":7"#, r#","token_endpoint":"/token""#, r#","token_endpoint":null"#] {
            let text = format!(r#"{{"issuer":"https://as.example.com"{more}}}"#);
            let read = server(&Members::read(&text).expect("an object"), &asked);
            assert!(matches!(read, Err(NotUsed::Oddity(Oddity::Endpoint(_)))), "{more}");
        }
    }
}
