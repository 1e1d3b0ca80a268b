//! Counts, logs and audits every decision, served or refused. All of them pass here.

use super::{Broker, CallRecord, Error, Lease, ReadyFields, Request, Target, UNLISTED};
use crate::audit::{self, Action, CallSubject, Decision, Line, Outcome};
use crate::caller::Caller;
use crate::oauth::Scopes;
use crate::token::Digest;

/// What a decision is about.
#[derive(Clone, Copy)]
pub(crate) struct AuditSubject<'a> {
    pub action: Action,
    pub caller: &'a Caller,
    pub target: Option<&'a Target>,
    pub helper: bool,
    /// The scopes that the caller named.
    pub asked: Option<&'a Scopes>,
    /// The digest of the token that the server refused, as the caller reports.
    pub rejected: Option<&'a Digest>,
    /// The call on the data path.
    pub call: Option<CallSubject<'a>>,
}

impl<'a> AuditSubject<'a> {
    pub(crate) fn new(action: Action, caller: &'a Caller, target: Option<&'a Target>) -> Self {
        Self { action, caller, target, helper: false, asked: None, rejected: None, call: None }
    }

    pub(crate) fn of(caller: &'a Caller, request: &'a Request) -> Self {
        let (helper, asked) = (request.helper, request.scopes.as_ref());
        Self { helper, asked, ..Self::new(request.action, caller, Some(&request.target)) }
    }
}

impl Broker {
    /// Counts, logs and audits a decision. Fails with the refusal itself, or if a granted request cannot be recorded:
    /// it must not be served then.
    pub(super) fn note<T>(
        &self,
        matter: &AuditSubject<'_>,
        decided: Result<T, Error>,
        granted: fn(&T) -> Option<&Lease>,
    ) -> Result<T, Error> {
        let served = self.granted(matter, decided)?;
        let granted = granted(&served);
        self.record(matter, None, Outcome::Served, granted).map_err(|error| self.unrecorded(matter, error))?;
        granted.inspect(|granted| self.served(matter, granted));
        Ok(served)
    }

    /// The same for a call on the data path. Its line is written together with those of other calls.
    pub(super) async fn note_call(
        &self,
        matter: &AuditSubject<'_>,
        decided: Result<(Lease, ReadyFields), Error>,
        record: &CallRecord,
    ) -> Result<(Lease, ReadyFields), Error> {
        let (lease, fields) = self.granted(matter, decided)?;
        if let Some(line) = self.line(matter, None, Outcome::Served, Some(&lease)) {
            let leaving = record.leaves_with(&lease.token, line);
            leaving.written().await.map_err(|error| self.unrecorded(matter, error))?;
        }
        self.served(matter, &lease);
        Ok((lease, fields))
    }

    fn granted<T>(&self, matter: &AuditSubject<'_>, decided: Result<T, Error>) -> Result<T, Error> {
        decided.map_err(|error| {
            self.refuse(matter, error.server(), (error.class().as_str(), error.code()), &error.in_full());
            error.noted().without_name_for_strangers(matter.target)
        })
    }

    /// Counts and logs what was served, once it is recorded.
    fn served(&self, matter: &AuditSubject<'_>, granted: &Lease) {
        // Unlisted servers share one tally, so that callers cannot create metric labels.
        let tally = self.tallies.get(&granted.server.name).or_else(|| self.tallies.get(UNLISTED));
        if let Some(tally) = tally {
            tally.served(matter.caller.uid);
        }
        debug!(server = %granted.server.name, caller = %matter.caller, token = ?granted.token.digest, "served");
    }

    /// Notes what the operator does. It gives nothing away, so a record that cannot be written does not prevent it: a full disk must
    /// not keep a daemon from being stopped.
    pub(crate) fn note_operation(&self, action: Action, caller: &Caller) {
        if let Err(error) = self.record(&AuditSubject::new(action, caller, None), None, Outcome::Served, None) {
            tracing::error!(%error, hint = error.hint(), "an order of the operator could not be recorded");
        }
        tracing::info!(%caller, action = action.as_str(), "the operator asks");
    }

    /// Notes a refusal that was decided outside the broker: by a front-end, or because a command ran out of time.
    pub(crate) fn note_refusal(
        &self,
        matter: &AuditSubject<'_>,
        class: super::Class,
        code: &str,
        why: &dyn std::fmt::Display,
    ) {
        self.refuse(matter, None, (class.as_str(), code), why);
    }

    /// Counts, logs and audits a refusal. It stays a refusal if it cannot be recorded. Nobody gets many lines, so that nobody
    /// can fill the log or the audit file.
    fn refuse(
        &self,
        matter: &AuditSubject<'_>,
        server: Option<&str>,
        code: (&'static str, &str),
        why: &dyn std::fmt::Display,
    ) {
        let (class, error) = code;
        self.metrics.refused(class);
        // A helper of the daemon's own user asks about every URL there is.
        let is_unserved = error == "server_not_configured" && matter.caller.is_user(self.maker.env.uid());
        if class == super::Class::Denied.as_str() && matter.caller.is_known() && !is_unserved {
            let found = matter.target.and_then(|target| self.find(target));
            let server = server.or_else(|| found.as_ref().map(|found| &*found.name));
            let refusal = (error, self.is_stranger(matter.caller));
            self.refused_callers.count(matter.caller.uid, self.clock.wall(), server, refusal);
        }
        if !self.is_told(matter.caller) {
            return;
        }
        let target = matter.target.map(ToString::to_string).unwrap_or_default();
        if matter.caller.is_known() {
            tracing::warn!(target_server = %target, caller = %matter.caller, class, error = %why, "not served");
        } else {
            debug!(target_server = %target, caller = %matter.caller, class, error = %why, "not served");
        }
        if let Err(error) = self.record(matter, server, Outcome::Refused { class, error }, None) {
            tracing::error!(%error, "a refusal could not be recorded");
        }
    }

    /// Does a refusal of this caller get lines of its own? Each question counts.
    fn is_told(&self, caller: &Caller) -> bool {
        let Some(refusals) = &self.refusals else { return true };
        refusals.is_told(caller, self.is_stranger(caller))
    }

    /// The error for a granted request that could not be recorded.
    fn unrecorded(&self, matter: &AuditSubject<'_>, error: audit::Error) -> Error {
        if self.is_told(matter.caller) {
            tracing::error!(caller = %matter.caller, %error, hint = error.hint(), "not served: it could not be recorded");
        }
        let error = Error::from(error);
        self.metrics.refused(error.class().as_str());
        error.noted()
    }

    /// Writes one line to the audit file, if there is one.
    pub(super) fn record(
        &self,
        matter: &AuditSubject<'_>,
        server: Option<&str>,
        outcome: Outcome<'_>,
        granted: Option<&Lease>,
    ) -> Result<(), audit::Error> {
        self.line(matter, server, outcome, granted).map_or(Ok(()), |line| line.written())
    }

    /// The line, which is still to be written.
    fn line(
        &self,
        matter: &AuditSubject<'_>,
        server: Option<&str>,
        outcome: Outcome<'_>,
        granted: Option<&Lease>,
    ) -> Option<Line<'_>> {
        let audit = self.audit.as_ref()?;
        let configured = || matter.target.and_then(|target| self.find(target));
        let found = if granted.is_none() && server.is_none() { configured() } else { None };
        let granted_for = granted.map(|granted| &*granted.server.name);
        let named = granted_for.or(server).or_else(|| found.as_ref().map(|found| &*found.name));
        let asked_for = if named.is_none() { matter.target.map(ToString::to_string) } else { None };
        Some(audit.line(&Decision {
            time: self.clock.wall(),
            action: matter.action,
            outcome,
            caller: matter.caller,
            helper: matter.helper,
            server: named.or(asked_for.as_deref()),
            asked: matter.asked,
            token: granted.map(|granted| &*granted.token),
            outer: granted.and_then(|granted| granted.outer.as_ref()).map(|outer| &*outer.token),
            rejected: matter.rejected,
            call: matter.call,
            done: None,
        }))
    }
}
