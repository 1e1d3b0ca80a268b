//! The JSON in which AWS's credential endpoints return a role's keys: the same for containers and for EC2.

use secrecy::SecretString;
use serde::Deserialize;

use super::{Credentials, Error, malformed};
use crate::clock::from_rfc3339;
use crate::outbound::{self, Answer};
use crate::token::expose;

/// The cure for an answer that is not the endpoint's.
const NOT_THE_ENDPOINT: &str = "something answers in the place of the platform's endpoint: a proxy, a service mesh";

/// Reads the keys. Ignores the media type, because EC2 sends `text/plain`.
pub(super) fn read(answer: &Answer, who: &'static str) -> Result<Credentials, Error> {
    /// EC2 answers with a `Code` and no keys if it could not assume the role.
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Wire {
        /// Only EC2 sends it.
        code: Option<String>,
        access_key_id: SecretString,
        secret_access_key: SecretString,
        token: SecretString,
        expiration: String,
    }
    let wire: Wire = serde_json::from_slice(&answer.body)
        .map_err(|_| malformed(&format!("{who} gives no credentials"), NOT_THE_ENDPOINT))?;
    if wire.code.is_some_and(|code| code != "Success") {
        let hint = "the role's trust policy must name ec2.amazonaws.com, and the instance profile must hold that role";
        return Err(malformed(&format!("{who} could not take on the role"), hint));
    }
    let texts = [&wire.access_key_id, &wire.secret_access_key, &wire.token].map(expose);
    if texts.iter().any(|text| text.is_empty()) {
        return Err(malformed(&format!("{who} gives no credentials, or a part of them"), NOT_THE_ENDPOINT));
    }
    let endless = || malformed(&format!("{who} does not say when its credentials end"), NOT_THE_ENDPOINT);
    let expiry = from_rfc3339(&wire.expiration).ok_or_else(endless)?;
    let [id, key, token] = texts.map(str::to_owned);
    Ok(Credentials::new(id, key, Some(token), Some(expiry), "platform"))
}

/// The error when the endpoint gave no readable answer.
pub(super) fn unanswered(who: &str, error: &outbound::Error, silent: &str) -> Error {
    let what = format!("{who}: {error}");
    if error.is_temporary() {
        return Error::Unreachable { source_name: super::SOURCE.name, what, hint: Some(silent.to_owned()) };
    }
    malformed(&what, &error.hint().unwrap_or_else(|| NOT_THE_ENDPOINT.to_owned()))
}

/// The error for an answer with this status.
pub(super) fn refused(who: &str, status: u16, hint: &str) -> Error {
    let what = format!("{who} answers status {status}");
    let source_name = super::SOURCE.name;
    match status {
        429 | 500.. => {
            Error::Unreachable { source_name, what, hint: Some("see the log of the agent behind it".to_owned()) }
        }
        _ => Error::Rejected { source_name, what, hint: hint.to_owned() },
    }
}

/// Can another try succeed?
pub(super) fn worth_another_try(outcome: &Result<Answer, outbound::Error>) -> bool {
    match outcome {
        Ok(answer) => matches!(answer.status, 429 | 500..),
        Err(error) => error.is_temporary(),
    }
}
