//! Signature Version 4: signs a request to AWS with a role's credentials. No token is sent.
//!
//! The signature covers the whole request: method, host, path, query, time and always the digest of the body. It is valid for
//! a few minutes and for this request only.
//!
//! Source: AWS, "Create a signed AWS API request" (IAM User Guide).

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use url::Url;
use zeroize::Zeroizing;

/// AWS accepts a signature for this long.
pub(crate) const GOOD_FOR: Duration = Duration::from_secs(300);

/// Signs requests to one service in one region with a role's credentials.
pub struct Signer {
    credentials: Credentials,
    region: String,
    service: String,
}

/// The request to sign, without its time.
pub(crate) struct Purpose<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The URL, query included.
    pub url: &'a Url,
    /// SHA-256 of the body, in lower-case hexadecimal.
    pub body_sha256: &'a str,
    /// Further headers to sign.
    pub fields: &'a [(&'a str, &'a str)],
    /// Send the digest of the body as a header too? Some services require it.
    pub says_digest: bool,
}

/// HTTP headers. `Authorization` is spelled with a capital, because some clients merge headers case-sensitively.
pub(crate) type Fields = Vec<(String, Zeroizing<String>)>;

impl Signer {
    /// A signer with these credentials.
    pub(crate) fn new(credentials: Credentials, region: &str, service: &str) -> Self {
        Self { credentials, region: region.to_owned(), service: service.to_owned() }
    }

    /// The access key id, which is no secret.
    pub(crate) fn name(&self) -> &str {
        self.credentials.access_key_id()
    }

    /// The headers that sign the request. `None` if it is not a valid HTTP request.
    pub(crate) fn sign(&self, purpose: &Purpose<'_>, now: SystemTime) -> Option<Fields> {
        let identity = self.credentials.clone().into();
        let mut settings = SigningSettings::default();
        let kind = if purpose.says_digest { PayloadChecksumKind::XAmzSha256 } else { PayloadChecksumKind::NoHeader };
        settings.payload_checksum_kind = kind;
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(&self.service)
            .time(now)
            .settings(settings)
            .build()
            .ok()?
            .into();
        let body = SignableBody::Precomputed(purpose.body_sha256.to_owned());
        let request =
            SignableRequest::new(purpose.method, purpose.url.as_str(), purpose.fields.iter().copied(), body).ok()?;
        let (signed, _) = sign(request, &params).ok()?.into_parts();
        let (headers, _) = signed.into_parts();
        let fields = headers.iter().map(|field| (spelled(field.name()), Zeroizing::new(field.value().to_owned())));
        Some(fields.collect())
    }
}

/// Capitalises a header name: `x-amz-date` becomes `X-Amz-Date`.
fn spelled(name: &str) -> String {
    let part = |part: &str| {
        let (first, rest) = part.split_at(part.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("region", &self.region).field("service", &self.service).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of AWS's own test suite (its key, time and host). The signature itself is verified by a server that has
    /// its own implementation, in `tests/aws.rs`.
    fn signed(method: &str, url: &str, body_sha256: &str, seconds: u64) -> Fields {
        let credentials = Credentials::new("AKIDEXAMPLE", "SECRETKEY", Some("SESSIONTOKEN".to_owned()), None, "test");
        let signer = Signer::new(credentials, "us-east-1", "service");
        assert!(!format!("{signer:?}").contains("SECRET"), "{signer:?}");
        let url = Url::parse(url).expect("a URL");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let purpose = Purpose { method, url: &url, body_sha256, fields: &[], says_digest: true };
        signer.sign(&purpose, now).expect("signed")
    }

    fn value<'a>(fields: &'a Fields, name: &str) -> &'a str {
        fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str()).expect(name)
    }

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn all_that_is_signed_is_named() {
        let fields = signed("GET", "https://example.amazonaws.com/", EMPTY, 1_440_938_160);
        assert_eq!(value(&fields, "X-Amz-Date"), "20150830T123600Z");
        assert_eq!(value(&fields, "X-Amz-Content-Sha256"), EMPTY);
        assert_eq!(value(&fields, "X-Amz-Security-Token"), "SESSIONTOKEN");
        let authorization = value(&fields, "Authorization");
        let start = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
            SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, Signature=";
        assert!(authorization.starts_with(start), "{authorization}");
    }

    #[test]
    fn every_part_of_the_request_moves_the_signature() {
        let same = || signed("POST", "https://example.amazonaws.com/mcp?a=1", EMPTY, 1_440_938_160);
        let first = value(&same(), "Authorization").to_owned();
        assert_eq!(value(&same(), "Authorization"), first);
        let other = EMPTY.replace('e', "0");
        for changed in [
            signed("GET", "https://example.amazonaws.com/mcp?a=1", EMPTY, 1_440_938_160),
            signed("POST", "https://other.amazonaws.com/mcp?a=1", EMPTY, 1_440_938_160),
            signed("POST", "https://example.amazonaws.com/mcp?a=2", EMPTY, 1_440_938_160),
            signed("POST", "https://example.amazonaws.com/mcp", EMPTY, 1_440_938_160),
            signed("POST", "https://example.amazonaws.com/mcp?a=1", &other, 1_440_938_160),
            signed("POST", "https://example.amazonaws.com/mcp?a=1", EMPTY, 1_440_938_161),
        ] {
            assert_ne!(value(&changed, "Authorization"), first);
        }
    }
}
