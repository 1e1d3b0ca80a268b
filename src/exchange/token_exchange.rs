//! `token-exchange`: the workload's JWT is changed for an access token (RFC 8693).
//!
//! For identity providers, gateways and security token services. `audience` names the target where the server wants
//! a logical name beside or instead of `resource`. What comes back must be an access token: an answer of another
//! `issued_token_type` is no bearer token, whatever its field is called (section 2.2.1).

use async_trait::async_trait;
use serde::Deserialize;

use super::{Descriptor, Error, Exchange, Issued, Request, Way, answer, form};
use crate::oauth::quoted_words;
use crate::token::SubjectToken;

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "token-exchange",
    grant: "urn:ietf:params:oauth:grant-type:token-exchange",
    sets: &["subject_token", "subject_token_type", "requested_token_type", "actor_token", "actor_token_type"],
    exchange: &TokenExchange,
};

/// The identity is a JWT, not yet an access token of anybody (section 3).
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

struct TokenExchange;

#[async_trait]
impl Exchange for TokenExchange {
    async fn exchange(&self, way: &Way<'_>, subject: &SubjectToken, request: &Request) -> Result<Issued, Error> {
        let own =
            [("subject_token", subject.expose()), ("subject_token_type", JWT), ("requested_token_type", ACCESS_TOKEN)];
        let answer = way.post(form::body(EXCHANGE.grant, &own, subject, request)).await?;
        let issuer = &way.server.issuer;
        let issued = answer::read(issuer, &answer)?;
        let malformed = |what: String| Error::Malformed { issuer: issuer.clone(), what };
        match answer.json::<Wire>().map_err(|what| malformed(what.to_owned()))?.issued_token_type {
            // A JWT that is an access token may be called either (section 3).
            Some(kind) if kind == ACCESS_TOKEN || kind == JWT => Ok(issued),
            Some(kind) => {
                Err(malformed(format!("its issued_token_type is {:?}, not an access token", quoted_words(&kind))))
            }
            None => Err(malformed("it has no issued_token_type (RFC 8693 section 2.2.1)".to_owned())),
        }
    }
}

#[derive(Deserialize)]
struct Wire {
    issued_token_type: Option<String>,
}
