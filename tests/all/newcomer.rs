//! What a person meets who uses the program with its documents alone: whether an answer names the cause, the cure and who says it.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use support::authorization_server::TokenFault;
use support::safeconduct::Safeconduct;
use support::scene::Scene;
use support::wait::until;

use crate::exit::{ASKED_WRONGLY, CONFIG, DENIED, REFUSED, TEMPORARY};
use crate::{LIMIT, binary};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_socket_that_is_named_and_where_nobody_listens_is_an_error_and_no_other_identity_is_used() {
    let scene = Scene::new(binary()).await;
    let nowhere = scene.safeconduct.path().join("nowhere.sock").display().to_string();
    let world = scene.configured("").env("SAFECONDUCT_SOCKET", &nowhere);
    for command in [&["token", "demo"][..], &["headers", "demo"], &["exec", "demo", "--", "true"]] {
        let mut named = vec!["--socket", nowhere.as_str()];
        named.extend(command);
        let output = world.run(&named).await.expect_code(TEMPORARY);
        assert!(output.stderr.contains("nobody listens at") && output.stderr.contains(&nowhere), "{}", output.stderr);
        assert!(output.stderr.contains("--no-daemon"), "{}", output.stderr);
    }
    assert_eq!(scene.authorization_server.token_requests(), 0);
    world.run(&["token", "demo", "--no-daemon"]).await.expect_code(0);
}

#[tokio::test]
async fn a_daemon_is_named_in_what_it_refuses_with_the_servers_that_it_has() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let says = format!("(says the daemon at {}, pid {})", daemon.socket().display(), daemon.pid());
    for (target, code) in [("dmeo", ASKED_WRONGLY), ("https://other.example.com/mcp", DENIED)] {
        let stderr = daemon.run(&["token", target]).await.expect_code(code).stderr;
        for part in [&*says, "configured: demo", "`--no-daemon`"] {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
    }
    let stderr = daemon.run(&["token", "dmeo"]).await.stderr;
    assert!(stderr.contains("did you mean `demo`?"), "{stderr}");
    daemon.stop().await.expect_code(0);
}

/// The time-out is longer than the test's own limit.
#[tokio::test]
async fn a_host_or_port_that_is_not_there_is_told_soon() {
    let scene = Scene::new(binary()).await;
    let world = scene.safeconduct.clone().limit(Duration::from_secs(60));
    for (url, words) in [
        ("http://127.0.0.1:1/mcp", "nobody listens on its port 1"),
        ("https://no-such-host.invalid/mcp", "check the spelling of no-such-host.invalid"),
    ] {
        let args = ["token", url, "--no-daemon", "--insecure-loopback", "--timeout", "600s"];
        let output = world.run(&args).await.expect_code(TEMPORARY);
        assert!(output.stderr.contains(words), "{}", output.stderr);
    }
}

#[tokio::test]
async fn a_pin_that_the_server_does_not_name_is_told_whether_or_not_it_can_be_reached() {
    let scene = Scene::new(binary()).await;
    for pin in ["http://127.0.0.1:1", "https://no-such-host.invalid"] {
        let url = scene.mcp.url();
        let args = ["token", &url, "--no-daemon", "--insecure-loopback", "--timeout", "600s", "--issuer", pin];
        let output = scene.safeconduct.run(&args).await.expect_code(REFUSED);
        assert!(output.stderr.contains("is not among those the server names"), "{}", output.stderr);
    }
    assert_eq!(scene.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn status_says_since_when_a_server_fails_when_the_next_try_is_and_who_was_refused() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::oauth("invalid_grant"));
    let uid = nix::unistd::geteuid().as_raw();
    let daemon = scene.daemon(&format!("required = true\nallow = [{{ uid = {uid}, scopes = [\"demo:read\"] }}]")).await;
    let status = async || daemon.run(&["status", "--json"]).await.expect_code(0).json();
    until(SOON, "a failure", async || !status().await["servers"][0]["error"].is_null()).await;
    daemon.run(&["token", "demo", "--scope", "demo:admin"]).await.expect_code(DENIED);
    let report = status().await;
    let error = &report["servers"][0]["error"];
    assert!(error["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{error}");
    assert!(error["next_try_in"].as_u64().is_some_and(|wait| wait <= 30), "{error}");
    let refused = &report["refused_callers"][0];
    assert_eq!((&refused["uid"], &refused["refused"], &refused["server"]), (&json!(uid), &json!(1), &json!("demo")));
    let text = daemon.run(&["status"]).await.expect_code(0).stdout;
    for part in ["since 2", "next try in ", "refused callers", "safeconduct.toml, read at 2"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // What the daemon knows is a failure of this side's examination too.
    let report = daemon.run(&["doctor", "--json"]).await.expect_code(REFUSED).json();
    let check = report["checks"].as_array().and_then(|all| all.iter().find(|one| one["code"] == "daemon-servers"));
    assert_eq!(check.expect("it is examined")["state"], "fail");
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_reload_that_failed_is_seen_in_status_doctor_and_metrics_until_one_succeeds() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let daemon = world.daemon(&[]).await;
    let metric = async |value: &str| {
        daemon.get("/metrics").await.body.contains(&format!("safeconduct_config_last_reload_successful {value}\n"))
    };
    assert!(metric("1").await);
    world.rewrite_config(&scene.config("no_such_key = 1"));
    daemon.run(&["reload"]).await.expect_code(CONFIG);
    assert!(metric("0").await);
    let text = daemon.run(&["status"]).await.expect_code(0).stdout;
    assert!(text.contains("reload    failed at 2") && text.contains("no_such_key"), "{text}");
    let report: Value = daemon.run(&["doctor", "--json"]).await.json();
    let failed = report["checks"].as_array().into_iter().flatten().filter(|check| check["state"] == "fail");
    assert!(failed.into_iter().any(|check| check["code"] == "daemon-configuration"), "{report:#}");
    world.rewrite_config(&scene.config(""));
    daemon.run(&["reload"]).await.expect_code(0);
    assert!(metric("1").await);
    assert!(!daemon.run(&["status"]).await.expect_code(0).stdout.contains("reload "));
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn metrics_show_what_is_left_of_a_token_and_failures_by_server_and_class() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("required = true").await;
    daemon.token("demo").await;
    let metrics = daemon.get("/metrics").await.body;
    let left =
        metrics.lines().find_map(|line| line.strip_prefix("safeconduct_token_life_left_seconds{server=\"demo\"} "));
    assert!(left.and_then(|left| left.parse::<u64>().ok()).is_some_and(|left| left > 0), "{metrics}");
    scene.authorization_server.always_token(TokenFault::oauth("invalid_grant"));
    let failed = "safeconduct_token_failures_total{server=\"demo\",class=\"refused\"}";
    until(SOON, "a failure", async || {
        daemon.run(&["token", "demo", "--fresh"]).await;
        daemon.get("/metrics").await.body.contains(failed)
    })
    .await;
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn doctor_leaves_no_trace() {
    let scene = Scene::new(binary()).await;
    let audit = scene.safeconduct.path().join("audit.jsonl");
    let daemon = scene.daemon(&format!("[audit]\nfile = \"{}\"", audit.display())).await;
    daemon.token("demo").await;
    // Which file it is, is asked from the daemon.
    let tail = daemon.run(&["audit", "tail"]).await.expect_code(0).stdout;
    assert!(tail.contains("served   token"), "{tail}");
    let before = (std::fs::read(&audit).expect("ours"), daemon.get("/metrics").await.body);
    let report = daemon.run(&["doctor", "--json"]).await.json();
    assert!(report["checks"].as_array().is_some_and(|checks| checks.len() > 8), "{report:#}");
    assert_eq!(std::fs::read(&audit).expect("ours"), before.0, "the chain");
    let refused = |text: &str| text.lines().filter(|line| line.contains("refused")).collect::<Vec<_>>().join("\n");
    assert_eq!(refused(&daemon.get("/metrics").await.body), refused(&before.1));
    let log = daemon.stop().await.expect_code(0).stderr;
    assert!(!log.contains("not served"), "{log}");
}

#[tokio::test]
async fn a_wait_of_more_than_two_seconds_says_what_for() {
    let scene = Scene::new(binary()).await;
    // How long the pauses between its tries are differs, so the first try waits itself.
    scene.authorization_server.always_token(support::fault::Fault::Stall);
    let world = scene.configured("");
    let output = world.run(&["token", "demo", "--no-daemon", "--timeout", "4s"]).await.expect_code(TEMPORARY);
    let waits = output.stderr.lines().find(|line| line.starts_with("safeconduct: waiting: "));
    assert!(waits.is_some_and(|line| line.contains("demo")), "{}", output.stderr);
}

#[tokio::test]
async fn a_body_that_is_wrong_is_answered_with_one_that_is_right() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let reply = daemon.post("/v1/reject", &json!({ "sha256": "x" })).await;
    let words = reply.json()["error_description"].as_str().unwrap_or_default().to_owned();
    assert!(reply.status == 400 && words.contains("access_token_sha256"), "{words}");
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_starter_file_says_where_it_belongs_and_check_takes_a_file() {
    let world = Safeconduct::new(binary());
    let output = world.run(&["config", "init"]).await.expect_code(0);
    let place = world.path().join("home/.config/safeconduct/safeconduct.toml").display().to_string();
    assert!(output.stderr.contains(&place) && output.stdout.contains("/etc/safeconduct/"), "{}", output.stderr);
    let file = world.write("starter.toml", &output.stdout).display().to_string();
    let checked = world.run(&["config", "check", &file]).await.expect_code(0);
    assert!(checked.stdout.contains("starter.toml: fine"), "{}", checked.stdout);
    let wrong = world.write("wrong.toml", "[servers.a]\nurl = \"https://mcp.example.com/mcp\"\nscope = []\n");
    world.run(&["config", "check", &wrong.display().to_string()]).await.expect_code(CONFIG);
    let nowhere = world.run(&["config", "check"]).await.expect_code(0);
    assert!(nowhere.stdout.contains(&place), "where it was looked for: {}", nowhere.stdout);
}

/// bash runs the script as it does when somebody presses the key.
#[tokio::test]
async fn completions_know_the_names_of_servers() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("[servers.other]\nurl = \"https://other.example.com/mcp\"").await;
    assert_eq!(daemon.run(&["completions", "--servers"]).await.expect_code(0).stdout, "demo\nother\n");
    let script = daemon.run(&["completions", "bash"]).await.expect_code(0).stdout;
    let path = scene.safeconduct.write("completions.bash", &script);
    let ask = format!(
        "safeconduct() {{ {} --socket {} \"$@\"; }}\nsource {}\nCOMP_WORDS=(safeconduct token de); COMP_CWORD=2\n\
         COMP_LINE='safeconduct token de'; COMP_POINT=20\n_safeconduct_servers safeconduct de token\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        binary(),
        daemon.socket().display(),
        path.display()
    );
    let mut bash = tokio::process::Command::new("bash");
    bash.args(["--norc", "-c", &ask]).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, bash.output()).await.expect("in time").expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.trim(), "demo", "{}", String::from_utf8_lossy(&output.stderr));
    daemon.stop().await.expect_code(0);
}
