//! Token revocation (RFC 7009 section 2.1), authenticated as the client that the token was issued to.
//!
//! The oauth2 crate is not used for the form: it always sends a `client_id`, which a grant without a client does not
//! have, and it does not allow loopback addresses for development.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{TokenEndpoint, form};
use crate::exchange::ResolvedClient;
use crate::oauth::OauthError;
use crate::outbound::{self, Answer, Ask};
use crate::token::AccessToken;

/// The time limit. Short, because revocation must not delay a shutdown.
const LIMIT: Duration = Duration::from_secs(3);

/// Why a token was not revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The server offers no revocation.
    #[error("the authorization server offers no revocation endpoint")]
    NotOffered,
    /// The request failed.
    #[error("the revocation endpoint: {0}")]
    Outbound(outbound::Error),
    /// The server is overloaded, has an internal error, or limits our rate.
    #[error("the revocation endpoint cannot answer now: status {0}")]
    Busy(u16),
    /// The proof of the client could not be made.
    #[error("the client cannot be proved: {why}")]
    Client { why: String, is_temporary: bool },
    /// The server refused.
    #[error("the revocation endpoint refuses with {0}")]
    Refused(OauthError),
}

impl Error {
    /// Can the same request succeed soon?
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Outbound(error) => error.is_temporary(),
            Self::Client { is_temporary, .. } => *is_temporary,
            Self::Busy(_) => true,
            Self::NotOffered | Self::Refused(_) => false,
        }
    }

    fn client(error: &super::Error) -> Self {
        Self::Client { why: error.to_string(), is_temporary: error.is_temporary() }
    }
}

/// Revokes one access token. Succeeds for unknown tokens too, because the server answers 200 for them.
///
/// Fails if the server has no revocation endpoint, does not answer, or refuses.
pub(crate) async fn revoke(way: &TokenEndpoint<'_>, client: &ResolvedClient, token: &AccessToken) -> Result<(), Error> {
    let mut answer = ask(way, client, token).await;
    if matches!(&answer, Err(Error::Outbound(error)) if error.is_stale()) {
        // Sent once more, with a new client assertion: the server may have used up the first.
        answer = ask(way, client, token).await;
    }
    judge(&answer?)
}

/// Sends one revocation request.
async fn ask(way: &TokenEndpoint<'_>, client: &ResolvedClient, token: &AccessToken) -> Result<Answer, Error> {
    let certificate = client.certificate();
    let aliased = way.server.mutual_tls.revocation_endpoint.as_ref().filter(|_| certificate.is_some());
    let endpoint = aliased.or(way.server.revocation_endpoint.as_ref()).ok_or(Error::NotOffered)?;
    let parameters = client.parameters(way.server, way.clock.unix()).map_err(|error| Error::client(&error))?;
    let mut pairs = vec![("token", token.expose()), ("token_type_hint", "access_token")];
    pairs.extend(parameters.iter().map(|(name, value)| (*name, value.as_str())));
    let mut ask = Ask::post(endpoint, way.origins.who_named(endpoint), form::encoded(&pairs));
    ask.certificate = certificate.cloned();
    ask.headers.extend(client.header().map_err(|error| Error::client(&error))?);
    ask.limit = LIMIT;
    way.sent[1].fetch_add(1, Ordering::Relaxed);
    way.outbound.send(ask).await.map_err(Error::Outbound)
}

/// Reads the answer. Fails unless its status is 200.
fn judge(answer: &Answer) -> Result<(), Error> {
    if answer.status == 200 {
        return Ok(());
    }
    if answer.status == 429 || answer.status >= 500 {
        return Err(Error::Busy(answer.status));
    }
    Err(Error::Refused(answer.said().error(answer.status)))
}
