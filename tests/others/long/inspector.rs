//! The MCP Inspector's command line: a client that is configured with one header, and makes one request at a time.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{NODE, Outcome, ROOT, run};
use crate::proxy::{Everything, World};

const INSPECTOR: &str =
    "target/others-long/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";

fn inspect(world: &World, era: &str, words: &[&str]) -> Outcome {
    let dir = TempDir::new().expect("a temporary folder can be made");
    assert!(Path::new(ROOT).join(INSPECTOR).exists(), "target/others-long is missing: run tests/others/install-long");
    let mut command = Command::new(Path::new(ROOT).join(NODE));
    command.env_clear().env("HOME", dir.path()).env("PATH", "/usr/bin:/bin").current_dir(ROOT);
    command.args([INSPECTOR, "--cli", world.url(), "--transport", "http", "--protocol-era", era]);
    command.args(["--header", &format!("Authorization: Bearer {}", world.secret())]).args(words);
    run(command, dir.path())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inspector_lists_and_calls_tools_through_the_proxy() {
    let everything = Everything::start();
    let world = World::before(&everything.url()).await;
    for era in ["auto", "legacy"] {
        let listed = inspect(&world, era, &["--method", "tools/list"]);
        assert_eq!(listed.code, 0, "{era}: {}", listed.stderr);
        let tools: Value = serde_json::from_str(&listed.stdout).expect("it prints JSON");
        let has_echo = tools["tools"].as_array().is_some_and(|tools| tools.iter().any(|tool| tool["name"] == "echo"));
        assert!(has_echo, "{era}: {tools}");
        let called =
            inspect(&world, era, &["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=inspected"]);
        assert!(
            called.code == 0 && called.stdout.contains("Echo: inspected"),
            "{era}: {} {}",
            called.stdout,
            called.stderr
        );
    }
    world.end([]).await;
}
