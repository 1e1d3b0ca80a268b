//! Why a source cannot be used here, and the cure. Found in variables, files and keys, without network.

use super::Error;

/// A problem of a source and its cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Defect {
    /// What is wrong.
    pub(crate) what: String,
    /// What to change.
    pub(crate) cure: String,
    /// Does the evidence show so little that it gives way to a usable source of its tier?
    pub(super) is_of_a_bystander: bool,
}

impl Defect {
    pub(super) fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into(), is_of_a_bystander: false }
    }

    /// The same, where a usable source of the tier may be used all the same.
    pub(super) fn of_a_bystander(self) -> Self {
        Self { is_of_a_bystander: true, ..self }
    }

    /// The error for a source that the configuration names.
    pub(super) fn of(self, row: &str) -> Error {
        Error::Misconfigured { what: format!("{row}: {}", self.what), hint: self.cure }
    }

    /// The error for a source that was detected by this evidence. `other` is one of its tier that could be used.
    pub(super) fn in_spite_of(&self, row: &str, evidence: &str, other: Option<&str>) -> Error {
        let choice = other.map(|name| format!("; or choose {name}, which is here too: `--identity {name}`"));
        Error::Misconfigured {
            what: format!("{row} is here ({evidence}) but cannot be used: {}", self.what),
            hint: format!("{}{}", self.cure, choice.unwrap_or_default()),
        }
    }
}
