//! Reads the answers of token endpoints (RFC 6749 sections 5.1 and 5.2).
//!
//! Five members count. Each is read by itself, so that one that is odd but plain (a lifetime in quotes, scopes as a list) costs no
//! token, and the error for one that is not plain names it. The types of a token and of an error are those of the oauth2 crate. Its
//! reader of answers is not used: it takes one spelling of each member, and its errors name none.

use std::time::Duration;

use oauth2::basic::BasicTokenType;

use super::cure::{Sent, cure};
use super::{Error, Grant, Issued, Request};
use crate::oauth::members::Kind as JsonKind;
use crate::oauth::{Issuer, Members, Said, Scopes, quoted_words};
use crate::outbound::Answer;
use crate::token::AccessToken;

/// Reads the answer of a token endpoint. Fails unless it grants a token of the kind that was asked for.
pub(super) fn read(issuer: &Issuer, answer: &Answer, request: &Request) -> Result<Issued, Error> {
    if !matches!(answer.status, 200 | 201) {
        return Err(failed(issuer, answer, Sent::of(request)));
    }
    let malformed = |what| Error::Malformed { issuer: issuer.clone(), what };
    let members = answer.members().map_err(malformed)?;
    // An error beside a token, or with the status of a success, is a refusal.
    if members.raw("error").is_some() {
        return Err(refused(issuer, answer, Sent::of(request)));
    }
    granted(&members, Kind::of(request), &request.scopes).map_err(malformed)
}

/// The kind of access token that was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A bearer token: anyone who holds it can use it.
    Bearer,
    /// A token that is bound to our DPoP key.
    Dpop,
}

impl Kind {
    fn of(request: &Request) -> Self {
        if request.dpop.is_some() { Self::Dpop } else { Self::Bearer }
    }
}

/// The error for an answer without a token.
pub(super) fn failed(issuer: &Issuer, answer: &Answer, sent: Sent) -> Error {
    match answer.status {
        429 | 500.. => busy(issuer, answer, &answer.said(), sent),
        _ => refused(issuer, answer, sent),
    }
}

fn busy(issuer: &Issuer, answer: &Answer, said: &Said, sent: Sent) -> Error {
    let status = answer.status;
    let words = (*said != Said::default()).then(|| said.error(status));
    // A server that is merely overloaded says so with another status.
    let by_resource = status == 500 && sent.has_resource;
    let (issuer, said) = (issuer.clone(), words.map(Box::new));
    Error::Busy { issuer, status, retry_after: answer.retry_after(), said, by_resource }
}

/// Does the server require its nonce in the DPoP proof (RFC 9449 section 8)?
pub(super) fn wants_nonce(answer: &Answer) -> bool {
    matches!(answer.status, 400 | 401) && answer.said().code.as_deref() == Some("use_dpop_nonce")
}

/// Reads a grant. Fails with the problem.
fn granted(members: &Members<'_>, kind: Kind, asked: &Scopes) -> Result<Issued, String> {
    let token = members.text("access_token")?.ok_or("it has no `access_token`")?;
    let token_type = members.text("token_type")?.ok_or("it has no `token_type`")?;
    of_kind(&token_type, kind)?;
    Ok(Issued {
        grant: Grant::Token(AccessToken::parse(token).map_err(|error| error.to_string())?),
        expires_in: lifetime(members)?,
        scopes: scopes(members, asked)?,
    })
}

/// The lifetime. Digits in quotes and whole floats are plain enough. Fails if it is zero, negative or no number.
fn lifetime(members: &Members<'_>) -> Result<Option<Duration>, String> {
    let Some((kind, value)) = members.raw("expires_in") else { return Ok(None) };
    let number = match kind {
        JsonKind::Number => value,
        JsonKind::Text => value.trim_matches('"').trim(),
        _ => return Err(format!("its `expires_in` is {kind}, not a number of seconds")),
    };
    let seconds = number.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    match seconds {
        None => Err(format!("its `expires_in` is {kind} that is not a number of seconds")),
        Some(seconds) if seconds < 0.0 => Err("its `expires_in` is negative".to_owned()),
        Some(seconds) if seconds.fract() != 0.0 => Err("its `expires_in` is not a whole number of seconds".to_owned()),
        Some(0.0) => Err("its `expires_in` is zero".to_owned()),
        // More seconds than there are become the most that there are; no token is used for so long.
        Some(seconds) => Ok(Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))),
    }
}

/// The scopes, as a text or as a list. Commas separate them only if every part was asked for: a comma may also be a part of one.
fn scopes(members: &Members<'_>, asked: &Scopes) -> Result<Option<Scopes>, String> {
    let Some(words) = members.texts("scope")? else { return Ok(None) };
    let words: Vec<&str> = words.iter().flat_map(|text| text.split(' ')).filter(|word| !word.is_empty()).collect();
    let parts: Vec<&str> = words.iter().flat_map(|word| word.split(',')).filter(|part| !part.is_empty()).collect();
    let are_asked = parts.len() > words.len() && parts.iter().all(|part| asked.contains(part));
    Scopes::from_list(if are_asked { parts } else { words }).map(Some).map_err(|error| error.to_string())
}

fn of_kind(found: &str, wanted: Kind) -> Result<(), String> {
    let is_dpop = found.eq_ignore_ascii_case("dpop");
    let is_bearer = found.eq_ignore_ascii_case(BasicTokenType::Bearer.as_ref());
    match wanted {
        Kind::Bearer if is_bearer => Ok(()),
        Kind::Dpop if is_dpop => Ok(()),
        Kind::Dpop if is_bearer => {
            Err("its token_type is Bearer: the token is not bound to our key, which was asked for (RFC 9449 section 5)"
                .to_owned())
        }
        Kind::Bearer if is_dpop => {
            Err("its token_type is DPoP, and no key of ours was named; set `dpop = true`".to_owned())
        }
        _ => {
            Err(format!("its token_type is {:?}, not Bearer, the only one that can be passed on", quoted_words(found)))
        }
    }
}

/// The error for a refusal, or for temporary trouble that the OAuth error code reports.
fn refused(issuer: &Issuer, answer: &Answer, sent: Sent) -> Error {
    let (status, said) = (answer.status, answer.said());
    let error = said.error(status);
    let cure = |code: &str| cure(code, said.words.as_deref(), sent);
    match said.code.as_deref() {
        Some("temporarily_unavailable" | "server_error" | "slow_down") => busy(issuer, answer, &said, sent),
        Some(code) => Error::Refused { issuer: issuer.clone(), cure: cure(code), error },
        // RFC 6749 section 5.2 allows 400 and 401; with any other status this is probably not a token endpoint.
        None if matches!(status, 400 | 401 | 403) => {
            Error::Refused { issuer: issuer.clone(), cure: cure(&error.code), error }
        }
        None if status < 300 => {
            Error::Malformed { issuer: issuer.clone(), what: "its `error` is not a text".to_owned() }
        }
        None => Error::Malformed { issuer: issuer.clone(), what: format!("it has {error}") },
    }
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
        read(&issuer(), &answer(status, body.as_bytes()), &Request::default())
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
            r#"{"access_token":"SECRET","token_type":"Bearer","expires_in":1.5}"#,
            r#"{"access_token":"SECRET","token_type":"Bearer","expires_in":[60]}"#,
            r#"{"access_token":["SECRET"],"token_type":"Bearer"}"#,
            r#"{"access_token":"SECRET","token_type":["Bearer"]}"#,
            r#"{"access_token":"SECRET","token_type":"Bearer","scope":{"a":1}}"#,
            r#"{"access_token":"SECRET","access_token":"SECRET","token_type":"Bearer"}"#,
            r#"{"access_token":"SECRET","token_type":"Bearer","error":7}"#,
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
    fn what_is_odd_and_plain_costs_no_token() {
        let life = |value: &str| {
            let body = format!(r#"{{"access_token":"abc","token_type":"Bearer","expires_in":{value}}}"#);
            reads(200, &body).map(|issued| issued.expires_in)
        };
        for value in ["3600", "\"3600\"", "3600.0", "3.6e3", "\" 3600 \""] {
            assert_eq!(life(value), Ok(Some(Duration::from_secs(3_600))), "{value}");
        }
        assert_eq!(life("null"), Ok(None));
        assert!(life("1.0e300").is_ok_and(|life| life > Some(Duration::from_secs(1 << 40))));
        let body =
            "\u{feff}{\"access_token\":\"abc\",\"token_type\":\"bearer\",\"scope\":[\"a\",\"b\"],\"refresh_token\":7}";
        assert_eq!(reads(201, body).expect("granted").scopes.map(|scopes| scopes.to_string()).as_deref(), Some("a b"));
    }

    #[test]
    fn commas_separate_scopes_only_if_every_part_was_asked_for() {
        let asked = |asked: &str| Request { scopes: Scopes::parse(asked).expect("scopes"), ..Request::default() };
        let body = br#"{"access_token":"abc","token_type":"Bearer","scope":"a,b"}"#;
        let granted = |scopes: &str| read(&issuer(), &answer(200, body), &asked(scopes)).expect("granted").scopes;
        assert_eq!(granted("a b c").map(|scopes| scopes.to_string()).as_deref(), Some("a b"));
        assert_eq!(granted("a").map(|scopes| scopes.to_string()).as_deref(), Some("a,b"));
        assert_eq!(granted("a,b").map(|scopes| scopes.to_string()).as_deref(), Some("a,b"));
    }

    #[test]
    fn an_error_with_the_status_of_a_success_is_a_refusal() {
        for body in [
            r#"{"error":"invalid_grant","error_description":"why"}"#,
            r#"{"error":"invalid_grant","error_description":"why","access_token":"SECRET","token_type":"Bearer"}"#,
        ] {
            let error = reads(200, body).expect_err(body);
            assert!(matches!(&error, Error::Refused { error, .. } if error.code == "invalid_grant"), "{error}");
            assert!(error.to_string().contains("\"why\"") && !error.to_string().contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn trouble_and_foreign_forms_keep_their_words() {
        let trouble = reads(503, r#"{"error":"server_error","error_description":"no database"}"#).expect_err("busy");
        assert!(
            trouble.is_temporary()
                && trouble.to_string().ends_with("status 503: server_error, in its words: \"no database\""),
            "{trouble}"
        );
        let gateway = reads(502, r#"{"message":"no route"}"#).expect_err("busy");
        assert!(gateway.to_string().ends_with("status 502, in its words: \"no route\""), "{gateway}");
        assert!(reads(503, "<html>x</html>").expect_err("busy").to_string().ends_with("status 503"));
        let problem = reads(403, r#"{"title":"Forbidden","detail":"not this audience"}"#).expect_err("refused");
        assert!(
            problem.to_string().contains("status 403 without an OAuth error, in its words: \"not this audience\""),
            "{problem}"
        );
        assert!(!reads(400, "{}").expect_err("refused").to_string().contains("in its words"));
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
            let _ = read(&issuer(), &answer(status, &body), &Request::default());
        }
    }
}
