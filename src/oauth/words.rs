//! Text for people: what of it is shown, and what of it may stand in a command.
//!
//! Other parties choose issuers, scopes, descriptions and names. Characters that are not seen could hide a part of such a text,
//! show it in another order, or steer the terminal. None of them is shown.

use std::borrow::Cow;
use std::fmt::Write;

/// The longest line for people. A command with a condition of a trust policy fits.
const LINE_CAP: usize = 4 * 1_024;
/// The longest word of a command. A longer one hides its end from whoever is to check it.
const WORD_CAP: usize = 512;
/// The most of another party's words.
const WORDS_CAP: usize = 200;

/// Characters beyond the controls (Cc) that are not seen, or that change how their neighbours are seen: those of category Cf,
/// line and paragraph separators, and those that Unicode lets a renderer leave out (`Default_Ignorable_Code_Point`), tags among
/// them. Unicode 16.
const UNSEEN: [(u32, u32); 29] = [
    (0x00ad, 0x00ad),
    (0x034f, 0x034f),
    (0x0600, 0x0605),
    (0x061c, 0x061c),
    (0x06dd, 0x06dd),
    (0x070f, 0x070f),
    (0x0890, 0x0891),
    (0x08e2, 0x08e2),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x206f),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfffb),
    (0x1_10bd, 0x1_10bd),
    (0x1_10cd, 0x1_10cd),
    (0x1_3430, 0x1_343f),
    (0x1_bca0, 0x1_bca3),
    (0x1_d173, 0x1_d17a),
    (0xe_0000, 0xe_0fff),
    // Private use: what it shows is up to the reader's fonts.
    (0xe000, 0xf8ff),
    (0xf_0000, 0xf_ffff),
    (0x10_0000, 0x10_ffff),
    // The blank of Braille.
    (0x2800, 0x2800),
];

/// Is this character never shown?
pub(crate) fn is_unseen(one: char) -> bool {
    let code = u32::from(one);
    // Most text is plain ASCII.
    code < 0x20 || code >= 0x7f && (code < 0xa0 || UNSEEN.iter().any(|(first, last)| (*first..=*last).contains(&code)))
}

/// Another party's text, made safe to show: on one line, at most 200 characters of it, and without tokens. A server that refuses
/// an assertion may repeat it.
pub(crate) fn quoted_words(text: &str) -> String {
    cut(without_tokens(text).chars().map(seen), WORDS_CAP)
}

/// The text with a word in the place of each JWT.
fn without_tokens(text: &str) -> Cow<'_, str> {
    const SHORTEST: usize = 40;
    // Every JWT begins with the base64url of `{"`.
    if !text.contains("eyJ") {
        return Cow::Borrowed(text);
    }
    let is_outside = |one: char| !(one.is_ascii_alphanumeric() || "-_.".contains(one));
    let shown = text.split_inclusive(is_outside).map(|piece| {
        let end = piece.find(is_outside).unwrap_or(piece.len());
        let (word, rest) = piece.split_at(end);
        // What stands before it may be the end of an escape: `%3D`, `\n`, `\u003d`.
        match word.find("eyJ") {
            Some(at) if word.len() - at >= SHORTEST => format!("{}(a token){rest}", &word[..at]),
            _ => piece.to_owned(),
        }
    });
    Cow::Owned(shown.collect())
}

/// A text for people on one line.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if text.len() <= LINE_CAP && !text.chars().any(is_unseen) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(cut(text.chars().map(seen), LINE_CAP))
}

/// A text for people, whose lines stay.
pub(crate) fn lines(text: &str) -> String {
    text.split('\n').map(one_line).collect::<Vec<_>>().join("\n")
}

/// JSON in which nothing is unseen. The strings keep their meaning, because the characters are escaped.
pub(crate) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        if !is_unseen(one) || one == '\n' {
            out.push(one);
            continue;
        }
        for unit in one.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

/// The text as one word of a shell, in single quotes. `None` if it has any other character than those of a plain URL or path:
/// then it is not printed as a part of a command, because people and agents paste those.
pub(crate) fn shell_word(text: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?=&%+,@[]".contains(&byte);
    (!text.is_empty() && text.len() <= WORD_CAP && text.bytes().all(is_plain)).then(|| format!("'{text}'"))
}

fn seen(one: char) -> char {
    if is_unseen(one) { ' ' } else { one }
}

fn cut(text: impl Iterator<Item = char>, cap: usize) -> String {
    let mut text = text;
    let mut out: String = text.by_ref().take(cap).collect();
    if text.next().is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind that was seen in an attack, with names for the message.
    const HIDDEN: [char; 12] = [
        '\u{1b}',
        '\u{9b}',
        '\u{7f}',
        '\u{ad}',
        '\u{61c}',
        '\u{180e}',
        '\u{200b}',
        '\u{2028}',
        '\u{202e}',
        '\u{2066}',
        '\u{feff}',
        '\u{e0041}',
    ];

    #[test]
    fn what_is_not_seen_is_not_shown() {
        for hidden in HIDDEN {
            let text = format!("a{hidden}b");
            assert_eq!(quoted_words(&text), "a b", "{:x}", u32::from(hidden));
            assert_eq!(one_line(&text), "a b");
            assert_eq!(lines(&format!("{text}\n{text}")), "a b\na b");
            let written = json(&serde_json::json!({ "x": text }).to_string());
            assert!(written.is_ascii(), "{written}");
            let read: serde_json::Value = serde_json::from_str(&written).expect("still JSON");
            assert_eq!(read["x"], *text);
        }
        assert_eq!(lines("naïve 漢字 ✓ █·\n"), "naïve 漢字 ✓ █·\n");
    }

    #[test]
    fn a_token_that_another_party_repeats_is_not_shown() {
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJyZXBvOm8vciJ9.c2lnbmF0dXJl";
        let escaped = [format!("assertion%3D{token}&x"), format!("was \\n{token}"), format!("jwt.{token}")];
        for text in [format!("assertion={token}"), format!("\"{token}\" is used up"), token.to_owned()]
            .into_iter()
            .chain(escaped)
        {
            let shown = quoted_words(&text);
            assert!(shown.contains("(a token)") && !shown.contains("eyJ"), "{shown}");
        }
        assert_eq!(quoted_words("it begins with eyJ"), "it begins with eyJ");
        assert_eq!(quoted_words("https://as.example/eyJ/x"), "https://as.example/eyJ/x");
    }

    #[test]
    fn no_line_is_endless() {
        assert_eq!(quoted_words(&"x".repeat(201)), format!("{}…", "x".repeat(200)));
        assert_eq!(one_line(&"ä".repeat(40_000)).chars().count(), LINE_CAP + 1);
        assert_eq!(lines(&"x\n".repeat(40_000)).len(), 80_000);
    }

    #[test]
    fn only_plain_text_stands_in_a_command() {
        assert_eq!(shell_word(&"x".repeat(WORD_CAP + 1)), None);
        assert_eq!(shell_word("https://as.example/t?a=b").as_deref(), Some("'https://as.example/t?a=b'"));
        for bad in [
            "",
            "https://e/$(touch${IFS}x)",
            "https://e/'x",
            "https://e/`x`",
            "a b",
            "a;b",
            "a|b",
            "a\\b",
            "a!b",
            "ä",
            "a\"b",
            "a*b",
        ] {
            assert_eq!(shell_word(bad), None, "{bad:?}");
        }
    }
}
