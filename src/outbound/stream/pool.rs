//! The connections of the streaming client, and those that wait for their next exchange.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::KEPT_FOR;
use super::super::wire::{Record, Wire};
use super::Upload;

/// The idle connections that are kept for one server. As many exchanges with it can follow each other without a new handshake.
const KEPT: usize = 64;

/// The connections that wait for their next exchange.
#[derive(Default)]
pub(in crate::outbound) struct Pool {
    idle: Mutex<HashMap<Key, Vec<Idle>>>,
    /// A connection has come.
    filled: Notify,
}

/// Whom a connection is for: the origin, and the name of the server.
pub(super) type Key = (String, Arc<str>);

struct Idle {
    connection: Connection,
    since: Instant,
}

/// Lets the bytes of a connection pass.
pub(super) type Driver = http1::Connection<TokioIo<Wire>, Upload>;

/// One connection.
pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<Upload>,
    /// `None` after its end.
    pub(super) driver: Option<Pin<Box<Driver>>>,
    pub(super) record: Arc<Record>,
}

impl Connection {
    /// Lets bytes pass in both directions, as far as they can now.
    pub(super) fn advance(&mut self, context: &mut Context<'_>) {
        let ended = self.driver.as_mut().is_some_and(|driver| driver.as_mut().poll(context).is_ready());
        if ended {
            // Its errors reach the exchange that it is for.
            self.driver = None;
        }
    }

    /// Could another request be sent over it?
    pub(super) fn is_reusable(&mut self) -> bool {
        // The second time, because a connection lets other tasks run after each read.
        for _ in 0..2 {
            self.advance(&mut Context::from_waker(Waker::noop()));
        }
        self.driver.is_some() && self.sender.is_ready()
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, if it is still good.
    pub(super) fn take(&self, key: &Key) -> Option<Connection> {
        let mut pool = self.lock();
        let idle = pool.get_mut(key)?;
        idle.retain(|one| one.since.elapsed() <= KEPT_FOR);
        std::iter::from_fn(|| idle.pop()).map(|one| one.connection).find_map(|mut one| one.is_reusable().then_some(one))
    }

    pub(super) fn keep(&self, key: Key, connection: Connection) {
        let mut pool = self.lock();
        let idle = pool.entry(key).or_default();
        if idle.len() < KEPT {
            idle.push(Idle { connection, since: Instant::now() });
        }
        drop(pool);
        self.filled.notify_one();
    }

    /// Closes the connections that are too old. True if some are left.
    fn close_old(&self) -> bool {
        let mut pool = self.lock();
        for idle in pool.values_mut() {
            idle.retain(|one| one.since.elapsed() <= KEPT_FOR);
        }
        pool.retain(|_, idle| !idle.is_empty());
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
