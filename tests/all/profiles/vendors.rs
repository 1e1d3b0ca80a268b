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
    example.fails(REFUSED, &["invalid_grant", "User not found"], &["operator must link", "was presented"]).await;
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

const REALM: &str = "https://keycloak.example.com/realms/agents";

#[tokio::test]
async fn keycloak_finds_a_federated_client_by_its_subject() {
    let scene = Scene::new(binary()).await;
    profiles::keycloak_federated(&scene, false);
    scene.authorization_server.federate("mcp-agent", SUBJECT);
    let example = Example::new(&scene, "keycloak-federated-client", REALM);
    example.works().await;
    assert!(!scene.authorization_server.last_request().params.contains_key("client_id"), "it is found by `sub`");
    let named = example.with("client_auth = ", "client_id = \"mcp-agent\"\nclient_auth = ");
    named.fails(REFUSED, &["invalid_client", "does not match sub claim"], &["leave `client_id` out"]).await;
    let elsewhere = example.with("client_auth = ", "subject_audience = \"https://other.example\"\nclient_auth = ");
    elsewhere.fails(REFUSED, &["Invalid token audience"], &["leave `subject_audience` out"]).await;
    let other = FakePlatform::start().await;
    scene.authorization_server.trust_only(other.trust());
    example
        .fails(
            REFUSED,
            &["Invalid client or Invalid client"],
            &["`client_id`", "what was presented", "bound to the client"],
        )
        .await;
}

#[tokio::test]
async fn keycloak_says_how_old_a_jwt_may_be_and_whether_it_is_over() {
    let scene = Scene::new(binary()).await;
    profiles::keycloak_federated(&scene, false);
    scene.authorization_server.federate("mcp-agent", SUBJECT);
    let example = Example::new(&scene, "keycloak-federated-client", REALM);
    let file = scene.safeconduct.private("identity.jwt");
    let now = keys::now() as u64;
    for (claims, words, hint) in [
        (json!({"iat": now - 400, "nbf": now - 400}), "too far in the past", "`expirationSeconds`"),
        (json!({"iat": now - 900, "nbf": now - 900, "exp": now - 200}), "Token is not active", "`exp`"),
    ] {
        let token = scene.platform.mint_with(&scene.authorization_server.issuer(), Duration::from_secs(3_600), &claims);
        fs::write(&file, token).expect("ours");
        let output = example.world().run(&["token", "demo", "--identity-file", &file.display().to_string()]).await;
        tells(&output.expect_code(REFUSED), &["invalid_client", words], &[hint]);
    }
}

/// Keycloak knows JWT-SVIDs by an identity provider of type `spiffe` alone: one of type `oidc` takes neither their assertion type
/// nor a token without `jti`, as SPIRE's are.
#[tokio::test]
async fn keycloak_takes_svids_by_a_provider_of_their_own_type() {
    let (scene, agent) = (Scene::new(binary()).await, FakeWorkloadApi::start(&[SVID]));
    agent.repeat_svids(Duration::from_secs(300));
    scene.authorization_server.trust_only(agent.trust());
    scene.authorization_server.federate("mcp-agent", SVID);
    let world = |example: &Example<'_>| example.world().env("SPIFFE_ENDPOINT_SOCKET", &agent.endpoint());
    for knows_svids in [true, false] {
        profiles::keycloak_federated(&scene, knows_svids);
        let example = Example::new(&scene, "spiffe", "https://login.example.com/tenant1");
        let output = world(&example).run(&["token", "demo"]).await;
        if knows_svids {
            output.expect_code(0);
            continue;
        }
        tells(
            &output.expect_code(REFUSED),
            &["Invalid client or Invalid client"],
            &["type `spiffe`", "`assertion_type"],
        );
        let as_jwt = example.with("client_auth = ", "assertion_type = \"jwt-bearer\"\nclient_auth = ");
        let output = world(&as_jwt).run(&["token", "demo"]).await.expect_code(REFUSED);
        tells(&output, &["Token jti claim is required"], &["type `spiffe`"]);
    }
    assert_eq!(scene.authorization_server.received()[2].params["client_assertion_type"], JWT_ASSERTION);
}

const JWT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A realm lists the grant, and no client is named: that is how zero configuration comes to it.
#[tokio::test]
async fn without_a_client_the_lines_that_name_one_are_told() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.require_clients(true);
    let url = scene.mcp.url();
    let world = scene.safeconduct.clone().config("[egress]\ninsecure_loopback = true\n");
    let output = world.run(&["token", &url]).await.expect_code(REFUSED);
    tells(
        &output,
        &["invalid_client"],
        &["exchange = \"client-credentials\"", "client_auth = \"workload\"", "`issuer`"],
    );
}

#[tokio::test]
async fn dex_is_told_its_connector_and_takes_an_id_token() {
    let scene = Scene::new(binary()).await;
    profiles::dex(&scene);
    scene.authorization_server.add_client("mcp-agent", ClientProof::Basic(SECRET.to_owned()));
    let example = Example::new(&scene, "dex", "https://dex.example.com/dex").with_secret();
    assert_eq!(keys::peek(&example.works().await)["aud"], json!("mcp-agent"));
    let sent = scene.authorization_server.last_request();
    assert_eq!(sent.params["subject_token_type"], "urn:ietf:params:oauth:token-type:id_token");
    let as_jwt = example.with("subject_token_type = \"id_token\"", "");
    as_jwt.fails(REFUSED, &["request_not_supported", "Invalid subject_token_type"], &["`subject_token_type`"]).await;
    let other = example.with("connector_id = \"ci\"", "connector_id = \"x\"");
    other.fails(REFUSED, &["invalid_request", "connector does not exist"], &["`extra = { connector_id"]).await;
    scene.authorization_server.trust_only(FakePlatform::start().await.trust());
    example
        .fails(REFUSED, &["access_denied"], &["connector does not take the subject token", "what was presented"])
        .await;
}

/// Dex as the link of a chain: what it issues opens a server that trusts Dex itself.
#[tokio::test]
async fn a_chain_through_dex_opens_a_server_that_trusts_it() {
    let scene = Scene::new(binary()).await;
    profiles::dex(&scene);
    leak::minted(SECRET);
    let (url, issuer) = (scene.mcp.url(), scene.authorization_server.issuer());
    let file = scene.safeconduct.private("secret");
    fs::write(&file, SECRET).expect("ours");
    scene.authorization_server.add_client(&url, ClientProof::Basic(SECRET.to_owned()));
    let config = |link: &str| {
        format!(
            "[egress]\ninsecure_loopback = true\n[identities.dex]\nfrom = \"default\"\nexchange = \"token-exchange\"\n\
            issuer = \"{issuer}\"\nclient_id = \"{url}\"\nclient_auth = \"secret\"\nclient_secret_file = \"{}\"\n{link}\n\
            [servers.demo]\nurl = \"{url}\"\nidentity = \"dex\"\nexchange = \"direct\"\nsubject_audience = \"{url}\"\n",
            file.display()
        )
    };
    let keys_of_dex = "subject_token_type = \"id_token\"\nrequested_token_type = \"id_token\"\nscopes = [\"openid\"]\n\
        extra = { connector_id = \"ci\" }";
    let world = scene.safeconduct.clone().config(&config(keys_of_dex));
    let token = world.run(&["token", "demo"]).await.expect_code(0).stdout;
    let claims = keys::peek(token.trim());
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(issuer), &json!(url)), "Dex's own, for the MCP server alone");
    let sent = scene.authorization_server.last_request();
    assert_eq!((sent.params["scope"].as_str(), sent.params["connector_id"].as_str()), ("openid", "ci"));
    // What is for others too is not used.
    let other = keys_of_dex.replace("\"openid\"", "\"openid\", \"audience:server:client_id:other\"");
    let output =
        scene.safeconduct.clone().config(&config(&other)).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    assert!(output.stderr.contains("\"other\""), "{}", output.stderr);
}

#[tokio::test]
async fn toolhive_takes_its_token_endpoint_as_audience_and_grants_no_scope() {
    let scene = Scene::new(binary()).await;
    profiles::toolhive(&scene, None);
    let example = Example::new(&scene, "toolhive", "https://mcp.example.com");
    let token = example.works().await;
    let claims = keys::peek(&token);
    assert_eq!((&claims["aud"], &claims["scope"]), (&json!(scene.mcp.url()), &json!("")));
    assert_eq!(
        scene.authorization_server.last_request().assertion["aud"],
        json!(scene.authorization_server.token_endpoint())
    );
    let bare = example.with("subject_audience = \"token_endpoint\"", "");
    bare.fails(REFUSED, &["invalid_grant"], &["`subject_audience = \"token_endpoint\"`"]).await;
    // With its operator's own audience nothing has to be configured.
    profiles::toolhive(&scene, Some(scene.authorization_server.issuer()));
    let world = scene.safeconduct.clone().config("[egress]\ninsecure_loopback = true\n");
    world.run(&["token", &scene.mcp.url()]).await.expect_code(0);
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
    scene.authorization_server.add_client("mcp-agent", ClientProof::Basic(SECRET.to_owned()));
    assert_eq!(keys::peek(&example.works().await)["aud"], json!(endpoint));
    assert_eq!(scene.authorization_server.last_request().assertion["aud"], json!(endpoint), "by its word");
    let for_the_issuer = example.with("subject_audience = ", "# subject_audience = ");
    // The important part of the server's message is cut off; the hint uses it anyway.
    for_the_issuer.fails(REFUSED, &["invalid_grant"], &["`subject_audience`"]).await;
    let wider = example.with("[\"demo:read\"]", "[\"demo:read\", \"demo:write\"]");
    wider.fails(REFUSED, &["invalid_scope"], &["`scopes`", "operator"]).await;
    let text = example.text.lines().filter(|line| !line.starts_with("client_")).collect::<Vec<_>>().join("\n");
    let anonymous = Example { scene: &scene, text };
    anonymous.fails(REFUSED, &["invalid_client", "no client authentication"], &["`client_id`"]).await;
}

#[tokio::test]
async fn hydra_wants_its_endpoint_as_audience_of_a_clients_own_assertion_too() {
    let scene = Scene::new(binary()).await;
    profiles::hydra(&scene);
    let example = Example::new(&scene, "ory-hydra", "https://hydra.example.com");
    let example = example.with("client_auth = \"secret\"", "client_auth = \"private-key-jwt\"");
    let example = example.with("client_secret_file = ", "client_key_file = ");
    let (example, proof) = example.with_key(SECRET_FILE);
    scene.authorization_server.add_client("mcp-agent", proof);
    let hint = &["`assertion_audience = \"token_endpoint\"`"];
    example.fails(REFUSED, &["invalid_client", "token endpoint"], hint).await;
    for grant in ["jwt-bearer", "client-credentials"] {
        let of_grant = example.with("exchange = \"jwt-bearer\"", &format!("exchange = \"{grant}\""));
        let of_grant = match grant {
            "client-credentials" => of_grant.with("subject_audience = \"token_endpoint\"\n", ""),
            _ => of_grant,
        };
        of_grant.with("client_auth = ", "assertion_audience = \"token_endpoint\"\nclient_auth = ").works().await;
    }
    let url = format!("assertion_audience = \"{}\"\nclient_auth = ", scene.authorization_server.token_endpoint());
    example.with("client_auth = ", &url).works().await;
}
