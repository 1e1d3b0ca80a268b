//! A daemon that goes away, is silent, or is not there; the real one; and none at all.

use support::mcp_server::FakeMcp;
use support::scene::Scene;

use super::*;

/// Begins a session and calls a tool. Gives what the tool says.
async fn whoami(client: &mut Client) -> String {
    client.send(&initialize(0)).await;
    let hello = client.message().await;
    assert!(hello["result"]["serverInfo"].is_object(), "{hello}");
    client.send(&notification("notifications/initialized", json!({}))).await;
    client.ask(1, "tools/call", json!({"name": "whoami", "arguments": {}})).await;
    let called = client.message().await;
    called["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{called}")).to_owned()
}

/// Every request that the server answered had one token.
fn verified(server: &FakeMcp) {
    for seen in server.seen().iter().filter(|seen| seen.status != 401) {
        let shown = seen.headers.iter().filter(|(name, _)| name == "authorization").count();
        assert_eq!(shown, 1, "{seen:?}");
    }
}

#[tokio::test]
async fn a_client_on_stdio_calls_a_tool_through_the_daemon() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let before = scene.authorization_server.token_requests();
    let mut client = Client::start(&daemon.helper(), &["demo"]);
    assert!(client.is_silent().await);
    assert_eq!(scene.authorization_server.token_requests(), before, "no exchange before it is asked");
    assert!(whoami(&mut client).await.contains(&scene.mcp.url()));
    // Cancellation reaches the tool.
    client.ask(2, "tools/call", json!({"name": "wait", "arguments": {"millis": 60_000}})).await;
    support::wait::until(LIMIT, "the call", async || scene.mcp.waits() == 1).await;
    client.send(&notification("notifications/cancelled", json!({"requestId": 2}))).await;
    support::wait::until(LIMIT, "the cancellation", async || scene.mcp.cancelled() == 1).await;
    client.end().await.expect_code(0);
    let ended = scene.mcp.seen().into_iter().filter(|seen| seen.method == "DELETE").count();
    assert_eq!((ended, scene.authorization_server.token_requests()), (1, 1), "wire 21: the session is ended");
    verified(&scene.mcp);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn five_bridges_that_start_at_once_need_one_exchange() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let clients = (0..5).map(|_| Client::start(&daemon.helper(), &["demo"]));
    let mut clients: Vec<Client> = clients.collect();
    for client in &mut clients {
        client.send(&initialize(0)).await;
    }
    for client in &mut clients {
        assert!(client.message().await["result"].is_object());
    }
    assert_eq!(scene.authorization_server.token_requests(), 1);
}

#[tokio::test]
async fn a_url_is_the_server_that_the_daemon_has_for_it() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let mut client = Client::start(&daemon.helper(), &[&format!("{}/", scene.mcp.url())]);
    assert!(whoami(&mut client).await.contains(&scene.mcp.url()));
    let mut other = Client::start(&daemon.helper(), &[&format!("{}/other", scene.mcp.base())]);
    other.ask(1, "tools/list", json!({})).await;
    assert_eq!(ours(&other.message().await, json!(1))["error"], "server_not_configured");
    // A name that is not served.
    let mut unknown = Client::start(&daemon.helper(), &["unknown"]);
    unknown.ask(1, "tools/list", json!({})).await;
    ours(&unknown.message().await, json!(1));
    other.end().await.expect_code(0);
}

#[tokio::test]
async fn refused_for_ever_it_lives_and_answers() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let mut client = Client::start(&daemon.helper(), &["demo"]);
    whoami(&mut client).await;
    scene.mcp.refuse_next(10_000);
    for id in 2..6 {
        client.ask(id, "tools/list", json!({})).await;
        assert_eq!(ours(&client.message().await, json!(id))["class"], "refused");
    }
    scene.mcp.refuse_next(0);
    client.ask(6, "tools/list", json!({})).await;
    assert!(client.message().await["result"]["tools"].is_array());
    client.end().await.expect_code(0);
}

#[tokio::test]
async fn a_daemon_that_starts_again_is_waited_for() {
    let (mut client, daemon) = in_session().await;
    let socket = client.socket.clone();
    daemon.stop().await;
    std::fs::remove_file(&socket).expect("it was there");
    client.ask(1, "tools/list", json!({})).await;
    assert!(client.is_silent().await);
    let mut again = RawDaemon::start(&socket);
    let asked = again.expect("tools/list").await;
    assert_eq!(asked.field("mcp-session-id"), Some("s-1"), "wire 23: after a reconnect too");
    asked.done().await;
    assert_eq!(client.message().await["id"], 1);
}

#[tokio::test]
async fn what_may_be_carried_out_twice_is_sent_again_when_its_answer_is_lost() {
    let (mut client, mut daemon) = in_session().await;
    for (id, method) in [(1, "tools/list"), (2, "resources/read"), (3, "ping")] {
        client.ask(id, method, json!({})).await;
        daemon.expect(method).await.break_off().await;
        daemon.expect(method).await.done().await;
        assert_eq!(client.message().await["id"], id);
    }
    // Once.
    client.ask(4, "tools/list", json!({})).await;
    daemon.expect("tools/list").await.break_off().await;
    daemon.expect("tools/list").await.break_off().await;
    assert_eq!(ours(&client.message().await, json!(4))["error"], "answer_lost");
    for method in ["tools/call", "completion/complete"] {
        client.ask(5, method, json!({})).await;
        daemon.expect(method).await.break_off().await;
        assert_eq!(ours(&client.message().await, json!(5))["error"], "answer_lost");
    }
    assert!(daemon.is_left_alone().await);
}

#[tokio::test]
async fn a_daemon_that_stays_away_is_an_error_for_each_request_and_never_replaced() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let mut daemon = RawDaemon::start(&world.socket());
    // Without the flag of the file, which has no effect while a daemon answers.
    let helper = scene.safeconduct.clone();
    let mut client = Client::start(&helper, &["demo"]);
    client.ask(0, "ping", json!({})).await;
    daemon.expect("ping").await.done().await;
    client.message().await;
    daemon.stop().await;
    for id in 1..3 {
        client.ask(id, "tools/list", json!({})).await;
    }
    let mut ids = Vec::new();
    for _ in 1..3 {
        let message = client.message().await;
        ids.push(message["id"].as_u64().expect("a number"));
        let data = ours(&message, message["id"].clone());
        assert_eq!((&data["error"], &data["class"]), (&json!("unreachable"), &json!("temporary")));
    }
    ids.sort_unstable();
    assert_eq!((ids, scene.mcp.calls(), scene.authorization_server.token_requests()), (vec![1, 2], 0, 0));
    client.end().await.expect_code(0);
}

#[tokio::test]
async fn daemon_only_never_does_the_work_itself() {
    let scene = Scene::new(binary()).await;
    let mut client = Client::start(&scene.configured(""), &["--daemon-only", "demo"]);
    client.ask(1, "tools/list", json!({})).await;
    assert_eq!(ours(&client.message().await, json!(1))["error"], "unreachable");
    assert_eq!(scene.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn a_silent_daemon_is_never_replaced() {
    let scene = Scene::new(binary()).await;
    let mut daemon = RawDaemon::start(&scene.safeconduct.socket());
    let mut client = Client::start(&scene.safeconduct, &["demo"]);
    client.ask(1, "tools/list", json!({})).await;
    let _asked = daemon.expect("tools/list").await;
    assert!(client.is_silent().await);
    assert_eq!(scene.authorization_server.token_requests(), 0);
    client.end().await.expect_code(0);
}

#[tokio::test]
async fn flags_that_have_no_effect_with_a_daemon_are_refused() {
    let world = Safeconduct::new(binary());
    let _daemon = RawDaemon::start(&world.socket());
    let output = world.run(&["stdio", "--issuer", "https://as.example.com", "demo"]).await.expect_code(64);
    assert!(output.stderr.contains("--issuer has no effect while a daemon answers"), "{}", output.stderr);
    assert_eq!(output.stdout, "");
}

#[tokio::test]
async fn without_a_daemon_it_does_the_work_itself() {
    let scene = Scene::new(binary()).await;
    let mut client = Client::start(&scene.configured(""), &["demo"]);
    assert!(client.is_silent().await);
    assert_eq!(scene.authorization_server.token_requests(), 0, "no exchange before it is asked");
    assert!(whoami(&mut client).await.contains(&scene.mcp.url()));
    client.end().await.expect_code(0);
    assert_eq!(scene.authorization_server.token_requests(), 1);
    assert_eq!(scene.mcp.seen().iter().filter(|seen| seen.method == "DELETE").count(), 1);
    verified(&scene.mcp);
    // Without a configuration, and although a daemon could be asked.
    let issuer = scene.authorization_server.issuer();
    let _daemon = RawDaemon::start(&scene.safeconduct.socket());
    let url = scene.mcp.url();
    let flags = ["--insecure-loopback", "stdio", "--no-daemon", "--issuer", &issuer, &url];
    let mut client = Client::of(scene.safeconduct.spawn(&flags));
    assert!(whoami(&mut client).await.contains(&url));
    client.end().await.expect_code(0);
}

#[tokio::test]
async fn without_an_identity_it_lives_and_says_so() {
    let scene = Scene::new(binary()).await;
    let nowhere = Safeconduct::new(binary()).config(&scene.config(""));
    let mut client = Client::start(&nowhere, &["demo"]);
    for id in 1..3 {
        client.ask(id, "tools/list", json!({})).await;
        assert_eq!(ours(&client.message().await, json!(id))["class"], "no_identity");
    }
    client.end().await.expect_code(0);
}

#[tokio::test]
async fn it_starts_with_an_empty_environment() {
    let world = Safeconduct::new(binary());
    let socket = world.socket().display().to_string();
    let mut daemon = RawDaemon::start(&world.socket());
    let mut bare = world.clone();
    for name in ["HOME", "TMPDIR", "PATH", "SAFECONDUCT_LOG", "SAFECONDUCT_SOCKET"] {
        bare = bare.without_env(name);
    }
    let mut client = Client::of(bare.spawn(&["--socket", &socket, "stdio", "demo"]));
    client.ask(1, "ping", json!({})).await;
    daemon.expect("ping").await.done().await;
    assert_eq!(client.message().await["id"], 1);
    let output = client.end().await.expect_code(0);
    assert_eq!(output.stderr, "", "nothing worth a line");
}

#[tokio::test]
async fn what_cannot_be_asked_for_ends_at_the_start() {
    let world = Safeconduct::new(binary());
    for (args, code) in [
        (&["stdio", "no/name"][..], 64),
        (&["stdio", "--header", "Authorization=Bearer x", "demo"], 64),
        (&["stdio", "--max-message", "1GiB", "demo"], 64),
        (&["stdio", "demo"], 64),
    ] {
        let output = world.run(args).await.expect_code(code);
        assert_eq!(output.stdout, "", "{args:?}");
    }
}
