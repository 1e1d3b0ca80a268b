//! The parser for a chunked body (RFC 9112 section 7.1), up to its trailers.

use super::class::{TEXT, is_of};
use super::{Violation, expect};

/// The part of the body to which the next byte belongs. The numbers are the size of the chunk, or what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Size {
        digits: u8,
        size: u64,
    },
    /// After a blank, which is allowed before an extension.
    Blank(u64),
    Extension(u64),
    /// After the CR that ends the size and its extensions.
    SizeCr(u64),
    Data(u64),
    DataEnd,
    /// After the CR that ends the data.
    DataCr,
    /// After the chunk of size zero.
    Last,
}

/// The maximum number of digits: more do not fit into 64 bits.
const DIGITS: u8 = 16;

impl Chunk {
    pub(super) const FIRST: Self = Self::Size { digits: 0, size: 0 };

    /// Parses one byte.
    pub(super) fn step(self, byte: u8) -> Result<Self, Violation> {
        let value = char::from(byte).to_digit(16).map(u64::from);
        match (self, byte) {
            (Self::Size { digits, size }, _) if let Some(value) = value.filter(|_| digits < DIGITS) => {
                Ok(Self::Size { digits: digits + 1, size: size << 4 | value })
            }
            (Self::Size { size, digits: 1.. } | Self::Blank(size), b' ' | b'\t') => Ok(Self::Blank(size)),
            (Self::Size { size, digits: 1.. } | Self::Blank(size), b';') => Ok(Self::Extension(size)),
            (Self::Size { size, digits: 1.. } | Self::Extension(size), b'\r') => Ok(Self::SizeCr(size)),
            (Self::Extension(size), _) if is_of(TEXT, byte) => Ok(Self::Extension(size)),
            (Self::SizeCr(0), b'\n') => Ok(Self::Last),
            (Self::SizeCr(size), b'\n') => Ok(Self::Data(size)),
            (Self::DataEnd, _) => expect(byte, b'\r', Self::DataCr, Violation::Chunk),
            (Self::DataCr, _) => expect(byte, b'\n', Self::FIRST, Violation::Chunk),
            _ => Err(Violation::Chunk),
        }
    }
}
