//! Token revocation (RFC 7009 section 2.1).
//!
//! The form is written by hand: the oauth2 crate always sends a `client_id`, which a grant without a client
//! does not have, and knows no loopback for development.

use std::time::Duration;

use oauth2::basic::BasicErrorResponse;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::oauth::OauthError;
use crate::outbound::{self, Ask, Body, NamedBy, Outbound};
use crate::token::AccessToken;

/// Revocation is a courtesy: it may not hold up a shutdown.
const LIMIT: Duration = Duration::from_secs(3);

/// Why a token was not revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The server offers no revocation.
    #[error("the authorization server offers no revocation endpoint")]
    NotOffered,
    /// No answer.
    #[error("the revocation endpoint: {0}")]
    Outbound(outbound::Error),
    /// The server said no.
    #[error("the revocation endpoint refuses with {0}")]
    Refused(OauthError),
}

/// Revokes one access token. The server answers 200 for tokens it does not know as well.
pub(crate) async fn revoke(
    outbound: &Outbound,
    endpoint: Option<&str>,
    named_by: NamedBy,
    client_id: Option<&str>,
    token: &AccessToken,
) -> Result<(), Error> {
    let endpoint = endpoint.ok_or(Error::NotOffered)?;
    let body = Body { content_type: "application/x-www-form-urlencoded", bytes: form(client_id, token) };
    let mut ask = Ask::post(endpoint, named_by, body);
    ask.limit = LIMIT;
    let answer = outbound.send(ask).await.map_err(Error::Outbound)?;
    if answer.status == 200 {
        return Ok(());
    }
    let error = match answer.json::<BasicErrorResponse>() {
        Ok(wire) => OauthError::new(wire.error().as_ref(), wire.error_description().map(String::as_str), None),
        Err(_) => OauthError::new("error_without_code", Some(&format!("status {}", answer.status)), None),
    };
    Err(Error::Refused(error))
}

fn form(client_id: Option<&str>, token: &AccessToken) -> Zeroizing<Vec<u8>> {
    let mut form = Serializer::new(String::with_capacity(token.expose().len() * 3 + 1024));
    form.append_pair("token", token.expose()).append_pair("token_type_hint", "access_token");
    if let Some(client_id) = client_id {
        form.append_pair("client_id", client_id);
    }
    Zeroizing::new(form.finish().into_bytes())
}
