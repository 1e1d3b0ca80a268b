//! The segments of a path, as the most lenient server would read them.
//!
//! A server behind ours may decode a path more than once, take overlong UTF-8 or `%u002e` for a character, map look-alikes to
//! ASCII, or ignore blanks and what follows a semicolon. Then a path below a configured URL is one above it. So a segment is
//! decoded in all these ways at once, and what could be a dot segment or hold a slash is refused.

use std::borrow::Cow;

use super::BadUrl;
use super::words::is_unseen;

/// How often a segment is decoded. What is still encoded then was made to confuse.
const ROUNDS: usize = 8;

/// Fails if a server could read the path as another one.
pub(super) fn check_path(path: &str) -> Result<(), BadUrl> {
    path.split('/').try_for_each(check)
}

fn check(segment: &str) -> Result<(), BadUrl> {
    // Most segments are plain.
    if !segment.contains('%') && !segment.starts_with('.') {
        return Ok(());
    }
    let mut text = Cow::Borrowed(segment);
    for _ in 0..ROUNDS {
        let next = decoded(&text);
        if *next == *text {
            return check_decoded(&text);
        }
        text = Cow::Owned(next);
    }
    Err(BadUrl::DotSegments)
}

fn check_decoded(text: &str) -> Result<(), BadUrl> {
    if text.contains(['/', '\\', '\0']) {
        return Err(BadUrl::EncodedSlash);
    }
    // Parameters, a query or a fragment may be cut off, and blanks and unseen characters left out.
    let name = text.split([';', '?', '#']).next().unwrap_or_default();
    let mut seen = name.chars().filter(|one| !one.is_whitespace() && !is_unseen(*one));
    match (seen.next(), seen.next(), seen.next()) {
        (Some('.'), None, _) | (Some('.'), Some('.'), None) => Err(BadUrl::DotSegments),
        _ => Ok(()),
    }
}

/// Decodes each escape once.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(one) = rest.chars().next() {
        let (escape, length) = escape(rest);
        match escape {
            Some(Escape::Byte(byte)) => bytes.push(byte),
            Some(Escape::Character(code)) => {
                push_utf8(&mut out, &mut bytes);
                out.push(plain(code));
            }
            None => {
                push_utf8(&mut out, &mut bytes);
                out.push(plain(u32::from(one)));
            }
        }
        rest = &rest[length..];
    }
    push_utf8(&mut out, &mut bytes);
    out
}

enum Escape {
    Byte(u8),
    Character(u32),
}

/// The escape at the beginning of a text, and its length; without one, the length of the first character.
fn escape(text: &str) -> (Option<Escape>, usize) {
    let digits = |from: usize, to: usize| {
        let digits = text.get(from..to).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        u32::from_str_radix(digits, 16).ok()
    };
    let length = text.chars().next().map_or(0, char::len_utf8);
    if !text.starts_with('%') {
        return (None, length);
    }
    if text[1..].starts_with(['u', 'U'])
        && let Some(code) = digits(2, 6)
    {
        return (Some(Escape::Character(code)), 6);
    }
    match digits(1, 3).and_then(|byte| u8::try_from(byte).ok()) {
        Some(byte) => (Some(Escape::Byte(byte)), 3),
        None => (None, length),
    }
}

/// Adds decoded bytes as characters, overlong sequences among them, and clears them.
fn push_utf8(out: &mut String, bytes: &mut Vec<u8>) {
    let mut rest = bytes.as_slice();
    while let Some((&first, after)) = rest.split_first() {
        let (more, mut code) = match first {
            0x00..=0xbf => (0, u32::from(first)),
            0xc0..=0xdf => (1, u32::from(first & 0x1f)),
            0xe0..=0xef => (2, u32::from(first & 0x0f)),
            0xf0..=0xf7 => (3, u32::from(first & 0x07)),
            0xf8..=0xfb => (4, u32::from(first & 0x03)),
            0xfc..=0xff => (5, u32::from(first & 0x01)),
        };
        // A lenient decoder does not look at the upper bits of what follows.
        let more = if after.len() < more { 0 } else { more };
        for byte in &after[..more] {
            code = code << 6 | u32::from(byte & 0x3f);
        }
        out.push(plain(code));
        rest = &after[more..];
    }
    bytes.clear();
}

/// The ASCII character that a lenient server takes for this one (Unicode's compatibility forms), else the character itself.
fn plain(code: u32) -> char {
    let code = match code {
        // Full-width forms.
        0xff01..=0xff5e => code - 0xfee0,
        // One dot leader, small full stop.
        0x2024 | 0xfe52 => u32::from('.'),
        // Fraction slash, division slash.
        0x2044 | 0x2215 => u32::from('/'),
        // Small reverse solidus, set minus.
        0xfe68 | 0x2216 => u32::from('\\'),
        other => other,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_a_lenient_server_reads_as_another_is_refused() {
        for segment in [
            ".",
            "..",
            "%2e",
            "%2e%2E",
            ".%2e",
            "..;",
            "..;x=1",
            "%252e%252e",
            "%25252e.",
            "%2525252525252e.",
            "..%3b",
            "..%3Bx",
            "..%253b",
            "..%20",
            "%20..",
            "..%09",
            "..%0a",
            "..%0d%0a",
            ".%20.",
            "..%c2%a0",
            "..%e2%80%8b",
            "%u002e%u002e",
            "%U002E.",
            "%25u002e.",
            "%c0%ae%c0%ae",
            "%C0%AE.",
            "%c0%2e.",
            "%e0%80%ae.",
            "%f0%80%80%ae.",
            "%f8%80%80%80%ae.",
            "%fc%80%80%80%80%ae.",
            "%25c0%25ae.",
            "%uff0e%uff0e",
            "%ef%bc%8e.",
            "%e2%80%a4.",
            "..%3fx",
            "..%23x",
            "%ef%bc%852e.",
        ] {
            assert_eq!(check(segment), Err(BadUrl::DotSegments), "{segment}");
        }
    }

    #[test]
    fn a_slash_or_nul_is_found_however_it_is_encoded() {
        for segment in [
            "a%2fb",
            "a%5Cb",
            "a%00",
            "..%2fadmin",
            "a%252fb",
            "a%25255cb",
            "a%2500",
            "a%c0%afb",
            "a%e0%80%afb",
            "a%u002fb",
            "a%u2215b",
            "a%uff0fb",
            "a%c1%9cb",
            "a%c0%80",
            "a%u0000",
            "a%ef%bc%8fb",
        ] {
            assert_eq!(check(segment), Err(BadUrl::EncodedSlash), "{segment}");
        }
        let deep = format!("%{}2e", "25".repeat(600));
        assert!(check(&deep).is_err(), "it is never decoded to its end");
    }

    #[test]
    fn names_with_dots_and_escapes_stay() {
        for segment in [
            "",
            "a",
            "...",
            ".well-known",
            "..a",
            "a..",
            ".a%20b",
            "100%25",
            "100%2525",
            "%20",
            "%",
            "%2",
            "%zz",
            "%u12",
            "caf%c3%a9",
            "%e6%bc%a2%e5%ad%97",
            "a%3bb",
            "v1.2",
            "a;b",
            "%f0%9f%92%a9",
            "%ff",
            "a%20.%20b",
        ] {
            assert_eq!(check(segment), Ok(()), "{segment}");
        }
    }
}
