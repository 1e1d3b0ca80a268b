//! `FakeProxy`: the forward proxy of a company network. It makes tunnels (RFC 9110 section 9.3.6) to the hosts of the test,
//! under names that nothing else can resolve, and records the requests.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The maximum size of a request head.
const HEAD_CAP: u64 = 16 * 1024;

pub struct FakeProxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    routes: BTreeMap<String, SocketAddr>,
    /// The required `Proxy-Authorization`.
    authorization: Option<String>,
    mood: Mood,
    asked: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Willing,
    /// Answers every request with this status.
    Refusing(u16),
    /// Accepts the request and does not answer.
    Silent,
    /// Confirms the tunnel, but forwards nothing.
    Dead,
}

impl FakeProxy {
    pub async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = socket.local_addr().expect("it is bound");
        let state = Arc::<Mutex<State>>::default();
        let task = tokio::spawn(accept(socket, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// `127.0.0.1:PORT`
    pub fn place(&self) -> String {
        self.address.to_string()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes tunnels for this host's port 443 to this address.
    pub fn route(&self, host: &str, address: SocketAddr) {
        self.now().routes.insert(format!("{host}:443"), address);
    }

    /// Requires this user and password.
    pub fn demand(&self, user: &str, password: &str) {
        let pair = STANDARD.encode(format!("{user}:{password}"));
        self.now().authorization = Some(format!("Basic {pair}"));
    }

    pub fn be(&self, mood: Mood) {
        self.now().mood = mood;
    }

    /// The requested tunnels so far, each once, with refused ones.
    pub fn asked(&self) -> Vec<String> {
        let mut asked = self.now().asked.clone();
        asked.sort();
        asked.dedup();
        asked
    }

    fn now(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for FakeProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The outcome of a request.
enum Verdict {
    Tunnel(SocketAddr),
    Status(u16),
    Silence,
    Dead,
}

impl State {
    fn judge(&mut self, request: &str, authorization: Option<&str>) -> Verdict {
        let mut words = request.split_ascii_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        self.asked.push(target.to_owned());
        if method != "CONNECT" {
            return Verdict::Status(405);
        }
        if self.authorization.is_some() && self.authorization.as_deref() != authorization {
            return Verdict::Status(407);
        }
        match (self.mood, self.routes.get(target)) {
            (Mood::Refusing(status), _) => Verdict::Status(status),
            (Mood::Silent, _) => Verdict::Silence,
            (Mood::Dead, _) => Verdict::Dead,
            (Mood::Willing, Some(address)) => Verdict::Tunnel(*address),
            (Mood::Willing, None) => Verdict::Status(502),
        }
    }
}

/// Dropping this future closes every tunnel with it.
async fn accept(socket: TcpListener, state: Arc<Mutex<State>>) {
    let mut tunnels = JoinSet::new();
    while let Ok((stream, _)) = socket.accept().await {
        while tunnels.try_join_next().is_some() {}
        let state = Arc::clone(&state);
        // Errors at the end of a tunnel do not matter.
        tunnels.spawn(async move { drop(serve(stream, &state).await) });
    }
}

async fn serve(stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut here = BufReader::new(stream);
    let (mut head, mut capped) = (Vec::new(), (&mut here).take(HEAD_CAP));
    loop {
        let mut line = String::new();
        if capped.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let authorization = head.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim())
    });
    let verdict = lock(state).judge(head.first().map_or("", String::as_str), authorization);
    match verdict {
        Verdict::Tunnel(address) => {
            let mut there = TcpStream::connect(address).await?;
            here.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            tokio::io::copy_bidirectional(&mut here, &mut there).await.map(drop)
        }
        Verdict::Status(status) => {
            let answer = format!(
                "HTTP/1.1 {status} No\r\nproxy-authenticate: Basic realm=\"proxy\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            here.write_all(answer.as_bytes()).await
        }
        Verdict::Dead => {
            here.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            std::future::pending().await
        }
        Verdict::Silence => std::future::pending().await,
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("never held over a panic")
}
