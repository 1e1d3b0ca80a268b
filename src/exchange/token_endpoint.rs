//! Sends token requests to an authorization server.

use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::header::{HeaderName, HeaderValue};
use url::Url;

use super::{Error, Request, answer, form};
use crate::clock::Clock;
use crate::dpop;
use crate::oauth::AuthorizationServer;
use crate::outbound::{Answer, Ask, Origins, Outbound};

/// The authorization server of a token request, and what sending the request needs.
pub(crate) struct TokenEndpoint<'a> {
    /// The HTTP client.
    pub outbound: &'a Outbound,
    /// The authorization server.
    pub server: &'a AuthorizationServer,
    /// The origins that the configuration names for this request: they may have private addresses.
    pub origins: &'a Origins,
    /// The clock, for assertions and DPoP proofs.
    pub clock: &'a Clock,
    /// The DPoP nonces that servers issued.
    pub nonces: &'a dpop::Nonces,
    /// Counts the requests to token endpoints, and to revocation endpoints.
    pub sent: &'a [AtomicUsize; 2],
}

impl TokenEndpoint<'_> {
    /// Sends the token request with the parameters of grant, client and DPoP proof.
    pub(super) async fn ask(&self, grant: &str, own: &[(&str, &str)], request: &Request) -> Result<Answer, Error> {
        let client = request.client.parameters(self.server, self.clock.unix())?;
        let body = form::token_request(grant, own, request, &client);
        let certificate = request.client.certificate();
        let aliased = self.server.mutual_tls.token_endpoint.as_ref().filter(|_| certificate.is_some());
        let endpoint = aliased.unwrap_or(&self.server.token_endpoint);
        let mut ask = Ask::post(endpoint, self.origins.who_named(endpoint), body);
        ask.certificate = certificate.cloned();
        ask.headers.extend(request.client.header()?);
        let place = Url::parse(endpoint).map_err(|_| self.malformed("its token endpoint is no URL".to_owned()))?;
        if let Some(key) = &request.dpop {
            ask.headers.push(self.proof(key, &place)?);
        }
        self.sent[0].fetch_add(1, Ordering::Relaxed);
        let answer = self.outbound.send(ask).await;
        let answer = answer.map_err(|error| Error::Outbound { issuer: self.server.issuer.clone(), error })?;
        if request.dpop.is_some() {
            let nonce = answer.headers.get("dpop-nonce").and_then(|value| value.to_str().ok());
            self.nonces.learn(&place, nonce);
            if nonce.is_some() && answer::wants_nonce(&answer) {
                return Err(Error::NonceWanted { issuer: self.server.issuer.clone() });
            }
        }
        Ok(answer)
    }

    /// The DPoP header for a request to `place` (RFC 9449 section 4).
    fn proof(&self, key: &dpop::Key, place: &Url) -> Result<(HeaderName, HeaderValue), Error> {
        let nonce = self.nonces.newest(place);
        let unix_now = self.clock.unix();
        let purpose = dpop::Purpose { method: "POST", url: place, token: None, nonce: nonce.as_deref(), unix_now };
        let value = key.proof(&purpose).and_then(|proof| HeaderValue::from_str(&proof).ok());
        let value = value.ok_or_else(|| self.malformed("no DPoP proof could be signed".to_owned()))?;
        Ok((HeaderName::from_static("dpop"), value))
    }

    /// The error for an answer that does not follow the RFCs.
    pub(super) fn malformed(&self, what: String) -> Error {
        Error::Malformed { issuer: self.server.issuer.clone(), what }
    }
}
