//! The parser for the fields of a head (RFC 9112 section 5). It reads only `Host` and the fields that determine the
//! length.

use super::class::{TEXT, TOKEN, is_of};
use super::{Violation, expect};

/// The part of the fields to which the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Start,
    Name,
    Value,
    LengthStart,
    Length(u64),
    LengthEnd,
    /// After this many letters of `chunked`.
    Coding(usize),
    /// After the CR that ends a line.
    Cr,
    /// After the CR of the empty line that ends the fields.
    LastCr,
    /// After that empty line.
    Last,
}

/// The result of the fields so far.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// The name of the current field, in lower case. It holds only as many bytes as the longest known name has.
    name: [u8; CODING.len()],
    /// The whole length of that name, even if it does not fit.
    name_length: usize,
    has_host: bool,
    length: Option<u64>,
    is_chunked: bool,
}

/// The length of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    Chunked,
}

const HOST: &[u8] = b"host";
const LENGTH: &[u8] = b"content-length";
const CODING: &[u8] = b"transfer-encoding";
const CHUNKED: &[u8] = b"chunked";

impl Fields {
    /// Parses one byte.
    pub(super) fn step(&mut self, at: Line, byte: u8) -> Result<Line, Violation> {
        match (at, byte) {
            (Line::Cr, _) => expect(byte, b'\n', Line::Start, Violation::LineEnd),
            (Line::LastCr, _) => expect(byte, b'\n', Line::Last, Violation::LineEnd),
            (Line::Start, b'\r') => Ok(Line::LastCr),
            (Line::Value, b'\r') => Ok(Line::Cr),
            (_, b'\n') | (Line::Name, b'\r') => Err(Violation::LineEnd),
            (Line::Start, b' ' | b'\t') => Err(Violation::Folded),
            (Line::Value, _) if is_of(TEXT, byte) => Ok(Line::Value),
            (Line::Value, _) => Err(Violation::FieldValue),
            (Line::Name, b':') => self.value(),
            (Line::Start, _) if is_of(TOKEN, byte) => {
                self.name_length = 0;
                self.name(&[byte]);
                Ok(Line::Name)
            }
            (Line::Start | Line::Name, _) => Err(Violation::FieldName),
            (Line::Coding(letters), _) => coding(letters, byte),
            _ => self.length(at, byte),
        }
    }

    /// Appends bytes to the name of the current field.
    pub(super) fn name(&mut self, more: &[u8]) {
        let places = self.name.iter_mut().skip(self.name_length);
        places.zip(more).for_each(|(place, byte)| *place = byte.to_ascii_lowercase());
        self.name_length += more.len();
    }

    /// Parses a whole name and the colon after it, as [`Self::step`] does byte by byte.
    pub(super) fn named(&mut self, name: &[u8]) -> Result<Line, Violation> {
        self.name_length = 0;
        self.name(name);
        self.value()
    }

    /// Begins the value of the current field. Each of the three known fields may occur only once.
    fn value(&mut self) -> Result<Line, Violation> {
        match self.name.get(..self.name_length) {
            Some(HOST) if std::mem::replace(&mut self.has_host, true) => Err(Violation::Host),
            Some(LENGTH) if self.length.is_some() => Err(Violation::Length),
            Some(LENGTH) => Ok(Line::LengthStart),
            Some(CODING) if std::mem::replace(&mut self.is_chunked, true) => Err(Violation::Coding),
            Some(CODING) => Ok(Line::Coding(0)),
            _ => Ok(Line::Value),
        }
    }

    /// Parses one byte of `Content-Length`. A value that does not fit into 64 bits is a violation.
    fn length(&mut self, at: Line, byte: u8) -> Result<Line, Violation> {
        match (at, byte) {
            (Line::LengthStart, b' ' | b'\t') => Ok(Line::LengthStart),
            (Line::LengthStart, b'0'..=b'9') => Ok(Line::Length(u64::from(byte - b'0'))),
            (Line::Length(length), b'0'..=b'9') => {
                let longer = length.checked_mul(10).and_then(|length| length.checked_add(u64::from(byte - b'0')));
                longer.map(Line::Length).ok_or(Violation::Length)
            }
            (Line::Length(length), b' ' | b'\t' | b'\r') => {
                self.length = Some(length);
                Ok(if byte == b'\r' { Line::Cr } else { Line::LengthEnd })
            }
            (Line::LengthEnd, b' ' | b'\t') => Ok(Line::LengthEnd),
            (Line::LengthEnd, b'\r') => Ok(Line::Cr),
            _ => Err(Violation::Length),
        }
    }

    /// The length of the body, at the end of the head. Fails if the fields contradict each other or `Host` is missing.
    pub(super) fn body(&self, is_http10: bool) -> Result<Length, Violation> {
        match self {
            Self { length: Some(_), is_chunked: true, .. } => Err(Violation::LengthAndCoding),
            Self { is_chunked: true, .. } if is_http10 => Err(Violation::Coding),
            Self { has_host: false, .. } if !is_http10 => Err(Violation::Host),
            Self { is_chunked: true, .. } => Ok(Length::Chunked),
            Self { length, .. } => Ok(Length::Known(length.unwrap_or_default())),
        }
    }
}

/// Parses one byte of a trailer. Its name is ignored, because the end of the request is already known.
pub(super) fn trailer(at: Line, byte: u8) -> Result<Line, Violation> {
    match (at, byte) {
        (Line::Name, b':') => Ok(Line::Value),
        (Line::Name, _) if is_of(TOKEN, byte) => Ok(Line::Name),
        _ => Fields::default().step(at, byte),
    }
}

/// Parses one byte of `Transfer-Encoding`, whose only allowed value is `chunked`.
fn coding(letters: usize, byte: u8) -> Result<Line, Violation> {
    let is_whole = letters == CHUNKED.len();
    match byte {
        b' ' | b'\t' if letters == 0 || is_whole => Ok(Line::Coding(letters)),
        b'\r' if is_whole => Ok(Line::Cr),
        _ if CHUNKED.get(letters) == Some(&byte.to_ascii_lowercase()) => Ok(Line::Coding(letters + 1)),
        _ => Err(Violation::Coding),
    }
}
