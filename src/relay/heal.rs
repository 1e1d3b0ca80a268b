//! A request within its session: it is sent with the id that the server knows, and a session that the server has lost is
//! replaced before the client hears of it ([`super::session`] decides, this carries it out).

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Response};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Streamed;
use super::cookies::Owner;
use super::exchange::{Errand, Failed};
use super::kept::Kept;
use super::known::Known;
use super::member::{Member, put, session_id};
use super::peeked::{self, Code};
use super::session::{self, Key, Loss, Next, Offer, Plan, Reopened, Route, SessionId, Step};
use super::verdict::{Effect, Sent, Told, Why};
use crate::mcp::fields::{LAST_EVENT_ID, PROTOCOL_VERSION, SESSION_ID};
use crate::mcp::rpc::Message;
use crate::outbound::Download;

/// One attempt to send a request.
#[derive(Clone, Copy)]
struct Turn {
    /// Until when its client waits.
    deadline: Instant,
    /// It was sent before.
    is_second: bool,
}

/// In which session a request of ours is sent, and in which version.
#[derive(Clone, Copy, Default)]
struct Within<'a> {
    id: Option<&'a SessionId>,
    version: Option<&'a str>,
}

/// What an answer leads to.
enum Look {
    Pass(Response<Streamed>),
    Again,
}

/// How healing ended.
enum Healed {
    Live,
    Different,
    /// There is no new session.
    Failed,
}

pub(super) fn boxed(answer: Response<Download>) -> Response<Streamed> {
    answer.map(|body| -> Streamed { Box::pin(body) })
}

impl Errand {
    /// Sends the request within its session, until there is an answer for the client.
    pub(super) async fn answer(&mut self) -> Result<Response<Streamed>, Failed> {
        let mut is_second = false;
        loop {
            self.enter().await?;
            let answer = self.run().await?;
            match self.look(answer, is_second).await? {
                Look::Pass(answer) => return Ok(answer),
                Look::Again => {
                    self.call.counts.repetitions.inc();
                    is_second = true;
                }
            }
        }
    }

    /// Until when its client waits from now on.
    fn deadline(&self) -> Instant {
        Instant::now() + self.sent.patience()
    }

    /// Puts the id into the request that stands for the client's at the server.
    async fn enter(&mut self) -> Result<(), Failed> {
        let Some(key) = self.session.as_ref().map(|member| member.key.clone()) else { return Ok(()) };
        let mut turns = self.known.turns();
        let deadline = self.deadline();
        loop {
            let route = self.known.sessions().route(&key);
            match route {
                Route::Upstream { id, epoch } => {
                    self.join(id.as_ref(), epoch);
                    return Ok(());
                }
                Route::Unknown => return Ok(()),
                // Its end is asked for, and there is none to open.
                Route::Different | Route::Healing if self.sent == Sent::End => return Ok(()),
                // It became another user's while this request was on its way.
                Route::Different | Route::Foreign => return Err(Told::new(Why::CameBackDifferent).into()),
                Route::Healing => {
                    if timeout_at(deadline, turns.changed()).await.is_err() {
                        return Err(Told::new(Why::Unreachable).into());
                    }
                }
            }
        }
    }

    fn join(&mut self, id: Option<&SessionId>, epoch: u32) {
        if self.session.as_ref().is_some_and(|member| member.epoch.is_some_and(|before| before != epoch)) {
            // Event ids are those of one session.
            self.headers.remove(LAST_EVENT_ID);
        }
        put(&mut self.headers, &SESSION_ID, id.map(SessionId::as_str));
        if let Some(member) = &mut self.session {
            member.epoch = Some(epoch);
        }
    }

    /// Looks whether an answer means that the session is lost. If so, it is replaced.
    async fn look(&mut self, answer: Response<Download>, is_second: bool) -> Result<Look, Failed> {
        let Some(Member { key, epoch }) = self.session.clone() else { return Ok(Look::Pass(boxed(answer))) };
        if self.sent == Sent::End {
            self.known.sessions().ended(&key);
            self.known.cookies().forget(&self.owner());
            return Ok(Look::Pass(boxed(answer)));
        }
        if epoch.is_none() && answer.status().is_success() {
            self.adopt(key);
            return Ok(Look::Pass(boxed(answer)));
        }
        if epoch.is_none() && self.known.sessions().is_ended(&key) {
            return Ok(Look::Pass(boxed(answer)));
        }
        if session::loss(self.sent, answer.status().as_u16(), None) == Loss::No {
            return Ok(Look::Pass(boxed(answer)));
        }
        let turn = Turn { deadline: self.deadline(), is_second };
        Box::pin(self.look_closer(Member { key, epoch }, answer, turn)).await
    }

    /// The same for an answer that may mean it.
    async fn look_closer(
        &mut self,
        Member { key, epoch }: Member,
        answer: Response<Download>,
        turn: Turn,
    ) -> Result<Look, Failed> {
        let status = answer.status().as_u16();
        let (answer, code) = peeked::code(answer, turn.deadline).await;
        // An event id that the server does not know is refused alike.
        let has_event = self.headers.contains_key(LAST_EVENT_ID);
        let is_lost = match (code, session::loss(self.sent, status, code.read())) {
            (_, Loss::No) => false,
            (Code::Read(_), Loss::Lost) if !has_event => true,
            (_, Loss::Lost | Loss::Perhaps) => timeout_at(turn.deadline, self.is_ping_refused()).await.unwrap_or(false),
        };
        if is_lost {
            if epoch.is_none() {
                self.adopt(key.clone());
            }
            return self.replace((&key, epoch.unwrap_or_default()), answer, turn).await;
        }
        // The id may be one of the session before.
        if has_event && epoch.is_some_and(|epoch| epoch > 0) {
            self.headers.remove(LAST_EVENT_ID);
            return Ok(Look::Again);
        }
        Ok(Look::Pass(answer))
    }

    /// An id that was never seen is one from before our start.
    fn adopt(&self, key: Key) {
        let version = self.headers.get(PROTOCOL_VERSION).and_then(|version| version.to_str().ok());
        self.known.sessions().adopted(key, version);
    }

    /// The session is lost: it is opened anew, by this request or by another one.
    async fn replace(
        &self,
        (key, epoch): (&Key, u32),
        refusal: Response<Streamed>,
        turn: Turn,
    ) -> Result<Look, Failed> {
        let mut turns = self.known.turns();
        loop {
            let next = self.known.sessions().lost(key, epoch, turn.is_second);
            match next {
                Next::Pass => return Ok(Look::Pass(refusal)),
                Next::Wait if waited(&mut turns, turn.deadline).await => {}
                Next::Wait => return Ok(Look::Pass(refusal)),
                Next::Repeat => break,
                Next::Heal(plan) => match self.healing(key, plan, turn.deadline).await {
                    Healed::Live => {
                        self.call.counts.heals.inc();
                        break;
                    }
                    Healed::Different => break,
                    Healed::Failed => return Ok(Look::Pass(refusal)),
                },
            }
        }
        // A session that came back different is told at the entrance.
        let is_whole = self.body.whole().is_some();
        if is_whole { Ok(Look::Again) } else { Err(Told::new(Why::TooLargeToRepeat).into()) }
    }

    /// Carries out the plan, to its end also if the client of this request hangs up: others wait for the same session, and a
    /// session that was opened for nobody would stay at the server.
    async fn healing(&self, key: &Key, plan: Plan, deadline: Instant) -> Healed {
        let (healer, key) = (self.own(Method::POST, "", self.sent, Within::default()), key.clone());
        let healing = async move { timeout_at(deadline, healer.heal(&key, plan)).await };
        match self.known.tasks.spawn(healing).await {
            Ok(Ok(healed)) => healed,
            Ok(Err(_)) | Err(_) => Healed::Failed,
        }
    }

    /// Sends the steps of the plan.
    async fn heal(&self, key: &Key, plan: Plan) -> Healed {
        let guard = Healing { known: &self.known, key };
        let server = &*self.server().name;
        self.known.cookies().begin(&Owner::session(key), &self.outside());
        let mut steps = plan.0.into_iter();
        let Some(Step::Initialize(body)) = steps.next() else { return Healed::Failed };
        let Some((id, offer)) = self.initialize(&body).await else {
            tracing::warn!(server, "the server lost a session, and does not open another one");
            return Healed::Failed;
        };
        let reopened = self.known.sessions().reopened(key, &offer);
        let opened = match reopened {
            Reopened::Equal => self.prepare(steps, id.as_ref(), &offer).await,
            Reopened::Different | Reopened::Gone => false,
        };
        let version = offer.version().to_owned();
        if opened && self.known.sessions().healed(key, id.clone(), offer) {
            tracing::info!(server, "the server lost a session, which was opened again");
            return Healed::Live;
        }
        // What was opened is nobody's. Others need not wait for its end.
        drop(guard);
        if let Some(id) = &id {
            let within = Within { id: Some(id), version: Some(&version) };
            drop(Box::pin(self.own(Method::DELETE, "", Sent::End, within).run()).await);
        }
        if reopened == Reopened::Different {
            tracing::warn!(server, "the server lost a session and came back different");
            return Healed::Different;
        }
        Healed::Failed
    }

    /// Opens a session, and gives its id and what the server offers.
    async fn initialize(&self, body: &str) -> Option<(Option<SessionId>, Offer)> {
        let request = Message::read(body.as_bytes()).id?;
        let outside = Within::default();
        let mut opening = self.own(Method::POST, body, Sent::Request(Effect::Probe), outside);
        let answer = Box::pin(opening.run()).await.ok()?;
        let id = session_id(answer.headers());
        if !answer.status().is_success() {
            return None;
        }
        let message = peeked::message(answer, &request).await?;
        Some((id, Offer::read(&message)?))
    }

    /// Brings the new session to where the old one was.
    async fn prepare(&self, steps: impl Iterator<Item = Step>, id: Option<&SessionId>, offer: &Offer) -> bool {
        let within = Within { id, version: Some(offer.version()) };
        for step in steps {
            let sent = match &step {
                Step::Initialize(_) | Step::Initialized(_) => Sent::Notification,
                Step::Subscribe(_) | Step::SetLevel(_) => Sent::Request(Effect::Harmless),
            };
            let mut own = self.own(Method::POST, step.body(), sent, within);
            let Ok(answer) = Box::pin(own.run()).await else { return false };
            let is_refused = !answer.status().is_success();
            match Message::read(step.body().as_bytes()).id {
                // What is refused is gone, and is not needed to go on.
                Some(request) => drop(peeked::message(answer, &request).await),
                None if is_refused => return false,
                None => {}
            }
        }
        true
    }

    /// Does the server refuse the session whatever is asked?
    async fn is_ping_refused(&self) -> bool {
        let ping = std::str::from_utf8(session::ping()).unwrap_or_default();
        let mut ping = self.own(Method::POST, ping, Sent::Request(Effect::Harmless), Within::default());
        for name in [SESSION_ID, PROTOCOL_VERSION] {
            if let Some(value) = self.headers.get(&name) {
                ping.headers.insert(name, value.clone());
            }
        }
        let Ok(answer) = Box::pin(ping.run()).await else { return false };
        let status = answer.status().as_u16();
        if !session::is_refused(status, None) {
            return false;
        }
        let deadline = ping.deadline();
        session::is_refused(status, peeked::code(answer, deadline).await.1.read())
    }

    /// A request of ours beside this one, with its other fields.
    fn own(&self, method: Method, body: &str, sent: Sent, within: Within<'_>) -> Self {
        let mut headers = self.headers.clone();
        for name in self.headers.keys().filter(|name| is_of_request(name)) {
            headers.remove(name);
        }
        if method == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        put(&mut headers, &SESSION_ID, within.id.map(SessionId::as_str));
        put(&mut headers, &PROTOCOL_VERSION, within.version);
        Self {
            broker: Arc::clone(&self.broker),
            call: Arc::clone(&self.call),
            method,
            url: self.url.clone(),
            headers,
            sent,
            body: Kept::own(Bytes::copy_from_slice(body.as_bytes())),
            last_byte: Arc::default(),
            known: Arc::clone(&self.known),
            session: None,
            opens: false,
            jar: self.jar.clone(),
        }
    }
}

/// Waits until the healing of some session is over.
async fn waited(turns: &mut watch::Receiver<()>, deadline: Instant) -> bool {
    timeout_at(deadline, turns.changed()).await.is_ok()
}

/// Fields that describe one request of the client and not the client.
fn is_of_request(name: &HeaderName) -> bool {
    let begins = ["mcp-", "content-", "accept", "if-"].iter().any(|begin| name.as_str().starts_with(begin));
    begins || *name == LAST_EVENT_ID || *name == hyper::header::RANGE
}

/// Healing is over when this is dropped, also if its time ran out.
struct Healing<'a> {
    known: &'a Known,
    key: &'a Key,
}

impl Drop for Healing<'_> {
    fn drop(&mut self) {
        // Nothing, if it was healed.
        self.known.sessions().failed(self.key);
        self.known.turn();
    }
}
