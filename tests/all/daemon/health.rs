//! Health, readiness, status, metrics.

use super::*;

#[tokio::test]
async fn readiness_waits_for_the_required_and_names_what_is_missing() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_down(true);
    let daemon = scene.daemon("required = true").await;
    assert_eq!(daemon.get("/healthz").await.json(), json!({"status": "alive"}));

    let reply = daemon.get("/readyz").await;
    assert_eq!((reply.status, &reply.json()["ready"]), (503, &json!(false)));
    assert!(reply.json()["reasons"][0].as_str().is_some_and(|reason| reason.starts_with("demo: ")), "{}", reply.body);
    let output = daemon.run(&["ready"]).await.expect_code(TEMPORARY);
    assert!(output.stderr.contains("not ready: demo: ") && output.stdout.is_empty(), "{}", output.stderr);
    let output = daemon.run(&["ready", "--json"]).await.expect_code(TEMPORARY);
    let report: Value = serde_json::from_str(&output.stderr).expect("JSON on stderr");
    assert_eq!(report["ready"], false);

    scene.authorization_server.heal();
    assert_eq!(daemon.run(&["ready", "--wait", "15s", "--json"]).await.expect_code(0).json(), json!({"ready": true}));
    assert_eq!(daemon.get("/readyz").await.json(), json!({"ready": true, "reasons": []}));
}

#[tokio::test]
async fn readiness_of_a_named_server_fetches_its_token() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    assert_eq!(daemon.get("/readyz").await.status, 200, "nothing is required");
    assert_eq!(scene.authorization_server.token_requests(), 0);
    daemon.run(&["ready", "demo", "--wait", "10s"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.token_requests(), 1);
    daemon.run(&["ready", "https://mcp.example.com/mcp"]).await.expect_code(ASKED_WRONGLY);
}

/// Waiting does not help, because a running daemon gets no new server names.
#[tokio::test]
async fn readiness_of_an_unknown_server_is_no_matter_of_waiting() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let output = daemon.helper().limit(Duration::from_secs(10)).run(&["ready", "nope", "--wait", "60s"]).await;
    assert!(output.expect_code(ASKED_WRONGLY).stderr.contains("nope"));
}

#[tokio::test]
async fn ready_waits_for_a_daemon_that_is_yet_to_come() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("required = true");
    world.run(&["ready"]).await.expect_code(TEMPORARY);
    let early = tokio::spawn({
        let world = world.clone();
        async move { world.run(&["ready", "--wait", "15s"]).await }
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    let _daemon = world.daemon(&[]).await;
    early.await.expect("it ran").expect_code(0);
}

#[tokio::test]
async fn status_tells_everything_but_the_token() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("scopes = [\"demo:read\"]").await;
    assert_eq!(daemon.get("/v1/status").await.json()["servers"][0]["state"], "idle");
    daemon.token("demo").await;
    daemon.token("demo").await;

    let status = daemon.run(&["status", "--json"]).await.expect_code(0).json();
    assert_eq!((&status["pid"], &status["identity"]["source"]), (&json!(daemon.pid()), &json!("github-actions")));
    let server = &status["servers"][0];
    assert_eq!(
        (&server["name"], &server["url"], &server["state"]),
        (&json!("demo"), &json!(scene.mcp.url()), &json!("fresh"))
    );
    assert_eq!(server["issuer"], scene.authorization_server.issuer());
    assert_eq!(server["callers"], json!([{"uid": geteuid().as_raw(), "served": 2}]));
    let token = &server["tokens"][0];
    assert_eq!((&token["scope"], &token["lifetime"]), (&json!("demo:read"), &json!(600)));
    assert_eq!(token["sub"], "repo:octo-org/octo-repo:ref:refs/heads/main");
    assert_eq!(token["sha256"].as_str().map(str::len), Some(12));

    let table = daemon.run(&["status"]).await.expect_code(0).stdout;
    for words in ["demo  fresh", "url      http://127.0.0.1:", "s of 600 s left", "scope \"demo:read\"", "2×"] {
        assert!(table.contains(words), "{words:?} in\n{table}");
    }
}

#[tokio::test]
async fn status_shows_a_failure_with_its_class_and_cure() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(support::authorization_server::TokenFault::oauth("invalid_grant"));
    let daemon = scene.daemon("").await;
    assert_eq!(daemon.get("/v1/token?server=demo").await.status, 502);
    let server = &daemon.get("/v1/status").await.json()["servers"][0];
    assert_eq!((&server["state"], &server["error"]["class"]), (&json!("failing"), &json!("refused")));
    assert_eq!(server["error"]["error"], "invalid_grant");
    let table = daemon.run(&["status"]).await.expect_code(0).stdout;
    assert!(
        table.contains("failing  since 2") && table.contains("(refused)") && table.contains("cure     "),
        "{table}"
    );
}

#[tokio::test]
async fn metrics_are_open_metrics_and_count_what_happened() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    daemon.token("demo").await;
    daemon.token("demo").await;
    daemon.get("/v1/token?server=nope").await;
    let reply = daemon.get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").is_some_and(|media| media.starts_with("application/openmetrics-text")));
    let samples = open_metrics(&reply.body);
    let value = |name: &str| samples.get(name).copied();
    assert_eq!(value("safeconduct_tokens_served_total{server=\"demo\"}"), Some(2.0), "{samples:?}");
    assert_eq!(value("safeconduct_requests_refused_total{class=\"bad_request\"}"), Some(1.0));
    assert_eq!(value("safeconduct_cache_hits_total"), Some(1.0));
    assert_eq!(value("safeconduct_flights_total"), Some(1.0));
    assert_eq!(value("safeconduct_flight_seconds_count"), Some(1.0));
}

/// Checks the rules of OpenMetrics 1.0 that a scraper needs: every sample belongs to the family declared before it, counters end in
/// `_total`, values are numbers, the text ends with `# EOF`.
fn open_metrics(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end in\n{text}"));
    let (mut samples, mut family, mut kind) = (BTreeMap::new(), String::new(), String::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next().expect("a name"), words.next().unwrap_or_default());
            match what {
                Some("HELP" | "UNIT") => assert!(!rest.is_empty(), "{line}"),
                Some("TYPE") => kind = rest.to_owned(),
                _ => panic!("neither HELP nor TYPE nor UNIT: {line}"),
            }
            name.clone_into(&mut family);
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        let name = sample.split('{').next().unwrap_or_default();
        let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} does not belong to {family}"));
        let known: &[&str] = match kind.as_str() {
            "counter" => &["_total", "_created"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(known.contains(&suffix), "{line}: a {kind} has no {suffix:?}");
        assert!(samples.insert(sample.to_owned(), value.parse().expect("a number")).is_none(), "twice: {line}");
    }
    samples
}
