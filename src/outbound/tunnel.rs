//! A way through the forward proxy: CONNECT (RFC 9110 section 9.3.6).

use std::io;

use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::{FIELDS, HEAD_CAP, USER_AGENT};
use crate::token::expose;

/// Why the proxy makes no tunnel.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// It wants a user and password, or others than it got.
    #[error("proxy authorization required")]
    Authorization,
    /// It answers with another status than 2xx.
    #[error("it refuses with status {0}")]
    Status(u16),
    /// It does not speak HTTP, or its head is too long.
    #[error("its answer is not HTTP")]
    NotHttp,
    /// Behind its head there is a page where the tunnel should begin.
    #[error("it answers with a page and not with a tunnel")]
    Page,
    /// It closes the connection, or the connection breaks.
    #[error("{0}")]
    Broken(#[from] io::Error),
}

/// Asks for a tunnel to `target` (`HOST:PORT`). Afterwards the connection is one to that host.
pub(super) async fn open(
    proxy: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &str,
    authorization: Option<&SecretString>,
) -> Result<(), Refusal> {
    proxy.write_all(request(target, authorization).as_bytes()).await?;
    proxy.flush().await?;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let read = proxy.read(&mut chunk).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        head.extend_from_slice(&chunk[..read]);
        if let Some((status, end)) = parse(&head)? {
            return match status {
                // TLS begins with the client's words, so whatever comes before them is not the host's.
                200..=299 if end == head.len() => Ok(()),
                200..=299 => Err(Refusal::Page),
                407 => Err(Refusal::Authorization),
                _ => Err(Refusal::Status(status)),
            };
        }
        if head.len() >= HEAD_CAP {
            return Err(Refusal::NotHttp);
        }
    }
}

fn request(target: &str, authorization: Option<&SecretString>) -> Zeroizing<String> {
    let mut text = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\nuser-agent: {USER_AGENT}\r\n");
    let credentials = authorization.map(|value| Zeroizing::new(format!("proxy-authorization: {}\r\n", expose(value))));
    let credentials = credentials.as_ref().map_or("", |line| line.as_str());
    // At its final size from the start: a text that grows leaves copies of itself behind.
    text.reserve_exact(credentials.len() + 2);
    text.push_str(credentials);
    text.push_str("\r\n");
    Zeroizing::new(text)
}

/// Status and length of a complete head.
fn parse(head: &[u8]) -> Result<Option<(u16, usize)>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(end)) => Ok(response.code.map(|status| (status, end))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(Refusal::NotHttp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &str) -> Result<(), Refusal> {
        let (mut near, mut far) = tokio::io::duplex(256 * 1024);
        far.write_all(answer.as_bytes()).await.expect("there is room");
        far.shutdown().await.expect("it is open");
        open(&mut near, "login.example:443", None).await
    }

    #[tokio::test]
    async fn it_is_asked_for_the_host_with_the_credentials_and_nothing_is_read_beyond_the_head() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        let proxy = async {
            let mut seen = [0; 1024];
            let read = far.read(&mut seen).await.expect("a request");
            far.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.expect("it is open");
            (String::from_utf8_lossy(&seen[..read]).into_owned(), far)
        };
        let credentials = SecretString::from("Basic YTpi".to_owned());
        let (opened, (seen, mut far)) = tokio::join!(open(&mut near, "login.example:443", Some(&credentials)), proxy);
        opened.expect("a tunnel");
        assert!(seen.starts_with("CONNECT login.example:443 HTTP/1.1\r\nhost: login.example:443\r\n"), "{seen}");
        assert!(seen.ends_with("\r\nproxy-authorization: Basic YTpi\r\n\r\n"), "{seen}");
        far.write_all(b"first").await.expect("it is open");
        let mut first = [0; 5];
        near.read_exact(&mut first).await.expect("the host's first bytes");
        assert_eq!(&first, b"first");
    }

    #[tokio::test]
    async fn every_other_answer_is_told_by_what_it_is() {
        let html = "<html><body>Access denied</body></html>";
        let page = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-type: text/html\r\n\r\n{html}");
        assert!(matches!(answered(&page("407 Proxy Authentication Required")).await, Err(Refusal::Authorization)));
        assert!(matches!(answered(&page("502 Bad Gateway")).await, Err(Refusal::Status(502))));
        assert!(matches!(answered(&page("302 Found")).await, Err(Refusal::Status(302))));
        assert!(matches!(answered(&page("200 OK")).await, Err(Refusal::Page)));
        assert!(matches!(answered(html).await, Err(Refusal::NotHttp)));
        assert!(matches!(answered("").await, Err(Refusal::Broken(_))));
        assert!(matches!(answered("HTTP/1.1 200 Conn").await, Err(Refusal::Broken(_))));
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(2 * HEAD_CAP));
        assert!(matches!(answered(&endless).await, Err(Refusal::NotHttp)));
        let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(FIELDS + 1));
        assert!(matches!(answered(&fields).await, Err(Refusal::NotHttp)));
    }
}
