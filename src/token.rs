//! The secret types, and the one function that reads their text.
//!
//! A [`SubjectToken`] identifies this workload; an [`AccessToken`] is what the caller gets. Neither can be printed, compared or
//! serialised. Only `expose` returns their text, so a search for `expose` finds every use.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::header::HeaderValue;
use secrecy::SecretString;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use crate::clock::{Boot, Now, rfc3339};
pub(crate) use crate::digest::Digest;
use crate::oauth::{Audience, Issuer, Resource, Scopes, quoted_words};

mod claims;
mod credential;
mod of_second;

pub use claims::Claims;
pub(crate) use claims::NotJwt;
use claims::is_base64url;
pub use credential::Credential;
pub(crate) use credential::{Fields, Head, Unauthorized, WhyNot};
pub(crate) use of_second::OfSecond;

/// The signed identity document we present (RFC 8693 section 1.1), with its claims.
#[derive(Clone)]
pub(crate) struct SubjectToken {
    secret: SecretString,
    kind: Kind,
    /// The claims, decoded but not verified: only the authorization server can do that.
    pub claims: Claims,
}

/// `subject_token_type` of a JWT (RFC 8693 section 3).
pub(crate) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// `subject_token_type` of a signed AWS request (Google Cloud, "Workload Identity Federation with AWS").
pub(crate) const AWS_REQUEST: &str = "urn:ietf:params:aws:token-type:aws4_request";

/// The form of a subject token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Jwt,
    AwsRequest,
}

impl SubjectToken {
    /// Reads a compact JWT (RFC 7519). Fails when the text is not one. All parts must be base64url, because the text goes into
    /// forms and header fields, and the header must be a JSON object: every source of an identity comes through here.
    pub(crate) fn parse(secret: SecretString) -> Result<Self, NotJwt> {
        if !expose(&secret).split('.').all(is_base64url) {
            return Err(NotJwt);
        }
        let header = expose(&secret).split('.').next().unwrap_or_default();
        let header = URL_SAFE_NO_PAD.decode(header.trim_end_matches('=')).map_err(|_| NotJwt)?;
        serde_json::from_slice::<HashMap<String, IgnoredAny>>(&header).map_err(|_| NotJwt)?;
        let claims = Claims::read(expose(&secret))?;
        Ok(Self { secret, kind: Kind::Jwt, claims })
    }

    /// A signed AWS request as subject token. `claims` holds its audience and expiry.
    pub(crate) fn aws_request(secret: SecretString, claims: Claims) -> Self {
        Self { secret, kind: Kind::AwsRequest, claims }
    }

    /// Sets the subject of a token that does not contain it.
    pub(crate) fn about(mut self, who: Option<String>) -> Self {
        self.claims.sub = who;
        self
    }

    /// Is it a JWT?
    pub(crate) fn is_jwt(&self) -> bool {
        self.kind == Kind::Jwt
    }

    /// Fails unless it is a JWT. For requests that do not state the type of the token.
    pub(crate) fn must_be_jwt(&self) -> Result<(), Unfit> {
        if self.is_jwt() { Ok(()) } else { Err(Unfit::NoJwt) }
    }

    /// Its `subject_token_type`.
    pub(crate) fn token_type(&self) -> &'static str {
        match self.kind {
            Kind::Jwt => JWT,
            Kind::AwsRequest => AWS_REQUEST,
        }
    }

    /// The text. Send it only to the authorization server that the audience names.
    pub(crate) fn expose(&self) -> &str {
        expose(&self.secret)
    }

    /// All its claims, from which a trust policy is made.
    pub(crate) fn all_claims(&self) -> serde_json::Map<String, serde_json::Value> {
        self.part(1)
    }

    /// The `typ` of its header.
    pub(crate) fn typ(&self) -> Option<String> {
        self.part(0).get("typ").and_then(|typ| typ.as_str()).map(str::to_owned)
    }

    fn part(&self, at: usize) -> serde_json::Map<String, serde_json::Value> {
        let part = self.expose().split('.').nth(at).unwrap_or_default();
        let part = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).unwrap_or_default();
        serde_json::from_slice(&part).unwrap_or_default()
    }

    /// The seconds since its `iat`.
    pub(crate) fn age(&self, unix_now: i64) -> Option<i64> {
        self.claims.iat.map(|iat| unix_now.saturating_sub(iat))
    }

    /// What it says of itself, for whoever compares a refusal with the trust policy of the party that refused.
    pub(crate) fn described(&self, unix_now: i64) -> String {
        let said =
            |text: Option<&str>| text.map_or_else(|| "none".to_owned(), |text| format!("{:?}", quoted_words(text)));
        let Claims { iss, sub, aud, .. } = &self.claims;
        let aud = Some(aud.join(", ")).filter(|aud| !aud.is_empty());
        let (sub, aud) = (said(sub.as_deref()), said(aud.as_deref()));
        if !self.is_jwt() {
            return format!("a signed request of AWS, sub {sub}, aud {aud}");
        }
        let age = self.age(unix_now).map_or_else(|| "unknown (no iat)".to_owned(), |age| format!("{age} s"));
        format!("iss {}, sub {sub}, aud {aud}, age {age}, typ {}", said(iss.as_deref()), said(self.typ().as_deref()))
    }

    /// Checks the token before it is sent: `aud` is exactly one value and equal to `audience`, and `exp` is in the future.
    /// `skew` is the tolerated error of our own clock.
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

/// Why a subject token must not be sent.
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
    /// Without `exp` a leaked token would be valid without a known limit.
    #[error("the identity token has no expiry")]
    NoExpiry,
    /// A signed AWS request was found where a JWT is required.
    #[error("the identity is a signed request of AWS, and here a JWT is wanted")]
    NoJwt,
    /// The file is stale or our clock is wrong.
    #[error("the identity token expired {seconds} s ago by this machine's clock")]
    Expired {
        /// The age of the expiry.
        seconds: i64,
    },
}

/// Why a text cannot be an access token that we pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// A header value must be visible ASCII; anything else could split or poison a request.
    #[error("access_token is empty or has characters outside visible ASCII")]
    Characters,
    /// Servers refuse headers of that size.
    #[error("access_token is longer than 32 KiB")]
    TooLong,
}

/// The text of an access token. It can be sent and hashed, but not printed.
#[derive(Clone)]
pub struct AccessToken {
    secret: SecretString,
    /// The text needs no escape in a JSON string. Computed once, because every answer needs it.
    is_plain: bool,
    /// What is sent, made when it is first sent.
    sent: OnceLock<Sent>,
}

/// The text as it is sent: a second copy, which all messages share. It is erased when the token and the last of them are gone.
#[derive(Clone)]
struct Sent {
    field: HeaderValue,
    /// The part of the field that is the token.
    text: Bytes,
}

impl AccessToken {
    /// Checks that the text can be an HTTP header value (visible ASCII, at most 32 KiB).
    pub fn parse(text: String) -> Result<Self, BadToken> {
        const CAP: usize = 32 * 1024;
        let is_plain = !text.bytes().any(|byte| byte == b'"' || byte == b'\\');
        let token = Self { secret: SecretString::from(text), is_plain, sent: OnceLock::new() };
        let text = token.expose();
        if text.len() > CAP {
            Err(BadToken::TooLong)
        } else if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Err(BadToken::Characters)
        } else {
            Ok(token)
        }
    }

    /// Can the text be in a JSON string without an escape?
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The text, for the one party that may see it.
    pub fn expose(&self) -> &str {
        expose(&self.secret)
    }

    /// The value of an `Authorization` field with it (RFC 6750 section 2.1), marked as sensitive.
    pub(crate) fn in_field(&self) -> HeaderValue {
        self.sent().field.clone()
    }

    /// The text as a piece of a body.
    pub(crate) fn in_body(&self) -> Bytes {
        self.sent().text.clone()
    }

    fn sent(&self) -> &Sent {
        const SCHEME: &str = "Bearer ";
        self.sent.get_or_init(|| {
            let whole = Bytes::from_owner(Zeroizing::new([SCHEME, self.expose()].concat().into_bytes()));
            let text = whole.slice(SCHEME.len()..);
            let mut field = HeaderValue::from_maybe_shared(whole).expect("visible ASCII can be in a field");
            field.set_sensitive(true);
            Sent { field, text }
        })
    }

    /// The SHA-256 of the text, which identifies the token without showing it.
    pub fn digest(&self) -> Digest {
        Digest::of(self.expose().as_bytes())
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(..)")
    }
}

/// A credential with its metadata.
#[derive(Clone, Debug)]
pub struct Token {
    /// The secret, with the key or certificate that it is bound to.
    pub credential: Credential,
    /// The SHA-256 of the token, which identifies it without showing it.
    pub digest: Digest,
    /// The granted scopes.
    pub scopes: Scopes,
    /// The requested scopes that were not granted.
    pub missing: BTreeSet<String>,
    /// The configured name of the server it is for.
    pub server: Arc<str>,
    /// The MCP server's identifier, as sent.
    pub resource: Resource,
    /// The authorization server that issued it.
    pub issuer: Issuer,
    /// When it was received.
    pub minted: Boot,
    /// The wall time when it was received, for display.
    pub minted_wall: SystemTime,
    /// The wall time when it expires, by the clock as it was when the token was received (RFC 3339). Answers say
    /// [`Token::expires_at`].
    pub expires_at: String,
    /// The token is a JWT with `exp`.
    pub dates_itself: bool,
    /// It lives longer than [`Token::life`] says.
    pub is_cut: bool,
    /// The observed lifetime: the shortest of `expires_in`, the JWT's own `exp − iat`, and what was left to its `exp`.
    pub life: Duration,
    /// The identifier that its issuer gave it, where it is a JWT.
    pub jti: Option<String>,
    /// It is a JWT that names no audience: it is good at every server that does not look for one, and at no other.
    pub is_for_nobody: bool,
    /// The chain of identities, from the platform's to the one that the issuer saw.
    pub hops: Arc<[Hop]>,
    /// What an answer of the API says beside the token, the same for all answers within a second.
    pub beside_token: OfSecond,
    /// What each line of the audit says of it, made with the first one.
    pub in_audit: OnceLock<Box<[u8]>>,
}

/// One identity in the chain that led to a token. Nothing in it is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The name of the source, or of the exchange for a link of a chain.
    pub source: &'static str,
    /// The issuer.
    pub iss: Option<String>,
    /// The subject at that issuer.
    pub sub: Option<String>,
}

impl Hop {
    /// The identity in the claims of a subject token.
    pub fn of(source: &'static str, claims: &Claims) -> Self {
        Self { source, iss: claims.iss.clone(), sub: claims.sub.clone() }
    }
}

impl Token {
    /// The remaining lifetime.
    pub fn left(&self, now: Boot) -> Duration {
        self.life.saturating_sub(now.since(self.minted))
    }

    /// The wall time when it expires, by the clock as it is set now (RFC 3339). It is written anew only if the clock was set
    /// since the token was received.
    pub fn expires_at(&self, now: Now) -> Cow<'_, str> {
        const SAME: Duration = Duration::from_secs(1);
        let unset = self.minted_wall + now.boot.since(self.minted);
        let was_set = match now.wall.duration_since(unset) {
            Ok(ahead) => ahead >= SAME,
            Err(behind) => behind.duration() >= SAME,
        };
        match now.wall.checked_add(self.left(now.boot)) {
            Some(expires) if was_set => Cow::Owned(rfc3339(expires)),
            _ => Cow::Borrowed(&self.expires_at),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one door")]
pub(crate) fn expose(secret: &SecretString) -> &str {
    secrecy::ExposeSecret::expose_secret(secret)
}

#[cfg(test)]
pub(crate) mod tests;
