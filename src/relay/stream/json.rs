//! An answer of JSON that is not encoded.
//!
//! A client can do nothing with a part of it, so up to 64 KiB are held until it is complete. Then an error with our number can
//! be changed, and what the answer teaches is learned before the client can act on it. A larger answer passes as it comes.

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem;

use super::events::{EVENT_CAP, Listener, Waiting, seen};

pub(crate) struct Json {
    held: Vec<u8>,
    /// It is too large: it passes as it comes.
    is_cut: bool,
    waiting: Option<Waiting>,
}

impl Json {
    pub(crate) fn new(waiting: Option<Waiting>) -> Self {
        Self { held: Vec::new(), is_cut: false, waiting }
    }

    /// Looks at a piece, and gives what is to be passed on now.
    pub(super) fn pass(&mut self, piece: Bytes) -> Bytes {
        if self.is_cut {
            return piece;
        }
        self.held.extend_from_slice(&piece);
        if self.held.len() <= EVENT_CAP {
            return Bytes::new();
        }
        self.is_cut = true;
        if let Some(listener) = self.listener() {
            listener(None);
        }
        std::mem::take(&mut self.held).into()
    }

    /// The answer is complete.
    pub(super) fn end(&mut self) -> Bytes {
        let held = std::mem::take(&mut self.held);
        if self.waiting.is_none() && !may_be_error(&held) {
            return held.into();
        }
        match seen(&held, &mut self.waiting) {
            Some(mut other) => {
                // Its length was announced, and no form of our number is shorter than the one in its place.
                other.resize(held.len().max(other.len()), b' ');
                other.into()
            }
            None => held.into(),
        }
    }

    /// Nothing of it was passed on yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.held.is_empty() && !self.is_cut
    }

    fn listener(&mut self) -> Option<Listener> {
        self.waiting.take()?.listener
    }
}

/// Can this be an answer with an error? Most answers are none, and need not be read.
fn may_be_error(answer: &[u8]) -> bool {
    // The name of the member, as it is or with escapes.
    /// Made once: that takes as long as to look through a small answer.
    static SIGNS: LazyLock<[memmem::Finder<'static>; 2]> =
        LazyLock::new(|| [memmem::Finder::new("\"error\""), memmem::Finder::new("\\u")]);
    SIGNS.iter().any(|sign| sign.find(answer).is_some())
}
