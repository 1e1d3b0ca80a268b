//! The platforms, each with its example.

use super::*;

#[tokio::test]
async fn a_workload_of_a_spiffe_trust_domain() {
    let scene = Scene::new(binary()).await;
    let agent = FakeWorkloadApi::start(&[SVID]);
    scene.authorization_server.also_trust(agent.trust());
    scene.authorization_server.federate("mcp-agent", SVID);
    scene.authorization_server.set_profile(Profile { finds_clients_by_subject: true, ..Profile::default() });
    let example = Example::new(&scene, "spiffe", LOGIN);
    let world = |example: &Example<'_>| {
        Safeconduct::new(binary()).env("SPIFFE_ENDPOINT_SOCKET", &agent.endpoint()).config(&example.text)
    };
    world(&example).run(&["token", "demo"]).await.expect_code(0);
    let sent = scene.authorization_server.last_request();
    assert_eq!(sent.params["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe");
    let both = example.with("exchange = \"client-credentials\"", "exchange = \"jwt-bearer\"");
    let output = world(&both).run(&["token", "demo"]).await.expect_code(CONFIG);
    tells(&output, &["one JWT as grant and as proof", "client-credentials"], &[]);
}

#[tokio::test]
async fn a_job_of_gitlab() {
    let scene = Scene::new(binary()).await;
    let example = Example::new(&scene, "gitlab-ci", LOGIN);
    let job = |audience: &str| {
        let token = scene.platform.mint(audience, LIFE);
        Safeconduct::new(binary()).env("GITLAB_CI", "true").env("MCP_ID_TOKEN", &token).config(&example.text)
    };
    let issuer = scene.authorization_server.issuer();
    job(&issuer).run(&["token", "demo"]).await.expect_code(0);
    let output = job(&scene.mcp.url()).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["is made for", &scene.mcp.url()], &["have the platform make the token for", &issuer]);
    let output = job(&issuer).without_env("MCP_ID_TOKEN").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["MCP_ID_TOKEN is not set"], &["`id_tokens:`"]);
}

/// Runs the daemon inside this process, so that the platform's files can have another root directory. Gives its answer.
async fn at_the_platform(stage: &Stage, text: &str) -> Value {
    let place = tempfile::Builder::new().prefix("sc").tempdir_in("/tmp").expect("/tmp is writable");
    let socket = place.path().join("s");
    let vars: BTreeMap<String, String> = stage.vars.clone();
    let env = Env::from_vars(vars);
    let env = match &stage.files {
        Some(root) => env.with_root(root.path().to_owned()),
        None => env,
    };
    let text = format!("{text}\n[listen]\nsocket = {:?}\n", socket.display().to_string());
    let config = Config::from_toml(&text, &env).expect("a valid configuration");
    let app = App::build(config, env, Clock::system()).await.expect("it can be built");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(app.run(async move { drop(stopped.await) }));
    let answer = unix_http::get(&socket, "/v1/token?server=demo").await.expect("the daemon answers").json();
    drop(stop);
    served.await.expect("it does not panic").expect("it serves");
    answer
}

/// The example of a platform that issues tokens for any audience, or for the right one. It works on the platform of the case `ok`.
/// A token for another audience is not sent.
async fn on_its_platform(source: &str, near_miss: &str) {
    for (case, comes) in [("ok", true), (near_miss, false)] {
        let stage = platform(source, case).await;
        let example = Example::new(&stage.scene, source, LOGIN);
        // Only a test needs this: the address of the fake.
        let of_the_case: toml::Table = stage.config.parse().expect("the configuration of the case");
        let mut text: toml::Table = example.text.parse().expect("the example is TOML");
        for section in ["identity", "egress"] {
            let own = of_the_case.get(section).and_then(toml::Value::as_table).cloned().unwrap_or_default();
            let both = text.entry(section).or_insert_with(|| toml::Table::new().into());
            both.as_table_mut().expect("a section").extend(own);
        }
        if text["identity"].as_table().is_some_and(toml::Table::is_empty) {
            text.remove("identity");
        }
        let answer = at_the_platform(&stage, &text.to_string()).await;
        assert_eq!(answer["access_token"].is_string(), comes, "{source}/{case}: {answer}");
        if !comes {
            assert_eq!(answer["class"], "no_identity", "{source}/{case}");
            let hint = answer["hint"].as_str().unwrap_or_default();
            assert!(hint.contains("`subject_audience`") || hint.contains("audience"), "{source}/{case}: {answer}");
            assert_eq!(stage.scene.authorization_server.token_requests(), 0, "nothing leaves");
        }
        assert_eq!(stage.problems(), Vec::<String>::new(), "{source}/{case}");
    }
}

#[tokio::test]
async fn a_token_in_a_file_a_variable_or_from_a_program() {
    let scene = Scene::new(binary()).await;
    let issuer = scene.authorization_server.issuer();
    let (file, program) = (scene.safeconduct.private("subject.jwt"), scene.safeconduct.private("program"));
    let mint = |audience: &str| {
        let token = scene.platform.mint(audience, LIFE);
        fs::write(&file, &token).expect("ours");
        token
    };
    let script =
        format!("#!/bin/sh\ntest \"$SAFECONDUCT_AUDIENCE\" = {issuer} && cat {:?}\n", file.display().to_string());
    fs::write(&program, script).expect("ours");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("ours");
    let example = |name: &str| Example::new(&scene, name, LOGIN);
    let worlds = |token: &str| {
        let in_file =
            example("file").with(&quoted("/var/run/secrets/agent/token"), &quoted(&file.display().to_string()));
        let printed =
            example("command").with(&quoted("/usr/local/bin/platform-token"), &quoted(&program.display().to_string()));
        let in_variable = Safeconduct::new(binary()).env("AGENT_TOKEN", token).config(&example("env").text);
        [in_file.world(), in_variable, printed.world()]
    };
    for turn in 0..3 {
        // A server accepts each assertion once.
        let world = &worlds(&mint(&issuer))[turn];
        world.run(&["token", "demo"]).await.expect_code(0);
        let elsewhere = &worlds(&mint("https://elsewhere.example"))[turn];
        let output = elsewhere.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
        tells(&output, &["is made for", "https://elsewhere.example"], &[&issuer]);
    }
}

#[tokio::test]
async fn a_job_of_buildkite() {
    on_its_platform("buildkite", "other-audience").await;
}

#[tokio::test]
async fn a_job_of_circleci() {
    on_its_platform("circleci", "command-gives-other-audience").await;
}

#[tokio::test]
async fn a_step_of_bitbucket() {
    on_its_platform("bitbucket", "other-audience").await;
}

#[tokio::test]
async fn a_run_of_hcp_terraform() {
    on_its_platform("hcp-terraform", "other-audience").await;
}

#[tokio::test]
async fn a_machine_of_fly() {
    on_its_platform("fly", "other-audience").await;
}

#[tokio::test]
async fn a_build_of_vercel() {
    on_its_platform("vercel", "other-audience").await;
}

#[tokio::test]
async fn a_pod_with_a_projected_token() {
    let stage = pod("ok").await;
    let example = Example::new(&stage.scene, "kubernetes-token-file", LOGIN);
    let answer = at_the_platform(&stage, &example.text).await;
    assert!(answer["access_token"].is_string(), "{}", answer["error_description"]);
    // A likely mistake: the default token, which every pod has.
    let default = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let answer = at_the_platform(&stage, &example.with("/var/run/secrets/tokens/mcp", default).text).await;
    assert_eq!(answer["class"], "no_identity");
    assert!(answer["hint"].as_str().is_some_and(|hint| hint.contains("projected `serviceAccountToken`")), "{answer}");
}

#[tokio::test]
async fn a_pod_that_asks_for_its_token() {
    let stage = pod("request-ok").await;
    let example = Example::new(&stage.scene, "kubernetes-token-request", LOGIN);
    let answer = at_the_platform(&stage, &example.text).await;
    assert!(answer["access_token"].is_string(), "{}", answer["error_description"]);
    assert_eq!(stage.problems(), Vec::<String>::new());
    // Without the role.
    let stage = pod("request-forbidden").await;
    let example = Example::new(&stage.scene, "kubernetes-token-request", LOGIN);
    let answer = at_the_platform(&stage, &example.text).await;
    assert_eq!(answer["class"], "no_identity");
    assert!(answer["hint"].as_str().is_some_and(|hint| hint.contains("serviceaccounts/token")), "{answer}");
}

/// The example of a platform whose tokens only Entra accepts. It works on the platform of that case if Entra has a federated
/// credential for the subject, and fails for another subject.
async fn federated_with_entra(source: &str, example: &str, subject: &str) {
    for (federated, comes) in [(subject, true), ("sc://somebody/else", false)] {
        let stage = platform(source, "ok").await;
        let entra = FakeEntra::start().await;
        entra.federate(APPLICATION, stage.scene.platform.trust(), federated);
        entra.target(TARGET, "22222222-2222-2222-2222-222222222222");
        let root = stage.files.as_ref().map(|root| root.path());
        let example = of_the_scene(&stage.scene, example).behind(&entra.egress_below(root));
        let answer = at_the_platform(&stage, &example.text).await;
        if comes {
            let claims = entra.verified(answer["access_token"].as_str().unwrap_or_default());
            assert_eq!(claims["azp"], json!(APPLICATION), "{}", answer["error_description"]);
        } else {
            assert_eq!(answer["class"], "refused");
            assert!(answer["hint"].as_str().unwrap_or_default().contains("safeconduct whoami"), "{answer}");
        }
        assert_eq!(stage.problems(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_service_connection_of_azure_pipelines() {
    federated_with_entra("azure-pipelines", "azure-pipelines", "sc://octo-org/octo-project/agents").await;
}

#[tokio::test]
async fn a_pod_of_aks() {
    federated_with_entra("azure-workload-identity", "aks", "system:serviceaccount:agents:agent").await;
}
