//! Our own parties: an identity provider, and an MCP server that only sends challenges.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, Header};
use serde_json::json;

use crate::keys::{KID, Key};

pub(crate) const IDP: &str = "https://idp.example.com";
pub(crate) const SUBJECT: &str = "workload-1";

/// The issuer of the workloads' assertions.
pub(crate) struct Idp {
    pub(crate) key: Key,
    signed: AtomicU64,
}

impl Idp {
    pub(crate) fn new() -> Self {
        Self { key: Key::new(), signed: AtomicU64::new(0) }
    }

    pub(crate) fn assertion(&self, audience: &str, expires_in: i64) -> String {
        let exp = now() + expires_in;
        // An expired assertion was issued before it expired.
        let iat = now().min(exp - 60);
        // Unique within this identity provider, which is enough for its servers.
        let jti = self.signed.fetch_add(1, Ordering::Relaxed).to_string();
        let claims = json!({ "iss": IDP, "sub": SUBJECT, "aud": audience, "iat": iat, "exp": exp, "jti": jti });
        let header = Header { kid: Some(KID.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.key.signing()).expect("a claim set can be signed")
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_secs()).expect("seconds fit")
}

/// The part of an MCP server that safeconduct uses: a challenge, and metadata that names the authorization server.
pub(crate) struct McpServer {
    listener: TcpListener,
    pub(crate) url: String,
}

impl McpServer {
    pub(crate) fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let url = format!("http://{}/mcp", listener.local_addr().expect("a bound socket has an address"));
        Self { listener, url }
    }

    /// Answers until the test program ends.
    pub(crate) fn guarded_by(self, issuer: &str) -> String {
        let origin = self.url.trim_end_matches("/mcp").to_owned();
        let metadata = json!({ "resource": self.url, "authorization_servers": [issuer] }).to_string();
        let listener = self.listener;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that disconnects does not affect the next one.
                let _ = answer(stream, &origin, &metadata);
            }
        });
        self.url
    }
}

const METADATA_PATH: &str = "/.well-known/oauth-protected-resource/mcp";

fn answer(stream: TcpStream, origin: &str, metadata: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let is_metadata = line.split(' ').nth(1) == Some(METADATA_PATH);
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    // An unread body would reset the connection before the answer arrives.
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
    let (head, body) = if is_metadata {
        ("HTTP/1.1 200 OK\r\nContent-Type: application/json".to_owned(), metadata)
    } else {
        let challenge = format!("Bearer resource_metadata=\"{origin}{METADATA_PATH}\"");
        (format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}"), "")
    };
    write!(reader.get_mut(), "{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
