//! A client of the wire until 2025-11-25 before a server that speaks 2026-07-28 alone.
//!
//! `initialize` goes out as it came. Only if the server refuses it as one without sessions does, it is asked with `server/discover`
//! ([`begin`]); from then on, until that is no longer true, requests of the client are translated ([`call`]). What the server asks
//! meanwhile is put to the client ([`questions`]); what it sends by itself comes from a `subscriptions/listen` ([`follow`]). What
//! the server does not know is answered here ([`own`]).
//!
//! [`exchange`] sends one request of that wire, and [`learn`] makes the fields of a call from the list of tools, for clients of
//! either wire. What the translations are is in [`crate::mcp::era`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::mcp::era::declared::Meta;
use crate::mcp::era::discovered::Discovered;
use crate::mcp::era::filter::Filter;
use crate::mcp::era::params::Tools;

mod begin;
mod call;
mod exchange;
mod follow;
mod learn;
mod made;
mod own;
mod questions;

pub(super) use exchange::KEPT;
pub(super) use made::Made;
use questions::Questions;

/// How much is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// What has to be, so that client and server understand each other.
    Auto,
    /// Nothing.
    Pass,
}

/// What is known of the server, and what is open with it.
pub(super) struct Eras {
    protocol: Protocol,
    met: Mutex<Option<Arc<Met>>>,
    questions: Mutex<Questions>,
    tools: Mutex<Tools>,
    /// One list of tools is fetched at a time.
    /// When the last list that was had because of a refusal was begun.
    learning: tokio::sync::Mutex<Option<tokio::time::Instant>>,
}

/// A server without sessions, and the client that it was met for.
pub(super) struct Met {
    server: Discovered,
    meta: Mutex<Meta>,
    /// Which notifications are wanted.
    wanted: watch::Sender<Wanted>,
    /// Which of them the server sends.
    confirmed: watch::Sender<Wanted>,
}

/// A filter, and how many there were before.
#[derive(Clone, Debug, Default)]
struct Wanted {
    filter: Filter,
    serial: u64,
}

impl Eras {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            met: Mutex::default(),
            questions: Mutex::default(),
            tools: Mutex::default(),
            learning: tokio::sync::Mutex::default(),
        }
    }

    fn met_now(&self) -> MutexGuard<'_, Option<Arc<Met>>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server, if messages of a session have to be translated for it.
    pub(super) fn met(&self) -> Option<Arc<Met>> {
        self.met_now().clone()
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tools(&self) -> MutexGuard<'_, Tools> {
        self.tools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Met {
    fn new(server: Discovered, meta: Meta) -> Self {
        let wanted = Wanted { filter: server.offer.clone(), serial: 1 };
        let (wanted, confirmed) = (watch::Sender::new(wanted), watch::Sender::default());
        Self { server, meta: Mutex::new(meta), wanted, confirmed }
    }

    fn meta(&self) -> MutexGuard<'_, Meta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `_meta` of a request of ours.
    fn own_meta(&self) -> String {
        self.meta().added_to(None).expect("without one of the client it is an object")
    }

    /// Changes which notifications are wanted. `None` if there is no room for it.
    fn want(&self, change: impl FnOnce(&mut Filter) -> bool) -> Option<u64> {
        let mut serial = None;
        self.wanted.send_modify(|wanted| {
            if change(&mut wanted.filter) {
                wanted.serial += 1;
                serial = Some(wanted.serial);
            }
        });
        serial
    }
}
