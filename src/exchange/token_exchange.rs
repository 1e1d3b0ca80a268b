//! `token-exchange`: the workload's JWT is changed for an access token (RFC 8693).
//!
//! For identity providers, gateways and security token services. `audience` names the target where the server wants
//! a logical name beside or instead of `resource`. What comes back must be an access token: an answer of another
//! `issued_token_type` is no bearer token, whatever its field is called (section 2.2.1).

use async_trait::async_trait;
use serde::Deserialize;

use super::answer::{self, Kind};
use super::{Descriptor, Error, Exchange, Issued, Request, Way};
use crate::oauth::quoted_words;
use crate::outbound::Answer;
use crate::token::{JWT, SubjectToken};

pub(super) const EXCHANGE: Descriptor = Descriptor {
    name: "token-exchange",
    grant: "urn:ietf:params:oauth:grant-type:token-exchange",
    discovers: true,
    sets: &["subject_token", "subject_token_type", "requested_token_type", "actor_token", "actor_token_type"],
    exchange: &TokenExchange,
};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

struct TokenExchange;

#[async_trait]
impl Exchange for TokenExchange {
    fn names_its_subject(&self) -> bool {
        true
    }

    async fn exchange(
        &self,
        way: &Way<'_>,
        subject: Option<&SubjectToken>,
        request: &Request,
    ) -> Result<Issued, Error> {
        // The identity is not yet an access token of anybody (section 3).
        let (subject, kind) = subject.map_or(("", JWT), |subject| (subject.expose(), subject.token_type()));
        let own = [("subject_token", subject), ("subject_token_type", kind), ("requested_token_type", ACCESS_TOKEN)];
        let answer = way.ask(EXCHANGE.grant, &own, request).await?;
        let issued = answer::read(&way.server.issuer, &answer, Kind::of(request))?;
        // A JWT that is an access token may be called either (section 3).
        of_type(&answer, &[ACCESS_TOKEN, JWT]).map_err(|what| way.malformed(what))?;
        Ok(issued)
    }
}

/// What was issued must be what was asked for.
pub(super) fn of_type(answer: &Answer, wanted: &[&str]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Wire {
        issued_token_type: Option<String>,
    }
    match answer.json::<Wire>().map_err(str::to_owned)?.issued_token_type {
        Some(kind) if wanted.contains(&kind.as_str()) => Ok(()),
        Some(kind) => Err(format!("its issued_token_type is {:?}, not {}", quoted_words(&kind), wanted[0])),
        None => Err("it has no issued_token_type (RFC 8693 section 2.2.1)".to_owned()),
    }
}
