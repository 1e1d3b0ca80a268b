//! The connections of the streaming client, and those that wait for their next exchange.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::thread::ThreadId;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::KEPT_FOR;
use super::super::wire::{Record, Wire};
use super::Upload;
use crate::token::Digest;

/// The idle connections that are kept for one key. As many exchanges with it can follow each other without a new handshake.
const KEPT: usize = 256;

/// The connections that wait for their next exchange.
#[derive(Default)]
pub(in crate::outbound) struct Pool {
    idle: Mutex<Vec<(Key, Vec<Idle>)>>,
    /// A connection has come.
    filled: Notify,
}

/// Whom a connection is for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) origin: Arc<str>,
    /// The configured name.
    pub(super) server: Arc<str>,
    /// What the connection showed.
    pub(super) certificate: Option<Digest>,
    /// The thread whose runtime looks after it.
    pub(super) thread: ThreadId,
}

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

    /// Could another request be sent over it? Asked when it comes back and when it is taken: it reads nothing the first time,
    /// because a connection lets other tasks run after each read.
    pub(super) fn is_reusable(&mut self) -> bool {
        self.advance(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Vec<(Key, Vec<Idle>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, if it is still good.
    pub(super) fn take(&self, key: &Key) -> Option<Connection> {
        let mut pool = self.lock();
        let (_, idle) = pool.iter_mut().find(|(of, _)| of == key)?;
        // Below one that is too old there are older ones.
        let young = std::iter::from_fn(|| idle.pop()).take_while(|one| one.since.elapsed() <= KEPT_FOR);
        young.map(|one| one.connection).find_map(|mut one| one.is_reusable().then_some(one))
    }

    pub(super) fn keep(&self, key: Key, connection: Connection) {
        let mut pool = self.lock();
        let now = Idle { connection, since: Instant::now() };
        match pool.iter_mut().find(|(of, _)| *of == key) {
            Some((_, idle)) if idle.len() < KEPT => idle.push(now),
            Some(_) => {}
            None => pool.push((key, vec![now])),
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
