//! Reads the answers of token endpoints (RFC 6749 sections 5.1 and 5.2) with the types of the oauth2 crate.

use std::time::Duration;

use oauth2::TokenResponse;
use oauth2::basic::{BasicErrorResponse, BasicErrorResponseType, BasicTokenResponse, BasicTokenType};

use super::cure::cure;
use super::{Error, Grant, Issued, Request};
use crate::oauth::{Issuer, OauthError, Scopes};
use crate::outbound::Answer;
use crate::token::AccessToken;

/// The longest lifetime that is accepted: a year. A longer one is an error of the server.
pub(crate) const LONGEST_LIFETIME: Duration = Duration::from_secs(366 * 86_400);

/// Reads the answer of a token endpoint. Fails unless it grants a token of this kind.
pub(super) fn read(issuer: &Issuer, answer: &Answer, kind: Kind) -> Result<Issued, Error> {
    match answer.status {
        200 => granted(answer, kind).map_err(|what| Error::Malformed { issuer: issuer.clone(), what }),
        status => Err(failed(issuer, status, answer)),
    }
}

/// The kind of access token that was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A bearer token: anyone who holds it can use it.
    Bearer,
    /// A token that is bound to our DPoP key.
    Dpop,
}

impl Kind {
    pub(super) fn of(request: &Request) -> Self {
        if request.dpop.is_some() { Self::Dpop } else { Self::Bearer }
    }
}

/// The error for an answer without a token.
pub(super) fn failed(issuer: &Issuer, status: u16, answer: &Answer) -> Error {
    match status {
        429 | 500.. => Error::Busy { issuer: issuer.clone(), status, retry_after: answer.retry_after() },
        _ => refused(issuer, status, answer),
    }
}

/// Does the server require its nonce in the DPoP proof (RFC 9449 section 8)?
pub(super) fn wants_nonce(answer: &Answer) -> bool {
    let code = |wire: BasicErrorResponse| wire.error().as_ref() == "use_dpop_nonce";
    matches!(answer.status, 400 | 401) && answer.json::<BasicErrorResponse>().is_ok_and(code)
}

/// Reads a successful answer. Fails with the problem.
fn granted(answer: &Answer, kind: Kind) -> Result<Issued, String> {
    let wire: BasicTokenResponse = answer
        .json()
        .map_err(|what| format!("{what} (access_token and token_type as text, expires_in as a positive number)"))?;
    of_kind(wire.token_type(), kind)?;
    let expires_in = wire.expires_in();
    if expires_in.is_some_and(|life| life.is_zero() || life > LONGEST_LIFETIME) {
        return Err("its expires_in is zero or more than a year".to_owned());
    }
    let scopes = wire
        .scopes()
        .map(|scopes| Scopes::from_list(scopes.iter().map(|scope| scope.as_str()).filter(|scope| !scope.is_empty())));
    Ok(Issued {
        grant: Grant::Token(
            AccessToken::parse(wire.access_token().secret().clone()).map_err(|error| error.to_string())?,
        ),
        expires_in,
        scopes: scopes.transpose().map_err(|error| error.to_string())?,
    })
}

fn of_kind(found: &BasicTokenType, wanted: Kind) -> Result<(), String> {
    let is_dpop = matches!(found, BasicTokenType::Extension(name) if name.eq_ignore_ascii_case("dpop"));
    match (found, wanted) {
        (BasicTokenType::Bearer, Kind::Bearer) => Ok(()),
        (_, Kind::Dpop) if is_dpop => Ok(()),
        (BasicTokenType::Bearer, Kind::Dpop) => {
            Err("its token_type is Bearer: the token is not bound to our key, which was asked for (RFC 9449 section 5)"
                .to_owned())
        }
        (_, Kind::Bearer) if is_dpop => {
            Err("its token_type is DPoP, and no key of ours was named; set `dpop = true`".to_owned())
        }
        _ => Err("its token_type is not Bearer, the only one that can be passed on".to_owned()),
    }
}

/// The error for a refusal, or for temporary trouble that the OAuth error code reports.
fn refused(issuer: &Issuer, status: u16, answer: &Answer) -> Error {
    let issuer = issuer.clone();
    let Ok(wire) = answer.json::<BasicErrorResponse>() else {
        let words = format!("status {status} without an OAuth error");
        return match status {
            // RFC 6749 section 5.2 allows 400 and 401; with any other status this is probably not a token endpoint.
            400 | 401 | 403 => {
                let error = OauthError::new("error_without_code", Some(&words), None);
                Error::Refused { issuer, cure: cure(&error.code, None), error }
            }
            _ => Error::Malformed { issuer, what: format!("it has {words}") },
        };
    };
    let code: &BasicErrorResponseType = wire.error();
    let code = code.as_ref();
    if matches!(code, "temporarily_unavailable" | "server_error" | "slow_down") {
        return Error::Busy { issuer, status, retry_after: answer.retry_after() };
    }
    let description = wire.error_description().map(String::as_str);
    let error = OauthError::new(code, description, wire.error_uri().map(String::as_str));
    Error::Refused { issuer, error, cure: cure(code, description) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
    use zeroize::Zeroizing;

    use super::*;

    fn answer(status: u16, body: &[u8]) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        Answer { status, headers, body: Zeroizing::new(body.to_vec()) }
    }

    fn issuer() -> Issuer {
        Issuer::parse("https://as.example.com").expect("good")
    }

    fn reads(status: u16, body: &str) -> Result<Issued, Error> {
        read(&issuer(), &answer(status, body.as_bytes()), Kind::Bearer)
    }

    #[test]
    fn a_good_answer_is_read_whatever_the_case_of_bearer() {
        for kind in ["Bearer", "bearer", "BEARER"] {
            let body = format!(r#"{{"access_token":"abc","token_type":"{kind}","expires_in":60,"scope":"b a"}}"#);
            let issued = reads(200, &body).expect("granted");
            assert_eq!(issued.expires_in, Some(Duration::from_secs(60)));
            assert_eq!(issued.scopes.expect("named").to_string(), "a b");
        }
    }

    #[test]
    fn what_cannot_be_used_is_malformed_and_shows_no_token() {
        for body in [
            r#"{"access_token":"SECRET","token_type":"DPoP","expires_in":60}"#,
            r#"{"access_token":"SECRET","token_type":"N_A"}"#,
            r#"{"access_token":"SECRET"}"#,
            r#"{"access_token":"SECRET\r\nX: y","token_type":"Bearer"}"#,
            r#"{"access_token":"SECRET","token_type":"Bearer","expires_in":0}"#,
            r#"{"access_token":"SECRET","token_type":"Bearer","expires_in":-5}"#,
            r#"{"access_token":"SECRET","token_type":"Bearer","expires_in":99999999999}"#,
            r#"{"access_token":"SECRET","token_type":"Bearer","expires_in":"SECRET"}"#,
            r#"{"access_token":"SECRET","token_type":"Bearer","scope":"a\u0007"}"#,
            r#"["SECRET"]"#,
            "SECRET",
        ] {
            let error = reads(200, body).expect_err(body);
            assert!(matches!(error, Error::Malformed { .. }), "{body}");
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn a_refusal_shows_the_servers_words() {
        let body = r#"{"error":"invalid_grant","error_description":"sub is not trusted","error_uri":"https://as.example.com/help"}"#;
        let shown = reads(400, body).expect_err("refused").to_string();
        assert_eq!(
            shown,
            "https://as.example.com refuses with invalid_grant, in its words: \"sub is not trusted\" (see https://as.example.com/help)"
        );
    }

    #[test]
    fn trouble_of_the_server_is_temporary_a_refusal_is_not() {
        assert!(reads(503, "<html>").expect_err("busy").is_temporary());
        assert!(reads(429, "").expect_err("busy").is_temporary());
        assert!(reads(400, r#"{"error":"temporarily_unavailable"}"#).expect_err("busy").is_temporary());
        assert!(!reads(400, r#"{"error":"invalid_grant"}"#).expect_err("refused").is_temporary());
        assert!(!reads(401, "no json").expect_err("refused").is_temporary());
        assert!(matches!(reads(404, "<html>"), Err(Error::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_panic(status in 200u16..600, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&issuer(), &answer(status, &body), Kind::Dpop);
        }
    }
}
