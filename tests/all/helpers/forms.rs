//! The output formats.

use super::*;

#[tokio::test]
async fn every_form_is_the_same_with_a_daemon_and_without() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let here = scene.configured("");
    let expected = json!({
        "resource": scene.mcp.url(), "issuer": scene.authorization_server.issuer(), "scope": "demo:read demo:write", "token_type": "Bearer",
    });
    for (world, more) in [(daemon.helper(), "--daemon-only"), (here, "--no-daemon")] {
        let run = async |form: &str| world.run(&["token", "demo", "-o", form, more]).await;
        let raw = run("raw").await;
        assert_eq!(keys::peek(line(&raw))["aud"], json!(scene.mcp.url()));
        let header = run("header").await;
        let header = line(&header).strip_prefix("Authorization: Bearer ").expect("a header line").to_owned();
        assert_eq!(keys::peek(&header)["aud"], json!(scene.mcp.url()));
        let variable = run("env").await;
        let variable = line(&variable).strip_prefix("SAFECONDUCT_TOKEN_DEMO=").expect("an assignment").to_owned();
        let body = run("json").await;
        let body: Value = serde_json::from_str(line(&body)).expect("JSON");
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(&body[name], value, "{name}");
        }
        assert!(body["expires_in"].as_u64().is_some_and(|left| (580..=600).contains(&left)));
        assert_eq!(keys::peek(&variable)["scope"], "demo:read demo:write");
        assert_eq!(flat(&world.run(&["headers", "demo", more]).await).split('.').count(), 3);
    }
    assert_eq!(daemon.run(&["token", "demo", "-o", "json"]).await.json()["access_token"], daemon.token("demo").await);
}

#[tokio::test]
async fn a_variable_needs_a_name_and_a_url_can_be_given_one() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let url = scene.mcp.url();
    failed(daemon.run(&["token", &url, "-o", "env"]).await, ASKED_WRONGLY);
    let named = daemon.run(&["token", &format!("my-server.1={url}"), "-o", "env"]).await;
    assert!(line(&named).starts_with("SAFECONDUCT_TOKEN_MY_SERVER_1="));
}

#[tokio::test]
async fn the_runner_is_told_to_mask_before_the_token_is_printed() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let token = daemon.token("demo").await;
    for (variables, before) in
        [(vec![("GITHUB_ACTIONS", "true")], "::add-mask::"), (vec![("TF_BUILD", "True")], "##vso[task.setsecret]")]
    {
        let mut command = daemon.helper().without_env("GITHUB_ACTIONS").command(&["token", "demo"]);
        let output = command.envs(variables).env("SAFECONDUCT_LOG", "error").output().await.expect("it runs");
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{before}{token}\n"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{token}\n"));
    }
    let elsewhere = daemon.helper().without_env("GITHUB_ACTIONS").without_env("SAFECONDUCT_LOG");
    let job = elsewhere.clone().env("GITHUB_ACTIONS", "true");
    for (world, flags) in [(elsewhere.clone(), &[][..]), (job, &["--no-mask"])] {
        let output = world.run(&[&["token", "demo"], flags].concat()).await.expect_code(0);
        assert_eq!((output.stdout, output.stderr), (format!("{token}\n"), String::new()));
    }
    // Only one of the two reads the line; the other would show it.
    let both = elsewhere.env("GITHUB_ACTIONS", "true").env("TF_BUILD", "True");
    let output = both.run(&["token", "demo"]).await.expect_code(0);
    assert!(output.stderr.contains("not masked") && output.stderr.lines().count() == 1, "{}", output.stderr);
}

#[tokio::test]
async fn headers_take_the_server_from_claude_code_by_its_url() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let world = daemon.helper().env("CLAUDE_CODE_MCP_SERVER_NAME", "somebody-elses");
    let token = daemon.token("demo").await;
    let told = world.clone().env("CLAUDE_CODE_MCP_SERVER_URL", &scene.mcp.url());
    assert_eq!(flat(&told.run(&["headers"]).await), token);
    let other = world.clone().env("CLAUDE_CODE_MCP_SERVER_URL", "https://mcp.example.com/mcp");
    failed(other.run(&["headers"]).await, DENIED);
    // The name comes from a file in the repository, so it must not choose the server.
    let named = daemon.helper().env("CLAUDE_CODE_MCP_SERVER_NAME", "demo");
    assert!(failed(named.run(&["headers"]).await, ASKED_WRONGLY).contains("safeconduct headers NAME"));
}

#[tokio::test]
async fn get_speaks_the_bazel_protocol() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let here = scene.configured("");
    let ask = |uri: &str| json!({"uri": uri, "unknown": {"fields": ["are", "ignored"]}}).to_string();
    for (world, get) in [(daemon.helper(), &["get"][..]), (here.clone(), &["get", "--no-daemon"])] {
        for uri in [scene.mcp.url(), format!("{}/below?session=1", scene.mcp.url())] {
            let output = world.run_with_stdin(get, &ask(&uri)).await;
            let body: Value = serde_json::from_str(line(&output)).expect("JSON");
            let names: Vec<&String> = body.as_object().expect("an object").keys().collect();
            assert_eq!(names, ["expires", "headers"]);
            let values = body["headers"]["Authorization"].as_array().expect("a list of values");
            assert!(values.len() == 1 && values[0].as_str().is_some_and(|value| value.starts_with("Bearer ")));
            assert!(body["expires"].as_str().is_some_and(|time| time.ends_with('Z')));
        }
        let before = (scene.platform.requests(), scene.authorization_server.token_requests(), scene.mcp.seen().len());
        let beside = scene.mcp.url().replace("/mcp", "/other");
        for foreign in ["https://mcp.example.com/mcp", "https://nowhere.invalid/", "grpc://x", "", &beside] {
            let output = world.run_with_stdin(get, &ask(foreign)).await.expect_code(0);
            assert_eq!(output.stdout, "{}\n", "{foreign}");
        }
        let after = (scene.platform.requests(), scene.authorization_server.token_requests(), scene.mcp.seen().len());
        assert_eq!(before, after, "nobody was asked about what is none of our business");
        for nonsense in ["", "nonsense", "[]", "{\"url\":\"https://mcp.example.com\"}"] {
            failed(world.run_with_stdin(get, nonsense).await, ASKED_WRONGLY);
        }
    }
}

/// The answer for an unknown URL needs neither an identity nor a daemon.
#[tokio::test]
async fn get_without_anything_leaves_every_uri_alone() {
    let world = Safeconduct::new(binary());
    let output = world.run_with_stdin(&["get"], "{\"uri\":\"https://mcp.example.com/mcp\"}").await.expect_code(0);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("{}\n", ""));
}
