//! Verifies Signature Version 4. It follows AWS's description and shares no code with the product and its library.
//!
//! Source: AWS, "Create a signed AWS API request" (IAM User Guide). A request is judged as AWS judges it: every signed field as
//! it came, the path encoded once more, the query in the order of its names, the body by what it is, the time within five minutes.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use hyper::http::request::Parts;

use super::keys;

/// The region and the service of the signature.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub region: &'a str,
    pub service: &'a str,
}

/// The secret key and the session token of an access key id.
pub struct Known {
    pub key: String,
    pub session: String,
}

const MAY_DIFFER: f64 = 300.0;

/// The access key id that signed this request, or why the signature is not valid.
pub fn judge(
    head: &Parts,
    body: &[u8],
    scope: Scope<'_>,
    known: impl Fn(&str) -> Option<Known>,
) -> Result<String, String> {
    let field = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let authorization = field("authorization").ok_or("Missing Authentication Token")?;
    let parts = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another algorithm")?;
    let parts: BTreeMap<&str, &str> = parts.split(',').filter_map(|part| part.trim().split_once('=')).collect();
    let part = |name: &str| parts.get(name).copied().ok_or_else(|| format!("no {name}"));
    let (credential, names, signature) = (part("Credential")?, part("SignedHeaders")?, part("Signature")?);

    let when = field("x-amz-date").ok_or("no X-Amz-Date")?;
    let stamp = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", when).map_err(|_| "X-Amz-Date is no time")?;
    let stamp = stamp.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| "X-Amz-Date is no time")?.timestamp();
    if (stamp.as_second() as f64 - keys::now()).abs() > MAY_DIFFER {
        return Err("Signature expired".to_owned());
    }
    let within = format!("{}/{}/{}/aws4_request", &when[..8], scope.region, scope.service);
    let name = credential.strip_suffix(&format!("/{within}")).ok_or("Credential should be scoped to another")?;
    let Known { key, session } = known(name).ok_or("The security token included in the request is invalid")?;
    if field("x-amz-security-token") != Some(session.as_str()) {
        return Err("the session's token is missing or another one".to_owned());
    }

    let listed: Vec<&str> = names.split(';').collect();
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    for wanted in ["host", "x-amz-date", "x-amz-security-token"] {
        if !listed.contains(&wanted) || listed != sorted {
            return Err(format!("{wanted} must be signed, and the names in their order"));
        }
    }
    let payload = hex(digest(&SHA256, body).as_ref());
    if field("x-amz-content-sha256").is_some_and(|said| said != payload) {
        return Err("X-Amz-Content-Sha256 is not the body's".to_owned());
    }
    let mut canonical = format!("{}\n{}\n{}\n", head.method, path(head.uri.path()), query(head.uri.query()));
    for name in &listed {
        let value = field(name).ok_or_else(|| format!("{name} is signed and not there"))?;
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        canonical.push_str(&format!("{name}:{value}\n"));
    }
    canonical.push_str(&format!("\n{names}\n{payload}"));
    let canonical = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{when}\n{within}\n{canonical}");

    let mut secret = format!("AWS4{key}").into_bytes();
    for step in [&when[..8], scope.region, scope.service, "aws4_request"] {
        secret = mac(&secret, step.as_bytes());
    }
    if hex(&mac(&secret, to_sign.as_bytes())) != signature {
        return Err("The request signature we calculated does not match the signature you provided".to_owned());
    }
    Ok(name.to_owned())
}

/// Encodes each segment a second time.
pub fn path(path: &str) -> String {
    path.split('/').map(encoded).collect::<Vec<_>>().join("/")
}

pub fn query(query: Option<&str>) -> String {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut pairs: Vec<(String, String)> = pairs.map(|(name, value)| (encoded(&name), encoded(&value))).collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

pub fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of a body, in the form that a signer uses.
pub fn sha256(body: &[u8]) -> String {
    hex(digest(&SHA256, body).as_ref())
}
