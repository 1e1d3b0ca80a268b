//! An event stream that breaks off.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Frame;
use hyper::header::CONTENT_TYPE;

use super::State;
use crate::listener::Body;

/// A body that breaks off after its first piece.
struct Cut {
    body: Body,
    has_begun: bool,
}

impl hyper::body::Body for Cut {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.has_begun {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.has_begun = polled.is_ready();
        polled
    }
}

impl State {
    /// Breaks an event stream, if a test wants it.
    pub(super) fn cut(&self, answer: Response<Body>) -> Response<Body> {
        let is_stream = answer.headers().get(CONTENT_TYPE).is_some_and(|media| media == "text/event-stream");
        if !is_stream || !std::mem::take(&mut self.now().breaks) {
            return answer;
        }
        answer.map(|body| Cut { body, has_begun: false }.boxed_unsync())
    }
}
