//! Parses `WWW-Authenticate`: every challenge of every header field (RFC 9110 section 11.6.1, RFC 9728 section 5.1).
//!
//! Servers send one or several fields, with one or several challenges each, with or without quotes, in any letter case, and with
//! mistakes. What is wrong in one parameter must not hide the next: reading goes on at the next comma that a name and `=` follow.
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
        Some(ServerUrl::parse(self.resource_metadata.as_deref()?))
    }
}

/// Reads all challenges. Only parameters of Bearer and DPoP count; of several values the first counts.
pub(crate) fn read(fields: &GetAll<'_, HeaderValue>) -> Challenge {
    let mut found = Challenge::default();
    for field in fields {
        // Descriptions are often in UTF-8, which RFC 9110 section 5.5 calls opaque.
        for (scheme, parameters) in parse(&String::from_utf8_lossy(field.as_bytes())) {
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

/// Splits one field into its challenges. A word is a scheme only at the start or after a comma, and if no `=` follows it.
fn parse(field: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = field;
    let mut after_comma = true;
    loop {
        // Some servers put semicolons between parameters.
        let trimmed = rest.trim_start_matches([' ', '\t', ',', ';']);
        after_comma |= rest[..rest.len() - trimmed.len()].contains(',');
        rest = trimmed;
        if rest.is_empty() {
            return challenges;
        }
        let (word, after) = token(rest);
        if word.is_empty() {
            rest = rest.find(',').map_or("", |comma| &rest[comma..]);
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
            Some(_) => rest = rest.find(',').map_or("", |comma| &rest[comma..]),
            None if after_comma && (after.is_empty() || after.starts_with([' ', '\t', ','])) => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = skip_token68(blank, after);
            }
            // One more word of a value that should have been quoted.
            None => rest = after,
        }
        after_comma = false;
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

/// Reads a value, and returns what follows it. Without quotes it ends at a comma, or where blanks and another `name=` follow.
fn parameter_value(text: &str) -> (String, &str) {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted_value(quoted);
    }
    let mut end = text.find(',').unwrap_or(text.len());
    for (at, _) in text[..end].match_indices([' ', '\t']) {
        if starts_parameter(text[at..].trim_start_matches([' ', '\t'])) {
            end = at;
            break;
        }
    }
    let (value, rest) = text.split_at(end);
    (value.trim_end_matches([' ', '\t']).to_owned(), rest)
}

/// Reads a quoted string up to its quote. A quote that begins the value of the next parameter is not its end: its own one is
/// missing, and it ended at the comma before that parameter.
fn quoted_value(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => match parameter_before(&quoted[..at]) {
                Some(comma) => return (quoted[..comma].to_owned(), &quoted[comma..]),
                None if ends_value(&quoted[at + 1..]) => return (value, &quoted[at + 1..]),
                None => value.push(c),
            },
            _ => value.push(c),
        }
    }
    // There is no quote at the end.
    let next =
        quoted.match_indices(',').find(|(at, _)| starts_parameter(quoted[at + 1..].trim_start_matches([' ', '\t'])));
    match next {
        Some((comma, _)) => (quoted[..comma].to_owned(), &quoted[comma..]),
        None => (value, ""),
    }
}

/// Can a value end before this?
fn ends_value(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with([',', ' ', '\t', ';'])
}

/// Is this the start of `name=`, and not of a token68 with its padding?
fn starts_parameter(text: &str) -> bool {
    let (name, after) = token(text);
    let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
    !name.is_empty() && value.is_some_and(|value| !value.is_empty() && !value.starts_with('='))
}

/// If the text ends in `, name=`, where is that comma?
fn parameter_before(text: &str) -> Option<usize> {
    let name = text.strip_suffix('=')?.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let before = name.trim_end_matches([' ', '\t']);
    (name.len() + 1 < text.len() && before.ends_with(',')).then(|| before.len() - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

    use super::*;

    fn challenge(fields: &[&str]) -> Challenge {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(field.as_bytes()).expect("a field"));
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
    fn a_mistake_in_one_parameter_does_not_hide_the_next() {
        for field in [
            // Bytes above ASCII, as they are sent.
            format!(
                "Bearer error=\"invalid_token\", error_description=\"Jeton manquant ou périmé\", resource_metadata=\"{URL}\""
            ),
            format!("Bearer error_description=\"\u{201c}a\u{201d}\", resource_metadata=\"{URL}\""),
            // Blanks without quotes.
            format!("Bearer error=invalid_token, error_description=The token is missing, resource_metadata=\"{URL}\""),
            format!("Bearer error_description=The token is missing resource_metadata={URL}"),
            format!("Bearer realm=my server, resource_metadata={URL}, error=x"),
            // A quote too many, or one too few.
            format!("Bearer realm=\"say \"hello\", again\", resource_metadata=\"{URL}\""),
            format!("Bearer realm=\"open, resource_metadata=\"{URL}\""),
            format!("Bearer realm=\"open, resource_metadata={URL}"),
            format!("Bearer realm=\"open, error=\"x\", resource_metadata=\"{URL}\""),
            format!("Bearer \", resource_metadata=\"{URL}\""),
            format!("Bearer error=invalid\", resource_metadata=\"{URL}\""),
            // Something that is no parameter at all.
            format!("Bearer (see the docs), resource_metadata=\"{URL}\""),
            format!("Bearer realm=\"x\"; resource_metadata=\"{URL}\""),
        ] {
            assert_eq!(metadata(&[&field]).as_deref(), Some(URL), "{field}");
        }
        assert_eq!(
            challenge(&["Bearer error_description=The token is missing, error=x"]).words.as_deref(),
            Some("The token is missing")
        );
        assert_eq!(challenge(&["Bearer error=x, error_description=missing token"]).schemes, ["Bearer"]);
    }

    #[test]
    fn a_quoted_text_that_looks_like_a_parameter_is_none() {
        for field in [
            "Bearer realm=\"a, resource_metadata=https://evil.example/\"",
            "Bearer realm=\"a, resource_metadata=\\\"https://evil.example/\\\"\"",
        ] {
            assert_eq!(metadata(&[field]), None, "{field}");
        }
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
