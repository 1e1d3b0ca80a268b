//! What follows from a refusal, whatever its text: one row for each.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use super::Class;

/// The step of the path that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Which authorization server guards the resource?
    Discovery,
    /// The subject token of the platform.
    Identity,
    /// From subject token to access token.
    Exchange,
    /// The end of an access token.
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

/// What follows from a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Facts<'a> {
    /// Where on the path it happened. `None`: before the first step.
    pub stage: Option<Stage>,
    /// Who has to act.
    pub party: Party,
    /// What kind of failure it is.
    pub class: Class,
    /// Stable, for scripts: the authorization server's own code where it refused.
    pub code: &'a str,
    /// What to do, where something can be done.
    pub hint: Option<Cow<'a, str>>,
}

impl<'a> Facts<'a> {
    /// A row of a step.
    pub(super) fn of(stage: Stage, party: Party, class: Class, code: &'a str) -> Self {
        Self { stage: Some(stage), ..Self::before(party, class, code) }
    }

    /// A row of what is decided before the first step.
    pub(super) fn before(party: Party, class: Class, code: &'a str) -> Self {
        Self { stage: None, party, class, code, hint: None }
    }

    /// The same with what to do about it.
    pub(super) fn hint(self, hint: impl Into<Cow<'a, str>>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same with what to do about it, if anything.
    pub(super) fn maybe(self, hint: Option<impl Into<Cow<'a, str>>>) -> Self {
        Self { hint: hint.map(Into::into), ..self }
    }
}
