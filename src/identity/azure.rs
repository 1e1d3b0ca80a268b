//! `azure`: the managed identity of an Azure workload.
//!
//! Detected by the platform's variables: `IDENTITY_ENDPOINT` with `IDENTITY_HEADER` (App Service, Functions, Container Apps; with
//! `IDENTITY_SERVER_THUMBPRINT` a Service Fabric application), with `IMDS_ENDPOINT` (a machine connected by Azure Arc), or
//! `MSI_ENDPOINT` with `MSI_SECRET` (Azure Machine Learning). A container instance has `IDENTITY_API_VERSION`, `IDENTITY_HEADER` and
//! `IDENTITY_SERVER_THUMBPRINT` without an endpoint, and asks the metadata service. A virtual machine, scale set or AKS node has no such variable,
//! and everything on it shares one identity. There, and for an Arc agent without its variables, configure the source:
//!
//! ```toml
//! [identity]
//! source    = "azure"
//! client_id = "…"      # the user-assigned identity; or object_id, or resource_id; none: the system-assigned one
//! ```
//!
//! The token is an Entra access token. Entra issues it only for an application that is registered in the tenant, so register
//! the authorization server as an application and set `subject_audience` to its identifier URI (`api://…`). The token's `aud`
//! must equal it exactly. If the application accepts version 2 tokens, `aud` is the application id: then set
//! `subject_audience` to that id, which is requested too (users report that the endpoints accept it like a URI). If the
//! request must use the URI all the same, set `resource` next to `source`; `aud` is still compared with `subject_audience`.
//! For the token exchange of the public cloud (`api://AzureADTokenExchange`) both the URI and the id match.
//!
//! The host caches a token for up to a day and returns the same one. A token that a server refused is not sent to that server
//! again, so restart the daemon after you fix the trust policy. Cloud Shell has a person's login and is refused.
//! `AZURE_CLIENT_ID` is not read, because it belongs to the default chains of the SDKs.
//!
//! Source: Microsoft, "How managed identities for Azure resources work with virtual machines"; "How to use managed identities
//! for App Service and Azure Functions"; "Authenticate against Azure resources with Azure Arc-enabled servers"; the identity
//! libraries of Microsoft for Python and Go, for Azure Machine Learning and Service Fabric.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use secrecy::SecretString;
use serde::Deserialize;
use url::{Host, Url};

use super::{
    Ambient, Built, Defect, Descriptor, Dmi, Error, Finding, Given, IdentitySource, Kind, Probe, Setting, Tier,
};
use crate::env::Env;
use crate::oauth::{Audience, quoted_words};
use crate::outbound::{Answer, Thumbprint};
use crate::platform::{Pin, Platform};
use crate::token::SubjectToken;

mod arc;
mod asking;
mod sdk;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "azure",
    tier: Tier::Pod,
    about: "a managed identity: App Service, Functions, Container Apps, Container Instances, Service Fabric, Azure ML, Arc; named: a virtual machine",
    evidence: "`IDENTITY_ENDPOINT` or `MSI_ENDPOINT` with what belongs to them; of a container instance the rest without `IDENTITY_ENDPOINT`; else configuration",
    token: "an Entra access token for any application that is registered in the tenant; the host keeps it for up to a day",
    settings: &[CLIENT_ID, OBJECT_ID, RESOURCE_ID, RESOURCE],
    variables: &[ENDPOINT, HEADER, THUMBPRINT, IMDS, MSI_ENDPOINT, MSI_SECRET, asking::OVERRIDE],
    trust: &TRUST,
    detect,
    from_config,
    probe: Some(Probe {
        dmi: is_azures,
        ask: |ambient| asking::instance(&ambient.env),
        is_it: is_instance,
        source: |ambient| {
            let (host, which, resource) = (AzureHost::VirtualMachine, AssignedIdentity::SystemAssigned, None);
            Arc::new(Azure { host, which, resource, ambient: ambient.clone() })
        },
    }),
};

/// The claims that a trust policy pins.
const TRUST: Platform = Platform {
    name: "azure",
    pins: &[
        Pin::required(&["tid"], "the directory, by its number"),
        Pin::required(&["oid"], "the identity, by its number"),
        Pin::optional(&["idtyp"], "an application, not a person"),
    ],
    warnings: &[],
    ..Platform::PLAIN
};

const CLIENT_ID: Setting = Setting::at_most_one("client_id", Kind::Text, "The user-assigned identity, by client id.");
const OBJECT_ID: Setting =
    Setting::at_most_one("object_id", Kind::Text, "The user-assigned identity, by object (principal) id.");
const RESOURCE_ID: Setting =
    Setting::at_most_one("resource_id", Kind::Text, "The user-assigned identity, by resource id.").checked(|text| {
        match text.starts_with('/') {
            true => Ok(()),
            false => Err("must be the whole id: \"/subscriptions/…\"".to_owned()),
        }
    });
const RESOURCE: Setting = Setting::optional(
    "resource",
    Kind::Text,
    "What Entra is asked for, where it is not what the tokens' `aud` says. Omit: the audience.",
);

const ENDPOINT: &str = "IDENTITY_ENDPOINT";
const HEADER: &str = "IDENTITY_HEADER";
const THUMBPRINT: &str = "IDENTITY_SERVER_THUMBPRINT";
/// Container Instances have it with the two above, and no `IDENTITY_ENDPOINT`: they ask the metadata service.
const API_VERSION: &str = "IDENTITY_API_VERSION";
const IMDS: &str = "IMDS_ENDPOINT";
const MSI_ENDPOINT: &str = "MSI_ENDPOINT";
const MSI_SECRET: &str = "MSI_SECRET";
/// With one of these a process can ask for any identity of the machine.
pub(super) const REQUEST_TOKENS: [&str; 2] = [HEADER, MSI_SECRET];
/// The variable that names the system-assigned identity of Azure Machine Learning.
const MSI_DEFAULT: &str = "DEFAULT_IDENTITY_CLIENT_ID";

/// The cure for a wrong value of a variable that only the platform sets.
const NOT_YOURS: &str = "it is set by the platform: do not set it yourself";

#[derive(Clone)]
struct Azure {
    host: AzureHost,
    which: AssignedIdentity,
    resource: Option<String>,
    ambient: Ambient,
}

/// The Azure service that hosts us, with its endpoint's address and secret.
#[derive(Clone)]
enum AzureHost {
    /// Also Functions and Container Apps.
    AppService {
        endpoint: Url,
        header: SecretString,
    },
    ServiceFabric {
        endpoint: Url,
        header: SecretString,
        thumbprint: Thumbprint,
    },
    Arc {
        endpoint: Url,
    },
    MachineLearning {
        endpoint: Url,
        secret: SecretString,
        default: Option<String>,
    },
    /// Also scale sets and AKS nodes, and a container instance.
    VirtualMachine,
}

/// Selects one of the identities that are assigned to the workload.
#[derive(Clone)]
enum AssignedIdentity {
    SystemAssigned,
    Client(String),
    Object(String),
    Resource(String),
}

/// Evidence of an identity that is incomplete.
struct Incomplete {
    evidence: &'static str,
    defect: Defect,
}

fn detect(ambient: &Ambient) -> Finding {
    match place(&ambient.env) {
        Ok(None) => Finding::Absent {
            looked_for: "IDENTITY_ENDPOINT or MSI_ENDPOINT (a virtual machine is named: `source = \"azure\"`)",
        },
        Ok(Some(host)) => {
            let evidence = match host {
                AzureHost::VirtualMachine => "IDENTITY_API_VERSION, IDENTITY_HEADER, IDENTITY_SERVER_THUMBPRINT",
                _ => host.evidence(),
            };
            let evidence = evidence.to_owned();
            let (which, resource) = (AssignedIdentity::SystemAssigned, None);
            let source = Arc::new(Azure { host, which, resource, ambient: ambient.clone() });
            Finding::Usable { evidence, source }
        }
        Err(Incomplete { evidence, defect }) => Finding::Unusable { evidence: evidence.to_owned(), defect },
    }
}

fn from_config(given: &Given<'_>, ambient: &Ambient) -> Built {
    // The configuration check allows at most one of the three.
    let client = given.text(&CLIENT_ID).map(|id| AssignedIdentity::Client(id.to_owned()));
    let object = given.text(&OBJECT_ID).map(|id| AssignedIdentity::Object(id.to_owned()));
    let resource = given.text(&RESOURCE_ID).map(|id| AssignedIdentity::Resource(id.to_owned()));
    let which = client.or(object).or(resource).unwrap_or(AssignedIdentity::SystemAssigned);
    let host = match place(&ambient.env) {
        Ok(Some(host)) => host,
        Ok(None) if ambient.env.metadata(Path::new(arc::AGENT)).is_ok() => AzureHost::Arc { endpoint: arc::endpoint() },
        Ok(None) => {
            asking::metadata_service(&ambient.env)?;
            AzureHost::VirtualMachine
        }
        Err(Incomplete { evidence, defect }) => {
            return Err(Defect::new(format!("{evidence}: {}", defect.what), defect.cure));
        }
    };
    host.takes(&which).map_err(|what| Defect::new(what, "take it out of [identity]"))?;
    let resource = given.text(&RESOURCE).map(str::to_owned);
    Ok(Arc::new(Azure { host, which, resource, ambient: ambient.clone() }))
}

/// Detects the hosting service from variables, without network.
fn place(env: &Env) -> Result<Option<AzureHost>, Incomplete> {
    let is = |name: &str| env.get(name).is_some();
    if is(ENDPOINT) || is(HEADER) || is(THUMBPRINT) {
        return match (is(ENDPOINT), is(HEADER), is(THUMBPRINT), is(IMDS)) {
            (true, true, true, _) => service_fabric(env).map(Some),
            (true, true, false, _) => {
                let (endpoint, header) = (url(env, ENDPOINT)?, secret(env, HEADER, ENDPOINT)?);
                Ok(Some(AzureHost::AppService { endpoint, header }))
            }
            (true, false, false, true) => Ok(Some(AzureHost::Arc { endpoint: arc::checked(url(env, ENDPOINT)?)? })),
            (true, ..) => Err(Incomplete::of(ENDPOINT, "IDENTITY_HEADER is not set")),
            (false, true, true, _) if is(API_VERSION) => container_instance(env).map(Some),
            // Without an address they are not about an identity endpoint.
            (false, ..) => Ok(None),
        };
    }
    match (is(MSI_ENDPOINT), is(MSI_SECRET)) {
        (false, false) => Ok(None),
        (true, true) => {
            let (endpoint, secret) = (url(env, MSI_ENDPOINT)?, secret(env, MSI_SECRET, MSI_ENDPOINT)?);
            let default = env.get(MSI_DEFAULT).map(str::to_owned);
            Ok(Some(AzureHost::MachineLearning { endpoint, secret, default }))
        }
        (true, false) => Err(Incomplete {
            evidence: MSI_ENDPOINT,
            defect: Defect::new(
                "MSI_SECRET is not set: this is a Cloud Shell, and its login is a person's",
                "run it as a workload, or name another source with `source` in [identity]",
            ),
        }),
        (false, true) => Err(Incomplete::of(MSI_SECRET, "MSI_ENDPOINT is not set")),
    }
}

fn container_instance(env: &Env) -> Result<AzureHost, Incomplete> {
    let service = asking::metadata_service(env).map(|_| AzureHost::VirtualMachine);
    service.map_err(|defect| Incomplete { evidence: API_VERSION, defect })
}

fn service_fabric(env: &Env) -> Result<AzureHost, Incomplete> {
    let thumbprint = env.get(THUMBPRINT).and_then(Thumbprint::parse);
    let thumbprint = thumbprint.ok_or_else(|| Incomplete {
        evidence: THUMBPRINT,
        defect: Defect::new("it is no SHA-1 thumbprint (40 hexadecimal digits)", NOT_YOURS),
    })?;
    let endpoint = url(env, ENDPOINT)?;
    if endpoint.scheme() != "https" {
        return Err(Incomplete::of(ENDPOINT, "it is no https URL, and with IDENTITY_SERVER_THUMBPRINT it has to be"));
    }
    Ok(AzureHost::ServiceFabric { endpoint, header: secret(env, HEADER, ENDPOINT)?, thumbprint })
}

fn url(env: &Env, name: &'static str) -> Result<Url, Incomplete> {
    let parsed = env.get(name).and_then(|text| Url::parse(text).ok());
    let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.query().is_none();
    parsed.filter(is_http).ok_or_else(|| Incomplete::of(name, "it is not the URL of an endpoint"))
}

/// Reads the secret. Fails unless it can be a header value.
fn secret(env: &Env, name: &'static str, evidence: &'static str) -> Result<SecretString, Incomplete> {
    let secret = env.secret(name).filter(|secret| asking::header(secret).is_some());
    secret.ok_or_else(|| Incomplete::of(evidence, &format!("{name} cannot be a header value")))
}

impl Incomplete {
    fn of(evidence: &'static str, why: &str) -> Self {
        let cure = format!(
            "the platform sets {ENDPOINT} and what belongs to it together: switch the managed identity on, pass all of \
            them on to this process, and set none yourself; or name another source with `source` in [identity]"
        );
        Self { evidence, defect: Defect::new(why, cure) }
    }
}

impl AzureHost {
    fn evidence(&self) -> &'static str {
        match self {
            Self::AppService { .. } => "IDENTITY_ENDPOINT, IDENTITY_HEADER",
            Self::ServiceFabric { .. } => "IDENTITY_ENDPOINT, IDENTITY_HEADER, IDENTITY_SERVER_THUMBPRINT",
            Self::Arc { .. } => "IDENTITY_ENDPOINT, IMDS_ENDPOINT",
            Self::MachineLearning { .. } => "MSI_ENDPOINT, MSI_SECRET",
            Self::VirtualMachine => "the metadata service",
        }
    }

    /// The endpoint's name in messages.
    fn who(&self) -> &'static str {
        match self {
            Self::AppService { .. } => "the identity endpoint",
            Self::ServiceFabric { .. } => "the identity endpoint of Service Fabric",
            Self::Arc { .. } => "the Arc agent",
            Self::MachineLearning { .. } => "the identity endpoint of Azure ML",
            Self::VirtualMachine => "the metadata service",
        }
    }

    /// Can a request to this endpoint select this identity?
    fn takes(&self, which: &AssignedIdentity) -> Result<(), &'static str> {
        match (self, which) {
            (_, AssignedIdentity::SystemAssigned) | (Self::MachineLearning { .. }, AssignedIdentity::Client(_)) => {
                Ok(())
            }
            (Self::Arc { .. }, _) => Err("a machine connected by Arc has its system-assigned identity alone"),
            (Self::ServiceFabric { .. }, _) => Err("Service Fabric assigns the identity in the application's manifest"),
            (Self::MachineLearning { .. }, _) => Err("Azure ML is told the identity by `client_id` alone"),
            (Self::AppService { .. } | Self::VirtualMachine, _) => Ok(()),
        }
    }
}

#[async_trait]
impl IdentitySource for Azure {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        let resource = self.resource.as_deref().unwrap_or(audience.as_str());
        let text = match (&self.host, &self.which) {
            // The SDK sends the resource id in a parameter that App Service does not know.
            (AzureHost::AppService { .. }, AssignedIdentity::Resource(_)) => self.asked(resource).await?,
            (AzureHost::AppService { .. } | AzureHost::VirtualMachine, _) => self.by_sdk(resource).await?,
            (AzureHost::Arc { endpoint }, _) => self.of_arc(endpoint, resource).await?,
            (AzureHost::ServiceFabric { .. } | AzureHost::MachineLearning { .. }, _) => self.asked(resource).await?,
        };
        let subject = SubjectToken::parse(text).map_err(|error| {
            malformed(format!("the token of {} is {error}", self.host.who()), asking::SOMETHING_ELSE)
        })?;
        named_as_wanted(&subject, audience)?;
        Ok(subject)
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(&SOURCE)
    }

    /// The host returns the same token until it nearly expires.
    fn mints_anew(&self) -> bool {
        false
    }
}

/// Checks `aud`. A version 2 token has the application id in `aud`. Only the tenant knows which id belongs to a URI, so the
/// configuration must state the id; it is never guessed from the answer.
fn named_as_wanted(subject: &SubjectToken, audience: &Audience) -> Result<(), Error> {
    let [only] = subject.claims.aud.as_slice() else { return Ok(()) };
    if audience.is_called(only) || !is_guid(only) || is_guid(audience.as_str()) {
        return Ok(());
    }
    let id = quoted_words(only);
    Err(Error::Misconfigured {
        what: format!(
            "azure: the application {:?} takes tokens of version 2, which name it by its id, {id:?}",
            audience.as_str()
        ),
        hint: format!(
            "write that id where the URI is now: `subject_audience = {id:?}`, or `scopes = [\"{id}/.default\"]` with \
            `exchange = \"entra\"`"
        ),
    })
}

fn is_guid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    lengths && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// Is it the chassis asset tag of all Azure virtual machines?
fn is_azures(dmi: &Dmi) -> bool {
    dmi.chassis.trim() == "7783-7084-3265-9085-8269-3286-77"
}

/// Is the answer from Azure's metadata service?
fn is_instance(answer: &Answer) -> bool {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(rename = "azEnvironment")]
        cloud: String,
    }
    answer.status == 200 && answer.json::<Wire>().is_ok_and(|wire| wire.cloud.starts_with("Azure"))
}

fn malformed(what: String, hint: &str) -> Error {
    Error::Malformed { source_name: SOURCE.name, what, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests;
