//! Finds the beginning and the end of each request on a connection, strictly by RFC 9112, before the HTTP library reads
//! it.
//!
//! If two programs disagree about where a request ends, one of them may take the end of its body for a second request
//! (request smuggling). Like most HTTP libraries, ours is lenient: it accepts a line that ends with LF alone, two equal
//! `Content-Length` fields, or `Content-Length` beside chunked coding. Therefore this parser first reads every byte.
//! Everything that the grammar does not allow, or that has two meanings, is a [`Violation`]. It does not interpret
//! other fields.
//!
//! This module does no I/O: [`Framing::take`] is given the bytes in pieces of any size and returns how many of them may
//! be passed on. A head is passed on only as a whole. `inbound.rs` is the stream that uses it.

mod chunk;
mod class;
mod field;
mod violation;

use chunk::Chunk;
use class::{TARGET, TEXT, TOKEN, is_of};
use field::{Fields, Length, Line};
pub use violation::Violation;

/// How many of the bytes in the last call were read, and how many of those may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) read: usize,
    pub(super) passed: usize,
}

/// A violation. No further bytes of this connection may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    /// How many of the bytes in the last call may be passed on.
    pub(super) passed: usize,
    /// The reason.
    pub(super) violation: Violation,
}

/// The parser for the requests of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    at: At,
    fields: Fields,
    /// Is a head incomplete?
    is_in_head: bool,
    /// Is the version HTTP/1.0?
    is_http10: bool,
    /// The number of bytes of the head so far, and its limit.
    size: usize,
    cap: usize,
    requests: u64,
}

/// The part of a request to which the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The start of a request.
    Start,
    /// After the CR of an empty line before a request.
    EmptyLineCr,
    /// After such an empty line. Only one is allowed (RFC 9112 section 2.2).
    AfterEmptyLine,
    Method,
    TargetStart,
    Target,
    /// After this many bytes of the version.
    Version(usize),
    VersionEnd,
    Field(Line),
    /// The number of bytes that are left.
    Body(u64),
    Chunk(Chunk),
    Trailer(Line),
}

const VERSION: &[u8] = b"HTTP/1.";
/// The usual end of a request line.
const USUAL_VERSION: &[u8] = b" HTTP/1.1\r\n";

impl Framing {
    /// A parser for a new connection. The head of a request may have at most `cap` bytes.
    pub(super) fn new(cap: usize) -> Self {
        let fields = Fields::default();
        Self { at: At::Start, fields, is_in_head: false, is_http10: false, size: 0, cap, requests: 0 }
    }

    /// The number of complete heads.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// Is a head incomplete? If so, a violation belongs to a request that the HTTP library has not seen.
    pub(super) fn is_in_head(&self) -> bool {
        self.is_in_head
    }

    /// Parses further bytes, at most to the end of a request. Of those that were read, an incomplete head may not be passed on
    /// yet; all others may, together with what was held back before.
    ///
    /// Fails at the first violation; do not call it again after that.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Taken, Stop> {
        let (mut read, mut passed) = (0, 0);
        while let Some(byte) = bytes.get(read) {
            let stop = |violation| Stop { passed, violation };
            let mut many = self.skip(&bytes[read..]).map_err(stop)?;
            if many == 0 {
                self.step(*byte).map_err(stop)?;
                many = 1;
            }
            read += many;
            if self.is_in_head {
                self.size += many;
                if self.size > self.cap {
                    return Err(Stop { passed, violation: Violation::TooLarge });
                }
            } else {
                passed = read;
                if self.at == At::Start {
                    break;
                }
            }
        }
        Ok(Taken { read, passed })
    }

    /// Parses all bytes. Returns how many of them may be passed on.
    #[cfg(any(test, safeconduct_fuzz))]
    pub(super) fn take_all(&mut self, bytes: &[u8]) -> Result<usize, Stop> {
        let (mut read, mut passed) = (0, 0);
        while read < bytes.len() {
            let before = read;
            let later =
                |stop: Stop| Stop { passed: if stop.passed > 0 { before + stop.passed } else { passed }, ..stop };
            let taken = self.take(&bytes[before..]).map_err(later)?;
            if taken.passed > 0 {
                passed = before + taken.passed;
            }
            read += taken.read;
        }
        Ok(passed)
    }

    /// Parses a run of bytes at once where many may follow each other, for speed. Returns their number; 0 if `step` is
    /// needed. Fails as `step` does.
    fn skip(&mut self, rest: &[u8]) -> Result<usize, Violation> {
        let run = |class: u8| rest.iter().position(|byte| !is_of(class, *byte)).unwrap_or(rest.len());
        let many = match &mut self.at {
            At::Start => {
                let many = run(TOKEN);
                if many == 0 || !rest[many..].starts_with(b" /") {
                    return Ok(0);
                }
                (self.at, self.is_in_head) = (At::Target, true);
                many + 2
            }
            At::Target => {
                let many = run(TARGET);
                if !rest[many..].starts_with(USUAL_VERSION) {
                    return Ok(many);
                }
                (self.at, self.is_http10) = (At::Field(Line::Start), false);
                many + USUAL_VERSION.len()
            }
            At::Field(Line::Start) => {
                let many = run(TOKEN);
                // Beyond its cap a head is too large, whatever the name is, so that the verdict does not depend on the pieces.
                if many == 0 || rest.get(many) != Some(&b':') || self.size + many > self.cap {
                    return Ok(0);
                }
                self.at = At::Field(self.fields.named(&rest[..many])?);
                many + 1
            }
            At::Field(Line::Name) => {
                let many = run(TOKEN);
                self.fields.name(&rest[..many]);
                many
            }
            At::Field(Line::Value) => {
                let many = run(TEXT);
                if !rest[many..].starts_with(b"\r\n") {
                    return Ok(many);
                }
                self.at = At::Field(Line::Start);
                many + 2
            }
            At::Trailer(Line::Value) => run(TEXT),
            At::Body(left) | At::Chunk(Chunk::Data(left)) => {
                let many = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= many as u64;
                match self.at {
                    At::Body(0) => self.at = At::Start,
                    At::Chunk(Chunk::Data(0)) => self.at = At::Chunk(Chunk::DataEnd),
                    _ => {}
                }
                many
            }
            _ => 0,
        };
        Ok(many)
    }

    /// Parses one byte.
    fn step(&mut self, byte: u8) -> Result<(), Violation> {
        self.at = match self.at {
            At::Field(line) => match self.fields.step(line, byte)? {
                Line::Last => self.end()?,
                line => At::Field(line),
            },
            At::Chunk(chunk) => match chunk.step(byte)? {
                Chunk::Last => At::Trailer(Line::Start),
                chunk => At::Chunk(chunk),
            },
            At::Trailer(line) => match field::trailer(line, byte)? {
                Line::Last => At::Start,
                line => At::Trailer(line),
            },
            At::Start | At::EmptyLineCr | At::AfterEmptyLine => self.start(byte)?,
            _ => self.request_line(byte)?,
        };
        Ok(())
    }

    fn start(&mut self, byte: u8) -> Result<At, Violation> {
        // An empty line counts as part of the head until its end.
        self.is_in_head = true;
        match (self.at, byte) {
            (At::Start, b'\r') => Ok(At::EmptyLineCr),
            (At::EmptyLineCr, b'\n') => {
                (self.is_in_head, self.size) = (false, 0);
                Ok(At::AfterEmptyLine)
            }
            (At::EmptyLineCr, _) | (_, b'\n') => Err(Violation::LineEnd),
            _ if is_of(TOKEN, byte) => Ok(At::Method),
            _ => Err(Violation::RequestLine),
        }
    }

    fn request_line(&mut self, byte: u8) -> Result<At, Violation> {
        match (self.at, byte) {
            (At::Method, b' ') => Ok(At::TargetStart),
            (At::Method, _) if is_of(TOKEN, byte) => Ok(At::Method),
            (At::TargetStart, b'/') => Ok(At::Target),
            (At::Target, b' ') => Ok(At::Version(0)),
            (At::Version(read), _) if read < VERSION.len() => {
                expect(byte, VERSION[read], At::Version(read + 1), Violation::Version)
            }
            (At::Version(_), b'0' | b'1') => {
                self.is_http10 = byte == b'0';
                Ok(At::VersionEnd)
            }
            (At::VersionEnd, b'\r') => Ok(At::Field(Line::Cr)),
            (At::VersionEnd, b'\n') | (At::Version(_), b'\r' | b'\n') => Err(Violation::LineEnd),
            (At::Target, b'\r' | b'\n') => Err(Violation::RequestLine),
            (At::TargetStart | At::Target, _) => Err(Violation::Target),
            (At::Version(_) | At::VersionEnd, _) => Err(Violation::Version),
            _ => Err(Violation::RequestLine),
        }
    }

    /// Ends the head. Returns what follows it.
    fn end(&mut self) -> Result<At, Violation> {
        // The last byte of the head is not counted yet.
        if self.size >= self.cap {
            return Err(Violation::TooLarge);
        }
        let length = self.fields.body(self.is_http10)?;
        self.fields = Fields::default();
        (self.is_in_head, self.size) = (false, 0);
        self.requests += 1;
        Ok(match length {
            Length::Chunked => At::Chunk(Chunk::FIRST),
            Length::Known(0) => At::Start,
            Length::Known(length) => At::Body(length),
        })
    }
}

/// Accepts only the byte `wanted`.
fn expect<T>(byte: u8, wanted: u8, then: T, violation: Violation) -> Result<T, Violation> {
    if byte == wanted { Ok(then) } else { Err(violation) }
}

#[cfg(test)]
mod tests;
