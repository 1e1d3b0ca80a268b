//! The connections that wait for their next exchange. Touches no socket.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::{KEPT, KEPT_FOR};
use super::connection::Connection;
use super::key::{Key, Place};

/// The idle connections that are kept for the calls of one server. As many of them can follow each other without a new handshake.
const KEPT_FOR_CALLS: usize = 256;

/// The connections that wait for their next exchange.
#[derive(Default)]
pub(in crate::outbound) struct Pool {
    idle: Mutex<Vec<(Key, Vec<Idle>)>>,
    /// A connection has come.
    filled: Notify,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Vec<(Key, Vec<Idle>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, if it is young. Whether it is still open is seen when it is used.
    pub(super) fn take(&self, place: &Place<'_>) -> Option<Box<Connection>> {
        let mut pool = self.lock();
        let (_, idle) = pool.iter_mut().find(|(of, _)| of.place() == *place)?;
        let last = idle.pop()?;
        if last.since.elapsed() > KEPT_FOR {
            // Below it there are older ones.
            idle.clear();
            return None;
        }
        Some(last.connection)
    }

    pub(super) fn keep(&self, connection: Box<Connection>) {
        let most = if connection.key.server.is_some() { KEPT_FOR_CALLS } else { KEPT };
        let mut pool = self.lock();
        let (at, now) = (pool.iter().position(|(of, _)| of.place() == connection.key.place()), Instant::now());
        match at.map(|at| &mut pool[at].1) {
            Some(idle) if idle.len() < most => idle.push(Idle { connection, since: now }),
            Some(_) => {}
            None => pool.push((connection.key.clone(), vec![Idle { connection, since: now }])),
        }
        drop(pool);
        self.filled.notify_one();
    }

    /// Closes the connections that are too old. True if some are left.
    fn close_old(&self) -> bool {
        let mut pool = self.lock();
        for (_, idle) in &mut *pool {
            idle.retain(|one| one.since.elapsed() <= KEPT_FOR);
        }
        pool.retain(|(_, idle)| !idle.is_empty());
        !pool.is_empty()
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
        self.lock().clear();
    }
}
