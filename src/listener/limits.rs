//! How long a connection may be quiet, how large a head may be, and when a connection has to end.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::seats::Seat;

/// The limits of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How often a connection is looked at. It is closed if since the last look no request began and none is being answered
    /// (it is idle, or sends a head byte by byte), or if it took nothing of an answer (the client does not read).
    pub quiet: Duration,
    /// How large the head of a request may be, in bytes.
    pub head: usize,
}

impl Limits {
    /// The limits of an API for programs on this machine.
    pub const API: Self = Self { quiet: Duration::from_secs(30), head: 16 * 1024 };
}

/// How often the connection of a stranger is looked at. A head takes milliseconds.
const STRANGER_QUIET: Duration = Duration::from_secs(2);

/// The two directions of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// How a connection has to end.
pub(super) enum End {
    /// The request that runs is answered.
    AfterRequest,
    AtOnce(&'static str),
}

/// Waits until the connection has to end.
pub(super) async fn end(limits: Limits, stop: CancellationToken, seat: &Seat) -> End {
    let activity = seat.activity();
    let quiet = || if seat.is_strangers() { STRANGER_QUIET } else { limits.quiet };
    let mut before = activity.seen();
    loop {
        tokio::select! {
            () = stop.cancelled() => return End::AfterRequest,
            () = activity.evicted() => return End::AtOnce("a connection makes room for another"),
            () = tokio::time::sleep(quiet()) => {}
        }
        let now = activity.seen();
        if now.is_quiet_since(before) {
            return End::AtOnce("a quiet connection is closed");
        }
        before = now;
    }
}
