//! One connection. It moves only while it is polled: then it writes what the request has and reads what the
//! answer has, in both directions at once. Touches the stream that it is given and a timer.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

use super::super::connector::Stream;
use super::super::{BODY_CAP, HEAD_CAP};
use super::answer::{Answer, Asked};
use super::fault::{Fault, OwnBody};
use super::key::Key;
use super::request::{Request, Stopped};

/// The most bytes of an answer with a small body, or between two pieces of one without an end, as they come over the
/// connection. The limits of head and body do not see all that a server may send, such as the sizes of its chunks. Every honest
/// answer fits: a head, a body in chunks of one byte each (`1\r\nx\r\n`), and as much as a head for interim answers, chunk
/// extensions and trailers.
const ANSWER_CAP: usize = 2 * HEAD_CAP + BODY_CAP * b"1\r\nx\r\n".len();
/// The most that is read at once.
const ROOM: usize = 16 * 1024;
/// How long a server that takes no more of a request may still say why. It has most often said so before.
const REASON_LIMIT: Duration = Duration::from_secs(1);

/// One connection, with the exchange that it is for.
pub(super) struct Connection {
    /// Whom it is for.
    pub(super) key: Key,
    stream: Box<dyn Stream>,
    /// The bytes that count for [`ANSWER_CAP`].
    arrived: usize,
    /// Has any byte of the answer arrived?
    is_heard: bool,
    /// Other tasks run before the next read.
    yields: bool,
    /// What is still to be written. `None` when all of it was.
    request: Option<Request>,
    /// Was any byte of the request written?
    is_begun: bool,
    /// The server takes no more of the request, and until when it may say why.
    refusal: Option<(io::Error, Instant)>,
    answer: Answer,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(super) fn new(key: Key, stream: Box<dyn Stream>) -> Self {
        let asked = Asked { is_head: false, keeps: false, is_relayed: true };
        let (answer, arrived, is_heard, yields) = (Answer::new(asked), 0, false, false);
        Self {
            key,
            stream,
            arrived,
            is_heard,
            yields,
            request: None,
            is_begun: false,
            refusal: None,
            answer,
            alarm: None,
        }
    }

    /// Begins an exchange.
    pub(super) fn begin(&mut self, request: Request) {
        let Request { is_head, keeps, .. } = request;
        self.answer = Answer::new(Asked { is_head, keeps, is_relayed: self.key.is_relayed() });
        self.request = Some(request);
        // Others have run since the last byte, so it need not wait.
        (self.is_begun, self.is_heard, self.yields, self.arrived) = (false, false, false, 0);
    }

    /// Was any byte of the request written?
    pub(super) fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Has any byte of the answer arrived?
    pub(super) fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// The request, if the server knows nothing of it and another connection can still take it.
    pub(super) fn take_back(&mut self) -> Option<Request> {
        if self.is_begun { None } else { self.request.take() }
    }

    /// Ready with the head of the answer.
    pub(super) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Response<()>>> {
        if !self.is_begun
            && let Poll::Ready(first) = self.poll_first(context)
        {
            return Poll::Ready(Err(first));
        }
        self.advance(context)?;
        if !self.is_begun {
            return self.refusal.take().map_or(Poll::Pending, |(refusal, _)| Poll::Ready(Err(refusal)));
        }
        loop {
            if let Some(head) = self.answer.head()? {
                return Poll::Ready(Ok(head));
            }
            let end = match self.poll_read(context) {
                Poll::Ready(Ok(true)) => continue,
                Poll::Ready(end) => end.err(),
                // What the server has said may be here unseen, until the runtime has looked at its sockets.
                Poll::Pending => {
                    let Some((_, until)) = self.refusal else { return Poll::Pending };
                    ready!(self.poll_late(until, context));
                    None
                }
            };
            // If the server does not say why it refuses the rest of a request, the refusal is the reason.
            let refusal = self.refusal.take().map(|(refusal, _)| refusal);
            return Poll::Ready(Err(refusal.or(end).unwrap_or_else(|| Fault::Cut.into())));
        }
    }

    /// Ready if anything comes before the request, be it bytes or the end: then this connection cannot take it. A task that has read a
    /// lot is told to wait, which would look the same as a quiet connection. So that limit does not count here.
    fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let mut read = unconstrained(std::future::poll_fn(|context| self.poll_read(context)));
        let fault = |is_open| if is_open { Fault::Unasked.into() } else { Fault::Cut.into() };
        Pin::new(&mut read).poll(context).map(|read| read.map_or_else(|error| error, fault))
    }

    /// Ready at the deadline, which may move from one call to the next. A kept connection keeps its timer, which is moved only if it
    /// would be late, or was early: most answers come long before, and moving it at each exchange would cost more than reading
    /// them.
    pub(super) fn poll_late(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(context).is_ready() {
            if alarm.deadline() == deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Ready with the next piece of the body. `None` is its end.
    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if let Some(piece) = self.answer.piece()? {
                // Each piece of a body without an end comes with a chunk size.
                if self.key.is_relayed() {
                    self.arrived = 0;
                }
                return Poll::Ready(Ok(Some(piece)));
            }
            if self.answer.is_at_end() {
                return Poll::Ready(Ok(None));
            }
            self.advance(context)?;
            if !ready!(self.poll_read(context))? {
                self.answer.close()?;
            }
        }
    }

    /// Is the body of the answer at its end?
    pub(super) fn is_at_end(&self) -> bool {
        self.answer.is_at_end()
    }

    /// How much of the body is left, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.answer.left()
    }

    /// Could it take another request now that the answer is at its end? Not if the server has not taken all of the one before.
    pub(super) fn is_reusable(&self) -> bool {
        self.request.is_none() && self.answer.is_reusable()
    }

    /// Writes as much of the request as is there and can be written now. Fails if its body does.
    fn advance(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(request) = self.request.as_mut().filter(|_| self.refusal.is_none()) else { return Ok(()) };
        let outcome = request.poll_write(&mut self.stream, context);
        self.is_begun = request.is_begun;
        match outcome {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.request = None,
            Poll::Ready(Err(Stopped::ByServer(refusal))) => {
                self.refusal = Some((refusal, Instant::now() + REASON_LIMIT));
            }
            Poll::Ready(Err(Stopped::ByBody(error))) => {
                // What its body has given is gone, so no other connection can take it.
                self.request = None;
                return Err(io::Error::other(OwnBody(error)));
            }
        }
        Ok(())
    }

    /// Reads what is there. False at the end. Apart, because it alone needs so much of the stack, and no other memory is held while
    /// nothing comes.
    #[inline(never)]
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        // A server that floods must hold neither the thread, on which others are served too, nor the processor: on few processors
        // the thread that serves tokens waits for its turn behind the flood.
        if std::mem::take(&mut self.yields) {
            std::thread::yield_now();
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut room))?;
        // If there was no more, nobody has to wait for this connection.
        self.yields = room.remaining() == 0;
        let read = room.filled().len();
        self.is_heard |= read > 0;
        self.arrived += read;
        if self.arrived > ANSWER_CAP {
            return Poll::Ready(Err(Fault::Framing.into()));
        }
        self.answer.arrives(room.filled());
        Poll::Ready(Ok(read > 0))
    }
}
