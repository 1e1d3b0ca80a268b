//! A requirement and what came of it, as plain data.

use serde::Serialize;

use super::super::{Class, Party};

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Pass,
    /// It works, and somebody should look at it.
    Warn,
    /// A requirement is not met.
    Fail,
    /// Not tried, with the reason.
    Skip,
}

/// One requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    stage: &'static str,
    code: &'static str,
    party: Party,
    section: &'static str,
}

/// One requirement, judged. Nothing in it is a secret.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The requirement.
    #[serde(skip)]
    pub(super) rule: Rule,
    /// The step of the way.
    pub stage: &'static str,
    /// Stable, for scripts.
    pub code: &'static str,
    /// What came of it.
    pub state: State,
    /// What was seen.
    pub what: String,
    /// Whose requirement it is; on a failure, who has to act.
    pub party: Party,
    /// Where the requirement is written.
    pub section: &'static str,
    /// What to change.
    pub cure: Option<String>,
    /// On a failure, its class as exit codes know it.
    #[serde(serialize_with = "name")]
    pub class: Option<Class>,
}

fn name<S: serde::Serializer>(class: &Option<Class>, to: S) -> Result<S::Ok, S::Error> {
    class.map(Class::as_str).serialize(to)
}

impl Rule {
    /// A row.
    pub const fn new(stage: &'static str, code: &'static str, party: Party, section: &'static str) -> Self {
        Self { stage, code, party, section }
    }

    /// It is met.
    pub fn pass(&self, what: impl Into<String>) -> Check {
        self.check(State::Pass, what.into())
    }

    /// It was not looked at.
    pub fn skip(&self, what: impl Into<String>) -> Check {
        self.check(State::Skip, what.into())
    }

    /// It is met by the letter only, or cannot be told.
    pub fn warn(&self, what: impl Into<String>, cure: impl Into<String>) -> Check {
        Check { cure: Some(cure.into()), ..self.check(State::Warn, what.into()) }
    }

    /// It is not met, and that is another party's doing.
    pub fn fail(&self, what: impl Into<String>, cure: impl Into<String>) -> Check {
        let check = self.check(State::Fail, what.into());
        Check { cure: Some(cure.into()), class: Some(Class::Refused), ..check }
    }

    /// It is not met, as an error of the path says.
    pub(super) fn fail_with(&self, error: &super::super::Error) -> Check {
        let check = self.check(State::Fail, error.without_stage());
        Check { cure: error.hint(), class: Some(error.class()), ..check }
    }

    fn check(&self, state: State, what: String) -> Check {
        let Self { stage, code, party, section } = *self;
        Check { rule: *self, stage, code, state, what, party, section, cure: None, class: None }
    }
}

impl Check {
    /// Is it this requirement that was judged?
    pub(super) fn is_of(&self, rule: &Rule) -> bool {
        self.rule == *rule
    }

    /// Somebody else has to act.
    #[must_use]
    pub fn by(self, party: Party) -> Self {
        Self { party, ..self }
    }

    /// It is a failure of this class.
    #[must_use]
    pub fn of(self, class: Class) -> Self {
        Self { class: Some(class), ..self }
    }
}
