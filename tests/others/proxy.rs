//! Official MCP clients before the injecting proxy and the bridge, and MCP servers behind a token check after them. No client has a
//! token.
//!
//! | file | what |
//! |---|---|
//! | `sessions.rs` | sessions of three clients, by proxy and by bridge, through rotation, an outage of the issuer and restarts of their server |
//! | `probe.rs` | what a client's first request leads to, for each answer that ours or the server can give |

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixStream};

use crate::fakes::safeconduct::Daemon;
use crate::fakes::scene::{SCOPES, Scene};
use crate::fakes::tcp_http::Loopback;
use crate::peer::{Peer, listens};
use crate::process::{NODE, PYTHON, SAFECONDUCT};

mod probe;
mod sessions;

/// The code of an error of ours.
const OURS: i64 = -31080;

/// An issuer, a token check that trusts it, a server behind it, and a daemon whose proxy has the server as `target`.
pub(crate) struct World {
    pub(crate) scene: Scene,
    pub(crate) front: Peer,
    pub(crate) daemon: Daemon,
    /// The server's own URL.
    pub(crate) resource: String,
    secret: String,
    /// The proxy's URL of the server.
    url: String,
}

impl World {
    /// `server` is behind the check.
    pub(crate) async fn before(server: &str) -> Self {
        Self::with(server, "").await
    }

    /// `more` are further keys of the server.
    async fn with(server: &str, more: &str) -> Self {
        let scene = Scene::new(SAFECONDUCT).await;
        let trust = scene.authorization_server.trust();
        let settings = [("ISSUER", trust.issuer.clone()), ("JWKS", trust.verifier.jwks().to_string())];
        let mut front = Peer::start(NODE, &["tests/others/bearer-front.mjs"], &settings);
        let resource = front.hear("resource").as_str().expect("a URL").to_owned();
        front.ask(&json!({ "target": server }), &["done"]);
        scene.authorization_server.register(&resource, &SCOPES);
        let issuer = &trust.issuer;
        let config = format!(
            "[egress]\ninsecure_loopback = true\n[listen]\nhttp = \"127.0.0.1:0\"\n[servers.target]\nurl = \"{resource}\"\nissuer = \"{issuer}\"\n{more}"
        );
        let daemon = scene.safeconduct.clone().config(&config).daemon(&[]).await;
        let Loopback { address, secret } = Loopback::of(&daemon).await;
        Self { scene, front, daemon, resource, secret, url: format!("http://{address}/mcp/target") }
    }

    /// An address at which the proxy needs no secret, for clients that cannot be given one.
    pub(crate) fn open_door(&self) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a socket of ours");
        let listener = TcpListener::from_std(listener).expect("within the runtime");
        let socket = self.daemon.socket().to_owned();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let socket = socket.clone();
                tokio::spawn(async move {
                    let Ok(mut daemon) = UnixStream::connect(socket).await else { return };
                    // A connection that breaks off is closed at the other side too.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut daemon).await;
                });
            }
        });
        format!("http://{address}/mcp/target")
    }

    /// The proxy's URL of the server.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What the loopback listener asks of a client.
    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// The server behind the check was started again.
    fn names_again(&mut self, server: &str) {
        self.front.ask(&json!({ "target": server }), &["done"]);
    }

    /// What the token check saw so far.
    pub(crate) fn seen(&mut self) -> Vec<Value> {
        // Its answer comes after all that it has seen by now.
        self.front.ask(&json!({}), &["done"]);
        self.front.heard("seen")
    }

    /// How many tokens it saw.
    pub(crate) fn tokens(&mut self) -> usize {
        let mut ids: Vec<String> =
            self.seen().iter().filter_map(|seen| Some(seen["jti"].as_str()?.to_owned())).collect();
        ids.sort();
        ids.dedup();
        ids.len()
    }

    /// A client before the proxy.
    fn client(&self, kind: Kind) -> Client {
        self.client_by(kind, By::Proxy)
    }

    fn client_by(&self, kind: Kind, by: By) -> Client {
        let settings = [("SECRET", self.secret.clone())];
        let bridge = self.bridge();
        let way: Vec<&str> = match by {
            By::Proxy => vec![&self.url],
            By::Bridge => bridge.iter().map(String::as_str).collect(),
        };
        let (program, script): (_, &[&str]) = match kind {
            Kind::TypeScript => (NODE, &["tests/others/proxied-client.mjs", "client"]),
            Kind::TypeScriptV1 => (NODE, &["tests/others/proxied-client.mjs", "sdk"]),
            Kind::Python => (PYTHON, &["tests/others/proxied_client.py"]),
        };
        Client { kind, by, peer: Peer::start(program, &[script, &way].concat(), &settings) }
    }

    /// How a client starts a bridge to the server.
    pub(crate) fn bridge(&self) -> [String; 6] {
        let socket = self.daemon.socket().display().to_string();
        [SAFECONDUCT, "--socket", &socket, "stdio", "target", "--daemon-only"].map(str::to_owned)
    }

    /// Ends everything in good order.
    pub(crate) async fn end(self, clients: impl IntoIterator<Item = Client>) {
        for client in clients {
            client.peer.end();
        }
        self.daemon.stop().await.expect_code(0);
        self.front.end();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `@modelcontextprotocol/client` 2.4.0, mode "auto".
    TypeScript,
    /// `@modelcontextprotocol/sdk` 1.32.2.
    TypeScriptV1,
    /// `mcp` 2.3.0, mode "auto".
    Python,
}

const KINDS: [Kind; 3] = [Kind::TypeScript, Kind::TypeScriptV1, Kind::Python];

/// How a client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Proxy,
    /// It starts a `safeconduct stdio`.
    Bridge,
}

pub(crate) struct Client {
    kind: Kind,
    by: By,
    peer: Peer,
}

impl Client {
    fn step(&mut self, step: &Value) -> Result<Value, Failed> {
        match self.peer.ask(step, &["done", "failed"]) {
            (which, value) if which == "done" => Ok(value),
            (_, failed) => Err(Failed(failed)),
        }
    }

    fn connect(&mut self) -> Result<Value, Failed> {
        self.step(&json!({ "connect": {} }))
    }

    #[track_caller]
    fn connects(&mut self) {
        self.connect().unwrap_or_else(|failed| panic!("{:?} by {:?}: {failed:?}", self.kind, self.by));
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Result<Value, Failed> {
        self.step(&json!({ "call": { "name": tool, "arguments": arguments } }))
    }
}

/// What a client shows of a failure.
#[derive(Debug)]
struct Failed(Value);

impl Failed {
    /// Whether it is an error of ours: its text, its number, and who it is by.
    fn is_ours(&self) -> bool {
        self.0["code"] == OURS
            && self.0["data"]["by"] == "safeconduct"
            && self.0["message"].as_str().is_some_and(|text| text.contains("target"))
    }
}

/// `@modelcontextprotocol/server-everything`, on a port that stays the same when it is started again.
pub(crate) struct Everything {
    port: u16,
    process: Option<Peer>,
}

impl Everything {
    const PROGRAM: &str = "target/others/node_modules/@modelcontextprotocol/server-everything/dist/index.js";

    pub(crate) fn start() -> Self {
        // Free now, and nobody else asks for a certain port.
        let held = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let port = held.local_addr().expect("a bound socket has an address").port();
        drop(held);
        let mut everything = Self { port, process: None };
        everything.again();
        everything
    }

    fn again(&mut self) {
        self.stop();
        self.process = Some(Peer::start(NODE, &[Self::PROGRAM, "streamableHttp"], &[("PORT", self.port.to_string())]));
        listens(self.port);
    }

    /// Kills it: its sessions are gone.
    fn stop(&mut self) {
        drop(self.process.take());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }
}

pub(crate) async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
