//! The forms in which a token is handed out: one place, so that the API and the commands agree to the byte.
//!
//! Each form is written once; what has the token in it, into memory that is cleared afterwards.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use zeroize::Zeroizing;

use crate::broker::Lease;
use crate::clock::{Clock, Now};
use crate::token::{AccessToken, BadToken, Token, expose};

/// The text before and after the token.
pub(crate) struct Around<T = String> {
    pub(crate) before: &'static str,
    pub(crate) after: T,
}

impl From<Around> for Around<Bytes> {
    fn from(Around { before, after }: Around) -> Self {
        Self { before, after: after.into() }
    }
}

impl Around {
    /// The text with the token in it.
    fn with(&self, token: &AccessToken) -> Zeroizing<String> {
        // Allocated once, because growth would leave copies of the token in freed memory.
        let room = self.before.len() + token_room(token) + self.after.len() + 1;
        let mut text = Zeroizing::new(String::with_capacity(room));
        text.push_str(self.before);
        push_token(&mut text, token);
        text.push_str(&self.after);
        text
    }
}

/// The answer of `/v1/token` about a token in the cache. It is written at most once a second, so a clock that is set shows within one.
pub(crate) fn token_json(token: &Token, clock: &Clock) -> Around<Bytes> {
    let boot = clock.boot();
    let left = token.left(boot).as_secs();
    let after = token.beside_token.text(left, || {
        let party = party(&token.scopes.to_string(), token.resource.as_str(), token.issuer.as_str());
        after_token(left, &token.expires_at(Now { boot, wall: clock.wall() }), &party)
    });
    Around { before: BEFORE_TOKEN, after }
}

/// What stands before the token in the answer of `/v1/token`.
const BEFORE_TOKEN: &str = "{\"access_token\":\"";

/// The part of that answer that names scopes, server and issuer.
fn party(scope: &str, resource: &str, issuer: &str) -> String {
    let texts = [("\",\"scope\":\"", scope), ("\",\"resource\":\"", resource), ("\",\"issuer\":\"", issuer)];
    let mut party = String::new();
    for (name, value) in texts {
        party.push_str(name);
        push_escaped(&mut party, value);
    }
    party.push_str("\"}");
    party
}

/// What stands behind the token.
fn after_token(expires_in: u64, expires_at: &str, party: &str) -> String {
    let mut digits = itoa::Buffer::new();
    // Times in RFC 3339 form need no escapes.
    let pieces = [
        "\",\"token_type\":\"Bearer\",\"expires_in\":",
        digits.format(expires_in),
        ",\"expires_at\":\"",
        expires_at,
        party,
    ];
    pieces.concat()
}

/// `{"headers":{"Authorization":["Bearer …"]},"expires":"…"}`: the Bazel and EngFlow credential helper's answer.
pub(crate) fn listed_bearer(expires_at: &str) -> Around {
    let mut after = String::with_capacity(expires_at.len() + 24);
    after.push_str("\"]},\"expires\":\"");
    push_escaped(&mut after, expires_at);
    after.push_str("\"}");
    Around { before: "{\"headers\":{\"Authorization\":[\"Bearer ", after }
}

/// A token that a command prints, from a daemon or from this process.
pub(crate) struct Handed {
    token: AccessToken,
    expires_in: u64,
    expires_at: String,
    scope: String,
    resource: String,
    issuer: String,
    /// The field and the token for the front door before the server.
    outer: Option<(String, AccessToken)>,
}

impl Handed {
    /// From the broker of this process; `None` where there is no token that could be handed on.
    pub(crate) fn new(lease: &Lease, now: Now) -> Option<Self> {
        let (token, outer) = (&*lease.token, lease.outer.as_ref());
        // Times in RFC 3339, UTC and whole seconds sort as text.
        let expires_at = token.expires_at(now);
        let expires_at = match outer.map(|outer| outer.token.expires_at(now)) {
            Some(of_outer) => of_outer.min(expires_at),
            None => expires_at,
        };
        let outer = match outer {
            Some(outer) => Some((outer.header.clone(), outer.token.credential.token()?.clone())),
            None => None,
        };
        Some(Self {
            token: token.credential.token()?.clone(),
            expires_in: token.left(now.boot).as_secs(),
            expires_at: expires_at.into_owned(),
            scope: token.scopes.to_string(),
            resource: token.resource.as_str().to_owned(),
            issuer: token.issuer.as_str().to_owned(),
            outer,
        })
    }

    /// From the answer of a daemon's `/v1/token`.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Wire {
            access_token: secrecy::SecretString,
            expires_in: u64,
            expires_at: String,
            scope: String,
            resource: String,
            issuer: String,
        }
        let wire: Wire = serde_json::from_slice(body).ok()?;
        let token: Result<AccessToken, BadToken> = AccessToken::parse(expose(&wire.access_token).to_owned());
        let Wire { expires_in, expires_at, scope, resource, issuer, .. } = wire;
        Some(Self { token: token.ok()?, expires_in, expires_at, scope, resource, issuer, outer: None })
    }

    /// From the answer of a daemon's `/v1/headers`.
    pub(crate) fn read_headers(body: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Wire {
            headers: BTreeMap<String, [secrecy::SecretString; 1]>,
            expires: String,
        }
        let Wire { mut headers, expires } = serde_json::from_slice(body).ok()?;
        let bearer = |[value]: [secrecy::SecretString; 1]| {
            AccessToken::parse(expose(&value).strip_prefix("Bearer ")?.to_owned()).ok()
        };
        let token = bearer(headers.remove("Authorization")?)?;
        let outer = match headers.pop_first() {
            Some((name, value)) => Some((name, bearer(value)?)),
            None => None,
        };
        Some(Self {
            token,
            expires_in: 0,
            expires_at: expires,
            scope: String::new(),
            resource: String::new(),
            issuer: String::new(),
            outer,
        })
    }

    /// Does it consist of the characters of RFC 6750 section 2.1 only?
    pub(crate) fn is_b64token(&self) -> bool {
        self.token.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
    }

    /// When it ends, in RFC 3339.
    pub(crate) fn expires_at(&self) -> &str {
        &self.expires_at
    }

    /// What was granted.
    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }

    /// Who issued it.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The bare token.
    pub(crate) fn raw(&self) -> Zeroizing<String> {
        Zeroizing::new(self.token.expose().to_owned())
    }

    /// `Authorization: Bearer …`
    pub(crate) fn header(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Authorization: Bearer {}", self.token.expose()))
    }

    /// The answer of `/v1/token`.
    pub(crate) fn json(&self) -> Zeroizing<String> {
        let party = party(&self.scope, &self.resource, &self.issuer);
        let after = after_token(self.expires_in, &self.expires_at, &party);
        Around { before: BEFORE_TOKEN, after }.with(&self.token)
    }

    /// `{"Authorization":"Bearer …"}`: one flat object of strings, which MCP clients expect of their helpers.
    pub(crate) fn flat_headers(&self) -> Zeroizing<String> {
        let Some((name, token)) = &self.outer else { return header_json(&self.token) };
        let before = Zeroizing::new(format!(",\"{name}\":\"Bearer "));
        joined(&[header_json(&self.token).trim_end_matches('}'), &before, &escaped(token), "\"}"])
    }

    /// The answer of a credential helper's `get`.
    pub(crate) fn listed_headers(&self) -> Zeroizing<String> {
        let Some((name, token)) = &self.outer else { return listed_bearer(&self.expires_at).with(&self.token) };
        let fields = [("Authorization", &self.token), (name, token)];
        listed_fields(&fields.map(|(name, token)| (name.to_owned(), bearer("Bearer", token))), &self.expires_at)
    }

    /// `SAFECONDUCT_TOKEN_NAME=…`
    pub(crate) fn variable(&self, name: &str) -> Zeroizing<String> {
        Zeroizing::new(format!("SAFECONDUCT_TOKEN_{}={}", variable_name(name), self.token.expose()))
    }
}

/// `{"Authorization":"Bearer …"}`. The name is spelled exactly so: clients merge header maps by case.
pub fn header_json(token: &AccessToken) -> Zeroizing<String> {
    Around { before: "{\"Authorization\":\"Bearer ", after: "\"}".to_owned() }.with(token)
}

fn bearer(scheme: &str, token: &AccessToken) -> Zeroizing<String> {
    Zeroizing::new(format!("{scheme} {}", token.expose()))
}

/// Allocated once, for the same reason as above.
fn joined(pieces: &[&str]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(pieces.iter().map(|piece| piece.len()).sum()));
    pieces.iter().for_each(|piece| text.push_str(piece));
    text
}

/// The answer of `/v1/headers` with several fields: `{"headers":{"Authorization":["AWS4-HMAC-SHA256 …"],…},…}`.
pub(crate) fn listed_fields(fields: &[(String, Zeroizing<String>)], expires_at: &str) -> Zeroizing<String> {
    // Enough for every byte escaped, because growth would leave copies of the session token in freed memory.
    let room = fields.iter().map(|(name, value)| name.len() + 6 * value.len() + 16).sum::<usize>() + 96;
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str("{\"headers\":{");
    for (at, (name, value)) in fields.iter().enumerate() {
        text.push_str(if at == 0 { "\"" } else { ",\"" });
        push_escaped(&mut text, name);
        text.push_str("\":[\"");
        push_escaped(&mut text, value);
        text.push_str("\"]");
    }
    text.push_str("},\"expires\":\"");
    push_escaped(&mut text, expires_at);
    text.push_str("\"}");
    text
}

/// The token as the inside of a JSON string.
pub(crate) fn escaped(token: &AccessToken) -> Zeroizing<String> {
    Around { before: "", after: String::new() }.with(token)
}

fn token_room(token: &AccessToken) -> usize {
    let length = token.expose().len();
    if token.is_plain() { length } else { 2 * length }
}

fn push_token(text: &mut String, token: &AccessToken) {
    if token.is_plain() { text.push_str(token.expose()) } else { push_escaped(text, token.expose()) }
}

/// Appends a text as the inside of a JSON string. URLs and scopes hardly ever need an escape.
fn push_escaped(text: &mut String, value: &str) {
    if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        text.push_str(value);
    } else {
        let quoted = Zeroizing::new(json!(value).to_string());
        text.push_str(&quoted[1..quoted.len() - 1]);
    }
}

/// Letters become upper case, everything that is neither letter nor digit becomes `_`.
pub(crate) fn variable_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::clock::{rfc3339, unix};
    use crate::token::tests::lasting;

    #[tokio::test(start_paused = true)]
    async fn what_stands_beside_a_token_follows_the_clocks_to_the_second() {
        const HOUR: Duration = Duration::from_secs(3_600);
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let clock = Clock::virtual_at(noon);
        let token = lasting(HOUR, &clock);
        let says = |left: u64, expires: SystemTime| {
            let after = token_json(&token, &clock).after;
            let wanted = format!("\"expires_in\":{left},\"expires_at\":\"{}\"", rfc3339(expires));
            let text = String::from_utf8_lossy(&after);
            assert!(text.contains(&wanted), "{wanted} at {}: {text}", unix(clock.wall()));
            after.as_ptr()
        };
        let first = says(3_600, noon + HOUR);
        assert_eq!(says(3_600, noon + HOUR), first, "it is not written again");
        tokio::time::advance(Duration::from_millis(1_500)).await;
        says(3_598, noon + HOUR);
        clock.set_wall(noon + 5 * HOUR);
        tokio::time::advance(Duration::from_secs(1)).await;
        says(3_597, noon + 6 * HOUR - Duration::from_millis(1_500));
        clock.suspend(HOUR / 2);
        says(1_797, noon + 6 * HOUR - Duration::from_millis(1_500));
    }

    fn handed(token: &str) -> Handed {
        Handed {
            token: AccessToken::parse(token.to_owned()).expect("visible ASCII"),
            expires_in: 60,
            expires_at: "2026-01-01T00:00:00Z".to_owned(),
            scope: "a b".to_owned(),
            resource: "https://mcp.example.com/\"x".to_owned(),
            issuer: "https://as.example.com".to_owned(),
            outer: None,
        }
    }

    #[test]
    fn every_spelling_is_valid_json_even_for_hostile_tokens() {
        let handed = handed("a\"b\\c");
        let json: serde_json::Value = serde_json::from_str(&handed.json()).expect("JSON");
        assert_eq!(json["access_token"], "a\"b\\c");
        assert_eq!(json["resource"], "https://mcp.example.com/\"x");
        let flat: serde_json::Value = serde_json::from_str(&handed.flat_headers()).expect("JSON");
        assert_eq!(flat, serde_json::json!({"Authorization": "Bearer a\"b\\c"}));
        let listed: serde_json::Value = serde_json::from_str(&handed.listed_headers()).expect("JSON");
        assert_eq!(listed["headers"]["Authorization"][0], "Bearer a\"b\\c");
    }

    #[test]
    fn signed_fields_are_lists_of_one() {
        let fields = [("Authorization", "AWS4 a=\"b\""), ("X-Amz-Date", "20260101T000000Z")]
            .map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned())));
        let json: serde_json::Value =
            serde_json::from_str(&listed_fields(&fields, "2026-01-01T00:05:00Z")).expect("JSON");
        assert_eq!(json["headers"]["Authorization"], serde_json::json!(["AWS4 a=\"b\""]));
        assert_eq!(
            (&json["headers"]["X-Amz-Date"][0], &json["expires"]),
            (&"20260101T000000Z".into(), &"2026-01-01T00:05:00Z".into())
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let read = Handed::read(handed("abc").json().as_bytes()).expect("ours");
        assert_eq!((read.raw().as_str(), read.expires_in, read.scope.as_str()), ("abc", 60, "a b"));
        assert!(Handed::read(b"{\"access_token\":\"a b\"}").is_none());
    }

    #[test]
    fn a_name_becomes_a_variable() {
        assert_eq!(handed("t").variable("my-server.1").as_str(), "SAFECONDUCT_TOKEN_MY_SERVER_1=t");
    }
}
