//! Requests to Google's token endpoints: the Security Token Service and the Service Account Credentials API.
//!
//! The Security Token Service exchanges an identity token of another issuer for a federated access token (RFC 8693). With an
//! access token that may impersonate a service account, the Credentials API issues that account's identity token for one
//! audience (`generateIdToken`) or access token (`generateAccessToken`). Each is one request, without a retry, to Google's
//! own hosts.
//!
//! Sources: Google Cloud, "Security Token Service API"; "Service Account Credentials API"; AIP-193 (errors).

use std::sync::Arc;
use std::time::Duration;

use oauth2::basic::BasicErrorResponse;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::clock::{from_rfc3339, unix};
use crate::oauth::OauthError;
use crate::outbound::{self, Answer, Ask, Body, Certificate, NamedBy, Outbound};
use crate::token::{AccessToken, SubjectToken};

mod cure;

/// The only scope that a federated token needs to impersonate a service account.
pub(crate) const IAM_SCOPE: &str = "https://www.googleapis.com/auth/iam";

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

pub(crate) const STS: &str = "https://sts.googleapis.com/v1/token";
pub(crate) const IAM: &str = "https://iamcredentials.googleapis.com";

/// The base URLs of Google's two services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hosts {
    /// The token endpoint of the Security Token Service.
    pub(crate) sts: String,
    /// The Service Account Credentials API, without a path.
    pub(crate) iam: String,
}

/// Google's public hosts.
impl Default for Hosts {
    fn default() -> Self {
        Self { sts: STS.to_owned(), iam: IAM.to_owned() }
    }
}

/// A service account and its delegation chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account<'a> {
    /// Its email.
    pub(crate) email: &'a str,
    /// The accounts between the caller and this one. Each impersonates the next.
    pub(crate) delegates: &'a [String],
}

/// Can this text be the email of a service account, or its number? It becomes a part of a path.
pub(crate) fn is_account(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(fits) && !text.contains("..")
}

/// A request for a federated token.
pub(crate) struct Federation<'a> {
    /// The full resource name: `//iam.googleapis.com/projects/N/locations/global/workloadIdentityPools/P/providers/R`.
    pub(crate) provider: &'a str,
    /// The subject token. The caller has checked its audience and expiry.
    pub(crate) subject: &'a str,
    /// Its `subject_token_type`.
    pub(crate) subject_type: &'a str,
    /// The requested scope.
    pub(crate) scope: &'a str,
    /// Further form parameters.
    pub(crate) extra: &'a [(String, String)],
}

/// An access token of Google's, which is opaque.
pub(crate) struct Access {
    /// The secret.
    pub(crate) token: AccessToken,
    /// The remaining lifetime, if the answer contains it.
    pub(crate) expires_in: Option<Duration>,
}

/// Why Google gave no token.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There was no answer.
    Outbound(outbound::Error),
    /// Google answered with status 429 or 5xx.
    Busy {
        /// The HTTP status.
        status: u16,
        /// The delay of `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Google refused.
    Refused {
        /// Google's code and message.
        error: OauthError,
        /// The cure. `None` if the code alone tells it.
        cure: Option<&'static str>,
    },
    /// The answer is not from Google.
    Malformed(String),
}

/// A client of both services.
pub(crate) struct Google<'a> {
    /// The HTTP client.
    pub(crate) outbound: &'a Outbound,
    /// The hosts to ask.
    pub(crate) hosts: &'a Hosts,
    /// The client certificate for mutual TLS.
    pub(crate) certificate: Option<&'a Arc<Certificate>>,
}

impl Google<'_> {
    /// Exchanges an identity token for a federated access token of its pool.
    pub(crate) async fn federate(&self, wish: &Federation<'_>) -> Result<Access, Failure> {
        let own = [
            ("grant_type", TOKEN_EXCHANGE),
            ("audience", wish.provider),
            ("scope", wish.scope),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token", wish.subject),
            ("subject_token_type", wish.subject_type),
        ];
        let extra = wish.extra.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let pairs: Vec<(&str, &str)> = own.into_iter().chain(extra).collect();
        let answer = self.send(Ask::post(&self.hosts.sts, NamedBy::Us, form(&pairs))).await?;
        if answer.status != 200 {
            return Err(sts_failed(&answer));
        }
        #[derive(Deserialize)]
        struct Wire {
            access_token: String,
            issued_token_type: Option<String>,
            token_type: String,
            expires_in: Option<u64>,
        }
        let wire: Wire = read(&answer)?;
        if !wire.token_type.eq_ignore_ascii_case("bearer") {
            return Err(Failure::Malformed("its token_type is not Bearer".to_owned()));
        }
        if wire.issued_token_type.as_deref() != Some(ACCESS_TOKEN) {
            return Err(Failure::Malformed("its issued_token_type is not an access token's".to_owned()));
        }
        Ok(Access { token: access(wire.access_token)?, expires_in: wire.expires_in.map(Duration::from_secs) })
    }

    /// Gets an identity token of the service account for `audience`. The caller must check the token.
    pub(crate) async fn id_token(
        &self,
        bearer: &AccessToken,
        account: &Account<'_>,
        audience: &str,
    ) -> Result<SubjectToken, Failure> {
        let wish = json!({ "audience": audience, "includeEmail": true, "delegates": names(account.delegates) });
        let answer = self.of_account(bearer, account, "generateIdToken", &wish).await?;
        #[derive(Deserialize)]
        struct Wire {
            token: SecretString,
        }
        let wire: Wire = read(&answer)?;
        SubjectToken::parse(wire.token).map_err(|error| Failure::Malformed(format!("its token is {error}")))
    }

    /// Gets an access token of the service account. `unix_now` is used to compute its lifetime.
    pub(crate) async fn access_token(
        &self,
        bearer: &AccessToken,
        account: &Account<'_>,
        scopes: &[String],
        unix_now: i64,
    ) -> Result<Access, Failure> {
        let wish = json!({ "scope": scopes, "delegates": names(account.delegates) });
        let answer = self.of_account(bearer, account, "generateAccessToken", &wish).await?;
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            access_token: String,
            expire_time: String,
        }
        let wire: Wire = read(&answer)?;
        let token = access(wire.access_token)?;
        let endless = || Failure::Malformed("its expireTime is no time (RFC 3339)".to_owned());
        let end = unix(from_rfc3339(&wire.expire_time).ok_or_else(endless)?);
        // Prefer Google's own `Date`: our clock may be wrong by minutes.
        let now = answer.date().unwrap_or(unix_now);
        let left = u64::try_from(end.saturating_sub(now)).unwrap_or(0);
        Ok(Access { token, expires_in: Some(Duration::from_secs(left)) })
    }

    async fn of_account(
        &self,
        bearer: &AccessToken,
        account: &Account<'_>,
        method: &str,
        wish: &serde_json::Value,
    ) -> Result<Answer, Failure> {
        let url = format!("{}/v1/projects/-/serviceAccounts/{}:{method}", self.hosts.iam, account.email);
        let bytes = Zeroizing::new(wish.to_string().into_bytes());
        let mut ask = Ask::post(&url, NamedBy::Us, Body { content_type: "application/json", bytes });
        let bearer = HeaderValue::from_str(&format!("Bearer {}", bearer.expose()));
        let mut bearer = bearer.map_err(|_| Failure::Malformed("its token cannot be a header value".to_owned()))?;
        bearer.set_sensitive(true);
        ask.headers.push((AUTHORIZATION, bearer));
        let answer = self.send(ask).await?;
        if answer.status == 200 { Ok(answer) } else { Err(iam_failed(&answer)) }
    }

    async fn send(&self, mut ask: Ask) -> Result<Answer, Failure> {
        ask.certificate = self.certificate.cloned();
        self.outbound.send(ask).await.map_err(Failure::Outbound)
    }
}

/// The resource names of the delegates.
fn names(delegates: &[String]) -> Vec<String> {
    delegates.iter().map(|email| format!("projects/-/serviceAccounts/{email}")).collect()
}

fn access(text: String) -> Result<AccessToken, Failure> {
    AccessToken::parse(text).map_err(|error| Failure::Malformed(error.to_string()))
}

fn read<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, Failure> {
    answer.json().map_err(|what| Failure::Malformed(what.to_owned()))
}

/// A form body, in a buffer that is zeroized and never reallocated.
fn form(pairs: &[(&str, &str)]) -> Body {
    let room = pairs.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
    let mut form = Serializer::new(String::with_capacity(room));
    form.extend_pairs(pairs);
    Body { content_type: "application/x-www-form-urlencoded", bytes: Zeroizing::new(form.finish().into_bytes()) }
}

fn busy(answer: &Answer) -> Option<Failure> {
    let is_busy = matches!(answer.status, 429 | 500..);
    is_busy.then(|| Failure::Busy { status: answer.status, retry_after: answer.retry_after() })
}

/// RFC 6749 section 5.2.
fn sts_failed(answer: &Answer) -> Failure {
    if let Some(busy) = busy(answer) {
        return busy;
    }
    let Ok(wire) = answer.json::<BasicErrorResponse>() else {
        return Failure::Malformed(format!("it has status {} without an OAuth error", answer.status));
    };
    let code = wire.error().as_ref();
    let description = wire.error_description().map(String::as_str);
    let error = OauthError::new(code, description, wire.error_uri().map(String::as_str));
    Failure::Refused { error, cure: cure::of(description.unwrap_or_default()) }
}

/// AIP-193: `{"error": {"code": 403, "message": "…", "status": "PERMISSION_DENIED"}}`.
fn iam_failed(answer: &Answer) -> Failure {
    #[derive(Deserialize)]
    struct Wire {
        error: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        message: String,
        status: String,
    }
    if let Some(busy) = busy(answer) {
        return busy;
    }
    let Ok(Wire { error }) = answer.json::<Wire>() else {
        return Failure::Malformed(format!("it has status {} without an error of Google's", answer.status));
    };
    let cure = cure::of(&error.message).or_else(|| cure::of(&error.status));
    Failure::Refused { error: OauthError::new(&error.status, Some(&error.message), None), cure }
}

impl Failure {
    /// The message without the cure. The caller puts the service's name before it.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Outbound(error) => error.to_string(),
            Self::Busy { status, .. } => format!("answers status {status}"),
            Self::Refused { error, .. } => format!("refuses with {error}"),
            Self::Malformed(what) => format!("gives an answer that cannot be read: {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{CONTENT_TYPE, HeaderMap};

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
        Answer { status, headers, body: Zeroizing::new(body.as_bytes().to_vec()) }
    }

    #[test]
    fn a_refusal_shows_googles_words_and_their_cure() {
        let body = r#"{"error":{"code":403,"message":"Permission 'iam.serviceAccounts.getOpenIdToken' denied on resource (or it may not exist).","status":"PERMISSION_DENIED"}}"#;
        let Failure::Refused { error, cure } = iam_failed(&answer(403, body)) else { panic!("refused") };
        assert!(error.to_string().starts_with("PERMISSION_DENIED, in its words: \"Permission 'iam"), "{error}");
        assert!(cure.is_some_and(|cure| cure.contains("roles/iam.serviceAccountOpenIdTokenCreator")));
        let body = r#"{"error":"invalid_grant","error_description":"ID Token issued at 1 is stale to sign-in."}"#;
        let Failure::Refused { error, cure } = sts_failed(&answer(400, body)) else { panic!("refused") };
        assert_eq!(error.code, "invalid_grant");
        assert!(cure.is_some_and(|cure| cure.contains("mints anew")));
    }

    #[test]
    fn trouble_is_not_a_refusal_and_a_page_is_neither() {
        assert!(matches!(iam_failed(&answer(503, "<html>")), Failure::Busy { status: 503, .. }));
        assert!(matches!(sts_failed(&answer(429, "")), Failure::Busy { status: 429, .. }));
        assert!(matches!(sts_failed(&answer(404, "<html>")), Failure::Malformed(_)));
        assert!(matches!(iam_failed(&answer(403, "<html>")), Failure::Malformed(_)));
    }

    #[test]
    fn an_account_is_a_word_of_a_path() {
        for good in ["agent@project.iam.gserviceaccount.com", "113057325249898657053"] {
            assert!(is_account(good), "{good}");
        }
        for bad in ["", "a/b", "a:generateIdToken", "a?b", "..", "a b", "a%2f"] {
            assert!(!is_account(bad), "{bad}");
        }
    }
}
