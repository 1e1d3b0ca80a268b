//! A minimal HTTP client over TCP, and the loopback listener of a daemon, found as a client finds it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::leak;
use super::safeconduct::Daemon;
use super::unix_http::{self, Reply};

const LIMIT: Duration = Duration::from_secs(60);

/// The loopback address of a daemon, and the secret in its file.
pub struct Loopback {
    pub address: SocketAddr,
    pub secret: String,
}

impl Loopback {
    /// Asks the daemon for its address and reads the secret from its file, as a client does.
    pub async fn of(daemon: &Daemon) -> Self {
        let listen = listening(daemon).await;
        let address = listen["http"][0].as_str().and_then(|text| text.parse().ok()).expect("it listens on TCP");
        let path = listen["http_secret"].as_str().expect("a secret is there");
        let secret = std::fs::read_to_string(path).expect("it is ours to read");
        // From now on no log and no answer may contain it.
        leak::minted(&secret);
        Self { address, secret }
    }

    /// `GET path` with the secret.
    pub async fn get(&self, path: &str) -> Reply {
        self.get_with(path, &format!("authorization: Bearer {}\r\n", self.secret)).await
    }

    /// `GET path` with these header lines.
    pub async fn get_with(&self, path: &str, lines: &str) -> Reply {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n{lines}connection: close\r\n\r\n", self.address);
        self.exchange(&request).await
    }

    /// Sends a complete request, which must contain `connection: close`.
    pub async fn exchange(&self, request: &str) -> Reply {
        exchange(self.address, request).await.expect("an answer")
    }
}

/// The listeners in `/v1/status`.
pub async fn listening(daemon: &Daemon) -> Value {
    daemon.get("/v1/status").await.json()["listen"].clone()
}

/// `GET path` with only a host.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<Reply> {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")).await
}

/// Sends `request` as it is and reads until the other side closes; a minute at most.
pub async fn exchange(address: SocketAddr, request: &str) -> io::Result<Reply> {
    let answer = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = tokio::time::timeout(LIMIT, answer).await??;
    unix_http::parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "that was no HTTP answer"))
}
