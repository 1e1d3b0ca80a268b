//! Keycloak's tokens that are bound to a key (DPoP, RFC 9449) or to a certificate (mutual TLS, RFC 8705).

use serde_json::{Value, json};

use super::keycloak::keycloak;
use super::realm::{BY_WORKLOAD, NAME, Realm, is_refusal};
use crate::fakes::platform::SUBJECT;
use crate::fakes::unix_http::Reply;
use crate::fakes::{keys, leak};
use crate::keys::{Authority, Certified};

const DENIED: i32 = 77;

/// Keycloak's user info is a resource server that verifies proofs.
#[tokio::test]
async fn keycloak_takes_its_token_with_our_proof_and_not_without() {
    let path = format!("/realms/{NAME}/protocol/openid-connect/userinfo");
    let Some(keycloak) = keycloak() else { return };
    let url = format!("{}{path}", keycloak.http);
    let Some(realm) = Realm::guarding(&url).await else { return };
    let assertion = realm.assertion(&json!({ "sub": format!("{SUBJECT}:bound") }));
    let file = realm.world.write("private/assertion.jwt", &assertion).display().to_string();
    let config = realm.config(&format!("{BY_WORKLOAD}dpop = true\nscopes = [\"openid\"]\n"));
    let daemon = realm.world.clone().config(&config).daemon(&["--identity-file", &file]).await;

    let encoded: String = url::form_urlencoded::byte_serialize(url.as_bytes()).collect();
    let mut headers = Vec::new();
    for _ in 0..2 {
        let reply = daemon.get(&format!("/v1/headers?server=demo&method=GET&url={encoded}")).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        headers.push(reply.json()["headers"].clone());
    }
    let of = |at: usize, name: &str| headers[at][name][0].as_str().unwrap_or_default().to_owned();
    let token = of(0, "Authorization").trim_start_matches("DPoP ").to_owned();
    leak::minted(&token);
    assert!(keys::peek(&token)["cnf"]["jkt"].is_string(), "the token names the key");

    let ask = async |lines: &str| -> Reply { keycloak.send("GET", &path, lines, ("text/plain", "")).await };
    let with_proof = |at: usize| format!("authorization: {}\r\ndpop: {}\r\n", of(at, "Authorization"), of(at, "DPoP"));
    let reply = ask(&with_proof(0)).await;
    assert_eq!((reply.status, reply.json()["sub"].is_string()), (200, true), "{}", reply.body);
    assert_eq!(ask(&with_proof(0)).await.status, 401, "a proof is good once");
    assert_eq!(ask(&with_proof(1)).await.status, 200, "and each request has its own");
    assert_eq!(ask(&format!("authorization: Bearer {token}\r\n")).await.status, 401, "the bare token is worth nothing");
    daemon.run(&["token", "demo"]).await.expect_code(DENIED);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn keycloak_asks_for_a_proof_that_is_not_configured() {
    let Some(realm) = Realm::new().await else { return };
    let assertion = realm.assertion(&json!({ "sub": format!("{SUBJECT}:bound") }));
    let output = realm.token_for(&realm.config(BY_WORKLOAD), &assertion).await;
    is_refusal(&output, "invalid_request", "DPoP proof is missing");
    assert!(output.stderr.contains("dpop = true"), "the hint: {}", output.stderr);
}

#[tokio::test]
async fn a_token_is_bound_to_our_certificate() {
    let Some(realm) = over_tls().await else { return };
    let certified = realm.keycloak.authority.vouches_for("certified-agent");
    let daemon = realm.world.clone().config(&by_certificate(&realm, &certified)).daemon(&[]).await;
    let resource: String = url::form_urlencoded::byte_serialize(realm.resource.as_bytes()).collect();
    let reply = daemon.get(&format!("/v1/headers?server=demo&method=POST&url={resource}")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let headers = reply.json()["headers"].clone();
    let token = headers["Authorization"][0].as_str().unwrap_or_default().trim_start_matches("Bearer ").to_owned();
    leak::minted(&token);
    let claims = realm.claims(&token).await;
    assert_eq!(claims["cnf"], json!({ "x5t#S256": certified.thumbprint() }), "{claims}");
    daemon.run(&["token", "demo"]).await.expect_code(DENIED);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_certificate_of_another_name_or_of_another_authority_is_refused() {
    let Some(realm) = over_tls().await else { return };
    let another = realm.keycloak.authority.vouches_for("another-agent");
    is_refusal(&realm.token(&by_certificate(&realm, &another)).await, "invalid_client", "");
    // Keycloak ends the handshake.
    let stranger = Authority::new().vouches_for("certified-agent");
    let output = realm.token(&by_certificate(&realm, &stranger)).await;
    assert_ne!(output.code, Some(0), "{}", output.stderr);
    assert_eq!(output.stdout, "");
}

async fn over_tls() -> Option<Realm> {
    Realm::at(&keycloak()?.https).await
}

fn by_certificate(realm: &Realm, certified: &Certified) -> String {
    let file = |name: &str, text: &str| realm.world.write(&format!("private/{name}"), text).display().to_string();
    let authority = file("authority.pem", &realm.keycloak.authority.pem());
    let (certificate, key) = (file("agent.pem", &certified.certificate), file("agent.key", &certified.key));
    let value = |text: &str| Value::from(text).to_string();
    format!(
        "[egress]\ninsecure_loopback = true\nca_file = {}\n[servers.demo]\nurl = {}\nissuer = {}\n\
         exchange = \"client-credentials\"\nclient_auth = \"mtls\"\nclient_id = {}\n\
         client_cert_file = {}\nclient_key_file = {}\n",
        value(&authority),
        value(&realm.resource),
        value(&realm.issuer()),
        value(&realm.name("certified")),
        value(&certificate),
        value(&key)
    )
}
