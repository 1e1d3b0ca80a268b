//! What the answer to a request teaches about its session: how it was opened, to what its client has subscribed, and which log
//! level it has set.
//!
//! It is learned before the client gets the answer, so that its next request finds it.

use std::sync::Arc;

use hyper::Response;
use hyper::header::{ACCEPT_ENCODING, HeaderValue};

use super::Streamed;
use super::exchange::Errand;
use super::session::Change;
use super::stream::Listener;
use super::verdict::{Effect, Sent};
use crate::mcp::fields::SESSION_ID;
use crate::mcp::rpc::{self, Kind, Message};

/// To be learned if the server answers well.
pub(super) enum Lesson {
    /// A session begins, with these parameters of the client.
    Opened(Option<Box<str>>),
    Changed(Change),
}

impl Lesson {
    /// What a request may teach. The answer has to be readable then, so it is asked for without an encoding.
    pub(super) fn of(errand: &mut Errand) -> Option<Self> {
        let Sent::Request(Effect::Probe | Effect::Harmless) = errand.sent else { return None };
        let body = errand.body.whole()?;
        let message = Message::read(body);
        let lesson = match message.method.as_deref() {
            Some("initialize") => Self::Opened(rpc::params(body).map(|params| params.get().into())),
            _ if errand.session.is_some() => Self::Changed(Change::of(&message, body)?),
            _ => return None,
        };
        if matches!(lesson, Self::Opened(_)) {
            // A session begins, so the request belongs to none.
            errand.headers.remove(SESSION_ID);
            (errand.session, errand.opens, errand.jar) = (None, true, None);
        }
        errand.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Some(lesson)
    }

    /// Who learns it from the body of this answer.
    pub(super) fn listener(self, errand: &Errand, answer: &Response<Streamed>) -> Option<Listener> {
        if !answer.status().is_success() {
            return None;
        }
        let known = Arc::clone(&errand.known);
        match self {
            Self::Opened(params) => {
                let key = errand.opened(answer)?;
                Some(Box::new(move |message| {
                    if message.is_none_or(is_result) {
                        known.sessions().opened(key, params.as_deref(), message.unwrap_or_default());
                    }
                }))
            }
            Self::Changed(change) => {
                let key = errand.session.as_ref()?.key.clone();
                Some(Box::new(move |message| {
                    if message.is_none_or(is_result) {
                        known.sessions().changed(&key, change);
                    }
                }))
            }
        }
    }
}

/// Is this an answer and no error?
fn is_result(message: &[u8]) -> bool {
    let message = Message::read(message);
    message.kind == Kind::Response && message.error_code.is_none()
}
