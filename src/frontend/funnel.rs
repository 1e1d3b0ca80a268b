//! The one way from the outcome of a request to its response. A refusal is counted, logged and written to the audit here,
//! before its answer is: connections send a [`Finished`] response only, and nothing else makes one.

use std::sync::Arc;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use safeconduct_listener::{Body, Reply, Service};

use super::answer::{Dialect, Failure, Outcome, Record};
use super::desk::Desk;
use crate::broker::{Action, AuditSubject, CallSubject, Target};
use crate::caller::Caller;

/// One request as its handler sees it.
pub(super) struct Asked<'a> {
    /// What it is answered from.
    pub(super) desk: Desk<'a>,
    /// Who asks.
    pub(super) caller: &'a Caller,
    /// The request's method.
    pub(super) method: Method,
    /// The request's target.
    pub(super) uri: Uri,
    /// The request's fields.
    pub(super) fields: HeaderMap,
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

/// A response that may be sent, now or later.
pub(super) struct Finished<'a>(Reply<'a>);

impl<'a> Finished<'a> {
    /// The outcome is there.
    pub(super) fn now(outcome: Outcome, asked: Asked<'a>) -> Self {
        Self(Reply::Now(asked.finish(outcome)))
    }

    /// The outcome has to be waited for, but not beyond the end of the daemon.
    pub(super) fn later(late: Late<'a>, outcome: impl Future<Output = (Outcome, Asked<'a>)> + Send + 'a) -> Self {
        Self(Reply::Later(Box::pin(async move {
            tokio::select! {
                biased;
                (outcome, asked) = outcome => asked.finish(outcome),
                () = late.asked.desk.fixed.late.cancelled() => late.asked.finish(Err(Failure::ending())),
            }
        })))
    }

    /// The outcome has to be waited for, and whoever makes it knows what to say when the daemon ends.
    pub(super) fn in_its_time(outcome: impl Future<Output = (Outcome, Asked<'a>)> + Send + 'a) -> Self {
        // An `async` block would have room for `outcome` twice, and that of a call has 6 KB.
        Self(Reply::Later(Box::pin(outcome.map(|(outcome, asked)| asked.finish(outcome)))))
    }

    /// Something else has to be waited for before the request can be answered.
    pub(super) fn after(waited: impl Future<Output = Awaited> + Send + 'a) -> Self {
        Self(Reply::Later(Box::pin(async { waited.await.0 })))
    }

    /// Waits for the outcome, for [`Self::after`].
    pub(super) async fn awaited(self) -> Awaited {
        Awaited(match self.0 {
            Reply::Now(response) => response,
            Reply::Later(response) => response.await,
        })
    }
}

/// A response that was waited for. It is no more than that, so that nobody else makes one.
pub(super) struct Awaited(Response<Body>);

/// What a connection asks: a function whose answers come from this funnel.
pub(super) struct Answers<'a, F: Fn(Request<Incoming>) -> Finished<'a>>(pub(super) F);

impl<'a, F: Fn(Request<Incoming>) -> Finished<'a> + Send + Sync> Service for Answers<'a, F> {
    fn answer(&self, request: Request<Incoming>) -> Reply<'_> {
        (self.0)(request).0
    }

    fn ended(&self, why: &dyn std::fmt::Display) {
        debug!(%why, "a connection ended early");
    }
}

/// What is left of a request whose outcome has not come when the daemon ends.
pub(super) struct Late<'a> {
    asked: Asked<'a>,
}

impl<'a> Asked<'a> {
    /// For its end, if its outcome does not come.
    pub(super) fn late(&self) -> Late<'a> {
        let desk = Desk { broker: Arc::clone(&self.desk.broker), fixed: self.desk.fixed };
        let (method, uri, fields) = (Method::default(), Uri::default(), HeaderMap::new());
        let Self { caller, action, dialect, audit, .. } = *self;
        Late { asked: Asked { desk, caller, method, uri, fields, action, dialect, audit } }
    }
}

impl Asked<'_> {
    /// The query of the target; empty where there is none.
    pub(super) fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    /// The server that the path of a call names, whether there is one or not.
    pub(super) fn named(&self) -> Option<Target> {
        let name = self.uri.path().split('/').nth(2).filter(|name| !name.is_empty() && self.action == Action::Call)?;
        Some(Target::Name(name.to_owned()))
    }

    /// The response to this request.
    fn finish(self, outcome: Outcome) -> Response<Body> {
        let is_last = !self.caller.is_known() || outcome.as_ref().is_err_and(Failure::is_final);
        let mut response = match outcome {
            Ok(answer) => answer.into_response(self.fields),
            Err(mut failure) => {
                let id = failure.request_id(self.dialect).map(str::to_owned);
                self.record(&failure, id.as_deref());
                let is_own = self.caller.may_see_all(self.desk.fixed.uid);
                failure.into_response(self.dialect, self.fields, is_own)
            }
        };
        if is_last {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn record(&self, failure: &Failure, request_id: Option<&str>) {
        if self.audit == Audit::Nothing {
            return;
        }
        let named = self.named();
        let plain = || AuditSubject::new(self.action, self.caller, named.as_ref());
        let (matter, code, words) = match failure.record() {
            Record::Written => return,
            Record::Due => (plain(), failure.code(), failure.words()),
            Record::As(code, words) => (plain(), *code, *words),
            Record::About(request) => (AuditSubject::of(self.caller, request), failure.code(), failure.words()),
        };
        let call = request_id.map(|id| CallSubject { id, tool: None });
        self.desk.broker.note_refusal(&AuditSubject { call, ..matter }, failure.class(), code, &words);
    }
}
