//! A requirement and the result of its check, as plain data.

use serde::Serialize;

use super::super::{Class, Party};

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The requirement is met.
    Pass,
    /// It works, but somebody should look at it.
    Warn,
    /// A requirement is not met.
    Fail,
    /// Neither met nor broken: what was seen, or why it could not be seen.
    Note,
    /// Not checked, with the reason.
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

/// The check of one requirement. Contains no secret.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The requirement.
    #[serde(skip)]
    pub(super) rule: Rule,
    /// The step of the path.
    pub stage: &'static str,
    /// A stable code for scripts.
    pub code: &'static str,
    /// The result.
    pub state: State,
    /// What was seen.
    pub what: String,
    /// Whose requirement it is; on a failure, who has to act.
    pub party: Party,
    /// The document and section that state the requirement.
    pub section: &'static str,
    /// What to change.
    pub cure: Option<String>,
    /// On a failure, its class, which decides the exit code.
    #[serde(serialize_with = "name")]
    pub class: Option<Class>,
}

fn name<S: serde::Serializer>(class: &Option<Class>, to: S) -> Result<S::Ok, S::Error> {
    class.map(Class::as_str).serialize(to)
}

impl Rule {
    /// A requirement: its step, code, responsible party, and the section that states it.
    pub const fn new(stage: &'static str, code: &'static str, party: Party, section: &'static str) -> Self {
        Self { stage, code, party, section }
    }

    /// The requirement is met.
    pub fn pass(&self, what: impl Into<String>) -> Check {
        self.check(State::Pass, what.into())
    }

    /// It could not be measured, or only in part.
    pub fn note(&self, what: impl Into<String>) -> Check {
        self.check(State::Note, what.into())
    }

    /// It was not checked.
    pub fn skip(&self, what: impl Into<String>) -> Check {
        self.check(State::Skip, what.into())
    }

    /// It is met only formally, or this cannot be determined.
    pub fn warn(&self, what: impl Into<String>, cure: impl Into<String>) -> Check {
        Check { cure: Some(cure.into()), ..self.check(State::Warn, what.into()) }
    }

    /// It is not met, and another party has to act.
    pub fn fail(&self, what: impl Into<String>, cure: impl Into<String>) -> Check {
        let check = self.check(State::Fail, what.into());
        Check { cure: Some(cure.into()), class: Some(Class::Refused), ..check }
    }

    /// It is not met, because of an error of the path.
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
    /// Is this the check of that requirement?
    pub(super) fn is_of(&self, rule: &Rule) -> bool {
        self.rule == *rule
    }

    /// Names another party that has to act.
    #[must_use]
    pub fn by(self, party: Party) -> Self {
        Self { party, ..self }
    }

    /// Sets the class of the failure.
    #[must_use]
    pub fn of(self, class: Class) -> Self {
        Self { class: Some(class), ..self }
    }
}
