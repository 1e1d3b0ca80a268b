//! Where the subject token comes from: one file a source, one row a source in [`SOURCES`].
//!
//! Detection is local: variables and files, never the network. Every row is asked what it finds, then one pure
//! function decides, from the narrowest tier to the widest. Nothing here falls through a failure to another
//! identity: that would be to act as somebody else.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::env::Env;
use crate::oauth::Audience;
use crate::outbound::{Certificate, Outbound};
use crate::token::SubjectToken;
use crate::trust::Platform;

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

/// Every source we know, narrowest tier first. Adding one: its file, its `mod` line, its row here.
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

/// How far our clock or the platform's may be wrong before a subject token counts as expired.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// A place that can attest this workload.
#[async_trait]
pub(crate) trait IdentitySource: Send + Sync {
    /// Fetches the workload's signed identity, made for `audience` where the platform lets us choose.
    /// A source does not cache, does not log tokens and does not know who asks.
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error>;

    /// Its row; `None` while it is the machine's and still to be looked for.
    fn row(&self) -> Option<&'static Descriptor>;

    /// The row's name.
    fn name(&self) -> &'static str {
        self.row().map_or("host", |row| row.name)
    }

    /// Can a new token, with a new `jti`, be had at any time?
    fn mints_anew(&self) -> bool;

    /// The workload's certificate with its key, where the platform issues one (X.509-SVIDs): for mutual TLS.
    async fn certificate(&self) -> Result<Option<Certificate>, Error> {
        Ok(None)
    }

    /// The credentials of the workload's role, where the platform is AWS: for requests that are signed with them.
    async fn aws_credentials(&self) -> Result<Option<crate::aws::Credentials>, Error> {
        Ok(None)
    }
}

/// What a source may touch. Tests build it from data.
#[derive(Clone)]
pub(crate) struct Ambient {
    /// Variables and files.
    pub env: Env,
    /// The network, under our limits.
    pub outbound: Outbound,
    /// Time.
    pub clock: Clock,
}

/// One row of the table of sources.
pub(crate) struct Descriptor {
    /// As written in `source = "…"`.
    pub name: &'static str,
    /// How narrow the identity is.
    pub tier: Tier,
    /// What it is, for people.
    pub about: &'static str,
    /// What speaks for it, for the table in the documentation.
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation is written by a test"))]
    pub evidence: &'static str,
    /// What its tokens are, for that table.
    #[cfg_attr(not(test), expect(dead_code, reason = "the documentation is written by a test"))]
    pub token: &'static str,
    /// The row's own keys in `[identity]`.
    pub settings: &'static [Setting],
    /// The variables that would let a process obtain this identity by itself: where to ask and with what, tokens and where
    /// they are, roles. Not those that only say where it runs. `*` at the end stands for any rest; a variable that a key
    /// names is not here.
    #[cfg_attr(not(test), expect(dead_code, reason = "nobody starts a program without them yet"))]
    pub variables: &'static [&'static str],
    /// The platform behind it, as whoever has to trust it must know it.
    pub trust: &'static Platform,
    /// Looks at variables and files only.
    pub detect: fn(&Ambient) -> Finding,
    /// Builds the source that the configuration names, with its keys.
    pub from_config: FromConfig,
    /// How the machine itself is found to be its, where the operator lets us look.
    pub probe: Option<Probe>,
}

/// A source that is ready to be asked, or why there is none.
pub(crate) type Built = Result<Arc<dyn IdentitySource>, Defect>;

/// Builds a source from its row's own keys.
pub(crate) type FromConfig = fn(&Given<'_>, &Ambient) -> Built;

/// From narrow to wide. The narrowest tier with a usable source wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// Only ever used when the configuration names it.
    Named,
    /// A job of a CI system.
    CiJob,
    /// A workload of a trust domain that has its own Workload API.
    WorkloadApi,
    /// A pod, a task, a function; or, only named or with the probe, the machine itself.
    Pod,
}

impl Tier {
    /// For people and JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::CiJob => "CI job",
            Self::WorkloadApi => "workload API",
            Self::Pod => "pod",
        }
    }
}

/// What a source sees of itself here.
pub(crate) enum Finding {
    /// Nothing speaks for it.
    Absent {
        /// What would have.
        looked_for: &'static str,
    },
    /// It is here and cannot be used: a hard stop.
    Unusable {
        /// What was seen, by name.
        evidence: String,
        /// What is missing.
        defect: Defect,
    },
    /// It is here.
    Usable {
        /// What was seen, by name.
        evidence: String,
        /// Ready to be asked.
        source: Arc<dyn IdentitySource>,
    },
}

impl Finding {
    /// What a row finds whose mark is here. `also` is what it needs beside the mark, and has if it is usable.
    fn of(mark: &str, also: &[&str], built: Built) -> Self {
        match built {
            Ok(source) => Self::Usable { evidence: [&[mark], also].concat().join(", "), source },
            Err(defect) => Self::Unusable { evidence: mark.to_owned(), defect },
        }
    }
}

/// One row with what it found.
pub(crate) struct Found {
    /// The row.
    pub row: &'static Descriptor,
    /// What it found.
    pub finding: Finding,
}

/// Which identity to use.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Choice {
    /// Find out, from variables and files alone.
    #[default]
    Detect,
    /// Find out; where nothing speaks for anything, the machine itself may be asked.
    Probe,
    /// This row, with its own keys.
    Named {
        /// The row's name.
        source: String,
        /// Its keys.
        settings: toml::Table,
    },
}

/// The identity in use and how it was found.
#[derive(Clone)]
pub(crate) struct Chosen {
    /// Ready to be asked.
    pub source: Arc<dyn IdentitySource>,
    /// What proved it.
    pub evidence: String,
}

impl Chosen {
    /// Is it the machine's own identity, which is still to be looked for?
    pub(crate) fn is_of_the_host(&self) -> bool {
        self.source.row().is_none()
    }
}

/// Asks every row what it finds. Local and quick.
pub(crate) fn survey(ambient: &Ambient) -> Vec<Found> {
    SOURCES.iter().map(|row| Found { row, finding: (row.detect)(ambient) }).collect()
}

/// Chooses the identity, by configuration or by detection.
pub(crate) fn choose(choice: &Choice, ambient: &Ambient) -> Result<Chosen, Error> {
    match choice {
        Choice::Detect => decide(&survey(ambient), Look::Here),
        Choice::Probe => decide(&survey(ambient), Look::AtTheHost(ambient)),
        Choice::Named { source, settings } => {
            let row = row(source).ok_or_else(|| Error::unknown_source(source))?;
            let given = setting::given(row, settings)?;
            let built = (row.from_config)(&given, ambient).map_err(|defect| defect.of(row.name))?;
            Ok(Chosen { source: built, evidence: "named by the configuration".to_owned() })
        }
    }
}

impl Choice {
    /// Is it known already that this identity is no JWT but a signed request of AWS?
    pub(crate) fn signs_requests(&self) -> bool {
        match self {
            Self::Named { source, settings } => source == aws::SOURCE.name && aws::signs_requests(settings),
            Self::Detect | Self::Probe => false,
        }
    }

    /// The source that is named, if one is.
    pub(crate) fn source(&self) -> Option<&str> {
        match self {
            Self::Named { source, .. } => Some(source),
            Self::Detect | Self::Probe => None,
        }
    }
}

/// The row of that name.
pub(crate) fn row(name: &str) -> Option<&'static Descriptor> {
    SOURCES.iter().find(|row| row.name == name)
}

/// The platform whose tokens these are: by their issuer where that is known everywhere, else by the row that fetched them.
pub(crate) fn platform(row: Option<&'static Descriptor>, issuer: &str) -> &'static Platform {
    let by_issuer = SOURCES.iter().map(|row| row.trust).find(|platform| (platform.issues)(issuer));
    by_issuer.or_else(|| row.map(|row| row.trust)).unwrap_or(&Platform::PLAIN)
}

/// How far we look.
enum Look<'a> {
    /// At variables and files.
    Here,
    /// At the machine as well, if those say nothing.
    AtTheHost(&'a Ambient),
}

/// The rule, tier by tier: an unusable one stops, two usable ones are an error, one wins, none looks further.
fn decide(found: &[Found], look: Look<'_>) -> Result<Chosen, Error> {
    let mut tiers: Vec<Tier> = found.iter().map(|one| one.row.tier).collect();
    tiers.sort();
    tiers.dedup();
    for tier in tiers {
        let mut usable: Vec<(&'static str, Chosen)> = Vec::new();
        for one in found.iter().filter(|one| one.row.tier == tier) {
            match &one.finding {
                Finding::Absent { .. } => {}
                Finding::Unusable { evidence, defect } => {
                    return Err(defect.in_spite_of(one.row.name, evidence));
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
