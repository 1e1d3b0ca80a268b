//! The body of a request, kept so that it can be sent a second time.
//!
//! A body is read first, up to 1 MiB. What is larger streams, and is sent once. All that is kept counts against a budget for each
//! user and one for all; beyond them a body streams like a large one. It counts until the answer has begun.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, SizeHint};

use super::idle::{LastByte, unless_idle};
use crate::outbound::{Polled, Upload};

/// The most of one body.
const ONE: usize = 1024 * 1024;
/// The most of one user's bodies.
const OF_USER: usize = 8 * 1024 * 1024;
/// The most of all bodies.
const ALL: usize = 32 * 1024 * 1024;

/// How much is kept for whom.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Used>);

#[derive(Debug, Default)]
struct Used {
    all: usize,
    by_user: BTreeMap<u32, usize>,
}

/// What one request has of the budget. It goes back when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    uid: u32,
    bytes: usize,
}

impl Share {
    pub(super) fn new(budget: &Arc<Budget>, uid: u32) -> Self {
        Self { budget: Arc::clone(budget), uid, bytes: 0 }
    }

    /// Takes more of the budget, if it is there.
    fn grow(&mut self, bytes: usize) -> bool {
        if self.bytes + bytes > ONE {
            return false;
        }
        let mut used = self.budget.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = used.by_user.get(&self.uid).copied().unwrap_or_default();
        if of_user + bytes > OF_USER || used.all + bytes > ALL {
            return false;
        }
        used.all += bytes;
        used.by_user.insert(self.uid, of_user + bytes);
        self.bytes += bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut used = self.budget.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.all -= self.bytes;
        if let Some(of_user) = used.by_user.get_mut(&self.uid) {
            *of_user -= self.bytes;
            if *of_user == 0 {
                used.by_user.remove(&self.uid);
            }
        }
    }
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It broke off, or is malformed.
    Broken,
    /// Its client sent nothing for too long.
    Idle,
}

/// A body that was read as far as it can be kept.
pub(super) enum Kept {
    /// All of it, with its part of the budget.
    Whole { bytes: Bytes, _share: Option<Share> },
    /// The beginning, and the rest. `None` after it was sent. Nobody else asks for the lock: it makes the rest shareable.
    Large(Bytes, Mutex<Option<Upload>>),
}

impl Kept {
    /// Reads a body until its end or until it is too large.
    pub(super) async fn read(mut body: Upload, mut share: Share) -> Result<Self, Cut> {
        // Copied: a piece of one byte that is kept as it came keeps the buffer that it was read into.
        let mut bytes = BytesMut::new();
        loop {
            let frame = unless_idle(body.frame()).await.ok_or(Cut::Idle)?;
            let Some(frame) = frame else { return Ok(Self::Whole { bytes: bytes.freeze(), _share: Some(share) }) };
            // Trailers are dropped.
            let Ok(piece) = frame.map_err(|_| Cut::Broken)?.into_data() else { continue };
            let fits = share.grow(piece.len());
            bytes.extend_from_slice(&piece);
            if !fits {
                return Ok(Self::Large(bytes.freeze(), Mutex::new(Some(body))));
            }
        }
    }

    /// A body of ours, which counts for nobody.
    pub(super) fn own(bytes: Bytes) -> Self {
        Self::Whole { bytes, _share: None }
    }

    /// What there is of it.
    pub(super) fn beginning(&self) -> &Bytes {
        match self {
            Self::Whole { bytes, .. } | Self::Large(bytes, _) => bytes,
        }
    }

    /// All of it, if it was kept.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole { bytes, .. } => Some(bytes),
            Self::Large(..) => None,
        }
    }

    /// The body to send. `None` if it was sent and not kept.
    pub(super) fn upload(&mut self, last_byte: &Arc<LastByte>) -> Option<Upload> {
        match self {
            Self::Whole { bytes, .. } if bytes.is_empty() => {
                Some(Box::pin(Empty::new().map_err(|never| match never {})))
            }
            Self::Whole { bytes, .. } => Some(Box::pin(Full::new(bytes.clone()).map_err(|never| match never {}))),
            Self::Large(bytes, rest) => {
                let rest = rest.get_mut().unwrap_or_else(PoisonError::into_inner).take()?;
                let first = std::mem::take(bytes);
                Some(Box::pin(Rest { first, rest, last_byte: Arc::clone(last_byte) }))
            }
        }
    }
}

/// A body of which the beginning was read already.
struct Rest {
    first: Bytes,
    rest: Upload,
    last_byte: Arc<LastByte>,
}

impl Body for Rest {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        loop {
            let Some(frame) = ready!(self.rest.as_mut().poll_frame(context)) else { return Poll::Ready(None) };
            self.last_byte.passed();
            match frame?.into_data() {
                Ok(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Err(_trailers) => {}
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let (first, rest) = (self.first.len() as u64, self.rest.size_hint());
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(first + rest),
            None => SizeHint::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt;
    use http_body_util::StreamBody;

    use super::*;

    fn body(pieces: Vec<usize>) -> Upload {
        let pieces = futures_util::stream::iter(pieces);
        Box::pin(StreamBody::new(pieces.map(|length| Ok(Frame::data(Bytes::from(vec![b'x'; length]))))))
    }

    async fn read(pieces: Vec<usize>, budget: &Arc<Budget>, uid: u32) -> Kept {
        Kept::read(body(pieces), Share::new(budget, uid)).await.expect("read")
    }

    async fn sent(kept: &mut Kept) -> Option<usize> {
        let upload = kept.upload(&Arc::default())?;
        Some(upload.collect().await.expect("whole").to_bytes().len())
    }

    #[tokio::test]
    async fn a_body_of_one_mebibyte_is_kept_and_a_larger_one_streams_once() {
        let budget = Arc::default();
        let mut small = read(vec![ONE / 2, ONE / 2], &budget, 1).await;
        assert_eq!((sent(&mut small).await, sent(&mut small).await), (Some(ONE), Some(ONE)));
        let mut large = read(vec![ONE, 1, 5], &budget, 1).await;
        assert!(large.whole().is_none());
        assert_eq!((sent(&mut large).await, sent(&mut large).await), (Some(ONE + 6), None));
    }

    #[tokio::test]
    async fn one_user_takes_a_quarter_of_what_is_kept_and_gives_it_back() {
        let budget = Arc::default();
        let mut held = Vec::new();
        for uid in 1..=5 {
            for _ in 0..8 {
                held.push(read(vec![ONE], &budget, uid).await);
            }
            assert!(read(vec![1], &budget, uid).await.whole().is_none(), "{uid}");
        }
        let kept = held.iter().filter(|kept| kept.whole().is_some()).count();
        assert_eq!(kept, ALL / ONE, "four users have all of it");
        held.clear();
        assert!(read(vec![ONE], &budget, 5).await.whole().is_some());
    }

    /// A piece of one byte in a buffer that is counted.
    struct Buffer(#[expect(dead_code, reason = "it counts buffers")] Arc<()>);

    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            b"x"
        }
    }

    #[tokio::test]
    async fn a_body_that_comes_byte_by_byte_keeps_no_buffer() {
        let buffers = Arc::new(());
        let counted = Arc::clone(&buffers);
        let pieces = futures_util::stream::iter(0..10_000).map(move |_| {
            assert!(Arc::strong_count(&counted) <= 2, "the buffer before is given back");
            Ok(Frame::data(Bytes::from_owner(Buffer(Arc::clone(&counted)))))
        });
        let kept = Kept::read(Box::pin(StreamBody::new(pieces)), Share::new(&Arc::default(), 1)).await.expect("read");
        assert_eq!(kept.beginning().len(), 10_000);
        assert_eq!(Arc::strong_count(&buffers), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_coming_is_given_up() {
        let silent = StreamBody::new(futures_util::stream::pending::<io::Result<Frame<Bytes>>>());
        let begun = tokio::time::Instant::now();
        let cut = Kept::read(Box::pin(silent), Share::new(&Arc::default(), 1)).await.map(drop);
        assert_eq!((cut, begun.elapsed()), (Err(Cut::Idle), super::super::idle::IDLE));
        assert!(begun.elapsed() >= Duration::from_secs(600));
    }
}
