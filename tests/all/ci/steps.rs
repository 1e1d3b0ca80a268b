//! Several steps of one job: each has its own daemon, and helpers find the one that serves their target.

use super::*;
use serde_json::json;
use support::mcp_server::FakeMcp;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

#[tokio::test]
async fn helpers_ask_the_newest_daemon_first_until_one_serves_the_target() {
    let job = Job::new().await;
    let other = FakeMcp::start(&job.scene.authorization_server, &["other:read"]).await;
    let named = format!("other={}", other.url());
    let first = job.ci(&[&job.demo(), "--json"]).await.expect_code(0);
    let second = job.ci(&[&named, "--json"]).await.expect_code(0);
    let (one, two) = (Daemon::of(&first), Daemon::of(&second));
    assert!(first.json()["socket"].as_str().is_some_and(|path| path.ends_with("/1/safeconduct.sock")));
    assert!(second.json()["socket"].as_str().is_some_and(|path| path.ends_with("/2/safeconduct.sock")));
    let (demo_url, other_url) = (job.scene.mcp.url(), other.url());
    let targets = [("demo", "demo"), (&*demo_url, "demo"), ("other", "other"), (&*other_url, "other")];
    for (target, name) in targets {
        let helper = job.world.run(&["token", target, "--daemon-only", "--no-mask"]).await.expect_code(0);
        assert_eq!(helper.stdout.trim_end(), job.outputs()[&format!("token_{name}")], "{target}");
    }
    for (target, _) in targets {
        job.world.run(&["headers", target, "--daemon-only"]).await.expect_code(0);
    }
    for url in [&demo_url, &other_url] {
        let get = job.world.run_with_stdin(&["get", "--daemon-only"], &json!({ "uri": url }).to_string()).await;
        assert!(get.expect_code(0).json()["headers"]["Authorization"].is_array());
    }
    job.world.run(&["ready", "demo"]).await.expect_code(0);
    job.world.run(&["ready", "other"]).await.expect_code(0);
    // What no step serves is refused as by one daemon, and never done in this process.
    let output = job.world.run(&["token", "unheard"]).await.expect_code(ASKED_WRONGLY);
    assert!(output.stderr.contains("configured: other"), "{}", output.stderr);
    job.world.run(&["token", "https://mcp.example.com/mcp"]).await.expect_code(DENIED);
    let get = job.world.run_with_stdin(&["get"], &json!({ "uri": "https://mcp.example.com/mcp" }).to_string()).await;
    assert_eq!(get.expect_code(0).stdout.trim_end(), "{}");
    // The newest ends: the others go on.
    two.end().await;
    job.world.run(&["token", "demo", "--daemon-only", "--no-mask"]).await.expect_code(0);
    assert!(one.lives());
    one.end().await;
    assert!(job.is_clean());
}

#[tokio::test]
async fn stop_ends_the_daemons_of_the_job_and_revokes_what_lives() {
    let job = Job::new().await;
    let first = job.ci(&[&job.demo(), "--json"]).await.expect_code(0);
    let token = job.outputs()["token_demo"].clone();
    let second = job.ci(&[&job.demo(), "--json"]).await.expect_code(0);
    let (one, two) = (Daemon::of(&first), Daemon::of(&second));
    let stopped = job.world.run(&["stop", "--json"]).await.expect_code(0);
    assert_eq!(stopped.json()["pids"], json!([two.0.as_raw(), one.0.as_raw()]));
    assert!(!one.lives() && !two.lives() && job.is_clean(), "nothing is left");
    let server = &job.scene.authorization_server;
    assert!(server.is_revoked(&token) && server.is_revoked(&job.outputs()["token_demo"]));
    let again = job.world.run(&["stop"]).await.expect_code(0);
    assert!(
        again.stdout.contains("nothing to stop"),
        "the last step of a job whose first step failed: {}",
        again.stdout
    );
    // The one of this socket alone, as a post step ends it.
    let third = job.ci(&[&job.demo(), "--json"]).await.expect_code(0);
    let socket = third.json()["socket"].as_str().expect("a path").to_owned();
    job.world.run(&["stop", "--socket", &socket]).await.expect_code(0);
    assert!(!Daemon::of(&third).lives() && job.is_clean());
}

#[tokio::test]
async fn a_bridge_speaks_to_the_daemon_that_serves_its_server() {
    let job = Job::new().await;
    let other = FakeMcp::start(&job.scene.authorization_server, &["other:read"]).await;
    let first = job.ci(&[&job.demo(), "--json"]).await.expect_code(0);
    let second = job.ci(&[&format!("other={}", other.url()), "--json"]).await.expect_code(0);
    let (_one, _two) = (Daemon::of(&first), Daemon::of(&second));
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    for target in ["demo", &job.scene.mcp.url()] {
        let mut bridge = job.world.spawn(&["stdio", target, "--daemon-only"]);
        let mut stdin = bridge.stdin();
        stdin.write_all(format!("{call}\n").as_bytes()).await.expect("it reads");
        let line = BufReader::new(bridge.stdout()).lines().next_line().await.expect("readable").expect("an answer");
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        assert!(answer["result"].is_object(), "{target}: {answer}");
        drop(stdin);
        bridge.wait().await.expect_code(0);
    }
}
