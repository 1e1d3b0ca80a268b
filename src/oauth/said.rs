//! What another party says about a failure, in whatever form it says it.
//!
//! OAuth's own form is read with the types of the oauth2 crate. Gateways, frameworks and other APIs have forms of their own; those
//! are data here. What is found is for people alone: status and code decide what happens.

use oauth2::basic::BasicErrorResponse;
use serde_json::Value;

use super::OauthError;

/// The members that hold words for people, the most exact first. A number takes that element of a list.
const WORDS: &[&[&str]] = &[
    // RFC 6749 section 5.2, and RFC 9457 (problem details).
    &["error_description"],
    &["detail"],
    // Google (AIP-193), Microsoft Graph and many others.
    &["error", "message"],
    &["error", "description"],
    // Apigee.
    &["fault", "faultstring"],
    // AWS API Gateway, Kong, Spring, Fastify.
    &["message"],
    &["Message"],
    // Okta.
    &["errorSummary"],
    &["errorMessage"],
    // JSON:API, GraphQL.
    &["errors", "0", "detail"],
    &["errors", "0", "message"],
    &["errors", "0"],
    // FastAPI.
    &["detail", "0", "msg"],
    &["description"],
    &["msg"],
    &["reason"],
    &["title"],
];

/// What an answer that is no grant says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The error code (RFC 6749 section 5.2), if there is one.
    pub(crate) code: Option<String>,
    /// Its words for people, as they came.
    pub(crate) words: Option<String>,
    /// Where to read more.
    pub(crate) uri: Option<String>,
}

impl Said {
    /// Reads the body of an answer with this media type. A page says nothing: it is for a browser.
    pub(crate) fn read(media: &str, text: &str) -> Self {
        let text = text.trim();
        if media.contains("html") || media.contains("xml") || text.starts_with('<') {
            return Self::default();
        }
        if let Ok(standard) = serde_json::from_str::<BasicErrorResponse>(text)
            && standard.error_description().is_some()
        {
            return Self {
                code: present(standard.error().as_ref()),
                words: standard.error_description().and_then(|words| present(words)),
                uri: standard.error_uri().and_then(|uri| present(uri)),
            };
        }
        match serde_json::from_str::<Value>(text) {
            Ok(Value::String(words)) => Self { words: present(&words), ..Self::default() },
            Ok(value @ Value::Object(_)) => Self {
                code: value["error"].as_str().and_then(present),
                words: WORDS.iter().find_map(|path| at(&value, path)),
                uri: value["error_uri"].as_str().and_then(present),
            },
            Ok(_) => Self::default(),
            Err(_) if matches!(media, "" | "text/plain") => Self { words: present(text), ..Self::default() },
            Err(_) => Self::default(),
        }
    }

    /// As an OAuth error of an answer with this status.
    pub(crate) fn error(&self, status: u16) -> OauthError {
        let (words, uri) = (self.words.as_deref(), self.uri.as_deref());
        match &self.code {
            Some(code) => OauthError::new(code, words, uri),
            None => OauthError::without_code(status, words),
        }
    }
}

fn present(text: &str) -> Option<String> {
    Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn at(value: &Value, path: &[&str]) -> Option<String> {
    let found = path.iter().try_fold(value, |value, step| match value {
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        _ => value.get(step),
    });
    found?.as_str().and_then(present)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(media: &str, text: &str) -> (Option<String>, Option<String>) {
        let Said { code, words, .. } = Said::read(media, text);
        (code, words)
    }

    #[test]
    fn words_are_found_in_every_usual_form() {
        for text in [
            r#"{"error":"c","error_description":"why"}"#,
            r#"{"error":"c","message":"why","statusCode":401}"#,
            r#"{"error":"c","error_description":null,"detail":"why"}"#,
            r#"{"error":"c","error_description":7,"message":"why"}"#,
        ] {
            assert_eq!(said("application/json", text), (Some("c".to_owned()), Some("why".to_owned())), "{text}");
        }
        for text in [
            r#"{"type":"about:blank","title":"Bad","status":400,"detail":"why"}"#,
            r#"{"message":"why"}"#,
            r#"{"Message":"why"}"#,
            r#"{"error":{"code":400,"message":"why","status":"INVALID_ARGUMENT"}}"#,
            r#"{"fault":{"faultstring":"why","detail":{"errorcode":"x"}}}"#,
            r#"{"errorCode":"E0000","errorSummary":"why"}"#,
            r#"{"errors":[{"message":"why"}]}"#,
            r#"{"errors":["why"]}"#,
            r#"{"detail":[{"loc":["body"],"msg":"why"}]}"#,
            r#""why""#,
        ] {
            assert_eq!(said("application/problem+json", text), (None, Some("why".to_owned())), "{text}");
        }
        assert_eq!(said("text/plain", "why\n"), (None, Some("why".to_owned())));
        let as_text = r#"{"error":"invalid_grant","error_description":"why"}"#;
        assert_eq!(said("text/plain", as_text), (Some("invalid_grant".to_owned()), Some("why".to_owned())));
    }

    #[test]
    fn a_page_says_nothing_and_neither_does_silence() {
        for (media, text) in [
            ("text/html", "<html>why</html>"),
            ("text/plain", "  <!doctype html>why"),
            ("application/json", "<html>"),
            ("application/octet-stream", "why"),
            ("application/json", "why"),
            ("application/json", "{}"),
            ("application/json", "[\"why\"]"),
            ("application/json", r#"{"message":" ","error":""}"#),
            ("", ""),
        ] {
            assert_eq!(said(media, text), (None, None), "{media} {text}");
        }
    }
}
