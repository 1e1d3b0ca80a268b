//! One event stream of the server: each event becomes a line.

use std::time::Duration;

use hyper::header::HeaderValue;
use tokio::time::{sleep, timeout};

use super::Bridge;
use super::link::Body;
use super::message::{Delivered, Route};
use super::told::Why;
use crate::mcp::sse::{Data, Reader};

/// So long the end of a stream is waited for after its answer, to use the connection again.
const END: Duration = Duration::from_secs(5);
/// The longest pause that a server can ask for.
const LONGEST_RETRY: Duration = Duration::from_secs(3_600);
/// Between two attempts that fail: the first pause, and the longest. Where a client waits for its answer the first is [`LEAST`].
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The least pause, whatever the server asks for.
const LEAST: Duration = Duration::from_millis(100);

/// What is known of a stream after its end, to go on from there.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// From where it can be resumed.
    pub(super) last_id: Option<HeaderValue>,
    /// How long the server wants us to wait.
    retry: Option<Duration>,
    /// The request whose stream it is has its answer.
    pub(super) is_answered: bool,
    /// Attempts in a row that brought nothing.
    pub(super) failures: u32,
    /// A client waits for what follows.
    is_urgent: bool,
    /// What follows the answer is not read here.
    ends_with_answer: bool,
}

impl Progress {
    /// Of the stream with the answer to a request.
    pub(super) fn of_request() -> Self {
        Self { is_urgent: true, ..Self::default() }
    }

    /// Of a request that is made here: its answer is looked at before anything else is done.
    pub(super) fn until_answer() -> Self {
        Self { ends_with_answer: true, ..Self::default() }
    }

    /// How long to wait before the next attempt: what the server asks for, and more after each failure.
    pub(super) fn pause(&self) -> Duration {
        let (first, longest) = PAUSES;
        let first = if self.is_urgent { LEAST } else { first };
        let asked = self.retry.map_or(first, |retry| retry.clamp(LEAST, LONGEST_RETRY));
        match self.failures {
            0 => asked,
            failures => asked.max(longest.min(first.saturating_mul(1 << (failures - 1).min(10)))),
        }
    }

    pub(super) async fn wait(&self) {
        sleep(self.pause()).await;
    }
}

/// Reads the rest of a body after its answer, so that the connection can be used again.
pub(super) async fn drain(mut body: Body) {
    let end = async { while let Ok(Some(_)) = body.piece().await {} };
    drop(timeout(END, end).await);
}

impl Bridge {
    /// Passes the messages of a stream on until it ends. `Err` if it must not be tried again.
    pub(super) async fn events(&self, body: &mut Body, route: Route<'_>, progress: &mut Progress) -> Result<(), Why> {
        let mut reader = Reader::new(self.cap);
        let mut part = self.room.part();
        let mut has_ids = false;
        loop {
            let piece = match progress.is_answered {
                true => timeout(END, body.piece()).await.unwrap_or(Ok(None)),
                false => body.piece().await,
            };
            // An end before the answer is no better than a break.
            let Ok(Some(piece)) = piece else { return Ok(()) };
            if !part.grow(piece.len()) {
                return Err(Why::AnswerTooLong);
            }
            let mut rest = &piece[..];
            let mut ended = None;
            while let Some(event) = reader.read(&mut rest) {
                progress.failures = 0;
                match event.data {
                    Data::TooLong => return Err(Why::AnswerTooLong),
                    Data::Kept(_) if event.name == b"endpoint" => return Err(Why::OldTransport),
                    Data::Kept(data) if event.is_message() => {
                        let delivered = self.deliver(data, route).await;
                        progress.is_answered |= delivered == Delivered::Answer;
                        if progress.is_answered && progress.ends_with_answer {
                            return Ok(());
                        }
                        if delivered == Delivered::Nothing && !data.is_empty() {
                            tracing::warn!("an event of the server holds no message");
                        }
                    }
                    Data::Kept(_) | Data::None => {}
                }
                ended = Some(rest.len());
            }
            if let Some(rest) = ended {
                part.shrink_to(rest);
            }
            // A stream without ids of its own goes on where the one before it ended. One that takes its id back cannot be resumed.
            has_ids |= reader.last_id().is_some();
            if has_ids {
                progress.last_id = reader.last_id().and_then(|id| HeaderValue::from_bytes(id).ok());
            }
            progress.retry = reader.retry().or(progress.retry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_30_retry_is_obeyed_and_the_back_off_saturates() {
        let after = |retry, failures| Progress { retry, failures, ..Progress::default() }.pause();
        let second = Duration::from_secs(1);
        assert_eq!(after(None, 0), second);
        assert_eq!(after(Some(7 * second), 0), 7 * second);
        assert_eq!(after(Some(7 * second), 1), 7 * second, "never sooner than the server asks for");
        assert_eq!(after(Some(Duration::ZERO), 0), LEAST, "no spinning");
        assert_eq!(after(Some(Duration::from_millis(u64::MAX)), u32::MAX), LONGEST_RETRY);
        let pauses: Vec<u64> = (1..9).map(|failures| after(None, failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(after(None, u32::MAX), 30 * second);
        let urgent = |failures| Progress { failures, ..Progress::of_request() }.pause().as_millis();
        assert_eq!([0, 1, 2, 3, 4].map(urgent), [100, 100, 200, 400, 800], "the client waits for at most two seconds");
    }
}
