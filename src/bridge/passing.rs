//! Which failures pass, so that another attempt is worth it. Pure.

use hyper::StatusCode;
use serde::Deserialize;

use crate::mcp::era::answer::Answer;
use crate::mcp::rpc::OUR_CODE;

/// An error that the relay or the daemon answers instead of the server.
#[derive(Deserialize)]
struct Ours {
    code: i64,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    class: String,
}

/// The class of an error, which is JSON, if it is ours. Errors of a server with our number never get here.
pub(super) fn class_of_ours(error: &str) -> Option<String> {
    let error: Ours = serde_json::from_str(error).ok()?;
    (error.code == OUR_CODE).then_some(error.data.class)
}

/// Is this answer an error of ours that passes?
pub(super) fn is_ours_and_passes(answer: &[u8]) -> bool {
    let answer = std::str::from_utf8(answer).map(Answer::read);
    matches!(answer, Ok(Answer::Error(error)) if class_of_ours(&error).is_some_and(|class| class == "temporary"))
}

/// Does a failure with this status pass?
pub(super) fn is_passing(status: StatusCode) -> bool {
    let passes = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED) || passes.contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_our_errors_only_the_temporary_ones_pass() {
        let is = |code: i64, class: &str| {
            let error = format!(r#""error":{{"code":{code},"message":"x","data":{{"class":"{class}"}}}}"#);
            is_ours_and_passes(format!(r#"{{"id":"s",{error}}}"#).as_bytes())
        };
        assert!(is(-31_080, "temporary"));
        assert!(!is(-31_080, "refused") && !is(-32_603, "temporary"));
        assert!(!is_ours_and_passes(br#"{"id":"s","result":{}}"#) && !is_ours_and_passes(b"x"));
    }

    #[test]
    fn a_status_of_a_busy_or_failing_server_passes() {
        let is = |status| is_passing(StatusCode::from_u16(status).expect("a status"));
        for passing in [408, 425, 429, 500, 502, 503, 504] {
            assert!(is(passing), "{passing}");
        }
        for permanent in [200, 400, 401, 403, 404, 405, 501] {
            assert!(!is(permanent), "{permanent}");
        }
    }
}
