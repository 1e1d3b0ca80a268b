//! A requirement and what came of it, as plain data.

use serde::Serialize;

use super::super::Class;

/// Who has to act when a requirement is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// Whoever configures this workload.
    Workload,
    /// Whoever runs the platform that attests it.
    Platform,
    /// The operator of the MCP server.
    McpServer,
    /// The operator of the authorization server.
    AuthorizationServer,
    /// The operator of this machine.
    Machine,
}

impl Party {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "this workload",
            Self::Platform => "this workload's platform",
            Self::McpServer => "the operator of the MCP server",
            Self::AuthorizationServer => "the operator of the authorization server",
            Self::Machine => "the operator of this machine",
        }
    }
}

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
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    stage: &'static str,
    code: &'static str,
    party: Party,
    section: &'static str,
}

/// One requirement, judged. Nothing in it is a secret.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
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
        let text = error.to_string();
        // The stage says it already.
        let stages = ["discovery: ", "identity: ", "exchange: "];
        let what = stages.iter().find_map(|stage| text.strip_prefix(stage)).unwrap_or(&text);
        let check = self.check(State::Fail, what.to_owned());
        Check { cure: error.hint(), class: Some(error.class()), ..check }
    }

    fn check(&self, state: State, what: String) -> Check {
        let Self { stage, code, party, section } = *self;
        Check { stage, code, state, what, party, section, cure: None, class: None }
    }
}

impl Check {
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
