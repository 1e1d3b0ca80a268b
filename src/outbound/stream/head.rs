//! Reads the heads of answers (RFC 9112 sections 4 and 5). Pure: no I/O.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{Response, StatusCode, Version};

use super::super::{FIELDS, HEAD_CAP};
use super::fault::Fault;
use super::framing::Framing;

/// A head, with what it says about the message and the connection.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) answer: Response<()>,
    says: Says,
}

#[derive(Debug, Default)]
struct Says {
    length: Option<u64>,
    is_chunked: bool,
    /// The fields about the length contradict each other or the grammar.
    is_odd: bool,
    closes: bool,
}

/// Takes the head out of what arrived. `None` if it is not whole yet.
pub(super) fn take(arrived: &mut Bytes) -> Result<Option<Head>, Fault> {
    let window = &arrived[..arrived.len().min(HEAD_CAP)];
    // The parser passes over empty lines, which may come before a request only (section 2.2).
    if window.first().is_some_and(|byte| *byte != b'H') {
        return Err(Fault::NotHttp);
    }
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let end = match parser.parse_response_with_uninit_headers(&mut parsed, window, &mut fields) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) if window.len() < HEAD_CAP => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooLarge),
        Err(_) => return Err(Fault::NotHttp),
    };
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(|_| Fault::NotHttp)?;
    *answer.version_mut() = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let (mut headers, mut says) = (HeaderMap::with_capacity(parsed.headers.len()), Says::default());
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Fault::NotHttp)?;
        says.hear(&name, field.value);
        // A part of what arrived, and no copy of it.
        let value = HeaderValue::from_maybe_shared(arrived.slice_ref(field.value)).map_err(|_| Fault::NotHttp)?;
        headers.append(name, value);
    }
    *answer.headers_mut() = headers;
    arrived.advance(end);
    Ok(Some(Head { answer, says }))
}

impl Says {
    fn hear(&mut self, name: &HeaderName, value: &[u8]) {
        match *name {
            CONTENT_LENGTH => {
                let length = length(value);
                self.is_odd |= length.is_none() || self.length.is_some_and(|before| Some(before) != length);
                self.length = length;
            }
            // It changes nothing, and older servers say it.
            TRANSFER_ENCODING if value.eq_ignore_ascii_case(b"identity") => {}
            TRANSFER_ENCODING => {
                self.is_odd |= self.is_chunked || !value.eq_ignore_ascii_case(b"chunked");
                self.is_chunked = true;
            }
            CONNECTION => self.closes |= closes(value),
            _ => {}
        }
    }
}

impl Head {
    /// How the body is framed (section 6.3): by its length, by chunks, or by the end of the connection. Two different
    /// lengths contradict each other, and no other coding was asked for.
    pub(super) fn framing(&self, is_head: bool) -> Result<Framing, Fault> {
        let says = &self.says;
        if is_head || matches!(self.answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Framing::Length(0));
        }
        let is_http10 = self.answer.version() == Version::HTTP_10;
        match says.length {
            _ if says.is_odd || (says.is_chunked && (says.length.is_some() || is_http10)) => Err(Fault::Length),
            Some(length) => Ok(Framing::Length(length)),
            None if says.is_chunked => Ok(Framing::CHUNKED),
            None => Ok(Framing::Close),
        }
    }

    /// The same for an answer whose head contradicts itself, if nobody else reads it: chunks count for more than a length (section
    /// 6.3, rule 3).
    pub(super) fn likely_framing(&self) -> Framing {
        if self.says.is_chunked && !self.says.is_odd { Framing::CHUNKED } else { Framing::Unknown }
    }

    /// May the connection be used again (section 9.3)? Not if a body is announced where there can be none: it may come all the same,
    /// and would be taken for the next answer. The length in a 304 is that of another answer (RFC 9110 section 8.6).
    pub(super) fn keeps(&self, is_head: bool) -> bool {
        let says = &self.says;
        let announced = match self.answer.status() {
            _ if is_head => false,
            StatusCode::NO_CONTENT => says.is_odd || says.is_chunked || says.length.is_some_and(|length| length > 0),
            StatusCode::NOT_MODIFIED => says.is_odd || says.is_chunked,
            _ => false,
        };
        self.answer.version() == Version::HTTP_11 && !says.closes && !announced
    }
}

/// Does a `Connection` field have the option `close`?
pub(super) fn closes(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// One number, however often it is said (RFC 9110 section 8.6).
fn length(value: &[u8]) -> Option<u64> {
    let mut lengths = value.split(|byte| *byte == b',').map(|one| number(one.trim_ascii()));
    let first = lengths.next()?;
    first.filter(|_| lengths.all(|other| other == first))
}

/// Decimal digits alone, at least one, that fit into 64 bits.
fn number(value: &[u8]) -> Option<u64> {
    let first = value.first().map(|_| 0_u64);
    value.iter().fold(first, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number?.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<Head, Fault> {
        let mut arrived = Bytes::copy_from_slice(head.as_bytes());
        let head = take(&mut arrived)?.ok_or(Fault::Cut)?;
        assert!(arrived.is_empty(), "{arrived:?}");
        Ok(head)
    }

    fn with(fields: &str) -> Result<Head, Fault> {
        read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"))
    }

    #[test]
    fn the_fields_of_a_head_are_what_was_sent() {
        let head = read("HTTP/1.0 404 Not here\r\nA: b \r\nc:\r\nA:ä\r\nMcp-Session-Id:\t x\r\n\r\n").expect("a head");
        assert_eq!((head.answer.status().as_u16(), head.answer.version()), (404, Version::HTTP_10));
        let fields: Vec<_> =
            head.answer.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("a", &b"b"[..]), ("a", "ä".as_bytes()), ("c", b""), ("mcp-session-id", b"x")]);
        assert_eq!(read("HTTP/1.1 204\r\n\r\n").expect("no reason is needed").answer.status(), 204);
    }

    #[test]
    fn what_is_no_head_is_an_error() {
        for head in [
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n a: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\rc: d\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\0\r\n\r\n",
            "HTTP/1.1 200 OK\r\na\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        ] {
            assert_eq!(read(head).expect_err("no head"), Fault::NotHttp, "{head:?}");
        }
    }

    #[test]
    fn a_head_has_64_kib_and_100_fields_at_most() {
        let fields = |count| with(&"a: b\r\n".repeat(count)).map(|head| head.answer.headers().len());
        assert_eq!((fields(FIELDS), fields(FIELDS + 1)), (Ok(FIELDS), Err(Fault::TooLarge)));
        let around = "HTTP/1.1 200 OK\r\nx: \r\n\r\n".len();
        let sized = |size| with(&format!("x: {}\r\n", "x".repeat(size - around))).map(drop);
        assert_eq!((sized(HEAD_CAP), sized(HEAD_CAP + 1)), (Ok(()), Err(Fault::TooLarge)));
        let mut endless = Bytes::from(format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(HEAD_CAP)));
        assert_eq!(take(&mut endless).map(drop), Err(Fault::TooLarge));
    }

    #[test]
    fn a_body_has_one_length_or_the_answer_is_malformed() {
        let most = u64::MAX;
        for (fields, framing) in [
            ("", Ok(Framing::Close)),
            ("content-length: 0\r\n", Ok(Framing::Length(0))),
            ("Content-Length: 12 \r\n", Ok(Framing::Length(12))),
            ("content-length: 12\r\ncontent-length: 12\r\n", Ok(Framing::Length(12))),
            (&format!("content-length: {most}\r\n"), Ok(Framing::Length(most))),
            (&format!("content-length: {most}0\r\n"), Err(Fault::Length)),
            ("content-length: 12\r\ncontent-length: 13\r\n", Err(Fault::Length)),
            ("content-length: x\r\ncontent-length: 13\r\n", Err(Fault::Length)),
            ("content-length: 12, 12\r\n", Ok(Framing::Length(12))),
            ("content-length: 12, 13\r\n", Err(Fault::Length)),
            ("content-length: 12,\r\n", Err(Fault::Length)),
            ("content-length:\r\n", Err(Fault::Length)),
            ("content-length: +1\r\n", Err(Fault::Length)),
            ("content-length: -1\r\n", Err(Fault::Length)),
            ("content-length: 0x1\r\n", Err(Fault::Length)),
            ("transfer-encoding: Chunked\r\n", Ok(Framing::CHUNKED)),
            ("transfer-encoding: gzip\r\n", Err(Fault::Length)),
            ("transfer-encoding: gzip, chunked\r\n", Err(Fault::Length)),
            ("transfer-encoding: chunked, chunked\r\n", Err(Fault::Length)),
            ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", Err(Fault::Length)),
            ("transfer-encoding: identity\r\n", Ok(Framing::Close)),
            ("transfer-encoding: Identity\r\ncontent-length: 1\r\n", Ok(Framing::Length(1))),
            ("transfer-encoding: identity, chunked\r\n", Err(Fault::Length)),
            ("transfer-encoding:\r\n", Err(Fault::Length)),
            ("transfer-encoding: chunked\r\ncontent-length: 1\r\n", Err(Fault::Length)),
            ("content-length: 1\r\ntransfer-encoding: chunked\r\n", Err(Fault::Length)),
        ] {
            let head = with(fields).expect("a head");
            assert_eq!(head.framing(false), framing, "{fields:?}");
            assert_eq!(head.framing(true), Ok(Framing::Length(0)), "an answer to HEAD has no body");
        }
        let likely = |fields: &str| with(fields).expect("a head").likely_framing();
        assert_eq!(likely("transfer-encoding: chunked\r\ncontent-length: 1\r\n"), Framing::CHUNKED);
        assert_eq!(likely("transfer-encoding: gzip\r\n"), Framing::Unknown);
        assert_eq!(likely("content-length: 12\r\ncontent-length: 13\r\n"), Framing::Unknown);
        let old = read("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").expect("a head");
        assert_eq!(old.framing(false), Err(Fault::Length));
        for status in ["204", "304"] {
            let head = read(&format!("HTTP/1.1 {status} x\r\ncontent-length: 5\r\n\r\n")).expect("a head");
            assert_eq!(head.framing(false), Ok(Framing::Length(0)), "{status}");
        }
    }

    #[test]
    fn a_connection_is_kept_unless_its_head_says_otherwise() {
        for (fields, keeps) in [
            ("", true),
            ("connection: keep-alive\r\n", true),
            ("connection: closed\r\n", true),
            ("connection: close\r\n", false),
            ("Connection: x , CLOSE\r\n", false),
            ("connection: close\r\nconnection: keep-alive\r\n", false),
        ] {
            assert_eq!(with(fields).expect("a head").keeps(false), keeps, "{fields:?}");
        }
        assert!(!read("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n").expect("a head").keeps(false));
    }
}
