//! Start, serving, and requests and configurations that are refused.

use super::*;

#[tokio::test]
async fn a_token_is_served_and_renders_as_documented() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("scopes = [\"demo:read\"]").await;
    let reply = daemon.get("/v1/token?server=demo").await;
    assert_eq!((reply.status, reply.header("cache-control")), (200, Some("no-store")), "{}", reply.status);
    let body = reply.json();
    let names: Vec<&String> = body.as_object().expect("an object").keys().collect();
    let mut wanted = ["access_token", "token_type", "expires_in", "expires_at", "scope", "resource", "issuer"];
    wanted.sort_unstable();
    assert_eq!(names, wanted.iter().collect::<Vec<_>>());
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["scope"], "demo:read");
    assert_eq!(body["resource"], scene.mcp.url());
    assert_eq!(body["issuer"], scene.authorization_server.issuer());
    let left = body["expires_in"].as_u64().expect("seconds");
    assert!((590..=600).contains(&left), "{left}");
    assert!(body["expires_at"].as_str().is_some_and(|text| text.ends_with('Z') && text.contains('T')));
    assert_eq!(mode(daemon.socket()), 0o600);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn servers_of_the_command_line_need_no_file_and_are_required() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.safeconduct.daemon(&[&scene.argument(), "--insecure-loopback"]).await;
    let ready = daemon.run(&["ready", "--wait", "10s"]).await.expect_code(0);
    assert_eq!(ready.stdout, "ready\n");
    assert_eq!(scene.authorization_server.token_requests(), 1, "nobody had to ask for the token");
    let status = daemon.get("/v1/status").await.json();
    assert_eq!((&status["servers"][0]["name"], &status["servers"][0]["required"]), (&json!("demo"), &json!(true)));
    daemon.token("demo").await;
    assert_eq!(scene.authorization_server.token_requests(), 1);
}

#[tokio::test]
async fn configurations_that_cannot_be_served_fail_before_anything_is_bound() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let url = scene.mcp.url();
    for (args, code, words) in [
        (vec!["https://mcp.example.com/mcp"], ASKED_WRONGLY, "NAME=URL"),
        (vec!["demo"], ASKED_WRONGLY, "NAME=URL"),
        (vec!["bad name=https://mcp.example.com/mcp"], ASKED_WRONGLY, "cannot be used"),
        (vec!["other=https://user@mcp.example.com/mcp"], ASKED_WRONGLY, "URL"),
        (vec!["demo=https://mcp.example.com/mcp"], ASKED_WRONGLY, "configured already"),
        (vec!["demo2", "demo3"], ASKED_WRONGLY, "NAME=URL"),
    ] {
        let output = fails(&world, &args).await.expect_code(code);
        assert!(output.stderr.contains(words) && output.stdout.is_empty(), "{args:?}: {}", output.stderr);
        assert!(!world.socket().exists());
    }
    let same_place = format!("again={url}/");
    let output = fails(&world, &[&same_place]).await.expect_code(ASKED_WRONGLY);
    assert!(output.stderr.contains("configured already"), "{}", output.stderr);
    let plain = fails(&scene.safeconduct, &[&scene.argument()]).await.expect_code(CONFIG);
    assert!(plain.stderr.contains("plain http") && plain.stderr.contains("--insecure-loopback"), "{}", plain.stderr);
}

#[tokio::test]
async fn without_an_identity_no_place_is_taken() {
    let scene = Scene::new(binary()).await;
    let laptop = Safeconduct::new(binary()).config(&scene.config(""));
    let output = fails(&laptop, &[]).await.expect_code(NO_IDENTITY);
    assert!(output.stderr.contains("--identity-file"), "{}", output.stderr);
    assert!(!laptop.socket().exists());
}

#[tokio::test]
async fn unknown_requests_are_refused_by_status() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    for (path, status, error) in [
        ("/v1/token", 400, "invalid_request"),
        ("/v1/token?server=nope", 400, "unknown_server"),
        ("/v1/token?server=https://mcp.example.com/mcp", 403, "server_not_configured"),
        ("/v1/token?server=http://user@127.0.0.1/mcp", 400, "invalid_request"),
        ("/v1/token?server=demo&server=demo", 400, "invalid_request"),
        ("/v1/token?server=demo&min_ttl=soon", 400, "invalid_request"),
        ("/v1/token?server=demo&fresh=yes", 400, "invalid_request"),
        ("/v1/token?server=demo&use=browser", 400, "invalid_request"),
        ("/v1/token?server=demo&colour=blue", 400, "invalid_request"),
        ("/v1/headers?server=demo&url=https://mcp.example.com/mcp", 403, "access_denied"),
        ("/v1/nothing", 404, "not_found"),
        ("/v1/reject", 405, "method_not_allowed"),
    ] {
        let reply = daemon.get(path).await;
        assert_eq!((reply.status, reply.json()["error"].as_str()), (status, Some(error)), "{path}: {}", reply.body);
        assert!(reply.json()["class"].is_string() && reply.json()["error_description"].is_string(), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
    }
    let other_spelling = scene.mcp.url().replace("http://", "HTTP://");
    assert_eq!(daemon.get(&format!("/v1/token?server={other_spelling}/")).await.status, 200);
    assert_eq!(scene.authorization_server.token_requests(), 1, "only the last was worth a token");
}

#[tokio::test]
async fn code_that_only_the_start_needed_is_unmapped() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let now = |counter| memory(daemon.pid(), counter);
    until(LIMIT, "much less is mapped than at the start", async || now("VmRSS") * 4 < now("VmHWM") * 3).await;
    // What is needed again is there again.
    daemon.token("demo").await;
}

#[tokio::test]
async fn a_page_in_a_browser_gets_nothing() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    for header in [
        "host: evil.example",
        "host: localhost\r\norigin: https://evil.example",
        "host: localhost\r\nx-forwarded-for: 1",
    ] {
        for path in ["/v1/token?server=demo", "/v1/status", "/healthz", "/metrics"] {
            let reply = daemon.exchange(&format!("GET {path} HTTP/1.1\r\n{header}\r\nconnection: close\r\n\r\n")).await;
            assert_eq!((reply.status, reply.json()["class"].as_str()), (403, Some("denied")), "{path} {header}");
        }
    }
    assert_eq!(scene.authorization_server.token_requests(), 0);
}
