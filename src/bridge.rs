//! The process of `safeconduct stdio`: an MCP server on stdin and stdout that is the remote one.
//!
//! It speaks to a `/mcp/NAME` alone, that of the daemon or one of its own process ([`Origin`]), where the credential is added. So
//! it holds no token, and knows neither configuration nor TLS.
//!
//! A line of the client ([`input`]) is sent as it is, each message by a task of its own ([`post`]), so that a slow call holds
//! nothing up. An answer is one message or a stream of them ([`events`]); each becomes one line ([`message`], [`output`]). Who
//! may answer a request is settled in [`requests`], so that it is answered once. [`eras`] translates where client and server speak
//! different wires, and [`stateless`] passes on what both speak since 2026-07-28. [`session`] says which messages wait for the
//! beginning of their session, [`listen`] keeps the stream for what the server sends by itself, and [`cancel`] tells the server
//! when the client gives up or ends.
//!
//! What cannot be answered by the server gets an error of ours ([`told`]); nothing of that ends the process. It ends with its
//! client ([`ends`]).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::mcp::rpc::cut::request_id;
use crate::mcp::rpc::refusal::AnswerTo;
use crate::mcp::rpc::{Id, Kind, Message};

mod cancel;
mod ends;
mod eras;
mod events;
mod fields;
mod input;
mod lines;
mod link;
mod listen;
mod message;
mod output;
mod passing;
mod post;
mod requests;
mod resubscribe;
mod room;
mod session;
mod stateless;
mod subscription;
mod told;

use ends::Ends;
use eras::Eras;
pub(crate) use eras::Protocol;
use fields::Wire;
pub(crate) use fields::may_be_added;
use input::Incoming;
pub(crate) use link::Origin;
use link::{Lane, Link, Outbound};
use output::Output;
use requests::Requests;
use room::Room;
use session::{Session, Waits};
use told::Why;

/// The longest line, unless the user says otherwise.
pub(crate) const LONGEST: usize = 64 * 1024 * 1024;
/// So long a slow reader has at the end for what was said before.
const LAST_LINES: Duration = Duration::from_millis(100);
/// The most tasks at once. Each request of the client, of which there are fewer, has one; what is no request has the others.
const TASKS: usize = 8 * 1_024;
/// Room for what is read at once from the connections, beside the messages.
const PIECES: usize = 8 * 1024 * 1024;
/// How HTTP/2 begins, with prior knowledge.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0";

/// Which server is meant.
pub(crate) enum Target {
    /// The one of this name.
    Name(String),
    /// The one that this function finds in the status of the daemon.
    Listed(Box<Find>),
}

/// Finds the name of a server in the status of the daemon.
type Find = dyn Fn(&[u8]) -> Option<String> + Send + Sync;

/// What a bridge needs.
pub(crate) struct Parts {
    pub(crate) origin: Origin,
    pub(crate) target: Target,
    /// Further fields of each request. [`may_be_added`] says which may be there.
    pub(crate) fields: HeaderMap,
    /// The longest message.
    pub(crate) longest: usize,
    pub(crate) protocol: Protocol,
}

/// Why a bridge ends but with its client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The system gives no thread, or no signal handler.
    #[error("no thread or signal handler can be had: {0}")]
    Start(io::Error),
    /// Nobody reads what it writes.
    #[error("stdout cannot be written: {0}")]
    Output(io::Error),
    /// What comes in is not what it reads.
    #[error(
        "the client speaks HTTP/2 on stdin, which is not supported yet; it must send JSON-RPC messages, one on each line"
    )]
    Http2,
}

/// What all messages share.
struct Bridge {
    link: Link,
    target: Target,
    name: OnceLock<String>,
    output: Output,
    requests: Mutex<Requests>,
    session: Session,
    eras: Eras,
    common: HeaderMap,
    cap: usize,
    /// For what comes from the server.
    room: Room,
    tasks: TaskTracker,
    listening: Mutex<CancellationToken>,
}

/// Serves the client on stdin and stdout until it ends. Must be called inside a runtime, by the first thread of the process.
pub(crate) async fn run(parts: Parts) -> Result<(), Error> {
    let mut ends = Ends::watch().map_err(Error::Start)?;
    let mut input = input::start(parts.longest).map_err(Error::Start)?;
    let bridge = Bridge::start(parts).await.map_err(Error::Start)?;
    let why = tokio::select! {
        error = bridge.output.broken() => return Err(Error::Output(error)),
        read = bridge.read(&mut input) => {
            read?;
            "the end of its input"
        }
        why = ends.wait() => why,
    };
    debug!(why, "ending");
    // The client is gone, or wants nothing more.
    bridge.output.close();
    tokio::join!(bridge.leave(), bridge.output.written(LAST_LINES));
    Ok(())
}

impl Bridge {
    async fn start(parts: Parts) -> io::Result<Arc<Self>> {
        let Parts { origin, target, fields, longest, protocol } = parts;
        let tasks = TaskTracker::new();
        let mut link = Link::new(origin, tasks.clone());
        link.keep_first().await;
        let name = match &target {
            Target::Name(name) => OnceLock::from(name.clone()),
            Target::Listed(_) => OnceLock::new(),
        };
        Ok(Arc::new(Self {
            link,
            target,
            name,
            output: Output::start()?,
            requests: Mutex::default(),
            session: Session::default(),
            eras: Eras::new(protocol),
            common: fields::common(fields),
            cap: longest,
            room: Room::new(longest.saturating_mul(2).saturating_add(PIECES)),
            tasks,
            listening: Mutex::default(),
        }))
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the server, if it is known.
    fn name(&self) -> String {
        self.name.get().cloned().unwrap_or_default()
    }

    /// The path of the server at the daemon.
    async fn target(&self) -> Result<String, Why> {
        let path = |name: &str| format!("/mcp/{name}");
        if let Some(name) = self.name.get() {
            return Ok(path(name));
        }
        let Target::Listed(find) = &self.target else { return Err(Why::NotServed) };
        let (target, mut fields, body) = ("/v1/status".to_owned(), self.common.clone(), Bytes::new());
        // The first request of a connection decides on which thread the daemon serves it.
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
        let answer = self.link.send(Outbound { method: Method::GET, target, fields, body }, Lane::Others).await?;
        let is_shown = answer.head.status == StatusCode::OK;
        let status = self.whole(answer.body).await?;
        let name = find(&status).filter(|_| is_shown).ok_or(Why::NotServed)?;
        Ok(path(self.name.get_or_init(|| name)))
    }

    /// Takes the lines of the client until they end.
    async fn read(self: &Arc<Self>, input: &mut Receiver<Incoming>) -> Result<(), Error> {
        while let Some(incoming) = input.recv().await {
            match incoming {
                Incoming::Line(line) if line.trim_ascii().is_empty() => {}
                Incoming::Line(line) if line.starts_with(HTTP_2) => return Err(Error::Http2),
                Incoming::Line(line) => self.take(line),
                Incoming::TooLong(beginning) => self.take_too_long(&beginning),
            }
        }
        Ok(())
    }

    /// Takes one message. Nothing is waited for.
    fn take(self: &Arc<Self>, line: Bytes) {
        let (kind, id, method, is_ambiguous) = {
            let message = Message::read(&line);
            (message.kind, message.id, message.method.map(|method| method.into_owned()), message.is_ambiguous)
        };
        let method = method.unwrap_or_default();
        match (kind, id) {
            (Kind::Request, Some(id)) if !is_ambiguous => self.take_request(id, method, line),
            (Kind::Notification, _) if !is_ambiguous => self.take_notification(&method, line),
            (Kind::Response, Some(id)) if !is_ambiguous && self.settles_question(&id, &line) => {}
            (Kind::Response, _) if !is_ambiguous => {
                let bridge = Arc::clone(self);
                self.spawn(async move {
                    bridge.tell("a response", Waits::ForId, line).await;
                });
            }
            (Kind::Batch, _) => {
                self.refuse(None, "batches are not supported since 2025-06-18: send one message a line");
            }
            (Kind::Unreadable, None) => {
                tracing::warn!(bytes = line.len(), "a line on stdin that is no JSON-RPC message is skipped");
            }
            (Kind::Unreadable, id @ Some(_)) => self.refuse(id, "this is no JSON-RPC request"),
            (Kind::Request, id) => self.refuse(id, "a member of the message occurs twice"),
            (Kind::Notification | Kind::Response, _) => {
                tracing::warn!("a message on stdin in which a member occurs twice is skipped");
            }
        }
    }

    fn take_request(self: &Arc<Self>, id: Id, method: String, line: Bytes) {
        let Ok(wire) = Wire::of(&line, &method) else { return self.fail(Some(id), Why::NameTooLong) };
        let Some(ticket) = self.requests().add(id.clone(), method, wire) else {
            return self.fail(Some(id), Why::TooMany);
        };
        if ticket.is_initialize() && !ticket.is_stateless() {
            self.stop_listening();
            let (bridge, before) = (Arc::clone(self), self.session.asked());
            self.tasks.spawn(async move { bridge.delete(before).await });
        }
        self.tasks.spawn(Arc::clone(self).request(ticket, line));
    }

    fn take_notification(self: &Arc<Self>, method: &str, line: Bytes) {
        let is_initialized = match method {
            "notifications/cancelled" => return self.cancel(line),
            "notifications/initialized" => true,
            _ => false,
        };
        if !matches!(Wire::of(&line, method), Ok(Wire::Session)) {
            debug!("the wire of this notification has none over HTTP; it ends here");
            return;
        }
        let bridge = Arc::clone(self);
        if !is_initialized {
            self.spawn(async move {
                bridge.tell("a notification", Waits::ForBeginning, line).await;
            });
            return;
        }
        self.session.settling();
        self.tasks.spawn(async move {
            let is_told = bridge.tell("notifications/initialized", Waits::ForAnswer, line).await;
            // A server without sessions asks its client in an answer.
            bridge.session.settled(is_told && bridge.eras.met().is_none());
            if is_told {
                bridge.start_listening();
            }
        });
    }

    fn take_too_long(self: &Arc<Self>, beginning: &[u8]) {
        self.fail(request_id(beginning), Why::LineTooLong(self.cap));
    }

    /// Answers with an error of ours.
    fn fail(self: &Arc<Self>, id: Option<Id>, why: Why) {
        let json = why.to_json(&self.name(), id.as_ref().map_or(AnswerTo::Unknown, AnswerTo::Request));
        self.say_later(json);
    }

    /// Answers what is no request, notification or response.
    fn refuse(self: &Arc<Self>, id: Option<Id>, words: &str) {
        self.say_later(told::invalid(id.as_ref().map_or(AnswerTo::Unknown, AnswerTo::Request), words));
    }

    fn say_later(self: &Arc<Self>, json: Vec<u8>) {
        let bridge = Arc::clone(self);
        self.spawn(async move { bridge.say(json).await });
    }

    /// Does something for a message that is no request. A client that sends such messages faster than they can be passed on
    /// loses some, because nothing else bounds their number.
    /// `false` if it is not done.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let has_room = self.tasks.len() < TASKS;
        if has_room {
            self.tasks.spawn(task);
        } else {
            tracing::warn!(most = TASKS, "too many messages are under way; one is dropped");
        }
        has_room
    }

    /// Listens to what the server sends by itself in the present session.
    fn start_listening(self: &Arc<Self>) {
        let stop = CancellationToken::new();
        let before = std::mem::replace(&mut *self.listening(), stop.clone());
        before.cancel();
        let bridge = Arc::clone(self);
        self.tasks.spawn(async move {
            match bridge.eras.met() {
                Some(met) => stop.run_until_cancelled(bridge.follow(met)).await,
                None => stop.run_until_cancelled(bridge.listen()).await,
            }
        });
    }

    fn stop_listening(&self) {
        self.listening().cancel();
    }

    fn listening(&self) -> MutexGuard<'_, CancellationToken> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
