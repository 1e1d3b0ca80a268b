//! Checks of the authorization server's metadata (RFC 8414, OpenID Connect Discovery).

use futures_util::future::join_all;
use serde_json::Value;

use super::super::Error;
use super::super::error::NoRoute;
use super::resource::is_secure;
use super::{Check, ExaminationRun, Party, rules};
use crate::discovery::{self, FetchedDocument, server_metadata};
use crate::exchange::{self, ClientAuth, IssuerOrigin};
use crate::oauth::{AuthorizationServer, Issuer, quoted_words};

const PLACE: &str = "the server metadata";

impl ExaminationRun<'_> {
    /// Fetches and checks the metadata. `None` if no token can be requested with it.
    pub(super) async fn metadata(&mut self, issuer: &Issuer, issuer_is: IssuerOrigin) -> Option<AuthorizationServer> {
        self.report.waits_for(PLACE);
        let urls = issuer.metadata_urls();
        let origins = self.maker.origins(self.server, issuer);
        let seen = join_all(urls.iter().map(|url| self.maker.discovery.see(url, &origins, None))).await;
        let found = match first(issuer, &seen) {
            Ok(found) => found,
            Err(error) => {
                self.report.push(rules::SERVER_METADATA.fail_with(&error));
                return None;
            }
        };
        self.saw_date(Party::AuthorizationServer, found.answer.as_ref().ok().and_then(|answered| answered.date));
        self.report.push(rules::SERVER_METADATA.pass(format!("published at {}", quoted_words(&found.url))));
        let document = self.server_document(found)?;
        self.server_places_agree(found, document, &seen);
        let metadata = self.checked(issuer, document, &found.url)?;
        let granted = self.grant_types(&metadata, document, issuer_is);
        self.report.push(auth_methods(self.server.order.client.auth, document));
        if self.dpop_required {
            self.report.push(dpop(document));
        }
        self.report.push(match &metadata.revocation_endpoint {
            Some(_) => rules::REVOCATION.pass("tokens can be revoked"),
            None => rules::REVOCATION.skip("not offered, which is allowed: tokens lapse by themselves"),
        });
        granted.then_some(metadata)
    }

    /// The document as JSON, if it has an `issuer`. Adds the check for its form.
    fn server_document<'a>(&mut self, found: &'a FetchedDocument) -> Option<&'a Value> {
        let document = found.document().filter(|document| document["issuer"].is_string());
        let check = match (&found.answer, document) {
            (_, Some(_)) => rules::SERVER_DOCUMENT.pass("200, application/json, an object with `issuer`"),
            (Ok(answered), None) => {
                let what = answered.document.as_ref().err().copied().unwrap_or("the document has no `issuer`");
                rules::SERVER_DOCUMENT
                    .fail(what, "answer 200 with a JSON object that has `issuer`, as application/json")
            }
            (Err(error), None) => rules::SERVER_DOCUMENT.fail(error.to_string(), "answer 200 with a JSON object"),
        };
        self.report.push(check);
        document
    }

    /// Warns if two places publish different documents.
    fn server_places_agree(&mut self, found: &FetchedDocument, document: &Value, seen: &[FetchedDocument]) {
        let differs = |other: &&FetchedDocument| {
            other.url != found.url
                && other
                    .document()
                    .is_some_and(|other| ["issuer", "token_endpoint"].iter().any(|key| other[*key] != document[*key]))
        };
        if let Some(other) = seen.iter().find(differs) {
            let what = format!("{} names another issuer or token endpoint", quoted_words(&other.url));
            self.report.push(
                rules::SERVER_PLACES
                    .warn(what, "publish the same document at every place: clients differ in where they look"),
            );
        }
    }

    /// Checks the issuer and the token endpoint in the metadata. `None` if either is wrong.
    fn checked(&mut self, issuer: &Issuer, document: &Value, url: &str) -> Option<AuthorizationServer> {
        let metadata = match server_metadata(document, issuer, url) {
            Err(error @ discovery::Error::IssuerMismatch { .. }) => {
                let check = rules::SERVER_ISSUER.fail_with(&error.into());
                self.report.push(with_slash_hint(check, issuer, document));
                return None;
            }
            metadata => metadata,
        };
        self.report.push(rules::SERVER_ISSUER.pass("`issuer` is the one asked for, byte for byte"));
        match metadata {
            Ok(metadata) if is_secure(&metadata.token_endpoint) => {
                let endpoint = quoted_words(&metadata.token_endpoint);
                self.report.push(rules::TOKEN_ENDPOINT.pass(format!("token endpoint {endpoint}")));
                Some(metadata)
            }
            Ok(_) => {
                let check =
                    rules::TOKEN_ENDPOINT.fail("`token_endpoint` is not https", "serve the token endpoint over https");
                self.report.push(check);
                None
            }
            Err(error) => {
                self.report.push(rules::TOKEN_ENDPOINT.fail_with(&error.into()));
                None
            }
        }
    }

    /// Checks the listed grants. True if there is one that we can use.
    fn grant_types(&mut self, metadata: &AuthorizationServer, document: &Value, issuer_is: IssuerOrigin) -> bool {
        let configured = self.server.order.exchange.as_deref();
        let Some(exchange) = exchange::choose(configured, metadata, issuer_is) else {
            self.report.push(rules::GRANT_TYPES.fail_with(&NoRoute::no_exchange(metadata).into()));
            return false;
        };
        let grant = exchange.traits().grant;
        let profiles = document["authorization_grant_profiles_supported"].as_array();
        let id_jag =
            profiles.is_some_and(|all| all.iter().any(|one| one == "urn:ietf:params:oauth:grant-profile:id-jag"));
        let more = if id_jag { "; ID-JAG is offered too" } else { "" };
        self.report.push(match metadata.offers(grant) {
            Some(true) => rules::GRANT_TYPES.pass(format!("{} is listed{more}", grant)),
            Some(false) => rules::GRANT_TYPES.warn(
                format!("{} is configured, and not in `grant_types_supported`{more}", grant),
                "list every grant that is accepted",
            ),
            None => rules::GRANT_TYPES.warn(
                format!("`grant_types_supported` is not given, which by default excludes {}", grant),
                "list every grant that is accepted: clients choose by it",
            ),
        });
        true
    }
}

/// The first place with a document. Fails if there is none, or if an earlier place is busy or cannot be reached.
fn first<'a>(issuer: &Issuer, seen: &'a [FetchedDocument]) -> Result<&'a FetchedDocument, Error> {
    for one in seen {
        match &one.answer {
            Ok(answered) if answered.status == 200 => return Ok(one),
            Ok(answered) if matches!(answered.status, 429 | 500..) => {
                let host = crate::oauth::host_in(&one.url);
                let status = answered.status;
                return Err(discovery::Error::Busy { place: PLACE, host, status, retry_after: None }.into());
            }
            Ok(_) => {}
            Err(error) => return Err(discovery::Error::Outbound { place: PLACE, error: error.clone() }.into()),
        }
    }
    Err(discovery::Error::NoServerMetadata { issuer: issuer.to_string() }.into())
}

/// Replaces the hint if the two issuers differ only by a trailing slash.
fn with_slash_hint(check: Check, issuer: &Issuer, document: &Value) -> Check {
    let found = document["issuer"].as_str().unwrap_or_default();
    if found.trim_end_matches('/') != issuer.as_str().trim_end_matches('/') {
        return check;
    }
    let cure = "they differ by a trailing slash alone: `issuer` here, `authorization_servers` of the MCP server and the pin must be one string";
    Check { cure: Some(cure.to_owned()), ..check }
}

fn dpop(document: &Value) -> Check {
    let listed = document["dpop_signing_alg_values_supported"].as_array().is_some_and(|listed| !listed.is_empty());
    if listed {
        return rules::DPOP_ALGORITHMS.pass("the resource requires DPoP, and it is offered");
    }
    rules::DPOP_ALGORITHMS.fail(
        "the resource requires DPoP, and the authorization server does not offer it",
        "list `dpop_signing_alg_values_supported`, or have the MCP server take back `dpop_bound_access_tokens_required`",
    )
}

fn auth_methods(configured: ClientAuth, document: &Value) -> Check {
    let rule = &rules::AUTH_METHODS;
    let Some(listed) = document["token_endpoint_auth_methods_supported"].as_array() else {
        return rule.skip("`token_endpoint_auth_methods_supported` is not given");
    };
    let listed: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
    let wanted: &[&str] = match configured {
        ClientAuth::None => &["none"],
        ClientAuth::Workload => &["private_key_jwt", "spiffe_jwt"],
        ClientAuth::PrivateKeyJwt => &["private_key_jwt"],
        ClientAuth::Secret => &["client_secret_basic", "client_secret_post"],
        ClientAuth::MutualTls => &["tls_client_auth", "self_signed_tls_client_auth"],
    };
    if listed.iter().any(|one| wanted.contains(one)) {
        return rule.pass(format!("client_auth {:?} is offered", configured.as_str()));
    }
    rule.warn(
        format!("client_auth is {:?}, and only {} is listed", configured.as_str(), quoted_words(&listed.join(", "))),
        format!(
            "have the authorization server list {}, or set `client_auth` and `client_id` as it wants them",
            wanted.join(" or ")
        ),
    )
}
