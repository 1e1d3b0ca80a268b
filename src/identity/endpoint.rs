//! Shared code of sources that ask an HTTP endpoint of their platform for a JWT: retries and the reading of answers.
//!
//! A source provides the request, the usual causes of a refusal, and the field that holds the token. The mapping of answers to
//! errors is the same for all.

use std::time::Duration;

use reqwest::header::HeaderValue;
use secrecy::SecretString;
use serde::de::DeserializeOwned;

use super::{Ambient, Error};
use crate::outbound::{self, Answer, Ask, Patience};
use crate::token::{SubjectToken, expose};

/// An endpoint of a platform, used by one source.
pub(super) struct Endpoint {
    /// The source's name.
    pub(super) row: &'static str,
    /// The endpoint's name in errors.
    pub(super) called: &'static str,
    /// The usual cause of a refusal with this status.
    pub(super) refusal: fn(u16) -> &'static str,
    /// The usual cause of an answer that is not from this endpoint.
    pub(super) in_its_place: &'static str,
    /// If a refusal means "not yet": the reason, in words.
    pub(super) not_yet: fn(&Answer) -> Option<&'static str>,
}

/// Such endpoints fail for minutes: 429, 5xx, silent sockets. The numbers come from users of GitHub's endpoint, whose own
/// toolkit gives up too early.
const PATIENCE: Patience = Patience { tries: 5, delay: Duration::from_millis(500), total: Duration::from_secs(45) };
const PER_TRY: Duration = Duration::from_secs(10);

impl Endpoint {
    /// Sends the request, with retries for temporary failures, until the status is 200 or 201.
    pub(super) async fn ask(&self, ambient: &Ambient, ask: impl Fn() -> Ask) -> Result<Answer, Error> {
        let ask = || Ask { limit: PER_TRY, ..ask() };
        let again = |outcome: &Result<Answer, outbound::Error>| match outcome {
            Ok(answer) => matches!(answer.status, 429 | 500..) || (self.not_yet)(answer).is_some(),
            Err(error) => error.is_temporary(),
        };
        match ambient.outbound.send_patiently(PATIENCE, ask, again).await {
            Ok(answer) if matches!(answer.status, 200 | 201) => Ok(answer),
            Ok(answer) => Err(self.refused(&answer)),
            Err(error) => Err(self.unanswered(&error)),
        }
    }

    /// Reads the answer as a JSON object.
    pub(super) fn json<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, Error> {
        answer.json().map_err(|what| self.malformed(format!("{}: {what}", self.called), self.in_its_place))
    }

    /// Reads the token as a JWT.
    pub(super) fn token(&self, token: SecretString) -> Result<SubjectToken, Error> {
        SubjectToken::parse(token)
            .map_err(|error| self.malformed(format!("what {} gives is {error}", self.called), self.in_its_place))
    }

    /// The header value `SCHEME SECRET`, marked sensitive. `variable` is the variable that holds the secret.
    pub(super) fn authorization(
        &self,
        scheme: &str,
        secret: &SecretString,
        variable: &str,
    ) -> Result<HeaderValue, Error> {
        let mut value = HeaderValue::from_str(&format!("{scheme} {}", expose(secret))).map_err(|_| {
            self.malformed(
                format!("{variable} cannot be a header value"),
                "the platform sets it: do not set it yourself",
            )
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn refused(&self, answer: &Answer) -> Error {
        if let Some(waits) = (self.not_yet)(answer) {
            return Error::Unreachable { source_name: self.row, what: waits.to_owned(), hint: None };
        }
        let status = answer.status;
        let what = format!("{} answers status {status}", self.called);
        match status {
            429 | 500.. => Error::Busy {
                source_name: self.row,
                what,
                hint: Some("see the platform's status page".to_owned()),
                retry_after: answer.retry_after(),
            },
            _ => Error::Rejected { source_name: self.row, what, hint: (self.refusal)(status).to_owned() },
        }
    }

    fn unanswered(&self, error: &outbound::Error) -> Error {
        let what = format!("{} {error}", self.called);
        if error.is_temporary() {
            return Error::Unreachable { source_name: self.row, what, hint: None };
        }
        let hint = error.hint().unwrap_or_else(|| self.in_its_place.to_owned());
        self.malformed(what, &hint)
    }

    pub(super) fn malformed(&self, what: String, hint: &str) -> Error {
        Error::Malformed { source_name: self.row, what, hint: hint.to_owned() }
    }
}
