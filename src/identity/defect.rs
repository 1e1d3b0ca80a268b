//! Why a source cannot be used here, with the cure: found in variables, files and keys, before anybody is asked.

use super::Error;

/// What is wrong, and what to do about it.
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

    /// The error of the row that the configuration names.
    pub(super) fn of(self, row: &str) -> Error {
        Error::Misconfigured { what: format!("{row}: {}", self.what), hint: self.cure }
    }

    /// The error of a row that is here, by this evidence.
    pub(super) fn in_spite_of(&self, row: &str, evidence: &str) -> Error {
        Error::Misconfigured {
            what: format!("{row} is here ({evidence}) but cannot be used: {}", self.what),
            hint: self.cure.clone(),
        }
    }
}
