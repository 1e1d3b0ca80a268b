//! What two exchanges must have in common to share a connection. Values only.

use std::sync::Arc;
use std::thread::ThreadId;

use crate::token::Digest;

/// Whom a connection is for.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) origin: Arc<str>,
    /// The configured name.
    pub(super) server: Arc<str>,
    /// What the connection showed.
    pub(super) certificate: Option<Digest>,
    /// The thread whose runtime looks after it.
    pub(super) thread: ThreadId,
}

/// The same, borrowed, for the look-up.
#[derive(PartialEq)]
pub(super) struct Place<'a> {
    pub(super) origin: &'a str,
    pub(super) server: &'a Arc<str>,
    pub(super) certificate: Option<Digest>,
    pub(super) thread: ThreadId,
}

impl Key {
    pub(super) fn of(place: &Place<'_>) -> Self {
        let Place { origin, server, certificate, thread } = *place;
        Self { origin: origin.into(), server: Arc::clone(server), certificate, thread }
    }

    pub(super) fn place(&self) -> Place<'_> {
        let Self { origin, server, certificate, thread } = self;
        Place { origin, server, certificate: *certificate, thread: *thread }
    }
}
