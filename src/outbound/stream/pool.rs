//! The connections that wait for their next exchange. Touches no socket.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::{KEPT, KEPT_FOR};
use super::connection::Connection;
use super::key::{Key, Place};

/// The idle connections that are kept for the calls of one server. As many of them can follow each other without a new handshake.
const KEPT_FOR_CALLS: usize = 256;

/// The connections that wait for their next exchange. None of them is closed under the lock: that takes longer than others should
/// wait.
pub(in crate::outbound) struct Pool {
    /// `None` after the end.
    idle: Mutex<Option<Waiting>>,
    /// A connection has come.
    filled: Notify,
}

/// The connections of each key, the oldest first.
type Waiting = Vec<(Key, Vec<Idle>)>;

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Idle {
    fn is_old(&self) -> bool {
        self.since.elapsed() > KEPT_FOR
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self { idle: Mutex::new(Some(Vec::new())), filled: Notify::new() }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, if it is young. Whether it is still open is seen when it is used.
    pub(super) fn take(&self, place: &Place<'_>) -> Option<Box<Connection>> {
        let mut pool = self.lock();
        let (_, idle) = pool.as_mut()?.iter_mut().find(|(of, _)| of.place() == *place)?;
        let last = idle.pop()?;
        // Below one that is too old there are older ones.
        let old = if last.is_old() { std::mem::take(idle) } else { return Some(last.connection) };
        drop(pool);
        drop(old);
        None
    }

    pub(super) fn keep(&self, connection: Box<Connection>) {
        let most = if connection.key.is_relayed() { KEPT_FOR_CALLS } else { KEPT };
        let mut lock = self.lock();
        let Some(pool) = &mut *lock else { return };
        let idle = match pool.iter().position(|(of, _)| of.place() == connection.key.place()) {
            Some(at) => &mut pool[at].1,
            None => &mut pool.push_mut((connection.key.clone(), Vec::new())).1,
        };
        if idle.len() < most {
            idle.push(Idle { connection, since: Instant::now() });
        }
        drop(lock);
        self.filled.notify_one();
    }

    /// Closes the connections that are too old. True if some are left.
    fn close_old(&self) -> bool {
        let mut lock = self.lock();
        let Some(pool) = &mut *lock else { return false };
        let mut old = Vec::new();
        for (_, idle) in &mut *pool {
            old.extend(idle.drain(..idle.partition_point(Idle::is_old)));
        }
        pool.retain(|(_, idle)| !idle.is_empty());
        let some_are_left = !pool.is_empty();
        drop(lock);
        drop(old);
        some_are_left
    }

    /// Closes connections as they grow old, for ever.
    pub(in crate::outbound) async fn tend(&self) {
        loop {
            self.filled.notified().await;
            while self.close_old() {
                tokio::time::sleep(KEPT_FOR / 4).await;
            }
        }
    }

    /// Closes all of them.
    pub(in crate::outbound) fn clear(&self) {
        let closed = self.lock().as_mut().map(std::mem::take);
        drop(closed);
    }

    /// Closes all of them, and keeps none from now on.
    pub(in crate::outbound) fn end(&self) {
        let closed = self.lock().take();
        drop(closed);
    }
}
