//! The spellings in which a token is handed out. One place, so that API and commands agree to the byte.

use serde_json::json;
use zeroize::Zeroizing;

use crate::broker::Granted;
use crate::clock::{Clock, rfc3339};
use crate::token::{AccessToken, BadToken, expose};

/// A token as it is handed out, by a daemon or by this process.
pub(crate) struct Handed {
    token: AccessToken,
    /// Seconds left.
    pub expires_in: u64,
    /// RFC 3339.
    pub expires_at: String,
    /// What was granted.
    pub scope: String,
    /// For whom it is.
    pub resource: String,
    /// Who issued it.
    pub issuer: String,
}

impl Handed {
    /// From the broker, now.
    pub(crate) fn new(granted: &Granted, clock: &Clock) -> Self {
        let token = &granted.token;
        Self {
            token: token.access_token.clone(),
            expires_in: token.left(clock.boot()).as_secs(),
            expires_at: rfc3339(token.expires_at()),
            scope: token.scopes.to_string(),
            resource: token.resource.to_string(),
            issuer: token.issuer.to_string(),
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
        let mut text = Zeroizing::new(String::with_capacity(self.token.expose().len() + 512));
        // A token is visible ASCII, but a quote or backslash in it would still break hand-written JSON.
        text.push_str("{\"access_token\":");
        text.push_str(&Zeroizing::new(json!(self.token.expose()).to_string()));
        text.push_str(",\"token_type\":\"Bearer\",\"expires_in\":");
        text.push_str(&self.expires_in.to_string());
        for (name, value) in [
            ("expires_at", &self.expires_at),
            ("scope", &self.scope),
            ("resource", &self.resource),
            ("issuer", &self.issuer),
        ] {
            text.push_str(",\"");
            text.push_str(name);
            text.push_str("\":");
            text.push_str(&json!(value).to_string());
        }
        text.push('}');
        text
    }

    /// `{"Authorization":"Bearer …"}`: one flat object of strings, the spelling that MCP clients' helpers want.
    pub(crate) fn flat_headers(&self) -> Zeroizing<String> {
        header_json(&self.token)
    }

    /// `{"headers":{"Authorization":["Bearer …"]},"expires":"…"}`: the Bazel and EngFlow credential helper's answer.
    pub(crate) fn listed_headers(&self) -> Zeroizing<String> {
        let value =
            Zeroizing::new(json!(Zeroizing::new(format!("Bearer {}", self.token.expose())).as_str()).to_string());
        Zeroizing::new(format!(
            "{{\"headers\":{{\"Authorization\":[{}]}},\"expires\":\"{}\"}}",
            value.as_str(),
            self.expires_at
        ))
    }

    /// `WAYLEAVE_TOKEN_NAME=…`
    pub(crate) fn variable(&self, name: &str) -> Zeroizing<String> {
        Zeroizing::new(format!("WAYLEAVE_TOKEN_{}={}", variable_name(name), self.token.expose()))
    }
}

/// `{"Authorization":"Bearer …"}`. The name is spelled exactly so: clients merge header maps by case.
pub fn header_json(token: &AccessToken) -> Zeroizing<String> {
    let value = Zeroizing::new(format!("Bearer {}", token.expose()));
    let value = Zeroizing::new(json!(value.as_str()).to_string());
    Zeroizing::new(format!("{{\"Authorization\":{}}}", value.as_str()))
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
