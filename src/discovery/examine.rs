//! Discovery for `doctor`: the same requests and parsing, but without cache. Every URL is requested, and its answer is
//! reported before it is checked.

use reqwest::header::{ACCEPT, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use serde_json::Value;
use zeroize::Zeroizing;

use super::document::{BadDocument, ResourceDocument, ServerDocument};
use super::error::malformed;
use super::{Discovery, Error, ResourceMetadata};
use crate::oauth::{AuthorizationServer, Challenge, Issuer, ServerUrl, challenge};
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

/// A URL and its answer.
pub(crate) struct FetchedDocument {
    pub(crate) url: String,
    pub(crate) answer: Result<Answered, outbound::Error>,
}

/// An answer that is not checked yet.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) date: Option<i64>,
    /// The JSON document, or why there is none.
    pub(crate) document: Result<Value, &'static str>,
}

impl FetchedDocument {
    /// Did the server answer with a document, valid or not?
    pub(crate) fn is_there(&self) -> bool {
        matches!(&self.answer, Ok(answered) if answered.status == 200)
    }

    /// The JSON document, if the answer has one.
    pub(crate) fn document(&self) -> Option<&Value> {
        self.answer.as_ref().ok().filter(|answered| answered.status == 200)?.document.as_ref().ok()
    }
}

impl std::fmt::Display for FetchedDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = crate::oauth::quoted_words(&self.url);
        match &self.answer {
            Ok(answered) => write!(f, "{url} answers {}", answered.status),
            Err(error) => write!(f, "{url}: {error}"),
        }
    }
}

impl Discovery {
    /// Sends one request to the MCP endpoint and reads the head of the answer.
    pub(crate) async fn request_head(&self, ask: Ask) -> Result<EndpointHead, outbound::Error> {
        let answer = self.outbound.send_for_head(ask).await?;
        let challenge = challenge::read(&answer.headers.get_all(WWW_AUTHENTICATE));
        let nonce = answer.headers.get("dpop-nonce").and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(EndpointHead { status: answer.status, challenge, date: answer.date(), nonce })
    }

    /// Requests one document, with the egress rules for URLs that another party named. `pass` is the front door's
    /// credential.
    pub(crate) async fn see(
        &self,
        url: &str,
        origins: &Origins,
        pass: Option<(HeaderName, HeaderValue)>,
    ) -> FetchedDocument {
        let mut ask = Ask::get(url, origins.who_named(url));
        ask.headers.extend(pass);
        let answer = self.outbound.send_for_document(ask).await;
        let answer = answer.map(|answer| Answered {
            status: answer.status,
            date: answer.date(),
            document: answer.json::<Value>(),
        });
        FetchedDocument { url: url.to_owned(), answer }
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

/// Reads the RFC 9728 metadata published at `place`, with the same checks as discovery.
pub(crate) fn resource_metadata(
    document: &Value,
    place: &ServerUrl,
    server: &ServerUrl,
) -> Result<ResourceMetadata, Error> {
    let read: Result<ResourceDocument, _> = serde_json::from_value(document.clone());
    read.map_err(|_| malformed("the resource metadata", server.as_str(), "`resource` or a list has the wrong type"))?
        .checked(place, server)
}

/// Reads RFC 8414 metadata with the same checks as discovery.
pub(crate) fn server_metadata(document: &Value, issuer: &Issuer, url: &str) -> Result<AuthorizationServer, Error> {
    const PLACE: &str = "the server metadata";
    let read: Result<ServerDocument, _> = serde_json::from_value(document.clone());
    read.map_err(|_| malformed(PLACE, url, "`issuer` or a list has the wrong type"))?
        .checked(issuer)
        .map_err(|error: BadDocument| error.at(PLACE, url))
}
