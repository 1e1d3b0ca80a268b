//! `kubernetes`: the service-account token of a pod, projected into a file or requested from the API server.
//!
//! Projected: the pod's spec requests a token for the authorization server, and the kubelet renews it:
//!
//! ```yaml
//! volumes:
//!   - name: mcp-token
//!     projected:
//!       sources:
//!         - serviceAccountToken:
//!             path: mcp
//!             audience: https://login.example.com/tenant1   # the authorization server's issuer, exactly
//!             expirationSeconds: 3600
//! ```
//!
//! ```toml
//! [identity]
//! source     = "kubernetes"
//! token_file = "/var/run/secrets/tokens/mcp"
//! ```
//!
//! Mount the whole volume: a `subPath` mount is never updated. For any audience, and a new `jti` each time, set
//! `token_request = true` instead of `token_file` (`kubernetes/token_request.rs`).
//!
//! Every pod has a default token for the cluster's API server, which grants the pod's rights there. It is never sent anywhere
//! else, under whatever path it is configured. So nothing is detected in a pod without configuration.
//!
//! Source: Kubernetes documentation, "Projected Volumes" and "Configure Service Accounts for Pods".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::file::File;
use super::{Ambient, Built, Descriptor, Error, Finding, Given, IdentitySource, Kind, Setting, Tier};
use crate::oauth::Audience;
use crate::platform::{Pin, Platform};
use crate::token::{Digest, SubjectToken};
use token_request::TokenRequest;

mod token_request;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "kubernetes",
    tier: Tier::Pod,
    about: "a pod with a projected service-account token, or that may request one",
    evidence: "configuration: `token_file`, or `token_request = true`; the pod's own token goes to the API server only",
    token: "fixed audience, read again at each exchange; any audience, minted anew each time",
    settings: &[TOKEN_FILE, TOKEN_REQUEST],
    // The tokens are files, and the address of the API server is no secret.
    variables: &[],
    trust: &TRUST,
    detect: |_| Finding::Absent {
        looked_for: "`source = \"kubernetes\"` with the `token_file` of a projected volume, or `token_request = true`",
    },
    from_config,
    probe: None,
};

/// The claims that a trust policy pins.
pub(super) const TRUST: Platform = Platform {
    name: "kubernetes",
    note: "also AKS, EKS and GKE pods with their own token",
    pins: &[Pin::optional(&["kubernetes.io", "namespace"], "the namespace, whatever `sub` is mapped to")],
    stable_subject: |sub| sub.starts_with("system:serviceaccount:").then_some(sub),
    warnings: &[|_| Some("whoever may create pods in this namespace can be this service account".to_owned())],
    ..Platform::PLAIN
};

const TOKEN_FILE: Setting = Setting::one_of(
    "token_file",
    Kind::Text,
    "Path of the file in a projected `serviceAccountToken` volume; read again at each exchange.",
);
const TOKEN_REQUEST: Setting =
    Setting::one_of("token_request", Kind::Flag, "Ask the API server for a token, for any audience (needs RBAC).");

/// The pod's default token, which is for the API server.
const FOR_THE_API_SERVER: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const CAP: u64 = 64 * 1024;

/// A projected token, read for one source.
pub(super) struct Projected {
    row: &'static Descriptor,
    file: File,
    ambient: Ambient,
}

fn from_config(given: &Given<'_>, ambient: &Ambient) -> Built {
    match given.path(&TOKEN_FILE) {
        Some(path) => Ok(Arc::new(Projected::new(&SOURCE, path, ambient))),
        // The configuration check requires exactly one of the two.
        None => Ok(Arc::new(TokenRequest::new(ambient)?)),
    }
}

impl Projected {
    pub(super) fn new(row: &'static Descriptor, path: PathBuf, ambient: &Ambient) -> Self {
        Self { row, file: File::new(row, path, ambient), ambient: ambient.clone() }
    }
}

#[async_trait]
impl IdentitySource for Projected {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        let subject = self.file.subject_token(audience).await?;
        // Compare the content, because a link, a copy or another spelling of the path has the same token.
        let default = self.ambient.env.read(Path::new(FOR_THE_API_SERVER), CAP).ok();
        let same = |token: &[u8]| Digest::of(token.trim_ascii()) == Digest::of(subject.expose().as_bytes());
        if default.is_some_and(|token| same(&token)) {
            return Err(Error::Misconfigured {
                what: format!("{}: the file is the pod's token for the API server, which is never sent out", self.row.name),
                hint: "mount a projected `serviceAccountToken` volume whose `audience` is the authorization server's issuer, \
                    and name its file"
                    .to_owned(),
            });
        }
        Ok(subject)
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(self.row)
    }

    fn mints_anew(&self) -> bool {
        false
    }
}
