//! Workloads on Google Cloud, and external account files.

use super::*;

/// An instance of Google Cloud, and a server that trusts Google.
async fn instance(scene: &Scene) -> (FakeGoogle, Safeconduct) {
    let google = FakeGoogle::start(scene.platform.trust()).await;
    profiles::of_google(scene);
    scene.authorization_server.also_trust(google.trust());
    let world = Safeconduct::new(binary()).env("GCE_METADATA_HOST", google.metadata_host());
    (google, world)
}

#[tokio::test]
async fn a_workload_on_google_cloud() {
    let scene = Scene::new(binary()).await;
    let (google, world) = instance(&scene).await;
    let example = Example::new(&scene, "gcp-workload", LOGIN);
    world.clone().config(&example.text).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.last_request().assertion["email"], json!(INSTANCE));
    // On Cloud Run no configuration is needed.
    let detected = example.with("source = \"gcp\"", "# source = \"gcp\"").text;
    let run = world.clone().env("K_SERVICE", "agent").env("K_REVISION", "agent-00001").config(&detected);
    run.run(&["token", "demo"]).await.expect_code(0);
    // A server that requires `jti`, as in the MCP profile.
    scene.authorization_server.set_profile(Profile::default());
    let output = world.clone().config(&example.text).run(&["token", "demo"]).await.expect_code(REFUSED);
    tells(&output, &["jti is missing"], &["have none"]);
    // As on Cloud Build, or on GKE without a Google service account.
    google.give_no_identity();
    let output = world.clone().config(&example.text).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["gives no identity token"], &["`impersonate = true`"]);
    let pod = world.env("KUBERNETES_SERVICE_HOST", "10.0.0.1").config(&example.text);
    let output = pod.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["gives no identity token"], &["projected token", "iam.gke.io/gcp-service-account"]);
}

#[tokio::test]
async fn a_workload_on_google_cloud_as_another_account() {
    let scene = Scene::new(binary()).await;
    let (google, world) = instance(&scene).await;
    google.give_no_identity();
    google.grant(INSTANCE, ACCOUNT);
    let example = Example::new(&scene, "gcp-impersonate", LOGIN).at_google(&google);
    world.clone().config(&example.text).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.last_request().assertion["email"], json!(ACCOUNT));
    let between = "between@project.iam.gserviceaccount.com";
    let through = example.with("# delegates", "delegates");
    let output = world.clone().config(&through.text).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["implicitDelegation"], &["`delegates`"]);
    google.grant(INSTANCE, between);
    google.grant(between, ACCOUNT);
    world.clone().config(&through.text).run(&["token", "demo"]).await.expect_code(0);
    google.revoke(INSTANCE, ACCOUNT);
    let output = world.config(&example.text).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["getOpenIdToken"], &["roles/iam.serviceAccountOpenIdTokenCreator"]);
}

#[tokio::test]
async fn a_workload_on_google_cloud_before_a_front_door_of_google() {
    let scene = Scene::new(binary()).await;
    let (google, world) = instance(&scene).await;
    let example = Example::at_server(&scene, "gcp-direct");
    let output = world.config(&example.text).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(google.verify(output.stdout.trim())["aud"], json!(FRONT_DOOR));
    assert_eq!(google.paths().len(), 1, "the metadata server alone is asked");
}

#[tokio::test]
async fn an_external_account_file() {
    let scene = Scene::new(binary()).await;
    let google = google(&scene).await;
    profiles::of_google(&scene);
    scene.authorization_server.also_trust(google.trust());
    let (file, subject) = (scene.safeconduct.private("google.json"), scene.safeconduct.private("subject.jwt"));
    let mint = |audience: &str| {
        fs::write(&subject, scene.platform.mint(audience, LIFE)).expect("ours");
    };
    let source = json!({"file": subject.display().to_string()});
    fs::write(&file, external_account(JWT, &source).to_string()).expect("ours");
    mint(&format!("https:{PROVIDER}"));
    let line = "credentials_file = \"/etc/safeconduct/google.json\"\n";
    let here = format!("credentials_file = {:?}\n", file.display().to_string());
    let example = Example::new(&scene, "gcp-external-account", LOGIN).with(line, &here).at_google(&google);
    example.works().await;
    assert_eq!(scene.authorization_server.last_request().assertion["email"], json!(ACCOUNT));
    // Detected by Google's own variable, outside a job. Nothing is sent, because the file does not lead to a token.
    fs::write(&subject, "no token").expect("ours");
    let world = Safeconduct::new(binary()).env("GOOGLE_APPLICATION_CREDENTIALS", &file.display().to_string());
    let output = world.run(&["whoami", "--json"]).await.expect_code(NO_IDENTITY);
    assert!(output.stderr.contains("GOOGLE_APPLICATION_CREDENTIALS (external_account, file)"), "{output:?}");
    // A token that other parties accept too.
    mint("https://kubernetes.default.svc");
    example.fails(NO_IDENTITY, &["is made for"], &["`subject_audience`"]).await;
    // A file with a hostile host.
    let mut strange = external_account(JWT, &source);
    strange["token_url"] = json!("https://sts.evil.example/v1/token");
    fs::write(&file, strange.to_string()).expect("ours");
    example.fails(NO_IDENTITY, &["is not Google's Security Token Service"], &["sts.googleapis.com"]).await;
    // A stored secret.
    fs::write(&file, json!({"type": "service_account", "private_key": "x"}).to_string()).expect("ours");
    example.fails(NO_IDENTITY, &["a key of a service account"], &["delete the key"]).await;
}

#[tokio::test]
async fn an_external_account_file_with_a_program() {
    let scene = Scene::new(binary()).await;
    let google = google(&scene).await;
    profiles::of_google(&scene);
    scene.authorization_server.also_trust(google.trust());
    let (file, program) = (scene.safeconduct.private("google.json"), scene.safeconduct.private("program"));
    let write = |script: &str| {
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("ours");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("ours");
    };
    let token = scene.platform.mint(&format!("https:{PROVIDER}"), LIFE);
    let id_token = "urn:ietf:params:oauth:token-type:id_token";
    let good = json!({"version": 1, "success": true, "token_type": id_token, "id_token": token, "expiration_time": 1});
    let checks = format!("test \"$GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE $1\" = '{PROVIDER} --quiet' || exit 3");
    write(&format!("{checks}\necho '{good}'"));
    let command = format!("{} --quiet", program.display());
    let mut account = external_account(JWT, &json!({"executable": {"command": command, "timeout_millis": 5000}}));
    account["subject_token_type"] = json!(id_token);
    fs::write(&file, account.to_string()).expect("ours");
    let line = "credentials_file = \"/etc/safeconduct/google.json\"\n";
    let here = format!("credentials_file = {:?}\n", file.display().to_string());
    let example = Example::new(&scene, "gcp-external-account", LOGIN).with(line, &here).at_google(&google);
    let world = |allowed: &str| {
        scene.safeconduct.clone().env("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", allowed).config(&example.text)
    };
    world("1").run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(google.last_form()["subject_token_type"], id_token);
    let output = world("true").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES is not 1"], &["if the file is yours"]);
    write("echo '{\"version\": 1, \"success\": false, \"code\": \"401\", \"message\": \"signed out\"}'");
    let output = world("1").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["has no token", "401"], &["by hand"]);
    write("exit 3");
    let output = world("1").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["exit status: 3"], &["GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE"]);
    write("echo no JSON");
    let output = world("1").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["not the JSON of AIP-4117"], &["one JSON object"]);
    // Other users who can write the file could run programs as this user.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("ours");
    let output = world("1").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["others than this user can write it"], &["chmod go-w"]);
}
