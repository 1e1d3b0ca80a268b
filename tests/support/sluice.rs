//! A port before another port that holds back every new connection while it is shut: a server that is slow exactly as long
//! as the test wants.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub struct Sluice {
    base: String,
    open: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Sluice {
    /// Open, before the server at `base` (`http://127.0.0.1:PORT`).
    pub async fn before(base: &str) -> Self {
        let there = base.strip_prefix("http://").expect("a plain server").to_owned();
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = socket.local_addr().expect("it is bound").port();
        let (open, gate) = watch::channel(true);
        let waiting = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(accept(socket, there, gate, Arc::clone(&waiting)));
        Self { base: format!("http://127.0.0.1:{port}"), open, waiting, task }
    }

    /// The URL of this path through the sluice.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// The connections held back now.
    pub fn held(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Waits until `count` connections are held back; fails after ten seconds.
    pub async fn holds(&self, count: usize) {
        for _ in 0..1_000 {
            if self.held() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} connections came, not {count}", self.held());
    }
}

impl Drop for Sluice {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(socket: TcpListener, there: String, gate: watch::Receiver<bool>, waiting: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = socket.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(pass(stream, there.clone(), gate.clone(), Arc::clone(&waiting)));
    }
}

/// Errors at the end of a connection do not matter.
async fn pass(mut here: TcpStream, there: String, mut gate: watch::Receiver<bool>, waiting: Arc<AtomicUsize>) {
    waiting.fetch_add(1, Ordering::SeqCst);
    let opened = gate.wait_for(|open| *open).await.is_ok();
    waiting.fetch_sub(1, Ordering::SeqCst);
    if opened {
        let _: io::Result<_> = async {
            let mut there = TcpStream::connect(there).await?;
            tokio::io::copy_bidirectional(&mut here, &mut there).await
        }
        .await;
    }
}
