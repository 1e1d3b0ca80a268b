//! `safeconduct snippet`: what it prints works as it stands, with a daemon and without one.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use support::leak;
use support::safeconduct::{Daemon, Safeconduct};
use support::scene::Scene;
use support::tcp_http::Loopback;
use support::unix_http;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::exit::ASKED_WRONGLY;
use crate::{LIMIT, binary};

/// The clients, in the order of the help.
const CLIENTS: [&str; 17] = [
    "claude-code",
    "codex",
    "gemini",
    "copilot",
    "vscode",
    "cursor",
    "windsurf",
    "zed",
    "goose",
    "opencode",
    "cline",
    "continue",
    "mcp-remote",
    "python-sdk",
    "typescript-sdk",
    "github-actions",
    "gitlab-ci",
];

async fn snippet(world: &Safeconduct, client: &str, more: &[&str]) -> String {
    let output = world.run(&[&["snippet", client, "demo"], more].concat()).await.expect_code(0);
    let told: Vec<&str> = output.stderr.lines().collect();
    assert!(told.len() == 2 && told.iter().all(|line| line.starts_with("safeconduct: ")), "{}", output.stderr);
    output.stdout
}

async fn in_json(world: &Safeconduct, client: &str, more: &[&str]) -> Value {
    let text = snippet(world, client, more).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Runs a helper as its client does: by a shell, and with nothing in its environment.
async fn helped(command: &str) -> Value {
    let helper = Command::new("/bin/sh").args(["-c", command]).env_clear().output();
    let output = tokio::time::timeout(LIMIT, helper).await.expect("it ends").expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}; stderr:\n{told}"))
}

/// Starts an entry with `command` and `args` as a stdio server, and begins a session with it.
async fn greeted(entry: &Value, env: &[(String, String)]) -> Value {
    let words = entry["args"].as_array().expect("a list").iter().map(|word| word.as_str().expect("a text"));
    let mut bridge = Command::new(entry["command"].as_str().expect("a text"));
    let bridge = bridge.args(words).env_clear().envs(env.iter().cloned()).kill_on_drop(true);
    let mut bridge = bridge.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
    }});
    let mut stdin = bridge.stdin.take().expect("piped");
    stdin.write_all(format!("{hello}\n").as_bytes()).await.expect("it reads");
    let mut line = String::new();
    let mut stdout = BufReader::new(bridge.stdout.take().expect("piped"));
    tokio::time::timeout(LIMIT, stdout.read_line(&mut line)).await.expect("it answers").expect("UTF-8");
    drop(stdin);
    tokio::time::timeout(LIMIT, bridge.wait()).await.expect("it ends").expect("it ends");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

async fn daemon(scene: &Scene) -> Daemon {
    scene.daemon("[listen]\nhttp = \"127.0.0.1:0\"\noauth_token = true").await
}

#[tokio::test]
async fn every_client_of_the_help_gets_one_and_none_has_a_secret() {
    let scene = Scene::new(binary()).await;
    let daemon = daemon(&scene).await;
    let help = daemon.run(&["snippet", "--help"]).await.expect_code(0).stdout;
    let known = help.split("possible values:").nth(1).and_then(|rest| rest.split(']').next()).expect("its values");
    let known: Vec<&str> = known.split(',').map(str::trim).collect();
    assert_eq!(known, CLIENTS);
    let directory = daemon.socket().parent().expect("a directory");
    let secret = std::fs::read_to_string(directory.join("http.secret")).expect("it is there");
    let file = std::fs::read_to_string(directory.join("oauth/demo.json")).expect("it is there");
    let client: Value = serde_json::from_str(&file).expect("JSON");
    let secrets = [secret.trim(), client["client_secret"].as_str().expect("a text")];
    for name in CLIENTS {
        let text = snippet(&daemon.helper(), name, &[]).await;
        assert!(!secrets.iter().any(|secret| text.contains(secret)), "{name}: {text}");
        leak::check(name, &text);
    }
    assert_eq!(scene.authorization_server.token_requests(), 0, "it asks for no token");
}

#[tokio::test]
async fn a_helper_works_as_it_is_printed() {
    let scene = Scene::new(binary()).await;
    let daemon = daemon(&scene).await;
    let claude = &in_json(&daemon.helper(), "claude-code", &[]).await["mcpServers"]["demo"];
    assert_eq!((&claude["type"], &claude["url"]), (&json!("http"), &json!(scene.mcp.url())));
    let codex: toml::Table = snippet(&daemon.helper(), "codex", &[]).await.parse().expect("TOML");
    let codex = &codex["mcp_servers"]["demo"];
    assert_eq!(codex["url"].as_str(), Some(scene.mcp.url().as_str()));
    for command in [claude["headersHelper"].as_str(), codex["http_headers_helper"].as_str()] {
        let headers = helped(command.expect("a text")).await;
        let value = headers["Authorization"].as_str().and_then(|value| value.strip_prefix("Bearer ")).expect("a token");
        scene.authorization_server.verifier().verify(value).expect("it is one of this server");
        assert_eq!(headers.as_object().map(serde_json::Map::len), Some(1));
    }
}

#[tokio::test]
async fn a_bridge_works_as_it_is_printed() {
    let scene = Scene::new(binary()).await;
    let daemon = daemon(&scene).await;
    for (client, servers) in [("cursor", "mcpServers"), ("zed", "context_servers"), ("copilot", "mcpServers")] {
        let entry = &in_json(&daemon.helper(), client, &[]).await[servers]["demo"];
        assert!(greeted(entry, &[]).await["result"]["serverInfo"].is_object(), "{client}");
    }
    let entry = &in_json(&daemon.helper(), "claude-code", &["--bridge"]).await["mcpServers"]["demo"];
    assert!(greeted(entry, &[]).await["result"]["serverInfo"].is_object());
}

#[tokio::test]
async fn without_a_daemon_the_bridge_finds_the_same_configuration() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let entry = &in_json(&world, "claude-code", &[]).await["mcpServers"]["demo"];
    assert!(greeted(entry, &scene.platform.env()).await["result"]["serverInfo"].is_object(), "{entry}");
    let gitlab = snippet(&world, "gitlab-ci", &[]).await;
    assert!(gitlab.contains(&format!("aud: {}\n", json!(scene.authorization_server.issuer()))), "{gitlab}");
}

#[tokio::test]
async fn the_socket_is_that_of_the_daemon() {
    let scene = Scene::new(binary()).await;
    let daemon = daemon(&scene).await;
    let url = in_json(&daemon.helper(), "vscode", &[]).await["servers"]["demo"]["url"].clone();
    let (socket, path) = url.as_str().and_then(|url| url.strip_prefix("unix://")?.split_once('#')).expect("a URL");
    assert_eq!((Path::new(socket), path), (daemon.socket(), "/mcp/demo"));
    assert_ne!(unix_http::get(Path::new(socket), path).await.expect("it answers").status, 404);
    let goose = snippet(&daemon.helper(), "goose", &[]).await;
    assert!(goose.contains(&format!("    socket: {}\n", json!(daemon.socket()))), "{goose}");
}

#[tokio::test]
async fn mcp_remote_is_given_the_token_endpoint_and_the_file_or_is_replaced() {
    let scene = Scene::new(binary()).await;
    let daemon = daemon(&scene).await;
    let loopback = Loopback::of(&daemon).await;
    let entry = in_json(&daemon.helper(), "mcp-remote", &[]).await["mcpServers"]["demo"].clone();
    let args: Vec<&str> = entry["args"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let after = |flag: &str| args[args.iter().position(|arg| *arg == flag).expect("it is there") + 1];
    let file = std::fs::read_to_string(after("--static-oauth-client-info").trim_start_matches('@')).expect("a file");
    let client: Value = serde_json::from_str(&file).expect("JSON");
    let path = after("--token-endpoint").rsplit_once(':').and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}",
        client["client_id"].as_str().expect("a text"),
        client["client_secret"].as_str().expect("a text")
    );
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\n\
        content-length: {}\r\n\r\n{form}",
        path.expect("a path"),
        form.len()
    );
    assert_eq!(loopback.exchange(&request).await.status, 200);
    let scene = Scene::new(binary()).await;
    let plain = scene.daemon("").await;
    let entry = in_json(&plain.helper(), "mcp-remote", &[]).await["mcpServers"]["demo"].clone();
    assert!(greeted(&entry, &[]).await["result"].is_object(), "{entry}");
}

#[tokio::test]
async fn what_the_daemon_does_not_serve_gets_no_snippet_for_it() {
    let scene = Scene::new(binary()).await;
    let daemon = daemon(&scene).await;
    for target in ["other", "https://other.example.com/mcp"] {
        let failed = daemon.run(&["snippet", "cursor", target]).await.expect_code(ASKED_WRONGLY);
        assert!(failed.stderr.contains("it serves: demo") && failed.stdout.is_empty(), "{}", failed.stderr);
    }
    // A URL needs no configuration where no daemon is presumed, and a job has a daemon of its own.
    daemon.run(&["snippet", "cursor", "https://other.example.com/mcp", "--no-daemon"]).await.expect_code(0);
    daemon.run(&["snippet", "github-actions", "other=https://other.example.com/mcp"]).await.expect_code(0);
    // The spelling of a URL does not matter, and the snippet keeps that of the user.
    let url = format!("{}/", scene.mcp.url());
    let text = daemon.run(&["snippet", "cursor", &url]).await.expect_code(0).json();
    assert_eq!(text["mcpServers"]["demo"]["args"].as_array().and_then(|args| args.last()), Some(&json!(url)));
}

/// What a step of a job runs.
fn run_of(line: &str) -> Option<String> {
    let text = line.trim_start().strip_prefix("run: ")?;
    if let Some(text) = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
        return Some(text.replace("''", "'"));
    }
    Some(if text.starts_with('"') { serde_json::from_str(text).expect("JSON") } else { text.to_owned() })
}

/// The daemon of a job is where only the job looks, so the agent's configuration names its socket.
#[tokio::test]
async fn the_steps_of_a_job_run_as_they_are_printed() {
    let scene = Scene::new(binary()).await;
    let job = scene.safeconduct.path().join("job");
    std::fs::create_dir(&job).expect("made");
    let config = scene.safeconduct.write("job.toml", "[egress]\ninsecure_loopback = true\n");
    let programs = Path::new(binary()).parent().expect("a directory").display().to_string();
    let world = scene.safeconduct.clone().without_env("SAFECONDUCT_SOCKET");
    let world = world.env("SAFECONDUCT_CONFIG", config.to_str().expect("plain"));
    let world =
        world.env("RUNNER_TEMP", job.to_str().expect("plain")).env("PATH", &format!("{programs}:/usr/bin:/bin"));
    let output = world.private("output").display().to_string();
    let world = world.env("GITHUB_OUTPUT", &output);
    let target = format!("demo={}", scene.mcp.url());
    let text = world.run(&["snippet", "github-actions", &target]).await.expect_code(0).stdout;
    let steps: Vec<String> = text.lines().filter_map(run_of).collect();
    let [tokens, configure, revoke] = steps.as_slice() else { panic!("three steps: {text}") };
    let run =
        async |step: &str| world.clone().with_binary(Path::new("/bin/sh")).run(&["-c", step]).await.expect_code(0);
    run(tokens).await;
    run(configure).await;
    let written = std::fs::read_to_string(job.join("mcp.json")).expect("it is written");
    let written: Value = serde_json::from_str(&written).expect("JSON");
    let command = written["mcpServers"]["demo"]["headersHelper"].as_str().expect("a text");
    assert!(command.contains(job.to_str().expect("plain")), "{command}");
    let field = helped(command).await["Authorization"].clone();
    let token = field.as_str().and_then(|field| field.strip_prefix("Bearer ")).expect("a bearer token");
    run(revoke).await;
    assert!(scene.authorization_server.is_revoked(token), "the end of the job is that of its token");
}
