//! The data path: what happens between a local MCP client and an MCP server.
//!
//! A client speaks to `/mcp/NAME` without a token. [`Relay::answer`] finds the server of that name for this caller, checks the
//! head ([`head`]), reads the body as far as it can be kept for a repetition ([`kept`]), and sends the request with the
//! credential ([`exchange`]). The answer streams back ([`stream`]). A client never sees a 401, a challenge or a redirect: what is
//! not passed on becomes an error of ours ([`refused`]).
//!
//! [`verdict`] decides what an answer or a failure leads to, and [`session`] how a session is replaced that the server has lost;
//! both are pure. [`heal`] and [`reopen`] carry it out: a client sees neither a lost session nor a stream that broke where it
//! could be resumed. [`lesson`] keeps what that takes, and [`cookies`] what balancers need.

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{CONTENT_LENGTH, HOST};
use hyper::{HeaderMap, Method, Response, StatusCode, Uri, Version};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, Server, Target};
use crate::caller::Caller;
use crate::clock::Clock;
use crate::mcp::fields;
use crate::mcp::rpc::Message;
use crate::metrics::Metrics;
use crate::outbound::Upload;

mod cookies;
mod exchange;
mod head;
mod heal;
mod held;
mod idle;
mod kept;
mod known;
mod lesson;
mod member;
mod open;
mod peeked;
mod probes;
mod refused;
mod reopen;
pub(crate) mod session;
mod steps;
mod stream;
pub(crate) mod verdict;

use exchange::{Errand, Failed};
use head::Place;
use held::Held;
use kept::{Budget, Cut, Kept, Share};
use known::Known;
use lesson::Lesson;
use member::Member;
use open::{End, OpenCall, OpenCalls};
pub(crate) use refused::Refused;
use refused::To;
use session::{Key, Route};
use stream::{Events, Json, LastWord, Notices, Relayed, Shape, Waiting};
use verdict::{Effect, Form, ProbeErrors, Sent, Told, Why};

/// The body of an answer, which streams.
pub(crate) type Streamed = Pin<Box<dyn Body<Data = Bytes, Error = io::Error> + Send>>;

/// What the data path remembers between requests.
pub(crate) struct Relay {
    budget: Arc<Budget>,
    probes: Mutex<ProbeErrors>,
    known: Arc<Known>,
    open: Arc<OpenCalls>,
    metrics: Arc<Metrics>,
    clock: Clock,
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
    pub(crate) fn new(
        clock: Clock,
        own_uid: u32,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        let (budget, probes) = Default::default();
        let (known, open) = (Arc::new(Known::new(clock.clone(), tasks)), Arc::new(OpenCalls::new(stop)));
        Self { budget, probes, known, open, metrics, clock, own_uid }
    }

    /// Ends the calls that the configuration of this broker does not permit.
    pub(crate) fn judge_anew(&self, broker: &Broker) {
        self.open.judge(broker);
    }

    /// Ends the calls that have no answer yet, and those that come.
    pub(crate) fn end(&self) {
        self.open.end();
    }

    /// Relays one request, and gives the answer of its server. What has to be refused is refused before the body is read, where
    /// that can be told.
    pub(crate) async fn answer(&self, call: Call<'_>) -> Result<Response<Streamed>, Box<Refused>> {
        let (server, below) = self.place(&call)?;
        let open = self.open.begin((call.broker, &self.metrics), call.caller, &server);
        let answered = tokio::select! {
            biased;
            answered = self.relayed(call, &server, below, &open) => answered,
            end = open.ended() => Err(ended(end, &open, &server)),
        };
        match answered {
            Ok(answer) => Ok(open.answer(answer)),
            Err(refused) => Err(open.refused(refused)),
        }
    }

    async fn relayed(
        &self,
        call: Call<'_>,
        server: &Arc<Server>,
        below: &str,
        open: &OpenCall,
    ) -> Result<Response<Streamed>, Box<Refused>> {
        let server = Arc::clone(server);
        let Call { broker, caller, method, target, headers, body } = call;
        head::check(&method, &headers, !body.is_end_stream()).map_err(Refused::head)?;
        let url = head::url(&server.url, below, target).map_err(Refused::head)?;
        let outer = server.front_door.as_ref().map(|door| &*door.header);
        let headers = head::to_server(headers, outer).map_err(Refused::head)?;
        let session = self.member(caller, &server, &headers)?;
        let body = Kept::read(body, Share::new(&self.budget, caller.uid)).await.map_err(|cut| {
            Refused::body(match cut {
                Cut::Broken => "the body of the request broke off, or is malformed",
                Cut::Idle => "the body of the request did not come",
            })
        })?;
        let (sent, to, tool) = exchange::sent(&method, body.beginning());
        let to = open.asked(sent, to);
        if sent == Sent::Request(Effect::ToolCall) && broker.records() {
            open.entry.record.calls(tool.map(Cow::into_owned));
        }
        if let Some(told) = self.told_before(caller, &server, sent, body.beginning()) {
            return Err(refusal(told.into(), |class| sent.form(class), &server, to));
        }
        let jar = session.as_ref().map(|member| member.key.clone());
        let (broker, call, known) = (Arc::clone(broker), Arc::clone(&open.entry), Arc::clone(&self.known));
        let (last_byte, opens) = (Arc::default(), false);
        let mut errand =
            Errand { broker, call, method, url, headers, sent, body, last_byte, known, session, opens, jar };
        let lesson = Lesson::of(&mut errand);
        match errand.answer().await {
            Ok(answer) => Ok(self.pass(answer, errand, (to, open), lesson)),
            Err(failed) => self.fail(failed, errand, (to, open.stop())),
        }
    }

    /// The session that a request says it belongs to.
    fn member(&self, caller: &Caller, server: &Server, headers: &HeaderMap) -> Result<Option<Member>, Box<Refused>> {
        let Some(id) = member::session_id(headers) else { return Ok(None) };
        let key = Key { uid: caller.uid, server: Arc::clone(&server.name), id };
        match self.known.sessions().route(&key) {
            Route::Foreign => Err(Box::new(Refused::no_session())),
            _ => Ok(Some(Member { key, epoch: None })),
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
    fn pass(
        &self,
        answer: Response<Streamed>,
        errand: Errand,
        (to, open): (&To, &OpenCall),
        lesson: Option<Lesson>,
    ) -> Response<Streamed> {
        let listener = lesson.and_then(|lesson| lesson.listener(&errand, &answer));
        let (mut head, body) = answer.into_parts();
        let is_stream = reopen::is_stream(StatusCode::OK, &head.headers) && body.size_hint().exact().is_none();
        let is_json =
            !is_stream && fields::is_media(&head.headers, "application/json") && fields::is_unencoded(&head.headers);
        head.headers = head::to_client(head.headers);
        if let Some(member) = errand.session.as_ref().filter(|member| member.epoch.is_some()) {
            member::show_own_id(&mut head.headers, &member.key.id);
        }
        head.extensions.clear();
        // The client's connection has a version of its own.
        head.version = Version::HTTP_11;
        let waiting = |listener| match to {
            To::Request(id) if errand.sent != Sent::Stream => {
                let last_word = last_word(&errand, to.clone());
                Some(Waiting { id: id.clone(), last_word, listener })
            }
            _ => None,
        };
        let last_byte = Arc::clone(&errand.last_byte);
        let body = if is_stream && errand.sent == Sent::Stream {
            held::joined(body, errand, open.stop())
        } else if is_stream {
            let waiting = waiting(listener);
            let notices = errand.session.as_ref().map(|member| Notices::new(&self.known, member.key.clone()));
            let shape = Shape::Events(Box::new(Events::new(errand.sent, waiting, notices)));
            Relayed::new(body, last_byte, Some(open.stop()), shape).with_again(reopen::request(errand))
        } else if is_json {
            let waiting = listener.and_then(|listener| waiting(Some(listener)));
            Relayed::new(body, last_byte, None, Shape::Json(Json::new(waiting)))
        } else {
            if let Some(listener) = listener {
                listener(None);
            }
            Relayed::new(body, last_byte, None, Shape::Plain)
        };
        Response::from_parts(head, Box::pin(body))
    }

    fn fail(
        &self,
        failed: Failed,
        errand: Errand,
        (to, stop): (&To, CancellationToken),
    ) -> Result<Response<Streamed>, Box<Refused>> {
        if errand.sent == Sent::Request(Effect::Probe) && is_method(errand.body.beginning(), "server/discover") {
            let (uid, told) = (errand.caller().uid, failed.told.clone());
            self.lock_probes().note(uid, &errand.server().name, told, self.clock.boot());
        }
        match errand.sent.form(failed.told.class) {
            Form::Hold => Ok(held::answer(Held::new(errand, stop))),
            _ => Err(refusal(failed, |class| errand.sent.form(class), errand.server(), to)),
        }
    }
}

/// The answer to a call that has to end before the server has answered it.
fn ended(end: End, open: &OpenCall, server: &Server) -> Box<Refused> {
    let (sent, to) = match (end, open.what()) {
        (End::Removed { .. }, _) => return Box::new(Refused::not_found()),
        (End::Late, Some((sent, to))) => (*sent, to.clone()),
        // Its body is not there yet.
        (End::Late, None) => (Sent::Notification, To::Nobody),
    };
    let why = if sent == Sent::Request(Effect::ToolCall) { Why::ToolMayHaveRun } else { Why::Ending };
    let form = |class| match sent.form(class) {
        // Nothing is held now.
        Form::Hold => Form::Unavailable,
        form => form,
    };
    refusal(Told::new(why).into(), form, server, &to)
}

/// The fields of a client's request to `/mcp/NAME` that may go on to another daemon of ours, which relays it.
pub(crate) fn fields_to_pass(method: &Method, fields: HeaderMap, has_body: bool) -> Result<HeaderMap, Box<Refused>> {
    head::check(method, &fields, has_body).map_err(Refused::head)?;
    let mut fields = head::to_server(fields, None).map_err(Refused::head)?;
    for name in [HOST, CONTENT_LENGTH] {
        fields.remove(name);
    }
    Ok(fields)
}

/// The fields of that daemon's answer that may go on to the client.
pub(crate) fn fields_to_client(fields: HeaderMap) -> HeaderMap {
    head::to_client(fields)
}

fn is_method(body: &[u8], method: &str) -> bool {
    Message::read(body).method.as_deref() == Some(method)
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
fn last_word(errand: &Errand, to: To) -> LastWord {
    let call = Arc::clone(&errand.call);
    Box::new(move |told| {
        let (server, request_id) = (&call.server.name, call.record.id());
        let mut refused = Refused::told(&told, Form::Answer, server, None);
        refused.to = to;
        request_id.clone_into(&mut refused.request_id);
        let json = refused.to_json();
        tracing::warn!(%server, request_id, "an event stream broke off before its answer");
        json
    })
}
