//! Sessions of several clients with an MCP server through the proxy or bridges, while the token is replaced all the time, and issuer, daemon
//! and server fail and come back. No client ever begins a new session.
//!
//! [`run`] makes the calls of a [`Plan`], and [`Report::wrong`] judges them by the logs of the fakes: a call may fail only within a
//! window in which none could succeed, and then the client must be told so in words of ours. If the daemon itself is away,
//! the connection fails. A bridge of somebody else makes the same calls, and is counted alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::keys::now;
use super::listener::Bound;
use super::mcp_server::FakeMcp;
use super::safeconduct::{Daemon, Running, Safeconduct};
use super::scene::{SCOPES, Scene};
use super::unix_http::{self, Reply};
use report::Got;
pub use report::{Failure, Report, Why, Window};

mod report;

/// No call takes longer.
const SILENT: Duration = Duration::from_secs(60);
/// For a bridge of somebody else: so long a call waits, and so long all calls may take. Later ones count as lost.
const FOREIGN_SILENT: Duration = Duration::from_secs(10);
const FOREIGN_LIMIT: Duration = Duration::from_secs(15 * 60);

/// What happens in the course of the calls, at even distances.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The issuer is away for so long.
    IssuerAway(Duration),
    /// The daemon is ended with SIGTERM, and started after so long.
    DaemonAgain(Duration),
    /// The server is killed, and started after so long without its sessions.
    ServerAgain(Duration),
}

/// How the clients reach the server.
#[derive(Clone, Copy, Debug)]
pub enum By {
    Proxy,
    /// Each client starts a `safeconduct stdio`.
    Bridge,
    /// Each client starts this bridge, which is not ours and uses no daemon.
    Foreign(fn(&Scene) -> Command),
}

pub struct Plan {
    pub by: By,
    pub calls: usize,
    pub clients: usize,
    /// Of each client between two calls.
    pub pause: Duration,
    /// The life of a token.
    pub life: Duration,
    pub events: Vec<Event>,
}

/// What the clients and the events write down.
#[derive(Default)]
struct Log {
    done: AtomicUsize,
    failures: Mutex<Vec<Failure>>,
    windows: Mutex<Vec<Window>>,
    issuer_away: Mutex<Vec<(f64, f64)>>,
}

/// `binary` is safeconduct.
pub async fn run(binary: &str, plan: Plan) -> Report {
    let mut scene = Scene::new(binary).await;
    scene.authorization_server.set_token_life(plan.life);
    let world = scene.configured("");
    let mut daemon = world.daemon(&[]).await;
    let log = Arc::new(Log::default());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..plan.clients {
        let client = match plan.by {
            By::Proxy => Client::proxy(daemon.socket()).await,
            By::Bridge => Client::bridge(&daemon.helper()).await,
            By::Foreign(command) => Client::foreign(command(&scene)).await,
        };
        clients.spawn(client.call_until(plan.calls, plan.pause, Arc::clone(&log)));
    }
    let mut tokens = Vec::new();
    for (index, event) in plan.events.iter().enumerate() {
        log.reached(plan.calls * (index + 1) / (plan.events.len() + 1)).await;
        match *event {
            Event::IssuerAway(long) => {
                let from = now();
                scene.authorization_server.set_down(true);
                tokio::time::sleep(long).await;
                scene.authorization_server.set_down(false);
                lock(&log.issuer_away).push((from, now()));
            }
            Event::DaemonAgain(long) => daemon = daemon_again(daemon, &world, long, &log).await,
            Event::ServerAgain(long) => {
                tokens.extend(seen(&scene.mcp));
                scene = server_again(scene, long, &log).await;
            }
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client does not panic");
    }
    daemon.stop().await.expect_code(0);
    tokens.extend(seen(&scene.mcp));
    tokens.sort();
    tokens.dedup();
    let mut windows = std::mem::take(&mut *lock(&log.windows));
    windows.extend(without_token(&scene.authorization_server.issued(), &lock(&log.issuer_away)));
    let failures = std::mem::take(&mut *lock(&log.failures));
    Report { calls: log.done.load(Ordering::SeqCst), failures, windows, tokens: tokens.len() }
}

async fn daemon_again(daemon: Daemon, world: &Safeconduct, long: Duration, log: &Log) -> Daemon {
    let from = now();
    daemon.stop().await.expect_code(0);
    tokio::time::sleep(long).await;
    let daemon = world.daemon(&[]).await;
    lock(&log.windows).push(Window { why: Why::Daemon, from, to: now() });
    daemon
}

async fn server_again(scene: Scene, long: Duration, log: &Log) -> Scene {
    let Scene { platform, authorization_server, mcp, safeconduct } = scene;
    let address: SocketAddr = mcp.base().trim_start_matches("http://").parse().expect("an address");
    let from = now();
    drop(mcp);
    tokio::time::sleep(long).await;
    let mcp = FakeMcp::start_on(Bound::again(address).await, &authorization_server, &SCOPES);
    lock(&log.windows).push(Window { why: Why::Server, from, to: now() });
    Scene { platform, authorization_server, mcp, safeconduct }
}

/// The tokens that a server accepted, as digests.
fn seen(server: &FakeMcp) -> Vec<String> {
    let good = server.seen().into_iter().filter(|seen| seen.status < 400);
    good.filter_map(|seen| Some(seen.header("authorization")?.to_owned())).collect()
}

/// When the issuer was away, less the times in which a token of it was alive.
fn without_token(issued: &[(f64, f64)], away: &[(f64, f64)]) -> Vec<Window> {
    let mut windows = Vec::new();
    for (from, to) in away {
        let dead = issued.iter().filter(|(at, _)| at <= to).map(|(_, exp)| *exp).fold(*from, f64::max);
        if dead < *to {
            windows.push(Window { why: Why::NoToken, from: dead, to: *to });
        }
    }
    windows
}

enum Client {
    Proxy { socket: PathBuf, session: String },
    Bridge(Box<Bridge>),
}

struct Bridge {
    process: Process,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

enum Process {
    Ours(Box<Running>),
    /// Killed when this is dropped.
    Foreign(Child),
}

impl Process {
    fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }

    async fn ended(self) {
        match self {
            Self::Ours(mut running) => drop(running.wait().await.expect_code(0)),
            Self::Foreign(child) => drop(child),
        }
    }
}

impl Client {
    async fn proxy(socket: &Path) -> Self {
        let begun = unix_http::exchange(socket, &post(&hello(), "")).await.expect("the daemon answers");
        let session = begun.header("mcp-session-id").unwrap_or_else(|| panic!("no session: {}", begun.body)).to_owned();
        let ready = unix_http::exchange(socket, &post(&ready(), &fields(&session))).await;
        assert_eq!(ready.expect("the daemon answers").status, 202);
        Self::Proxy { socket: socket.to_owned(), session }
    }

    async fn bridge(world: &Safeconduct) -> Self {
        let mut running = world.spawn(&["stdio", "demo"]);
        let (stdin, stdout) = (running.stdin(), running.stdout());
        Self::begin(Process::Ours(Box::new(running)), stdin, stdout).await
    }

    async fn foreign(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdin, stdout) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
        Self::begin(Process::Foreign(child), stdin, stdout).await
    }

    async fn begin(process: Process, mut stdin: ChildStdin, stdout: ChildStdout) -> Self {
        let mut stdout = BufReader::new(stdout);
        say(&mut stdin, &hello()).await.expect("it reads");
        let begun = answer_to(0, &mut stdout, SILENT).await.unwrap_or_else(|error| match &process {
            Process::Ours(running) => panic!("{error}; stderr:\n{}", running.stderr()),
            Process::Foreign(_) => panic!("{error}"),
        });
        assert_eq!(begun["result"]["protocolVersion"], "2025-11-25", "{begun}");
        say(&mut stdin, &ready()).await.expect("it reads");
        Self::Bridge(Box::new(Bridge { process, stdin, stdout }))
    }

    async fn call_until(mut self, calls: usize, pause: Duration, log: Arc<Log>) {
        let began = now();
        loop {
            let number = log.done.fetch_add(1, Ordering::SeqCst);
            if number >= calls {
                log.done.fetch_sub(1, Ordering::SeqCst);
                if let Self::Bridge(bridge) = self {
                    let Bridge { process, stdin, stdout } = *bridge;
                    drop((stdin, stdout));
                    process.ended().await;
                }
                return;
            }
            let from = now();
            let add = json!({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {
                "name": "add", "arguments": {"a": number, "b": 1}}});
            let got = if from - began > FOREIGN_LIMIT.as_secs_f64() && !self.is_ours() {
                Some(Got::Nothing("not made: the calls before took too long".to_owned()))
            } else {
                self.calls(&add, number).await
            };
            if let Some(got) = got {
                lock(&log.failures).push(Failure { from, to: now(), got });
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn is_ours(&self) -> bool {
        !matches!(self, Self::Bridge(bridge) if !bridge.process.is_ours())
    }

    /// What is wrong with the answer to the call of this number.
    async fn calls(&mut self, call: &Value, number: usize) -> Option<Got> {
        match self {
            Self::Proxy { socket, session } => {
                judge(unix_http::exchange(socket, &post(call, &fields(session))).await, number)
            }
            Self::Bridge(bridge) => {
                let Bridge { process, stdin, stdout } = &mut **bridge;
                let limit = if process.is_ours() { SILENT } else { FOREIGN_SILENT };
                let answer = match say(stdin, call).await {
                    Ok(()) => answer_to(number, stdout, limit).await,
                    Err(error) => Err(error),
                };
                match answer {
                    Ok(message) => told(&message, number).err(),
                    // A bridge outlives its daemon, so this is never right.
                    Err(error) => Some(Got::Other(error.to_string())),
                }
            }
        }
    }
}

fn hello() -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "long", "version": "1"}}})
}

fn ready() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/initialized"})
}

async fn say(stdin: &mut ChildStdin, message: &Value) -> std::io::Result<()> {
    stdin.write_all(format!("{message}\n").as_bytes()).await?;
    stdin.flush().await
}

/// The answer of a bridge to the request with this id. What the server says by itself is passed over.
async fn answer_to(id: usize, stdout: &mut BufReader<ChildStdout>, limit: Duration) -> std::io::Result<Value> {
    let read = async {
        loop {
            let mut line = String::new();
            if stdout.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let message: Value = serde_json::from_str(&line)?;
            if message["id"] == id {
                return Ok(message);
            }
        }
    };
    tokio::time::timeout(limit, read).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

fn fields(session: &str) -> String {
    format!("mcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n")
}

fn post(message: &Value, fields: &str) -> String {
    let body = message.to_string();
    format!(
        "POST /mcp/demo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\n{fields}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What is wrong with the answer to the call of this number.
fn judge(answer: std::io::Result<Reply>, number: usize) -> Option<Got> {
    let reply = match answer {
        Ok(reply) => reply,
        Err(error) => return Some(Got::Nothing(error.to_string())),
    };
    // An answer is one JSON document, or the last event of a stream.
    let mut events = reply.body.lines().filter_map(|line| line.strip_prefix("data:"));
    let message: Value = match events.rfind(|data| !data.trim().is_empty()) {
        Some(data) => serde_json::from_str(data).unwrap_or_default(),
        None => reply.json(),
    };
    let got = match told(&message, number) {
        Ok(()) => return None,
        Err(got) => got,
    };
    if message.is_null() && reply.status == 200 && reply.body.lines().any(|line| line.starts_with("id:")) {
        return Some(Got::Nothing(reply.body));
    }
    let is_good = reply.status == 200 && matches!(got, Got::Ours);
    Some(if is_good { got } else { Got::Other(format!("{}: {}", reply.status, reply.body)) })
}

/// Is it the result of this call? If not, what is it?
fn told(message: &Value, number: usize) -> Result<(), Got> {
    let is_its = message["id"] == number;
    let sum = (number + 1).to_string();
    if is_its && message["result"]["content"][0]["text"] == *sum {
        return Ok(());
    }
    let error = &message["error"];
    let is_ours = is_its && error["code"] == -31080 && error["data"]["by"] == "safeconduct";
    let has_text = error["message"].as_str().is_some_and(|text| !text.is_empty());
    Err(if is_ours && has_text { Got::Ours } else { Got::Other(message.to_string()) })
}

impl Log {
    async fn reached(&self, calls: usize) {
        while self.done.load(Ordering::SeqCst) < calls {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
