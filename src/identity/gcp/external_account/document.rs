//! The JSON of an `external_account` file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{CREATE, x509};
use crate::identity::Defect;
use crate::oauth::quoted_words;
use crate::token;

pub(super) const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

/// The file's content. It has no `Debug`, because a file that we refuse may hold a secret.
#[derive(Deserialize)]
pub(super) struct Document {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) subject_token_type: Option<String>,
    pub(super) token_url: Option<String>,
    pub(super) service_account_impersonation_url: Option<String>,
    pub(super) credential_source: Option<SourceKeys>,
    pub(super) universe_domain: Option<String>,
    pub(super) client_secret: Option<IgnoredAny>,
    pub(super) workforce_pool_user_project: Option<IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct SourceKeys {
    pub(super) file: Option<PathBuf>,
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, SecretString>,
    pub(super) executable: Option<ExecutableKeys>,
    pub(super) environment_id: Option<String>,
    pub(super) regional_cred_verification_url: Option<String>,
    pub(super) certificate: Option<x509::CertificateKeys>,
    pub(super) format: Option<FormatKeys>,
}

#[derive(Deserialize)]
pub(super) struct ExecutableKeys {
    pub(super) command: String,
    pub(super) timeout_millis: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct FormatKeys {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) subject_token_field_name: Option<String>,
}

/// Checks `type`: files that hold a secret are refused.
pub(super) fn of_kind(kind: &str) -> Result<(), Defect> {
    let (what, cure) = match kind {
        "external_account" => return Ok(()),
        "service_account" => (
            "it is a key of a service account, a stored secret that does not end",
            "unset GOOGLE_APPLICATION_CREDENTIALS where the platform has an identity of its own; elsewhere use workload \
                identity federation (an `external_account` file), and delete the key",
        ),
        "authorized_user" | "external_account_authorized_user" | "gdch_service_account" => (
            "it is a person's login or a stored credential, and a workload never acts as a person",
            "unset GOOGLE_APPLICATION_CREDENTIALS; on a laptop give a JWT with `--identity-file FILE`",
        ),
        "impersonated_service_account" => (
            "it has a person's login or a key act as a service account",
            "use an `external_account` file, or on Google Cloud `service_account` with `impersonate = true`",
        ),
        _ => ("it is no credential configuration that is known", CREATE),
    };
    Err(Defect::new(what, cure))
}

pub(super) fn for_people() -> Defect {
    Defect::new(
        "it is of a workforce pool, which is for people",
        "use a workload identity pool: `gcloud iam workload-identity-pools create-cred-config …`",
    )
}

pub(super) fn lacks(key: &str) -> Defect {
    Defect::new(format!("it lacks `{key}`"), CREATE)
}

pub(super) fn provider_of(text: &str) -> Result<String, Defect> {
    if text.contains("/workforcePools/") {
        return Err(for_people());
    }
    let parts: Vec<&str> = text.strip_prefix("//iam.googleapis.com/").unwrap_or_default().split('/').collect();
    let named = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    match parts.as_slice() {
        ["projects", project, "locations", location, "workloadIdentityPools", pool, "providers", provider]
            if [project, location, pool, provider].into_iter().all(named) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(Defect::new("its `audience` is no workload identity provider's full name", CREATE)),
    }
}

pub(super) fn subject_type_of(text: &str) -> Result<&'static str, Defect> {
    let known = [token::JWT, ID_TOKEN, token::AWS_REQUEST, x509::TYPE];
    known.into_iter().find(|known| *known == text).ok_or_else(|| {
        Defect::new(
            format!("its `subject_token_type` is not known ({:?})", quoted_words(text)),
            "use a provider of OpenID Connect, AWS or X.509 in the pool; SAML is not spoken",
        )
    })
}
