//! Error answers of an authorization server (RFC 6749 section 5.2), made safe to show.

use std::fmt;

use super::quoted_words;

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
