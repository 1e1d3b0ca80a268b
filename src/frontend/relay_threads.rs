//! The threads of the data path. A connection whose first request is for `/mcp/` is served on one of them, with its upstream
//! connections, so that streams at full speed do not make those wait who ask for a token. Flights and renewals stay on the first
//! thread of the program, and so does everything that is asked on other connections. Whatever else comes on a connection of the
//! proxy is answered where that is served.

use std::io;
use std::num::NonZero;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::mcp;

/// Enough for TLS and for a dependency's name lookup.
const STACK: usize = 512 * 1024;
/// It starts in less than a millisecond.
const START: Duration = Duration::from_secs(2);
/// The longest method that leads to the proxy has six letters. What is longer is served where it is.
const METHOD: usize = 16;

/// The most threads. A daemon is a small neighbour of the programs that it serves.
const MOST: usize = 4;

/// The threads, one for each processor at most. Each starts with its first connection.
pub(crate) struct RelayThreads {
    threads: Box<[Thread]>,
    end: CancellationToken,
}

#[derive(Default)]
struct Thread {
    runtime: OnceLock<Option<Handle>>,
    /// One for each connection, and one more.
    connections: Arc<()>,
}

/// A place for one connection, until this is dropped.
pub(super) struct Place(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Default for RelayThreads {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = (0..processors.min(MOST)).map(|_| Thread::default()).collect();
        Self { threads, end: CancellationToken::new() }
    }
}

impl RelayThreads {
    /// Where a connection is served that begins so: on the thread with the fewest. `None`: where it is.
    pub(super) fn for_connection(&self, first: &[u8]) -> Option<(Handle, Place)> {
        if proxy_is_asked(first) != Some(true) {
            return None;
        }
        let thread = self.threads.iter().min_by_key(|thread| Arc::strong_count(&thread.connections))?;
        let start = || {
            start(self.end.clone()).inspect_err(|error| {
                tracing::warn!(%error, "the data path lacks a thread: it shares that of the API");
            })
        };
        let runtime = thread.runtime.get_or_init(|| start().ok()).clone()?;
        Some((runtime, Place(Arc::clone(&thread.connections))))
    }
}

impl Drop for RelayThreads {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

fn start(end: CancellationToken) -> io::Result<Handle> {
    let (tell, told) = sync_channel(1);
    std::thread::Builder::new().name("relay".to_owned()).stack_size(STACK).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            // Nobody waits any more if it cannot be told.
            Err(error) => return drop(tell.send(Err(error))),
        };
        drop(tell.send(Ok(runtime.handle().clone())));
        runtime.block_on(end.cancelled());
        runtime.shutdown_background();
    })?;
    told.recv_timeout(START).map_err(io::Error::other)?
}

/// Can it be told from this beginning whether the first request is for the proxy?
pub(super) fn is_decided(first: &[u8]) -> bool {
    proxy_is_asked(first).is_some()
}

/// Is the first request of a connection for the proxy? `None` if that cannot be told yet.
fn proxy_is_asked(first: &[u8]) -> Option<bool> {
    let Some(blank) = first.iter().position(|byte| *byte == b' ') else {
        return (first.len() > METHOD).then_some(false);
    };
    let path = &first[blank + 1..];
    let length = path.len().min(mcp::PATH.len());
    let may_be = path[..length] == mcp::PATH.as_bytes()[..length];
    (!may_be || length == mcp::PATH.len()).then_some(may_be)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_say_whether_the_proxy_is_asked() {
        for (first, is) in [
            ("POST /mcp/demo HTTP/1.1\r\n", Some(true)),
            ("GET /mcp/", Some(true)),
            ("DELETE /mcp", None),
            ("POST ", None),
            ("POS", None),
            ("", None),
            ("GET /v1/token", Some(false)),
            ("GET /mcpx", Some(false)),
            ("GET http://localhost/mcp/demo", Some(false)),
            ("AVERYLONGMETHODINDEED", Some(false)),
            ("\r\nPOST /mcp/", Some(true)),
        ] {
            assert_eq!(proxy_is_asked(first.as_bytes()), is, "{first:?}");
        }
    }

    #[test]
    fn each_thread_starts_with_its_first_connection_and_all_end_with_their_owner() {
        let two =
            RelayThreads { threads: Box::new([Thread::default(), Thread::default()]), end: CancellationToken::new() };
        let running = || two.threads.iter().filter(|thread| thread.runtime.get().is_some()).count();
        assert!(two.for_connection(b"GET /v1/token").is_none() && running() == 0);
        let begin = || two.for_connection(b"POST /mcp/demo").expect("it starts");
        drop((begin(), running()));
        let first = begin();
        assert_eq!(running(), 1, "the first one is free");
        let second = begin();
        assert_eq!(running(), 2);
        assert_ne!(first.0.id(), second.0.id());
        drop(second);
        assert_ne!(first.0.id(), begin().0.id());
        let (tell, told) = sync_channel(1);
        first.0.spawn(async move { drop(tell.send(std::thread::current().name().map(str::to_owned))) });
        assert_eq!(told.recv_timeout(START).expect("it runs").as_deref(), Some("relay"));
        let (tell, told) = sync_channel::<()>(1);
        first.0.spawn(async move {
            std::future::pending::<()>().await;
            drop(tell);
        });
        drop(two);
        assert!(
            told.recv_timeout(5 * START).is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
