//! The bodies of answers. A token goes from the cache to the connection as it is: `listener/body.rs` says where it is copied.

use bytes::Bytes;
use safeconduct_listener::Body;
use zeroize::Zeroizing;

use super::dialect::{self, Around};
use crate::token::Token;

/// One piece that holds no secret.
pub(super) fn plain(bytes: &[u8]) -> Body {
    Body::whole(Bytes::new(), Bytes::copy_from_slice(bytes), Bytes::new())
}

/// One piece that is cleared from memory after it is sent.
pub(super) fn secret(whole: Zeroizing<String>) -> Body {
    Body::whole(Bytes::new(), Bytes::from_owner(Escaped(whole)), Bytes::new())
}

/// A token with the text around it. Nothing stands in its place where there is none.
pub(super) fn around(token: &Token, around: Around<Bytes>) -> Body {
    let secret = match token.credential.token() {
        Some(secret) if !secret.is_plain() => Bytes::from_owner(Escaped(dialect::escaped(secret))),
        Some(secret) => secret.in_body(),
        None => Bytes::new(),
    };
    Body::whole(Bytes::from_static(around.before.as_bytes()), secret, around.after)
}

/// A text that is made for one answer: a token that has to be escaped in JSON, or signed fields.
struct Escaped(Zeroizing<String>);

impl AsRef<[u8]> for Escaped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
