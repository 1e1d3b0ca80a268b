//! What people and scripts need to know about a failure, apart from its message: one row for each cause.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use super::Class;

/// The step of the path that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Finding the authorization server of the resource.
    Discovery,
    /// Getting the subject token from the platform.
    Identity,
    /// Getting an access token for it.
    Exchange,
    /// Revoking an access token.
    Revocation,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discovery => "discovery",
            Self::Identity => "identity",
            Self::Exchange => "exchange",
            Self::Revocation => "revocation",
        })
    }
}

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
    /// The text for people.
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

/// What people and scripts need to know about a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Facts<'a> {
    /// The step that failed; `None` before the first step.
    pub stage: Option<Stage>,
    /// Who has to act.
    pub party: Party,
    /// What kind of failure it is.
    pub class: Class,
    /// A stable code for scripts: the authorization server's own if it refused.
    pub code: &'a str,
    /// What to do about it, if anything.
    pub hint: Option<Cow<'a, str>>,
}

impl<'a> Facts<'a> {
    /// The facts of a failure in this step.
    pub(super) fn of(stage: Stage, party: Party, class: Class, code: &'a str) -> Self {
        Self { stage: Some(stage), ..Self::before(party, class, code) }
    }

    /// The facts of a failure before the first step.
    pub(super) fn before(party: Party, class: Class, code: &'a str) -> Self {
        Self { stage: None, party, class, code, hint: None }
    }

    /// Adds a hint.
    pub(super) fn hint(self, hint: impl Into<Cow<'a, str>>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Adds a hint, if there is one.
    pub(super) fn maybe(self, hint: Option<impl Into<Cow<'a, str>>>) -> Self {
        Self { hint: hint.map(Into::into), ..self }
    }
}
