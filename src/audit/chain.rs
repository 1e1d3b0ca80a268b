//! The chain: each line has its number, its own hash and the hash of the line before it. Pure.

use serde::Deserialize;

use crate::token::Digest;

/// `,"hash":"` and 64 digits and `"}`.
const SEAL: usize = 9 + 64 + 2;

/// A line's place in the chain, which the next line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The number of lines since the chain began.
    pub seq: u64,
    /// The hash of the last line.
    pub hash: Digest,
}

impl Head {
    /// Before the first line.
    pub(crate) const NONE: Self = Self { seq: 0, hash: Digest::ZERO };

    pub(crate) fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// A whole line: its hash is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) prev: Digest,
    pub(super) at: Head,
    /// The bytes between this line and the line it chains to, if it is a `repair`.
    pub(super) repairs: Option<Torn>,
}

impl Link {
    /// Is it the line right after `head`?
    pub(super) fn follows(&self, head: &Head) -> bool {
        self.prev == head.hash && self.at.seq == head.seq + 1
    }
}

/// Bytes that are not a whole line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn {
    pub(super) bytes: u64,
    pub(super) sha256: Digest,
}

/// Why a line does not belong to the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotLink {
    /// It is not a line of ours, but may be the beginning of one, or the remains of a lost block.
    Torn,
    /// It is JSON with a wrong hash. A power loss does not cause that.
    Changed,
}

#[derive(Deserialize)]
struct Wire {
    prev: String,
    seq: u64,
    #[serde(default)]
    torn: Option<WireTorn>,
}

#[derive(Deserialize)]
struct WireTorn {
    bytes: u64,
    sha256: String,
}

/// Seals the line that begins here and ends with its last `}`: adds its hash and the end of the line.
pub(super) fn seal(lines: &mut Vec<u8>, from: usize) -> Digest {
    let hash = Digest::of(&lines[from..]);
    lines.pop();
    lines.extend_from_slice(b",\"hash\":\"");
    push_hex(lines, &hash);
    lines.extend_from_slice(b"\"}\n");
    hash
}

/// Lower-case hexadecimal, without an allocation.
pub(super) fn push_hex(line: &mut Vec<u8>, digest: &Digest) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; 64];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digest.as_bytes()) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    line.extend_from_slice(&hex);
}

/// Reads a line without its end.
pub(super) fn read(line: &[u8]) -> Result<Link, NotLink> {
    let not =
        || if serde_json::from_slice::<serde_json::Value>(line).is_ok() { NotLink::Changed } else { NotLink::Torn };
    let (body, sealed) = line.split_at(line.len().checked_sub(SEAL).ok_or_else(not)?);
    let mut again = [body, b"}"].concat();
    let hash = seal(&mut again, 0);
    // Compare the text, not the value: otherwise an `a` could be changed to an `A`.
    if again.strip_suffix(b"\n").is_none_or(|again| &again[body.len()..] != sealed) {
        return Err(not());
    }
    let wire: Wire = serde_json::from_slice(line).map_err(|_| not())?;
    let digest = |text: &str| Digest::parse(text).ok_or_else(not);
    let repairs = match &wire.torn {
        Some(torn) => Some(Torn { bytes: torn.bytes, sha256: digest(&torn.sha256)? }),
        None => None,
    };
    Ok(Link { prev: digest(&wire.prev)?, at: Head { seq: wire.seq, hash }, repairs })
}

/// How a file ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The last whole line. `None` if the file has none.
    pub(super) last: Option<Head>,
    /// The bytes after it, if there are any.
    pub(super) torn: Option<Torn>,
    /// The last line is complete except for its line feed.
    pub(super) lacks_end: bool,
}

impl Tail {
    /// Reads the end of a file. `whole` says that these bytes are the whole file. The error says what is wrong.
    pub(super) fn read(bytes: &[u8], whole: bool) -> Result<Self, String> {
        let mut end = bytes.len();
        loop {
            let line = &bytes[..end];
            let terminated = line.last() == Some(&b'\n');
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let start = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            if end == 0 && whole {
                return Ok(Self { last: None, torn: torn(bytes), lacks_end: false });
            }
            if start == 0 && !whole {
                return Err("its end holds no whole line".to_owned());
            }
            match read(&text[start..]) {
                Ok(link) => {
                    let torn = torn(&bytes[end..]);
                    return Ok(Self { last: Some(link.at), torn, lacks_end: !terminated });
                }
                Err(NotLink::Changed) => return Err("its last line was changed after it was written".to_owned()),
                Err(NotLink::Torn) => end = start,
            }
        }
    }
}

/// The line feed that ends these bytes is written with the `repair` and does not belong to them.
fn torn(bytes: &[u8]) -> Option<Torn> {
    (!bytes.is_empty()).then(|| Torn { bytes: bytes.len() as u64, sha256: Digest::of(bytes) })
}
