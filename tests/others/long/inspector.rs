//! The MCP Inspector's command line, which makes one request at a time: configured with one header before the proxy, and with the
//! command of a bridge.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{NODE, Outcome, ROOT, run};
use crate::proxy::{Everything, World};

const INSPECTOR: &str =
    "target/others-long/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";

fn inspect(way: &[String], era: &str, words: &[&str]) -> Outcome {
    let dir = TempDir::new().expect("a temporary folder can be made");
    assert!(Path::new(ROOT).join(INSPECTOR).exists(), "target/others-long is missing: run tests/others/install-long");
    let mut command = Command::new(Path::new(ROOT).join(NODE));
    command.env_clear().env("HOME", dir.path()).env("PATH", "/usr/bin:/bin").current_dir(ROOT);
    command.args([INSPECTOR, "--cli", "--protocol-era", era]).args(words).args(way);
    run(command, dir.path())
}

fn lists_and_calls_tools(way: &[String]) {
    for era in ["auto", "legacy"] {
        let listed = inspect(way, era, &["--method", "tools/list"]);
        assert_eq!(listed.code, 0, "{era}: {}", listed.stderr);
        let tools: Value = serde_json::from_str(&listed.stdout).expect("it prints JSON");
        let has_echo = tools["tools"].as_array().is_some_and(|tools| tools.iter().any(|tool| tool["name"] == "echo"));
        assert!(has_echo, "{era}: {tools}");
        let echo = ["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=inspected"];
        let called = inspect(way, era, &echo);
        let says = called.stdout.contains("Echo: inspected");
        assert!(called.code == 0 && says, "{era}: {} {}", called.stdout, called.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inspector_lists_and_calls_tools_through_the_proxy() {
    let everything = Everything::start();
    let world = World::before(&everything.url()).await;
    let header = format!("Authorization: Bearer {}", world.secret());
    lists_and_calls_tools(
        &["--transport", "http", "--header", &header, "--server-url", world.url()].map(str::to_owned),
    );
    world.end([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inspector_lists_and_calls_tools_through_a_bridge() {
    let everything = Everything::start();
    let mut world = World::before(&everything.url()).await;
    let bridge = world.bridge();
    lists_and_calls_tools(&[&["--".to_owned()], &bridge[..]].concat());
    assert_eq!(world.tokens(), 1, "the daemon kept it from one bridge to the next");
    world.end([]).await;
}
