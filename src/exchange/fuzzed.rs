//! What the fuzz targets call: answers of token endpoints as a hostile server may send them. Compiled for tests and fuzzing
//! only.

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use zeroize::Zeroizing;

use super::{Request, answer};
use crate::oauth::Issuer;
use crate::outbound::Answer;

/// Reads the bytes as an answer of each status. Panics if a token passes that must not, or if an error shows characters
/// that a terminal would obey.
pub(crate) fn read_token_answer(bytes: &[u8]) {
    let issuer = Issuer::parse("https://as.example").expect("an issuer");
    for status in [200, 201, 400, 401, 404, 503] {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let answer = Answer { status, headers, body: Zeroizing::new(bytes.to_vec()) };
        match answer::read(&issuer, &answer, &Request::default()) {
            Ok(issued) => {
                assert!(status < 300, "a refusal is no grant");
                let token = issued.token().expect("such a grant gives a token").expose();
                assert!(
                    !token.is_empty() && token.len() <= 32 * 1024 && token.bytes().all(|byte| byte.is_ascii_graphic())
                );
                assert!(issued.expires_in.is_none_or(|life| !life.is_zero()));
            }
            Err(error) => {
                let told = format!("{error} {}", error.hint().unwrap_or_default());
                assert!(!told.chars().any(char::is_control), "{told:?}");
                assert!(told.len() < 4_096, "an error is something to read: {} bytes", told.len());
            }
        }
    }
}
