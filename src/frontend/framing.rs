//! Where each request of a connection begins and ends, decided by RFC 9112 alone, before the HTTP library reads a byte of it.
//!
//! Two programs that disagree on where a request ends can be made to take the end of its body for a second request. The HTTP
//! library is lenient there, as most are: it takes a line that ends with LF alone, two equal lengths, or a length beside
//! chunks. So the requests are read here first, byte by byte and strictly: what is not in the grammar, or has two meanings,
//! is a [`Violation`]. What else the fields mean is decided elsewhere.
//!
//! This part is pure: [`Framing::take`] is given the bytes as they come, in pieces of any size, and says how many of them may
//! be passed on. A head is passed on whole or not at all. `inbound.rs` is the stream that does so.

mod chunk;
mod field;
mod violation;

use chunk::Chunk;
use field::{Fields, Length, Line};
pub use violation::Violation;

/// Reading ends here, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// How many of the last bytes may be passed on.
    pub passed: usize,
    /// Why.
    pub violation: Violation,
}

/// The requests of one connection, as far as they were read.
#[derive(Debug)]
pub struct Framing {
    at: At,
    fields: Fields,
    /// It has begun and not ended.
    is_in_head: bool,
    is_old: bool,
    /// How many bytes of the head were read, and how many it may have.
    size: usize,
    cap: usize,
    requests: u64,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A request may begin.
    Start,
    /// The CR of an empty line before a request was read.
    EmptyLineCr,
    /// Only one such line is allowed (section 2.2).
    AfterEmptyLine,
    Method,
    TargetStart,
    Target,
    /// After so many bytes of it.
    Version(usize),
    VersionEnd,
    Field(Line),
    /// So many bytes are left.
    Body(u64),
    Chunk(Chunk),
    Trailer(Line),
}

const VERSION: &[u8] = b"HTTP/1.";

impl Framing {
    /// A connection that begins. The head of a request may have `cap` bytes.
    pub fn new(cap: usize) -> Self {
        let fields = Fields::default();
        Self { at: At::Start, fields, is_in_head: false, is_old: false, size: 0, cap, requests: 0 }
    }

    /// How many heads were read whole.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Is a head being read? A violation in it is one of a request that the HTTP library has not seen.
    pub fn is_in_head(&self) -> bool {
        self.is_in_head
    }

    /// Reads on. Says how many of the bytes may be passed on, with what was held back before: all but those of a head that
    /// has not ended yet.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Stop> {
        let (mut read, mut passed) = (0, 0);
        while let Some(byte) = bytes.get(read) {
            let mut many = self.skip(&bytes[read..]);
            if many == 0 {
                self.step(*byte).map_err(|violation| Stop { passed, violation })?;
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
            }
        }
        Ok(passed)
    }

    /// Reads at once what may be long. Returns how many bytes that were.
    fn skip(&mut self, rest: &[u8]) -> usize {
        let run = |class: u8| rest.iter().position(|byte| !is_of(class, *byte)).unwrap_or(rest.len());
        match &mut self.at {
            At::Method => run(TOKEN),
            At::Target => run(TARGET),
            At::Version(0) if rest.starts_with(VERSION) => {
                self.at = At::Version(VERSION.len());
                VERSION.len()
            }
            At::Field(Line::Name) => {
                let many = run(TOKEN);
                self.fields.name(&rest[..many]);
                many
            }
            At::Field(Line::Value) | At::Trailer(Line::Value) => run(TEXT),
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
        }
    }

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
        // An empty line belongs to the head until it is known to be one.
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
                self.is_old = byte == b'0';
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

    /// The head is read. Says what comes next.
    fn end(&mut self) -> Result<At, Violation> {
        // Its last byte is not counted yet.
        if self.size >= self.cap {
            return Err(Violation::TooLarge);
        }
        let length = self.fields.body(self.is_old)?;
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

fn expect<T>(byte: u8, wanted: u8, then: T, violation: Violation) -> Result<T, Violation> {
    if byte == wanted { Ok(then) } else { Err(violation) }
}

/// What may be in a token: `tchar` of RFC 9110 section 5.6.2.
const TOKEN: u8 = 1;
/// What may be in a path or query. Browsers' libraries send some of it that RFC 3986 wants percent-encoded, such as brackets.
/// A backslash is a slash to some servers.
const TARGET: u8 = 2;
/// What may be in the value of a field (RFC 9110 section 5.5).
const TEXT: u8 = 4;

/// The classes of each byte. Nearly all bytes of a head are looked up here.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    loop {
        let is_mark = matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        let is_token = byte.is_ascii_alphanumeric() || is_mark;
        let is_target = byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\');
        let is_text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        classes[byte as usize] = is_token as u8 * TOKEN + is_target as u8 * TARGET + is_text as u8 * TEXT;
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};

fn is_of(class: u8, byte: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

#[cfg(test)]
mod tests;
