//! Accepts connections, and survives what passes: a machine without descriptors or memory for a while.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The pauses between failed attempts to accept.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Accepts until `stop`: `accept` waits for the next connection, and `begin` starts to serve it, if it finds a place for it.
/// Fails if the listener can never accept.
pub async fn accept_all<S, A: Future<Output = io::Result<S>>>(
    stop: &CancellationToken,
    // Not an async closure: its future would not be `Send`, which an agent that embeds the daemon needs.
    accept: impl Fn() -> A,
    begin: impl Fn(S),
) -> io::Result<()> {
    let mut pause = None;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                if pause.take().is_some() {
                    tracing::info!("accepting again");
                }
                begin(stream);
                // Yield so that the new connection is served before the next accept(2).
                tokio::task::yield_now().await;
            }
            Err(error) if is_final(&error) => return Err(error),
            // Usually out of descriptors or memory, which connections free when they end. One line for the whole time.
            Err(error) => {
                if pause.is_none() {
                    tracing::warn!(%error, "cannot accept");
                }
                let (first, longest) = PAUSES;
                let now = pause.map_or(first, |pause: Duration| longest.min(2 * pause));
                pause = Some(now);
                tokio::time::sleep(now).await;
            }
        }
    }
}

/// Is this an error of the listener itself, and not of one connection or of the moment?
fn is_final(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let ends = [Errno::EBADF, Errno::EINVAL, Errno::ENOTSOCK, Errno::EOPNOTSUPP].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|number| ends.contains(&number))
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio::time::timeout;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A listener that fails in this way each time until it is stopped, and how often it was tried within a minute.
    async fn failing(error: nix::errno::Errno) -> (io::Result<()>, u32) {
        let (stop, tried) = (CancellationToken::new(), std::cell::Cell::new(0));
        let accept = || {
            tried.set(tried.get() + 1);
            std::future::ready(Err::<DuplexStream, _>(io::Error::from(error)))
        };
        let accepting = accept_all(&stop, accept, drop);
        let outcome = timeout(MINUTE, accepting).await.unwrap_or(Ok(()));
        (outcome, tried.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_can_never_accept_is_an_error_and_one_without_descriptors_is_tried_once_a_second() {
        let (outcome, tried) = failing(nix::errno::Errno::EINVAL).await;
        assert!(outcome.is_err() && tried == 1, "{outcome:?} {tried}");
        let (outcome, tried) = failing(nix::errno::Errno::EMFILE).await;
        assert!(outcome.is_ok() && (60..70).contains(&tried), "{outcome:?} {tried}");
    }
}
