//! Requests to the endpoints that Microsoft's crate does not support, and the errors for all endpoints.
//!
//! Each is one GET with `resource`. The names of the secret's header, the identity's parameter and the version differ. Errors
//! contain only the status of an answer and whether it has some known words.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::{AssignedIdentity, Azure, AzureHost, Defect, Error, Host, SOURCE, malformed};
use crate::env::Env;
use crate::outbound::{self, Answer, Ask, NamedBy, Outbound, Patience};
use crate::token::expose;

/// The fixed address of the metadata service.
const IMDS: &str = "http://169.254.169.254";
/// The variable of Microsoft's libraries for another address of the metadata service: a proxy on the node, or a test server.
pub(super) const OVERRIDE: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
pub(super) const METADATA: (HeaderName, HeaderValue) =
    (HeaderName::from_static("metadata"), HeaderValue::from_static("true"));

/// During an update the metadata service answers 410 for up to 70 s (Microsoft, "How to use managed identities on an Azure
/// VM to acquire an access token", retry guidance).
const OF_MACHINE: Patience = Patience { tries: 30, delay: Duration::from_millis(800), total: Duration::from_secs(80) };
/// The workload's own endpoint may start after the workload.
const OF_WORKLOAD: Patience = Patience { tries: 6, delay: Duration::from_millis(500), total: Duration::from_secs(30) };
const PER_TRY: Duration = Duration::from_secs(10);
/// Tries without any answer. More do not help: the host is not in Azure, or a network rule blocks the service.
const UNANSWERED_TRIES: u32 = 3;

pub(super) const SOMETHING_ELSE: &str =
    "something answers in the place of Azure's endpoint: a proxy, or whatever set the address";
const UNREACHABLE: &str =
    "if this is an Azure host, let this process reach the endpoint (network policy, firewall of the machine)";
const NO_IDENTITY: &str = "assign a managed identity to this resource; with several user-assigned ones, or another than the \
    system-assigned, say which: `client_id`, `object_id` or `resource_id` in [identity]";
const SEVERAL_IDENTITIES: &str = "say which one is meant: `client_id`, `object_id` or `resource_id` in [identity] \
    (`az identity list` shows them)";
const NO_APPLICATION: &str = "Entra makes tokens only for applications of the tenant: register the target there, and set \
    `subject_audience`, or `scopes` with `exchange = \"entra\"`, to its identifier URI";

/// The base of the metadata service.
pub(super) fn metadata_service(env: &Env) -> Result<Url, Defect> {
    let text = env.get(OVERRIDE).unwrap_or(IMDS);
    let wrong = || {
        Defect::new(
            format!("{OVERRIDE} is not an http URL of a link-local or loopback address"),
            format!("unset it: the metadata service is at {IMDS}, and no identity is asked for anywhere else"),
        )
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let is_beside_us = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_link_local(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unicast_link_local(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let plain = url.scheme() == "http" && url.query().is_none() && url.username().is_empty();
    if plain && is_beside_us { Ok(url) } else { Err(wrong()) }
}

/// The probe's request for the description of the machine.
pub(super) fn instance(env: &Env) -> Ask {
    // The source itself reports a wrong override. This request carries no secret.
    let base =
        metadata_service(env).map_or_else(|_| IMDS.to_owned(), |url| url.as_str().trim_end_matches('/').to_owned());
    let mut ask = Ask::get(&format!("{base}/metadata/instance/compute?api-version=2021-02-01"), NamedBy::Platform);
    ask.headers.push(METADATA);
    ask
}

/// A header value that holds a secret.
pub(super) fn header(secret: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(expose(secret)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A GET of the endpoint with these query parameters and headers.
pub(super) fn get(endpoint: &Url, pairs: &[(&str, &str)], headers: &[(HeaderName, HeaderValue)]) -> Ask {
    let mut url = endpoint.clone();
    url.query_pairs_mut().extend_pairs(pairs);
    let mut ask = Ask::get(url.as_str(), NamedBy::Platform);
    ask.headers.extend_from_slice(headers);
    ask.limit = PER_TRY;
    ask
}

/// Reads the token of an answer. The other fields only repeat claims of the token.
pub(super) fn token(answer: &Answer, who: &str) -> Result<SecretString, Error> {
    #[derive(Deserialize)]
    struct Wire {
        access_token: SecretString,
    }
    let wire: Wire = answer.json().map_err(|what| malformed(format!("{who}: {what}"), SOMETHING_ELSE))?;
    Ok(wire.access_token)
}

impl Azure {
    /// Gets a token with our own request, without Microsoft's crate.
    pub(super) async fn asked(&self, resource: &str) -> Result<SecretString, Error> {
        let mut outbound = self.ambient.outbound.clone();
        let name = HeaderName::from_static;
        let (endpoint, version, header_name, value, id) = match (&self.host, &self.which) {
            (AzureHost::AppService { endpoint, header }, AssignedIdentity::Resource(id)) => {
                (endpoint, "2019-08-01", name("x-identity-header"), header, Some(("mi_res_id", id)))
            }
            (AzureHost::MachineLearning { endpoint, secret, .. }, AssignedIdentity::Client(id)) => {
                (endpoint, "2017-09-01", name("secret"), secret, Some(("clientid", id)))
            }
            (AzureHost::MachineLearning { endpoint, secret, default }, _) => {
                (endpoint, "2017-09-01", name("secret"), secret, default.as_ref().map(|id| ("clientid", id)))
            }
            (AzureHost::ServiceFabric { endpoint, header, thumbprint }, _) => {
                outbound = outbound.pinned(*thumbprint).map_err(|error| self.unanswered(&error))?;
                (endpoint, "2019-07-01-preview", name("secret"), header, None)
            }
            _ => return Err(malformed("asked in a way that its host does not know".to_owned(), "report this")),
        };
        let value =
            header(value).ok_or_else(|| malformed("a secret cannot be a header value".to_owned(), super::NOT_YOURS))?;
        let mut pairs = vec![("api-version", version), ("resource", resource)];
        pairs.extend(id.map(|(parameter, id)| (parameter, id.as_str())));
        let answer =
            self.answered(&outbound, || get(endpoint, &pairs, &[(header_name.clone(), value.clone())])).await?;
        token(&answer, self.host.who())
    }

    /// Asks until there is a final answer. Any answer but 200 is an error.
    pub(super) async fn answered(&self, outbound: &Outbound, ask: impl Fn() -> Ask) -> Result<Answer, Error> {
        let answer = self.heard(outbound, ask).await?;
        match answer.status {
            200 => Ok(answer),
            _ => Err(self.refused(&answer)),
        }
    }

    /// Asks until there is a final answer, whatever its status.
    pub(super) async fn heard(&self, outbound: &Outbound, ask: impl Fn() -> Ask) -> Result<Answer, Error> {
        let is_machine = matches!(self.host, AzureHost::VirtualMachine);
        let patience = if is_machine { OF_MACHINE } else { OF_WORKLOAD };
        let unanswered = AtomicU32::new(0);
        let again = |outcome: &Result<Answer, outbound::Error>| match outcome {
            Ok(answer) => is_passing(answer.status, &self.host),
            Err(error) => error.is_temporary() && unanswered.fetch_add(1, Ordering::Relaxed) + 1 < UNANSWERED_TRIES,
        };
        outbound.send_patiently(patience, ask, again).await.map_err(|error| self.unanswered(&error))
    }

    pub(super) fn unanswered(&self, error: &outbound::Error) -> Error {
        let who = self.host.who();
        match error {
            error if error.is_temporary() => Error::Unreachable {
                source_name: SOURCE.name,
                what: format!("{who}: {error}"),
                hint: Some(UNREACHABLE.to_owned()),
            },
            error => malformed(format!("{who}: {error}"), &error.hint().unwrap_or_else(|| SOMETHING_ELSE.to_owned())),
        }
    }

    pub(super) fn refused(&self, answer: &Answer) -> Error {
        let (who, status) = (self.host.who(), answer.status);
        let mut what = format!("{who} answers status {status}");
        if is_passing(status, &self.host) {
            let hint = Some("Azure has trouble there, or too many ask at once".to_owned());
            return Error::Busy { source_name: SOURCE.name, what, hint, retry_after: answer.retry_after() };
        }
        let body = String::from_utf8_lossy(&answer.body).to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| body.contains(word));
        let hint = match status {
            400 if says(&["aadsts500011", "aadsts500341", "invalid_resource"]) => NO_APPLICATION,
            400 if says(&["multiple user assigned"]) => {
                what.push_str(": several user-assigned identities are assigned to this resource");
                SEVERAL_IDENTITIES
            }
            400 | 404 if says(&["identity"]) => NO_IDENTITY,
            400 => NO_APPLICATION,
            // Docker Desktop answers like this when there is no metadata service.
            403 if says(&["unreachable"]) => UNREACHABLE,
            401 | 403 => {
                "the workload may not ask: its secret is of another start of the host, or the identity was taken away; start it anew"
            }
            _ => SOMETHING_ELSE,
        };
        Error::Rejected { source_name: SOURCE.name, what, hint: hint.to_owned() }
    }
}

/// Is this status temporary?
fn is_passing(status: u16, place: &AzureHost) -> bool {
    matches!(status, 429 | 500..) || (matches!(place, AzureHost::VirtualMachine) && matches!(status, 404 | 410))
}
