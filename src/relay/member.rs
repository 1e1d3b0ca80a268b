//! A request as a member of a session, and the field that says so.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::session::{Key, SessionId};
use crate::mcp::fields::{self, SESSION_ID};

/// The session that a request belongs to.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) key: Key,
    /// The epoch of the session in which the request was last sent. `None`: the id was never seen.
    pub(super) epoch: Option<u32>,
}

/// The id in the head of an answer to `initialize`.
pub(super) fn session_id(headers: &HeaderMap) -> Option<SessionId> {
    let name = SESSION_ID;
    let mut all = fields::all(headers, &name);
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    SessionId::parse(only.to_str().ok()?)
}

/// An answer to a request of a session has the id that its client holds, if it has one.
pub(super) fn show_own_id(headers: &mut HeaderMap, id: &SessionId) {
    if headers.contains_key(&SESSION_ID) {
        put(headers, &SESSION_ID, Some(id.as_str()));
    }
}

pub(super) fn put(headers: &mut HeaderMap, name: &HeaderName, value: Option<&str>) {
    match value.and_then(|value| HeaderValue::from_str(value).ok()) {
        Some(mut value) => {
            value.set_sensitive(*name == SESSION_ID);
            headers.insert(name, value);
        }
        None => {
            headers.remove(name);
        }
    }
}
