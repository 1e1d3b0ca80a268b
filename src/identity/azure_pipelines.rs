//! `azure-pipelines`: a service connection of Azure DevOps that a job of Azure Pipelines may use.
//!
//! Detected by `SYSTEM_OIDCREQUESTURI`, which every job has. It needs two more things: the job's token, which a step has
//! only if the pipeline passes it, and the id of a service connection that uses workload identity federation and that this
//! pipeline may use.
//!
//! ```yaml
//! - script: safeconduct run …
//!   env:
//!     SYSTEM_ACCESSTOKEN: $(System.AccessToken)
//! ```
//!
//! ```toml
//! [identity]
//! source             = "azure-pipelines"
//! service_connection = "b2d8c7f1-0000-4000-8000-000000000000"   # its resource id: the last part of its page's address
//! ```
//!
//! Inside the tasks `AzureCLI@2` and `AzurePowerShell@5` the id is in `AZURESUBSCRIPTION_SERVICE_CONNECTION_ID`, and
//! no configuration is needed. Each request returns a new token, but only Microsoft Entra accepts it: its audience is always
//! `api://AzureADTokenExchange`. Its subject names the connection, `sc://ORGANISATION/PROJECT/CONNECTION` or a newer form
//! (K: known from use, not from a page that was read). Use it with `exchange = "entra"`, which gets an access token for an
//! application, or as client assertion (`client_auth = "workload"`).
//!
//! Source: Azure DevOps REST API, "Oidctoken - Create"; Azure SDK, `AzurePipelinesCredential`; Microsoft, "Predefined
//! variables".

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, HeaderValue};
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::endpoint::Endpoint;
use super::{Ambient, Built, Defect, Descriptor, Error, Finding, IdentitySource, Kind, Setting, Tier};
use crate::oauth::Audience;
use crate::outbound::{Ask, Body, NamedBy};
use crate::platform::{self, Platform};
use crate::token::SubjectToken;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "azure-pipelines",
    tier: Tier::CiJob,
    about: "a service connection of Azure DevOps in a job of Azure Pipelines",
    evidence: "`SYSTEM_OIDCREQUESTURI`, `SYSTEM_ACCESSTOKEN`, and `AZURESUBSCRIPTION_SERVICE_CONNECTION_ID` or the configured `service_connection`",
    token: "`api://AzureADTokenExchange` as audience, minted anew each time",
    settings: &[SERVICE_CONNECTION],
    variables: &[REQUEST_URI, TOKEN],
    trust: &TRUST,
    detect,
    from_config: |given, ambient| from_env(given.text(&SERVICE_CONNECTION), ambient),
    probe: None,
};

/// The claims that a trust policy pins.
const TRUST: Platform = Platform {
    name: "azure-pipelines",
    note: "the service connection is the `sub`",
    issues: |issuer| platform::is_below(issuer, "https://vstoken.dev.azure.com"),
    stable_subject: |sub| Some(sub),
    warnings: &[|_| Some("whoever can use this service connection is let in".to_owned())],
    ..Platform::PLAIN
};

const SERVICE_CONNECTION: Setting = Setting::optional(
    "service_connection",
    Kind::Text,
    "Id of the service connection. Omit: AZURESUBSCRIPTION_SERVICE_CONNECTION_ID, which Azure's own tasks set.",
)
.checked(id);

const REQUEST_URI: &str = "SYSTEM_OIDCREQUESTURI";
const TOKEN: &str = "SYSTEM_ACCESSTOKEN";
/// The variable of tasks that sign in to Azure with a service connection.
const OF_THE_TASK: &str = "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID";
const API_VERSION: (&str, &str) = ("api-version", "7.1");
const CONNECTION: &str = "serviceConnectionId";

const NO_TOKEN: &str = "give the step the job's token: `env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)`";
const NO_CONNECTION: &str = "name the service connection: `source = \"azure-pipelines\"` and `service_connection = \"…\"` in \
    [identity]; or run inside AzureCLI@2 or AzurePowerShell@5, which set it";
const NOT_SET_BY_HAND: &str = "the agent sets it: do not set it yourself";

const API: Endpoint = Endpoint {
    row: SOURCE.name,
    called: "Azure DevOps",
    refusal: |status| match status {
        401 | 203 => {
            "the job's token is good only while the job runs: SYSTEM_ACCESSTOKEN must be $(System.AccessToken)"
        }
        403 | 404 => {
            "the service connection must exist under that id, use workload identity federation, and be permitted to this pipeline"
        }
        _ => "see the service connection's page in the project's settings",
    },
    in_its_place: "something between the job and Azure DevOps answers in its place: a proxy, a page to sign in",
    not_yet: |_| None,
};

struct Pipelines {
    url: Url,
    token: SecretString,
    ambient: Ambient,
}

fn detect(ambient: &Ambient) -> Finding {
    if ambient.env.get(REQUEST_URI).is_none() {
        return Finding::Absent { looked_for: REQUEST_URI };
    }
    Finding::of(REQUEST_URI, &[TOKEN, OF_THE_TASK], from_env(None, ambient))
}

/// Uses the configured connection, else that of the task.
fn from_env(configured: Option<&str>, ambient: &Ambient) -> Built {
    let unset = |name: &str, cure: &str| Defect::new(format!("{name} is not set"), cure);
    let uri = ambient.env.get(REQUEST_URI).ok_or_else(|| unset(REQUEST_URI, NOT_SET_BY_HAND))?;
    let token = ambient.env.secret(TOKEN).ok_or_else(|| unset(TOKEN, NO_TOKEN))?;
    let connection = configured.or_else(|| ambient.env.get(OF_THE_TASK));
    let connection = connection.ok_or_else(|| unset(OF_THE_TASK, NO_CONNECTION))?;
    id(connection).map_err(|what| Defect::new(format!("the service connection {what}"), NO_CONNECTION))?;
    let mut url = Url::parse(uri).map_err(|_| Defect::new(format!("{REQUEST_URI} is not a URL"), NOT_SET_BY_HAND))?;
    url.query_pairs_mut().append_pair(API_VERSION.0, API_VERSION.1).append_pair(CONNECTION, connection);
    Ok(Arc::new(Pipelines { url, token, ambient: ambient.clone() }))
}

/// Checks the id of a service connection: a GUID, not its name.
fn id(text: &str) -> Result<(), String> {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let fits = lengths == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if fits { Ok(()) } else { Err("is no GUID: its id is meant, not its name".to_owned()) }
}

#[async_trait]
impl IdentitySource for Pipelines {
    async fn subject_token(&self, _audience: &Audience) -> Result<SubjectToken, Error> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(rename = "oidcToken")]
            token: SecretString,
        }
        // Without this header Azure DevOps answers an expired token with a redirect to a sign-in page.
        const NO_PAGE: (HeaderName, HeaderValue) =
            (HeaderName::from_static("x-tfs-fedauthredirect"), HeaderValue::from_static("Suppress"));
        // As the Azure SDKs do: the HTTP client sends no length for an empty body by itself.
        const NO_BODY: (HeaderName, HeaderValue) = (CONTENT_LENGTH, HeaderValue::from_static("0"));
        let bearer = API.authorization("Bearer", &self.token, TOKEN)?;
        let ask = || {
            let body = Body { content_type: "application/json", bytes: Zeroizing::default() };
            let mut ask = Ask::post(self.url.as_str(), NamedBy::Us, body);
            ask.headers.extend([(AUTHORIZATION, bearer.clone()), NO_PAGE, NO_BODY]);
            ask
        };
        let answer = API.ask(&self.ambient, ask).await?;
        let wire: Wire = API.json(&answer)?;
        API.token(wire.token)
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(&SOURCE)
    }

    fn mints_anew(&self) -> bool {
        true
    }
}
