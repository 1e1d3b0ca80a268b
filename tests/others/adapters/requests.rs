//! Single requests: to servers that want more than a bearer token, to other URLs, of clients without asyncio, and with answers that
//! no adapter can read.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::{Kind, Program, SIGNING, WAYS, Way, add, end, refusal, serving_target};
use crate::fakes::aws::FakeAws;
use crate::fakes::leak;
use crate::fakes::safeconduct::Safeconduct;
use crate::fakes::scene::Scene;
use crate::process::{NODE, ROOT, SAFECONDUCT, installed};
use crate::proxy::{Everything, World, pause};

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_asyncio_are_served_alike() {
    let everything = Everything::start();
    let mut world = World::before(&everything.url()).await;
    world.scene.authorization_server.set_token_life(Duration::from_secs(15));
    let mut programs = Vec::new();
    for (kind, way) in [(Kind::PythonSync, Way::Socket), (Kind::PythonSyncV1, Way::Loopback)] {
        let mut program = Program::start(kind, way, &world.daemon, &world.resource).await;
        world.daemon.token("target").await;
        pause(2_000).await;
        world.front.ask(&json!({ "answers": [refusal(), { "status": 200, "body": "{}" }] }), &["done"]);
        assert_eq!(program.does(&json!({ "connect": {} })), 200, "{kind:?} by {way:?}");
        programs.push(program);
    }
    assert!(world.tokens() >= 2, "the refused token is not sent again");
    end(world, programs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_url_than_the_server_s_gets_no_token() {
    let everything = Everything::start();
    let mut world = World::before(&everything.url()).await;
    let other = everything.url();
    for kind in SIGNING {
        let mut program = Program::start(kind, Way::Socket, &world.daemon, &other).await;
        let failed = program.step(&json!({ "connect": {} })).expect_err("it is not the server's URL");
        assert!(failed.contains("safeconduct: "), "{kind:?}: {failed}");
        program.peer.end();
    }
    assert_eq!(world.tokens(), 0);
    end(world, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_tokens_bound_to_a_key_gets_a_proof_with_its_nonce() {
    let scene = Scene::new(SAFECONDUCT).await;
    scene.mcp.require_dpop(Some("first-nonce"));
    let config = serving_target(&scene, "dpop = true", "127.0.0.1:0");
    let daemon = scene.safeconduct.clone().config(&config).daemon(&[]).await;
    let mut programs = Vec::new();
    // `rmcp` does not show the nonce.
    let kinds = SIGNING.into_iter().filter(|kind| *kind != Kind::Rmcp);
    for (kind, way) in kinds.zip(WAYS.into_iter().cycle()) {
        scene.mcp.require_dpop(Some("first-nonce"));
        let mut program = Program::start(kind, way, &daemon, &scene.mcp.url()).await;
        program.connects();
        scene.mcp.require_dpop(Some("second-nonce"));
        assert_eq!(program.does(&add()), "5", "{kind:?} by {way:?}");
        programs.push(program);
    }
    programs.into_iter().for_each(Program::end);
    daemon.stop().await.expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_a_server_behind_iam_are_signed() {
    let aws = FakeAws::start().await;
    let url = aws.mcp_url();
    let server = format!(
        "[servers.target]\nurl = \"{url}\"\nexchange = \"aws-sigv4\"\nservice = \"bedrock-agentcore\"\nregion = \"eu-central-1\"\n"
    );
    let config = format!("[egress]\ninsecure_loopback = true\n[identity]\nsource = \"aws\"\n{server}");
    let daemon = Safeconduct::new(SAFECONDUCT).envs(aws.container()).config(&config).daemon(&[]).await;
    for kind in SIGNING {
        let before = aws.served().len();
        let mut program = Program::start(kind, Way::Socket, &daemon, &url).await;
        // It is no MCP server and answers something else, but it checks signatures.
        let _ = program.step(&json!({ "connect": {} }));
        assert!(aws.served()[before..].iter().any(|body| body.contains("jsonrpc")), "{kind:?}: no request passed");
        program.peer.end();
    }
    daemon.stop().await.expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_an_adapter_cannot_read_is_never_quoted() {
    let token = "this-is-a-token-in-an-answer-that-breaks-off";
    leak::minted(token);
    let dir = tempfile::TempDir::new().expect("a temporary folder can be made");
    for (number, answer) in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n\"{token}               "),
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{{\"headers\":{{\"Authorization\":[\"Bearer {token}"),
        format!("{token}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{token}\r\n\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let socket = dir.path().join(number.to_string());
        let listener = UnixListener::bind(&socket).expect("a new socket");
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                // What the client sends does not matter, nor whether it waits for the end.
                let _ = client.read(&mut [0; 4096]).await;
                let _ = client.write_all(answer.as_bytes()).await;
            }
        });
        for kind in [Kind::Provider, Kind::Fetch, Kind::Python, Kind::PythonV1, Kind::PythonSync, Kind::Rmcp] {
            let settings = vec![("SAFECONDUCT_SOCKET", socket.display().to_string())];
            let mut program = Program::with(kind, Way::Socket, settings, "http://127.0.0.1:1/mcp");
            let failed = program.step(&json!({ "connect": {} })).expect_err("there is no token");
            assert!(failed.contains("safeconduct: "), "{kind:?} with answer {number}: {failed}");
            program.peer.end();
        }
    }
}

#[test]
fn the_typescript_adapter_has_the_types_that_both_sdks_take() {
    installed();
    let mut compiler = Command::new(Path::new(ROOT).join(NODE));
    compiler.arg("target/others/node_modules/typescript/bin/tsc").args(["--project", "tests/others/tsconfig.json"]);
    let output = compiler.current_dir(ROOT).output().expect("the compiler runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_of_the_job_is_found_without_its_name() {
    let scene = Scene::new(SAFECONDUCT).await;
    let job = scene.safeconduct.path().join("job");
    let directory = job.join("safeconduct");
    std::fs::create_dir_all(&directory).expect("the directory is ours");
    let socket = directory.join("safeconduct.sock").display().to_string();
    let config = serving_target(&scene, "", "127.0.0.1:0");
    let daemon = scene.safeconduct.clone().config(&config).daemon(&["--socket", &socket]).await;
    for kind in [Kind::Provider, Kind::Python, Kind::Rmcp] {
        let settings = vec![("SAFECONDUCT_SOCKET", String::new()), ("RUNNER_TEMP", job.display().to_string())];
        let mut program = Program::with(kind, Way::Socket, settings, &scene.mcp.url());
        program.connects();
        assert_eq!(program.does(&add()), "5", "{kind:?}");
        program.end();
    }
    daemon.stop().await.expect_code(0);
}
