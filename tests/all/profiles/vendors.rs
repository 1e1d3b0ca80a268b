//! Authorization servers of other vendors: Keycloak, Auth0, Okta, Hydra.

use super::*;

#[tokio::test]
async fn keycloak_takes_the_grant_of_a_confidential_client() {
    let scene = Scene::new(binary()).await;
    profiles::keycloak_grant(&scene, SUBJECT);
    let example = Example::new(&scene, "keycloak-jwt-grant", "https://keycloak.example.com/realms/agents");
    let (example, proof) = example.with_key(KEY);
    scene.authorization_server.add_client("mcp-agent", proof);
    example.works().await;
    let sent = scene.authorization_server.last_request();
    assert_eq!(sent.params["resource"], scene.mcp.url(), "sent, and ignored");
    // As for a server that needs no client.
    let text = example.text.lines().filter(|line| !line.starts_with("client_")).collect::<Vec<_>>().join("\n");
    let anonymous = Example { scene: &scene, text };
    anonymous
        .fails(
            REFUSED,
            &["invalid_client", "Invalid client or Invalid client credentials"],
            &["`client_id`", "`client_auth`"],
        )
        .await;
    profiles::keycloak_grant(&scene, "repo:somebody/else:ref:refs/heads/main");
    example.fails(REFUSED, &["invalid_grant", "User not found"], &["operator must link", "whoami"]).await;
}

#[tokio::test]
async fn keycloak_takes_a_jwt_once_and_soon() {
    let scene = Scene::new(binary()).await;
    profiles::keycloak_grant(&scene, SUBJECT);
    let example = Example::new(&scene, "keycloak-jwt-grant", "https://keycloak.example.com/realms/agents");
    let (example, proof) = example.with_key(KEY);
    scene.authorization_server.add_client("mcp-agent", proof);
    let file = scene.safeconduct.private("identity.jwt");
    let old = json!({"iat": keys::now() as u64 - 1_200, "nbf": keys::now() as u64 - 1_200});
    for (claims, words, runs) in [(Value::Null, "Token reuse detected", 2), (old, "too far in the past", 1)] {
        let token = scene.platform.mint_with(&scene.authorization_server.issuer(), Duration::from_secs(3_600), &claims);
        fs::write(&file, token).expect("ours");
        let named = ["token", "demo", "--identity-file", &file.display().to_string()];
        for _ in 1..runs {
            example.world().run(&named).await.expect_code(0);
        }
        let output = example.world().run(&named).await.expect_code(REFUSED);
        tells(&output, &["invalid_grant", words], &["mints anew"]);
    }
}

#[tokio::test]
async fn keycloak_federates_a_client() {
    let scene = Scene::new(binary()).await;
    let example = Example::new(&scene, "keycloak-federated-client", "https://keycloak.example.com/realms/agents");
    scene.authorization_server.federate("mcp-agent", SUBJECT);
    example.works().await;
    let nameless = example.with("client_id = ", "# client_id = ");
    nameless.fails(REFUSED, &["client_id is missing"], &["`client_id`"]).await;
}

#[tokio::test]
async fn auth0_is_told_the_audience() {
    let scene = Scene::new(binary()).await;
    profiles::auth0(&scene);
    assert!(scene.authorization_server.issuer().ends_with('/'));
    let (example, proof) = Example::new(&scene, "auth0", "https://acme.eu.auth0.com/").with_key(KEY);
    scene.authorization_server.add_client("AbCdEfGhIjKlMnOpQrStUvWxYz012345", proof);
    example.works().await;
    let line = format!("audience = \"{}\"\n", scene.mcp.url());
    let silent = example.with(&line, "");
    silent.fails(REFUSED, &["access_denied", "No audience parameter"], &["`audience`"]).await;
    let slashed = example.with(&line, &format!("audience = \"{}/\"\n", scene.mcp.url()));
    slashed.fails(REFUSED, &["access_denied", "Service not enabled within domain"], &["character by character"]).await;
    let other_grant = example.with("\"client-credentials\"", "\"jwt-bearer\"");
    other_grant.fails(REFUSED, &["unauthorized_client", "Grant type"], &["operator must allow"]).await;
    let issuer = scene.authorization_server.issuer();
    let bare = example.with(&quoted(&issuer), &quoted(issuer.trim_end_matches('/')));
    bare.fails(REFUSED, &["issuer"], &["`issuer`"]).await;
}

#[tokio::test]
async fn okta_wants_scopes_and_by_default_a_proof() {
    let scene = Scene::new(binary()).await;
    profiles::okta(&scene, false);
    let issuer = "https://acme.okta.com/oauth2/aus1234567890abcdef";
    let (example, proof) = Example::new(&scene, "okta", issuer).with_key(KEY);
    scene.authorization_server.add_client("0oa1234567890abcdef", proof);
    example.works().await;
    // If the MCP server does not list its scopes, the configuration must.
    scene.mcp.set_metadata(json!({"scopes_supported": null}));
    example.works().await;
    let without = example.with("scopes = [\"demo:read\"]", "");
    without.fails(REFUSED, &["invalid_scope", "must be provided"], &["`scopes`"]).await;
    let other = example.with("demo:read", "demo:admin");
    other.fails(REFUSED, &["invalid_scope", "not configured"], &["`scopes`", "operator"]).await;
    profiles::okta(&scene, true);
    scene.authorization_server.set_nonce(Some("okta-nonce-1"));
    example.fails(REFUSED, &["invalid_dpop_proof", "is missing"], &["`dpop = true`", "operator"]).await;
    let bound = example.with("client_key_id", "dpop = true\nclient_key_id");
    let headers = format!("/v1/headers?server=demo&method=POST&url={}", scene.mcp.url());
    let reply = bound.world().daemon(&[]).await.get(&headers).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
}

#[tokio::test]
async fn hydra_is_the_audience_by_its_endpoint() {
    let scene = Scene::new(binary()).await;
    profiles::hydra(&scene);
    let endpoint = scene.authorization_server.token_endpoint();
    let example = Example::new(&scene, "ory-hydra", "https://hydra.example.com").with_secret();
    let example = example.with("https://hydra.example.com/oauth2/token", &endpoint);
    scene.authorization_server.add_client("mcp-agent", ClientProof::Basic(SECRET.to_owned()));
    assert_eq!(keys::peek(&example.works().await)["aud"], json!(endpoint));
    let for_the_issuer = example.with("subject_audience = ", "# subject_audience = ");
    // The important part of the server's message is cut off; the hint uses it anyway.
    for_the_issuer.fails(REFUSED, &["invalid_grant"], &["`subject_audience`"]).await;
    let wider = example.with("[\"demo:read\"]", "[\"demo:read\", \"demo:write\"]");
    wider.fails(REFUSED, &["invalid_scope"], &["`scopes`", "operator"]).await;
    let text = example.text.lines().filter(|line| !line.starts_with("client_")).collect::<Vec<_>>().join("\n");
    let anonymous = Example { scene: &scene, text };
    anonymous.fails(REFUSED, &["invalid_client", "no client authentication"], &["`client_id`"]).await;
}
