//! A request and its answer, as the other rooms see them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::{Certificate, NamedBy, REQUEST_LIMIT};
use crate::clock::unix;
use crate::oauth::{Members, Said};

/// One request.
#[derive(Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// The absolute URL.
    pub url: String,
    /// Header fields. Values that are secret are marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body. It is cleared from memory afterwards.
    pub body: Option<Body>,
    /// Who named the host.
    pub named_by: NamedBy,
    /// The time limit from the start to the end of the answer.
    pub limit: Duration,
    /// May it be sent once more when a kept connection breaks before the first byte of the answer? A request that carries
    /// an assertion may not: the server may have taken the assertion. [`super::Error::Stale`] then tells the sender, who
    /// can make a new one.
    pub repeatable: bool,
    /// The client certificate of the TLS handshake.
    pub certificate: Option<Arc<Certificate>>,
    /// The Unix socket of a platform's API. It is dialled instead of the URL's host.
    pub socket: Option<PathBuf>,
}

/// A request body. It may hold an assertion, so `Debug` shows nothing of it.
pub struct Body {
    /// The media type.
    pub content_type: &'static str,
    /// The bytes.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body(..)")
    }
}

impl Ask {
    /// A GET for a JSON document. It is repeatable.
    pub fn get(url: &str, named_by: NamedBy) -> Self {
        let accept = (reqwest::header::ACCEPT, HeaderValue::from_static("application/json"));
        Self {
            method: Method::GET,
            url: url.to_owned(),
            headers: vec![accept],
            body: None,
            named_by,
            limit: REQUEST_LIMIT,
            repeatable: true,
            certificate: None,
            socket: None,
        }
    }

    /// A POST of a body. It is not repeatable, unless the caller says so.
    pub fn post(url: &str, named_by: NamedBy, body: Body) -> Self {
        Self { method: Method::POST, body: Some(body), repeatable: false, ..Self::get(url, named_by) }
    }
}

/// An answer. Its body may hold a token, so there is no `Debug`.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body, at most 64 KiB.
    pub body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// `Date` (RFC 9110 section 6.6.1) in seconds since 1970: the time by the other side's clock.
    pub fn date(&self) -> Option<i64> {
        let date = self.headers.get(reqwest::header::DATE)?.to_str().ok()?;
        httpdate::parse_http_date(date.trim()).ok().map(unix)
    }

    /// `Retry-After` (RFC 9110 section 10.2.3), at most an hour. A date is compared with the answer's own `Date`, because
    /// our clock may differ from the server's; without `Date` there is no result.
    pub fn retry_after(&self) -> Option<Duration> {
        const CAP: Duration = Duration::from_secs(3_600);
        let text = |name| self.headers.get(name)?.to_str().ok().map(str::trim);
        let asked = text(reqwest::header::RETRY_AFTER)?;
        if let Ok(seconds) = asked.parse() {
            return Some(Duration::from_secs(seconds).min(CAP));
        }
        let date = |text: &str| httpdate::parse_http_date(text).ok();
        let (then, now) = (date(asked)?, date(text(reqwest::header::DATE)?)?);
        Some(then.duration_since(now).unwrap_or_default().min(CAP))
    }

    /// The body as JSON of this type, if the media type says that it is JSON. The caller has checked the status.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, &'static str> {
        serde_json::from_str(self.json_text()?).map_err(|_| "the answer is not the JSON object it should be")
    }

    /// The body as a JSON object, if the media type says that it is JSON. The caller has checked the status.
    pub(crate) fn members(&self) -> Result<Members<'_>, String> {
        Members::read(self.json_text()?)
    }

    /// What an answer that is no grant says about the failure.
    pub(crate) fn said(&self) -> Said {
        self.text().map(|text| Said::read(&self.media_type(), text)).unwrap_or_default()
    }

    /// The body as text, if the media type says that it is JSON. A byte order mark is left out (RFC 8259 section 8.1).
    pub(crate) fn json_text(&self) -> Result<&str, &'static str> {
        let media = self.media_type();
        if media != "application/json" && !(media.starts_with("application/") && media.ends_with("+json")) {
            return Err("the answer is not application/json");
        }
        self.text()
    }

    /// The body as text. Fails if it is encoded, which was not asked for, or not UTF-8.
    pub(crate) fn text(&self) -> Result<&str, &'static str> {
        let encoding = self.headers.get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
        match encoding.as_deref() {
            None | Some(b"" | b"identity") => {}
            Some(b"gzip" | b"x-gzip") => return Err("the answer is compressed (gzip), which was not asked for"),
            Some(b"br") => return Err("the answer is compressed (br), which was not asked for"),
            Some(b"deflate") => return Err("the answer is compressed (deflate), which was not asked for"),
            Some(b"zstd") => return Err("the answer is compressed (zstd), which was not asked for"),
            Some(_) => return Err("the answer has a Content-Encoding, which was not asked for"),
        }
        let text = std::str::from_utf8(&self.body).map_err(|_| "the answer is not UTF-8")?;
        Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
    }

    /// The media type, without parameters and in lower case. Empty if there is none.
    pub(crate) fn media_type(&self) -> String {
        let media = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}
