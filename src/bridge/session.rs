//! The session of a client on the wire until 2025-11-25: its id, its protocol version, and which messages have to wait for
//! its beginning.
//!
//! Over HTTP nothing keeps messages in order, so those after `initialize` wait for its answer, and those after
//! `notifications/initialized` until that has reached the server.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use tokio::sync::watch;

use crate::mcp::fields::{PROTOCOL_VERSION, SESSION_ID};

/// A message waits so long for the beginning of the session, and is sent then. The server says what it thinks of that.
const LIMIT: Duration = Duration::from_secs(60);

/// How far the beginning of the session is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Beginning {
    hello: Hello,
    /// `notifications/initialized` has not reached the server.
    is_settling: bool,
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
        self.beginning.send_replace(Beginning { hello: Hello::Asked, is_settling: false });
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

    /// The server has it, or will not have it.
    pub(super) fn settled(&self) {
        self.beginning.send_modify(|beginning| beginning.is_settling = false);
    }

    /// Waits until a message may be sent.
    pub(super) async fn wait(&self, waits: Waits) {
        let mut beginning = self.beginning.subscribe();
        let may = |beginning: &Beginning| match waits {
            Waits::Nothing => true,
            Waits::ForId => beginning.hello != Hello::Asked,
            Waits::ForAnswer => beginning.hello == Hello::Over,
            Waits::ForBeginning => *beginning == Beginning::default(),
        };
        if tokio::time::timeout(LIMIT, beginning.wait_for(may)).await.is_err() {
            tracing::warn!("the session has not begun within a minute; sending all the same");
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
        session.settled();
        assert!(may(&session, Waits::ForBeginning).await);
        assert_eq!((session.fields().len(), session.asked().len(), session.fields().len()), (2, 2, 0), "wire 19");
    }

    #[tokio::test(start_paused = true)]
    async fn no_message_waits_for_ever() {
        let session = Session::default();
        session.asked();
        session.wait(Waits::ForBeginning).await;
    }
}
