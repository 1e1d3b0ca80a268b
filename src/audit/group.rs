//! Lines that go into the file with one write. A line joins with its text alone: whoever writes the group gives each line its
//! number and hashes. So the chain has only what is written, whatever becomes of a group.

use std::sync::{Arc, OnceLock};

use super::Error;
use super::line::{self, Decision};

/// A group of this size is written without waiting for further lines.
const FULL: usize = 64 * 1024;

/// What became of the lines of a group, once that is known.
pub(super) type Outcome = Arc<OnceLock<Result<(), Error>>>;

#[derive(Debug, Default)]
pub(super) struct Group {
    /// One text after another.
    texts: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    /// The lines that nobody waits for.
    pub(super) unwatched: usize,
    pub(super) outcome: Outcome,
}

impl Group {
    pub(super) fn add(&mut self, decision: &Decision<'_>, unwatched: usize) {
        line::text(&mut self.texts, decision);
        self.unwatched += unwatched;
        self.ends.push(self.texts.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.texts.len() >= FULL
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| &self.texts[begin..end])
    }

    /// Makes it a new group, with the old buffers.
    pub(super) fn renew(&mut self) {
        self.texts.clear();
        self.ends.clear();
        self.unwatched = 0;
        self.outcome = Outcome::default();
    }
}
