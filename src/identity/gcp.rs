//! `gcp`: the service account of a workload on Google Cloud, or of another platform with an `external_account` file.
//!
//! On Cloud Run (services, jobs, worker pools, functions) it is detected by `K_SERVICE` and `K_REVISION`, `CLOUD_RUN_JOB` or
//! `CLOUD_RUN_WORKER_POOL`, outside of a Kubernetes pod, where Knative sets the first two as well. The metadata server gives identity tokens for any audience.
//! GKE and Compute Engine set no variable, so configure the source, or set `probe = true`:
//!
//! ```toml
//! [identity]
//! source = "gcp"
//! ```
//!
//! A pod on GKE needs a Google service account for this (`iam.gke.io/gcp-service-account`); without one the metadata server
//! gives only access tokens. Then use a projected token as identity (`kubernetes.rs`).
//!
//! If there is no identity endpoint (Cloud Build), or for another account, the instance's own account impersonates
//! `service_account` to get an identity token (`generateIdToken`). It needs the role
//! roles/iam.serviceAccountOpenIdTokenCreator on that account:
//!
//! ```toml
//! [identity]
//! source          = "gcp"
//! service_account = "agent@project.iam.gserviceaccount.com"
//! impersonate     = true
//! delegates       = ["between@project.iam.gserviceaccount.com"]   # delegation chain, in order; omit: none
//! ```
//!
//! `GOOGLE_APPLICATION_CREDENTIALS`, or `credentials_file`, takes precedence. It must name an `external_account` file
//! (workload identity federation, `gcp/external_account.rs`); a service account key or a developer's login is refused. The
//! metadata server is at `metadata.google.internal`, or at `GCE_METADATA_HOST`, which must be a loopback or link-local address.
//!
//! Sources: Google Cloud, "Verifying the identity of instances"; Cloud Run, "Container runtime contract"; GKE, "About
//! Workload Identity Federation for GKE"; the client libraries' `GCE_METADATA_HOST`.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Ambient, Built, Defect, Descriptor, Error, Finding, Given, IdentitySource, Kind, Probe, Setting, Tier};
use crate::env::Env;
use crate::google::{self, Account, Failure, Google, Hosts};
use crate::oauth::Audience;
use crate::platform::{self, Pin, Platform};
use crate::token::SubjectToken;
use external_account::ExternalAccount;
use metadata::Metadata;

mod access_token;
mod external_account;
mod metadata;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "gcp",
    tier: Tier::Pod,
    about: "a workload on Google Cloud (Cloud Run, GKE, Compute Engine), or an `external_account` file",
    evidence: "`K_SERVICE` and `K_REVISION`, `CLOUD_RUN_JOB` or `CLOUD_RUN_WORKER_POOL`, outside of a pod; `GOOGLE_APPLICATION_CREDENTIALS`; else configuration",
    token: "any audience, minted anew each time (no `jti`); as another account with `impersonate`",
    settings: &[SERVICE_ACCOUNT, IMPERSONATE, DELEGATES, CREDENTIALS_FILE, SUBJECT_AUDIENCE],
    variables: &[external_account::VARIABLE, external_account::CERTIFICATES, metadata::HOST[0], metadata::HOST[1]],
    trust: &TRUST,
    detect,
    from_config,
    probe: Some(Probe {
        dmi: |dmi| dmi.product.starts_with("Google"),
        ask: metadata::ping,
        is_it: metadata::is_google,
        source: |ambient| Arc::new(Instance::own(Metadata::somewhere(ambient))),
    }),
};

/// The claims that a trust policy pins.
const TRUST: Platform = Platform {
    name: "gcp",
    note: "the number in `sub` is never used again",
    issues: |issuer| platform::is_below(issuer, "https://accounts.google.com"),
    pins: &[Pin::optional(&["email"], "the account's name, for people: the number in `sub` is what counts")],
    warnings: &[|_| Some("whoever can act as this service account is let in".to_owned())],
    ..Platform::PLAIN
};

const SERVICE_ACCOUNT: Setting =
    Setting::optional("service_account", Kind::Text, "The email of the service account. Omit: the instance's own.")
        .checked(account);
const IMPERSONATE: Setting = Setting::optional(
    "impersonate",
    Kind::Flag,
    "The instance's account has `service_account` give the identity token (`generateIdToken`).",
);
const DELEGATES: Setting =
    Setting::optional("delegates", Kind::Texts, "The service accounts between the two, in order.").checked(account);
const CREDENTIALS_FILE: Setting = Setting::optional(
    "credentials_file",
    Kind::Text,
    "An `external_account` file. Omit: GOOGLE_APPLICATION_CREDENTIALS, else the metadata server.",
);
const SUBJECT_AUDIENCE: Setting = Setting::optional(
    "subject_audience",
    Kind::Text,
    "The audience of the token that the file leads to, where its provider allows one of its own.",
);
fn account(text: &str) -> Result<(), String> {
    if google::is_account(text) { Ok(()) } else { Err("is no email of a service account".to_owned()) }
}

fn detect(ambient: &Ambient) -> Finding {
    if let Some(path) = ambient.env.get(external_account::VARIABLE) {
        let evidence = external_account::VARIABLE.to_owned();
        return match ExternalAccount::read(ambient, path.into(), None, false) {
            Ok(account) => {
                Finding::Usable { evidence: format!("{evidence} ({})", account.kind()), source: Arc::new(account) }
            }
            Err(defect) => Finding::Unusable { evidence, defect },
        };
    }
    let evidence = match on_cloud_run(&ambient.env) {
        Ok(Some(evidence)) => evidence,
        Ok(None) => {
            return Finding::Absent {
                looked_for: "K_SERVICE and K_REVISION, CLOUD_RUN_JOB or CLOUD_RUN_WORKER_POOL, outside of a pod; GOOGLE_APPLICATION_CREDENTIALS",
            };
        }
        Err(unusable) => return unusable,
    };
    let own = |metadata| Arc::new(Instance::own(metadata)) as Arc<dyn IdentitySource>;
    Finding::of(&evidence, &[], Metadata::from_env(ambient).map(own))
}

/// The variables of Cloud Run's container contract. `FUNCTION_TARGET` alone is no evidence: the functions framework sets it on
/// laptops too.
fn on_cloud_run(env: &Env) -> Result<Option<String>, Finding> {
    if in_a_pod(env) {
        return Ok(None);
    }
    let set = |name: &&str| env.get(name).is_some();
    let service: Vec<&str> = ["K_SERVICE", "K_REVISION"].into_iter().filter(set).collect();
    let alone = ["CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL"].into_iter().find(|name| set(name));
    match (service.as_slice(), alone) {
        ([_, _], _) => {
            let all = ["K_SERVICE", "K_REVISION", "FUNCTION_TARGET"].into_iter().filter(set);
            Ok(Some(all.collect::<Vec<_>>().join(", ")))
        }
        (_, Some(name)) => Ok(Some(name.to_owned())),
        ([], None) => Ok(None),
        ([one], None) | ([one, ..], None) => Err(Finding::Unusable {
            evidence: (*one).to_owned(),
            defect: Defect::new(
                "Cloud Run sets K_SERVICE and K_REVISION, and one of them is missing",
                "do not set or unset them yourself; elsewhere name the identity with `source` in [identity]",
            ),
        }),
    }
}

fn in_a_pod(env: &Env) -> bool {
    env.get("KUBERNETES_SERVICE_HOST").is_some()
}

fn from_config(given: &Given<'_>, ambient: &Ambient) -> Built {
    let service_account = given.text(&SERVICE_ACCOUNT).map(str::to_owned);
    let (impersonate, delegates) = (given.flag(&IMPERSONATE), given.texts(&DELEGATES));
    let subject_audience = given.text(&SUBJECT_AUDIENCE).map(str::to_owned);
    let named = given.path(&CREDENTIALS_FILE);
    let file = named.or_else(|| ambient.env.get(external_account::VARIABLE).map(PathBuf::from));
    let wants_account = service_account.is_some() || impersonate || !delegates.is_empty();
    match (file, service_account) {
        (Some(_), _) if wants_account => Err(Defect::new(
            "an external_account file names its own service account",
            "take `service_account`, `impersonate` and `delegates` out of [identity]; or, for the metadata server, \
                `credentials_file`, and unset GOOGLE_APPLICATION_CREDENTIALS",
        )),
        (Some(path), _) => Ok(Arc::new(ExternalAccount::read(ambient, path, subject_audience, true)?)),
        (None, _) if subject_audience.is_some() => Err(Defect::new(
            "`subject_audience` belongs to an external_account file",
            "name the file with `credentials_file`, or take `subject_audience` out of [identity]",
        )),
        (None, None) if wants_account => Err(Defect::new(
            "`impersonate` and `delegates` need `service_account`",
            "name the account that is to give the identity token: `service_account = \"EMAIL\"`",
        )),
        (None, Some(_)) if !delegates.is_empty() && !impersonate => {
            Err(Defect::new("`delegates` need `impersonate = true`", "set it, or take `delegates` out of [identity]"))
        }
        (None, service_account) => {
            let (metadata, hosts) = (Metadata::from_env(ambient)?, Hosts::default());
            Ok(Arc::new(Instance { metadata, service_account, impersonate, delegates, hosts }))
        }
    }
}

/// A workload with a metadata server.
struct Instance {
    metadata: Metadata,
    service_account: Option<String>,
    impersonate: bool,
    delegates: Vec<String>,
    hosts: Hosts,
}

impl Instance {
    /// The instance's own account.
    fn own(metadata: Metadata) -> Self {
        Self { metadata, service_account: None, impersonate: false, delegates: Vec::new(), hosts: Hosts::default() }
    }
}

#[async_trait]
impl IdentitySource for Instance {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        match self.service_account.as_deref() {
            Some(email) if self.impersonate => {
                let bearer = self.metadata.access_token().await?;
                let google = Google { outbound: self.metadata.outbound(), hosts: &self.hosts, certificate: None };
                let account = Account { email, delegates: &self.delegates };
                let token = google.id_token(&bearer, &account, audience.as_str()).await;
                token.map_err(|failure| failed(CREDENTIALS_API, failure))
            }
            account => self.metadata.identity_token(account, audience).await,
        }
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(&SOURCE)
    }

    fn mints_anew(&self) -> bool {
        true
    }
}

const STS: &str = "Google's Security Token Service";
const CREDENTIALS_API: &str = "Google's Service Account Credentials API";

fn failed(who: &str, failure: Failure) -> Error {
    let what = format!("{who} {}", failure.what());
    match failure {
        Failure::Busy { retry_after, .. } => Error::Busy { source_name: SOURCE.name, what, hint: None, retry_after },
        Failure::Outbound(error) if error.is_temporary() => {
            Error::Unreachable { source_name: SOURCE.name, what, hint: error.hint() }
        }
        Failure::Outbound(error) => malformed(what, &error.hint().unwrap_or_else(|| NOT_GOOGLE.to_owned())),
        Failure::Refused { cure, .. } => Error::Rejected {
            source_name: SOURCE.name,
            what,
            hint: cure.unwrap_or("the audit logs of the project (IAM and STS) say why").to_owned(),
        },
        Failure::Malformed(_) => malformed(what, NOT_GOOGLE),
    }
}

const NOT_GOOGLE: &str = "something answers in Google's place: a proxy, a captive page";

fn malformed(what: String, hint: &str) -> Error {
    Error::Malformed { source_name: SOURCE.name, what, hint: hint.to_owned() }
}
