//! `safeconduct stdio`: the real program between a client on pipes and a daemon, which is the real one or one whose bytes the test
//! writes.
//!
//! | file | rules and attacks |
//! |---|---|
//! | `framing.rs` | what is read from stdin, and what is written to stdout |
//! | `sessions.rs` | messages of both wires, sessions, and the fields of each request |
//! | `streams.rs` | event streams, what the server sends by itself, resumption |
//! | `cancels.rs` | cancellation, and the end of the client |
//! | `eras.rs` | clients of the wire until 2025-11-25 at servers that speak 2026-07-28 alone, and the other pairs |
//! | `daemons.rs` | a daemon that goes away, is silent, or is not there; the real one |
//!
//! The numbers are those of the wire rules.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use support::safeconduct::{Output, Running, Safeconduct};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;

use crate::{LIMIT, binary};

mod cancels;
mod daemons;
mod eras;
mod framing;
mod sessions;
mod streams;

/// Longer than a message takes that is on its way already.
const WHILE: Duration = Duration::from_millis(200);

/// A client of `safeconduct stdio`.
struct Client {
    running: Running,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Where its daemon listens.
    socket: PathBuf,
}

impl Client {
    fn start(world: &Safeconduct, args: &[&str]) -> Self {
        Self { socket: world.socket(), ..Self::of(world.spawn(&[&["stdio"], args].concat())) }
    }

    fn of(mut running: Running) -> Self {
        let (stdin, stdout) = (running.stdin(), BufReader::new(running.stdout()));
        Self { running, stdin: Some(stdin), stdout, socket: PathBuf::new() }
    }

    async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("it is open");
        stdin.write_all(bytes.as_ref()).await.expect("it reads");
        stdin.flush().await.expect("it reads");
    }

    async fn send(&mut self, message: &Value) {
        self.write(format!("{message}\n")).await;
    }

    async fn ask(&mut self, id: u64, method: &str, params: Value) {
        self.send(&request(id, method, params)).await;
    }

    /// The next line, as it is.
    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = tokio::time::timeout(LIMIT, self.stdout.read_line(&mut line)).await;
        let read = read.unwrap_or_else(|_| panic!("it is silent; stderr:\n{}", self.running.stderr()));
        read.expect("UTF-8");
        assert!(line.ends_with('\n'), "half a line: {line:?}; stderr:\n{}", self.running.stderr());
        line.pop();
        line
    }

    /// The next line, which is one JSON-RPC message.
    async fn message(&mut self) -> Value {
        let line = self.line().await;
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    /// Does it say nothing for a while?
    async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(WHILE, self.stdout.fill_buf()).await.is_err()
    }

    /// Closes its input, and gives the outcome. It says nothing more.
    async fn end(mut self) -> Output {
        drop(self.stdin.take());
        self.ended().await
    }

    /// Waits until it ends by itself.
    async fn ended(mut self) -> Output {
        let mut rest = String::new();
        let read = tokio::time::timeout(LIMIT, self.stdout.read_to_string(&mut rest)).await;
        read.expect("it goes on").expect("UTF-8");
        assert_eq!(rest, "", "nothing more is said");
        self.running.wait().await
    }
}

fn request(id: u64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn notification(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

fn initialize(id: u64) -> Value {
    let client = json!({"name": "t", "version": "1"});
    request(id, "initialize", json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}))
}

/// A request of the wire since 2026-07-28.
fn stateless(id: u64, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    request(id, method, params)
}

fn result(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {}})
}

/// The data of our own error to this id.
#[track_caller]
fn ours(message: &Value, id: Value) -> Value {
    assert_eq!((&message["id"], &message["error"]["code"]), (&id, &json!(-31080)), "{message}");
    assert_eq!(message["error"]["data"]["by"], "safeconduct", "{message}");
    message["error"]["data"].clone()
}

/// A daemon whose answers the test writes. Requests come from all connections.
struct RawDaemon {
    requests: mpsc::Receiver<Asked>,
    accepts: JoinHandle<()>,
}

/// A request that it got.
struct Asked {
    line: String,
    fields: Vec<(String, String)>,
    body: String,
    connection: Arc<Mutex<OwnedWriteHalf>>,
    closed: watch::Receiver<bool>,
}

impl RawDaemon {
    fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("bound");
        let (sender, requests) = mpsc::channel(1_024);
        let accepts = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, sender.clone()));
            }
        });
        Self { requests, accepts }
    }

    /// The next request.
    async fn next(&mut self) -> Asked {
        let asked = tokio::time::timeout(LIMIT, self.requests.recv()).await.expect("nobody asks");
        asked.expect("it accepts")
    }

    /// The next request, which is this one.
    async fn expect(&mut self, what: &str) -> Asked {
        let asked = self.next().await;
        let found = match asked.line.split(' ').next() {
            Some("POST") => asked.json()["method"].as_str().unwrap_or("a response").to_owned(),
            method => method.unwrap_or_default().to_owned(),
        };
        assert_eq!(found, what, "{} {}", asked.line, asked.body);
        asked
    }

    /// Does nobody ask for a while?
    async fn is_left_alone(&mut self) -> bool {
        tokio::time::timeout(WHILE, self.requests.recv()).await.is_err()
    }

    /// Ends with all its connections.
    async fn stop(mut self) {
        self.accepts.abort();
        drop((&mut self.accepts).await);
    }
}

impl Drop for RawDaemon {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

async fn serve(stream: UnixStream, sender: mpsc::Sender<Asked>) {
    let (read, write) = stream.into_split();
    let (mut read, connection) = (BufReader::new(read), Arc::new(Mutex::new(write)));
    let (closes, closed) = watch::channel(false);
    while let Some((line, fields, body)) = received(&mut read).await {
        let asked = Asked { line, fields, body, connection: Arc::clone(&connection), closed: closed.clone() };
        if sender.send(asked).await.is_err() {
            return;
        }
    }
    closes.send_replace(true);
}

type Received = (String, Vec<(String, String)>, String);

async fn received(read: &mut BufReader<OwnedReadHalf>) -> Option<Received> {
    let (mut line, mut fields) = (String::new(), Vec::new());
    if read.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    loop {
        let mut field = String::new();
        read.read_line(&mut field).await.ok()?;
        let Some((name, value)) = field.trim_end().split_once(": ") else { break };
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = fields.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, length)| length.parse().expect("a number"));
    let mut body = vec![0; length];
    read.read_exact(&mut body).await.ok()?;
    Some((line.trim_end().to_owned(), fields, String::from_utf8(body).expect("UTF-8")))
}

impl Asked {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The value of a field that occurs at most once.
    #[track_caller]
    fn field(&self, name: &str) -> Option<&str> {
        let found: Vec<&str> =
            self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect();
        assert!(found.len() <= 1, "wire 60: {name} occurs twice");
        found.first().copied()
    }

    async fn say(&self, bytes: impl AsRef<[u8]>) {
        // It fails where the other side has closed the connection, after what it has read by then.
        drop(self.connection.lock().await.write_all(bytes.as_ref()).await);
    }

    /// Answers with this status, these fields (each with its line end) and this body.
    async fn status(&self, status: u16, fields: &str, body: &str) {
        let length = body.len();
        self.say(format!("HTTP/1.1 {status} X\r\n{fields}content-length: {length}\r\n\r\n{body}")).await;
    }

    async fn json_body(&self, fields: &str, body: &str) {
        self.status(200, &format!("content-type: application/json\r\n{fields}"), body).await;
    }

    /// Answers the request with an empty result.
    async fn done(&self) {
        self.json_body("", &result(&self.json()["id"]).to_string()).await;
    }

    async fn accepted(&self) {
        self.status(202, "", "").await;
    }

    /// Begins an event stream.
    async fn stream(&self) {
        self.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
    }

    async fn chunk(&self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.say(chunk).await;
    }

    async fn event(&self, message: &Value) {
        self.chunk(format!("data: {message}\n\n")).await;
    }

    /// The last chunk.
    async fn end(&self) {
        self.say("0\r\n\r\n").await;
    }

    /// Is its connection closed by the other side within the limit?
    async fn is_closed(&self) -> bool {
        let mut closed = self.closed.clone();
        tokio::time::timeout(LIMIT, closed.wait_for(|closed| *closed)).await.is_ok()
    }

    /// Breaks its connection.
    async fn break_off(&self) {
        self.connection.lock().await.shutdown().await.expect("it is open");
    }
}

/// A client of a daemon whose answers the test writes.
async fn scripted() -> (Client, RawDaemon) {
    scripted_with(&[]).await
}

async fn scripted_with(args: &[&str]) -> (Client, RawDaemon) {
    let world = Safeconduct::new(binary());
    let daemon = RawDaemon::start(&world.socket());
    let client = Client::start(&world, &[args, &["demo"]].concat());
    (client, daemon)
}

/// The same, in a session whose server sends nothing by itself.
async fn in_session() -> (Client, RawDaemon) {
    let (mut client, mut daemon) = scripted().await;
    begin(&mut client, &mut daemon).await.status(405, "", "").await;
    (client, daemon)
}

/// Begins the session `s-1`, and gives the request for the stream of the server.
async fn begin(client: &mut Client, daemon: &mut RawDaemon) -> Asked {
    client.send(&initialize(0)).await;
    let hello = daemon.expect("initialize").await;
    assert_eq!(hello.field("mcp-session-id"), None, "wire 19");
    hello.json_body("mcp-session-id: s-1\r\n", &agreed(0)).await;
    assert_eq!(client.message().await["id"], 0);
    client.send(&notification("notifications/initialized", json!({}))).await;
    daemon.expect("notifications/initialized").await.accepted().await;
    daemon.expect("GET").await
}

/// The answer to an `initialize`.
fn agreed(id: u64) -> String {
    json!({"jsonrpc": "2.0", "id": id, "result": {"protocolVersion": "2025-06-18", "capabilities": {}}}).to_string()
}

/// What starts the program as the child of a shell, so that its parent can be killed. Its input stays open.
fn below_a_shell(world: &Safeconduct) -> Running {
    let script = "exec 3<&0; \"$0\" \"$@\" <&3 & wait";
    world.clone().with_binary(Path::new("/bin/sh")).spawn(&["-c", script, binary(), "stdio", "demo"])
}

/// Starts it with a stdout that nobody reads any more.
fn unread(world: &Safeconduct) -> tokio::process::Child {
    let mut child = world
        .command(&["stdio", "demo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    child
}
