//! Two emulators of AWS: moto's STS lets workloads assume roles; MiniStack signs JWTs and emulates a machine.
//!
//! Neither verifies a signature or a web identity, and MiniStack's JWTs have a fake key. These tests prove that our requests have
//! AWS's format, and not only that of our own fake. `exchange = "direct"` shows the JWT itself.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::fakes::keys;
use crate::fakes::safeconduct::Safeconduct;
use crate::process::{LIMIT, ROOT, Running, SAFECONDUCT, installed};

const AUDIENCE: &str = "https://login.example.com/tenant1";
const ROLE: &str = "arn:aws:iam::123456789012:role/agent";
const BIN: &str = "target/others/python/bin";

/// A running emulator.
struct Emulator {
    base: String,
    _process: Running,
    _home: TempDir,
}

impl Emulator {
    fn ministack() -> Self {
        Self::start(|port| {
            let mut command = Command::new(Path::new(ROOT).join(BIN).join("ministack"));
            // Without this it listens on all addresses, and on another port.
            command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port).env("IOT_MTLS_ENABLED", "0");
            command.env("MINISTACK_IMDS_V2_REQUIRED", "1").env("MINISTACK_REGION", "eu-central-1");
            command
        })
    }

    fn moto() -> Self {
        Self::start(|port| {
            let mut command = Command::new(Path::new(ROOT).join(BIN).join("moto_server"));
            command.args(["-H", "127.0.0.1", "-p", port]);
            command
        })
    }

    fn start(command: impl Fn(&str) -> Command) -> Self {
        installed();
        let free = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let home = TempDir::new().expect("a temporary folder can be made");
        let mut command = command(&address.port().to_string());
        command.env("HOME", home.path()).current_dir(home.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Running(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
        let end = Instant::now() + LIMIT;
        while TcpStream::connect(address).is_err() {
            assert!(process.0.try_wait().expect("a child of ours").is_none(), "{command:?} ended at once");
            assert!(Instant::now() < end, "{command:?} does not listen");
            thread::sleep(Duration::from_millis(50));
        }
        Self { base: format!("http://{address}"), _process: process, _home: home }
    }

    /// A workload with these variables. Gives its JWT.
    fn workload(&self, vars: &[(&str, &str)], identity: &str) -> Safeconduct {
        let mut all = BTreeMap::from([("AWS_ENDPOINT_URL_STS", self.base.as_str())]);
        all.extend(vars.iter().copied());
        let all = all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = format!(
            "[egress]\ninsecure_loopback = true\n\n{identity}\n\n[servers.demo]\nurl = \"https://mcp.example.com/mcp\"\n\
            exchange = \"direct\"\nsubject_audience = \"{AUDIENCE}\"\n"
        );
        Safeconduct::new(SAFECONDUCT).envs(all).config(&config)
    }
}

/// Writes a service account's token to a file.
fn service_account(world: &Safeconduct) -> String {
    let claims = json!({
        "iss": "https://oidc.example", "sub": "system:serviceaccount:agents:mcp", "aud": "sts.amazonaws.com",
        "iat": keys::now() as u64, "exp": keys::now() as u64 + 600,
    });
    let file = world.private("token");
    fs::write(&file, keys::Keys::generate("cluster").sign("JWT", &keys::object(claims)) + "\n").expect("ours");
    file.display().to_string()
}

fn is_for_us(token: &str) {
    let claims = keys::peek(token.trim());
    assert_eq!(claims["aud"], json!(AUDIENCE));
    let life = claims["exp"].as_u64().zip(claims["iat"].as_u64()).map(|(exp, iat)| exp - iat);
    assert_eq!(life, Some(300), "as long as was asked for");
}

#[tokio::test]
async fn ministack_gives_a_machine_its_jwt() {
    let aws = Emulator::ministack();
    let world = aws.workload(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &aws.base)], "[identity]\nsource = \"aws\"");
    is_for_us(&world.run(&["token", "demo", "--no-daemon"]).await.expect_code(0).stdout);
}

#[tokio::test]
async fn ministack_gives_a_pod_its_jwt_in_two_calls() {
    let aws = Emulator::ministack();
    let world = aws.workload(&[("AWS_REGION", "eu-central-1"), ("AWS_ROLE_ARN", ROLE)], "");
    let file = service_account(&world);
    let world = world.env("AWS_WEB_IDENTITY_TOKEN_FILE", &file);
    is_for_us(&world.run(&["token", "demo", "--no-daemon"]).await.expect_code(0).stdout);
}

#[tokio::test]
async fn moto_takes_a_pod_on_as_its_role_and_says_that_it_knows_no_more() {
    let aws = Emulator::moto();
    let world = aws.workload(&[("AWS_REGION", "eu-central-1"), ("AWS_ROLE_ARN", ROLE)], "");
    let file = service_account(&world);
    let world = world.env("AWS_WEB_IDENTITY_TOKEN_FILE", &file);
    // moto has no `GetWebIdentityToken` and answers 500.
    let output = world.run(&["token", "demo", "--no-daemon", "--timeout", "3s"]).await.expect_code(75);
    assert!(output.stderr.contains("STS answers status 500"), "{}", output.stderr);
    assert!(!output.stderr.contains("ERROR"), "the SDK has nothing to say: {}", output.stderr);
}

#[tokio::test]
async fn the_role_that_moto_gives_signs_requests() {
    let aws = Emulator::moto();
    let world = Safeconduct::new(SAFECONDUCT);
    let file = service_account(&world);
    let config = format!(
        "[egress]\ninsecure_loopback = true\n\n[identity]\nsource = \"file\"\ntoken_file = \"{file}\"\n\n[servers.demo]\n\
        url = \"https://mcp.example.com/mcp\"\nexchange = \"aws-sigv4\"\nservice = \"bedrock-agentcore\"\n\
        region = \"eu-central-1\"\nrole_arn = \"{ROLE}\"\nendpoint = \"{}\"\n",
        aws.base
    );
    let daemon = world.config(&config).daemon(&[]).await;
    let body = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let path = format!("/v1/headers?server=demo&method=GET&url=https%3A%2F%2Fmcp.example.com%2Fmcp&body_sha256={body}");
    let reply = daemon.get(&path).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let headers = reply.json()["headers"].clone();
    let authorization = headers["Authorization"][0].as_str().unwrap_or_default();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=ASIA"), "moto's keys of a session");
    assert!(headers["X-Amz-Security-Token"][0].is_string());
}
