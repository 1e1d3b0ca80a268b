//! A signed `GetCallerIdentity` request that replaces a token. The verifier sends it to AWS, and the answer names our role.
//!
//! The request can be replayed for some minutes, so it goes only to the party that the configuration names. A signed header
//! names that party, and the verifier must check that the header holds its own name.
//!
//! The format is Google's, the only one with a registered token type: the request as percent-encoded JSON. The request has no
//! body; its parameters are in the query.
//!
//! Source: AWS STS API Reference, "GetCallerIdentity"; Google Cloud, "Workload Identity Federation with AWS" (the serialised
//! request); RFC 8693 section 3 (token types).

use std::time::SystemTime;

use aws_credential_types::Credentials;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use secrecy::SecretString;
use serde::Serialize;
use url::Url;
use zeroize::Zeroizing;

use super::endpoint;
use crate::clock::unix;
use crate::sigv4::{GOOD_FOR, Purpose, Signer};
use crate::token::{Claims, SubjectToken};

/// The header in which Google expects its own name.
pub(crate) const GOOGLE_FIELD: &str = "x-goog-cloud-target-resource";

/// SHA-256 of an empty body.
const NO_BODY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// The characters that percent-encoding leaves unchanged (RFC 3986 section 2.3).
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Signs a request whose header `field` names the audience. It is always for the region's public STS, because the verifier
/// cannot reach a VPC endpoint. `None` if it cannot be signed.
pub(crate) fn caller_identity(
    credentials: Credentials,
    region: &str,
    field: &str,
    audience: &str,
    now: SystemTime,
) -> Option<SubjectToken> {
    let issuer = endpoint(region);
    let text = format!("{issuer}?Action=GetCallerIdentity&Version=2011-06-15");
    let url = Url::parse(&text).ok()?;
    let fields = [(field, audience)];
    let purpose = Purpose { method: "POST", url: &url, body_sha256: NO_BODY, fields: &fields, says_digest: false };
    let signed = Signer::new(credentials, region, "sts").sign(&purpose, now)?;
    let own = [("host", url.host_str()?), (field, audience)];
    let all = own.into_iter().chain(signed.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let headers = all.map(|(key, value)| Field { key, value }).collect();
    // Reserve the full size: growing the buffer would leave copies of the session token in freed memory.
    let room =
        2 * (text.len() + signed.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>()) + 1_024;
    let mut request = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *request, &Request { url: &text, method: "POST", headers }).ok()?;
    let mut encoded = String::with_capacity(3 * request.len());
    encoded.extend(percent_encode(&request, KEPT));
    let claims = Claims {
        iss: Some(issuer),
        aud: vec![audience.to_owned()],
        iat: Some(unix(now)),
        exp: Some(unix(now + GOOD_FOR)),
        ..Claims::default()
    };
    Some(SubjectToken::aws_request(SecretString::from(encoded), claims))
}

#[derive(Serialize)]
struct Request<'a> {
    url: &'a str,
    method: &'static str,
    headers: Vec<Field<'a>>,
}

#[derive(Serialize)]
struct Field<'a> {
    key: &'a str,
    value: &'a str,
}
