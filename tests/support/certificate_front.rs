//! A front before a plain server that asks every client for a certificate, as a reverse proxy before an authorization server
//! does: what comes over such a connection came from a client that has the certificate's key.

use std::io;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub struct CertificateFront {
    authority: String,
    task: JoinHandle<()>,
}

impl CertificateFront {
    /// Before the server at `base` (`http://127.0.0.1:PORT`).
    pub async fn before(base: &str, acceptor: TlsAcceptor) -> Self {
        let there = base.strip_prefix("http://").expect("a plain server").to_owned();
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = socket.local_addr().expect("it is bound").port();
        let task = tokio::spawn(accept(socket, there, acceptor));
        Self { authority: format!("localhost:{port}"), task }
    }

    /// What clients call it.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl Drop for CertificateFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(socket: TcpListener, there: String, acceptor: TlsAcceptor) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = socket.accept().await {
        while connections.try_join_next().is_some() {}
        let (there, acceptor) = (there.clone(), acceptor.clone());
        // How a connection ends is the business of its two ends.
        connections.spawn(async move { pass(stream, &there, &acceptor).await.unwrap_or_default() });
    }
}

async fn pass(stream: TcpStream, there: &str, acceptor: &TlsAcceptor) -> io::Result<()> {
    let mut here = acceptor.accept(stream).await?;
    let mut there = TcpStream::connect(there).await?;
    tokio::io::copy_bidirectional(&mut here, &mut there).await.map(|_| ())
}
