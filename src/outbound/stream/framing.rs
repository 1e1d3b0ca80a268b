//! Where the body of an answer ends (RFC 9112 sections 6 and 7). Pure: no I/O.

use bytes::{Buf, Bytes};

use super::super::HEAD_CAP;
use super::fault::Fault;

/// What is left of the body of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks (section 7.1), and this is next.
    Chunked(Chunk),
    /// Everything until the connection ends (section 6.3, rule 8).
    Close,
    /// Its head contradicts itself, so the body cannot be read. The head can.
    Unknown,
}

/// What comes next in a chunked body. The numbers are the size of a chunk, or what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// A digit of the size.
    Size { digits: u8, size: u64 },
    /// A blank after the size, or what may follow it.
    Blank(u64),
    /// An extension (section 7.1.1), of which so many bytes were passed over.
    Extension { size: u64, passed: usize },
    /// The LF behind a size and its extensions.
    SizeLf(u64),
    /// Data.
    Data(u64),
    /// The CR behind the data.
    DataCr,
    /// The LF behind the data.
    DataLf,
    /// The trailers (section 7.1.2), of which so many bytes were passed over.
    Trailer { line: Line, passed: usize },
    /// Nothing.
    End,
}

/// The place in a line of the trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Start,
    Inside,
    /// Behind the CR that ends it.
    Cr,
    /// Behind the CR of the empty line that ends all of them.
    LastCr,
}

/// More digits do not fit into 64 bits.
const DIGITS: u8 = 16;

impl Framing {
    /// A chunked body from its start.
    pub(super) const CHUNKED: Self = Self::Chunked(Chunk::FIRST);

    /// Is the body at its end?
    pub(super) fn is_at_end(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::End))
    }

    /// How many bytes are left, if that is known.
    pub(super) fn left(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            Self::Chunked(Chunk::End) => Some(0),
            Self::Chunked(_) | Self::Close | Self::Unknown => None,
        }
    }

    /// Takes the next piece of the body out of what arrived. `None` if more has to arrive, or at the end.
    pub(super) fn take(&mut self, arrived: &mut Bytes) -> Result<Option<Bytes>, Fault> {
        let chunk = match self {
            Self::Length(left) => return Ok(first(arrived, left)),
            Self::Close => return Ok((!arrived.is_empty()).then(|| std::mem::take(arrived))),
            Self::Chunked(chunk) => chunk,
            Self::Unknown => return Err(Fault::Length),
        };
        if !matches!(chunk, Chunk::Data(_)) {
            let passed = chunk.pass(arrived)?;
            arrived.advance(passed);
        }
        let Chunk::Data(left) = chunk else { return Ok(None) };
        let piece = first(arrived, left);
        if *left == 0 {
            *chunk = Chunk::DataCr;
        }
        // Whether this was the last piece may be known now. What is wrong behind it is found the next time.
        let mut next = *chunk;
        if let Ok(passed) = next.pass(arrived) {
            arrived.advance(passed);
            *chunk = next;
        }
        Ok(piece)
    }

    /// The connection has ended, which must be the end of the body.
    pub(super) fn close(&mut self) -> Result<(), Fault> {
        if !self.is_at_end() && *self != Self::Close {
            return Err(Fault::Cut);
        }
        *self = Self::Length(0);
        Ok(())
    }
}

/// As many of these bytes as arrived.
fn first(arrived: &mut Bytes, left: &mut u64) -> Option<Bytes> {
    let many = usize::try_from(*left).unwrap_or(usize::MAX).min(arrived.len());
    *left -= many as u64;
    (many > 0).then(|| if many == arrived.len() { std::mem::take(arrived) } else { arrived.split_to(many) })
}

impl Chunk {
    const FIRST: Self = Self::Size { digits: 0, size: 0 };

    /// Reads on until data or the end comes next. Returns how many bytes that were.
    fn pass(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut passed = 0;
        while let Some(byte) = bytes.get(passed).filter(|_| !matches!(self, Self::Data(_) | Self::End)) {
            *self = self.step(*byte).ok_or_else(|| self.fault(*byte))?;
            passed += 1;
        }
        Ok(passed)
    }

    /// What is wrong with a byte that must not be here: there are too many of them, or it is none of a chunk.
    fn fault(self, byte: u8) -> Fault {
        match self {
            Self::Size { digits: DIGITS, .. } if byte.is_ascii_hexdigit() => Fault::Framing,
            Self::Extension { passed: HEAD_CAP, .. } | Self::Trailer { passed: HEAD_CAP, .. } => Fault::Framing,
            _ => Fault::Chunk,
        }
    }

    /// What comes after this byte. `None` if the byte must not be here.
    fn step(self, byte: u8) -> Option<Self> {
        let is_text = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        Some(match (self, byte) {
            (Self::Size { digits, size }, _) if byte.is_ascii_hexdigit() && digits < DIGITS => {
                let value = char::from(byte).to_digit(16)?;
                Self::Size { digits: digits + 1, size: size << 4 | u64::from(value) }
            }
            (Self::Size { size, digits: 1.. } | Self::Blank(size), b' ' | b'\t') => Self::Blank(size),
            (Self::Size { size, digits: 1.. } | Self::Blank(size), b';') => Self::Extension { size, passed: 0 },
            (Self::Size { size, digits: 1.. } | Self::Blank(size) | Self::Extension { size, .. }, b'\r') => {
                Self::SizeLf(size)
            }
            (Self::Extension { size, passed }, _) if is_text && passed < HEAD_CAP => {
                Self::Extension { size, passed: passed + 1 }
            }
            (Self::SizeLf(0), b'\n') => Self::Trailer { line: Line::Start, passed: 0 },
            (Self::SizeLf(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::FIRST,
            (Self::Trailer { line, passed }, _) if passed < HEAD_CAP => {
                let line = match (line, byte) {
                    (Line::LastCr, b'\n') => return Some(Self::End),
                    (Line::Start, b'\r') => Line::LastCr,
                    (Line::Inside, b'\r') => Line::Cr,
                    (Line::Cr, b'\n') => Line::Start,
                    (Line::Start, b' ' | b'\t') => return None,
                    (Line::Start | Line::Inside, _) if is_text => Line::Inside,
                    _ => return None,
                };
                Self::Trailer { line, passed: passed + 1 }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body that these bytes give, in pieces of so many, and whether it has ended. What is left behind it comes last.
    fn read(mut framing: Framing, bytes: &[u8], size: usize) -> Result<(Vec<u8>, bool, usize), Fault> {
        let (mut body, mut behind) = (Vec::new(), 0);
        for piece in bytes.chunks(size) {
            let mut arrived = Bytes::copy_from_slice(piece);
            while let Some(piece) = framing.take(&mut arrived)? {
                assert!(!piece.is_empty());
                body.extend_from_slice(&piece);
            }
            behind += arrived.len();
        }
        Ok((body, framing.is_at_end(), behind))
    }

    #[test]
    fn a_body_ends_where_its_framing_says_however_it_is_cut() {
        let long = format!("1;{}\r\nx\r\n0\r\nt: {}\r\n\r\n", "e".repeat(HEAD_CAP), "t".repeat(HEAD_CAP - 8));
        for (framing, bytes, body, is_at_end, behind) in [
            (Framing::Length(5), "he", "he", false, 0),
            (Framing::Length(5), "hello", "hello", true, 0),
            (Framing::Length(5), "hello HTTP", "hello", true, 5),
            (Framing::Length(0), "x", "", true, 1),
            (Framing::Close, "hello", "hello", false, 0),
            (Framing::CHUNKED, "5\r\nhello\r\n0\r\n\r\n", "hello", true, 0),
            (Framing::CHUNKED, "5\r\nhello\r\n0\r\n\r\nmore", "hello", true, 4),
            (Framing::CHUNKED, "5\r\nhello\r\n", "hello", false, 0),
            (Framing::CHUNKED, "0\r\n\r", "", false, 0),
            (Framing::CHUNKED, "000000000000000A \t\r\n0123456789\r\n0;a\r\n\r\n", "0123456789", true, 0),
            (Framing::CHUNKED, "1;a=\"b;c\"\r\nx\r\n1 ; d\r\ny\r\n00\r\na: b\r\nc:\r\n\r\n", "xy", true, 0),
            (Framing::CHUNKED, "FFFFFFFFFFFFFFFF\r\nx", "x", false, 0),
            (Framing::CHUNKED, &long, "x", true, 0),
        ] {
            for size in [1, 2, 3, 7, 100_000] {
                let outcome = read(framing, bytes.as_bytes(), size);
                let shown = &bytes[..bytes.len().min(30)];
                assert_eq!(outcome, Ok((body.into(), is_at_end, behind)), "{shown:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn chunks_that_may_be_read_in_two_ways_are_none() {
        for bytes in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            ";a\r\n",
            "1\nx",
            "1\r\r\n",
            "1 2\r\n",
            "1;a\nx",
            "1;a\0\r\n",
            "1;a\rb\r\n",
            "1\r\nxy\r\n",
            "1\r\nx\n",
            "1\r\nx\r1",
            "0\r\n\n",
            "0\r\na: b\n\r\n",
            "0\r\na: b\rc: d\r\n\r\n",
            "0\r\n b\r\n\r\n",
            "0\r\n\rx",
        ] {
            for size in [1, 2, 3, 100_000] {
                assert_eq!(read(Framing::CHUNKED, bytes.as_bytes(), size), Err(Fault::Chunk), "{bytes:?}");
            }
        }
    }

    #[test]
    fn what_stands_around_the_data_is_bounded() {
        let long = [format!("1;{}", "e".repeat(HEAD_CAP + 1)), format!("0\r\nt: {}", "t".repeat(HEAD_CAP))];
        for bytes in ["00000000000000001\r\n", &long[0], &long[1]] {
            for size in [1, 2, 3, 100_000] {
                let outcome = read(Framing::CHUNKED, bytes.as_bytes(), size);
                assert_eq!(outcome, Err(Fault::Framing), "{:?}", &bytes[..bytes.len().min(30)]);
            }
        }
    }

    #[test]
    fn the_end_of_the_connection_ends_only_a_body_that_has_no_other_end() {
        for (mut framing, outcome) in [
            (Framing::Close, Ok(())),
            (Framing::Length(0), Ok(())),
            (Framing::Chunked(Chunk::End), Ok(())),
            (Framing::Length(1), Err(Fault::Cut)),
            (Framing::CHUNKED, Err(Fault::Cut)),
            (Framing::Chunked(Chunk::Trailer { line: Line::LastCr, passed: 1 }), Err(Fault::Cut)),
        ] {
            assert_eq!(framing.close(), outcome, "{framing:?}");
            assert_eq!(framing.is_at_end(), outcome.is_ok());
        }
    }
}
