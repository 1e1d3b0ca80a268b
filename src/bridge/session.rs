//! The session of a client on the wire until 2025-11-25: its id, its protocol version, and which messages have to wait for
//! its beginning.
//!
//! Over HTTP nothing keeps messages in order, so those after `initialize` wait for its answer, and those after
//! `notifications/initialized` until that has reached the server. A call waits a little for the stream of what the server sends by
//! itself, too: many servers ask their client there, and what they send before it is open is lost.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use tokio::sync::watch;

use crate::mcp::fields::{PROTOCOL_VERSION, SESSION_ID};

/// A message waits so long for the beginning of the session, and is sent then. The server says what it thinks of that.
const LIMIT: Duration = Duration::from_secs(60);
/// So long a call waits for the stream of the server. Some servers send its head with its first event.
const STREAM_LIMIT: Duration = Duration::from_secs(1);

/// How far the beginning of the session is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Beginning {
    hello: Hello,
    /// `notifications/initialized` has not reached the server.
    is_settling: bool,
    /// The stream of the server is asked for, and nobody knows yet whether there is one.
    is_opening: bool,
}

/// How far `initialize` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hello {
    /// It is answered, or there was none.
    #[default]
    Over,
    Asked,
    /// The head of the answer is there, so the id is known.
    Head,
}

/// What a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    Nothing,
    /// The id of the session: an answer to the server or a ping may come before that to `initialize`.
    ForId,
    /// The answer to `initialize`.
    ForAnswer,
    /// All of the beginning.
    ForBeginning,
    /// The stream of the server, too.
    ForStream,
}

/// The present session.
#[derive(Debug, Default)]
pub(super) struct Session {
    beginning: watch::Sender<Beginning>,
    fields: Mutex<HeaderMap>,
}

impl Session {
    fn fields_now(&self) -> MutexGuard<'_, HeaderMap> {
        self.fields.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fields that its messages have.
    pub(super) fn fields(&self) -> HeaderMap {
        self.fields_now().clone()
    }

    /// `initialize` is asked for. Gives the fields of the session before it.
    pub(super) fn asked(&self) -> HeaderMap {
        self.beginning.send_replace(Beginning { hello: Hello::Asked, ..Beginning::default() });
        std::mem::take(&mut self.fields_now())
    }

    /// The head of the answer to `initialize` is there.
    pub(super) fn opened(&self, id: Option<HeaderValue>) {
        if let Some(id) = id {
            self.fields_now().insert(SESSION_ID, id);
        }
        self.beginning.send_modify(|beginning| beginning.hello = Hello::Head);
    }

    /// Client and server agree on this version.
    pub(super) fn agreed(&self, version: Option<HeaderValue>) {
        if let Some(version) = version {
            self.fields_now().insert(PROTOCOL_VERSION, version);
        }
    }

    /// `initialize` is answered, or will not be.
    pub(super) fn answered(&self) {
        self.beginning.send_modify(|beginning| beginning.hello = Hello::Over);
    }

    /// The client sends `notifications/initialized`.
    pub(super) fn settling(&self) {
        self.beginning.send_modify(|beginning| beginning.is_settling = true);
    }

    /// The server has it, and is asked for its stream; or it will not have it.
    pub(super) fn settled(&self, has_it: bool) {
        self.beginning.send_modify(|beginning| {
            beginning.is_settling = false;
            beginning.is_opening = has_it;
        });
    }

    /// The stream of the server is open, or there is none.
    pub(super) fn listens(&self) {
        self.beginning.send_modify(|beginning| beginning.is_opening = false);
    }

    /// Waits until a message may be sent.
    pub(super) async fn wait(&self, waits: Waits) {
        let mut beginning = self.beginning.subscribe();
        let may = |beginning: &Beginning| match waits {
            Waits::Nothing => true,
            Waits::ForId => beginning.hello != Hello::Asked,
            Waits::ForAnswer => beginning.hello == Hello::Over,
            Waits::ForBeginning | Waits::ForStream => beginning.hello == Hello::Over && !beginning.is_settling,
        };
        if tokio::time::timeout(LIMIT, beginning.wait_for(may)).await.is_err() {
            tracing::warn!("the session has not begun within a minute; sending all the same");
        }
        let is_open = |beginning: &Beginning| waits != Waits::ForStream || !beginning.is_opening;
        if tokio::time::timeout(STREAM_LIMIT, beginning.wait_for(is_open)).await.is_err() {
            debug!("the stream of the server is not open yet; sending all the same");
            // Some servers open it with their first event: the calls after this one do not wait again.
            self.listens();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn may(session: &Session, waits: Waits) -> bool {
        tokio::time::timeout(Duration::from_millis(1), session.wait(waits)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stays_closed_is_waited_for_once() {
        let session = Session::default();
        session.asked();
        session.answered();
        session.settling();
        session.settled(true);
        assert!(!may(&session, Waits::ForStream).await, "a call waits for the stream");
        session.wait(Waits::ForStream).await;
        assert!(may(&session, Waits::ForStream).await, "the next does not");
    }

    #[tokio::test(start_paused = true)]
    async fn messages_wait_for_the_beginning_of_their_session() {
        let session = Session::default();
        assert!(may(&session, Waits::ForBeginning).await, "any request may be the first");
        session.asked();
        assert!(may(&session, Waits::Nothing).await && !may(&session, Waits::ForId).await);
        session.opened(Some(HeaderValue::from_static("s")));
        assert!(may(&session, Waits::ForId).await && !may(&session, Waits::ForAnswer).await);
        session.agreed(Some(HeaderValue::from_static("2025-11-25")));
        session.answered();
        session.settling();
        assert!(may(&session, Waits::ForAnswer).await && !may(&session, Waits::ForBeginning).await);
        session.settled(true);
        assert!(may(&session, Waits::ForBeginning).await && !may(&session, Waits::ForStream).await);
        session.listens();
        assert!(may(&session, Waits::ForStream).await);
        assert_eq!((session.fields().len(), session.asked().len(), session.fields().len()), (2, 2, 0), "wire 19");
    }

    #[tokio::test(start_paused = true)]
    async fn no_message_waits_for_ever() {
        let session = Session::default();
        session.asked();
        session.wait(Waits::ForBeginning).await;
        session.settled(true);
        session.wait(Waits::ForStream).await;
    }
}
