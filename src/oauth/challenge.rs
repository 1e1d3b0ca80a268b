//! Parses `WWW-Authenticate`: every challenge of every header field (RFC 9110 section 11.6.1, RFC 9728 section 5.1).
//!
//! Servers send one or several fields, with one or several challenges each, with or without quotes, in any letter case.
//! The text is not trusted: parsing must not panic and must take linear time.

use reqwest::header::{GetAll, HeaderValue};

use super::{BadUrl, Scopes, ServerUrl, quoted_words};

/// The relevant content of the challenges of a 401 response.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Challenge {
    /// All schemes, in order, as the server wrote them.
    pub(crate) schemes: Vec<String>,
    /// The URL of the resource metadata (RFC 9728 section 5.1).
    pub(crate) resource_metadata: Option<String>,
    /// The scopes that the server asks for.
    pub(crate) scopes: Option<Scopes>,
    /// The error code (RFC 6750 section 3.1).
    pub(crate) error: Option<String>,
    /// What the server says in its own words, cut and cleaned.
    pub(crate) words: Option<String>,
}

impl Challenge {
    /// Where the server says that its metadata is, or why no request can be built from that text. `None` if it says nothing.
    pub(crate) fn metadata_place(&self) -> Option<Result<ServerUrl, BadUrl>> {
        let place = ServerUrl::parse(self.resource_metadata.as_deref()?);
        if let Err(why) = &place {
            tracing::debug!(%why, "`resource_metadata` of the challenge cannot be used");
        }
        Some(place)
    }
}

/// Reads all challenges. Only parameters of Bearer and DPoP count; of several values the first counts.
pub(crate) fn read(fields: &GetAll<'_, HeaderValue>) -> Challenge {
    let mut found = Challenge::default();
    // Ignore fields that are not ASCII text.
    for field in fields.iter().filter_map(|value| value.to_str().ok()) {
        for (scheme, parameters) in parse(field) {
            found.schemes.push(scheme.clone());
            if !scheme.eq_ignore_ascii_case("bearer") && !scheme.eq_ignore_ascii_case("dpop") {
                continue;
            }
            for (name, value) in parameters {
                match name.to_ascii_lowercase().as_str() {
                    "resource_metadata" if found.resource_metadata.is_none() => found.resource_metadata = Some(value),
                    "error" if found.error.is_none() => found.error = Some(value),
                    "error_description" if found.words.is_none() => found.words = Some(quoted_words(&value)),
                    "scope" if found.scopes.is_none() => found.scopes = Scopes::parse(&value).ok(),
                    _ => {}
                }
            }
        }
    }
    found
}

type Parameters = Vec<(String, String)>;

/// Splits one field into its challenges. Skips invalid syntax up to the next comma.
fn parse(field: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = field;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return challenges;
        }
        let (word, after) = token(rest);
        if word.is_empty() {
            rest = skip_element(rest);
            continue;
        }
        let blank = after.trim_start_matches([' ', '\t']);
        match blank.strip_prefix('=') {
            // `name = value` is a parameter of the previous challenge. A second `=` would be padding of a token68.
            Some(value) if !value.starts_with('=') => {
                let (value, after) = parameter_value(value.trim_start_matches([' ', '\t']));
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word.to_owned(), value));
                }
                rest = after;
            }
            Some(_) => rest = skip_element(rest),
            None => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = skip_token68(blank, after);
            }
        }
    }
}

/// Skips the `token68` that a scheme may have instead of parameters. It ends at a comma or at the end of the field.
fn skip_token68<'a>(blank: &'a str, after: &'a str) -> &'a str {
    if blank.len() == after.len() {
        return after;
    }
    let end = blank.find(|c: char| !(c.is_ascii_alphanumeric() || "-._~+/=".contains(c))).unwrap_or(blank.len());
    let (word, rest) = blank.split_at(end);
    let alone = rest.trim_start_matches([' ', '\t']);
    let is_parameter = word.trim_end_matches('=').contains('=')
        || (word.ends_with('=') && !alone.is_empty() && !alone.starts_with(','))
        || alone.starts_with('=');
    if !word.is_empty() && !is_parameter && (alone.is_empty() || alone.starts_with(',')) && word.ends_with('=') {
        rest
    } else {
        blank
    }
}

/// Splits a token (RFC 9110 section 5.6.2) off the text. It may be empty.
fn token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))).unwrap_or(text.len());
    text.split_at(end)
}

/// Reads a quoted string, or everything up to a comma or blank, because some servers omit the quotes around URLs.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(c),
        }
    }
    // The closing quote is missing, so the rest cannot be parsed.
    (value, "")
}

/// Skips everything up to the next comma that is not quoted.
fn skip_element(text: &str) -> &str {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => return &text[at..],
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

    use super::*;

    fn challenge(fields: &[&str]) -> Challenge {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(field).expect("a field"));
        }
        read(&headers.get_all(WWW_AUTHENTICATE))
    }

    fn metadata(fields: &[&str]) -> Option<String> {
        challenge(fields).resource_metadata
    }

    const URL: &str = "https://h.example/.well-known/oauth-protected-resource/mcp";

    #[test]
    fn the_metadata_url_is_found_in_every_form() {
        for field in [
            format!("Bearer resource_metadata=\"{URL}\""),
            format!("bearer RESOURCE_METADATA = \"{URL}\""),
            format!("Bearer resource_metadata={URL}"),
            format!("Bearer realm=\"a, b\", error=\"invalid_token\", resource_metadata=\"{URL}\""),
            format!("Basic realm=\"x\", Bearer resource_metadata=\"{URL}\""),
            format!("Negotiate YWJj==, Bearer resource_metadata=\"{URL}\""),
            format!("Negotiate, DPoP algs=\"ES256 RS256\", resource_metadata=\"{URL}\""),
            format!("Bearer error=\"x\",resource_metadata=\"{URL}\""),
            format!(",, Bearer resource_metadata=\"{URL}\" ,"),
        ] {
            assert_eq!(metadata(&[&field]).as_deref(), Some(URL), "{field}");
        }
        let dpop = format!("DPoP algs=\"ES256\", resource_metadata=\"{URL}\"");
        assert_eq!(metadata(&["Basic realm=\"x\"", &dpop]).as_deref(), Some(URL));
    }

    #[test]
    fn parameters_of_other_schemes_do_not_count() {
        assert_eq!(metadata(&["Basic resource_metadata=\"https://evil.example/\""]), None);
        assert_eq!(metadata(&["Bearer"]), None);
        assert_eq!(metadata(&["resource_metadata=\"https://evil.example/\""]), None);
        assert_eq!(metadata(&["Bearer realm=\"resource_metadata=https://evil.example/\""]), None);
    }

    #[test]
    fn the_first_of_several_values_counts() {
        let fields =
            ["Bearer resource_metadata=\"https://one.example/\"", "Bearer resource_metadata=\"https://two.example/\""];
        assert_eq!(metadata(&fields).as_deref(), Some("https://one.example/"));
    }

    #[test]
    fn scopes_of_the_challenge_are_read() {
        let scopes = challenge(&["Bearer scope=\"b a\", resource_metadata=\"x\""]).scopes.expect("has some");
        assert_eq!(scopes.to_string(), "a b");
        assert_eq!(challenge(&["Bearer scope=\"a\u{5c}\u{5c}\""]).scopes, None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(field in "[ -~\\t]{0,200}") {
            let _ = challenge(&[&field]);
        }

        #[test]
        fn any_mixture_of_syntax_is_read_without_panic(parts in prop::collection::vec(
            prop::sample::select(vec!["Bearer", " ", ",", "=", "\"", "\\", "a", "==", "scope", "resource_metadata", "\t"]), 0..40)) {
            let _ = parse(&parts.concat());
        }
    }
}
