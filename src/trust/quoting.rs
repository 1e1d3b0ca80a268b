//! Texts as words of a shell, of TOML and of CEL (Common Expression Language).

use serde_json::Value;

use super::{Pinned, Subject};

/// The text as one word of a shell. Characters that are not seen, and pairs that a CI runner reads as a command, are
/// escapes, so that the command is whole wherever it is printed.
pub(super) fn word(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'\'');
    if is_plain && !text.contains("::") && !text.contains("##") {
        return format!("'{text}'");
    }
    let mut out = "$'".to_owned();
    let mut before = ' ';
    for one in text.chars() {
        let is_pair = one == before && (one == ':' || one == '#');
        match one {
            '\'' | '\\' => out.extend(['\\', one]),
            _ if is_pair => out.push_str(&format!("\\x{:02x}", u32::from(one))),
            ' '..='~' => out.push(one),
            _ => out.push_str(&format!("\\U{:08x}", u32::from(one))),
        }
        before = one;
    }
    out.push('\'');
    out
}

/// The text in quotes, for TOML and for CEL.
pub(super) fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// All conditions in CEL. `claims` is what the product calls the claims.
pub(super) fn cel(claims: &str, subject: &Subject, pinned: &[&Pinned]) -> String {
    let mut all = vec![match subject {
        Subject::Exactly(sub) => format!("{claims}.sub == {}", quoted(sub)),
        Subject::StartsWith(start) => format!("{claims}.sub.startsWith({})", quoted(start)),
    }];
    all.extend(pinned.iter().map(|one| equals(claims, one)));
    all.join(" && ")
}

pub(super) fn equals(claims: &str, pinned: &Pinned) -> String {
    let value = pinned.value.as_str().map_or_else(|| pinned.value.to_string(), quoted);
    format!("{} == {value}", member(claims, pinned.path))
}

pub(super) fn member(claims: &str, path: &[&str]) -> String {
    path.iter().fold(claims.to_owned(), |all, name| format!("{all}[{}]", quoted(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_shell_is_whole_and_shows_all_of_itself() {
        for (text, shown) in [
            ("repo:a/b:ref:refs/heads/x", "'repo:a/b:ref:refs/heads/x'"),
            ("a\"b $(c) `d`", "'a\"b $(c) `d`'"),
            ("it's", "$'it\\'s'"),
            ("a::b ##[c]", "$'a:\\x3ab #\\x23[c]'"),
            ("a\u{202e}b\n\\", "$'a\\U0000202eb\\U0000000a\\\\'"),
        ] {
            assert_eq!(word(text), shown);
        }
    }
}
