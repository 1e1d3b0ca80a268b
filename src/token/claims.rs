//! The claims of a JWT, decoded and not verified.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::oauth::Scopes;

/// The claims that we read. None of them is a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// The issuer, who signed it.
    pub iss: Option<String>,
    /// The subject.
    pub sub: Option<String>,
    /// The audiences. A single string is a list of one (RFC 7519 section 4.1.3).
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Expiry in seconds since 1970.
    #[serde(default, deserialize_with = "numeric_date")]
    pub exp: Option<i64>,
    /// Issue time in seconds since 1970.
    #[serde(default, deserialize_with = "numeric_date")]
    pub iat: Option<i64>,
    /// The identifier with which a server detects a replay.
    pub jti: Option<String>,
    /// The key that the token is bound to (RFC 7800).
    #[serde(default)]
    pub cnf: Option<Confirmation>,
    /// The scopes of an access token (RFC 9068 section 2.2.3). Anything but texts is ignored.
    #[serde(default, deserialize_with = "words")]
    pub scope: Vec<String>,
    /// The same under another name.
    #[serde(default, deserialize_with = "words")]
    pub scp: Vec<String>,
}

/// The key that a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Confirmation {
    /// A DPoP key by its thumbprint (RFC 9449 section 6.1).
    pub jkt: Option<String>,
    /// A certificate by its SHA-256 (RFC 8705 section 3.1).
    #[serde(rename = "x5t#S256")]
    pub x5t: Option<String>,
}

impl Claims {
    /// Decodes the payload of a compact JWT without verifying it.
    pub fn read(jwt: &str) -> Result<Self, NotJwt> {
        let mut parts = jwt.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotJwt);
        };
        if header.is_empty() || signature.is_empty() {
            return Err(NotJwt);
        }
        let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).map_err(|_| NotJwt)?;
        serde_json::from_slice(&payload).map_err(|_| NotJwt)
    }

    /// The scopes that the token itself names; `None` if it names none.
    pub(crate) fn scopes(&self) -> Option<Scopes> {
        let words = self.scope.iter().chain(&self.scp).map(String::as_str);
        Some(Scopes::granted(words)).filter(|scopes| !scopes.is_empty())
    }

    /// Is it the identity of a SPIFFE workload?
    pub(crate) fn is_svid(&self) -> bool {
        self.sub.as_deref().is_some_and(|sub| sub.starts_with("spiffe://"))
    }

    /// How long the token may be used from now on by its own dates, if it has any. Fails with the seconds since its end if it is
    /// over, even if our clock is ahead by `skew`.
    ///
    /// By our clock a token may look ended that is not, if our clock is ahead. If `iat` agrees with that, its span counts; else
    /// it is used at once or not at all.
    pub(crate) fn life_from(&self, unix_now: i64, skew: Duration) -> Result<Option<Duration>, i64> {
        let Some(exp) = self.exp else { return Ok(None) };
        let skew = i64::try_from(skew.as_secs()).unwrap_or(i64::MAX);
        let left = exp.saturating_sub(unix_now);
        if left <= skew.saturating_neg() {
            return Err(left.saturating_neg());
        }
        let is_new = self.iat.is_some_and(|iat| unix_now.saturating_sub(iat) <= skew);
        let span = self.life();
        Ok(match u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_secs) {
            Some(left) => Some(span.map_or(left, |span| span.min(left))),
            None if is_new => span,
            None => Some(Duration::from_secs(1)),
        })
    }

    /// The lifetime `exp − iat`, if both are present. Zero if the token expires before it is issued.
    pub fn life(&self) -> Option<Duration> {
        let span = self.exp?.saturating_sub(self.iat?);
        Some(Duration::from_secs(u64::try_from(span).unwrap_or(0)))
    }
}

/// Is this text base64url? Padding, which a JWT must not have, does no harm.
pub(super) fn is_base64url(part: &str) -> bool {
    let text = part.strip_suffix("==").or_else(|| part.strip_suffix('=')).unwrap_or(part);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Aud {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::<Aud>::deserialize(source)? {
        None => Vec::new(),
        Some(Aud::One(one)) => vec![one],
        Some(Aud::Many(many)) => many,
    })
}

/// The words of a text, or of all texts in a list.
fn words<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Vec<String>, D::Error> {
    let split = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    Ok(match serde_json::Value::deserialize(source)? {
        serde_json::Value::String(text) => split(&text),
        serde_json::Value::Array(list) => list.iter().filter_map(|one| one.as_str()).flat_map(split).collect(),
        _ => Vec::new(),
    })
}

/// Reads a NumericDate in whole seconds. It may have a fraction (RFC 7519 section 2).
fn numeric_date<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Option<i64>, D::Error> {
    #[expect(clippy::cast_possible_truncation, reason = "a saturating cast is what an absurd date deserves")]
    Ok(Option::<f64>::deserialize(source)?.map(|seconds| seconds as i64))
}

/// The text is not a compact JWT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JWT (three base64url parts, of which the first two are JSON objects)")]
pub struct NotJwt;
