//! A whole response body in up to three pieces. The kernel gathers them (writev), so a token goes from the cache to the
//! connection without a copy in this process.
//!
//! Connections take any body (`serve.rs`). A body that streams is a second variant here.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use hyper::body::{Frame, SizeHint};
use zeroize::Zeroizing;

use super::dialect::Around;
use crate::token::Token;

/// The pieces. hyper writes them with one system call.
type Pieces = Chain<Chain<Bytes, Bytes>, Bytes>;

/// A whole body, whose length is announced.
pub(crate) struct Body(Option<Pieces>);

impl Body {
    /// One piece that holds no secret.
    pub(crate) fn plain(bytes: &[u8]) -> Self {
        Self::of(Bytes::new(), Bytes::copy_from_slice(bytes), Bytes::new())
    }

    /// One piece that is cleared from memory after it is sent.
    pub(crate) fn secret(whole: Zeroizing<String>) -> Self {
        Self::of(Bytes::new(), Bytes::from_owner(Escaped(whole)), Bytes::new())
    }

    /// A token with the text around it. Nothing stands in its place where there is none.
    pub(crate) fn around(token: Arc<Token>, around: Around) -> Self {
        let secret = match token.credential.token() {
            Some(secret) if !secret.is_plain() => Bytes::from_owner(Escaped(super::dialect::escaped(secret))),
            Some(_) => Bytes::from_owner(Cached(token)),
            None => Bytes::new(),
        };
        Self::of(Bytes::from_static(around.before.as_bytes()), secret, Bytes::from(around.after))
    }

    fn of(before: Bytes, middle: Bytes, after: Bytes) -> Self {
        Self(Some(before.chain(middle).chain(after)))
    }

    fn left(&self) -> u64 {
        self.0.as_ref().map_or(0, |pieces| pieces.remaining() as u64)
    }
}

/// The token in the cache.
struct Cached(Arc<Token>);

impl AsRef<[u8]> for Cached {
    fn as_ref(&self) -> &[u8] {
        self.0.credential.token().map_or(&[], |token| token.expose().as_bytes())
    }
}

/// A text that is made for one answer: a token that has to be escaped in JSON, or signed fields.
struct Escaped(Zeroizing<String>);

impl AsRef<[u8]> for Escaped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl hyper::body::Body for Body {
    type Data = Pieces;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Pieces>, Infallible>>> {
        Poll::Ready(self.0.take().filter(Buf::has_remaining).map(|pieces| Ok(Frame::data(pieces))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}
