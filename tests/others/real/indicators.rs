//! Keycloak that looks at `resource` (RFC 8707), which is an experiment of its own: it has to be switched on.

use serde_json::{Value, json};

use super::keycloak::with_resource_indicators;
use super::realm::{BY_WORKLOAD, NAME, Realm, UNAVAILABLE, is_refusal};
use crate::fakes::keys;
use crate::parties::McpServer;

/// It takes the MCP server for a client, and gives a token for exactly that URL. Without a refresh token it breaks down.
#[tokio::test]
async fn a_token_is_for_the_resource_that_keycloak_knows() {
    let Some(keycloak) = with_resource_indicators() else { return };
    let mcp = McpServer::bind();
    let realm = Realm::of(keycloak, &mcp.url).await;
    mcp.guarded_by(&realm.issuer());
    let tenant = realm.tenant();
    let makes = async |what: &str, body: &Value| {
        keycloak.admin("POST", &format!("/admin/realms/{NAME}/{what}"), body).await;
    };
    makes("identity-provider/instances", &tenant["identityProviders"][0]).await;
    let of_url = json!({ "resource_url": realm.resource });
    let known = json!({ "clientId": realm.name("mcp"), "bearerOnly": true, "attributes": of_url });
    makes("clients", &known).await;
    let mut client = tenant["clients"][0].clone();
    client["protocolMappers"][0]["config"] =
        json!({ "included.client.audience": realm.name("mcp"), "access.token.claim": "true" });
    makes("clients", &client).await;

    let output = realm.token(&realm.config(BY_WORKLOAD)).await;
    assert_eq!((output.code, output.stdout.as_str()), (Some(UNAVAILABLE), ""), "{}", output.stderr);
    assert!(output.stderr.contains("status 500") && output.stderr.contains("`resource = \"\"`"), "{}", output.stderr);
    // As the hint says. Keycloak then calls the MCP server by its client's name.
    let output = realm.token(&realm.config(&format!("{BY_WORKLOAD}resource = \"\"\n"))).await.expect_code(0);
    assert_eq!(keys::peek(output.stdout.trim())["aud"], realm.name("mcp"));

    let refreshes = |client: &mut Value| client["attributes"]["client_credentials.use_refresh_token"] = json!("true");
    realm.change(&realm.client("workload").await, refreshes).await;
    let output = realm.token(&realm.config(BY_WORKLOAD)).await.expect_code(0);
    realm.claims(output.stdout.trim()).await;

    let moves = |client: &mut Value| client["attributes"]["resource_url"] = json!("https://elsewhere.example/mcp");
    realm.change(&realm.client("mcp").await, moves).await;
    let words = "The requested resource is invalid, missing, unknown, or malformed.";
    is_refusal(&realm.token(&realm.config(BY_WORKLOAD)).await, "invalid_target", words);
}
