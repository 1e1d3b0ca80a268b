//! `kubernetes`: the projected service-account token of a pod.
//!
//! The pod asks for a token made for the authorization server, and the kubelet keeps it fresh:
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
//! Mount the volume whole: a `subPath` mount never sees a rotated token. The token that every pod has without asking is
//! made for the cluster's API server, and whoever gets it has the pod's rights there: it is never sent out, under
//! whatever path it is named. So nothing is detected in a pod without configuration.
//!
//! Source: Kubernetes documentation, "Projected Volumes" and "Configure Service Accounts for Pods".

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Ambient, Descriptor, Error, Finding, IdentitySource, Tier, file};
use crate::oauth::Audience;
use crate::token::{Digest, SubjectToken};

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "kubernetes",
    tier: Tier::Pod,
    about: "a pod with a projected service-account token",
    settings: file::SOURCE.settings,
    detect: |_| Finding::Absent { looked_for: "`source = \"kubernetes\"` with the `token_file` of a projected volume" },
    from_config,
};

/// The token for the API server. Larger than any that was seen.
const FOR_THE_API_SERVER: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const CAP: u64 = 64 * 1024;

struct Projected {
    file: Arc<dyn IdentitySource>,
    ambient: Ambient,
}

fn from_config(table: &toml::Table, ambient: &Ambient) -> Result<Arc<dyn IdentitySource>, Error> {
    let file = (file::SOURCE.from_config)(table, ambient)?;
    Ok(Arc::new(Projected { file, ambient: ambient.clone() }))
}

#[async_trait]
impl IdentitySource for Projected {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        let subject = self.file.subject_token(audience).await?;
        // By content: a link, a copy or another spelling of the path is the same token.
        let default = self.ambient.env.read(Path::new(FOR_THE_API_SERVER), CAP).ok();
        let same = |token: &[u8]| Digest::of(token.trim_ascii()) == Digest::of(subject.expose().as_bytes());
        if default.is_some_and(|token| same(&token)) {
            return Err(Error::Misconfigured {
                what: "kubernetes: `token_file` is the pod's token for the API server, which is never sent out".to_owned(),
                hint: "mount a projected `serviceAccountToken` volume whose `audience` is the authorization server's issuer, \
                    and name its file"
                    .to_owned(),
            });
        }
        Ok(subject)
    }

    fn name(&self) -> &'static str {
        SOURCE.name
    }

    fn mints_anew(&self) -> bool {
        false
    }
}
