//! Federated client authentication of Keycloak: the platform's JWT proves a client, and there is no secret.

use serde_json::{Value, json};

use super::realm::{BY_WORKLOAD, Realm, is_refusal, issued};
use crate::fakes::keys::{self, Keys};
use crate::fakes::leak;
use crate::fakes::platform::SUBJECT;
use crate::scene::REFUSED;

const GENERIC: &str = "Invalid client or Invalid client credentials";

#[tokio::test]
async fn the_jobs_token_is_the_clients_proof() {
    let Some(realm) = Realm::new().await else { return };
    let output = realm.token(&realm.config(BY_WORKLOAD)).await.expect_code(0);
    let claims = realm.claims(output.stdout.trim()).await;
    assert_eq!(claims["azp"], realm.name("workload"), "the client is found by `sub`: {claims}");
    assert_eq!(realm.platform.audiences(), [realm.issuer()], "the realm's issuer is the audience, asked for once");
}

#[tokio::test]
async fn the_example_for_federated_clients_works_as_it_stands() {
    let Some(realm) = Realm::new().await else { return };
    let output = realm.token(&realm.example("keycloak-federated-client", "workload")).await.expect_code(0);
    assert_eq!(realm.claims(output.stdout.trim()).await["azp"], realm.name("workload"));
}

/// A name that Keycloak gave the client is taken since 26.6. Before that, `client_id` had to be the platform's `sub`.
#[tokio::test]
async fn a_client_that_is_named() {
    let Some(realm) = Realm::new().await else { return };
    let named = |name: &str| realm.config(&format!("{BY_WORKLOAD}client_id = \"{name}\"\n"));
    let output = realm.token(&named(&realm.name("workload"))).await;
    if realm.keycloak.is_preview() {
        is_refusal(&output, "invalid_client", "client_id parameter does not match sub claim");
    } else {
        let output = output.expect_code(0);
        assert_eq!(realm.claims(output.stdout.trim()).await["azp"], realm.name("workload"));
    }
    let output = realm.token(&named("somebody-else")).await;
    is_refusal(&output, "invalid_client", "");
}

#[tokio::test]
async fn an_identity_token_is_taken_once_and_its_access_token_stays_served() {
    let Some(realm) = Realm::new().await else { return };
    let assertion = realm.assertion(&Value::Null);
    let config = realm.config(BY_WORKLOAD);
    realm.token_for(&config, &assertion).await.expect_code(0);
    is_refusal(&realm.token_for(&config, &assertion).await, "invalid_client", "Token reuse detected");

    let second = realm.assertion(&Value::Null);
    let file = realm.world.write("private/second.jwt", &second).display().to_string();
    let daemon = realm.world.clone().config(&config).daemon(&["--identity-file", &file]).await;
    let token = daemon.token("demo").await;
    leak::minted(&token);
    // It can get no other one with the identity token that is used up. A token of the last second would count as a new one.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let output = daemon.run(&["token", "demo", "--fresh"]).await;
    issued(&output);
    assert_eq!(output.code, Some(REFUSED), "{}", output.stderr);
    assert_eq!(daemon.token("demo").await, token, "the token in hand is still served");
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_realm_that_allows_reuse_takes_an_identity_token_twice() {
    let Some(realm) = Realm::new().await else { return };
    let allow = |provider: &mut Value| provider["config"]["supportsClientAssertionReuse"] = json!("true");
    realm.change(&format!("identity-provider/instances/{}", realm.alias), allow).await;
    let assertion = realm.assertion(&Value::Null);
    for _ in 0..2 {
        realm.token_for(&realm.config(BY_WORKLOAD), &assertion).await.expect_code(0);
    }
}

/// Each of these proofs is refused at once, and its refusal shows Keycloak's own words where it has any.
#[tokio::test]
async fn a_proof_that_keycloak_does_not_take() {
    let Some(realm) = Realm::new().await else { return };
    let now = keys::now() as u64;
    let cases = [
        (json!({ "iat": now - 400, "nbf": now - 400 }), "Token was issued too far in the past to be used now"),
        (json!({ "jti": null }), "Token jti claim is required"),
        (json!({ "sub": "repo:octo-org/other:ref:refs/heads/main" }), GENERIC),
        (json!({ "iss": "https://somebody-else.example" }), GENERIC),
        (json!({ "aud": "https://somebody-else.example" }), "Invalid token audience"),
    ];
    for (overrides, words) in cases {
        let output = realm.token_for(&realm.config(&with_audience(&overrides)), &realm.assertion(&overrides)).await;
        assert_eq!((output.code, output.stdout.as_str()), (Some(76), ""), "{overrides}: {}", output.stderr);
        assert!(output.stderr.contains(words), "{overrides}, {words:?}: {}", output.stderr);
    }
    let mut claims = keys::peek(&realm.assertion(&Value::Null));
    claims.insert("jti".to_owned(), json!(keys::unique_id()));
    let forged = Keys::generate("platform-key-1").sign("JWT", &claims);
    is_refusal(&realm.token_for(&realm.config(BY_WORKLOAD), &forged).await, "invalid_client", GENERIC);
}

/// safeconduct itself refuses to present a token for somebody else, unless it is told that this is right.
fn with_audience(overrides: &Value) -> String {
    match overrides["aud"].as_str() {
        Some(audience) => format!("{BY_WORKLOAD}subject_audience = \"{audience}\"\n"),
        None => BY_WORKLOAD.to_owned(),
    }
}

#[tokio::test]
async fn a_disabled_client_gets_nothing() {
    let Some(realm) = Realm::new().await else { return };
    realm.token(&realm.config(BY_WORKLOAD)).await.expect_code(0);
    realm.change(&realm.client("workload").await, |client| client["enabled"] = json!(false)).await;
    is_refusal(&realm.token(&realm.config(BY_WORKLOAD)).await, "invalid_client", "");
}

/// Keycloak names no audience of its own accord. The operator has to learn that the server will refuse this token.
#[tokio::test]
async fn a_client_without_a_mapper_gives_a_token_without_audience() {
    let Some(realm) = Realm::new().await else { return };
    let assertion = realm.assertion(&json!({ "sub": format!("{SUBJECT}:unmapped") }));
    let output = realm.token_for(&realm.config(BY_WORKLOAD), &assertion).await.expect_code(0);
    assert!(keys::peek(output.stdout.trim()).get("aud").is_none());
}
