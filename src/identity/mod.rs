//! The identity sources: where the subject token comes from. One file per source, and one row per source in
//! [`SOURCES`].
//!
//! Detection is local: it reads variables and files and never uses the network. Every source reports what it finds;
//! then [`decide`] chooses, from the narrowest tier to the widest. A source that fails is never replaced by another
//! one, because that would be another identity.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::env::Env;
use crate::oauth::Audience;
use crate::outbound::{Certificate, Outbound};
use crate::platform::Platform;
use crate::token::SubjectToken;

mod aws;
mod azure;
mod azure_pipelines;
mod azure_workload_identity;
mod buildkite;
mod ci_env;
mod circleci;
mod command;
mod defect;
mod endpoint;
mod env_var;
mod error;
mod file;
mod fly;
mod gcp;
mod github_actions;
mod gitlab_ci;
mod jenkins;
mod kubernetes;
mod nomad;
mod probe;
mod program;
mod setting;
mod spiffe;
mod vercel;

use crate::setting::{Given, Kind, Setting};
pub(crate) use defect::Defect;
pub(crate) use error::Error;
pub(crate) use probe::{Dmi, Probe, look_at_the_host};
pub(crate) use setting::problems;

/// All sources, narrowest tier first. To add one, add its file, its `mod` line and its row here.
pub(crate) const SOURCES: &[Descriptor] = &[
    file::SOURCE,
    env_var::SOURCE,
    command::SOURCE,
    github_actions::SOURCE,
    gitlab_ci::SOURCE,
    buildkite::SOURCE,
    ci_env::BITBUCKET,
    circleci::SOURCE,
    azure_pipelines::SOURCE,
    jenkins::SOURCE,
    ci_env::HCP_TERRAFORM,
    ci_env::SPACELIFT,
    ci_env::SEMAPHORE,
    ci_env::ENV0,
    spiffe::SOURCE,
    kubernetes::SOURCE,
    gcp::SOURCE,
    azure::SOURCE,
    azure_workload_identity::SOURCE,
    aws::SOURCE,
    nomad::SOURCE,
    fly::SOURCE,
    vercel::SOURCE,
    ci_env::MODAL,
];

/// How much our clock and the platform's may differ when a subject token's expiry is checked. For so long after `exp` by our clock the
/// authorization server decides; after that the token is refused here.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// A source of this workload's identity.
#[async_trait]
pub(crate) trait IdentitySource: Send + Sync {
    /// Fetches a subject token, made for `audience` if the platform lets us choose.
    ///
    /// A source does not cache, does not log tokens, and does not know the caller.
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error>;

    /// Its row; `None` for the host's identity until the probe has determined the platform.
    fn row(&self) -> Option<&'static Descriptor>;

    /// The name of its row, or `host`.
    fn name(&self) -> &'static str {
        self.row().map_or("host", |row| row.name)
    }

    /// Does each call return a new token with a new `jti`?
    fn mints_anew(&self) -> bool;

    /// May it give the same token again for a while, although it makes one for any audience?
    fn repeats(&self) -> bool {
        false
    }

    /// The workload's certificate and key for mutual TLS, if the platform issues them (X.509-SVIDs).
    async fn certificate(&self) -> Result<Option<Certificate>, Error> {
        Ok(None)
    }

    /// The credentials of the workload's role, which sign requests, if the platform is AWS.
    async fn aws_credentials(&self) -> Result<Option<crate::aws::Credentials>, Error> {
        Ok(None)
    }
}

/// Everything that a source may access. Tests build it from data.
#[derive(Clone)]
pub(crate) struct Ambient {
    /// Access to environment variables and files.
    pub env: Env,
    /// The HTTP client, with our limits.
    pub outbound: Outbound,
    /// The clock.
    pub clock: Clock,
}

/// One row of [`SOURCES`].
pub(crate) struct Descriptor {
    /// As written in `source = "…"`.
    pub name: &'static str,
    /// How narrow the identity is.
    pub tier: Tier,
    /// A short description for users.
    pub about: &'static str,
    /// What its detection looks for, for the table in the documentation.
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation is written by a test"))]
    pub evidence: &'static str,
    /// The form of its tokens, for the same table.
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation is written by a test"))]
    pub token: &'static str,
    /// Its own keys in `[identity]`.
    pub settings: &'static [Setting],
    /// The environment variables with which a process could get this identity by itself: endpoints, credentials,
    /// tokens, token files, roles. Variables that only say where the process runs are not included, nor are those that
    /// a key names. A `*` at the end matches any suffix.
    pub variables: &'static [&'static str],
    /// The platform: what an authorization server must know to trust its tokens.
    pub trust: &'static Platform,
    /// Detects the source. Reads only variables and files.
    pub detect: fn(&Ambient) -> Finding,
    /// Builds the source from the keys in the configuration.
    pub from_config: FromConfig,
    /// Recognises the host as a machine of this platform. Used only if the operator allows it (`probe = true`).
    pub probe: Option<Probe>,
}

/// A source that is ready to use, or why it cannot be built.
pub(crate) type Built = Result<Arc<dyn IdentitySource>, Defect>;

/// Builds a source from its row's own keys.
pub(crate) type FromConfig = fn(&Given<'_>, &Ambient) -> Built;

/// How specific an identity is, from narrow to wide. The narrowest tier with a usable source wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// Used only if the configuration names it.
    Named,
    /// A job of a CI system.
    CiJob,
    /// A workload of a trust domain with a Workload API.
    WorkloadApi,
    /// A pod, a task or a function. Also the host itself, if it is named or probed.
    Pod,
}

impl Tier {
    /// The name in messages and JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::CiJob => "CI job",
            Self::WorkloadApi => "workload API",
            Self::Pod => "pod",
        }
    }
}

/// What the detection of a source found.
pub(crate) enum Finding {
    /// No sign of this source.
    Absent {
        /// What the detection looked for.
        looked_for: &'static str,
    },
    /// The source is present but cannot be used. Detection fails.
    Unusable {
        /// The names of the variables or files that were found.
        evidence: String,
        /// Why it cannot be used.
        defect: Defect,
    },
    /// The source can be used.
    Usable {
        /// The names of the variables or files that were found.
        evidence: String,
        /// The source, ready to use.
        source: Arc<dyn IdentitySource>,
    },
}

impl Finding {
    /// The finding for a source whose `mark` is present. `also` names what else it needs, and has if it is usable.
    fn of(mark: &str, also: &[&str], built: Built) -> Self {
        match built {
            Ok(source) => Self::Usable { evidence: [&[mark], also].concat().join(", "), source },
            Err(defect) => Self::Unusable { evidence: mark.to_owned(), defect },
        }
    }
}

/// A row with its finding.
pub(crate) struct Found {
    /// The row.
    pub row: &'static Descriptor,
    pub finding: Finding,
}

/// How the identity is chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Choice {
    /// Detect it from variables and files.
    #[default]
    Detect,
    /// Detect it; if no source is present, use the host's own identity.
    Probe,
    /// Use this source with these keys.
    Named {
        /// The name of the source.
        source: String,
        /// The values of its own keys.
        settings: toml::Table,
    },
}

/// The chosen identity source and why it was chosen.
#[derive(Clone)]
pub(crate) struct Chosen {
    /// The source, ready to use.
    pub source: Arc<dyn IdentitySource>,
    /// The names of the variables or files that were found, or who named the source.
    pub evidence: String,
}

impl Chosen {
    /// Is it the host's identity, whose platform is not determined yet?
    pub(crate) fn is_of_the_host(&self) -> bool {
        self.source.row().is_none()
    }
}

/// Runs the detection of every source. Local and fast.
pub(crate) fn survey(ambient: &Ambient) -> Vec<Found> {
    SOURCES.iter().map(|row| Found { row, finding: (row.detect)(ambient) }).collect()
}

/// Chooses the identity by configuration or by detection.
///
/// Fails if the source is unknown or cannot be built, or if detection finds no source or more than one.
pub(crate) fn choose(choice: &Choice, ambient: &Ambient) -> Result<Chosen, Error> {
    match choice {
        Choice::Detect => decide(&survey(ambient), Look::Here),
        Choice::Probe => decide(&survey(ambient), Look::AtTheHost(ambient)),
        Choice::Named { source, settings } => {
            let row = row(source).ok_or_else(|| Error::unknown_source(source))?;
            let given = setting::given(row, settings)?;
            let built = (row.from_config)(&given, ambient).map_err(|defect| defect.of(row.name))?;
            Ok(Chosen { source: built, evidence: "named by configuration or flag".to_owned() })
        }
    }
}

impl Choice {
    /// Is this known to produce a signed AWS request instead of a JWT?
    pub(crate) fn signs_requests(&self) -> bool {
        match self {
            Self::Named { source, settings } => source == aws::SOURCE.name && aws::signs_requests(settings),
            Self::Detect | Self::Probe => false,
        }
    }

    /// The variables that hold its token by the configuration's word.
    pub(crate) fn token_variables(&self) -> impl Iterator<Item = &str> {
        let settings = match self {
            Self::Named { settings, .. } => Some(settings),
            Self::Detect | Self::Probe => None,
        };
        settings.and_then(|settings| settings.get("token_env")?.as_str()).into_iter()
    }

    /// The name of the source, if one is named.
    pub(crate) fn source(&self) -> Option<&str> {
        match self {
            Self::Named { source, .. } => Some(source),
            Self::Detect | Self::Probe => None,
        }
    }
}

/// Finds the row with this name.
pub(crate) fn row(name: &str) -> Option<&'static Descriptor> {
    SOURCES.iter().find(|row| row.name == name)
}

/// The platform of a token: by its issuer if that issuer is well known, else by the source that fetched it.
pub(crate) fn platform(row: Option<&'static Descriptor>, issuer: &str) -> &'static Platform {
    let by_issuer = SOURCES.iter().map(|row| row.trust).find(|platform| (platform.issues)(issuer));
    by_issuer.or_else(|| row.map(|row| row.trust)).unwrap_or(&Platform::PLAIN)
}

/// What to use if detection finds nothing.
enum Look<'a> {
    /// Nothing: detection fails.
    Here,
    /// The identity of the host.
    AtTheHost(&'a Ambient),
}

/// Chooses from the findings, tier by tier. An unusable source or several usable ones are an error. A single usable
/// source wins, and an empty tier leads to the next one.
fn decide(found: &[Found], look: Look<'_>) -> Result<Chosen, Error> {
    let mut tiers: Vec<Tier> = found.iter().map(|one| one.row.tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    for tier in tiers {
        let mut usable: Vec<(&'static str, Chosen)> = Vec::new();
        for one in found.iter().filter(|one| one.row.tier == tier) {
            match &one.finding {
                Finding::Absent { .. } => {}
                Finding::Unusable { evidence, defect } => {
                    let is_usable =
                        |other: &&Found| other.row.tier == tier && matches!(other.finding, Finding::Usable { .. });
                    let other = found.iter().find(is_usable).map(|other| other.row.name);
                    if other.is_some() && defect.is_of_a_bystander {
                        continue;
                    }
                    return Err(defect.in_spite_of(one.row.name, evidence, other));
                }
                Finding::Usable { evidence, source } => {
                    usable.push((one.row.name, Chosen { source: Arc::clone(source), evidence: evidence.clone() }));
                }
            }
        }
        if usable.len() > 1 {
            return Err(Error::ambiguous(&usable.iter().map(|(name, _)| *name).collect::<Vec<_>>()));
        }
        if let Some((_, chosen)) = usable.pop() {
            return Ok(chosen);
        }
    }
    if let Look::AtTheHost(ambient) = look {
        let source = Arc::new(probe::Host::new(ambient.clone()));
        return Ok(Chosen { source, evidence: "`probe = true`, and nothing narrower is here".to_owned() });
    }
    Err(Error::nothing_here(found.len()))
}

#[cfg(test)]
mod tests;
