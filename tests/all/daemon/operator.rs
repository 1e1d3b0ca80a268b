//! `stop` and `reload`: what the operator tells a running daemon.

use support::authorization_server::TokenFault;

use super::*;

#[tokio::test]
async fn stop_waits_until_the_daemon_has_ended() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("revoke_on_exit = true").await;
    daemon.token("demo").await;
    let helper = daemon.helper();
    let output = helper.run(&["stop"]).await.expect_code(0);
    assert_eq!(output.stdout, "stopped\n");
    assert!(!helper.socket().exists());
    assert_eq!(scene.authorization_server.revocations(), 1, "what lives is revoked when it returns");
    let ended = daemon.wait().await.expect_code(0);
    assert!(ended.stderr.contains("the operator asks"), "{}", ended.stderr);
    let output = helper.run(&["stop"]).await.expect_code(TEMPORARY);
    assert!(output.stdout.is_empty() && output.stderr.contains("nobody listens at"), "{}", output.stderr);
}

#[tokio::test]
async fn stop_waits_while_the_agent_drains() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("[listen]\nlinger = \"1s\"").await;
    let report = daemon.run(&["stop", "--json"]).await.expect_code(0).json();
    assert_eq!(report, json!({"stopped": true, "pid": daemon.pid()}));
    daemon.wait().await.expect_code(0);
}

#[tokio::test]
async fn reload_waits_and_says_how_many_servers_there_are() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let daemon = world.daemon(&[]).await;
    world.rewrite_config(&scene.config("[servers.other]\nurl = \"https://other.example.com/mcp\""));
    assert_eq!(daemon.run(&["reload"]).await.expect_code(0).stdout, "reloaded: 2 servers\n");
    let names = daemon.get("/v1/status").await.json()["servers"].as_array().map(Vec::len);
    assert_eq!(names, Some(2), "the new configuration holds when it returns");
    let report = daemon.run(&["reload", "--json"]).await.expect_code(0).json();
    assert_eq!(report, json!({"reloaded": true, "servers": 2, "needs_restart": []}));
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_bad_new_file_is_told_to_whoever_reloads_and_changes_nothing() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let daemon = world.daemon(&[]).await;
    world.rewrite_config(&scene.config("no_such_key = 1\nscopes = 7"));
    let output = daemon.run(&["reload"]).await.expect_code(CONFIG);
    assert!(output.stdout.is_empty(), "{}", output.stdout);
    for words in ["no_such_key", "scopes", "2 problems"] {
        assert!(output.stderr.contains(words), "{words}: {}", output.stderr);
    }
    daemon.token("demo").await;
    // Many at once are told the outcome of one.
    let all = futures_util::future::join_all((0..8).map(|_| daemon.run(&["reload"]))).await;
    assert!(all.iter().all(|output| output.code == Some(CONFIG)));
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_reload_says_what_wants_a_restart() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let daemon = world.daemon(&[]).await;
    world.rewrite_config(&scene.config("[listen]\nlinger = \"1s\""));
    let output = daemon.run(&["reload"]).await.expect_code(0);
    assert!(
        output.stdout.starts_with("reloaded: 1 server\n[listen] has changed: that needs a restart"),
        "{}",
        output.stdout
    );
    daemon.stop().await.expect_code(0);
}

/// Another file that is found then, or none, can let other callers in.
#[tokio::test]
async fn a_daemon_whose_file_is_gone_stays_as_it_is() {
    let scene = Scene::new(binary()).await;
    let file = scene.safeconduct.path().join("home/.config/safeconduct/safeconduct.toml");
    fs::create_dir_all(file.parent().expect("a folder")).expect("ours");
    fs::write(&file, scene.config("")).expect("ours");
    let daemon = scene.safeconduct.clone().daemon(&[]).await;
    daemon.token("demo").await;
    fs::remove_file(&file).expect("ours");
    let output = daemon.run(&["reload"]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("is not the configuration file that is found now"), "{}", output.stderr);
    daemon.token("demo").await;
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn over_tcp_nobody_stops_or_reloads_a_daemon() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("[listen]\nhttp = \"127.0.0.1:0\"").await;
    let loopback = Loopback::of(&daemon).await;
    for path in ["/v1/stop", "/v1/reload"] {
        for secret in [String::new(), format!("authorization: Bearer {}\r\n", loopback.secret)] {
            let request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{secret}connection: close\r\n\r\n");
            let reply = loopback.exchange(&request).await;
            assert_eq!((reply.status, reply.json()["class"].as_str()), (403, Some("denied")), "{path}: {}", reply.body);
        }
        assert_eq!(daemon.get(path).await.status, 405, "{path}");
    }
    assert!(answers(daemon.socket()).await);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn an_order_of_the_operator_is_a_line_of_the_audit() {
    let scene = Scene::new(binary()).await;
    let audit = scene.safeconduct.path().join("audit.jsonl");
    let daemon = scene.daemon(&format!("[audit]\nfile = \"{}\"", audit.display())).await;
    daemon.run(&["reload"]).await.expect_code(0);
    daemon.run(&["stop"]).await.expect_code(0);
    daemon.wait().await.expect_code(0);
    let text = fs::read_to_string(&audit).expect("ours");
    for action in ["reload", "stop"] {
        let line =
            text.lines().find(|line| line.contains(&format!("\"{action}\""))).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains("\"served\"") && line.contains("\"uid\""), "{line}");
    }
}

#[tokio::test]
async fn what_cannot_be_had_ends_the_wait_at_once_with_its_class() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::oauth("invalid_grant"));
    let daemon = scene.daemon("required = true").await;
    let world = daemon.helper().limit(Duration::from_secs(20));
    let output = world.run(&["ready", "--wait", "600s"]).await.expect_code(REFUSED);
    assert!(output.stderr.contains("not ready: demo: ") && output.stderr.contains("hint: "), "{}", output.stderr);
    let output = world.run(&["ready", "--json"]).await.expect_code(REFUSED);
    let report: Value = serde_json::from_str(&output.stderr).expect("JSON on stderr");
    assert_eq!((&report["ready"], &report["class"]), (&json!(false), &json!("refused")));
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn each_change_of_a_required_server_is_one_line_of_the_log() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_down(true);
    let daemon = scene.daemon("required = true").await;
    daemon.logged("there is no token").await;
    scene.authorization_server.heal();
    daemon.logged("a token is there again").await;
    let log = daemon.log();
    let failure = log.lines().find(|line| line.contains("there is no token")).expect("it was logged");
    assert!(failure.contains("server=\"demo\"") && failure.contains("next_try_in="), "{failure}");
    assert_eq!(log.matches("there is no token").count(), 1, "{log}");
    daemon.stop().await.expect_code(0);
    let daemon = scene.daemon("required = true").await;
    daemon.logged("the token is there").await;
    daemon.stop().await.expect_code(0);
}
