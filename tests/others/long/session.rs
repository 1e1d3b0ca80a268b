//! A long session: see `support::long_session`. mcp-remote, which many people have in place of our bridge, makes the same calls.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use crate::fakes::authorization_server::ClientProof;
use crate::fakes::long_session::{By, Event, Plan, Report, run};
use crate::fakes::scene::{SCOPES, Scene};
use crate::process::{NODE, ROOT, SAFECONDUCT};

const CALLS: usize = 10_000;

#[tokio::test]
async fn ten_thousand_calls_last_through_a_hundred_tokens_outages_and_restarts() {
    lasts(By::Proxy, "proxy").await;
}

#[tokio::test]
async fn ten_thousand_calls_of_bridges_last_through_the_same() {
    lasts(By::Bridge, "bridge").await;
}

/// It has a client secret for the issuer, so the restarts of the daemon do not concern it. Tokens of two seconds make it ask the issuer so
/// often that it takes them for refused ones and stops for a while.
#[tokio::test]
async fn ten_thousand_calls_of_mcp_remote_are_counted_beside_them() {
    let report = session(By::Foreign(mcp_remote)).await;
    tell("mcp-remote", &report);
    for (count, what) in report.told().into_iter().take(8) {
        print(&format!("mcp-remote: {count} times {what}"));
    }
    assert_eq!(report.calls, CALLS);
    assert!(report.failures.len() < CALLS && report.tokens > 1, "it was set up well: {report}");
}

async fn lasts(by: By, name: &str) {
    let report = session(by).await;
    tell(name, &report);
    assert!(report.wrong().is_empty(), "{report}: {:#?} {:?}", report.wrong(), report.windows);
    assert_eq!(report.calls, CALLS);
    assert!(report.tokens > 100, "{report}");
    assert!(!report.failures.is_empty() && report.failures.len() < 500, "the windows were felt: {report}");
}

async fn session(by: By) -> Report {
    let milliseconds = Duration::from_millis;
    let mut events = Vec::new();
    for round in 0..5 {
        // Some are over before a call has waited long enough to be told, and some are not.
        events.push(Event::IssuerAway(milliseconds([3_000, 14_000][round % 2])));
        if round % 2 == 0 {
            events.push(Event::DaemonAgain(milliseconds(500)));
            events.push(Event::ServerAgain(milliseconds([400, 6_000][round / 2 % 2])));
        }
    }
    run(
        SAFECONDUCT,
        Plan { by, calls: CALLS, clients: 4, pause: milliseconds(70), life: Duration::from_secs(2), events },
    )
    .await
}

fn mcp_remote(scene: &Scene) -> Command {
    const PROGRAM: &str = "target/others-long/node_modules/mcp-remote/dist/proxy.js";
    assert!(Path::new(ROOT).join(PROGRAM).exists(), "target/others-long is missing: run tests/others/install-long");
    scene.authorization_server.add_client("agent", ClientProof::Basic("of-the-agent".to_owned()));
    let info = json!({ "client_id": "agent", "client_secret": "of-the-agent" }).to_string();
    let asked = json!({ "scope": SCOPES.join(" "), "token_endpoint_auth_method": "client_secret_basic" }).to_string();
    let (url, endpoint) = (scene.mcp.url(), scene.authorization_server.token_endpoint());
    let mut command = Command::new(Path::new(ROOT).join(NODE));
    command.current_dir(ROOT).args([PROGRAM, &url, "--allow-http", "--transport", "http-only", "--resource", &url]);
    command.args(["--client-credentials", "--token-endpoint", &endpoint]);
    command.args(["--static-oauth-client-info", &info, "--static-oauth-client-metadata", &asked]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", scene.safeconduct.private("mcp-remote"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

fn tell(name: &str, report: &Report) {
    print(&format!("{name}: {report}; {} of them while issuer and server could answer", report.needless()));
}

/// Past the test program, which keeps what a good test prints.
fn print(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("stderr is open");
}
