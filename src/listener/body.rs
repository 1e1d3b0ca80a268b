//! The body of an answer: whole, in up to three pieces, or a stream. A token is a piece as it is in the cache; the one copy of it is
//! made behind the head of the answer, where hyper collects what leaves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use hyper::body::{Frame, SizeHint};

/// The pieces. They leave with one system call.
pub(super) type Pieces = Chain<Chain<Bytes, Bytes>, Bytes>;

/// A body that is made while it is sent.
type Streamed = Pin<Box<dyn hyper::body::Body<Data = Bytes, Error = io::Error> + Send>>;

/// The body of an answer.
pub struct Body(Kind);

enum Kind {
    /// Its length is announced.
    Whole(Option<Pieces>),
    /// It is sent in chunks, or with the length that it announces itself.
    Streamed(Streamed),
}

impl Body {
    /// These pieces, one after the other. Each may be empty.
    pub fn whole(before: Bytes, middle: Bytes, after: Bytes) -> Self {
        Self(Kind::Whole(Some(before.chain(middle).chain(after))))
    }

    /// What this stream gives, as soon as it gives it. An error breaks the connection off, so that the client cannot take what
    /// it has for the whole.
    pub fn streamed(stream: impl hyper::body::Body<Data = Bytes, Error = io::Error> + Send + 'static) -> Self {
        Self(Kind::Streamed(Box::pin(stream)))
    }
}

fn left(pieces: Option<&Pieces>) -> u64 {
    pieces.map_or(0, |pieces| pieces.remaining() as u64)
}

impl hyper::body::Body for Body {
    type Data = Pieces;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Pieces>>>> {
        match &mut self.0 {
            Kind::Whole(pieces) => {
                Poll::Ready(pieces.take().filter(Buf::has_remaining).map(|pieces| Ok(Frame::data(pieces))))
            }
            Kind::Streamed(stream) => {
                let frame = ready!(stream.as_mut().poll_frame(context));
                let alone = |bytes: Bytes| Bytes::new().chain(bytes).chain(Bytes::new());
                Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(alone))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(pieces) => left(pieces.as_ref()) == 0,
            Kind::Streamed(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(pieces) => SizeHint::with_exact(left(pieces.as_ref())),
            Kind::Streamed(stream) => stream.size_hint(),
        }
    }
}
