//! A lease: the credential for a server and, if there is one, for its front door.
//!
//! Callers get header fields from a lease only. It authorises requests to its own server and to no other URL.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::error::{BoundTo, Refusal};
use super::{Action, Error, Head, Server};
use crate::clock::{Clock, rfc3339};
use crate::dpop::Nonces;
use crate::oauth::ServerUrl;
use crate::sigv4;
use crate::token::{self, Credential, Fields, Token, Unauthorized, WhyNot};

/// A credential with the server it is for.
#[derive(Clone)]
pub struct Lease {
    /// The credential with its metadata.
    pub token: Arc<Token>,
    /// Its server.
    pub server: Arc<Server>,
    /// The credential for the front door before the server, if there is one.
    pub(crate) outer: Option<Outer>,
    pub(super) nonces: Arc<Nonces>,
    pub(super) clock: Clock,
}

/// The credential for a front door, and the header field that carries it.
#[derive(Clone)]
pub(crate) struct Outer {
    pub(crate) header: String,
    pub(crate) token: Arc<Token>,
}

/// Fields with which a request can be sent. They are secrets.
pub(crate) type ReadyFields = Vec<(HeaderName, HeaderValue)>;

/// The header fields that authorise a request.
pub struct Authorized {
    /// Names and values. They are secrets.
    pub(crate) fields: Fields,
    /// When the first of them expires, in RFC 3339 form.
    pub(crate) expires_at: String,
}

impl Lease {
    /// Authorises one request to the server, or any request if `head` is `None`. Fails for a URL outside the server's
    /// own, for a credential that is bound to a request if `head` does not describe one, and for a signed request
    /// without the digest of its body.
    pub fn authorize(&self, head: Option<&Head>) -> Result<Authorized, Error> {
        if let Some(head) = head {
            covers(&self.server, &head.url)?;
        }
        let mut fields = self.fields_of(&self.token.credential, head)?;
        let now = self.clock.now();
        let mut expires_at = self.token.expires_at(now).into_owned();
        if self.token.credential.is_signer() {
            expires_at = rfc3339(now.wall + sigv4::GOOD_FOR.min(self.token.left(now.boot)));
        }
        let Some(outer) = &self.outer else { return Ok(Authorized { fields, expires_at }) };
        // Both times have one form (RFC 3339, UTC, whole seconds), so their texts have the same order as the times.
        let expires_at = expires_at.min(outer.token.expires_at(now).into_owned());
        let mut for_front_door = self.fields_of(&outer.token.credential, None)?;
        fields.extend(for_front_door.pop().map(|(_, value)| (outer.header.clone(), value)));
        Ok(Authorized { fields, expires_at })
    }

    /// The same as fields that can be sent, with their values marked as sensitive. `head` is asked for where the credential is
    /// bound to the request to this URL.
    pub(crate) fn ready(&self, url: &ServerUrl, head: impl FnOnce() -> Head) -> Result<ReadyFields, Error> {
        if let (Credential::Bearer(token) | Credential::Certificate(token, _), None) =
            (&self.token.credential, &self.outer)
        {
            covers(&self.server, url)?;
            return Ok(vec![(AUTHORIZATION, token.in_field())]);
        }
        let fields = self.authorize(Some(&head()))?.fields;
        let ready = fields.into_iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        ready.collect::<Option<_>>().ok_or_else(|| Error::internal("a credential is no header field"))
    }

    /// Learns the nonce that the server sent for the next proof (RFC 9449 section 9).
    pub(crate) fn learn_nonce(&self, nonce: &str) {
        self.nonces.learn(self.server.url.url(), Some(nonce));
    }

    /// The time since the token was received.
    pub(crate) fn age(&self) -> Duration {
        self.clock.boot().since(self.token.minted)
    }

    fn fields_of(&self, credential: &Credential, head: Option<&Head>) -> Result<Fields, Error> {
        // The nonce that a caller names is for this proof alone. Nobody learns it: it may be wrong.
        let learnt = || head.and_then(|head| self.nonces.newest(head.url.url()));
        let nonce = head.and_then(|head| head.nonce.clone()).or_else(learnt);
        let head = head.and_then(|head| {
            Some(token::Head {
                method: head.method.as_deref()?,
                url: head.url.url(),
                nonce: nonce.as_deref(),
                body_sha256: head.body_sha256.as_deref(),
                now: self.clock.wall(),
            })
        });
        credential.authorize(head.as_ref()).map_err(|why| match why {
            Unauthorized::NeedsRequest(why) => not_bare(&self.server, why),
            Unauthorized::NeedsDigest => Refusal::NoDigest(Arc::clone(&self.server.name)).into(),
            Unauthorized::NotSigned => Error::internal("a request could not be signed"),
        })
    }
}

/// Fails unless the URL is on or under the server's own: the broker must not sign for other servers.
pub(super) fn covers(server: &Server, url: &ServerUrl) -> Result<(), Error> {
    if server.url.covers(url) { Ok(()) } else { Err(Refusal::OtherUrl.into()) }
}

/// Refuses to hand out a credential as a bare token if it is useless without its proof. The `match` lists every action,
/// as [`Credential::bare`] lists every kind of credential, so that each new one needs a decision here.
pub(super) fn check_form(server: &Server, credential: &Credential, action: Action) -> Result<(), Error> {
    match action {
        // Header fields include the proof; `Keep` hands out nothing.
        Action::Headers | Action::Call | Action::Ready => Ok(()),
        Action::Token
        | Action::Reject
        | Action::Revoke
        | Action::Status
        | Action::Stop
        | Action::Reload
        | Action::Gate
        | Action::Done => credential.bare().map(drop).map_err(|why| not_bare(server, why)),
    }
}

fn not_bare(server: &Server, why: WhyNot) -> Error {
    let server = Arc::clone(&server.name);
    match why {
        WhyNot::DpopKey => Refusal::Bound { server, to: BoundTo::DpopKey },
        WhyNot::Certificate => Refusal::Bound { server, to: BoundTo::Certificate },
        WhyNot::Signer => Refusal::Signed(server),
    }
    .into()
}
