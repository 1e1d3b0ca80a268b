//! Refusals of the front-end: each is in the audit file before its answer is sent, for every path.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};
use support::scene::Scene;
use support::tcp_http::{self, Loopback};
use support::unix_http::Reply;

use crate::binary;

/// The audit lines so far: action, class, error, and server if any.
fn lines(scene: &Scene) -> Vec<String> {
    let text = fs::read_to_string(scene.safeconduct.path().join("audit.jsonl")).expect("it is there");
    let short = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let words = [&line["action"], &line["class"], &line["error"], &line["server"]];
        words.iter().filter_map(|word| word.as_str()).collect::<Vec<_>>().join(" ")
    };
    text.lines().map(short).collect()
}

/// The configuration that switches the audit file on.
fn audited(scene: &Scene, more: &str) -> String {
    format!("{more}\n[audit]\nfile = \"{}\"\n", scene.safeconduct.path().join("audit.jsonl").display())
}

fn told(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn every_refusal_of_the_front_end_is_a_line_before_its_answer() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.configured(&audited(&scene, "")).daemon(&[]).await;
    let far = "https://elsewhere.example/mcp";
    let at_far = format!("/v1/headers?server={far}&unlisted=0");
    for (path, status, line) in [
        ("/nowhere", 404, "gate bad_request not_found".to_owned()),
        ("/v1/token/", 404, "gate bad_request not_found".to_owned()),
        ("/v1/revoke", 405, "gate bad_request method_not_allowed".to_owned()),
        ("/v1/token", 400, "token bad_request invalid_request".to_owned()),
        ("/v1/token?server=demo&colour=blue", 400, "token bad_request invalid_request".to_owned()),
        ("/v1/token?server=demo&min_ttl=soon", 400, "token bad_request invalid_request".to_owned()),
        ("/v1/token?server=demo&server=demo", 400, "token bad_request invalid_request".to_owned()),
        ("/v1/token?server=demo&unlisted=2", 400, "token bad_request invalid_request demo".to_owned()),
        ("/v1/headers?server=demo&url=nonsense", 400, "headers bad_request invalid_request demo".to_owned()),
        ("/v1/headers?server=demo&url=https://elsewhere.example/", 403, "headers denied access_denied demo".to_owned()),
        (at_far.as_str(), 403, format!("headers denied server_not_configured {far}")),
        ("/readyz?colour=blue", 400, "ready bad_request invalid_request".to_owned()),
        ("/readyz?server=unheard", 400, "ready bad_request unknown_server unheard".to_owned()),
    ] {
        let before = lines(&scene).len();
        let reply = daemon.get(path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
        assert_eq!(lines(&scene)[before..], [line], "{path}");
    }
    let before = lines(&scene).len();
    assert_eq!(daemon.post("/v1/reject", &json!({ "server": "demo" })).await.status, 400);
    assert_eq!(daemon.post("/v1/revoke", &json!({ "server": "http://user@x/" })).await.status, 400);
    assert_eq!(lines(&scene)[before..], ["reject bad_request invalid_request", "revoke bad_request invalid_request"]);
    assert_eq!(scene.authorization_server.token_requests(), 0);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones_on_every_listener() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("[listen]\nhttp = \"127.0.0.1:0\"\nhealth = \"127.0.0.1:0\"").await;
    let loopback = Loopback::of(&daemon).await;
    let listen = tcp_http::listening(&daemon).await;
    let health: SocketAddr = listen["health"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    let end = "host: localhost\r\nconnection: close\r\n";
    let secret = format!("authorization: Bearer {}\r\n", loopback.secret);
    for (line, allow) in [
        ("DELETE /v1/token?server=demo HTTP/1.1", "GET, HEAD"),
        ("GET /v1/reject HTTP/1.1", "POST"),
        ("PUT /metrics HTTP/1.1", "GET, HEAD"),
    ] {
        let on_socket = daemon.exchange(&format!("{line}\r\n{end}\r\n")).await;
        let on_loopback = loopback.exchange(&format!("{line}\r\n{end}{secret}\r\n")).await;
        for reply in [on_socket, on_loopback] {
            assert_eq!(told(&reply), (405, "method_not_allowed".to_owned()), "{line}: {}", reply.body);
            assert_eq!(
                (reply.header("allow"), &reply.json()["error_description"]),
                (Some(allow), &json!("method not allowed"))
            );
        }
    }
    let reply = tcp_http::exchange(health, &format!("PUT /metrics HTTP/1.1\r\n{end}\r\n")).await.expect("an answer");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")));
    let reply = daemon.exchange(&format!("HEAD /v1/reject HTTP/1.1\r\n{end}\r\n")).await;
    assert_eq!((reply.status, reply.header("allow"), reply.body.as_str()), (405, Some("POST"), ""));
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn whoever_reaches_the_health_listener_cannot_fill_the_audit() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.configured(&audited(&scene, "[listen]\nhealth = \"127.0.0.1:0\"")).daemon(&[]).await;
    let listen = tcp_http::listening(&daemon).await;
    let health: SocketAddr = listen["health"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    for request in ["GET /nowhere HTTP/1.1\r\n", "PUT /metrics HTTP/1.1\r\n", "GET /metrics HTTP/1.1\r\nvia: 1.1 x\r\n"]
    {
        let request = format!("{request}host: x\r\nconnection: close\r\n\r\n");
        let reply = tcp_http::exchange(health, &request).await.expect("an answer");
        assert!(matches!(reply.status, 403..=405), "{}", reply.status);
    }
    let none = scene.safeconduct.path().join("audit.jsonl");
    assert!(fs::read_to_string(none).expect("it is there").is_empty());
    daemon.stop().await.expect_code(0);
}

/// How many refusals the audit tells of in lines of their own, and how many it only counts.
fn told_and_counted(scene: &Scene) -> (usize, u64) {
    let text = fs::read_to_string(scene.safeconduct.path().join("audit.jsonl")).expect("it is there");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let refused: Vec<Value> = lines.filter(|line| line["outcome"] == "refused").collect();
    let counted = refused.iter().filter_map(|line| line["more"].as_u64());
    (refused.iter().filter(|line| line["more"].is_null()).count(), counted.sum())
}

#[tokio::test]
async fn who_has_not_shown_the_secret_cannot_fill_audit_and_log() {
    const TIMES: usize = 400;
    let scene = Scene::new(binary()).await;
    let daemon = scene.configured(&audited(&scene, "[listen]\nhttp = \"127.0.0.1:0\"")).daemon(&[]).await;
    let loopback = Loopback::of(&daemon).await;
    let kept = "GET /v1/token?server=demo HTTP/1.1\r\nhost: localhost\r\n";
    let requests = [
        format!("{kept}\r\n"),
        format!("{kept}authorization: Bearer wrong\r\n\r\n"),
        format!("{kept}origin: https://evil.example\r\n\r\n"),
        kept.replace("host: localhost", "host: evil.example") + "\r\n",
        kept.replace("/v1/token", "/nowhere") + "\r\n",
        kept.replace("host: localhost", "host: localhost\r\nhost: localhost") + "\r\n",
    ];
    for request in requests.iter().cycle().take(TIMES) {
        // It is read to its end, which comes at once though nobody asked for it.
        let reply = loopback.exchange(request).await;
        assert!(matches!(reply.status, 400 | 403 | 404), "{}", reply.status);
        assert_eq!(reply.header("connection"), Some("close"));
    }
    let output = daemon.stop().await.expect_code(0);
    let (told, counted) = told_and_counted(&scene);
    assert_eq!(told + usize::try_from(counted).expect("small"), TIMES, "none is forgotten");
    assert!(told >= 5 && told * 4 < TIMES, "{told} of {TIMES} are lines");
    let is_loud = |line: &str| line.contains("not served") && !line.contains(" DEBUG ");
    assert!(!output.stderr.lines().any(is_loud), "the log tells of them at debug: {}", output.stderr);
}

#[tokio::test]
async fn a_user_that_no_rule_names_cannot_fill_audit_and_log_over_the_socket() {
    const TIMES: usize = 400;
    let scene = Scene::new(binary()).await;
    let others = nix::unistd::geteuid().as_raw() + 1;
    let daemon = scene.configured(&audited(&scene, &format!("allow = [{{ uid = {others} }}]"))).daemon(&[]).await;
    let paths = ["/v1/token?server=demo", "/v1/headers?server=demo", "/nowhere", "/v1/token?colour=blue"];
    for path in paths.iter().cycle().take(TIMES) {
        let reply = daemon.get(path).await;
        assert!(matches!(reply.status, 400 | 403 | 404), "{path}: {}", reply.status);
    }
    // A page's request is on a connection that nobody should have.
    let page = "GET /healthz HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example\r\n\r\n";
    assert_eq!(daemon.exchange(page).await.header("connection"), Some("close"));
    let output = daemon.stop().await.expect_code(0);
    let (told, counted) = told_and_counted(&scene);
    assert_eq!(told + usize::try_from(counted).expect("small"), TIMES + 1, "none is forgotten");
    assert!(told >= 5 && told * 4 < TIMES, "{told} of {TIMES} are lines");
    let logged = output.stderr.matches("not served").count();
    assert!(logged >= told && logged * 4 < TIMES, "{logged} lines in the log");
}

#[tokio::test]
async fn whom_a_rule_names_cannot_fill_audit_and_log_either_and_each_token_is_a_line() {
    const TIMES: usize = 1_000;
    let scene = Scene::new(binary()).await;
    let daemon = scene.configured(&audited(&scene, "")).daemon(&[]).await;
    let paths = [
        "/nowhere",
        "/v1/token?server=demo&colour=blue",
        "/v1/token?server=nosuch",
        "/v1/headers?server=demo&url=https://elsewhere.example/",
        "/readyz?server=nosuch",
    ];
    for path in paths.iter().cycle().take(TIMES) {
        let reply = daemon.get(path).await;
        assert!(matches!(reply.status, 400 | 403 | 404), "{path}: {}", reply.status);
    }
    for _ in 0..100 {
        daemon.token("demo").await;
    }
    let output = daemon.stop().await.expect_code(0);
    let served = lines(&scene).iter().filter(|line| *line == "token demo").count();
    assert_eq!(served, 100, "what is given is never only counted");
    let (told, counted) = told_and_counted(&scene);
    assert_eq!(told + usize::try_from(counted).expect("small"), TIMES, "none is forgotten");
    assert!(told >= 20 && told * 4 < TIMES, "{told} of {TIMES} are lines");
    let logged = output.stderr.matches("not served").count();
    assert!(logged >= told && logged * 4 < TIMES, "{logged} lines in the log");
    let uid = nix::unistd::geteuid().as_raw();
    let sum = output.stderr.lines().find(|line| line.contains("further requests")).expect("they are counted");
    assert!(sum.contains(&format!("uid {uid}")) && !sum.contains("TCP"), "{sum}");
}

#[tokio::test]
async fn what_cannot_be_recorded_fills_no_log() {
    const TIMES: usize = 400;
    let scene = Scene::new(binary()).await;
    let directory = tempfile::tempdir_in(scene.safeconduct.path()).expect("a directory of mode 0700");
    let table = format!("[audit]\nfile = \"{}\"\n", directory.path().join("audit.jsonl").display());
    let daemon = scene.configured(&table).daemon(&[]).await;
    daemon.token("demo").await;
    directory.close().expect("ours");
    for _ in 0..TIMES {
        let reply = daemon.get("/v1/token?server=demo").await;
        assert_eq!((reply.status, &reply.json()["error"]), (503, &json!("audit_failed")), "{}", reply.body);
    }
    let output = daemon.stop().await.expect_code(0);
    let logged = output.stderr.lines().filter(|line| line.contains("not served")).count();
    assert!(logged >= 20 && logged * 4 < TIMES, "{logged} lines in the log");
}

#[tokio::test]
async fn words_of_a_caller_are_one_value_in_the_text_log() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let forged = "x caller=uid 0 gid 0 pid 1 class=\"served\" note=x";
    let query = url::form_urlencoded::byte_serialize(forged.as_bytes()).collect::<String>();
    for path in ["/v1/token", "/v1/headers", "/readyz"] {
        assert_eq!(daemon.get(&format!("{path}?server={query}")).await.status, 400);
    }
    let output = daemon.stop().await.expect_code(0);
    let told: Vec<&str> = output.stderr.lines().filter(|line| line.contains("not served")).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    for line in told {
        let quoted = format!("target_server={forged:?} ");
        assert!(line.contains(&quoted), "{line}");
        let rest = line.replacen(&quoted, "", 1);
        let rest = rest.split(" error=").next().unwrap_or_default();
        assert_eq!(rest.matches("caller=").count(), 1, "{line}");
        assert!(!rest.contains("note="), "{line}");
        let (_, error) = line.split_once(" error=\"").expect("the error is quoted");
        assert!(error.ends_with('"') && error.contains("class=\\\\\\\"served"), "{line}");
    }
}
