//! One request of a client, from its head to the head of the server's answer: the credential, the exchange, and what the answer
//! leads to ([`super::verdict`]).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{COOKIE, HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use hyper::{Method, Response};
use tokio::time::Instant;

use super::cookies::Owner;
use super::idle::{IDLE, LastByte};
use super::kept::Kept;
use super::known::Known;
use super::member::{Member, session_id};
use super::open::Entry;
use super::probes::HeldProbe;
use super::session::Key;
use super::verdict::{self, Attempt, Body, Effect, Repair, Repairs, Sent, TokenAge, Told, Verdict, Why, Written};
use crate::broker::{self, Action, Broker, Class, Head, Lease, Least, Patience, ReadyFields, Server, Target};
use crate::caller::Caller;
use crate::mcp::fields;
use crate::mcp::rpc::Message;
use crate::oauth::{Challenge, Scopes, ServerUrl, challenge, quoted_words};
use crate::outbound::{self, Download, Exchange, Lost, RequestHead};
use crate::token::Digest;

/// A request on its way.
pub(super) struct Errand {
    pub(super) broker: Arc<Broker>,
    pub(super) call: Arc<Entry>,
    pub(super) method: Method,
    pub(super) url: ServerUrl,
    /// Without the fields of the credential.
    pub(super) headers: HeaderMap,
    pub(super) sent: Sent,
    pub(super) body: Kept,
    pub(super) last_byte: Arc<LastByte>,
    pub(super) known: Arc<Known>,
    pub(super) session: Option<Member>,
    /// It is the `initialize` of a client.
    pub(super) opens: bool,
    /// The session whose cookies are sent and kept. `None`: those of the caller outside of sessions.
    pub(super) jar: Option<Key>,
}

/// Why there is no answer to pass on.
pub(super) struct Failed {
    pub(super) told: Told,
    /// What the broker says.
    pub(super) cause: Option<broker::Error>,
    /// What the server says.
    pub(super) said: Option<String>,
}

impl Failed {
    fn no_token(cause: broker::Error) -> Self {
        let told = match cause.is_about_rate() {
            true => Told::new(Why::Rate).retry_after(cause.retry_in().unwrap_or_default()),
            false => Told::no_token(cause.class(), cause.retry_in()),
        };
        let said = cause.said().map(str::to_owned);
        Self { told, cause: Some(cause), said }
    }
}

impl From<Told> for Failed {
    fn from(told: Told) -> Self {
        Self { told, cause: None, said: None }
    }
}

/// What repetitions change.
struct Progress {
    lease: Lease,
    fields: ReadyFields,
    scopes: Option<Scopes>,
    repairs: Repairs,
    begun: Instant,
    tries: u32,
    /// It waits for a failure to pass.
    held: Option<MayWait>,
}

impl Progress {
    fn has_proof(&self) -> bool {
        self.fields.iter().any(|(name, _)| name.as_str() == "dpop")
    }
}

/// Permission to wait for a temporary failure to pass. Only probes need one of their own.
enum MayWait {
    Probe { _held: HeldProbe },
    Other,
}

impl Errand {
    pub(super) fn caller(&self) -> &Caller {
        self.call.record.caller()
    }

    pub(super) fn server(&self) -> &Server {
        &self.call.server
    }

    fn target(&self) -> Target {
        Target::Name(String::from(&*self.server().name))
    }

    /// The caller as the owner of cookies outside of sessions.
    pub(super) fn outside(&self) -> Owner {
        Owner::caller(self.caller().uid, &self.server().name, self.broker.ceiling(self.caller(), self.server()))
    }

    /// Whose cookies are sent and kept.
    pub(super) fn owner(&self) -> Owner {
        self.jar.as_ref().map_or_else(|| self.outside(), Owner::session)
    }

    /// Sends the request until there is an answer for the client.
    pub(super) async fn run(&mut self) -> Result<Response<Download>, Failed> {
        let scopes = self.known.steps.asked(self.caller().uid, &self.server().name);
        let (lease, fields) = self.lease(scopes.as_ref()).await?;
        let (repairs, begun) = (Repairs::default(), Instant::now());
        let mut progress = Progress { lease, fields, scopes, repairs, begun, tries: 0, held: None };
        loop {
            let outcome = self.send(&progress).await?;
            let verdict = self.judge(&outcome, &progress);
            match verdict {
                Verdict::Pass => return outcome.map_err(|_| Told::new(Why::Unreachable).into()),
                Verdict::Tell(told) => return Err(self.give_up(told, outcome.ok(), &progress)),
                Verdict::Reconnect(pause) => {
                    if progress.held.is_none() {
                        progress.held = self.may_wait();
                    }
                    if progress.held.is_none() {
                        return Err(Told::new(Why::Unreachable).into());
                    }
                    progress.tries += 1;
                    tokio::time::sleep(pause).await;
                    progress.fields = self.sign(&progress.lease)?;
                }
                Verdict::Again(repair) => {
                    self.call.counts.repetitions.inc();
                    // The connection is closed: what is left of this answer is nobody's.
                    drop(outcome);
                    Box::pin(self.repair(repair, &mut progress)).await?;
                }
            }
        }
    }

    /// The credential, within the patience of the client.
    async fn lease(&self, scopes: Option<&Scopes>) -> Result<(Lease, ReadyFields), Failed> {
        let request = broker::Request {
            target: self.target(),
            scopes: scopes.cloned(),
            least: Least::Of(Duration::ZERO),
            fresh: false,
            action: Action::Call,
            helper: false,
            may_be_a_retry: false,
        };
        let (longest, may_wait) = (self.sent.patience(), || self.may_wait());
        let patience = Patience { record: &self.call.record, longest, may_wait };
        self.broker.call(self.caller(), &request, patience, |lease| self.fields(lease)).await.map_err(Failed::no_token)
    }

    /// May the client wait while a temporary failure may pass?
    fn may_wait(&self) -> Option<MayWait> {
        match self.sent {
            Sent::Request(Effect::Probe) => {
                self.known.held_probes.hold(self.caller().uid).map(|held| MayWait::Probe { _held: held })
            }
            _ => Some(MayWait::Other),
        }
    }

    /// The fields for one more try with the same credential.
    fn sign(&self, lease: &Lease) -> Result<ReadyFields, Failed> {
        self.fields(lease).map_err(Failed::no_token)
    }

    fn fields(&self, lease: &Lease) -> Result<ReadyFields, broker::Error> {
        lease.ready(&self.url, || self.head(lease))
    }

    fn head(&self, lease: &Lease) -> Head {
        let is_signed = lease.token.credential.is_signer();
        let body_sha256 = self.body.whole().filter(|_| is_signed).map(|body| Digest::of(body).to_string());
        Head { method: Some(self.method.to_string()), url: self.url.clone(), nonce: None, body_sha256 }
    }

    async fn send(&mut self, progress: &Progress) -> Result<Result<Response<Download>, Lost>, Failed> {
        let Some(body) = self.body.upload(&self.last_byte) else { return Err(Told::new(Why::TooLargeToRepeat).into()) };
        let mut more = Cow::Borrowed(&progress.fields);
        if let Some(field) = self.cookies() {
            more.to_mut().push((COOKIE, field));
        }
        let last_byte = &*self.last_byte;
        let late_at = || last_byte.head_late_at(progress.begun);
        let exchange = Exchange {
            head: RequestHead { method: &self.method, url: self.url.url(), headers: &self.headers, more: &more },
            body,
            named_by: self.server().named_by,
            certificate: progress.lease.token.credential.connection().copied(),
            server: &self.server().name,
            until: (&late_at, IDLE),
        };
        let answer = self.broker.outbound().stream(exchange).await;
        if answer.is_err() && late_at() <= Instant::now() {
            return Err(Told::new(Why::AnswerLost).into());
        }
        last_byte.passed();
        if let Ok(answer) = &answer {
            if progress.has_proof() {
                learn_nonce(&progress.lease, answer.headers());
            }
            self.learn_cookies(answer);
        }
        Ok(answer)
    }

    fn cookies(&self) -> Option<HeaderValue> {
        let mut cookies = self.known.cookies();
        if cookies.is_empty() { None } else { cookies.field(&self.owner(), self.url.url(), self.known.now()) }
    }

    fn learn_cookies(&self, answer: &Response<Download>) {
        let session = self.opened(answer).map(|key| Owner::session(&key));
        if let Some(session) = &session {
            self.known.cookies().begin(session, &self.owner());
        }
        if fields::all(answer.headers(), &SET_COOKIE).next().is_some() {
            let owner = session.unwrap_or_else(|| self.owner());
            self.known.cookies().learn(&owner, answer.headers(), self.url.url(), self.known.now());
        }
    }

    /// The session that the answer to the `initialize` of a client has opened.
    pub(super) fn opened<B>(&self, answer: &Response<B>) -> Option<Key> {
        if !self.opens || !answer.status().is_success() {
            return None;
        }
        let id = session_id(answer.headers())?;
        Some(Key { uid: self.caller().uid, server: Arc::clone(&self.server().name), id })
    }

    fn judge(&self, outcome: &Result<Response<Download>, Lost>, progress: &Progress) -> Verdict {
        if outcome.as_ref().is_ok_and(|answer| !matches!(answer.status().as_u16(), 300..=399 | 401 | 403)) {
            return Verdict::Pass;
        }
        let Progress { lease, scopes, repairs, .. } = progress;
        let body = if self.body.whole().is_some() { Body::InHand } else { Body::Gone };
        let ceiling = self.broker.ceiling(self.caller(), self.server());
        let refused = self.known.steps.refused(self.caller().uid, &self.server().name);
        let attempt = Attempt {
            sent: self.sent,
            body,
            repairs: *repairs,
            token: TokenAge::of(lease.age(), lease.token.life),
            has_proof: progress.has_proof(),
            scopes: verdict::Steps {
                requested: scopes.as_ref().unwrap_or(&lease.token.scopes),
                ceiling: ceiling.as_ref(),
                refused: &refused,
            },
        };
        match outcome {
            Ok(answer) => {
                let challenge = challenge_of(answer.headers());
                let answer =
                    verdict::Answer { status: answer.status().as_u16(), challenge: &challenge, remediation: None };
                verdict::answered(answer, &attempt)
            }
            Err(lost) => {
                debug!(server = %self.server().name, error = %lost.error, "no answer");
                let written = match lost.sent {
                    outbound::Sent::Nothing => Written::Nothing,
                    outbound::Sent::Perhaps => Written::Something,
                };
                let (since_first, tries) = (progress.begun.elapsed(), progress.tries);
                let failure = verdict::Failure { class: class_of(&lost.error), written, since_first, tries };
                verdict::failed(failure, &attempt)
            }
        }
    }

    async fn repair(&self, repair: Repair, progress: &mut Progress) -> Result<(), Failed> {
        let repairs = &mut progress.repairs;
        match repair {
            Repair::Nothing => repairs.losses += 1,
            Repair::NewProof => repairs.proofs += 1,
            Repair::NewToken => {
                repairs.tokens += 1;
                self.reject(&progress.lease);
                (progress.lease, progress.fields) = self.lease(progress.scopes.as_ref()).await?;
                return Ok(());
            }
            Repair::Scopes(next) => {
                repairs.steps += 1;
                return self.step_up(next, progress).await;
            }
        }
        progress.fields = self.sign(&progress.lease)?;
        Ok(())
    }

    /// Asks for more scopes. If the issuer refuses them, the client is told, and they are not asked for again for a while.
    async fn step_up(&self, next: Scopes, progress: &mut Progress) -> Result<(), Failed> {
        let (uid, name) = (self.caller().uid, &self.server().name);
        match self.lease(Some(&next)).await {
            Ok((lease, fields)) => {
                self.known.steps.granted(uid, name, &next);
                (progress.lease, progress.fields, progress.scopes) = (lease, fields, Some(next));
                Ok(())
            }
            Err(failed) if failed.told.class == Class::Refused => {
                self.known.steps.note_refused(uid, name, next);
                Err(Failed { told: Told::new(Why::ScopeRefused), ..failed })
            }
            Err(failed) => Err(failed),
        }
    }

    fn reject(&self, lease: &Lease) {
        let target = self.target();
        // A refusal is recorded, and the next token is then the one that is cached.
        drop(self.broker.reject(self.caller(), &target, &lease.token.digest));
    }

    /// The error for the client, after what has to be done all the same.
    fn give_up(&self, told: Told, answer: Option<Response<Download>>, progress: &Progress) -> Failed {
        match &told.then {
            Some(Repair::NewToken) => self.reject(&progress.lease),
            Some(Repair::Scopes(next)) => self.known.steps.granted(self.caller().uid, &self.server().name, next),
            Some(Repair::NewProof | Repair::Nothing) | None => {}
        }
        let said = answer.and_then(|answer| {
            // Where it sends its clients, or what its challenge says.
            let place = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok()).map(quoted_words);
            place.or_else(|| challenge_of(answer.headers()).words)
        });
        Failed { told, cause: None, said }
    }
}

fn learn_nonce(lease: &Lease, headers: &HeaderMap) {
    if let Some(nonce) = headers.get("dpop-nonce").and_then(|value| value.to_str().ok()) {
        lease.learn_nonce(nonce);
    }
}

fn challenge_of(headers: &HeaderMap) -> Challenge {
    challenge::read(&headers.get_all(hyper::header::WWW_AUTHENTICATE))
}

fn class_of(error: &outbound::Error) -> Class {
    match error {
        outbound::Error::NotAllowed { .. }
        | outbound::Error::Forbidden { kind: outbound::Kind::Unlisted, .. }
        | outbound::Error::InsecureLoopback { .. } => Class::Denied,
        outbound::Error::Roots { .. } => Class::Config,
        error if error.is_temporary() => Class::Temporary,
        _ => Class::Refused,
    }
}

/// What a request is, whom an answer goes to, and the tool that it calls. A large body is told by its beginning.
pub(super) fn sent<'b>(method: &Method, body: &'b [u8]) -> (Sent, super::refused::To, Option<Cow<'b, str>>) {
    use super::refused::To;
    match *method {
        Method::GET | Method::HEAD => (Sent::Stream, To::Nobody, None),
        Method::DELETE => (Sent::End, To::Nobody, None),
        _ => {
            let message = Message::read(body);
            let sent = Sent::posted(&message);
            let to = match (sent, message.id) {
                (Sent::Notification | Sent::Response, _) => To::Nobody,
                (_, Some(id)) => To::Request(id),
                (_, None) => To::Unknown,
            };
            (sent, to, message.tool)
        }
    }
}
