//! `/mcp/NAME`: the injecting proxy, from a client without a token to a server that sees every byte.
//!
//! | file | attacks and rules |
//! |---|---|
//! | `ends.rs` | what ends from our side: after a reload, at a shutdown |
//! | `seen.rs` | what status, metrics, audit and doctor say of it |
//! | `heads.rs` | who may not speak here, paths, and every field that is dropped |
//! | `sessions.rs` | lost sessions, streams that are resumed, cookies |
//! | `lasting.rs` | sessions that last while tokens, issuer and daemon come and go |
//! | `streams.rs` | large bodies, event streams, disconnects in both directions |
//! | `told.rs` | 401, 403, redirects and failures, and what the client gets instead |

use std::time::Duration;

use serde_json::{Value, json};
use support::mcp_server::FakeMcp;
use support::raw_server::{RawHead, RawServer};
use support::safeconduct::{Daemon, Safeconduct};
use support::scene::{SCOPES, Scene};
use support::unix_http::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::{LIMIT, binary};

mod ends;
mod heads;
mod lasting;
mod seen;
mod sessions;
mod streams;
mod told;

/// A daemon with the server `raw`, whose bytes the test writes.
struct World {
    scene: Scene,
    server: RawServer,
    files: Safeconduct,
    daemon: Daemon,
}

impl World {
    /// The daemon has a token for it.
    async fn new() -> Self {
        Self::with("").await.with_a_token().await
    }

    async fn with_a_token(self) -> Self {
        // What is asked before a token is made has no token.
        let discovery = async {
            loop {
                let mut connection = self.server.accept().await;
                connection.head().await;
                connection.say("HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
            }
        };
        tokio::select! {
            _ = self.daemon.token("raw") => {}
            () = discovery => {}
        }
        self
    }

    /// `more` are further keys of the server. Nobody has asked for a token.
    async fn with(more: &str) -> Self {
        Self::on(Scene::new(binary()).await, more).await
    }

    async fn on(scene: Scene, more: &str) -> Self {
        let server = RawServer::start().await;
        let url = format!("{}/base/mcp", server.base());
        scene.authorization_server.register(&url, &SCOPES);
        let files = scene.configured(&raw(&scene, &server, more));
        let daemon = files.daemon(&[]).await;
        Self { scene, server, files, daemon }
    }

    /// The table of the server in the configuration, with these further keys.
    fn raw(&self, more: &str) -> String {
        raw(&self.scene, &self.server, more)
    }

    /// Sends a request, and gives the connection.
    async fn send(&self, request: &str) -> Client {
        let mut stream = UnixStream::connect(self.daemon.socket()).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        Client { stream, read: Vec::new() }
    }

    /// Is this field's value a token for the server, and nobody else's?
    fn is_its_token(&self, value: &str) -> bool {
        let token = value.strip_prefix("Bearer ").unwrap_or_default();
        let claims = self.scene.authorization_server.trust().verifier.verify(token);
        claims.is_ok_and(|claims| claims["aud"] == json!(format!("{}/base/mcp", self.server.base())))
    }

    /// A request and its answer, where the server gives this one.
    async fn exchange(&self, request: &str, answer: &str) -> (RawHead, Vec<u8>, Reply) {
        let mut client = self.send(request).await;
        let mut server = self.server.accept().await;
        let head = server.head().await;
        let length = head.all("content-length").first().map_or(0, |length| length.parse().expect("a number"));
        let mut body = Vec::new();
        while body.len() < length {
            body.extend(server.until(&request.as_bytes()[request.len() - 1..]).await);
        }
        server.say(answer).await;
        (head, body, client.reply().await)
    }
}

fn raw(scene: &Scene, server: &RawServer, more: &str) -> String {
    let (url, issuer) = (format!("{}/base/mcp", server.base()), scene.authorization_server.issuer());
    format!("[servers.raw]\nurl = \"{url}\"\nissuer = \"{issuer}\"\n{more}\n")
}

/// The client's end of a connection to the daemon.
struct Client {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Client {
    /// The answer, whose length is announced or whose connection is closed.
    async fn reply(&mut self) -> Reply {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await).expect("UTF-8");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = Vec::new();
        match length {
            Some(length) => {
                while self.read.len() < length {
                    assert!(self.more().await > 0, "the body is cut");
                }
                body.extend(self.read.drain(..length));
            }
            None if head.contains("transfer-encoding: chunked") => loop {
                let size = self.until(b"\r\n").await;
                let size = std::str::from_utf8(&size).expect("ASCII").trim_end();
                let size = usize::from_str_radix(size, 16).expect("a size");
                while self.read.len() < size + 2 {
                    assert!(self.more().await > 0, "the body is cut");
                }
                body.extend(self.read.drain(..size));
                self.read.drain(..2);
                if size == 0 {
                    break;
                }
            },
            None => {}
        }
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.into(), value.into()));
        Reply { status, headers: headers.collect(), body: String::from_utf8_lossy(&body).into_owned() }
    }

    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                return self.read.drain(..at + end.len()).collect();
            }
            let read = self.more().await;
            assert!(read > 0, "it ended before {:?}", String::from_utf8_lossy(end));
        }
    }

    async fn more(&mut self) -> usize {
        let mut piece = vec![0; 64 * 1024];
        let read = tokio::time::timeout(LIMIT, self.stream.read(&mut piece)).await.expect("it is silent");
        let read = read.unwrap_or(0);
        self.read.extend_from_slice(&piece[..read]);
        read
    }
}

/// A POST of this body to a path.
fn post(path: &str, fields: &str, body: &str) -> String {
    let head = "host: localhost\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n";
    format!("POST {path} HTTP/1.1\r\n{head}{fields}content-length: {}\r\n\r\n{body}", body.len())
}

fn call(id: &str, method: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{{}}}}")
}

fn initialize() -> String {
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#.to_owned()
}

/// An answer with a JSON body.
fn answers(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_client_without_a_token_calls_a_tool() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let begun = daemon.exchange(&closing(&post("/mcp/demo", "", &hello.to_string()))).await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    let session = begun.header("mcp-session-id").expect("wire 20: a session").to_owned();
    let of_session = format!("mcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n");
    let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(daemon.exchange(&closing(&post("/mcp/demo", &of_session, ready))).await.status, 202);
    let whoami = r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"whoami","arguments":{}}}"#;
    let called = daemon.exchange(&closing(&post("/mcp/demo", &of_session, whoami))).await;
    assert!(called.status == 200 && called.body.contains(&scene.mcp.url()), "{}", called.body);
    assert_eq!((scene.mcp.calls(), scene.mcp.refusals()), (3, 0));
    assert_eq!(scene.authorization_server.token_requests(), 1);
    verified(&scene.mcp);
    daemon.stop().await.expect_code(0);
}

/// Every request at the server had one token.
fn verified(server: &FakeMcp) {
    for seen in server.seen().iter().filter(|seen| seen.method == "POST" && seen.status < 400) {
        let shown = seen.headers.iter().filter(|(name, _)| name == "authorization").count();
        assert_eq!(shown, 1, "{seen:?}");
    }
}

fn closing(request: &str) -> String {
    request.replacen("\r\n", "\r\nconnection: close\r\n", 1)
}

/// The data of our own error.
#[track_caller]
fn ours(reply: &Reply) -> Value {
    let json = reply.json();
    assert_eq!(json["error"]["code"], -31080, "{}", reply.body);
    assert_eq!(json["error"]["data"]["by"], "safeconduct", "{}", reply.body);
    json
}

/// Longer than a request of another connection would take.
const WHILE: Duration = Duration::from_millis(200);
