//! Error answers of an authorization server (RFC 6749 section 5.2), made safe to show.

use std::fmt;

/// An error answer of an authorization server (RFC 6749 section 5.2), made safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthError {
    /// The registered or extension code.
    pub code: String,
    /// Its description, cut and cleaned.
    pub description: Option<String>,
    /// Its `error_uri`, cut and cleaned.
    pub uri: Option<String>,
}

impl OauthError {
    /// Takes the server's words, cuts them at 200 characters and removes control characters.
    pub fn new(code: &str, description: Option<&str>, uri: Option<&str>) -> Self {
        let code = if code.is_empty() { "error_without_code".to_owned() } else { quoted_words(code) };
        Self { code, description: description.map(quoted_words), uri: uri.map(quoted_words) }
    }
}

impl fmt::Display for OauthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        if let Some(description) = &self.description {
            write!(f, ", in its words: \"{description}\"")?;
        }
        if let Some(uri) = &self.uri {
            write!(f, " (see {uri})")?;
        }
        Ok(())
    }
}

/// Makes another party's text safe to show: no control characters, no direction marks, at most 200 characters.
pub(crate) fn quoted_words(text: &str) -> String {
    const CAP: usize = 200;
    let invisible = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let clean: String = text.chars().map(|c| if invisible(c) { ' ' } else { c }).take(CAP + 1).collect();
    match clean.char_indices().nth(CAP) {
        Some((cut, _)) => format!("{}…", &clean[..cut]),
        None => clean,
    }
}
