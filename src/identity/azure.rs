//! `azure`: the managed identity of an Azure workload.
//!
//! Detected by what the platform sets: `IDENTITY_ENDPOINT` with `IDENTITY_HEADER` (App Service, Functions, Container Apps; with
//! `IDENTITY_SERVER_THUMBPRINT` a Service Fabric application), with `IMDS_ENDPOINT` (a machine connected by Azure Arc), or
//! `MSI_ENDPOINT` with `MSI_SECRET` (Azure Machine Learning). A virtual machine, scale set or AKS node has no such variable,
//! and everything on it is the same workload. There, and for an Arc agent without its variables, the source is named:
//!
//! ```toml
//! [identity]
//! source    = "azure"
//! client_id = "…"      # the user-assigned identity; or object_id, or resource_id; none: the system-assigned one
//! ```
//!
//! The token is an Entra access token, and Entra makes it only for an application that is registered in the tenant: an
//! authorization server that is to take it as an identity is registered as one, and `subject_audience` is its identifier
//! URI (`api://…`), which must be the token's `aud` exactly. Where the application takes tokens of version 2, their `aud` is its
//! id in place of the URI: then that id is what is configured, and asked for (the endpoints take it like a URI, as users of
//! them report). Where it has to be asked for by the URI all the same, `resource` beside `source` says so; it changes nothing
//! in what `aud` must be. Only the token exchange of the public cloud (`api://AzureADTokenExchange`), whose id is known, goes by
//! either name.
//!
//! The host keeps a token for up to a day and gives the same one again; one that was refused somewhere is not presented there
//! again, so after the trust is mended the daemon is restarted. A Cloud Shell has a person's login and is refused.
//! `AZURE_CLIENT_ID` is not read: it belongs to the SDKs' default chains.
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
use crate::token::SubjectToken;
use crate::trust::{Pin, Platform};

mod arc;
mod asking;
mod sdk;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "azure",
    tier: Tier::Pod,
    about: "a managed identity: App Service, Functions, Container Apps, Service Fabric, Azure ML, Arc; named: a virtual machine",
    evidence: "`IDENTITY_ENDPOINT` or `MSI_ENDPOINT` with what belongs to them; else configuration",
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
            let (host, which, resource) = (Place::VirtualMachine, Which::SystemAssigned, None);
            Arc::new(Azure { host, which, resource, ambient: ambient.clone() })
        },
    }),
};

/// What a trust policy pins of its tokens.
const TRUST: Platform = Platform {
    name: "azure",
    pins: &[
        Pin::needed(&["tid"], "the directory, by its number"),
        Pin::needed(&["oid"], "the identity, by its number"),
        Pin::if_there(&["idtyp"], "an application, not a person"),
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
const IMDS: &str = "IMDS_ENDPOINT";
const MSI_ENDPOINT: &str = "MSI_ENDPOINT";
const MSI_SECRET: &str = "MSI_SECRET";
/// What Azure Machine Learning takes for its system-assigned identity.
const MSI_DEFAULT: &str = "DEFAULT_IDENTITY_CLIENT_ID";

/// Set by the platform: a wrong value means that somebody else set it.
const NOT_YOURS: &str = "it is set by the platform: do not set it yourself";

#[derive(Clone)]
struct Azure {
    host: Place,
    which: Which,
    resource: Option<String>,
    ambient: Ambient,
}

/// Where we run, with what its endpoint wants.
#[derive(Clone)]
enum Place {
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
    /// Also scale sets and AKS nodes.
    VirtualMachine,
}

/// Which of the identities that are assigned to the workload.
#[derive(Clone)]
enum Which {
    SystemAssigned,
    Client(String),
    Object(String),
    Resource(String),
}

/// What is there and cannot be used.
struct Half {
    evidence: &'static str,
    defect: Defect,
}

fn detect(ambient: &Ambient) -> Finding {
    match place(&ambient.env) {
        Ok(None) => Finding::Absent {
            looked_for: "IDENTITY_ENDPOINT or MSI_ENDPOINT (a virtual machine is named: `source = \"azure\"`)",
        },
        Ok(Some(host)) => {
            let evidence = host.evidence().to_owned();
            let (which, resource) = (Which::SystemAssigned, None);
            let source = Arc::new(Azure { host, which, resource, ambient: ambient.clone() });
            Finding::Usable { evidence, source }
        }
        Err(Half { evidence, defect }) => Finding::Unusable { evidence: evidence.to_owned(), defect },
    }
}

fn from_config(given: &Given<'_>, ambient: &Ambient) -> Built {
    // At most one of the three is given.
    let client = given.text(&CLIENT_ID).map(|id| Which::Client(id.to_owned()));
    let object = given.text(&OBJECT_ID).map(|id| Which::Object(id.to_owned()));
    let resource = given.text(&RESOURCE_ID).map(|id| Which::Resource(id.to_owned()));
    let which = client.or(object).or(resource).unwrap_or(Which::SystemAssigned);
    let host = match place(&ambient.env) {
        Ok(Some(host)) => host,
        Ok(None) if ambient.env.metadata(Path::new(arc::AGENT)).is_ok() => Place::Arc { endpoint: arc::endpoint() },
        Ok(None) => {
            asking::metadata_service(&ambient.env)?;
            Place::VirtualMachine
        }
        Err(Half { evidence, defect }) => return Err(Defect::new(format!("{evidence}: {}", defect.what), defect.cure)),
    };
    host.takes(&which).map_err(|what| Defect::new(what, "take it out of [identity]"))?;
    let resource = given.text(&RESOURCE).map(str::to_owned);
    Ok(Arc::new(Azure { host, which, resource, ambient: ambient.clone() }))
}

/// Where the variables say that we are. Nothing is asked.
fn place(env: &Env) -> Result<Option<Place>, Half> {
    let is = |name: &str| env.get(name).is_some();
    if is(ENDPOINT) || is(HEADER) || is(THUMBPRINT) {
        return match (is(ENDPOINT), is(HEADER), is(THUMBPRINT), is(IMDS)) {
            (true, true, true, _) => service_fabric(env).map(Some),
            (true, true, false, _) => {
                let (endpoint, header) = (url(env, ENDPOINT)?, secret(env, HEADER, ENDPOINT)?);
                Ok(Some(Place::AppService { endpoint, header }))
            }
            (true, false, false, true) => Ok(Some(Place::Arc { endpoint: arc::checked(url(env, ENDPOINT)?)? })),
            (true, ..) => Err(Half::of(ENDPOINT, "IDENTITY_HEADER is not set")),
            (false, true, ..) => Err(Half::of(HEADER, "IDENTITY_ENDPOINT is not set")),
            (false, ..) => Err(Half::of(THUMBPRINT, "IDENTITY_ENDPOINT and IDENTITY_HEADER are not set")),
        };
    }
    match (is(MSI_ENDPOINT), is(MSI_SECRET)) {
        (false, false) => Ok(None),
        (true, true) => {
            let (endpoint, secret) = (url(env, MSI_ENDPOINT)?, secret(env, MSI_SECRET, MSI_ENDPOINT)?);
            let default = env.get(MSI_DEFAULT).map(str::to_owned);
            Ok(Some(Place::MachineLearning { endpoint, secret, default }))
        }
        (true, false) => Err(Half {
            evidence: MSI_ENDPOINT,
            defect: Defect::new(
                "MSI_SECRET is not set: this is a Cloud Shell, and its login is a person's",
                "run it as a workload, or name another source with `source` in [identity]",
            ),
        }),
        (false, true) => Err(Half::of(MSI_SECRET, "MSI_ENDPOINT is not set")),
    }
}

fn service_fabric(env: &Env) -> Result<Place, Half> {
    let thumbprint = env.get(THUMBPRINT).and_then(Thumbprint::parse);
    let thumbprint = thumbprint.ok_or_else(|| Half {
        evidence: THUMBPRINT,
        defect: Defect::new("it is no SHA-1 thumbprint (40 hexadecimal digits)", NOT_YOURS),
    })?;
    let endpoint = url(env, ENDPOINT)?;
    if endpoint.scheme() != "https" {
        return Err(Half::of(ENDPOINT, "it is no https URL, and with IDENTITY_SERVER_THUMBPRINT it has to be"));
    }
    Ok(Place::ServiceFabric { endpoint, header: secret(env, HEADER, ENDPOINT)?, thumbprint })
}

fn url(env: &Env, name: &'static str) -> Result<Url, Half> {
    let parsed = env.get(name).and_then(|text| Url::parse(text).ok());
    let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.query().is_none();
    parsed.filter(is_http).ok_or_else(|| Half::of(name, "it is not the URL of an endpoint"))
}

/// The secret, if it can be the value of a header.
fn secret(env: &Env, name: &'static str, evidence: &'static str) -> Result<SecretString, Half> {
    let secret = env.secret(name).filter(|secret| asking::header(secret).is_some());
    secret.ok_or_else(|| Half::of(evidence, &format!("{name} cannot be a header value")))
}

impl Half {
    fn of(evidence: &'static str, why: &str) -> Self {
        let cure = format!(
            "the platform sets {ENDPOINT} and what belongs to it together: switch the managed identity on, pass all of \
            them on to this process, and set none yourself; or name another source with `source` in [identity]"
        );
        Self { evidence, defect: Defect::new(why, cure) }
    }
}

impl Place {
    fn evidence(&self) -> &'static str {
        match self {
            Self::AppService { .. } => "IDENTITY_ENDPOINT, IDENTITY_HEADER",
            Self::ServiceFabric { .. } => "IDENTITY_ENDPOINT, IDENTITY_HEADER, IDENTITY_SERVER_THUMBPRINT",
            Self::Arc { .. } => "IDENTITY_ENDPOINT, IMDS_ENDPOINT",
            Self::MachineLearning { .. } => "MSI_ENDPOINT, MSI_SECRET",
            Self::VirtualMachine => "the metadata service",
        }
    }

    /// Whose endpoint it is, for people.
    fn who(&self) -> &'static str {
        match self {
            Self::AppService { .. } => "the identity endpoint",
            Self::ServiceFabric { .. } => "the identity endpoint of Service Fabric",
            Self::Arc { .. } => "the Arc agent",
            Self::MachineLearning { .. } => "the identity endpoint of Azure ML",
            Self::VirtualMachine => "the metadata service",
        }
    }

    /// Can it be told which identity is meant?
    fn takes(&self, which: &Which) -> Result<(), &'static str> {
        match (self, which) {
            (_, Which::SystemAssigned) | (Self::MachineLearning { .. }, Which::Client(_)) => Ok(()),
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
            // The SDK sends a resource id to App Service under a name that App Service does not know.
            (Place::AppService { .. }, Which::Resource(_)) => self.asked(resource).await?,
            (Place::AppService { .. } | Place::VirtualMachine, _) => self.by_sdk(resource).await?,
            (Place::Arc { endpoint }, _) => self.of_arc(endpoint, resource).await?,
            (Place::ServiceFabric { .. } | Place::MachineLearning { .. }, _) => self.asked(resource).await?,
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

    /// The host gives the token that it has until that is nearly over.
    fn mints_anew(&self) -> bool {
        false
    }
}

/// A token of version 2 names its application by id. Which id belongs to which URI only the tenant knows, so the one that was
/// wanted must be written down; nothing is guessed from the answer.
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

/// The asset tag that Azure gives the chassis of all its virtual machines.
fn is_azures(dmi: &Dmi) -> bool {
    dmi.chassis.trim() == "7783-7084-3265-9085-8269-3286-77"
}

/// Only Azure's metadata names its cloud so.
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
