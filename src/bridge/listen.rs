//! The stream for what the server sends by itself (until 2025-11-25): opened after `notifications/initialized`, and again
//! whenever it ends.

use std::sync::Arc;

use hyper::StatusCode;

use super::Bridge;
use super::events::Progress;
use super::fields::{Media, media};
use super::message::Route;
use super::passing::is_passing;
use super::told::Why;

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Read,
    TryAgain,
    GiveUp,
}

/// What an answer leads to. 405: the server has no such stream. 409: another one is open, maybe one of ours that broke and
/// that the server still takes for alive.
fn next(status: StatusCode, media: Media) -> Next {
    match status {
        StatusCode::OK if media == Media::Events => Next::Read,
        StatusCode::CONFLICT => Next::TryAgain,
        status if is_passing(status) => Next::TryAgain,
        _ => Next::GiveUp,
    }
}

impl Bridge {
    /// Listens until the server has nothing to say.
    pub(super) async fn listen(self: Arc<Self>) {
        let mut progress = Progress::default();
        loop {
            let opened = self.open_stream(progress.last_id.clone()).await;
            self.session.listens();
            match opened {
                Ok(mut answer) => {
                    let status = answer.head.status;
                    progress.failures = progress.failures.saturating_add(1);
                    match next(status, media(&answer.head.headers)) {
                        Next::Read => {
                            if let Err(why) = self.events(&mut answer.body, Route::Session, &mut progress).await {
                                tracing::warn!(?why, "what the server sends by itself cannot be read");
                                return;
                            }
                        }
                        Next::TryAgain => debug!(status = status.as_u16(), "no stream of the server for now"),
                        Next::GiveUp => {
                            debug!(status = status.as_u16(), "the server has no stream of its own");
                            return;
                        }
                    }
                }
                Err(Why::DaemonAway | Why::DaemonNotUsable | Why::AnswerLost) => {
                    progress.failures = progress.failures.saturating_add(1);
                }
                Err(_) => return,
            }
            progress.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_24_and_31_a_permanent_error_ends_it_and_another_stream_does_not() {
        let of = |status| next(StatusCode::from_u16(status).expect("a status"), Media::Events);
        assert_eq!(of(200), Next::Read);
        for permanent in [202, 204, 400, 401, 403, 404, 405, 406, 410, 501] {
            assert_eq!(of(permanent), Next::GiveUp, "{permanent}");
        }
        for passing in [409, 429, 500, 502, 503, 504] {
            assert_eq!(of(passing), Next::TryAgain, "{passing}");
        }
        assert_eq!(next(StatusCode::OK, Media::Json), Next::GiveUp);
    }
}
