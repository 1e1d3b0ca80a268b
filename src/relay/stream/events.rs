//! An event stream that is not encoded, as its bytes pass.
//!
//! An event of up to 64 KiB is passed on when it is complete. So a stream that breaks leaves no half event behind, and an error
//! with our number can be changed. A larger one passes as it comes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::mcp::rpc::refusal::without_our_code;
use crate::mcp::rpc::{Id, Kind, Message, OUR_CODE};
use crate::mcp::sse::mark::WithoutMark;
use crate::mcp::sse::{self, Data, Reader};
use crate::relay::known::Known;
use crate::relay::session::Key;
use crate::relay::verdict::{Sent, Told};

/// A silent event stream gets a comment after so long.
pub(super) const SILENCE: Duration = Duration::from_secs(20);
/// The largest event, and the largest answer of JSON, that is looked at. A larger event does not count as an answer.
pub(super) const EVENT_CAP: usize = 64 * 1024;

/// The event that a stream ends with if it breaks off before its answer.
pub(crate) type LastWord = Box<dyn FnOnce(Told) -> Vec<u8> + Send>;
/// Is shown the answer to a request before the client gets it; `None` if the answer cannot be read.
pub(crate) type Listener = Box<dyn FnOnce(Option<&[u8]>) + Send>;

/// The request that waits for its answer.
pub(crate) struct Waiting {
    pub(crate) id: Id,
    pub(crate) last_word: LastWord,
    pub(crate) listener: Option<Listener>,
}

/// An event stream that is not encoded.
pub(crate) struct Events {
    reader: Reader,
    /// The bytes of the event in progress, of which the client has none.
    held: Vec<u8>,
    /// The client has a part of the event in progress.
    is_cut: bool,
    /// Something was added before the first byte.
    without_mark: Option<WithoutMark>,
    has_begun: bool,
    /// When something was last sent to the client.
    pub(super) last_sent: Instant,
    pub(super) sent: Sent,
    waiting: Option<Waiting>,
    /// An event was too large to be looked at.
    has_large: bool,
    notices: Option<Notices>,
}

/// The notifications of ours for the client of a session.
pub(crate) struct Notices {
    known: Arc<Known>,
    key: Key,
    changed: Changed,
    is_due: bool,
}

type Changed = Pin<Box<dyn Future<Output = watch::Receiver<()>> + Send>>;

fn changed(mut turns: watch::Receiver<()>) -> Changed {
    Box::pin(async move {
        if turns.changed().await.is_err() {
            // Nobody is left who could change it.
            std::future::pending::<()>().await;
        }
        turns
    })
}

impl Notices {
    pub(crate) fn new(known: &Arc<Known>, key: Key) -> Self {
        Self { known: Arc::clone(known), key, changed: changed(known.turns()), is_due: true }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        while let Poll::Ready(turns) = self.changed.as_mut().poll(context) {
            self.is_due = true;
            self.changed = changed(turns);
        }
        self.is_due
    }

    fn take(&mut self) -> Vec<u8> {
        self.is_due = false;
        let owed = self.known.sessions().owed(&self.key);
        owed.into_iter().flat_map(|message| sse::event(None, message)).collect()
    }
}

impl Events {
    /// A stream that holds the answer to a request, or to none.
    pub(crate) fn new(sent: Sent, waiting: Option<Waiting>, notices: Option<Notices>) -> Self {
        Self {
            reader: Reader::new(EVENT_CAP),
            held: Vec::new(),
            is_cut: false,
            without_mark: None,
            has_begun: false,
            last_sent: Instant::now(),
            sent,
            waiting,
            has_large: false,
            notices,
        }
    }

    /// Looks at a piece, and gives what is to be passed on now.
    pub(super) fn pass(&mut self, piece: Bytes) -> Bytes {
        self.has_begun = true;
        let passed = self.whole_events(piece);
        if !passed.is_empty() {
            self.last_sent = Instant::now();
        }
        let Some(without_mark) = &mut self.without_mark else { return passed };
        let (held, part) = without_mark.pass(&passed);
        if held.is_empty() {
            return passed.slice_ref(part);
        }
        let mut both = BytesMut::with_capacity(held.len() + part.len());
        both.put_slice(held);
        both.put_slice(part);
        both.freeze()
    }

    fn whole_events(&mut self, piece: Bytes) -> Bytes {
        let mut rest = &*piece;
        // What is passed on up to here, unless it is the piece itself from its beginning.
        let mut changed: Option<BytesMut> = None;
        let mut passed = 0;
        while let Some(event) = self.reader.read(&mut rest) {
            let end = piece.len() - rest.len();
            let other = match (event.is_message(), event.data) {
                (true, Data::Kept(data)) => seen(data, &mut self.waiting),
                (true, Data::TooLong) => {
                    self.has_large = true;
                    None
                }
                _ => None,
            };
            let other = other.filter(|_| !self.is_cut).map(|data| self.instead(&data));
            if other.is_some() || !self.held.is_empty() {
                let all = changed.get_or_insert_with(|| BytesMut::from(&piece[..passed]));
                match other {
                    Some(other) => all.put_slice(&other),
                    None => {
                        all.put_slice(&self.held);
                        all.put_slice(&piece[passed..end]);
                    }
                }
                self.held.clear();
                self.held.shrink_to(EVENT_CAP / 4);
            } else if let Some(all) = &mut changed {
                all.put_slice(&piece[passed..end]);
            }
            (passed, self.is_cut) = (end, false);
        }
        let tail = &piece[passed..];
        let is_over = !self.reader.has_begun();
        if !is_over && !self.is_cut && self.held.len() + tail.len() <= EVENT_CAP {
            self.held.extend_from_slice(tail);
        } else if !tail.is_empty() {
            if !self.held.is_empty() || changed.is_some() {
                let all = changed.get_or_insert_with(|| BytesMut::from(&piece[..passed]));
                all.put_slice(&self.held);
                all.put_slice(tail);
                self.held = Vec::new();
            }
            (passed, self.is_cut) = (piece.len(), !is_over);
        }
        changed.map_or_else(|| piece.slice(..passed), BytesMut::freeze)
    }

    /// The event that just ended, with other data.
    fn instead(&self, data: &[u8]) -> Vec<u8> {
        let mut event = Vec::new();
        if let Some(id) = self.reader.last_id() {
            event.extend_from_slice(b"id: ");
            event.extend_from_slice(id);
            event.push(b'\n');
        }
        event.append(&mut sse::event(None, &String::from_utf8_lossy(data)));
        event
    }

    /// May something be inserted now, as the client sees the stream?
    pub(super) fn may_insert(&self) -> bool {
        if self.held.is_empty() { self.reader.is_between_events() } else { !self.is_cut }
    }

    /// The comment, if it is time for one and it may stand here.
    pub(super) fn comment(&mut self) -> Option<Bytes> {
        if self.last_sent.elapsed() < SILENCE {
            return None;
        }
        self.last_sent = Instant::now();
        if !self.may_insert() {
            return None;
        }
        self.inserted();
        Some(Bytes::from_static(sse::COMMENT))
    }

    /// Notifications of ours, if there are any and they may stand here.
    pub(super) fn notices(&mut self, context: &mut Context<'_>) -> Option<Bytes> {
        let may_insert = self.may_insert();
        let notices = self.notices.as_mut()?;
        if !notices.poll(context) || !may_insert {
            return None;
        }
        let events = notices.take();
        if events.is_empty() {
            return None;
        }
        self.last_sent = Instant::now();
        self.inserted();
        Some(events.into())
    }

    fn inserted(&mut self) {
        if !self.has_begun {
            self.without_mark.get_or_insert_default();
        }
    }

    /// Was the request answered, if there is one?
    pub(super) fn is_answered(&self) -> bool {
        self.waiting.is_none()
    }

    /// If the stream ends by itself now, can all have been said? An event that was too large may have been the answer.
    pub(super) fn may_be_answered(&self) -> bool {
        self.is_answered() || self.has_large
    }

    /// From where the stream can be resumed.
    pub(super) fn last_id(&self) -> Option<&[u8]> {
        self.reader.last_id()
    }

    /// How long the server asks to wait before.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.reader.retry()
    }

    /// The stream broke, and another one follows. Gives what ends the event in progress.
    pub(super) fn breaks(&mut self) -> Bytes {
        let end = self.abandon();
        self.reader.restart();
        self.without_mark = Some(WithoutMark::default());
        end.into()
    }

    fn abandon(&mut self) -> Vec<u8> {
        self.held.clear();
        if std::mem::take(&mut self.is_cut) { self.reader.abandon() } else { Vec::new() }
    }

    /// What is sent last after the server broke off.
    pub(super) fn end(&mut self, told: Option<Told>) -> Bytes {
        let mut end = self.abandon();
        if let Some((waiting, told)) = self.waiting.take().zip(told) {
            end.append(&mut sse::event(None, &String::from_utf8_lossy(&(waiting.last_word)(told))));
        }
        end.into()
    }

    /// What was held back when the stream ended by itself.
    pub(super) fn rest(&mut self) -> Bytes {
        let mut rest = self.without_mark.take().map_or_else(Vec::new, |mark| mark.rest().to_vec());
        rest.append(&mut self.held);
        rest.into()
    }
}

/// Looks at a message. Gives another one in its place, if its error bears our number.
pub(super) fn seen(data: &[u8], waiting: &mut Option<Waiting>) -> Option<Vec<u8>> {
    let message = Message::read(data);
    if let Some(request) = waiting.as_mut()
        && message.kind == Kind::Response
        && message.id.as_ref().is_some_and(|id| id.answers(&request.id))
    {
        if let Some(listener) = request.listener.take() {
            listener(Some(data));
        }
        *waiting = None;
    }
    let may_be_ours = message.error_code == Some(OUR_CODE) || message.is_ambiguous || message.kind == Kind::Batch;
    if may_be_ours { without_our_code(data) } else { None }
}
