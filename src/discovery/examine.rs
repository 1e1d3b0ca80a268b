//! Discovery for `doctor`: the same requests and parsing, but without cache. Every URL is requested, and its answer is
//! reported before it is checked.

use std::sync::atomic::Ordering;

use reqwest::header::{ACCEPT, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use zeroize::Zeroizing;

use super::{Discovery, FetchedDocument};
use crate::oauth::{Challenge, challenge};
use crate::outbound::{self, Ask, Body, NamedBy, Origins};

/// The head of the MCP endpoint's answer to one request. The body is not read.
pub(crate) struct EndpointHead {
    pub(crate) status: u16,
    pub(crate) challenge: Challenge,
    /// The server's time (`Date`).
    pub(crate) date: Option<i64>,
    /// The nonce that the next DPoP proof must contain (RFC 9449 section 9).
    pub(crate) nonce: Option<String>,
}

impl Discovery {
    /// Sends one request to the MCP endpoint and reads the head of the answer.
    pub(crate) async fn request_head(&self, ask: Ask) -> Result<EndpointHead, outbound::Error> {
        self.sent[0].fetch_add(1, Ordering::Relaxed);
        let answer = self.outbound.send_for_head(ask).await?;
        let challenge = challenge::read(&answer.headers.get_all(WWW_AUTHENTICATE));
        let nonce = answer.headers.get("dpop-nonce").and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(EndpointHead { status: answer.status, challenge, date: answer.date(), nonce })
    }

    /// Requests one document, with the egress rules for URLs that another party named. `pass` is the front door's
    /// credential.
    pub(crate) async fn see_with(
        &self,
        url: &str,
        origins: &Origins,
        pass: Option<(HeaderName, HeaderValue)>,
    ) -> FetchedDocument {
        let mut ask = Ask::get(url, origins.who_named(url));
        ask.headers.extend(pass);
        self.fetch(ask).await
    }
}

/// A request that every protected MCP server answers with a challenge. It is valid in both MCP transports and starts no
/// session and no stream on an unprotected server.
pub(crate) fn ping(url: &str) -> Ask {
    const PING: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let body = Body { content_type: "application/json", bytes: Zeroizing::new(PING.to_vec()) };
    let mut ask = Ask::post(url, NamedBy::Us, body);
    ask.headers = vec![(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"))];
    ask.repeatable = true;
    ask
}
