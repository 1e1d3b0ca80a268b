//! The fields of HTTP that MCP adds (Streamable HTTP, "Session Management", "Protocol Version Header", "Resumability"), and what
//! the content of a message is.

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

/// The field with the id of a session.
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The field with the version of the protocol.
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The field that asks for the events after this one.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The values of a field. A head has few fields: to look at each takes a third of the time that hashing the name does.
pub(crate) fn all<'a>(headers: &'a HeaderMap, name: &'a HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
    headers.iter().filter(move |(other, _)| *other == name).map(|(_, value)| value)
}

/// Is the content of this media type, whatever its parameters?
pub(crate) fn is_media(headers: &HeaderMap, media: &str) -> bool {
    let value = all(headers, &CONTENT_TYPE).next().map(HeaderValue::as_bytes).unwrap_or_default().trim_ascii_start();
    let Some((start, rest)) = value.split_at_checked(media.len()) else { return false };
    start.eq_ignore_ascii_case(media.as_bytes()) && matches!(rest.trim_ascii_start(), [] | [b';', ..])
}

/// Is the content as it is, without an encoding?
pub(crate) fn is_unencoded(headers: &HeaderMap) -> bool {
    all(headers, &CONTENT_ENCODING).all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"))
}
