//! SHA-256 digests, and fields that are digested together.

use std::fmt;
use std::hash::{Hash, Hasher};

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A SHA-256 digest: of a token, a file, an audit record or a cache key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Eight bytes are enough: each bit of a SHA-256 is as good as any other.
impl Hash for Digest {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        hasher.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl Digest {
    /// All zeros: stands where there is no digest.
    pub(crate) const ZERO: Self = Self([0; 32]);

    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(bytes);
        Self::finish(context)
    }

    /// The digest of several fields, each with its length before it, so that no two lists have the same digest.
    pub fn of_fields<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for field in fields {
            context.update(&(field.len() as u64).to_be_bytes());
            context.update(field);
        }
        Self::finish(context)
    }

    /// The digest of the bytes that a SHA-256 context was given.
    pub(crate) fn finish(context: Context) -> Self {
        let mut array = [0; 32];
        array.copy_from_slice(context.finish().as_ref());
        Self(array)
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Lower-case hexadecimal.
    pub fn hex(&self) -> String {
        self.to_string()
    }

    /// Reads hexadecimal or base64url, the two ways in which callers name a token.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() == 64 {
            return Self::parse_hex(text);
        }
        URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?.try_into().ok().map(Self)
    }

    /// Reads 64 hexadecimal digits of either case, as `sha256sum` prints them.
    pub fn parse_hex(text: &str) -> Option<Self> {
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex()[..12])
    }
}

/// Fields that are digested together, in order. Each has its kind and its length before it, so that two different lists
/// never have the same encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<u8>);

impl Fields {
    /// Adds a text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.field(b't', text.as_bytes())
    }

    /// Adds a text that may be missing. A missing one differs from an empty one.
    #[must_use]
    pub fn option(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(text),
            None => self.field(b'-', b""),
        }
    }

    /// Adds yes or no.
    #[must_use]
    pub fn flag(self, yes: bool) -> Self {
        self.field(b'?', &[u8::from(yes)])
    }

    /// Adds a list of texts as one field.
    #[must_use]
    pub fn list<'a>(self, texts: impl IntoIterator<Item = &'a str>) -> Self {
        let inner = texts.into_iter().fold(Self::default(), Self::text);
        self.group(&inner)
    }

    /// Adds other fields as one field.
    #[must_use]
    pub fn group(self, fields: &Self) -> Self {
        self.field(b'(', &fields.0)
    }

    /// Adds other fields that may be missing as one field.
    #[must_use]
    pub fn option_group(self, fields: Option<&Self>) -> Self {
        match fields {
            Some(fields) => self.group(fields),
            None => self.option(None),
        }
    }

    /// The digest of all fields.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }

    fn field(mut self, kind: u8, bytes: &[u8]) -> Self {
        self.0.push(kind);
        self.0.extend((bytes.len() as u64).to_be_bytes());
        self.0.extend(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_moved_borders_have_different_digests() {
        let digest = |fields: &[&[u8]]| Digest::of_fields(fields.iter().copied());
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_ne!(digest(&[b"ab"]), digest(&[b"ab", b""]));
    }

    #[test]
    fn different_fields_never_have_one_encoding() {
        let none = Fields::default;
        let all = [
            none(),
            none().text(""),
            none().text("ab").text("c"),
            none().text("a").text("bc"),
            none().text("a\u{0}b"),
            none().text("a").text("b"),
            none().option(None),
            none().option(None).option(None),
            none().list([]),
            none().list([""]),
            none().list(["a", "b"]),
            none().list(["a"]).list(["b"]),
            none().list(["a"]).text("b"),
            none().group(&none().option(None)),
            none().group(&none().group(&none().text("a"))),
            none().flag(false),
            none().flag(true),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| one.digest() != other.digest()), "{i}");
        }
        assert_eq!(none().option(Some("a")), none().text("a"));
        assert_eq!(none().option_group(Some(&none())), none().group(&none()));
    }

    #[test]
    fn a_digest_is_read_in_both_spellings() {
        let digest = Digest::of(b"token");
        assert_eq!(Digest::parse(&digest.hex()), Some(digest));
        assert_eq!(Digest::parse(&digest.hex().to_uppercase()), Some(digest));
        assert_eq!(Digest::parse(&URL_SAFE_NO_PAD.encode(digest.as_bytes())), Some(digest));
        assert_eq!(Digest::parse_hex(&URL_SAFE_NO_PAD.encode(digest.as_bytes())), None);
    }

    #[test]
    fn only_hexadecimal_digits_are_a_digest() {
        let text = "00ff".repeat(16);
        assert_eq!(Digest::parse_hex(&text).map(|digest| digest.hex()), Some(text.clone()));
        for wrong in ["", "00ff", &text[1..], &"0".repeat(65), &"g0".repeat(32), &"é".repeat(32), &"+f".repeat(32)] {
            assert_eq!(Digest::parse_hex(wrong), None, "{wrong}");
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }
}
