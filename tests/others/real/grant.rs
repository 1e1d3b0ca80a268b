//! Keycloak's JWT authorization grant (RFC 7523): the platform's JWT is the grant, and a client with a key presents it.

use serde_json::{Value, json};

use super::realm::{Realm, is_refusal};

fn by_grant(realm: &Realm, client: &str) -> String {
    let key = realm.key_file();
    realm.config(&format!(
        "exchange = \"jwt-bearer\"\nclient_id = \"{}\"\nclient_auth = \"private-key-jwt\"\nclient_key_file = \"{key}\"\n",
        realm.name(client)
    ))
}

#[tokio::test]
async fn the_example_for_the_grant_works_as_it_stands() {
    let Some(realm) = Realm::new().await else { return };
    let output = realm.token(&realm.example("keycloak-jwt-grant", "grant")).await.expect_code(0);
    let claims = realm.claims(output.stdout.trim()).await;
    assert_eq!(
        (&claims["azp"], &claims["preferred_username"]),
        (&json!(realm.name("grant")), &json!(realm.name("user")))
    );
}

#[tokio::test]
async fn a_grant_that_keycloak_does_not_take() {
    let Some(realm) = Realm::new().await else { return };
    let stranger = json!({ "sub": "repo:octo-org/other:ref:refs/heads/main" });
    let cases = [
        ("grant", stranger, "invalid_grant", "User not found"),
        (
            "ungranted",
            Value::Null,
            "invalid_grant",
            "JWT Authorization Grant is not supported for the requested client",
        ),
        ("somebody-else", Value::Null, "invalid_client", ""),
    ];
    for (client, overrides, code, words) in cases {
        let output = realm.token_for(&by_grant(&realm, client), &realm.assertion(&overrides)).await;
        is_refusal(&output, code, words);
    }
    let assertion = realm.assertion(&Value::Null);
    realm.token_for(&by_grant(&realm, "grant"), &assertion).await.expect_code(0);
    let again = realm.token_for(&by_grant(&realm, "grant"), &assertion).await;
    is_refusal(&again, "invalid_grant", "Token reuse detected");
}

/// Keycloak lists the grant, but takes it from a client with a proof alone.
#[tokio::test]
async fn without_a_client_it_is_refused() {
    let Some(realm) = Realm::new().await else { return };
    is_refusal(&realm.token(&realm.config("")).await, "invalid_client", "");
}
