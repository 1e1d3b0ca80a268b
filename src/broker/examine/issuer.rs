//! Checks of the authorization server's metadata (RFC 8414, OpenID Connect Discovery).

use futures_util::future::join_all;
use serde_json::Value;

use super::super::error::NoRoute;
use super::resource::is_secure;
use super::{Check, ExaminationRun, Party, rules};
use crate::discovery::{self, Document, FetchedDocument, Oddity, Search};
use crate::exchange::{self, ClientAuth, IssuerOrigin};
use crate::oauth::{AuthorizationServer, Issuer, quoted_words};

impl ExaminationRun<'_> {
    /// Fetches and checks the metadata. `None` if no token can be requested with it.
    pub(super) async fn metadata(&mut self, issuer: &Issuer, issuer_is: IssuerOrigin) -> Option<AuthorizationServer> {
        self.report.waits_for("the server metadata");
        let urls = issuer.metadata_urls();
        let origins = self.maker.origins(self.server, issuer);
        let seen = join_all(urls.iter().map(|url| self.maker.discovery.see_with(url, &origins, None))).await;
        let (found, metadata) = self.found(issuer, &seen)?;
        let endpoint = quoted_words(&metadata.token_endpoint);
        if !is_secure(&metadata.token_endpoint) {
            let check =
                rules::TOKEN_ENDPOINT.fail("`token_endpoint` is not https", "serve the token endpoint over https");
            self.report.push(check);
            return None;
        }
        self.report.push(rules::TOKEN_ENDPOINT.pass(format!("token endpoint {endpoint}")));
        let document = &found.json().unwrap_or_default();
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

    /// The first place with the document, by the rule of every flight, and what it says. Adds the checks for its place, its form
    /// and its issuer. `None` if a flight would fail here.
    fn found<'a>(
        &mut self,
        issuer: &Issuer,
        seen: &'a [FetchedDocument],
    ) -> Option<(&'a FetchedDocument, AuthorizationServer)> {
        let mut search = Search::of(Document::Server);
        let mut weighed = seen
            .iter()
            .map(|one| search.server(one, issuer).map(|found| Some((one, found?))).map_err(|error| (one, error)));
        let outcome = weighed.find_map(Result::transpose);
        drop(weighed);
        let (found, metadata) = match outcome {
            Some(Ok((found, metadata))) => (found, Ok(metadata)),
            Some(Err((found, error @ discovery::Error::IssuerMismatch { .. }))) => (found, Err(error)),
            Some(Err((_, error))) => {
                self.report.push(rules::SERVER_METADATA.fail_with(&error.into()));
                return None;
            }
            None => {
                self.not_found(search.nowhere(issuer.as_str()));
                return None;
            }
        };
        self.saw_date(Party::AuthorizationServer, found.answer.as_ref().ok().and_then(|answered| answered.date));
        self.report.push(rules::SERVER_METADATA.pass(format!("published at {}", quoted_words(&found.url))));
        self.report.push(rules::SERVER_DOCUMENT.pass("200, application/json, an object with `issuer`"));
        self.server_places_agree(found, &found.json().unwrap_or_default(), seen);
        match metadata {
            Ok(metadata) => {
                self.report.push(rules::SERVER_ISSUER.pass("`issuer` is the one asked for, byte for byte"));
                Some((found, metadata))
            }
            Err(error) => {
                self.report.push(rules::SERVER_ISSUER.fail_with(&error.into()));
                None
            }
        }
    }

    /// Adds the failed check of a search that found no usable document.
    fn not_found(&mut self, error: discovery::Error) {
        let rule = match &error {
            discovery::Error::Unusable { why: Oddity::Content(_), place, .. } => {
                self.report.push(rules::SERVER_METADATA.pass(format!("published at {place}")));
                &rules::SERVER_DOCUMENT
            }
            discovery::Error::Unusable { why: Oddity::Endpoint(_), place, .. } => {
                self.report.push(rules::SERVER_METADATA.pass(format!("published at {place}")));
                self.report.push(rules::SERVER_DOCUMENT.pass("200, application/json, an object with `issuer`"));
                self.report.push(rules::SERVER_ISSUER.pass("`issuer` is the one asked for, byte for byte"));
                &rules::TOKEN_ENDPOINT
            }
            _ => &rules::SERVER_METADATA,
        };
        let error = error.into();
        self.report.push(rule.fail_with(&error));
    }

    /// Warns if two places publish different documents.
    fn server_places_agree(&mut self, found: &FetchedDocument, document: &Value, seen: &[FetchedDocument]) {
        let differs = |other: &&FetchedDocument| {
            other.url != found.url
                && other
                    .json()
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
