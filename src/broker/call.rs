//! What the data path asks of the broker: the credential for one request, how far it may step up, and the way out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{AuditSubject, Broker, CallRecord, Class, Decision, Error, Lease, ReadyFields, Request, Server, Wanted};
use crate::audit::CallSubject;
use crate::caller::Caller;
use crate::oauth::Scopes;
use crate::outbound::Outbound;
use crate::policy::Rule;

/// How a client waits for a temporary failure to pass, and what the audit says of its call.
pub(crate) struct Patience<'a, F> {
    /// The call.
    pub(crate) record: &'a CallRecord,
    /// The longest wait.
    pub(crate) longest: Duration,
    /// Asked at the first failure: without a permission the client does not wait. It is kept while the client waits.
    pub(crate) may_wait: F,
}

/// The pause before a request that can wait is decided again.
const AGAIN: Duration = Duration::from_millis(500);

impl Broker {
    /// Gives the header fields for one request that the data path is about to send. `fields` asks the lease for them. Fails as
    /// [`Self::headers`] does, but temporary failures only after `patience`.
    pub(crate) async fn call<P>(
        &self,
        caller: &Caller,
        request: &Request,
        patience: Patience<'_, impl Fn() -> Option<P>>,
        fields: impl FnOnce(&Lease) -> Result<ReadyFields, Error>,
    ) -> Result<(Lease, ReadyFields), Error> {
        let record = patience.record;
        let decided = match self.decide(caller, request, None) {
            Ok(Decision::Lease(lease)) => Ok(lease),
            Ok(Decision::Awaits(wanted)) => Box::pin(self.awaited_patiently(caller, request, wanted, patience)).await,
            Err(error) => Err(error),
        };
        let decided = decided.and_then(|lease| fields(&lease).map(|fields| (lease, fields)));
        let tool = if self.records() { record.tool() } else { None };
        let call = self.records().then(|| CallSubject { id: record.id(), tool: tool.as_deref() });
        let subject = AuditSubject { call, ..AuditSubject::of(caller, request) };
        self.note_call(&subject, decided, record).await
    }

    async fn awaited_patiently<P>(
        &self,
        caller: &Caller,
        request: &Request,
        mut wanted: Wanted,
        patience: Patience<'_, impl Fn() -> Option<P>>,
    ) -> Result<Lease, Error> {
        let until = Instant::now() + patience.longest;
        let mut permission = None;
        loop {
            let decided = tokio::time::timeout_at(until, self.awaited(caller, request, wanted)).await;
            let error = match decided.unwrap_or_else(|_| Err(Error::too_slow())) {
                Err(error) if error.class() == Class::Temporary => error,
                decided => return decided,
            };
            let again = Instant::now() + error.retry_in().unwrap_or_default().max(AGAIN);
            permission = permission.or_else(&patience.may_wait);
            if again >= until || permission.is_none() {
                return Err(error);
            }
            tokio::time::sleep_until(again).await;
            wanted = match self.decide(caller, request, None)? {
                Decision::Lease(lease) => return Ok(lease),
                Decision::Awaits(wanted) => wanted,
            };
        }
    }

    /// The server that a request names and the most that it may ask for there, where another daemon decides the rest.
    pub(crate) fn permitted(&self, caller: &Caller, request: &Request) -> Result<(Arc<Server>, Option<Scopes>), Error> {
        let server = self.configured(caller, &request.target)?;
        let permit = server.policy.permit(caller, request.scopes.as_ref());
        let permit = permit.map_err(|denied| Error::denied(&server.name, denied))?;
        let most = permit.ask.clone().or_else(|| permit.ceiling().cloned());
        Ok((server, most))
    }

    /// The most scopes that this caller may have at this server, if there is a limit.
    pub(crate) fn ceiling(&self, caller: &Caller, server: &Server) -> Option<Scopes> {
        server.policy.permit(caller, None).ok()?.ceiling().cloned()
    }

    /// The way out, under the egress rules of this configuration.
    pub(crate) fn outbound(&self) -> &Outbound {
        &self.maker.outbound
    }
}

impl Server {
    /// Serves the user of this caller alone, with no more than the caller may have and, if it names scopes, no more than those.
    /// Fails if it may not use the server, or no such scope.
    pub(crate) fn serve_only(&mut self, caller: &Caller, asked: Option<&Scopes>) -> Result<(), Error> {
        let permit = self.policy.permit(caller, asked).map_err(|denied| Error::denied(&self.name, denied))?;
        self.policy.allow = vec![Rule { uid: Some(caller.uid), ..Rule::default() }];
        self.policy.ceiling = permit.ask.clone().or_else(|| permit.ceiling().cloned());
        Ok(())
    }
}
