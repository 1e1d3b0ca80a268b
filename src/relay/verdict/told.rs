//! What a client is told: one sentence for each cause, with its class and its error code.
//!
//! A model reads these sentences. They hold our own words, the configured name of the server and registered error codes:
//! no command, path, claim, or URL of another party.

use std::time::Duration;

use crate::broker::Class;
use crate::mcp::rpc::refusal::Remediation;

use super::Repair;

/// An error of ours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) why: Why,
    pub(crate) class: Class,
    /// In how many seconds the same request may succeed.
    pub(crate) retry_after: Option<u64>,
    pub(crate) remediation: Remediation,
    /// What to do all the same, so that the next request succeeds.
    pub(crate) then: Option<Repair>,
}

/// Why a client gets an error of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The server refuses a token that is new.
    TokenRefused,
    /// The server refuses a proof with its own nonce.
    ProofRefused,
    /// The server wants a person to sign in (RFC 9470).
    PersonWanted,
    /// 403 for another reason than scopes.
    Forbidden,
    /// The server wants more scopes and does not say which.
    ScopeNotNamed,
    /// The server wants more scopes, and the caller has no ceiling.
    NoCeiling,
    /// The server wants scopes that the caller may not have.
    BeyondCeiling,
    /// The issuer did not grant what the server wants.
    ScopeRefused,
    /// The server is not content with what was granted.
    ScopeNotEnough,
    /// The server sends the client elsewhere.
    Redirect,
    /// The token, its scopes or the session were to be replaced, and the request was too large to be kept.
    TooLargeToRepeat,
    /// No connection, for now.
    Unreachable,
    /// No connection that may be used: its certificate or its address is refused.
    NoConnection,
    /// The connection broke before the answer was complete.
    AnswerLost,
    /// The same for a `tools/call`.
    ToolMayHaveRun,
    /// The answer is malformed. Asking again would not help.
    Malformed,
    /// There is no token. The class says why.
    NoToken,
    /// The caller sends too many requests.
    Rate,
    /// The daemon ends, and the server has not answered yet.
    Ending,
    /// A session was replaced, and the new one differs (see [`crate::relay::session`]).
    CameBackDifferent,
}

impl Told {
    /// The error for this cause.
    pub(crate) fn new(why: Why) -> Self {
        Self::of_class(why, why.class_and_code().0)
    }

    /// The error for this cause, whose class the failure behind it decides.
    pub(crate) fn of_class(why: Why, class: Class) -> Self {
        // What may have been carried out is not to be repeated without a look.
        let may_repeat = class == Class::Temporary && !matches!(why, Why::ToolMayHaveRun | Why::AnswerLost);
        let remediation = match class {
            Class::Temporary if may_repeat => Remediation::Available,
            Class::Temporary | Class::Refused => Remediation::Undisclosed,
            Class::BadRequest | Class::Denied | Class::Config | Class::NoIdentity | Class::Internal => {
                Remediation::Unavailable
            }
        };
        Self { why, class, retry_after: may_repeat.then_some(1), remediation, then: None }
    }

    /// The error while there is no token.
    pub(crate) fn no_token(class: Class, retry_in: Option<Duration>) -> Self {
        let told = Self::of_class(Why::NoToken, class);
        match retry_in.filter(|_| class == Class::Temporary) {
            Some(wait) => told.retry_after(wait),
            None => told,
        }
    }

    /// The same error, after which the request may succeed in this time. Rounded up.
    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        Self { retry_after: Some(seconds.max(1)), ..self }
    }

    /// The same error, with what the server says about getting more access.
    pub(super) fn with_remediation(self, said: Option<Remediation>) -> Self {
        Self { remediation: said.unwrap_or(self.remediation), ..self }
    }

    /// The same error, and what to do all the same.
    pub(super) fn and(self, repair: Repair) -> Self {
        Self { then: Some(repair), ..self }
    }

    /// The error code: registered, or ours.
    pub(crate) fn error(&self) -> &'static str {
        self.why.class_and_code().1
    }

    /// What happened and who must act. `code` is what the authorization server said, and is named only if it is registered.
    pub(crate) fn message(&self, server: &str, code: Option<&str>) -> String {
        let words = self.why.words(self.class);
        match code.filter(|code| REGISTERED.contains(code)) {
            Some(code) => format!("{server}: {words} ({code})"),
            None => format!("{server}: {words}"),
        }
    }
}

impl Why {
    /// All causes, for tests of what holds for each.
    #[cfg(test)]
    pub(super) const ALL: [Self; 20] = [
        Self::TokenRefused,
        Self::ProofRefused,
        Self::PersonWanted,
        Self::Forbidden,
        Self::ScopeNotNamed,
        Self::NoCeiling,
        Self::BeyondCeiling,
        Self::ScopeRefused,
        Self::ScopeNotEnough,
        Self::Redirect,
        Self::TooLargeToRepeat,
        Self::Unreachable,
        Self::NoConnection,
        Self::AnswerLost,
        Self::ToolMayHaveRun,
        Self::Malformed,
        Self::NoToken,
        Self::Rate,
        Self::Ending,
        Self::CameBackDifferent,
    ];

    /// The class, unless the failure behind it decides, and the error code.
    fn class_and_code(self) -> (Class, &'static str) {
        use Class::{Denied, Refused, Temporary};
        match self {
            Self::TokenRefused => (Refused, "invalid_token"),
            Self::ProofRefused => (Refused, "invalid_dpop_proof"),
            Self::PersonWanted => (Refused, "insufficient_user_authentication"),
            Self::Forbidden => (Refused, "access_denied"),
            Self::ScopeNotNamed | Self::ScopeRefused | Self::ScopeNotEnough => (Refused, "insufficient_scope"),
            Self::NoCeiling | Self::BeyondCeiling => (Denied, "insufficient_scope"),
            Self::Redirect => (Refused, "redirect"),
            Self::TooLargeToRepeat => (Temporary, "not_repeated"),
            Self::Unreachable => (Temporary, "unreachable"),
            Self::NoConnection => (Refused, "no_connection"),
            Self::AnswerLost | Self::ToolMayHaveRun => (Temporary, "answer_lost"),
            Self::Malformed => (Refused, "malformed_answer"),
            Self::NoToken => (Temporary, "no_token"),
            Self::Rate => (Temporary, "rate_limited"),
            Self::Ending => (Temporary, "ending"),
            Self::CameBackDifferent => (Refused, "session_changed"),
        }
    }

    /// The sentence, without the server's name before it.
    fn words(self, class: Class) -> &'static str {
        match self {
            Self::TokenRefused => "the server refuses a token that was just issued; its operator must act",
            Self::ProofRefused => "the server refuses the proof of the token; its operator must act",
            Self::PersonWanted => "the server wants a person to sign in, and a workload cannot; its operator must act",
            Self::Forbidden => "the server does not permit this request; its operator must act",
            Self::ScopeNotNamed => "the server wants more scopes and does not name them; its operator must act",
            Self::NoCeiling => {
                "the server wants more scopes, and no rule here permits any; whoever configures safeconduct must act"
            }
            Self::BeyondCeiling => {
                "the server wants scopes beyond what the rule here permits; whoever configures safeconduct must act"
            }
            Self::ScopeRefused => {
                "the authorization server did not grant the scopes that this request needs; its operator must act"
            }
            Self::ScopeNotEnough => {
                "the server wants more scopes, though all that it named were requested; its operator must act"
            }
            Self::Redirect => {
                "the server sends its clients to another address; whoever configures safeconduct must enter that one"
            }
            Self::TooLargeToRepeat => {
                "the token or the session had to be replaced, and the request was too large to be kept; send it again"
            }
            Self::Unreachable => "the server cannot be reached; try again later",
            Self::NoConnection => "no secure connection to the server is possible; its operator must act",
            Self::AnswerLost => "the connection broke before the answer; the request may have been carried out",
            Self::ToolMayHaveRun => {
                "the connection broke before the answer; the tool may have run, so check before it is called again"
            }
            Self::Malformed => {
                "the server gives no valid answer, and its operator must act; the request, or its tool, may have run, so check before it is sent again"
            }
            Self::NoToken => no_token(class),
            Self::Rate => "too many requests; try again later",
            Self::Ending => "safeconduct ends, and the server has not answered yet; try again later",
            Self::CameBackDifferent => "the server came back different: reconnect",
        }
    }
}

fn no_token(class: Class) -> &'static str {
    match class {
        Class::Temporary => "there is no token at the moment; try again later",
        Class::Refused => "no token can be had for this server; the log and `safeconduct status` say who must act",
        Class::Denied => "the rules here do not permit this request; whoever configures safeconduct must act",
        Class::Config => "the configuration for this server is not correct; whoever configures safeconduct must act",
        Class::NoIdentity => "this workload has no identity that can be used; whoever runs it must act",
        Class::BadRequest => "the request cannot be served; whoever wrote the client must act",
        Class::Internal => "safeconduct failed; whoever runs it must look at its log",
    }
}

/// Error codes of RFC 6749 sections 4.1.2.1 and 5.2, RFC 6750, RFC 8693, RFC 8707, RFC 9449 and RFC 9470.
const REGISTERED: [&str; 15] = [
    "access_denied",
    "insufficient_scope",
    "insufficient_user_authentication",
    "invalid_client",
    "invalid_dpop_proof",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "invalid_token",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
    "use_dpop_nonce",
];
