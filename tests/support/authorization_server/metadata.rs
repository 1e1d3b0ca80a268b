//! The metadata document and its URLs (RFC 8414 section 3, OpenID Connect Discovery section 4).

use hyper::body::Incoming;
use hyper::{Method, Request};
use serde_json::{Value, json};

use super::super::fault;
use super::super::keys::{self, Claims};
use super::super::listener::Answer;
use super::{MetadataFault, State, not_found};

pub(super) async fn answer(state: &State, request: &Request<Incoming>) -> Answer {
    let path = request.uri().path();
    state.now().metadata_paths.push(path.to_owned());
    if request.method() != Method::GET || !state.publishes(path) {
        return Ok(not_found(path));
    }
    let mut document = state.metadata();
    match state.metadata_script.next() {
        None => {}
        Some(MetadataFault::Wire(fault)) => {
            return fault.answer(&Value::Object(document).to_string()).await;
        }
        Some(MetadataFault::WrongIssuer(issuer)) => {
            keys::overlay(&mut document, &json!({"issuer": issuer}));
        }
        Some(MetadataFault::NoTokenEndpoint) => {
            keys::overlay(&mut document, &json!({"token_endpoint": null}));
        }
        Some(MetadataFault::TokenEndpoint(url)) => {
            keys::overlay(&mut document, &json!({"token_endpoint": url}));
        }
    }
    Ok(fault::json(200, Value::Object(document).to_string()))
}

impl State {
    fn metadata(&self) -> Claims {
        let issuer = self.issuer();
        let [token, revoke, register] = ["token", "revoke", "register"].map(|name| self.endpoint(name));
        let now = self.now();
        let mut document = keys::object(json!({
            "issuer": issuer,
            "token_endpoint": token,
            "revocation_endpoint": revoke,
            "registration_endpoint": register,
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "private_key_jwt"],
            "response_types_supported": [],
        }));
        if let Some(grants) = &now.grants {
            document.insert("grant_types_supported".to_owned(), json!(grants));
        }
        keys::overlay(&mut document, &now.metadata);
        document
    }

    /// Whether metadata is served at `path` now.
    fn publishes(&self, path: &str) -> bool {
        let now = self.now();
        let (published, tenant) = (now.published, now.path.trim_end_matches('/'));
        (published.oauth && path == format!("/.well-known/oauth-authorization-server{tenant}"))
            || (published.openid_inserted && path == format!("/.well-known/openid-configuration{tenant}"))
            || (published.openid_appended && path == format!("{tenant}/.well-known/openid-configuration"))
    }
}
