//! What a fuzz target calls: queries, as a hostile caller may send them. Compiled for tests and fuzzing only.

use url::form_urlencoded;

use super::answer::Failure;
use super::query::{Query, target};
use crate::broker::Action;

/// Reads the bytes as the query of each path. Panics if a refusal shows characters that a terminal would obey.
pub fn read_query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let told = |outcome: Result<(), Failure>| {
        let words = outcome.err().map(|failure| failure.words().to_owned()).unwrap_or_default();
        assert!(!words.chars().any(char::is_control), "{words:?}");
        assert!(words.len() < 4_096, "a refusal is something to read: {} bytes", words.len());
    };
    let known =
        ["server", "scope", "min_ttl", "fresh", "use", "unlisted", "method", "url", "body_sha256", "dpop_nonce"];
    told(Query::read(text, &known).and_then(|query| {
        query.configured_only()?;
        query.head()?;
        let request = query.request(Action::Headers)?;
        let named = form_urlencoded::parse(text.as_bytes()).filter(|(name, _)| name == "server").count();
        assert_eq!(named, 1, "one request names one server: {request:?}");
        Ok(())
    }));
    told(target(text).map(drop));
}
