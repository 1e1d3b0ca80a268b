//! Templates, and the encoders of what goes into them.
//!
//! A text in double quotes is that of JSON in every form: TOML's basic strings, YAML's double-quoted scalars, Python and TypeScript
//! know the escapes that JSON writes, and a list of texts is the same in all of them.

use super::Facts;

/// Puts the values into a template, in one pass: what is put in is not read again.
pub(super) fn fill(template: &str, facts: &Facts) -> String {
    let mut pieces = template.split('«');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once('»').unwrap_or((piece, ""));
        out.push_str(&facts.value(name));
        out.push_str(rest);
    }
    out
}

/// A text in double quotes.
pub(super) fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A list of texts.
pub(super) fn list(words: &[String]) -> String {
    let mut out = String::from("[");
    for word in words {
        if out.len() > 1 {
            out.push_str(", ");
        }
        out.push_str(&json(word));
    }
    out.push(']');
    out
}

/// A text as a YAML scalar: in single quotes, where nothing is escaped but these, if double ones would need many escapes.
pub(super) fn yaml(text: &str) -> String {
    if text.contains(['"', '\\']) && !text.contains(char::is_control) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    json(text)
}

/// A word for a POSIX shell, in single quotes where it needs them.
pub(super) fn shell_word(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
