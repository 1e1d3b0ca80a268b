//! Why there is no subject token, one variant per remedy.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::env::is_busy;

/// Every variant has its cure, and names the source where one is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No source was found, or the configured one lacks a setting.
    #[error("{what}")]
    Misconfigured {
        /// What is missing.
        what: String,
        /// What to change.
        hint: String,
    },
    /// The platform did not answer, or is temporarily unavailable. Try again.
    #[error("{source_name}: {what}")]
    Unreachable {
        /// The source's name.
        source_name: &'static str,
        /// What happened.
        what: String,
        /// What may help, if known.
        hint: Option<String>,
    },
    /// The platform answers that it is overloaded, or asked too often. Try again.
    #[error("{source_name}: {what}")]
    Busy {
        /// The source's name.
        source_name: &'static str,
        /// What happened.
        what: String,
        /// What may help, if known.
        hint: Option<String>,
        /// The delay that it asks for, if any.
        retry_after: Option<Duration>,
    },
    /// The platform refused.
    #[error("{source_name}: {what}")]
    Rejected {
        /// The source's name.
        source_name: &'static str,
        /// The refusal, by its status only.
        what: String,
        /// The usual cause.
        hint: String,
    },
    /// The platform's answer, file or variable holds no usable token: a wrong path, a broken proxy, a page of HTML.
    #[error("{source_name}: {what}")]
    Malformed {
        /// The source's name.
        source_name: &'static str,
        /// What is wrong with it.
        what: String,
        /// The usual cause.
        hint: String,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unreachable { hint, .. } | Self::Busy { hint, .. } => hint.as_deref(),
            Self::Misconfigured { hint, .. } | Self::Rejected { hint, .. } | Self::Malformed { hint, .. } => Some(hint),
        }
    }

    /// Can another try succeed a little later?
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Busy { .. } => true,
            Self::Misconfigured { .. } | Self::Rejected { .. } | Self::Malformed { .. } => false,
        }
    }

    /// The delay that the platform asks for, if any.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// A stable word for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Misconfigured { .. } => "identity_not_usable",
            Self::Unreachable { .. } | Self::Busy { .. } => "identity_unreachable",
            Self::Rejected { .. } => "identity_rejected",
            Self::Malformed { .. } => "identity_malformed",
        }
    }

    /// The error for a file that cannot be read now, because the machine is busy or its disk does not answer. `None` if the
    /// file itself is the reason.
    pub(super) fn busy(source_name: &'static str, path: &Path, error: &io::Error) -> Option<Self> {
        let what = || format!("{} cannot be read now: {error}", path.display());
        is_busy(error).then(|| Self::Unreachable { source_name, what: what(), hint: None })
    }

    pub(super) fn unknown_source(name: &str) -> Self {
        let known: Vec<&str> = super::SOURCES.iter().map(|row| row.name).collect();
        Self::Misconfigured {
            what: format!("identity source {name:?} is not known"),
            hint: format!("this version knows: {}", known.join(", ")),
        }
    }

    pub(super) fn ambiguous(names: &[&str]) -> Self {
        Self::Misconfigured {
            what: format!("several workload identities are usable here: {}", names.join(", ")),
            hint: format!("pick one: `--identity {}`, or `source = {:?}` in [identity]", names[0], names[0]),
        }
    }

    /// The error when the host probe found no cloud.
    pub(super) fn no_cloud() -> Self {
        Self::Misconfigured {
            what: "no workload identity here: nothing speaks for one, and no cloud's metadata service answers"
                .to_owned(),
            hint:
                "from a container the service may be out of reach (a hop limit of 1, a network policy); name what you \
                expect with `source = …` in [identity] and it is asked patiently"
                    .to_owned(),
        }
    }

    pub(super) fn nothing_here(sources: usize) -> Self {
        Self::Misconfigured {
            what: format!("no workload identity here: none of {sources} sources finds what it looks for"),
            hint: "`safeconduct whoami --all` shows what each looks for; on a laptop there is none: give a JWT with \
                `--identity-file FILE`, or see the quickstart (`cargo run --example quickstart`)"
                .to_owned(),
        }
    }
}
