//! Why a source cannot be used here, and the cure. Found in variables, files and keys, without network.

use super::Error;

/// A problem of a source and its cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Defect {
    /// What is wrong.
    pub(crate) what: String,
    /// What to change.
    pub(crate) cure: String,
}

impl Defect {
    pub(super) fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into() }
    }

    /// The error for a source that the configuration names.
    pub(super) fn of(self, row: &str) -> Error {
        Error::Misconfigured { what: format!("{row}: {}", self.what), hint: self.cure }
    }

    /// The error for a source that was detected by this evidence.
    pub(super) fn in_spite_of(&self, row: &str, evidence: &str) -> Error {
        Error::Misconfigured {
            what: format!("{row} is here ({evidence}) but cannot be used: {}", self.what),
            hint: self.cure.clone(),
        }
    }
}
