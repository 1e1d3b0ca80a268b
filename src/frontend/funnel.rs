//! The one way from the outcome of a request to its response. A refusal is counted, logged and written to the audit here,
//! before its answer is: connections send a [`Finished`] response only, and nothing else makes one.

use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Response, Uri};

use super::answer::{Dialect, Failure, Outcome, Record};
use super::body::Body;
use super::desk::Desk;
use crate::broker::{Action, AuditSubject};
use crate::caller::Caller;

/// One request as its handler sees it.
pub(super) struct Asked<'a> {
    /// What it is answered from.
    pub(super) desk: Desk<'a>,
    /// Who asks.
    pub(super) caller: &'a Caller,
    /// The request's target.
    pub(super) uri: Uri,
    /// What the audit calls it.
    pub(super) action: Action,
    /// How its errors are written.
    pub(super) dialect: Dialect,
    /// Are refusals recorded?
    pub(super) audit: Audit,
}

/// Whether the refusals of a listener are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audit {
    /// Each of them.
    Refusals,
    /// None. Other machines may reach the listener, it knows no caller and gives nothing away, and whoever reaches it could
    /// fill the audit.
    Nothing,
}

/// A response that may be sent.
pub(super) struct Finished<B = Body>(Response<B>);

impl<B> Finished<B> {
    pub(super) fn into_response(self) -> Response<B> {
        self.0
    }

    /// So that tests of connections can have bodies of their own.
    #[cfg(test)]
    pub(super) fn untold(response: Response<B>) -> Self {
        Self(response)
    }
}

impl Asked<'_> {
    /// The query of the target; empty where there is none.
    pub(super) fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    /// The response to this request.
    pub(super) fn finish(&self, outcome: Outcome) -> Finished {
        let is_last = !self.caller.is_known() || outcome.as_ref().is_err_and(Failure::is_final);
        let mut response = match outcome {
            Ok(answer) => answer.into_response(),
            Err(failure) => {
                self.record(&failure);
                failure.into_response(self.dialect)
            }
        };
        if is_last {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Finished(response)
    }

    fn record(&self, failure: &Failure) {
        if self.audit == Audit::Nothing {
            return;
        }
        let plain = || AuditSubject::new(self.action, self.caller, None);
        let (matter, code, words) = match failure.record() {
            Record::Written => return,
            Record::Due => (plain(), failure.code(), failure.words()),
            Record::As(code, words) => (plain(), *code, *words),
            Record::About(request) => (AuditSubject::of(self.caller, request), failure.code(), failure.words()),
        };
        self.desk.broker.note_refusal(&matter, failure.class(), code, &words);
    }
}
