//! The head of a relayed request and of its answer: where it goes, and which fields pass. Pure.
//!
//! The URL is made from the configuration. Of the client's target only the path below the server's name and the query are used.
//!
//! Dropped are fields of one connection, fields that name or prove somebody, and fields that would make a local client log in
//! or go elsewhere. All others pass as they are. The fields of the credential are added by the caller of this module, last.

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Uri};

use crate::mcp::fields::{self, SESSION_ID};
use crate::oauth::ServerUrl;

/// The layers of encoding that a path is read through. What has more was made to confuse.
const LAYERS: usize = 8;
/// Before this path stands nothing, and after it the name of a server.
const PREFIX: &str = "/mcp/";

/// Why a request cannot be relayed, whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHead {
    /// Servers differ in what such a path means.
    #[error("the path has dot segments, empty segments, or encoded slashes, dots or control characters")]
    Path,
    /// It names a field that frames or directs the request.
    #[error("`Connection` names a field that must not be removed, or cannot be read")]
    Connection,
    /// The protocol would be another one afterwards.
    #[error("`Upgrade` is not served here")]
    Upgrade,
    /// A browser's question whether it may send the request.
    #[error("OPTIONS is refused: there is no CORS here")]
    Preflight,
    /// The answer to TRACE would show the token.
    #[error("TRACE is not relayed")]
    Trace,
    /// A page could send other media types without asking.
    #[error("the body must be `application/json`")]
    Media,
    /// Servers differ in which of them they take.
    #[error("`Mcp-Session-Id` is there more than once")]
    Sessions,
    /// The server's own URL has a query.
    #[error("this server has no paths or queries below its URL")]
    Below,
}

impl BadHead {
    /// The status of the answer.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Path | Self::Connection | Self::Sessions => 400,
            Self::Upgrade | Self::Preflight | Self::Below => 403,
            Self::Trace => 405,
            Self::Media => 415,
        }
    }
}

/// What a path names: a server, and a path below its URL that is empty or begins with a slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) name: &'a str,
    pub(crate) below: &'a str,
}

impl<'a> Place<'a> {
    /// Reads the path of a request. `None` if nothing can be there.
    pub(crate) fn of(path: &'a str) -> Result<Option<Self>, BadHead> {
        let Some(rest) = path.strip_prefix(PREFIX) else { return Ok(None) };
        let (name, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if below.is_empty() {
            return Ok((!name.is_empty()).then_some(Self { name, below }));
        }
        if !is_plain(below) {
            return Err(BadHead::Path);
        }
        // A client that is refused looks for a place to log in. There is none, here or at the server.
        let decoded = percent_encoding::percent_decode_str(below).decode_utf8_lossy().to_ascii_lowercase();
        let first = decoded.split('/').nth(1).unwrap_or_default();
        let is_login = matches!(first, "register" | "authorize" | "token");
        let is_known = decoded.split('/').any(|segment| segment == ".well-known");
        Ok((!name.is_empty() && !is_login && !is_known).then_some(Self { name, below }))
    }
}

/// Does every server read this path alike? A final slash is fine.
fn is_plain(path: &str) -> bool {
    let mut text = path.as_bytes().to_vec();
    // Each round takes away one layer of encoding, until nothing changes. A long path can have thousands of layers.
    for _ in 0..LAYERS {
        let inner = text.strip_suffix(b"/").unwrap_or(&text);
        let segments = || inner.split(|&byte| byte == b'/').skip(1);
        let name = |segment: &[u8]| segment.split(|&byte| byte == b';').next().unwrap_or_default().to_vec();
        if segments().any(|segment| matches!(&*name(segment), b"" | b"." | b"..")) {
            return false;
        }
        if text.iter().any(|&byte| byte == b'\\' || byte < b' ' || byte == 0x7f) {
            return false;
        }
        let decoded: Vec<u8> = percent_encoding::percent_decode(&text).collect();
        if decoded == text {
            return true;
        }
        let slashes = |text: &[u8]| text.iter().filter(|&&byte| byte == b'/').count();
        if slashes(&decoded) != slashes(&text) {
            return false;
        }
        text = decoded;
    }
    false
}

/// Checks what every relayed request must be, before its body is read.
pub(crate) fn check(method: &Method, headers: &HeaderMap, has_body: bool) -> Result<(), BadHead> {
    if fields::all(headers, &UPGRADE).next().is_some() {
        return Err(BadHead::Upgrade);
    }
    match *method {
        Method::OPTIONS => return Err(BadHead::Preflight),
        Method::TRACE | Method::CONNECT => return Err(BadHead::Trace),
        _ => {}
    }
    if fields::all(headers, &SESSION_ID).nth(1).is_some() {
        return Err(BadHead::Sessions);
    }
    let needs_media = has_body || *method == Method::POST;
    let has_one = || fields::all(headers, &CONTENT_TYPE).count() == 1;
    if needs_media && !(has_one() && fields::is_media(headers, "application/json")) {
        return Err(BadHead::Media);
    }
    Ok(())
}

/// The URL of the server for a path below it and the query of a request.
pub(crate) fn url(server: &ServerUrl, below: &str, target: &Uri) -> Result<ServerUrl, BadHead> {
    if below.is_empty() && target.query().is_none() {
        return Ok(server.clone());
    }
    if server.url().query().is_some() {
        return Err(BadHead::Below);
    }
    let own = server.as_str();
    let mut text = if below.is_empty() { own.to_owned() } else { format!("{}{below}", own.trim_end_matches('/')) };
    if let Some(query) = target.query() {
        text.push('?');
        text.push_str(query);
    }
    let url = ServerUrl::parse(&text).map_err(|_| BadHead::Path)?;
    // What follows must not have become another host or path.
    if server.covers(&url) { Ok(url) } else { Err(BadHead::Path) }
}

/// The fields of the request that the server gets, without those of the credential. `outer` names the field of a front door. `Host`
/// and `Content-Length` are still among them: whoever writes the request leaves them out and writes its own.
pub(crate) fn to_server(headers: HeaderMap, outer: Option<&str>) -> Result<HeaderMap, BadHead> {
    let named = named_by_connection(&headers)?;
    let passes = |name: &HeaderName| {
        let text = name.as_str();
        !(is_hop(text)
            || text == "expect"
            || names_client(text)
            || named.contains(name)
            || outer.is_some_and(|outer| text.eq_ignore_ascii_case(outer)))
    };
    Ok(keep(headers, passes))
}

/// The fields of the answer that the client gets.
pub(crate) fn to_client(headers: HeaderMap) -> HeaderMap {
    // A server that names what must not be removed has named nothing.
    let named = named_by_connection(&headers).unwrap_or_default();
    keep(headers, |name| !(is_hop(name.as_str()) || leads_client(name.as_str()) || named.contains(name)))
}

/// Most fields pass, so the others are taken out.
fn keep(mut headers: HeaderMap, passes: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let dropped: Vec<HeaderName> = headers.keys().filter(|name| !passes(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    headers
}

/// The fields that are for this connection alone because `Connection` names them.
fn named_by_connection(headers: &HeaderMap) -> Result<Vec<HeaderName>, BadHead> {
    let mut named = Vec::new();
    for value in fields::all(headers, &CONNECTION) {
        let text = value.to_str().map_err(|_| BadHead::Connection)?;
        // Usual, and for this connection alone in any case.
        let is_usual = |name: &str| name.eq_ignore_ascii_case("keep-alive") || name.eq_ignore_ascii_case("close");
        if is_usual(text) {
            continue;
        }
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty() && !is_usual(name)) {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| BadHead::Connection)?;
            if [HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
                return Err(BadHead::Connection);
            }
            named.push(name);
        }
    }
    Ok(named)
}

/// Fields of one connection (RFC 9110 section 7.6.1).
fn is_hop(name: &str) -> bool {
    matches!(
        name,
        "connection" | "te" | "trailer" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" | "close"
    )
}

/// Fields that name or prove the client, or say from where the request came.
fn names_client(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "proxy-authorization"
            | "cookie"
            | "cookie2"
            | "forwarded"
            | "via"
            | "dpop"
            | "x-serverless-authorization"
            | "x-real-ip"
            | "client-ip"
            | "true-client-ip"
    ) || name.starts_with("x-amz-")
        || name.starts_with("x-forwarded-")
}

/// Fields that would make a local client log in, go elsewhere or keep something, and those that hold a proof.
fn leads_client(name: &str) -> bool {
    matches!(
        name,
        "www-authenticate"
            | "proxy-authenticate"
            | "authentication-info"
            | "proxy-authentication-info"
            | "authorization"
            | "proxy-authorization"
            | "dpop"
            | "dpop-nonce"
            | "set-cookie"
            | "set-cookie2"
            | "clear-site-data"
            | "location"
            | "refresh"
            | "alt-svc"
    ) || name.starts_with("access-control-")
}

#[cfg(test)]
mod tests;
