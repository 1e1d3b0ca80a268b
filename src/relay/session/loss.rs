//! Whether an answer means that the server has lost the session.

use crate::mcp::rpc::METHOD_NOT_FOUND;
use crate::relay::verdict::Sent;

/// What an answer says about the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    No,
    /// Perhaps: it is lost if a [`ping`] with the same id is refused too.
    Perhaps,
    Lost,
}

/// What the answer to a request with a known session id says about the session. `code` is that of the JSON-RPC error in
/// the answer, if there is one.
pub(crate) fn loss(sent: Sent, status: u16, code: Option<i64>) -> Loss {
    match (sent, status) {
        // The client ends the session anyway.
        (Sent::End, _) => Loss::No,
        // "No such method" is not "no such session".
        _ if code == Some(METHOD_NOT_FOUND) => Loss::No,
        (_, 404) => Loss::Lost,
        // Many servers answer 400 to a session that they do not know, and also to a bad request.
        (_, 400) => Loss::Perhaps,
        _ => Loss::No,
    }
}

/// Was the [`ping`] refused for its session?
pub(crate) fn is_refused(status: u16, code: Option<i64>) -> bool {
    matches!(status, 400 | 404) && code != Some(METHOD_NOT_FOUND)
}

/// A request that every server answers and that changes nothing.
pub(crate) fn ping() -> &'static [u8] {
    br#"{"jsonrpc":"2.0","id":"safeconduct-ping","method":"ping"}"#
}
