//! The spellings in which a token is handed out. One place, so that API and commands agree to the byte.
//!
//! Each is written once, into memory that is cleared afterwards.

use serde_json::json;
use zeroize::Zeroizing;

use crate::clock::Boot;
use crate::token::{AccessToken, BadToken, Token, expose};

/// What is written, borrowed from a token in the cache or from the answer of a daemon.
pub(crate) struct Form<'a> {
    token: &'a AccessToken,
    expires_in: u64,
    expires_at: &'a str,
    scope: String,
    resource: &'a str,
    issuer: &'a str,
}

impl<'a> Form<'a> {
    /// A token as it is now.
    pub(crate) fn of(token: &'a Token, now: Boot) -> Self {
        Self {
            token: &token.access_token,
            expires_in: token.left(now).as_secs(),
            expires_at: &token.expires_at,
            scope: token.scopes.to_string(),
            resource: token.resource.as_str(),
            issuer: token.issuer.as_str(),
        }
    }

    /// The answer of `/v1/token`.
    pub(crate) fn json(&self) -> Zeroizing<String> {
        let mut text = self.room();
        text.push_str("{\"access_token\":\"");
        push_token(&mut text, self.token);
        text.push_str("\",\"token_type\":\"Bearer\",\"expires_in\":");
        text.push_str(&self.expires_in.to_string());
        let texts = [
            (",\"expires_at\":\"", self.expires_at),
            ("\",\"scope\":\"", &self.scope),
            ("\",\"resource\":\"", self.resource),
            ("\",\"issuer\":\"", self.issuer),
        ];
        for (name, value) in texts {
            text.push_str(name);
            push_escaped(&mut text, value);
        }
        text.push_str("\"}");
        text
    }

    /// `{"headers":{"Authorization":["Bearer …"]},"expires":"…"}`: the Bazel and EngFlow credential helper's answer.
    pub(crate) fn listed_headers(&self) -> Zeroizing<String> {
        let mut text = self.room();
        text.push_str("{\"headers\":{\"Authorization\":[\"Bearer ");
        push_token(&mut text, self.token);
        text.push_str("\"]},\"expires\":\"");
        push_escaped(&mut text, self.expires_at);
        text.push_str("\"}");
        text
    }

    /// Room for everything at once: growing would leave copies of the token in freed memory.
    fn room(&self) -> Zeroizing<String> {
        let texts = self.expires_at.len() + self.scope.len() + self.resource.len() + self.issuer.len();
        Zeroizing::new(String::with_capacity(token_room(self.token) + 2 * texts + 160))
    }
}

/// A token as a command has it, from a daemon or from this process.
pub(crate) struct Handed {
    token: AccessToken,
    expires_in: u64,
    expires_at: String,
    scope: String,
    resource: String,
    issuer: String,
}

impl Handed {
    /// From the broker, now.
    pub(crate) fn new(token: &Token, now: Boot) -> Self {
        let Form { token, expires_in, expires_at, scope, resource, issuer } = Form::of(token, now);
        Self {
            token: token.clone(),
            expires_in,
            expires_at: expires_at.to_owned(),
            scope,
            resource: resource.to_owned(),
            issuer: issuer.to_owned(),
        }
    }

    fn form(&self) -> Form<'_> {
        Form {
            token: &self.token,
            expires_in: self.expires_in,
            expires_at: &self.expires_at,
            scope: self.scope.clone(),
            resource: &self.resource,
            issuer: &self.issuer,
        }
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
        Some(Self { token: token.ok()?, expires_in, expires_at, scope, resource, issuer })
    }

    /// From the answer of a daemon's `/v1/headers`.
    pub(crate) fn read_headers(body: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Wire {
            headers: Fields,
            expires: String,
        }
        #[derive(serde::Deserialize)]
        struct Fields {
            #[serde(rename = "Authorization")]
            authorization: [secrecy::SecretString; 1],
        }
        let Wire { headers: Fields { authorization: [value] }, expires } = serde_json::from_slice(body).ok()?;
        let token = AccessToken::parse(expose(&value).strip_prefix("Bearer ")?.to_owned()).ok()?;
        Some(Self {
            token,
            expires_in: 0,
            expires_at: expires,
            scope: String::new(),
            resource: String::new(),
            issuer: String::new(),
        })
    }

    /// Has it only the characters of RFC 6750 section 2.1?
    pub(crate) fn is_b64token(&self) -> bool {
        self.token.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
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
        self.form().json()
    }

    /// `{"Authorization":"Bearer …"}`: one flat object of strings, the spelling that MCP clients' helpers want.
    pub(crate) fn flat_headers(&self) -> Zeroizing<String> {
        header_json(&self.token)
    }

    /// The answer of a credential helper's `get`.
    pub(crate) fn listed_headers(&self) -> Zeroizing<String> {
        self.form().listed_headers()
    }

    /// `WAYLEAVE_TOKEN_NAME=…`
    pub(crate) fn variable(&self, name: &str) -> Zeroizing<String> {
        Zeroizing::new(format!("WAYLEAVE_TOKEN_{}={}", variable_name(name), self.token.expose()))
    }
}

/// `{"Authorization":"Bearer …"}`. The name is spelled exactly so: clients merge header maps by case.
pub fn header_json(token: &AccessToken) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(token_room(token) + 32));
    text.push_str("{\"Authorization\":\"Bearer ");
    push_token(&mut text, token);
    text.push_str("\"}");
    text
}

fn token_room(token: &AccessToken) -> usize {
    let length = token.expose().len();
    if token.is_plain() { length } else { 2 * length }
}

fn push_token(text: &mut String, token: &AccessToken) {
    if token.is_plain() { text.push_str(token.expose()) } else { push_escaped(text, token.expose()) }
}

/// Writes a text as the inside of a JSON string. URLs and scopes hardly ever need an escape.
fn push_escaped(text: &mut String, value: &str) {
    if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        text.push_str(value);
    } else {
        let quoted = Zeroizing::new(json!(value).to_string());
        text.push_str(&quoted[1..quoted.len() - 1]);
    }
}

/// In `<NAME>` letters are upper case and all else is `_`.
fn variable_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(token: &str) -> Handed {
        Handed {
            token: AccessToken::parse(token.to_owned()).expect("visible ASCII"),
            expires_in: 60,
            expires_at: "2026-01-01T00:00:00Z".to_owned(),
            scope: "a b".to_owned(),
            resource: "https://mcp.example.com/\"x".to_owned(),
            issuer: "https://as.example.com".to_owned(),
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
    fn what_is_written_is_read_back() {
        let read = Handed::read(handed("abc").json().as_bytes()).expect("ours");
        assert_eq!((read.raw().as_str(), read.expires_in, read.scope.as_str()), ("abc", 60, "a b"));
        assert!(Handed::read(b"{\"access_token\":\"a b\"}").is_none());
    }

    #[test]
    fn a_name_becomes_a_variable() {
        assert_eq!(handed("t").variable("my-server.1").as_str(), "WAYLEAVE_TOKEN_MY_SERVER_1=t");
    }
}
