//! `StandIn`: puts a fake in place of hosts that are compiled into the product. The product has no setting for that.
//!
//! The product dials those hosts by their own names, over TLS, through the forward proxy of its configuration. `StandIn` is that
//! proxy: its tunnels end here, with a certificate of a test CA, and their requests are forwarded to the fake.

use std::net::SocketAddr;
use std::path::Path;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::forward_proxy::FakeProxy;
use super::tls::TestCa;

pub struct StandIn {
    proxy: FakeProxy,
    /// The CA of its certificate.
    ca: Option<TestCa>,
    task: Option<JoinHandle<()>>,
}

impl StandIn {
    /// For a fake that speaks plain http at `http://127.0.0.1:PORT`.
    pub async fn before(hosts: &[&str], fake: &str) -> Self {
        let fake = fake.trim_start_matches("http://").parse().expect("an address on loopback");
        let ca = TestCa::new();
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = socket.local_addr().expect("it is bound");
        let task = tokio::spawn(accept(socket, ca.good_for_all(hosts), fake));
        let proxy = proxy(hosts, address).await;
        Self { proxy, ca: Some(ca), task: Some(task) }
    }

    /// For a fake that has TLS itself, with a certificate for these hosts.
    pub async fn passing(hosts: &[&str], fake: SocketAddr) -> Self {
        Self { proxy: proxy(hosts, fake).await, ca: None, task: None }
    }

    /// The keys of `[egress]`, without the CA if the fake has TLS itself. `root` is the root directory of the product's files.
    pub fn egress(&self, root: Option<&Path>) -> String {
        let proxy = format!("proxy = {:?}\n", self.proxy.url());
        match (&self.ca, root) {
            (None, _) => proxy,
            (Some(ca), None) => format!("{proxy}ca_file = {:?}\n", ca.file().display().to_string()),
            (Some(ca), Some(root)) => {
                std::fs::write(root.join("stand-in-ca.pem"), ca.pem()).expect("the root is ours");
                format!("{proxy}ca_file = \"/stand-in-ca.pem\"\n")
            }
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn proxy(hosts: &[&str], address: SocketAddr) -> FakeProxy {
    let proxy = FakeProxy::start().await;
    for host in hosts {
        proxy.route(host, address);
    }
    proxy
}

/// Dropping this future closes every connection with it.
async fn accept(socket: TcpListener, tls: TlsAcceptor, fake: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = socket.accept().await {
        while connections.try_join_next().is_some() {}
        let tls = tls.clone();
        connections.spawn(async move {
            let Ok(mut near) = tls.accept(stream).await else { return };
            let Ok(mut far) = TcpStream::connect(fake).await else { return };
            // Tests often break a connection on purpose, so errors are ignored.
            drop(copy_bidirectional(&mut near, &mut far).await);
        });
    }
}
