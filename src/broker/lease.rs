//! The use of a server: its credential and, where a front door stands before it, that one's too.
//!
//! Nothing else writes a credential's header. A lease authorises requests to its own server and to no other URL.

use std::sync::Arc;

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
    /// The credential, with all that is known of it.
    pub token: Arc<Token>,
    /// Its server.
    pub server: Arc<Server>,
    /// What the front door before the server wants beside it.
    pub(crate) outer: Option<Outer>,
    pub(super) nonces: Arc<Nonces>,
    pub(super) clock: Clock,
}

/// The credential for a front door, and the field of the header that it goes into.
#[derive(Clone)]
pub(crate) struct Outer {
    pub(crate) header: String,
    pub(crate) token: Arc<Token>,
}

/// The fields of an authorised request.
pub struct Authorized {
    /// Names and values. They are secrets.
    pub(crate) fields: Fields,
    /// Until when all of them are good: RFC 3339.
    pub(crate) expires_at: String,
}

impl Lease {
    /// Authorises one request to the server; without one, any, if the credential is not bound to a request.
    pub fn authorize(&self, head: Option<&Head>) -> Result<Authorized, Error> {
        if let Some(head) = head {
            covers(&self.server, &head.url)?;
            self.nonces.learn(head.url.url(), head.nonce.as_deref());
        }
        let fields = self.fields_of(&self.token.credential, head)?;
        let now = self.clock.wall();
        let mut expires_at = self.token.expires_at.clone();
        if self.token.credential.is_signer() {
            expires_at = rfc3339(now + sigv4::GOOD_FOR.min(self.token.left(self.clock.boot())));
        }
        let Some(outer) = &self.outer else { return Ok(Authorized { fields, expires_at }) };
        // Times of one form (RFC 3339, UTC, seconds) are ordered as their texts are.
        let expires_at = expires_at.min(outer.token.expires_at.clone());
        let mut fields = fields;
        let mut at_door = self.fields_of(&outer.token.credential, None)?;
        fields.extend(at_door.pop().map(|(_, value)| (outer.header.clone(), value)));
        Ok(Authorized { fields, expires_at })
    }

    fn fields_of(&self, credential: &Credential, head: Option<&Head>) -> Result<Fields, Error> {
        let nonce = head.and_then(|head| self.nonces.newest(head.url.url()));
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

/// Only URLs on or under the server's own are authorised: this is no signing oracle.
pub(super) fn covers(server: &Server, url: &ServerUrl) -> Result<(), Error> {
    if server.url.covers(url) { Ok(()) } else { Err(Refusal::OtherUrl.into()) }
}

/// Refuses to hand out bare what is worth nothing alone. It names every action, as [`Credential::bare`] names every kind of
/// credential, so that a new one must be thought about here.
pub(super) fn may_be_given(server: &Server, credential: &Credential, action: Action) -> Result<(), Error> {
    match action {
        // With its proof, or not handed out at all.
        Action::Headers | Action::Keep => Ok(()),
        Action::Token | Action::Reject | Action::Revoke | Action::Look | Action::Gate => {
            credential.bare().map(drop).map_err(|why| not_bare(server, why))
        }
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
