//! The data path: what happens between a local MCP client and an MCP server.
//!
//! A client speaks to `/mcp/NAME` without a token. [`Relay::answer`] finds the server of that name for this caller, checks the
//! head ([`head`]), reads the body as far as it can be kept for a repetition ([`kept`]), and sends the request with the
//! credential ([`exchange`]). The answer streams back ([`stream`]). A client never sees a 401, a challenge or a redirect: what is
//! not passed on becomes an error of ours ([`refused`]).
//!
//! [`verdict`] decides what an answer or a failure leads to. [`session`] keeps what is needed to replace a session that the
//! server has lost. Both are pure.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::body::Body;
use hyper::{HeaderMap, Method, Response, Uri, Version};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Server, Target};
use crate::caller::Caller;
use crate::clock::Clock;
use crate::outbound::{Download, Upload};

mod exchange;
mod head;
mod held;
mod idle;
mod kept;
mod refused;
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "sessions are not healed yet"))]
pub(crate) mod session;
mod steps;
mod stream;
#[cfg_attr(not(test), expect(dead_code, reason = "streams are not resumed yet"))]
pub(crate) mod verdict;

use exchange::{Errand, Failed};
use head::Place;
use held::Held;
use idle::LastByte;
use kept::{Budget, Cut, Kept, Share};
pub(crate) use refused::Refused;
use refused::To;
use steps::Steps;
use stream::{Events, LastWord, Relayed};
use verdict::{Effect, Form, ProbeErrors, Sent, Told, Why};

/// The body of an answer, which streams.
pub(crate) type Streamed = Pin<Box<dyn Body<Data = Bytes, Error = io::Error> + Send>>;

/// What the data path remembers between requests.
pub(crate) struct Relay {
    budget: Arc<Budget>,
    steps: Arc<Steps>,
    probes: Mutex<ProbeErrors>,
    clock: Clock,
    /// Ends event streams when the daemon ends.
    stop: CancellationToken,
    own_uid: u32,
}

/// One request of a client.
pub(crate) struct Call<'a> {
    pub(crate) broker: &'a Arc<Broker>,
    pub(crate) caller: &'a Caller,
    pub(crate) method: Method,
    pub(crate) target: &'a Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Upload,
}

impl Relay {
    pub(crate) fn new(clock: Clock, own_uid: u32, stop: CancellationToken) -> Self {
        let (budget, steps, probes) = Default::default();
        Self { budget, steps, probes, clock, stop, own_uid }
    }

    /// Relays one request, and gives the answer of its server. What has to be refused is refused before the body is read, where
    /// that can be told.
    pub(crate) async fn answer(&self, call: Call<'_>) -> Result<Response<Streamed>, Box<Refused>> {
        let (server, below) = self.place(&call)?;
        let Call { broker, caller, method, target, headers, body } = call;
        head::check(&method, &headers, !body.is_end_stream()).map_err(Refused::head)?;
        let url = head::url(&server.url, below, target).map_err(Refused::head)?;
        let outer = server.front_door.as_ref().map(|door| &*door.header);
        let headers = head::to_server(&headers, outer).map_err(Refused::head)?;
        let body = Kept::read(body, Share::new(&self.budget, caller.uid)).await.map_err(|cut| {
            Refused::body(match cut {
                Cut::Broken => "the body of the request broke off, or is malformed",
                Cut::Idle => "the body of the request did not come",
            })
        })?;
        let (sent, to) = exchange::sent(&method, body.beginning());
        if let Some(told) = self.told_before(caller, &server, sent, body.beginning()) {
            return Err(refusal(told.into(), |class| sent.form(class), &server, &to));
        }
        let (last_byte, steps) = (Arc::<LastByte>::default(), Arc::clone(&self.steps));
        let (broker, caller, name) = (Arc::clone(broker), caller.clone(), Arc::clone(&server));
        let mut errand = Errand { broker, caller, server, method, url, headers, sent, body, last_byte, steps };
        match errand.run().await {
            Ok(answer) => Ok(self.pass(answer, &errand, &to)),
            Err(failed) => self.fail(failed, errand, &name, to),
        }
    }

    /// The server that the path names, if this caller may know of it, and what is below it.
    fn place<'a>(&self, call: &Call<'a>) -> Result<(Arc<Server>, &'a str), Box<Refused>> {
        let place = Place::of(call.target.path()).map_err(Refused::head)?;
        let Place { name, below } = place.ok_or_else(Refused::not_found)?;
        let server = call.broker.configured(call.caller, &Target::Name(name.to_owned()));
        let is_known = |server: &Arc<Server>| call.broker.may_know_of(call.caller, self.own_uid, &server.name);
        let server = server.ok().filter(is_known).ok_or_else(Refused::not_found)?;
        Ok((server, below))
    }

    fn lock_probes(&self) -> MutexGuard<'_, ProbeErrors> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error that this caller was given on the probe just before, so that a passing failure moves nobody to another wire.
    fn told_before(&self, caller: &Caller, server: &Server, sent: Sent, body: &[u8]) -> Option<Told> {
        let is_initialize = sent == Sent::Request(Effect::Probe) && is_method(body, "initialize");
        if !is_initialize {
            return None;
        }
        self.lock_probes().for_initialize(caller.uid, &server.name, self.clock.boot()).cloned()
    }

    /// The answer of the server, as the client gets it.
    fn pass(&self, answer: Response<Download>, errand: &Errand, to: &To) -> Response<Streamed> {
        let (mut head, body) = answer.into_parts();
        let is_stream = head::is_media(&head.headers, "text/event-stream") && head::is_unencoded(&head.headers);
        let has_length = body.size_hint().exact().is_some();
        head.headers = head::to_client(&head.headers);
        head.extensions.clear();
        // The client's connection has a version of its own.
        head.version = Version::HTTP_11;
        let waiting = match to {
            To::Request(id) if errand.sent != Sent::Stream => Some((id.clone(), last_word(errand, to))),
            _ => None,
        };
        let events = (is_stream && !has_length).then(|| Events::new(waiting));
        let body = Relayed::new(body, Arc::clone(&errand.last_byte), self.stop.clone(), events);
        Response::from_parts(head, Box::pin(body))
    }

    fn fail(
        &self,
        failed: Failed,
        errand: Errand,
        server: &Arc<Server>,
        to: To,
    ) -> Result<Response<Streamed>, Box<Refused>> {
        if errand.sent == Sent::Request(Effect::Probe) && is_method(errand.body.beginning(), "server/discover") {
            let (uid, told) = (errand.caller.uid, failed.told.clone());
            self.lock_probes().note(uid, &server.name, told, self.clock.boot());
        }
        match errand.sent.form(failed.told.class) {
            Form::Hold => Ok(held::answer(Held::new(errand, self.stop.clone()))),
            _ => Err(refusal(failed, |class| errand.sent.form(class), server, &to)),
        }
    }
}

fn is_method(body: &[u8], method: &str) -> bool {
    crate::mcp::rpc::Message::read(body).method.as_deref() == Some(method)
}

/// What a client is told, in the form of what it sent.
fn refusal(failed: Failed, form: impl FnOnce(crate::broker::Class) -> Form, server: &Server, to: &To) -> Box<Refused> {
    let form = form(failed.told.class);
    let mut refused = Refused::told(&failed.told, form, &server.name, failed.cause.as_ref());
    refused.said = failed.said;
    refused.to = if form == Form::Answer { to.clone() } else { To::Nobody };
    Box::new(refused)
}

/// The event for a client whose answer breaks off.
fn last_word(errand: &Errand, to: &To) -> LastWord {
    let why = if errand.sent == Sent::Request(Effect::ToolCall) { Why::ToolMayHaveRun } else { Why::AnswerLost };
    let (server, to) = (Arc::clone(&errand.server.name), to.clone());
    Box::new(move || {
        let mut refused = Refused::told(&Told::new(why), Form::Answer, &server, None);
        refused.to = to;
        let (json, request_id) = refused.to_json();
        tracing::warn!(%server, request_id, "an event stream broke off before its answer");
        json
    })
}
