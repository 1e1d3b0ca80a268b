//! Entra ID.

use super::*;

/// An example for Entra, with the fake in place of Entra's hosts.
fn of_entra<'a>(scene: &'a Scene, entra: &FakeEntra, name: &str) -> Example<'a> {
    of_the_scene(scene, name).behind(&entra.egress())
}

#[tokio::test]
async fn entra_federates_a_credential() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.federate(APPLICATION, scene.platform.trust(), SUBJECT);
    entra.target(TARGET, "22222222-2222-2222-2222-222222222222");
    let example = of_entra(&scene, &entra, "entra-federated-credential");
    let claims = entra.verified(&example.works().await);
    assert_eq!((&claims["aud"], &claims["azp"]), (&json!(&TARGET[6..]), &json!(APPLICATION)));
    assert_eq!(scene.platform.audiences(), [entra::EXCHANGE]);
    assert_eq!(
        scene.mcp.probes() + scene.mcp.metadata_requests() + scene.authorization_server.metadata_requests(),
        0,
        "nothing is discovered"
    );
    let line = format!("client_id = \"{APPLICATION}\"\n");
    let with_resource = example.with(&line, &format!("{line}resource = \"https://mcp.example.com\"\n"));
    with_resource.fails(REFUSED, &["invalid_target", "AADSTS9010010"], &["`resource = \"\"`"]).await;
    let other_target = example.with(TARGET, "api://mcp");
    other_target.fails(REFUSED, &["invalid_resource", "AADSTS500011"], &["`scopes`", "`tenant`"]).await;
    let other_client = example.with(APPLICATION, AGENT);
    other_client.fails(REFUSED, &["unauthorized_client", "AADSTS700016"], &["`client_id`"]).await;
    let other_tenant = example.with(&format!("tenant = \"{}\"", entra::TENANT), "tenant = \"contoso.example\"");
    other_tenant.fails(REFUSED, &["AADSTS90002"], &["`tenant`", "`cloud`"]).await;
    let other_audience = example.with(&line, &format!("{line}subject_audience = \"api://elsewhere\"\n"));
    other_audience.fails(REFUSED, &["invalid_client", "AADSTS700212"], &["`subject_audience`"]).await;
    // Each cloud has another audience. A token for another cloud is not sent.
    let other_cloud = example.with("# cloud = \"us-government\"", "cloud = \"us-government\"");
    other_cloud.fails(REFUSED, &["AADSTS700212"], &["`subject_audience`"]).await;
    let own_scopes = example.with(&format!("{TARGET}/.default"), "demo:read");
    own_scopes.fails(CONFIG, &["servers.demo.scopes", "/.default"], &[]).await;
    let discovered = example.with(&line, &format!("{line}issuer = \"https://login.microsoftonline.com/common\"\n"));
    discovered.fails(CONFIG, &["servers.demo.issuer", "the provider's own hosts"], &[]).await;
    let with_key = example.with(&line, &format!("{line}client_auth = \"mtls\"\n"));
    with_key.fails(CONFIG, &["servers.demo.client_auth", "Entra takes"], &[]).await;
    // Without an application only a managed identity works, and this job has none.
    let nameless = example.with(&line, "");
    nameless.fails(CONFIG, &["\"entra\" without `client_id`", scene.platform.issuer()], &["set `client_id`"]).await;
    let named = nameless.with("[egress]", "[identity]\nsource = \"github-actions\"\n\n[egress]");
    named.fails(CONFIG, &["servers.demo.client_id", "is not of Azure"], &[]).await;
}

#[tokio::test]
async fn entra_says_what_a_federated_credential_lacks() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.target(TARGET, TARGET);
    entra.register(APPLICATION);
    let example = of_entra(&scene, &entra, "entra-federated-credential");
    let cure = ["federated credential", "safeconduct whoami"];
    example.fails(REFUSED, &["invalid_client", "AADSTS70025"], &cure).await;
    entra.federate(APPLICATION, entra.trust(), SUBJECT);
    example.fails(REFUSED, &["invalid_client", "AADSTS700211"], &cure).await;
    entra.federate(APPLICATION, scene.platform.trust(), "repo:somebody/else:ref:refs/heads/main");
    example.fails(REFUSED, &["invalid_client", "AADSTS700213"], &cure).await;
    entra.federate(APPLICATION, scene.platform.trust(), SUBJECT);
    example.works().await;
    // The same claims, signed with another key.
    let forger = FakePlatform::start().await;
    let file = scene.safeconduct.private("forged.jwt");
    let claims = json!({"iss": scene.platform.issuer(), "sub": SUBJECT});
    fs::write(&file, forger.mint_with(entra::EXCHANGE, LIFE, &claims)).expect("ours");
    let named = ["token", "demo", "--identity-file", &file.display().to_string()];
    let output = example.world().run(&named).await.expect_code(REFUSED);
    tells(&output, &["invalid_client", "AADSTS700027"], &["`client_id`"]);
    // Expired for a minute by Entra's clock. Our clock may be wrong by more.
    let file = scene.safeconduct.private("identity.jwt");
    let over =
        json!({"iat": keys::now() as u64 - 360, "nbf": keys::now() as u64 - 360, "exp": keys::now() as u64 - 60});
    fs::write(&file, scene.platform.mint_with(entra::EXCHANGE, LIFE, &over)).expect("ours");
    let named = ["token", "demo", "--identity-file", &file.display().to_string()];
    let output = example.world().run(&named).await.expect_code(REFUSED);
    tells(&output, &["invalid_client", "AADSTS700024"], &["compare both clocks"]);
}

#[tokio::test]
async fn entra_takes_a_secret_where_there_must_be_one() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.target(TARGET, TARGET);
    entra.secret(APPLICATION, SECRET);
    let line = format!("client_id = \"{APPLICATION}\"\n");
    let keys = format!(
        "{line}client_auth = \"secret\"\nclient_secret_method = \"post\"\nclient_secret_file = \"{SECRET_FILE}\"\n"
    );
    let example = of_entra(&scene, &entra, "entra-federated-credential").with(&line, &keys).with_secret();
    example.works().await;
    assert_eq!(scene.platform.requests(), 0, "no workload identity is needed");
    entra.secret(APPLICATION, "another secret than that");
    example.fails(REFUSED, &["invalid_client", "AADSTS7000215"], &["its value", "federated credential"]).await;
}

/// `doctor` makes the same requests. It does not require documents that this exchange does not use.
#[tokio::test]
async fn entra_is_examined_by_doctor() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.target(TARGET, TARGET);
    entra.federate(APPLICATION, scene.platform.trust(), SUBJECT);
    let example = of_entra(&scene, &entra, "entra-federated-credential");
    let report = example.world().run(&["doctor", "--json", "demo"]).await.json();
    let state = |code: &str| {
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        let found = checks.into_iter().find(|check| check["code"] == code);
        found
            .map(|check| check["state"].as_str().unwrap_or_default().to_owned())
            .unwrap_or_else(|| panic!("{code}: {report:#}"))
    };
    for (code, wanted) in [
        ("resource-metadata", "skip"),
        ("server-metadata", "skip"),
        ("subject-audience", "pass"),
        ("token-issued", "pass"),
        ("token-bound-to-resource", "pass"),
        ("token-scope", "pass"),
        // The MCP server of this scene trusts another issuer.
        ("token-accepted", "fail"),
    ] {
        assert_eq!(state(code), wanted, "{code}: {report:#}");
    }
}

#[tokio::test]
async fn entra_takes_a_svid_for_a_jwt_like_any_other() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.target(TARGET, TARGET);
    entra.federate(APPLICATION, scene.platform.trust(), SVID);
    let file = scene.safeconduct.private("identity.jwt");
    fs::write(&file, scene.platform.mint_with(entra::EXCHANGE, LIFE, &json!({"sub": SVID}))).expect("ours");
    let example = of_entra(&scene, &entra, "entra-federated-credential");
    let named = ["token", "demo", "--identity-file", &file.display().to_string()];
    example.world().run(&named).await.expect_code(0);
}

/// The metadata service of a machine, which gives the managed identity this token for this target.
async fn metadata_service(resource: &str, which: &str, token: &str) -> (Traffic, String) {
    let script = format!(
        "[[request]]\nor_more = true\nmethod = \"GET\"\npath = \"/metadata/identity/oauth2/token\"\n\
        query = {{ api-version = \"2019-08-01\", resource = \"{resource}\"{which} }}\nheaders = {{ metadata = \"true\" }}\n\
        [request.answer]\nbody = '{{\"access_token\": \"{token}\", \"expires_on\": \"1999999999\", \"resource\": \"{resource}\", \"token_type\": \"Bearer\"}}'\n"
    );
    let place = Place::new(&script).await;
    let base = place.base().to_owned();
    (place.serve(&script, None), base)
}

/// The environment of such a machine.
fn on_a_machine(example: &Example<'_>, base: &str) -> Safeconduct {
    Safeconduct::new(binary()).env("AZURE_POD_IDENTITY_AUTHORITY_HOST", base).config(&example.text)
}

#[tokio::test]
async fn entra_knows_its_managed_identities() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.target(TARGET, TARGET);
    let which = ", client_id = \"33333333-3333-3333-3333-333333333333\"";
    let token = entra.managed(TARGET);
    let (machine, base) = metadata_service(TARGET, which, &token).await;
    let example = of_entra(&scene, &entra, "entra-managed-identity");
    let output = on_a_machine(&example, &base).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(output.stdout.trim(), token, "it is passed on as it came");
    assert!(entra.seen().is_empty() && machine.problems().is_empty(), "{:?}", machine.problems());
    // The broker checks the lifetime and the owner of the token in the same way.
    let daemon = on_a_machine(&example, &base).daemon(&[]).await;
    let answer = daemon.get("/v1/token?server=demo").await.json();
    let expires_in = answer["expires_in"].as_u64().expect("a number");
    assert!(
        (3_000..=3_600).contains(&expires_in) && answer["scope"] == json!(format!("{TARGET}/.default")),
        "{answer}"
    );
    // Another directory's managed identity.
    let elsewhere = example.with(entra::TENANT, "66666666-6666-6666-6666-666666666666");
    let output = on_a_machine(&elsewhere, &base).run(&["token", "demo"]).await.expect_code(CONFIG);
    tells(&output, &["not by the directory 66666666"], &["`tenant` of the managed identity"]);
    // For an application that does not exist.
    let line = format!("scopes = [\"{TARGET}/.default\"]\n");
    let agent = example.with(&line, &format!("{line}agent_identity = \"{AGENT}\"\n"));
    let output = on_a_machine(&agent, &base).run(&["token", "demo"]).await.expect_code(CONFIG);
    tells(&output, &["servers.demo.client_id", "`agent_identity` is about an application"], &[]);
}

#[tokio::test]
async fn entra_names_an_application_of_version_2_by_its_id() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    let id = "22222222-2222-2222-2222-222222222222";
    entra.target(TARGET, id);
    let which = ", client_id = \"33333333-3333-3333-3333-333333333333\"";
    let token = entra.managed(TARGET);
    let example = of_entra(&scene, &entra, "entra-managed-identity");
    let (_machine, base) = metadata_service(TARGET, which, &token).await;
    let output = on_a_machine(&example, &base).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["tokens of version 2", id], &[&format!("scopes = [\"{id}/.default\"]")]);
    let by_id = example.with(&format!("[\"{TARGET}/"), &format!("[\"{id}/"));
    let (_machine, base) = metadata_service(id, which, &token).await;
    on_a_machine(&by_id, &base).run(&["token", "demo"]).await.expect_code(0);
    // The scope uses one of its two names, the application the other.
    let line = format!("scopes = [\"{TARGET}/.default\"]\n");
    let by_both = example
        .with(&line, &format!("{line}subject_audience = \"{id}\"\n"))
        .with("source = \"azure\"", &format!("resource = \"{TARGET}\"\nsource = \"azure\""));
    let (_machine, base) = metadata_service(TARGET, which, &token).await;
    on_a_machine(&by_both, &base).run(&["token", "demo"]).await.expect_code(0);
}

#[tokio::test]
async fn entra_lets_a_blueprint_speak_for_its_agent() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.target(TARGET, TARGET);
    entra.federate(APPLICATION, entra.trust(), entra::MANAGED);
    entra.agent(AGENT, APPLICATION);
    let (_machine, base) = metadata_service(entra::EXCHANGE, "", &entra.managed(entra::EXCHANGE)).await;
    let example = of_entra(&scene, &entra, "entra-agent-identity");
    let output = on_a_machine(&example, &base).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(entra.verified(output.stdout.trim())["azp"], json!(AGENT));
    let [first, second] = &entra.seen()[..] else { panic!("two requests: {:?}", entra.seen()) };
    assert_eq!((&*first.client, &*first.scope), (APPLICATION, "api://AzureADTokenExchange/.default"));
    assert_eq!((first.agent.as_deref(), &*first.subject), (Some(AGENT), entra::MANAGED));
    assert_eq!((&*second.client, &*second.scope, &second.agent), (AGENT, &*format!("{TARGET}/.default"), &None));
    assert!(second.subject.ends_with(AGENT), "{second:?}");
    // The blueprint's own token.
    let alone = example.with("agent_identity = ", "# agent_identity = ");
    let output = on_a_machine(&alone, &base).run(&["token", "demo"]).await.expect_code(REFUSED);
    tells(&output, &["AADSTS82001"], &["`agent_identity`"]);
    let other = example.with(AGENT, "77777777-7777-7777-7777-777777777777");
    let output = on_a_machine(&other, &base).run(&["token", "demo"]).await.expect_code(REFUSED);
    tells(&output, &["AADSTS82000"], &["operator"]);
}

#[tokio::test]
async fn entra_between_a_platform_and_an_authorization_server() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    let id = "44444444-4444-4444-4444-444444444444";
    entra.target(id, id);
    entra.federate(APPLICATION, scene.platform.trust(), SUBJECT);
    scene.authorization_server.trust_only(entra.trust());
    let strict = Profile { assertion_audience: Some(id.to_owned()), ..Profile::default() };
    scene.authorization_server.set_profile(strict.clone());
    let example = of_entra(&scene, &entra, "entra-chain");
    let example = example.with(&quoted(LOGIN), &quoted(&scene.authorization_server.issuer()));
    // Entra's tokens have `uti` and no `jti`, but the MCP profile requires one.
    example.fails(REFUSED, &["invalid_grant", "jti is missing"], &["Entra's", "its operator must take them"]).await;
    scene.authorization_server.set_profile(Profile { jti_optional: true, ..strict });
    example.works().await;
    let sent = scene.authorization_server.last_request();
    assert_eq!((&sent.assertion["azp"], &sent.assertion["aud"]), (&json!(APPLICATION), &json!(id)));
    assert_eq!(entra.seen().last().map(|seen| seen.scope.clone()), Some(format!("{id}/.default")));
    // The scope names the application by its id, but its tokens have its URI as audience. Such a token is not used.
    let uri = "api://authorization-server";
    entra.target(uri, id);
    let by_uri = example.with(&quoted(id), &quoted(uri));
    by_uri.fails(NO_IDENTITY, &["made for", id], &["`subject_audience`"]).await;
    let unregistered = example.with(&quoted(id), "\"api://unknown\"");
    unregistered.fails(REFUSED, &["AADSTS500011"], &["in a chain"]).await;
    let nameless = example.with("client_id = ", "# client_id = ");
    nameless.fails(CONFIG, &["identities.entra.client_id", "federated credential"], &[]).await;
    // The same from a managed identity, whose token for Entra carries the id of the token exchange.
    entra.federate(APPLICATION, entra.trust(), entra::MANAGED);
    let (_machine, base) = metadata_service(entra::EXCHANGE, "", &entra.managed(entra::EXCHANGE)).await;
    let managed = example.with("[egress]", "[identity]\nsource = \"azure\"\n\n[egress]");
    on_a_machine(&managed, &base).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.last_request().assertion["azp"], json!(APPLICATION));
}
