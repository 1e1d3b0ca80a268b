//! The secret types, and the one door through which a secret leaves them.
//!
//! A [`SubjectToken`] says who this workload is; an [`AccessToken`] is what the caller gets. Neither can be
//! printed, compared or serialised; `expose` is the only way to their text, so a search for it is the audit.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde::Deserialize;

use crate::clock::Boot;
pub(crate) use crate::digest::Digest;
use crate::oauth::{Audience, Issuer, Resource, Scopes, quoted_words};

mod credential;

pub use credential::Credential;
pub(crate) use credential::{Fields, Head, Unauthorized, WhyNot};

/// The signed identity document we present (RFC 8693 section 1.1), with what it says about itself.
#[derive(Clone)]
pub(crate) struct SubjectToken {
    secret: SecretString,
    kind: Kind,
    /// The claims, decoded but not verified: only the authorization server can do that.
    pub claims: Claims,
}

/// `subject_token_type` of a JWT (RFC 8693 section 3).
pub(crate) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// The same of a request that AWS answers (Google Cloud, "Workload Identity Federation with AWS").
pub(crate) const AWS_REQUEST: &str = "urn:ietf:params:aws:token-type:aws4_request";

/// What a subject token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Jwt,
    AwsRequest,
}

impl SubjectToken {
    /// Reads a compact JWT (RFC 7519). Fails when the text is not one.
    pub(crate) fn parse(secret: SecretString) -> Result<Self, NotJwt> {
        let claims = Claims::read(expose(&secret))?;
        Ok(Self { secret, kind: Kind::Jwt, claims })
    }

    /// A signed request in the place of a token, and what is known of it: for whom it is, and until when.
    pub(crate) fn aws_request(secret: SecretString, claims: Claims) -> Self {
        Self { secret, kind: Kind::AwsRequest, claims }
    }

    /// The same, of somebody whose name is known though it does not say it.
    pub(crate) fn about(mut self, who: Option<String>) -> Self {
        self.claims.sub = who;
        self
    }

    /// Is it a JWT?
    pub(crate) fn is_jwt(&self) -> bool {
        self.kind == Kind::Jwt
    }

    /// Where nobody is told what it is, it is a JWT.
    pub(crate) fn must_be_jwt(&self) -> Result<(), Unfit> {
        if self.is_jwt() { Ok(()) } else { Err(Unfit::NoJwt) }
    }

    /// What it is called where that is said (`subject_token_type`).
    pub(crate) fn token_type(&self) -> &'static str {
        match self.kind {
            Kind::Jwt => JWT,
            Kind::AwsRequest => AWS_REQUEST,
        }
    }

    /// The text, to be sent to the authorization server the audience names and to nobody else.
    pub(crate) fn expose(&self) -> &str {
        expose(&self.secret)
    }

    /// All that it says of us, for whoever has to decide whom to trust.
    pub(crate) fn all_claims(&self) -> serde_json::Map<String, serde_json::Value> {
        let payload = self.expose().split('.').nth(1).unwrap_or_default();
        let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).unwrap_or_default();
        serde_json::from_slice(&payload).unwrap_or_default()
    }

    /// Checks what must hold before the token leaves: `aud` is exactly one value and the one wanted, and
    /// `exp` is ahead. `skew` is how far our own clock may be wrong for a token that was minted just now.
    pub(crate) fn fit_for(&self, audience: &Audience, unix_now: i64, skew: Duration) -> Result<(), Unfit> {
        match self.claims.aud.as_slice() {
            [only] if audience.is_called(only) => {}
            [] => return Err(Unfit::NoAudience),
            [other] => return Err(Unfit::OtherAudience { found: quoted_words(other), wanted: audience.to_string() }),
            several => return Err(Unfit::SeveralAudiences { count: several.len() }),
        }
        let skew = i64::try_from(skew.as_secs()).unwrap_or(i64::MAX);
        match self.claims.exp {
            None => Err(Unfit::NoExpiry),
            Some(exp) if exp.saturating_add(skew) <= unix_now => {
                Err(Unfit::Expired { seconds: unix_now.saturating_sub(exp) })
            }
            Some(_) => Ok(()),
        }
    }
}

impl fmt::Debug for SubjectToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectToken").field("exp", &self.claims.exp).finish_non_exhaustive()
    }
}

/// Why a subject token may not leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// The platform was not asked for an audience, or ignored it.
    #[error("the identity token names no audience")]
    NoAudience,
    /// The platform fixed another audience, usually in its own configuration.
    #[error("the identity token is made for {found:?}, not for {wanted:?}")]
    OtherAudience {
        /// The `aud` claim.
        found: String,
        /// The audience the exchange needs.
        wanted: String,
    },
    /// Any of the named parties could replay the token at the others.
    #[error("the identity token names {count} audiences; exactly one is safe to send")]
    SeveralAudiences {
        /// How many.
        count: usize,
    },
    /// Without `exp` nobody can tell how long a leaked token would be good for.
    #[error("the identity token has no expiry")]
    NoExpiry,
    /// It proves a role of AWS to whoever asks AWS, and is no assertion.
    #[error("the identity is a signed request of AWS, and here a JWT is wanted")]
    NoJwt,
    /// The file is stale or our clock is wrong.
    #[error("the identity token expired {seconds} s ago by this machine's clock")]
    Expired {
        /// How long ago.
        seconds: i64,
    },
}

/// The claims that say who, for whom and how long. Nothing here is a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// Who signed it.
    pub iss: Option<String>,
    /// Who it is about.
    pub sub: Option<String>,
    /// For whom it was made; a single string counts as a list of one (RFC 7519 section 4.1.3).
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Expiry in seconds since 1970.
    #[serde(default, deserialize_with = "numeric_date")]
    pub exp: Option<i64>,
    /// Issue time in seconds since 1970.
    #[serde(default, deserialize_with = "numeric_date")]
    pub iat: Option<i64>,
    /// The identifier that lets a server notice a replay.
    pub jti: Option<String>,
    /// The key that the token is bound to (RFC 7800).
    #[serde(default)]
    pub cnf: Option<Confirmation>,
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

    /// `exp − iat`, when both are there; a token that expires before it is issued has no life at all.
    pub fn life(&self) -> Option<Duration> {
        let span = self.exp?.saturating_sub(self.iat?);
        Some(Duration::from_secs(u64::try_from(span).unwrap_or(0)))
    }
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

/// A NumericDate may have a fraction (RFC 7519 section 2); whole seconds are enough for us.
fn numeric_date<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Option<i64>, D::Error> {
    #[expect(clippy::cast_possible_truncation, reason = "a saturating cast is what an absurd date deserves")]
    Ok(Option::<f64>::deserialize(source)?.map(|seconds| seconds as i64))
}

/// The text is not a compact JWT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JWT (three base64url parts with a JSON object in the middle)")]
pub struct NotJwt;

/// Why a text cannot be an access token that we pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// A header value must be visible ASCII; anything else could split or poison a request.
    #[error("access_token is empty or has characters outside visible ASCII")]
    Characters,
    /// Nothing sane is that long, and headers of that size are refused everywhere.
    #[error("access_token is longer than 32 KiB")]
    TooLong,
}

/// The text of an access token. It can be sent and digested, not printed.
#[derive(Clone)]
pub struct AccessToken {
    secret: SecretString,
    /// It can stand in a JSON string as it is; known once, because it is written with every answer.
    is_plain: bool,
}

impl AccessToken {
    /// Checks that the text can be an HTTP header value (visible ASCII, at most 32 KiB).
    pub fn parse(text: String) -> Result<Self, BadToken> {
        const CAP: usize = 32 * 1024;
        let is_plain = !text.bytes().any(|byte| byte == b'"' || byte == b'\\');
        let token = Self { secret: SecretString::from(text), is_plain };
        let text = token.expose();
        if text.len() > CAP {
            Err(BadToken::TooLong)
        } else if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Err(BadToken::Characters)
        } else {
            Ok(token)
        }
    }

    /// Can it stand in a JSON string without an escape?
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The text, for the one party that may have it.
    pub fn expose(&self) -> &str {
        expose(&self.secret)
    }

    /// SHA-256, by which a token can be named without being shown.
    pub fn digest(&self) -> Digest {
        Digest::of(self.expose().as_bytes())
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(..)")
    }
}

/// A credential with everything its user has to know about it.
#[derive(Clone, Debug)]
pub struct Token {
    /// The secret, and what it needs beside itself.
    pub credential: Credential,
    /// Names the token without showing it.
    pub digest: Digest,
    /// What the server granted.
    pub scopes: Scopes,
    /// What was asked for and not granted.
    pub missing: BTreeSet<String>,
    /// The configured name of the server it is for.
    pub server: Arc<str>,
    /// The MCP server's identifier, as sent.
    pub resource: Resource,
    /// Who issued it.
    pub issuer: Issuer,
    /// When it was received.
    pub minted: Boot,
    /// The same moment for people.
    pub minted_wall: SystemTime,
    /// When it expires, for people: RFC 3339.
    pub expires_at: String,
    /// It is a JWT that carries its own expiry.
    pub dates_itself: bool,
    /// The observed life: the earlier of `expires_in` and the JWT's own `exp − iat`.
    pub life: Duration,
    /// The identifier that its issuer gave it, where it is a JWT.
    pub jti: Option<String>,
    /// Who we were, from the platform's identity to the one that the issuer saw.
    pub hops: Arc<[Hop]>,
    /// Scopes, server and issuer as an answer of the API writes them: made with the first answer, the same in all others.
    pub party_in_json: OnceLock<Box<str>>,
}

/// One identity on the way to a token. Nothing in it is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The row in the table of sources, or of exchanges for a link of a chain.
    pub source: &'static str,
    /// Who attested it.
    pub iss: Option<String>,
    /// Who we were there.
    pub sub: Option<String>,
}

impl Hop {
    /// What a subject token said about us.
    pub fn of(source: &'static str, claims: &Claims) -> Self {
        Self { source, iss: claims.iss.clone(), sub: claims.sub.clone() }
    }
}

impl Token {
    /// What is left of its life.
    pub fn left(&self, now: Boot) -> Duration {
        self.life.saturating_sub(now.since(self.minted))
    }
}

#[expect(clippy::disallowed_methods, reason = "the one door")]
pub(crate) fn expose(secret: &SecretString) -> &str {
    secrecy::ExposeSecret::expose_secret(secret)
}

#[cfg(test)]
mod tests;
