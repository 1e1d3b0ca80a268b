//! An answer whose body was read ahead, to see what is in it. Its client gets the whole body all the same.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::Streamed;
use crate::mcp::fields;
use crate::mcp::rpc::{Id, Kind, Message};
use crate::mcp::sse::{Data, Reader};
use crate::outbound::{Download, Polled};

/// The most that is read of an error.
const ERROR_CAP: usize = 16 * 1_024;
/// The most that is read of an answer to a request of ours.
const ANSWER_CAP: usize = 256 * 1_024;

/// The code of the JSON-RPC error in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// `None`: the answer is no such error.
    Read(Option<i64>),
    /// The answer is encoded, too large, or was not there in time.
    Unreadable,
}

impl Code {
    /// The code, if it could be read and is there.
    pub(super) fn read(self) -> Option<i64> {
        match self {
            Self::Read(code) => code,
            Self::Unreadable => None,
        }
    }
}

struct Peeked {
    first: Bytes,
    rest: Rest,
}

enum Rest {
    Over,
    Broken(Option<io::Error>),
    More(Download),
}

/// Reads the code of an error, until then at the latest.
pub(super) async fn code(answer: Response<Download>, deadline: Instant) -> (Response<Streamed>, Code) {
    let (head, mut body) = answer.into_parts();
    let is_unencoded = fields::is_unencoded(&head.headers);
    let mut first = BytesMut::new();
    let rest = loop {
        if !is_unencoded || first.len() > ERROR_CAP {
            break Rest::More(body);
        }
        match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => first.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Ok(Some(Err(error))) => break Rest::Broken(Some(error)),
            Ok(None) => break Rest::Over,
            Err(_late) => break Rest::More(body),
        }
    };
    let code = match rest {
        Rest::Over => Code::Read(Message::read(&first).error_code),
        Rest::Broken(_) | Rest::More(_) => Code::Unreadable,
    };
    (Response::from_parts(head, Box::pin(Peeked { first: first.freeze(), rest })), code)
}

impl Body for Peeked {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        match &mut self.rest {
            Rest::Over => Poll::Ready(None),
            Rest::Broken(error) => Poll::Ready(error.take().map(Err)),
            Rest::More(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty()
            && match &self.rest {
                Rest::Over => true,
                Rest::Broken(error) => error.is_none(),
                Rest::More(body) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.len() as u64;
        match &self.rest {
            Rest::Over => SizeHint::with_exact(first),
            Rest::Broken(_) => SizeHint::new(),
            Rest::More(body) => {
                body.size_hint().exact().map_or_else(SizeHint::new, |rest| SizeHint::with_exact(first + rest))
            }
        }
    }
}

/// The message that answers a request of ours. `None` if there is none, or none that can be read.
pub(super) async fn message(answer: Response<Download>, id: &Id) -> Option<Vec<u8>> {
    let (head, mut body) = answer.into_parts();
    if !fields::is_unencoded(&head.headers) {
        return None;
    }
    let is_stream = fields::is_media(&head.headers, "text/event-stream");
    let (mut reader, mut read, mut whole) = (Reader::new(ANSWER_CAP), 0, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.ok()?.into_data() else { continue };
        read += piece.len();
        if read > ANSWER_CAP {
            return None;
        }
        if !is_stream {
            whole.extend_from_slice(&piece);
            continue;
        }
        let mut rest = &*piece;
        while let Some(event) = reader.read(&mut rest) {
            let (true, Data::Kept(data)) = (event.is_message(), event.data) else { continue };
            if is_answer(data, id) {
                return Some(data.to_vec());
            }
        }
    }
    Some(whole).filter(|message| is_answer(message, id))
}

fn is_answer(message: &[u8], request: &Id) -> bool {
    let message = Message::read(message);
    message.kind == Kind::Response && message.id.is_some_and(|id| id.answers(request))
}
