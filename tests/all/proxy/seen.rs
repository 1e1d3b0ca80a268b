//! What status, metrics, audit and doctor say of the proxy.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::authorization_server::TokenFault;
use support::fault::Fault;
use support::safeconduct::Daemon;
use support::scene::Scene;

use super::{World, answers, call, closing, initialize, ours, post};
use crate::{LIMIT, binary};

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

async fn proxy_of(daemon: &Daemon, name: &str) -> Value {
    let status = daemon.get("/v1/status").await.json();
    let servers = status["servers"].as_array().expect("a list").clone();
    servers.into_iter().find(|server| server["name"] == name).expect("it is served")["proxy"].clone()
}

#[tokio::test]
async fn status_and_metrics_count_requests_repetitions_and_open_streams_of_each_server() {
    let world = World::new().await;
    assert_eq!(proxy_of(&world.daemon, "raw").await, Value::Null, "nobody has used it");
    let get = "GET /mcp/raw HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
    let mut stream = world.send(get).await;
    let mut server = world.server.accept().await;
    server.head().await;
    server.say(STREAM).await;
    stream.until(b"\r\n\r\n").await;
    // A lost answer: the request is sent once more.
    let mut client = world.send(&post("/mcp/raw", "", &call("1", "ping"))).await;
    for _ in 0..2 {
        let mut lost = world.server.accept().await;
        lost.head().await;
    }
    assert_eq!(client.reply().await.status, 200);
    let counted = json!({"requests": 2, "repetitions": 1, "sessions_healed": 0, "open_streams": 1});
    assert_eq!(proxy_of(&world.daemon, "raw").await, counted);
    let text = world.daemon.run(&["status"]).await.expect_code(0).stdout;
    assert!(
        text.split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .contains("proxy requests 2, sent again 1, sessions healed 0, open streams 1"),
        "{text}"
    );
    let metrics = world.daemon.get("/metrics").await.body;
    for line in [
        "safeconduct_proxy_requests_total{server=\"raw\"} 2",
        "safeconduct_proxy_repetitions_total{server=\"raw\"} 1",
        "safeconduct_proxy_sessions_healed_total{server=\"raw\"} 0",
        "safeconduct_proxy_open_streams{server=\"raw\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    drop(stream);
    let closed = async || proxy_of(&world.daemon, "raw").await["open_streams"] == 0;
    support::wait::until(LIMIT, "the stream is closed", closed).await;
    world.daemon.stop().await.expect_code(0);
}

/// A world with an audit file.
async fn recorded() -> (World, PathBuf) {
    let scene = Scene::new(binary()).await;
    let file = scene.safeconduct.path().join("audit.jsonl");
    let more = format!("[audit]\nfile = \"{}\"", file.display());
    (World::on(scene, &more).await.with_a_token().await, file)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn of_calls_that_cannot_be_recorded_none_leaves_and_no_part_of_their_lines_stays() {
    let (world, file) = recorded().await;
    let text = || std::fs::read_to_string(&file).expect("it is ours to read");
    let before = text();
    crate::audit::limit_files(&world.daemon, Some(before.len() as u64 + 100));
    let request = closing(&post("/mcp/raw", "", &call("1", "ping")));
    for reply in join_all((0..16).map(|_| world.daemon.exchange(&request))).await {
        assert_eq!(ours(&reply)["error"]["data"]["error"], "no_token", "{}", reply.body);
    }
    assert!(world.server.is_left_alone(Duration::from_millis(1)).await);
    assert_eq!(text(), before);
    crate::audit::limit_files(&world.daemon, None);
    world.exchange(&post("/mcp/raw", "", &call("1", "ping")), &answers("{}")).await;
    support::wait::until(LIMIT, "the end is written", async || lines(&file, "done").len() == 1).await;
    let verified = world.daemon.run(&["audit", "verify", "--json", &file.display().to_string()]).await;
    assert_eq!(verified.expect_code(0).json()["lines"], before.lines().count() + 2);
}

#[tokio::test]
async fn every_call_has_its_end_when_the_daemon_ends() {
    let (world, file) = recorded().await;
    let left = world.send(&post("/mcp/raw", "", &call("1", "tools/call"))).await;
    let mut server = world.server.accept().await;
    server.head().await;
    drop(left);
    let cut = async || lines(&file, "done").iter().any(|line| line["outcome"] == "cut");
    support::wait::until(LIMIT, "the client has left before its answer", cut).await;
    for _ in 0..3 {
        world.exchange(&post("/mcp/raw", "", &call("1", "ping")), &answers("{}")).await;
    }
    world.daemon.stop().await.expect_code(0);
    assert_eq!((lines(&file, "call").len(), lines(&file, "done").len()), (4, 4));
}

/// The lines of the audit with this action.
fn lines(path: &std::path::Path, action: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("it is ours to read");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["action"] == action).collect()
}

#[tokio::test]
async fn each_call_is_two_lines_of_the_audit_with_one_request_id_and_no_argument() {
    let scene = Scene::new(binary()).await;
    let directory = scene.safeconduct.path().join("audit");
    std::fs::DirBuilder::new().mode(0o700).create(&directory).expect("made");
    let file = directory.join("audit.jsonl");
    let daemon = scene.daemon(&format!("[audit]\nfile = \"{}\"", file.display())).await;
    let begun = daemon.exchange(&closing(&post("/mcp/demo", "", &initialize()))).await;
    let session = begun.header("mcp-session-id").expect("a session").to_owned();
    let fields = format!("mcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n");
    let tool =
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"whoami","arguments":{"a":"precious"}}}"#;
    let called = daemon.exchange(&closing(&post("/mcp/demo", &fields, tool))).await;
    assert_eq!(called.status, 200, "{}", called.body);
    support::wait::until(LIMIT, "the ends are written", async || lines(&file, "done").len() == 2).await;
    let (calls, done) = (lines(&file, "call"), lines(&file, "done"));
    assert_eq!(calls.len(), 2);
    for (call, done) in calls.iter().zip(&done) {
        assert_eq!((&call["outcome"], &done["outcome"]), (&json!("served"), &json!("passed")));
        for key in ["request_id", "server", "sha256", "jti", "tool"] {
            assert_eq!(call[key], done[key], "{key}");
        }
        assert!(done["milliseconds"].is_u64() && done["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{done}");
    }
    assert_ne!(calls[0]["request_id"], calls[1]["request_id"]);
    assert_eq!((&calls[0]["tool"], &calls[1]["tool"]), (&Value::Null, &json!("whoami")));
    assert!(!std::fs::read_to_string(&file).expect("ours").contains("precious"));
    // A refusal has the id that its client is told.
    scene.authorization_server.always_token(TokenFault::oauth("access_denied"));
    daemon.post("/v1/revoke", &json!({"server": "demo"})).await;
    let refused = ours(&daemon.exchange(&closing(&post("/mcp/demo", &fields, tool))).await);
    let id = &refused["error"]["data"]["request_id"];
    let is_it = |line: &&Value| line["request_id"] == *id;
    assert!(lines(&file, "call").iter().any(|line| is_it(&line) && line["outcome"] == "refused"), "{id}");
    assert!(!lines(&file, "done").iter().any(|line| is_it(&line)), "nothing has left");
    assert_eq!(daemon.exchange(&closing(&post("/mcp/nobody", &fields, tool))).await.status, 404);
    assert_eq!(lines(&file, "call").last().map(|line| line["server"].clone()), Some(json!("nobody")));
    assert_eq!(daemon.run(&["audit", "verify", &file.display().to_string()]).await.code, Some(0));
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn what_the_issuer_says_is_in_the_error_as_its_words() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let (code, description) = ("access_denied".to_owned(), Some("ask the\nowner".to_owned()));
    scene.authorization_server.always_token(TokenFault::OauthError { code, description, uri: None });
    let error = ours(&daemon.exchange(&closing(&post("/mcp/demo", "", &call("7", "tools/call")))).await);
    assert_eq!(error["error"]["data"]["said"], "ask the owner", "{error}");
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn what_a_server_says_in_its_challenge_is_in_the_error() {
    let world = World::new().await;
    let forbidden = "HTTP/1.1 403 Forbidden\r\nwww-authenticate: Bearer error=\"insufficient_user_authentication\", error_description=\"sign\tin please\"\r\ncontent-length: 0\r\n\r\n";
    let (_, _, reply) = world.exchange(&post("/mcp/raw", "", &call("1", "tools/call")), forbidden).await;
    assert_eq!(ours(&reply)["error"]["data"]["said"], "sign in please", "{}", reply.body);
    world.daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn doctor_says_whether_the_proxy_of_the_daemon_works_for_its_target() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let url = scene.mcp.url();
    let check = async || {
        let report = scene.configured("").run(&["doctor", &url, "--json"]).await.json();
        let checks = report["checks"].as_array().expect("a list").clone();
        checks.into_iter().find(|check| check["code"] == "proxy-path").expect("it is checked")
    };
    let works = check().await;
    assert_eq!(works["state"], "pass", "{works}");
    scene.authorization_server.always_token(Fault::Status(503));
    daemon.post("/v1/revoke", &json!({"server": "demo"})).await;
    let fails = check().await;
    assert_eq!((&fails["state"], &fails["class"]), (&json!("fail"), &json!("temporary")), "{fails}");
    daemon.stop().await.expect_code(0);
    let checks = scene.configured("").run(&["doctor", &url, "--json"]).await.json();
    let has = checks["checks"].as_array().expect("a list").iter().any(|check| check["code"] == "proxy-path");
    assert!(!has, "no daemon, no proxy");
}
