//! The commands that clients run: `token`, `headers`, `get` and related ones, with a daemon and without one.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::{Value, json};
use support::authorization_server::{FakeAs, TokenFault};
use support::fault::Fault;
use support::keys;
use support::leak;
use support::mcp_server::FakeMcp;
use support::platform::LIFE;
use support::safeconduct::{Daemon, Output, Safeconduct};
use support::scene::Scene;
use support::sluice::Sluice;

use crate::binary;
use crate::exit::{ASKED_WRONGLY, CONFIG, DENIED, NO_IDENTITY, REFUSED, TEMPORARY};

mod daemon_or_not;
mod failures;
mod forms;
mod freshness;
mod revocation;
mod unconfigured;

/// The variables that Codex passes to a helper.
const CODEX: [&str; 6] = ["HOME", "LOGNAME", "PATH", "SHELL", "TMPDIR", "USER"];

fn line(output: &Output) -> &str {
    let line = output.stdout.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {}", output.stderr));
    assert!(!line.contains('\n') && output.code == Some(0), "{}", output.stderr);
    line
}

fn flat(output: &Output) -> &str {
    let token = line(output).strip_prefix("{\"Authorization\":\"Bearer ").and_then(|rest| rest.strip_suffix("\"}"));
    token.expect("one flat object, spelled exactly so")
}

/// A failed helper says why on standard error and nothing on standard output.
fn failed(output: Output, code: i32) -> String {
    let output = output.expect_code(code);
    assert!(output.stdout.is_empty());
    assert!(output.stderr.contains("safeconduct: error: "), "{}", output.stderr);
    output.stderr
}

async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
