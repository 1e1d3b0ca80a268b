//! What the command gets.

use support::mcp_server::FakeMcp;
use support::scene::SCOPES;
use support::tcp_http;

use super::*;

/// The first message of an MCP client.
fn initialize() -> String {
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": "a", "method": "initialize", "params": params}).to_string()
}

const ASKS: &str =
    "\"$0\" token demo --daemon-only >/dev/null && echo token; \"$0\" token other --daemon-only; echo $?";

#[tokio::test]
async fn the_command_gets_an_endpoint_that_serves_its_targets_alone() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let output = run(&world, &scene, &[], ASKS).await.expect_code(0);
    assert_eq!(output.stdout, format!("token\n{ASKED_WRONGLY}\n"), "{}", output.stderr);
    assert_eq!(scene.authorization_server.token_requests(), 1);
    assert!(places(&world).is_empty(), "nothing is left");
}

#[tokio::test]
async fn its_directory_is_private_and_its_url_is_an_mcp_server() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let script = "echo socket $SAFECONDUCT_SOCKET; echo url $SAFECONDUCT_URL_DEMO; echo ready; read end";
    let target = scene.argument();
    let mut exec = world.spawn(&["exec", "--insecure-loopback", &target, "--", "sh", "-c", script]);
    let mut stdin = exec.stdin();
    let lines = BufReader::new(exec.stdout()).lines();
    let mut beside = Beside { exec, lines };
    let socket = PathBuf::from(beside.line_with("socket ").await);
    let url = beside.line_with("url ").await;
    let mode = |path: &Path| fs::symlink_metadata(path).expect("there").permissions().mode() & 0o7777;
    let directory = socket.parent().expect("it has one");
    assert_eq!((mode(directory), mode(&socket)), (0o700, 0o600));
    assert_eq!(places(&world), [directory]);
    let (address, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
    assert_eq!(path, "mcp/demo");
    let body = initialize();
    let request = format!(
        "POST /{path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let reply = tcp_http::exchange(address.parse().expect("an address"), &request).await.expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(scene.authorization_server.token_requests(), 1);
    stdin.write_all(b"\n").await.expect("it reads");
    beside.rest().await;
    beside.exec.wait().await.expect_code(0);
    assert!(places(&world).is_empty());
}

#[tokio::test]
async fn a_token_is_in_the_environment_only_where_that_is_asked_for() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene);
    let script = "env | grep -c ^SAFECONDUCT_TOKEN_; test -n \"$SAFECONDUCT_TOKEN_DEMO\" && echo there";
    let output = run(&world, &scene, &[], script).await;
    assert_eq!(output.stdout, "0\n", "{}", output.stderr);
    assert_eq!(scene.authorization_server.token_requests(), 0, "nothing is fetched before it is asked for");
    let output = run(&world, &scene, &["--env"], script).await.expect_code(0);
    assert_eq!(output.stdout, "1\nthere\n", "{}", output.stderr);
    let output = run(&world, &scene, &["--env", "--scope", "demo:read"], script).await.expect_code(0);
    assert_eq!(output.stdout, "1\nthere\n");
}

/// A token that is bound to a key is of no use in an environment.
#[tokio::test]
async fn a_bound_token_is_never_handed_out_in_an_environment() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_metadata(json!({"dpop_signing_alg_values_supported": ["ES256"]}));
    let world = world(&scene).config(&scene.config("dpop = true"));
    let output = world.run(&["exec", "--env", "demo", "--", "true"]).await.expect_code(DENIED);
    assert!(output.stderr.contains("DPoP") || output.stderr.contains("bound"), "{}", output.stderr);
    assert!(places(&world).is_empty());
}

#[tokio::test]
async fn without_a_target_it_serves_what_the_configuration_has_for_this_user() {
    let scene = Scene::new(binary()).await;
    let other = "[servers.others]\nurl = \"https://other.example.com/mcp\"\nallow = [{ uid = 4000000 }]";
    let world = world(&scene).config(&scene.config(other));
    let output = world.run(&["exec", "--", "sh", "-c", "env | grep ^SAFECONDUCT_URL_"]).await.expect_code(0);
    assert_eq!(output.stdout.lines().count(), 1, "{}", output.stdout);
    assert!(output.stdout.starts_with("SAFECONDUCT_URL_DEMO=http://127.0.0.1:"), "{}", output.stdout);
    let output = world.run(&["exec", "others", "--", "true"]).await.expect_code(DENIED);
    assert!(output.stderr.contains("others"), "{}", output.stderr);
    let empty = super::world(&scene);
    let output = empty.run(&["exec", "--", "true"]).await.expect_code(ASKED_WRONGLY);
    assert!(output.stderr.contains("no TARGET is given") && output.stderr.contains("hint: "), "{}", output.stderr);
    let output = empty.run(&["exec", &scene.argument(), "--insecure-loopback"]).await;
    assert_eq!(output.code, Some(ASKED_WRONGLY), "no command");
}

#[tokio::test]
async fn two_targets_of_one_variable_are_refused() {
    let scene = Scene::new(binary()).await;
    let second = FakeMcp::start(&scene.authorization_server, &SCOPES).await;
    let world = world(&scene);
    let targets = [format!("a-b={}", scene.mcp.url()), format!("a.b={}", second.url())];
    let words = ["exec", "--insecure-loopback", &targets[0], &targets[1], "--", "true"];
    let output = world.run(&words).await.expect_code(ASKED_WRONGLY);
    assert!(output.stderr.contains("SAFECONDUCT_URL_A_B"), "{}", output.stderr);
    let output =
        world.run(&["exec", "--insecure-loopback", &targets[0], "--", "sh", "-c", "echo $SAFECONDUCT_URL_A_B"]).await;
    assert!(output.expect_code(0).stdout.trim().ends_with("/mcp/a-b"));
}

#[tokio::test]
async fn it_asks_the_present_daemon_and_serves_some_of_its_servers() {
    let scene = Scene::new(binary()).await;
    let second = FakeMcp::start(&scene.authorization_server, &SCOPES).await;
    let more =
        format!("[servers.other]\nurl = \"{}\"\nissuer = \"{}\"", second.url(), scene.authorization_server.issuer());
    let daemon = world(&scene).config(&scene.config(&more)).daemon(&[]).await;
    let helper = daemon.helper();
    let stopped = helper.run(&["exec", "demo", "--", binary(), "stop"]).await.expect_code(ASKED_WRONGLY);
    assert!(stopped.stderr.contains("ends with the command"), "{}", stopped.stderr);
    let script = format!("echo $SAFECONDUCT_SOCKET; env | grep -c ^SAFECONDUCT_URL_; {ASKS}");
    let output = helper.run(&["exec", "demo", "--", "sh", "-c", &script, binary()]).await.expect_code(0);
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[1..], ["1", "token", &ASKED_WRONGLY.to_string()], "{}", output.stderr);
    assert_ne!(lines[0], daemon.socket().display().to_string());
    assert_eq!(scene.authorization_server.token_requests(), 1);
    daemon.token("demo").await;
    assert_eq!(scene.authorization_server.token_requests(), 1, "the daemon has made it");
    let output = helper.run(&["exec", "--", "sh", "-c", "env | grep -c ^SAFECONDUCT_URL_"]).await.expect_code(0);
    assert_eq!(output.stdout, "2\n", "all that the daemon serves");
    for (words, code) in [
        (&["exec", "nope", "--", "true"][..], ASKED_WRONGLY),
        (&["exec", "https://nope.example.com/mcp", "--", "true"], DENIED),
        (&["exec", "demo", "--scope", "demo:read", "--", "true"], ASKED_WRONGLY),
        (&["exec", "demo", "--identity", "file", "--", "true"], ASKED_WRONGLY),
    ] {
        let output = helper.run(words).await.expect_code(code);
        assert!(output.stdout.is_empty() && output.stderr.contains("hint: "), "{words:?}: {}", output.stderr);
    }
    assert!(places(&helper).is_empty());
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn in_front_of_a_daemon_the_data_path_streams() {
    let scene = Scene::new(binary()).await;
    let daemon = world(&scene).config(&scene.config("")).daemon(&[]).await;
    let script = "echo socket $SAFECONDUCT_SOCKET; echo ready; read end";
    let mut exec = daemon.helper().spawn(&["exec", "demo", "--", "sh", "-c", script]);
    let mut stdin = exec.stdin();
    let lines = BufReader::new(exec.stdout()).lines();
    let mut beside = Beside { exec, lines };
    let socket = PathBuf::from(beside.line_with("socket ").await);
    let post = |path: &str| {
        let body = initialize();
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nauthorization: Bearer mine\r\n\
             accept: application/json, text/event-stream\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let ask = async |request: String| support::unix_http::exchange(&socket, &request).await.expect("an answer");
    let reply = ask(post("/mcp/demo")).await;
    assert!(reply.status == 200 && reply.body.contains("\"id\":\"a\""), "{}", reply.body);
    for path in ["/mcp/other", "/mcp/demo%20", "/mcp/", "/mcp/DEMO"] {
        assert_eq!(ask(post(path)).await.status, 404, "{path}");
    }
    for path in ["/mcp/demo/../other", "/mcp/demo/%2e%2e/other"] {
        assert_eq!(ask(post(path)).await.status, 400, "{path}");
    }
    let get = async |path: &str| support::unix_http::get(&socket, path).await.expect("an answer").status;
    assert_eq!((get("/readyz?server=demo").await, get("/healthz").await), (200, 200));
    assert_eq!(get("/v1/headers?server=demo").await, 200);
    assert_eq!(get("/v1/token?server=demo&x=1").await, 400);
    // It waits for a daemon that is replaced.
    daemon.stop().await.expect_code(0);
    let again = tokio::spawn({
        let (socket, request) = (socket.clone(), post("/mcp/demo"));
        async move { support::unix_http::exchange(&socket, &request).await }
    });
    let daemon = world(&scene).config(&scene.config("")).daemon(&[]).await;
    assert_eq!(again.await.expect("it ran").expect("an answer").status, 200);
    stdin.write_all(b"\n").await.expect("it reads");
    beside.rest().await;
    beside.exec.wait().await.expect_code(0);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn twenty_at_once_do_not_disturb_each_other() {
    let scene = Scene::new(binary()).await;
    let world = world(&scene).limit(Duration::from_secs(120));
    let all =
        futures_util::future::join_all((0..20).map(|_| run(&world, &scene, &[], "echo $SAFECONDUCT_SOCKET"))).await;
    let mut sockets: Vec<String> = all.into_iter().map(|output| output.expect_code(0).stdout).collect();
    sockets.sort();
    sockets.dedup();
    assert_eq!(sockets.len(), 20);
    assert!(places(&world).is_empty());
}

#[tokio::test]
async fn where_the_endpoint_cannot_serve_the_command_does_not_run() {
    let scene = Scene::new(binary()).await;
    let laptop = Safeconduct::new(binary()).config(&scene.config(""));
    let place = laptop.path().join("tmp").display().to_string();
    let laptop = laptop.env("RUNNER_TEMP", &place);
    let output = laptop.run(&["exec", "demo", "--", "echo", "ran"]).await.expect_code(NO_IDENTITY);
    assert!(output.stdout.is_empty() && output.stderr.contains("no workload identity here"), "{}", output.stderr);
    scene.authorization_server.always_token(support::authorization_server::TokenFault::oauth("invalid_grant"));
    let world = world(&scene).config(&scene.config(""));
    let output = world.run(&["exec", "--env", "demo", "--", "echo", "ran"]).await.expect_code(REFUSED);
    assert!(output.stdout.is_empty(), "{}", output.stdout);
    assert!(places(&laptop).is_empty() && places(&world).is_empty());
}
