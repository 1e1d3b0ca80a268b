//! What two exchanges must have in common to share a connection. Values only.

use std::sync::Arc;

use tokio::runtime::Id;

use super::super::Lane;
use crate::token::Digest;

/// Under what a connection was opened.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::outbound) struct Terms {
    /// The number of the [`super::super::Outbound`], each of which has its own roots.
    pub(in crate::outbound) outbound: usize,
    /// The egress rules, and the way.
    pub(in crate::outbound) lane: Lane,
    /// What the connection showed.
    pub(in crate::outbound) certificate: Option<Digest>,
}

/// Whom a connection is for.
#[derive(Clone)]
pub(super) struct Key {
    origin: Arc<str>,
    /// The configured name of the server whose calls are relayed. `None` for documents and tokens.
    server: Option<Arc<str>>,
    terms: Terms,
    /// The runtime that looks after it.
    runtime: Id,
}

/// The same, borrowed, for the look-up.
#[derive(PartialEq)]
pub(in crate::outbound) struct Place<'a> {
    pub(in crate::outbound) origin: &'a str,
    pub(super) server: Option<&'a Arc<str>>,
    pub(super) terms: Terms,
    pub(super) runtime: Id,
}

impl Key {
    pub(super) fn of(place: &Place<'_>) -> Self {
        let Place { origin, server, terms, runtime } = *place;
        Self { origin: origin.into(), server: server.cloned(), terms, runtime }
    }

    /// Does the client of a server read what comes over it? Else we alone do: documents and tokens.
    pub(super) fn is_relayed(&self) -> bool {
        self.server.is_some()
    }

    pub(super) fn place(&self) -> Place<'_> {
        let Self { origin, server, terms, runtime } = self;
        Place { origin, server: server.as_ref(), terms: *terms, runtime: *runtime }
    }
}
