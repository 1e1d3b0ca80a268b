//! Attacks on the real binary, one test each.
//!
//! The attackers are hostile MCP servers and authorization servers, the network, other users and browsers on the machine. Some
//! tests check that tokens do not leak into the operator's log.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::authorization_server::{FakeAs, JWT_BEARER, MetadataFault, TokenFault};
use support::fault::{self, Fault};
use support::keys;
use support::leak;
use support::listener::{Bound, Listener};
use support::mcp_server::{FakeMcp, INSERTED, Signposts};
use support::platform::{FakePlatform, PlatformFault};
use support::safeconduct::{Output, Safeconduct};
use support::tcp_http::Loopback;
use support::tls::TestCa;
use support::unix_http::Reply;
use support::wait::until;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};

use crate::{LIMIT, binary};

mod issuers;
mod network;
mod requests;
mod tokens;
mod users;
mod words;

const SCOPES: [&str; 2] = ["demo:read", "demo:write"];

/// A listener on TCP beside the socket.
const LOOPBACK: &str = "[listen]\nhttp = \"127.0.0.1:0\"";

/// Sets a fault on one of the servers.
type SetFault = fn(&World, Fault);

/// A user that is neither ours nor root.
const STRANGER: u32 = 65534;
/// A user whose compiled-in socket path under `/tmp` nobody else uses.
const VICTIM: u32 = 61_234;

/// The access token of the attacker's token endpoint: visible ASCII that no honest server sends.
const ODD_TOKEN: &str = "a-token%25of%0Athe-attacker\"\\$(id)";

struct World {
    platform: FakePlatform,
    authorization_server: FakeAs,
    mcp: FakeMcp,
}

impl World {
    async fn new() -> Self {
        let platform = FakePlatform::start().await;
        let authorization_server = FakeAs::start(platform.trust()).await;
        let mcp = FakeMcp::start(&authorization_server, &SCOPES).await;
        Self { platform, authorization_server, mcp }
    }

    /// A job on the platform, with `demo` configured by `lines`.
    fn job(&self, lines: &str) -> Safeconduct {
        self.job_with(lines, "")
    }

    fn job_with(&self, lines: &str, egress: &str) -> Safeconduct {
        let url = self.mcp.url();
        let toml = format!(
            "[egress]\ninsecure_loopback = true\n{egress}\n[servers.demo]\nurl = \"{url}\"\nscopes = [\"demo:read\"]\n{lines}\n"
        );
        Safeconduct::new(binary()).envs(self.platform.env()).config(&toml)
    }

    fn pin(&self) -> String {
        format!("issuer = \"{}\"", self.authorization_server.issuer())
    }
}

async fn token(safeconduct: &Safeconduct) -> Output {
    safeconduct.run(&["token", "demo", "--timeout", "20s"]).await
}

/// A run that retries until its time limit.
async fn outage(safeconduct: &Safeconduct) -> Output {
    safeconduct.run(&["token", "demo", "--timeout", "4s"]).await
}

/// Expects this exit code, nothing on stdout, and these words on stderr.
#[track_caller]
fn refused(output: Output, code: i32, words: &str) -> String {
    let output = output.expect_code(code);
    assert_eq!(output.stdout, "", "no half answers");
    assert!(output.stderr.contains("safeconduct: error: "), "{}", output.stderr);
    assert!(output.stderr.contains(words), "{words:?} is not in\n{}", output.stderr);
    output.stderr
}

#[track_caller]
fn accepted(output: Output) -> String {
    output.expect_code(0).stdout.trim().to_owned()
}

#[track_caller]
fn failed(reply: &Reply, status: u16, class: &str, code: &str) {
    let body = reply.json();
    let found = (reply.status, body["class"].as_str(), body["error"].as_str());
    let shown = if reply.status == 200 { "it was served" } else { &reply.body };
    assert_eq!(found, (status, Some(class), Some(code)), "{shown}");
}

/// The attacker's own server. It records every request, and its metadata is that of an authorization server with our grant.
struct Attacker {
    base: String,
    received: Arc<Mutex<Vec<Received>>>,
    _listener: Listener,
}

#[derive(Clone, Debug)]
struct Received {
    line: String,
    authorization: bool,
    body: String,
}

impl Attacker {
    async fn start() -> Self {
        Self::with(ODD_TOKEN, "").await
    }

    async fn with_token(token: &'static str) -> Self {
        Self::with(token, "").await
    }

    /// Its issuer has this path.
    async fn at(path: &'static str) -> Self {
        Self::with(ODD_TOKEN, path).await
    }

    async fn with(token: &'static str, path: &'static str) -> Self {
        let bound = Bound::new(None).await;
        let base = bound.base().to_owned();
        let received = Arc::new(Mutex::new(Vec::new()));
        let issuer = if path.is_empty() { base.clone() } else { format!("{base}/{path}") };
        let notes = Arc::clone(&received);
        let listener = bound.serve(move |request| {
            let (issuer, notes) = (issuer.clone(), Arc::clone(&notes));
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                notes.lock().expect("never held over a panic").push(Received {
                    line: format!("{} {}", head.method, head.uri.path()),
                    authorization: head.headers.contains_key("authorization"),
                    body: String::from_utf8_lossy(&body).into_owned(),
                });
                Ok(fault::json(
                    200,
                    json!({
                        "issuer": issuer, "token_endpoint": format!("{issuer}/token"), "grant_types_supported": [JWT_BEARER],
                        "access_token": token, "token_type": "Bearer", "expires_in": 600,
                    })
                    .to_string(),
                ))
            }
        });
        Self { base, received, _listener: listener }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().expect("never held over a panic").clone()
    }

    #[track_caller]
    fn saw_nothing(&self) {
        assert_eq!(self.received().len(), 0, "{:?}", self.received().iter().map(|one| &one.line).collect::<Vec<_>>());
    }
}

/// The attacker sends a request to the honest authorization server. Gives the status and the OAuth error.
async fn present(server: &FakeAs, assertion: &str, resource: &str) -> (u16, Value) {
    let form = [("grant_type", JWT_BEARER), ("assertion", assertion), ("resource", resource), ("scope", "demo:read")];
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
    let request =
        client.post(server.token_endpoint()).header("content-type", "application/x-www-form-urlencoded").body(body);
    let answer = request.send().await.expect("it answers");
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON"))
}

/// Removes a directory when it is dropped.
struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A directory that every user can enter, with the binary in it. `None` without root; CI runs as root.
struct Copy {
    _directory: tempfile::TempDir,
    binary: PathBuf,
}

fn as_root_only() -> Option<Copy> {
    #[expect(clippy::disallowed_methods, reason = "the test asks about its own surroundings")]
    let in_ci = std::env::var_os("CI").is_some();
    if !nix::unistd::geteuid().is_root() {
        assert!(!in_ci, "CI must run this as root: a foreign user cannot be played otherwise");
        return None;
    }
    let directory = tempfile::Builder::new().prefix("scbin").tempdir_in("/tmp").expect("/tmp is writable");
    open_to_all(directory.path());
    let copy = directory.path().join("safeconduct");
    std::fs::copy(binary(), &copy).expect("there is room");
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).expect("ours");
    Some(Copy { _directory: directory, binary: copy })
}

fn open_to_all(directory: &Path) {
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711)).expect("ours");
}

fn command_as(uid: u32, world: &Safeconduct, copy: &Copy, args: &[&str]) -> tokio::process::Command {
    let like = world.command(&[]);
    let mut command = tokio::process::Command::new(&copy.binary);
    command
        .args(args)
        .env_clear()
        .current_dir("/")
        .uid(uid)
        .gid(uid)
        .kill_on_drop(true)
        .stdin(std::process::Stdio::null());
    command.envs(like.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
    // Other users cannot read the harness's home.
    command.env("HOME", "/nonexistent");
    command
}

async fn as_user(uid: u32, world: &Safeconduct, copy: &Copy, args: &[&str]) -> Output {
    let output = tokio::time::timeout(LIMIT, command_as(uid, world, copy, args).output())
        .await
        .expect("bounded")
        .expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let output = Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) };
    leak::check("stderr of another user's safeconduct", &output.stderr_for_people());
    output
}

/// Sends raw bytes, and closes our writing half if `close` is true. Gives the answer.
async fn speak(socket: &Path, request: &[u8], close: bool) -> String {
    converse(UnixStream::connect(socket).await.expect("it listens"), request, close).await
}

async fn converse(stream: impl AsyncRead + AsyncWrite, request: &[u8], close: bool) -> String {
    let (mut from, mut to) = tokio::io::split(stream);
    let request = request.to_vec();
    let mut answer = Vec::new();
    let write = async {
        // The other side may close before the end of the request.
        let _ = to.write_all(&request).await;
        if close {
            let _ = to.shutdown().await;
        }
        to
    };
    let read = async {
        let mut chunk = [0; 4096];
        while let Ok(Ok(length @ 1..)) = tokio::time::timeout(Duration::from_secs(10), from.read(&mut chunk)).await {
            answer.extend_from_slice(&chunk[..length]);
        }
    };
    tokio::join!(write, read);
    String::from_utf8_lossy(&answer).into_owned()
}
