//! Error answers of an authorization server (RFC 6749 section 5.2), made safe to show.

use std::fmt;

use super::quoted_words;

/// The code of an answer that has none.
const WITHOUT_CODE: &str = "error_without_code";

/// An error answer of an authorization server (RFC 6749 section 5.2), made safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthError {
    /// The registered or extension code. `error_without_code` if the answer had none.
    pub code: String,
    /// The status of an answer without a code.
    pub status: Option<u16>,
    /// Its description, cut and cleaned.
    pub description: Option<String>,
    /// Its `error_uri`, cut and cleaned.
    pub uri: Option<String>,
}

/// How sentences begin and end with which some servers open every description of a code: those of RFC 6749 section 5.2, as Ory's
/// library for OAuth has them. The cause follows.
const OPENINGS: &[(&str, &str)] = &[
    ("the provided authorization grant", "issued to another client."),
    ("the request is missing a required parameter", "otherwise malformed."),
    ("client authentication failed", "unsupported authentication method)."),
    ("the authenticated client is not authorized", "grant type."),
    ("the client is not authorized to request a token", "this method."),
    ("the authorization grant type is not supported", "authorization server."),
    ("the requested scope is invalid", "or malformed."),
    ("the resource owner or authorization server denied", "request."),
];

impl OauthError {
    /// Takes the server's words, cuts them at 200 characters and removes control characters.
    pub fn new(code: &str, description: Option<&str>, uri: Option<&str>) -> Self {
        let code = if code.is_empty() { WITHOUT_CODE.to_owned() } else { quoted_words(code) };
        let description = description.map(|words| quoted_words(without_opening(words)));
        Self { code, status: None, description, uri: uri.map(quoted_words) }
    }

    /// An answer that names no code.
    pub fn without_code(status: u16, words: Option<&str>) -> Self {
        Self { status: Some(status), ..Self::new(WITHOUT_CODE, words, None) }
    }
}

/// The description from where it says more than its code does.
fn without_opening(words: &str) -> &str {
    let lower = words.to_ascii_lowercase();
    let cause = OPENINGS.iter().find_map(|(begins, ends)| {
        let end = lower.starts_with(begins).then(|| lower.find(ends))?? + ends.len();
        Some(words[end..].trim_start()).filter(|cause| !cause.is_empty())
    });
    cause.unwrap_or(words)
}

impl fmt::Display for OauthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "status {status} without an OAuth error")?,
            None => f.write_str(&self.code)?,
        }
        if let Some(description) = &self.description {
            write!(f, ", in its words: \"{description}\"")?;
        }
        if let Some(uri) = &self.uri {
            write!(f, " (see {uri})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_carries_the_cause_is_shown() {
        let opening = "The provided authorization grant (e.g., a code) or refresh token is invalid, or was issued to another client.";
        let shown = |words: &str| OauthError::new("invalid_grant", Some(words), None).description.unwrap_or_default();
        let cause = "The JWT in \"assertion\" has expired.";
        assert_eq!(shown(&format!("{opening} {cause}")), cause);
        assert_eq!(shown(opening), opening, "where nothing follows, it stays");
        assert_eq!(shown(cause), cause);
    }

    #[test]
    fn words_of_ours_are_not_called_its_words() {
        assert_eq!(OauthError::without_code(400, None).to_string(), "status 400 without an OAuth error");
        let said = OauthError::without_code(403, Some("no"));
        assert_eq!(said.to_string(), "status 403 without an OAuth error, in its words: \"no\"");
        assert_eq!(said.code, "error_without_code");
    }
}
