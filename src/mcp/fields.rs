//! The fields of HTTP that MCP adds (Streamable HTTP, "Session Management", "Protocol Version Header", "Resumability"), and what
//! the content of a message is.

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

/// The field with the id of a session.
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The field with the version of the protocol.
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The field that asks for the events after this one.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Is the content of this media type, whatever its parameters?
pub(crate) fn is_media(headers: &HeaderMap, media: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default().trim_ascii_start();
    let Some((start, rest)) = value.split_at_checked(media.len()) else { return false };
    start.eq_ignore_ascii_case(media.as_bytes()) && matches!(rest.trim_ascii_start(), [] | [b';', ..])
}

/// Is the content as it is, without an encoding?
pub(crate) fn is_unencoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"))
}
