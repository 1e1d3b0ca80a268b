//! Outside a cloud the probe ends in time in every network: without a route, with a refused connection, with lost packets, and with
//! a server that accepts and is silent. Each test has its own network namespace, in which the metadata address is ours.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_safeconduct");
const NO_IDENTITY: i32 = 69;
/// Much longer than the second that the probe may take, so that a slow machine does not fail the test.
const LIMIT: Duration = Duration::from_secs(20);

const UNREACHABLE: &str = "true";
const REFUSED: &str = "ip link set lo up && ip address add 169.254.169.254/32 dev lo";
/// A bridge without ports drops every packet.
const VANISHED: &str = "ip link set lo up && ip link add hole type bridge && ip address add 169.254.1.1/16 dev hole && \
    ip link set hole up";
/// The kernel completes the handshake of a listener that never accepts.
const SILENT: &str = "ip link set lo up && ip address add 169.254.169.254/32 dev lo && \
    { python3 -c 'import socket, time; s = socket.create_server((\"169.254.169.254\", 80)); print(flush=True); time.sleep(15)' > ready & } && \
    until [ -s ready ]; do sleep 0.02; done";

/// `safeconduct whoami --json` behind this network, on a machine whose firmware names no cloud.
async fn whoami(network: &str, config: &str) -> (Output, Value) {
    let place = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(place.path().join("safeconduct.toml"), config).expect("ours");
    let script = format!(
        "set -e\n{network}\nset +e\n\"$0\" whoami --json --config safeconduct.toml; code=$?; kill $! 2>/dev/null; exit $code"
    );
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "sh", "-c", &script, BINARY]).current_dir(place.path()).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("the probe ends").expect("unshare is here");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_str(&told).unwrap_or_else(|_| panic!("no report but: {told}"));
    (output, report)
}

fn firmware_names_a_cloud() -> bool {
    let word = |name: &str| std::fs::read_to_string(Path::new("/sys/class/dmi/id").join(name)).unwrap_or_default();
    word("product_name").starts_with("Google")
        || word("sys_vendor").contains("Amazon EC2")
        || word("chassis_asset_tag").contains("7783-7084-3265-9085-8269-3286-77")
}

#[tokio::test]
async fn the_probe_ends_whatever_becomes_of_its_packets() {
    if firmware_names_a_cloud() {
        eprintln!("this machine is in a cloud and says so: its firmware is believed, and nobody is asked");
        return;
    }
    for (mode, network) in
        [("unreachable", UNREACHABLE), ("refused", REFUSED), ("vanished", VANISHED), ("silent", SILENT)]
    {
        let (output, report) = whoami(network, "[identity]\nprobe = true\n").await;
        assert_eq!(output.status.code(), Some(NO_IDENTITY), "{mode}: {report}");
        let said = report["error"]["error_description"].as_str().unwrap_or_default();
        assert!(said.contains("no cloud's metadata service answers"), "{mode}: {said}");
        assert!(report["error"]["hint"].as_str().unwrap_or_default().contains("source = "), "{mode}: {report}");
        let steps: Vec<&str> =
            report["steps"].as_array().expect("steps").iter().filter_map(|step| step["step"].as_str()).collect();
        assert_eq!(steps, ["detect", "probe"], "{mode}");
    }
}

#[tokio::test]
async fn without_the_probe_nobody_is_asked() {
    let (output, report) = whoami(VANISHED, "").await;
    assert_eq!(output.status.code(), Some(NO_IDENTITY), "{report}");
    let steps: Vec<&str> =
        report["steps"].as_array().expect("steps").iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(steps, ["detect"]);
}
