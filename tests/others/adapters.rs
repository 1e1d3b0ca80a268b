//! The adapters of `examples/adapters/` in the official MCP SDKs: programs that speak to an MCP server behind a token check and have
//! no token, only the adapter. The files are tested as they are; the daemon and the servers are real.
//!
//! | file | what |
//! |---|---|
//! | `sessions.rs` | sessions through rotation, refused tokens, an outage of the issuer and a restart of the daemon |
//! | `requests.rs` | single requests: other servers, other URLs, other clients, answers that nobody can read |

use std::path::Path;

use serde_json::{Value, json};

use crate::fakes::leak;
use crate::fakes::safeconduct::Daemon;
use crate::fakes::scene::Scene;
use crate::fakes::tcp_http::{Loopback, listening};
use crate::peer::Peer;
use crate::process::{NODE, PYTHON, ROOT, SAFECONDUCT};
use crate::proxy::World;
use crate::servers::Settings;

mod requests;
mod sessions;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `@modelcontextprotocol/client` 2.4.0 with `authProvider`.
    Provider,
    /// The same with `fetch`.
    Fetch,
    /// `@modelcontextprotocol/sdk` 1.32.2 with `fetch`.
    FetchV1,
    /// `mcp` 2.3.0, which has `httpx2`.
    Python,
    /// `mcp` 1.30.0, which has `httpx`.
    PythonV1,
    /// `httpx2.Client`, without an SDK.
    PythonSync,
    /// `httpx.Client`.
    PythonSyncV1,
    /// `rmcp` 3.9, the Rust SDK.
    Rmcp,
}

const SESSIONS: [Kind; 6] = [Kind::Provider, Kind::Fetch, Kind::FetchV1, Kind::Python, Kind::PythonV1, Kind::Rmcp];

/// How the adapter reaches the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Socket,
    Loopback,
}

const WAYS: [Way; 2] = [Way::Socket, Way::Loopback];

struct Program {
    kind: Kind,
    way: Way,
    peer: Peer,
}

impl Program {
    async fn start(kind: Kind, way: Way, daemon: &Daemon, url: &str) -> Self {
        let settings = match way {
            Way::Socket => vec![("SAFECONDUCT_SOCKET", daemon.socket().display().to_string())],
            Way::Loopback => {
                let address = Loopback::of(daemon).await.address;
                let listening = listening(daemon).await;
                let secret = listening["http_secret"].as_str().expect("the secret's file").to_owned();
                vec![("HTTP", format!("http://{address}")), ("SECRET_FILE", secret)]
            }
        };
        Self::with(kind, way, settings, url)
    }

    fn with(kind: Kind, way: Way, mut settings: Settings, url: &str) -> Self {
        if matches!(kind, Kind::PythonV1 | Kind::PythonSyncV1) {
            settings.push(("PYTHONPATH", format!("{ROOT}/target/others/python-sdk-1")));
        }
        let node =
            |package, part| Peer::start(NODE, &["tests/others/adapted-client.mjs", package, part, url], &settings);
        let peer = match kind {
            Kind::Provider => node("client", "provider"),
            Kind::Fetch => node("client", "fetch"),
            Kind::FetchV1 => node("sdk", "fetch"),
            Kind::Python | Kind::PythonV1 => Peer::start(PYTHON, &["tests/others/adapted_client.py", url], &settings),
            Kind::PythonSync | Kind::PythonSyncV1 => {
                Peer::start(PYTHON, &["tests/others/adapted_client.py", "sync", url], &settings)
            }
            Kind::Rmcp => Peer::start(&rust_client(), &[url], &settings),
        };
        Self { kind, way, peer }
    }

    /// All that the program is told is searched for tokens.
    fn step(&mut self, step: &Value) -> Result<Value, String> {
        let (which, value) = self.peer.ask(step, &["done", "failed"]);
        leak::check("what an adapter shows its program", &value.to_string());
        if which == "done" { Ok(value) } else { Err(value.as_str().unwrap_or_default().to_owned()) }
    }

    #[track_caller]
    fn does(&mut self, step: &Value) -> Value {
        let Self { kind, way, .. } = *self;
        self.step(step).unwrap_or_else(|failed| panic!("{kind:?} by {way:?}: {step}: {failed}"))
    }

    #[track_caller]
    fn connects(&mut self) {
        self.does(&json!({ "connect": {} }));
    }

    #[track_caller]
    fn echoes(&mut self, word: &str) {
        let said = self.does(&echo(word));
        assert_eq!(said, format!("Echo: {word}"), "{:?} by {:?}", self.kind, self.way);
    }

    /// Ends it, after a search of all that it could print.
    fn end(mut self) {
        let shown = self.does(&json!({ "shown": {} }));
        assert!(shown.as_str().is_some_and(|shown| !shown.is_empty()), "{:?} shows nothing", self.kind);
        self.peer.end();
    }
}

fn echo(word: &str) -> Value {
    json!({ "call": { "name": "echo", "arguments": { "message": word } } })
}

/// Ends everything in good order; the daemon's log and files are searched for tokens.
async fn end(world: World, programs: Vec<Program>) {
    programs.into_iter().for_each(Program::end);
    world.end([]).await;
}

/// The adapters that get headers for each request.
const SIGNING: [Kind; 5] = [Kind::Fetch, Kind::FetchV1, Kind::Python, Kind::PythonV1, Kind::Rmcp];

/// The program of `adapted_client.rs`. Cargo builds it with the examples, as a plain `cargo test` does.
fn rust_client() -> String {
    let beside = Path::new(SAFECONDUCT).parent().expect("it is in a directory").join("examples/adapted-client");
    assert!(beside.exists(), "{} is missing: run cargo build --example adapted-client", beside.display());
    beside.display().to_string()
}

/// A program of each SDK for each way to the daemon.
fn all() -> Vec<(Kind, Way)> {
    WAYS.into_iter().flat_map(|way| SESSIONS.map(|kind| (kind, way))).collect()
}

/// These programs, each within a session.
async fn connected(world: &World, whom: &[(Kind, Way)]) -> Vec<Program> {
    let mut programs = Vec::new();
    for &(kind, way) in whom {
        let mut program = Program::start(kind, way, &world.daemon, &world.resource).await;
        program.connects();
        programs.push(program);
    }
    programs
}

/// The answer to a token that the server takes no more.
fn refusal() -> Value {
    json!({ "status": 401, "headers": { "www-authenticate": "Bearer error=\"invalid_token\"" } })
}

/// A configuration that has the scene's server as `target`.
fn serving_target(scene: &Scene, more: &str, address: &str) -> String {
    let config = scene.config(more).replace("[servers.demo]", "[servers.target]");
    format!("{config}[listen]\nhttp = \"{address}\"\n")
}

fn add() -> Value {
    json!({ "call": { "name": "add", "arguments": { "a": 2, "b": 3 } } })
}
