//! What the audit says of a call on the data path: a `call` line before its first byte leaves, and a `done` line at its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Action, Broker};
use crate::audit::{Audit, CallSubject, Decision, Done, Outcome};
use crate::caller::Caller;
use crate::clock::{Boot, Clock};
use crate::jitter::request_id;
use crate::token::Token;

/// One call on the data path. Its lines have its id in common, and so has the error that its client may see.
pub(crate) struct CallRecord {
    audit: Option<Arc<Audit>>,
    clock: Clock,
    begun: Boot,
    id: String,
    caller: Caller,
    server: Arc<str>,
    details: Mutex<Details>,
}

#[derive(Default)]
struct Details {
    tool: Option<String>,
    /// Of the last `call` line, or of the one that is being written. Without one there is no `done` line.
    token: Option<Arc<Token>>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallEnd<'a> {
    /// The server's answer passed to its end.
    Passed,
    /// The answer broke off, or its client left.
    Cut,
    /// The client got an error of ours.
    Refused { class: &'static str, error: &'a str },
}

impl Broker {
    /// A call begins.
    pub(crate) fn begin_call(&self, caller: &Caller, server: &Arc<str>) -> CallRecord {
        let id = request_id();
        let (audit, clock) = (self.audit.clone(), self.clock.clone());
        let (begun, details) = (clock.boot(), Mutex::default());
        CallRecord { audit, clock, begun, id, caller: caller.clone(), server: Arc::clone(server), details }
    }
}

impl CallRecord {
    /// Its id, under which the log and the audit have the rest.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The tool that it calls.
    pub(crate) fn calls(&self, tool: Option<String>) {
        self.lock().tool = tool;
    }

    pub(super) fn tool(&self) -> Option<String> {
        self.lock().tool.clone()
    }

    /// The call leaves with this token, once its `call` line is written. Gives the token that it had before.
    pub(super) fn leaves_with(&self, token: Option<Arc<Token>>) -> Option<Arc<Token>> {
        std::mem::replace(&mut self.lock().token, token)
    }

    /// Adds the `done` line, if there was a `call` line. `bytes` of the answer passed.
    pub(crate) fn done(&self, end: CallEnd<'_>, bytes: u64) {
        let Details { tool, token } = std::mem::take(&mut *self.lock());
        let (Some(audit), Some(token)) = (&self.audit, token) else { return };
        let lasted = self.clock.boot().since(self.begun);
        let outcome = match end {
            CallEnd::Passed => Outcome::Passed,
            CallEnd::Cut => Outcome::Cut,
            CallEnd::Refused { class, error } => Outcome::Refused { class, error },
        };
        audit.note_soon(&Decision {
            time: self.clock.wall(),
            action: Action::Done,
            outcome,
            caller: &self.caller,
            helper: false,
            server: Some(&self.server),
            asked: None,
            token: None,
            outer: None,
            rejected: None,
            call: Some(CallSubject { id: &self.id, tool: tool.as_deref() }),
            done: Some(Done { lasted, bytes, jti: token.jti.as_deref(), token: &token.digest }),
        });
    }

    fn lock(&self) -> MutexGuard<'_, Details> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
