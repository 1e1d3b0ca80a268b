//! The MCP authorization profile, its extensions, and the other exchanges.

use super::*;

#[tokio::test]
async fn workload_identity_federation() {
    let scene = Scene::new(binary()).await;
    let example = Example::new(&scene, "jwt-bearer", LOGIN);
    assert_eq!(keys::peek(&example.works().await)["aud"], json!(scene.mcp.url()));
    let sent = scene.authorization_server.last_request();
    assert!(!sent.authorization && !sent.params.contains_key("client_id"), "{:?}", sent.params);
    // People often configure the token endpoint; the key needs the issuer identifier.
    let issuer = quoted(&scene.authorization_server.issuer());
    let endpoint = example.with(&issuer, &quoted(&scene.authorization_server.token_endpoint()));
    endpoint.fails(REFUSED, &["/token"], &["`issuer`"]).await;
}

#[tokio::test]
async fn enterprise_managed_authorization() {
    let scene = Scene::new(binary()).await;
    let idp = FakeAs::start(scene.platform.trust()).await;
    idp.set_audience(&scene.authorization_server.issuer());
    scene.authorization_server.trust_only(idp.trust());
    let example = Example::new(&scene, "id-jag", LOGIN).with("https://acme.okta.com", &idp.issuer());
    let (example, at_server) = example.with_key(KEY);
    let (example, at_idp) = example.with_key("/etc/safeconduct/idp.pem");
    for (party, id, proof) in
        [(&scene.authorization_server, "mcp-agent", at_server), (&idp, "0oa1234567890abcdef", at_idp)]
    {
        party.add_client(id, proof);
        party.require_clients(true);
    }
    assert_eq!(keys::peek(&example.works().await)["aud"], json!(scene.mcp.url()));
    // The client has another identifier on each side.
    let one_name = example.with("0oa1234567890abcdef", "mcp-agent");
    one_name.fails(REFUSED, &[&idp.issuer(), "invalid_client"], &["`client_id`"]).await;
    let without = example.text.split("[servers.demo.idp]").next().expect("a first part").to_owned();
    let without = Example { scene: &scene, text: format!("{without}[egress]\ninsecure_loopback = true\n") };
    without.fails(CONFIG, &["servers.demo.exchange", "needs `idp`"], &[]).await;
}

#[tokio::test]
async fn client_credentials_with_a_key() {
    let scene = Scene::new(binary()).await;
    let (example, proof) = Example::new(&scene, "client-credentials-key", LOGIN).with_key(KEY);
    scene.authorization_server.add_client("mcp-agent", proof);
    example.works().await;
    assert_eq!(scene.platform.requests(), 0, "no workload identity is needed");
    let other = example.with("mcp-agent", "another");
    other.fails(REFUSED, &["invalid_client"], &["`client_id`", "operator"]).await;
    let proofless = example.with("client_auth = \"private-key-jwt\"\n", "");
    proofless.fails(CONFIG, &["needs `client_auth`"], &[]).await;
}

#[tokio::test]
async fn client_credentials_with_a_secret() {
    let scene = Scene::new(binary()).await;
    let example = Example::new(&scene, "client-credentials-secret", LOGIN).with_secret();
    scene.authorization_server.add_client("mcp-agent", ClientProof::Basic(SECRET.to_owned()));
    example.works().await;
    assert!(scene.authorization_server.last_request().authorization);
    let in_the_form = example.with("client_secret_method = \"basic\"", "client_secret_method = \"post\"");
    in_the_form.fails(REFUSED, &["invalid_client"], &["`client_auth`"]).await;
    let file = scene.safeconduct.private("secret").display().to_string();
    let written = example.with(&format!("client_secret_file = \"{file}\""), "client_secret = \"s\"");
    written.fails(CONFIG, &["servers.demo.client_secret"], &[]).await;
}

#[tokio::test]
async fn client_credentials_with_a_certificate() {
    let mut scene = Scene::new(binary()).await;
    let ca = TestCa::new();
    scene.authorization_server.serve_mutual(ca.mutual(&[ca.der()])).await;
    scene.authorization_server.add_client("mcp-agent", ClientProof::Certificate("mcp-agent".to_owned()));
    let (chain, key) = ca.client("mcp-agent");
    let mut example = Example::new(&scene, "client-credentials-mtls", LOGIN)
        .with("[egress]\n", &format!("[egress]\nca_file = \"{}\"\n", ca.file().display()));
    for (name, text) in [("client.crt", chain), ("client.pem", key)] {
        let file = scene.safeconduct.private(name);
        fs::write(&file, text).expect("ours");
        example = example.with(&format!("/etc/safeconduct/{name}"), &file.display().to_string());
    }
    // The token is bound to the certificate, so it is never handed out as a plain token.
    let reply = example.world().daemon(&[]).await.get("/v1/headers?server=demo").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let file = scene.safeconduct.private("client.crt").display().to_string();
    let half = example.with(&format!("client_cert_file = \"{file}\""), "");
    half.fails(CONFIG, &["`client_cert_file` and `client_key_file` together"], &[]).await;
    // A server with another endpoint for certificates, which its metadata does not name.
    scene.authorization_server.set_metadata(json!({}));
    example.fails(REFUSED, &["invalid_client", "no certificate came"], &["`client_auth`", "operator"]).await;
}

#[tokio::test]
async fn tokens_that_are_bound_to_a_key() {
    let scene = Scene::new(binary()).await;
    scene.mcp.require_dpop(None);
    scene.authorization_server.set_profile(Profile { wants_proof: true, ..Default::default() });
    let example = Example::new(&scene, "dpop", LOGIN);
    let headers = format!("/v1/headers?server=demo&method=POST&url={}", scene.mcp.url());
    let reply = example.world().daemon(&[]).await.get(&headers).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.json()["headers"]["DPoP"].is_array(), "a proof comes with the token");
    example.fails(DENIED, &["bound to"], &["/v1/headers"]).await;
    let bearer = example.with("dpop = true", "dpop = false");
    bearer.fails(REFUSED, &["invalid_dpop_proof"], &["`dpop = true`"]).await;
}

#[tokio::test]
async fn a_server_that_trusts_the_platform_itself() {
    let scene = Scene::new(binary()).await;
    let example = Example::unchanged(&scene, "direct").with(MCP, &scene.mcp.url());
    let claims = keys::peek(&example.works().await);
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(scene.platform.issuer()), &json!(scene.mcp.url())));
    let line = format!("subject_audience = \"{}\"\n", scene.mcp.url());
    example.with(&line, "").fails(CONFIG, &["needs `subject_audience`"], &[]).await;
    let limited = example.with(&line, &format!("{line}scopes = [\"demo:read\"]\n"));
    limited.fails(CONFIG, &["servers.demo.scopes", "nothing limits scopes"], &[]).await;
    assert_eq!(scene.authorization_server.metadata_requests(), 0);
}

#[tokio::test]
async fn a_chain_of_identities() {
    let scene = Scene::new(binary()).await;
    let company = FakeAs::start(scene.platform.trust()).await;
    company.set_audience(&scene.authorization_server.issuer());
    scene.authorization_server.trust_only(company.trust());
    let example = Example::new(&scene, "chain", LOGIN).with("https://sts.example.com", &company.issuer());
    example.works().await;
    assert_eq!(scene.authorization_server.last_request().assertion["iss"], json!(company.issuer()));
    let unused = example.with("identity = \"company\"\n", "");
    unused.fails(REFUSED, &["invalid_grant"], &["trust policy", "safeconduct whoami"]).await;
}
