//! What opens a server: a token, alone or bound to something of ours, or a key that signs each request.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use url::Url;
use zeroize::Zeroizing;

use super::{AccessToken, Digest};
use crate::dpop;
use crate::sigv4::{self, Signer};

/// What a caller is given the use of. It holds a secret.
#[derive(Clone)]
pub enum Credential {
    /// Whoever has the token can use it (RFC 6750).
    Bearer(AccessToken),
    /// Each request needs a proof by this key as well (RFC 9449).
    Dpop(AccessToken, Arc<dpop::Key>),
    /// The connection must have the certificate of this digest (RFC 8705).
    Certificate(AccessToken, Digest),
    /// There is no token: each request is signed (SigV4).
    Signer(Arc<Signer>),
}

/// One request, as far as a credential must know it.
pub(crate) struct Head<'a> {
    /// Its method.
    pub(crate) method: &'a str,
    /// Where it goes.
    pub(crate) url: &'a Url,
    /// The newest nonce of that server.
    pub(crate) nonce: Option<&'a str>,
    /// SHA-256 of its body in lower-case hexadecimal, where it is known.
    pub(crate) body_sha256: Option<&'a str>,
    /// When it is made.
    pub(crate) now: SystemTime,
}

/// Fields of a request's header, with their values.
pub(crate) type Fields = Vec<(String, Zeroizing<String>)>;

/// Why a request cannot be authorised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unauthorized {
    /// The request is not named, and the token goes with a proof for one request.
    NeedsRequest(WhyNot),
    /// The digest of its body is not there, and it is signed with its body.
    NeedsDigest,
    /// The library cannot sign it.
    NotSigned,
}

/// Why there is no bare token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhyNot {
    /// It is bound to a key of ours.
    DpopKey,
    /// It is bound to a certificate.
    Certificate,
    /// There is none.
    Signer,
}

impl Credential {
    /// The fields that authorise one request; without one, those that authorise any.
    pub(crate) fn authorize(&self, head: Option<&Head<'_>>) -> Result<Fields, Unauthorized> {
        match self {
            Self::Bearer(token) | Self::Certificate(token, _) => Ok(vec![authorization("Bearer", token)]),
            Self::Dpop(token, key) => {
                let head = head.ok_or(Unauthorized::NeedsRequest(WhyNot::DpopKey))?;
                let digest = token.digest();
                let purpose = dpop::Purpose {
                    method: head.method,
                    url: head.url,
                    token: Some(digest.as_bytes()),
                    nonce: head.nonce,
                    unix_now: unix(head.now),
                };
                let proof = key.proof(&purpose).ok_or(Unauthorized::NotSigned)?;
                Ok(vec![authorization("DPoP", token), ("DPoP".to_owned(), Zeroizing::new(proof))])
            }
            // What is signed in part could be another request, so all of it must be named.
            Self::Signer(signer) => {
                let head = head.ok_or(Unauthorized::NeedsRequest(WhyNot::Signer))?;
                let body_sha256 = head.body_sha256.ok_or(Unauthorized::NeedsDigest)?;
                let purpose =
                    sigv4::Purpose { method: head.method, url: head.url, body_sha256, fields: &[], says_digest: true };
                signer.sign(&purpose, head.now).ok_or(Unauthorized::NotSigned)
            }
        }
    }

    /// The certificate that a connection must show, or the credential is of no use on it.
    pub fn connection(&self) -> Option<&Digest> {
        match self {
            Self::Certificate(_, thumbprint) => Some(thumbprint),
            Self::Bearer(_) | Self::Dpop(..) | Self::Signer(_) => None,
        }
    }

    /// The token that is worth something by itself.
    pub(crate) fn bare(&self) -> Result<&AccessToken, WhyNot> {
        match self {
            Self::Bearer(token) => Ok(token),
            Self::Dpop(..) => Err(WhyNot::DpopKey),
            Self::Certificate(..) => Err(WhyNot::Certificate),
            Self::Signer(_) => Err(WhyNot::Signer),
        }
    }

    /// The token, whatever else it needs: to be revoked, or looked at.
    pub(crate) fn token(&self) -> Option<&AccessToken> {
        match self {
            Self::Bearer(token) | Self::Dpop(token, _) | Self::Certificate(token, _) => Some(token),
            Self::Signer(_) => None,
        }
    }

    /// Is each request signed?
    pub(crate) fn is_signer(&self) -> bool {
        matches!(self, Self::Signer(_))
    }

    /// Names it without showing it.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Bearer(token) | Self::Dpop(token, _) | Self::Certificate(token, _) => token.digest(),
            Self::Signer(signer) => Digest::of(signer.name().as_bytes()),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer(..)",
            Self::Dpop(..) => "Dpop(..)",
            Self::Certificate(..) => "Certificate(..)",
            Self::Signer(_) => "Signer(..)",
        })
    }
}

/// `Authorization`, spelled so: clients merge header maps by case.
fn authorization(scheme: &str, token: &AccessToken) -> (String, Zeroizing<String>) {
    ("Authorization".to_owned(), Zeroizing::new(format!("{scheme} {}", token.expose())))
}

fn unix(now: SystemTime) -> i64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> AccessToken {
        AccessToken::parse("abc".to_owned()).expect("visible ASCII")
    }

    #[test]
    fn only_a_bearer_token_is_handed_out_bare() {
        let key = Arc::new(dpop::Key::generate().expect("a key"));
        let certificate = Digest::of(b"certificate");
        assert!(Credential::Bearer(token()).bare().is_ok());
        assert_eq!(Credential::Dpop(token(), key).bare().map(drop), Err(WhyNot::DpopKey));
        let bound = Credential::Certificate(token(), certificate);
        assert_eq!((bound.bare().map(drop), bound.connection()), (Err(WhyNot::Certificate), Some(&certificate)));
    }

    #[test]
    fn a_proof_is_for_one_request() {
        let key = Arc::new(dpop::Key::generate().expect("a key"));
        let bound = Credential::Dpop(token(), key);
        let needed = Unauthorized::NeedsRequest(WhyNot::DpopKey);
        assert_eq!(bound.authorize(None).map(drop), Err(needed));
        let url = Url::parse("https://mcp.example.com/mcp").expect("a URL");
        let head = Head { method: "POST", url: &url, nonce: None, body_sha256: None, now: SystemTime::UNIX_EPOCH };
        let fields = bound.authorize(Some(&head)).expect("signed");
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Authorization", "DPoP"]);
        assert_eq!(fields[0].1.as_str(), "DPoP abc");
    }
}
