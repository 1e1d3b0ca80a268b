//! Connects to the far side: MCP servers, authorization servers and the documents of both.
//!
//! The steps, which share one time limit: resolve the name and drop the addresses that the egress rules forbid, dial
//! (`dial.rs`), and for https do the TLS handshake. Where a forward proxy is in the way, it is dialled instead of the host, asked
//! for a tunnel (`tunnel.rs`), and the handshake goes through that. Each step fails in its own way ([`Failure`]), so nobody
//! has to read the words of an error to know what happened.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::failure::Failure;
use super::rules::Rules;
use super::{CONNECT_LIMIT, Proxy, dial, tunnel};

/// A stream of bytes in both directions: TCP, or TLS over another one.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What gives the client its connections: the network, or the pipes of a test.
pub(super) trait Connect {
    fn connect(&self, url: &Url) -> impl Future<Output = Result<Box<dyn Stream>, Failure>> + Send;
}

/// Connects under one set of egress rules, with one TLS configuration.
pub(super) struct Connector {
    rules: Rules,
    tls: Arc<ClientConfig>,
    through: Option<Through>,
}

/// The forward proxy on the way.
pub(super) struct Through {
    pub(super) proxy: Proxy,
    /// For a proxy that speaks TLS. It has no client certificate: ours is for the host behind the proxy.
    pub(super) tls: Arc<ClientConfig>,
}

impl Connector {
    pub(super) fn new(rules: Rules, tls: Arc<ClientConfig>, through: Option<Through>) -> Self {
        Self { rules, tls, through }
    }

    async fn open(&self, url: &Url) -> Result<Box<dyn Stream>, Failure> {
        let (name, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        let host = name.trim_matches(['[', ']']);
        let stream = match &self.through {
            Some(through) => through.tunnel(&self.rules, name, port).await?,
            None => self.rules.dial(host, port).await?,
        };
        if url.scheme() == "https" { handshake(&self.tls, host, stream).await } else { Ok(stream) }
    }
}

impl Connect for Connector {
    async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, Failure> {
        tokio::time::timeout(CONNECT_LIMIT, self.open(url)).await.unwrap_or(Err(Failure::Timeout))
    }
}

impl Rules {
    async fn dial(&self, host: &str, port: u16) -> Result<Box<dyn Stream>, Failure> {
        let addresses = self.resolve(host, port).await?;
        let stream = dial::first(&addresses, TcpStream::connect).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::NobodyListens(port),
            _ => Failure::Connect(error),
        })?;
        // Requests are small and written at once: waiting for more to send would only delay them.
        stream.set_nodelay(true).map_err(Failure::Connect)?;
        Ok(Box::new(stream))
    }
}

impl Through {
    async fn tunnel(&self, rules: &Rules, host: &str, port: u16) -> Result<Box<dyn Stream>, Failure> {
        let dialled = self.dial(rules).await;
        let mut stream = dialled.map_err(|failure| Failure::ToProxy(Box::new(failure)))?;
        let target = format!("{host}:{port}");
        let opened = tunnel::open(&mut stream, &target, self.proxy.authorization()).await;
        opened.map(|()| stream).map_err(Failure::Tunnel)
    }

    async fn dial(&self, rules: &Rules) -> Result<Box<dyn Stream>, Failure> {
        let stream = rules.dial(self.proxy.host(), self.proxy.port()).await?;
        if self.proxy.speaks_tls() { handshake(&self.tls, self.proxy.host(), stream).await } else { Ok(stream) }
    }
}

async fn handshake(tls: &Arc<ClientConfig>, host: &str, stream: Box<dyn Stream>) -> Result<Box<dyn Stream>, Failure> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Failure::Name)?;
    match TlsConnector::from(Arc::clone(tls)).connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(Failure::of_handshake(error)),
    }
}
