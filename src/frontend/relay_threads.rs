//! The thread of the data path. A connection whose first request is for `/mcp/` is served there, with its upstream connections, so
//! that streams at full speed do not make those wait who ask for a token. Flights and renewals stay on the first thread, and so
//! does everything that is asked on other connections. Whatever else comes on a connection of the proxy is answered there.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::sync_channel;
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

/// The thread, which starts with the first connection of the proxy.
#[derive(Default)]
pub(crate) struct RelayThread {
    runtime: OnceLock<Option<Handle>>,
    end: CancellationToken,
}

impl RelayThread {
    /// Where a connection is served that begins so; `None`: where it is.
    pub(super) fn for_connection(&self, first: &[u8]) -> Option<&Handle> {
        if proxy_is_asked(first) != Some(true) {
            return None;
        }
        let start = || {
            start(self.end.clone()).inspect_err(|error| {
                tracing::warn!(%error, "the data path has no thread of its own: it shares that of the API");
            })
        };
        self.runtime.get_or_init(|| start().ok()).as_ref()
    }
}

impl Drop for RelayThread {
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
    fn the_thread_starts_with_the_first_connection_of_the_proxy_and_ends_with_its_owner() {
        let thread = RelayThread::default();
        assert!(thread.for_connection(b"GET /v1/token").is_none() && thread.runtime.get().is_none());
        let handle = thread.for_connection(b"POST /mcp/demo").expect("it starts").clone();
        let (tell, told) = sync_channel(1);
        handle.spawn(async move { drop(tell.send(std::thread::current().name().map(str::to_owned))) });
        assert_eq!(told.recv_timeout(START).expect("it runs").as_deref(), Some("relay"));
        let (tell, told) = sync_channel::<()>(1);
        handle.spawn(async move {
            std::future::pending::<()>().await;
            drop(tell);
        });
        drop(thread);
        assert!(
            told.recv_timeout(5 * START).is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
