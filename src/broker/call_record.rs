//! What the audit says of a call on the data path: a `call` line before its first byte leaves, and a `done` line at its end.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{Action, Broker};
use crate::audit::{self, Audit, CallSubject, Decision, Done, Line, Outcome};
use crate::caller::Caller;
use crate::clock::{Boot, Clock};
use crate::jitter::request_id;
use crate::token::Token;

/// One call on the data path. Its lines have its id in common, and so has the error that its client may see.
pub(crate) struct CallRecord {
    audit: Option<Arc<Audit>>,
    clock: Clock,
    begun: Boot,
    /// Made when it is asked for: most calls are in no record.
    id: OnceLock<String>,
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

/// A call whose `call` line is being written. If its client leaves meanwhile, the line is written all the same, and a `done` line
/// follows; if the line fails, none does.
pub(super) struct Leaving<'a> {
    record: &'a CallRecord,
    /// The token of the `call` line before.
    before: Option<Arc<Token>>,
    line: Line<'a>,
}

impl Leaving<'_> {
    /// Waits until the line is written, with those of other calls. If that fails, nothing may leave.
    pub(super) async fn written(&self) -> Result<(), audit::Error> {
        self.line.written_with_others().await
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if self.line.written().is_err() {
            self.record.lock().token = self.before.take();
        }
    }
}

impl Broker {
    /// A call begins.
    pub(crate) fn begin_call(&self, caller: &Caller, server: &Arc<str>) -> CallRecord {
        let (audit, clock) = (self.audit.clone(), self.clock.clone());
        let (begun, id, details) = (clock.boot(), OnceLock::new(), Mutex::default());
        CallRecord { audit, clock, begun, id, caller: caller.clone(), server: Arc::clone(server), details }
    }
}

impl CallRecord {
    /// Its id, under which the log and the audit have the rest.
    pub(crate) fn id(&self) -> &str {
        self.id.get_or_init(request_id)
    }

    /// Who calls.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The tool that it calls.
    pub(crate) fn calls(&self, tool: Option<String>) {
        self.lock().tool = tool;
    }

    pub(super) fn tool(&self) -> Option<String> {
        self.lock().tool.clone()
    }

    /// The call leaves with this token, once its `call` line is written.
    pub(super) fn leaves_with<'a>(&'a self, token: &Arc<Token>, line: Line<'a>) -> Leaving<'a> {
        let before = self.lock().token.replace(Arc::clone(token));
        Leaving { record: self, before, line }
    }

    /// Adds the `done` line, if there was a `call` line. `bytes` of the answer passed.
    pub(crate) fn done(&self, end: CallEnd<'_>, bytes: u64) {
        let Some(audit) = &self.audit else { return };
        let Details { tool, token } = std::mem::take(&mut *self.lock());
        let Some(token) = token else { return };
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
            call: Some(CallSubject { id: self.id(), tool: tool.as_deref() }),
            done: Some(Done { lasted, bytes, jti: token.jti.as_deref(), token: &token.digest }),
        });
    }

    fn lock(&self) -> MutexGuard<'_, Details> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::task::{Context, Waker};

    use super::*;
    use crate::audit::tests::{Place, refusal, token};

    #[test]
    fn a_call_whose_line_failed_has_no_end_in_the_file_also_if_its_client_left_meanwhile() {
        let place = Place::new();
        let (audit, clock) = (Arc::new(place.hold()), Clock::system());
        let (caller, server) = (Caller::on_socket(1, 2, None), Arc::from("demo"));
        let begun = clock.boot();
        let details = Mutex::default();
        let record =
            CallRecord { audit: Some(Arc::clone(&audit)), clock, begun, id: OnceLock::new(), caller, server, details };
        let allow = |mode| fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(mode)).expect("ours");
        // Its client leaves while the line waits.
        let leaves = |spoil: &dyn Fn()| {
            let line = audit.line(&refusal(&record.caller, "demo"));
            let leaving = record.leaves_with(&Arc::new(token("x")), line);
            let mut written = Box::pin(leaving.written());
            assert!(written.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            spoil();
        };
        leaves(&|| ());
        record.done(CallEnd::Cut, 0);
        assert_eq!(place.text().matches("\"action\":\"done\"").count(), 1, "{}", place.text());
        leaves(&|| {
            fs::remove_file(place.path()).expect("ours");
            allow(0o777);
        });
        allow(0o700);
        record.done(CallEnd::Cut, 0);
        drop(audit);
        assert!(!place.path().exists(), "nothing was written after the failure");
    }
}
