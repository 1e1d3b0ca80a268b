//! A server on loopback whose every byte the test reads and writes itself.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::leak;

const LIMIT: Duration = Duration::from_secs(30);

/// The listener.
pub struct RawServer {
    listener: TcpListener,
    base: String,
}

/// One connection to it.
pub struct RawConnection {
    stream: TcpStream,
    read: Vec<u8>,
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct RawHead {
    pub line: String,
    /// Names as they came, in their order.
    pub fields: Vec<(String, String)>,
}

impl RawServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        Self { listener, base }
    }

    /// Closes the port, and gives its address.
    pub fn stop(self) -> String {
        self.base
    }

    /// The same at the address of one that was stopped.
    pub async fn start_again(base: String) -> Self {
        let address = base.trim_start_matches("http://");
        Self { listener: TcpListener::bind(address).await.expect("nobody else took it"), base }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// The next connection.
    pub async fn accept(&self) -> RawConnection {
        let accepted = tokio::time::timeout(LIMIT, self.listener.accept()).await.expect("nobody connects");
        RawConnection { stream: accepted.expect("accepted").0, read: Vec::new() }
    }

    /// The next connection, however long it takes.
    pub async fn accept_whenever(&self) -> RawConnection {
        RawConnection { stream: self.listener.accept().await.expect("accepted").0, read: Vec::new() }
    }

    /// Does nobody connect for so long?
    pub async fn is_left_alone(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.listener.accept()).await.is_err()
    }
}

impl RawConnection {
    /// Reads the head of the next request.
    pub async fn head(&mut self) -> RawHead {
        let text = self.until(b"\r\n\r\n").await;
        let text = String::from_utf8(text).expect("UTF-8");
        let mut lines = text.trim_end().split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} is no field"));
            if let Some(token) = value.strip_prefix("Bearer ") {
                leak::minted(token);
            }
            (name.to_owned(), value.to_owned())
        };
        RawHead { line, fields: lines.map(field).collect() }
    }

    /// The same, or `None` if the connection is closed before.
    pub async fn next_head(&mut self) -> Option<RawHead> {
        let mut piece = vec![0; 1_024];
        if self.read.is_empty() {
            let read = self.stream.read(&mut piece).await.unwrap_or(0);
            self.read.extend_from_slice(&piece[..read]);
        }
        if self.read.is_empty() { None } else { Some(self.head().await) }
    }

    /// Reads so many bytes.
    pub async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await > 0, "it ended early");
        }
        self.read.drain(..count).collect()
    }

    /// Reads until these bytes, which are included.
    pub async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                return self.read.drain(..at + end.len()).collect();
            }
            assert!(self.more().await > 0, "it ended before {:?}", String::from_utf8_lossy(end));
        }
    }

    /// Reads so many bytes and throws them away.
    pub async fn skip(&mut self, mut count: usize) {
        while count > 0 {
            if self.read.is_empty() {
                assert!(self.more().await > 0, "it ended {count} bytes early");
            }
            let taken = count.min(self.read.len());
            self.read.drain(..taken);
            count -= taken;
        }
    }

    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("it reads");
    }

    /// Has the other side closed it, or does it within this time?
    pub async fn is_closed(&mut self, time: Duration) -> bool {
        let closed = async { while self.more().await > 0 {} };
        tokio::time::timeout(time, closed).await.is_ok()
    }

    async fn more(&mut self) -> usize {
        let mut piece = vec![0; 64 * 1024];
        let read = tokio::time::timeout(LIMIT, self.stream.read(&mut piece)).await.expect("it is silent");
        // What it did not read makes the end of the connection a reset.
        let read = read.unwrap_or(0);
        self.read.extend_from_slice(&piece[..read]);
        read
    }
}

impl RawHead {
    /// The values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }
}
