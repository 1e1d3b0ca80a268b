//! Sessions (wires until 2025-11-25) that the client keeps although the server has lost them. Pure.
//!
//! A server that restarts answers the ids of its old sessions with 404, or with 400. Clients do not recover from that. So for
//! each session it is kept here what opens an equal one: the client's `initialize` parameters, its subscriptions and its log
//! level. The client keeps its id, and another id stands for it at the server.
//!
//! How a session is healed:
//!
//! 1. [`Sessions::route`] says with which id a request is sent, and in which epoch of the session.
//! 2. [`loss()`] says whether the answer means that the session is lost. In doubt a [`ping`] with the same id decides.
//! 3. [`Sessions::lost`] gives the first request of this epoch the [`Plan`], and lets all others wait.
//! 4. The steps of the plan are sent in order. After the first one [`Sessions::reopened`] compares what the server offers with
//!    what it offered before. In the end [`Sessions::healed`] takes the new id, or [`Sessions::failed`] gives up. One of the
//!    two must follow, also if the client hangs up meanwhile, because other requests wait.
//! 5. Each refused request is sent once more. A second refusal passes as it came.
//!
//! A session belongs to the user that opened it. Other users' requests with its id are 404. An id that was never seen passes:
//! after a restart of ours nothing is known. It is adopted with the answer, and then heals with empty capabilities. That is so
//! for an id that the server refuses, too: another one may have stood for it before our restart, and a guess gets no more than
//! the session that its caller may open anyway. Only an id whose end was asked for is not healed.
//!
//! **Bounds.** A user has at most 256 sessions and 1 MiB, all together 1,024 and 4 MiB. Beyond that the session that was unused
//! the longest is forgotten: of the user that is over its bound, else of the user that keeps most. A forgotten id is one that
//! was never seen. A session of which one part is too large to be kept does not heal, rather than come back with a part missing.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use crate::mcp::rpc::Message;

mod bounds;
mod loss;
mod offer;
mod plan;
#[cfg(test)]
mod tests;

pub(crate) use loss::{Loss, is_refused, loss, ping};
pub(crate) use offer::Offer;
pub(crate) use plan::{Plan, Step};

/// The longest session id that is kept.
const ID_CAP: usize = 1_024;
/// The most of a client's `initialize` parameters that is kept.
const PARAMS_CAP: usize = 16 * 1_024;
/// The most of the URIs of one session that is kept.
const SUBSCRIPTIONS_CAP: usize = 32 * 1_024;
/// So many ended sessions are remembered.
const ENDED_CAP: usize = 64;
/// The longest name of a log level or a protocol version.
const WORD_CAP: usize = 64;

/// The id of a session. Whoever knows it can take part in the session, so it is never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(Arc<str>);

impl SessionId {
    /// `None` if it is not visible ASCII, or too long.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_id = !text.is_empty() && text.len() <= ID_CAP && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_id.then(|| Self(text.into()))
    }

    /// For the header of a request or an answer.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a session id")
    }
}

/// A session as its client knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) uid: u32,
    /// The configured name.
    pub(crate) server: Arc<str>,
    /// The id that the client holds.
    pub(crate) id: SessionId,
}

/// With which id a request is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// With this id, or without one if the server gives none any more.
    Upstream { id: Option<SessionId>, epoch: u32 },
    /// The session is being healed: ask again when that is over.
    Healing,
    /// Answer with [`super::verdict::Why::CameBackDifferent`].
    Different,
    /// Never seen: it passes as it is.
    Unknown,
    /// Of another user: answer 404.
    Foreign,
}

/// What to do with a request whose session is lost.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Send the steps of this plan.
    Heal(Plan),
    /// Another request does it: wait, then ask for the route.
    Wait,
    /// It is healed already: ask for the route.
    Repeat,
    /// Pass the answer on.
    Pass,
}

/// What the answer to the first step of a plan means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reopened {
    /// The new session equals the old one: send the other steps.
    Equal,
    /// It differs: end the new session. Requests are answered with [`super::verdict::Why::CameBackDifferent`].
    Different,
    /// The client has ended its session meanwhile: end the new one.
    Gone,
}

/// A request that succeeded, as far as it changes what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Subscribed(String),
    Unsubscribed(String),
    Level(String),
}

impl Change {
    /// What a request changes once the server has accepted it.
    pub(crate) fn of(message: &Message<'_>, body: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Params {
            uri: Option<String>,
            level: Option<String>,
        }
        let method = message.method.as_deref()?;
        if !matches!(method, "resources/subscribe" | "resources/unsubscribe" | "logging/setLevel") {
            return None;
        }
        let params: Params = serde_json::from_str(crate::mcp::rpc::params(body)?.get()).ok()?;
        match method {
            "resources/subscribe" => params.uri.map(Self::Subscribed),
            "resources/unsubscribe" => params.uri.map(Self::Unsubscribed),
            _ => params.level.map(Self::Level),
        }
    }
}

/// How the client opened the session.
#[derive(Debug)]
enum Opening {
    /// With these parameters, byte for byte.
    Kept(Box<str>),
    /// Before our start. The version is that of its requests.
    Before(Box<str>),
    /// With parameters that were too large.
    TooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Healing,
    Different,
}

#[derive(Debug)]
struct Session {
    opening: Opening,
    /// What the server offered when the session was opened.
    offer: Option<Offer>,
    subscriptions: BTreeSet<Box<str>>,
    level: Option<Box<str>>,
    /// Is nothing missing of the two above?
    is_whole: bool,
    upstream: Option<SessionId>,
    epoch: u32,
    state: State,
    /// The notifications that its client has yet to get.
    owed: Vec<&'static str>,
    /// When it was last used, in uses of all sessions.
    used: u64,
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    all: HashMap<Key, Session>,
    uses: u64,
    /// Those that ended last, for clients that use them once more.
    ended: VecDeque<Key>,
}

impl Sessions {
    /// The server answered the `initialize` of a client with this id. `params` are the client's, `answer` is the message of the
    /// server.
    pub(crate) fn opened(&mut self, key: Key, params: Option<&str>, answer: &[u8]) {
        let opening = match params {
            Some(params) if params.len() <= PARAMS_CAP => Opening::Kept(params.into()),
            Some(_) => Opening::TooLarge,
            None => Opening::Kept("{}".into()),
        };
        let offer = Offer::read(answer);
        self.insert(key, opening, offer);
    }

    /// An id that was never seen is a session's, in a request of this protocol version.
    pub(crate) fn adopted(&mut self, key: Key, version: Option<&str>) {
        // It may have become known since that request was sent.
        if self.all.contains_key(&key) {
            return;
        }
        // Requests of 2025-03-26 do not name their version.
        let version = version.unwrap_or("2025-03-26");
        let is_plain = version.len() <= WORD_CAP;
        let opening = if is_plain { Opening::Before(version.into()) } else { Opening::TooLarge };
        self.insert(key, opening, None);
    }

    fn insert(&mut self, key: Key, opening: Opening, offer: Option<Offer>) {
        let session = Session {
            opening,
            offer,
            subscriptions: BTreeSet::new(),
            level: None,
            is_whole: true,
            upstream: Some(key.id.clone()),
            epoch: 0,
            state: State::Live,
            owed: Vec::new(),
            used: self.next_use(),
        };
        let uid = key.uid;
        self.all.insert(key.clone(), session);
        bounds::keep(&mut self.all, uid, &key);
    }

    /// With which id a request of this session is sent.
    pub(crate) fn route(&mut self, key: &Key) -> Route {
        let used = self.next_use();
        let Some(session) = self.all.get_mut(key) else {
            return if self.is_of_another_user(key) { Route::Foreign } else { Route::Unknown };
        };
        session.used = used;
        match session.state {
            State::Live => Route::Upstream { id: session.upstream.clone(), epoch: session.epoch },
            State::Healing => Route::Healing,
            State::Different => Route::Different,
        }
    }

    /// The server accepted a request that changes what is kept.
    pub(crate) fn changed(&mut self, key: &Key, change: Change) {
        let Some(session) = self.all.get_mut(key) else { return };
        match change {
            Change::Subscribed(uri) => {
                let kept: usize = session.subscriptions.iter().map(|uri| uri.len()).sum();
                if kept + uri.len() <= SUBSCRIPTIONS_CAP {
                    session.subscriptions.insert(uri.into());
                } else {
                    session.is_whole = false;
                }
            }
            Change::Unsubscribed(uri) => {
                session.subscriptions.remove(&*uri);
            }
            Change::Level(level) if level.len() <= WORD_CAP => session.level = Some(level.into()),
            Change::Level(_) => session.is_whole = false,
        }
        bounds::keep(&mut self.all, key.uid, key);
    }

    /// A request that was sent in this epoch found its session lost.
    pub(crate) fn lost(&mut self, key: &Key, epoch: u32, was_repeated: bool) -> Next {
        let Some(session) = self.all.get_mut(key).filter(|_| !was_repeated) else { return Next::Pass };
        match session.state {
            State::Healing => Next::Wait,
            State::Live if session.epoch != epoch => Next::Repeat,
            State::Different => Next::Repeat,
            State::Live => match session.plan() {
                Some(plan) => {
                    session.state = State::Healing;
                    Next::Heal(plan)
                }
                None => Next::Pass,
            },
        }
    }

    /// The server answered the first step of the plan with this offer.
    pub(crate) fn reopened(&mut self, key: &Key, answer: &Offer) -> Reopened {
        let Some(session) = self.healing(key) else { return Reopened::Gone };
        if session.is_equal(answer) {
            return Reopened::Equal;
        }
        session.state = State::Different;
        Reopened::Different
    }

    /// All steps of the plan were sent: from now on this id stands for the client's, and the client is owed a notification
    /// for each list, because its lists may be old. `false` if it has ended the session meanwhile: then the new one is to be
    /// ended.
    pub(crate) fn healed(&mut self, key: &Key, id: Option<SessionId>, answer: Offer) -> bool {
        let Some(session) = self.healing(key) else { return false };
        session.state = State::Live;
        session.epoch = session.epoch.wrapping_add(1);
        session.upstream = id;
        // What a client was offered before our start is not known: it is what the server offers now.
        session.owed = session.offer.get_or_insert(answer).list_changes();
        true
    }

    /// The notifications for the client, as whole messages. They are given once.
    pub(crate) fn owed(&mut self, key: &Key) -> Vec<&'static str> {
        self.all.get_mut(key).map(|session| std::mem::take(&mut session.owed)).unwrap_or_default()
    }

    /// Healing failed or was given up. The next request of the session tries again.
    pub(crate) fn failed(&mut self, key: &Key) {
        if let Some(session) = self.healing(key) {
            session.state = State::Live;
        }
    }

    /// The client ended the session.
    pub(crate) fn ended(&mut self, key: &Key) {
        self.all.remove(key);
        self.ended.retain(|ended| ended != key);
        if self.ended.len() == ENDED_CAP {
            self.ended.pop_front();
        }
        self.ended.push_back(key.clone());
    }

    /// Is it one that its client has ended?
    pub(crate) fn is_ended(&self, key: &Key) -> bool {
        self.ended.contains(key)
    }

    fn healing(&mut self, key: &Key) -> Option<&mut Session> {
        self.all.get_mut(key).filter(|session| session.state == State::Healing)
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// Looks through all sessions, which is rare: only ids that were never seen get here.
    fn is_of_another_user(&self, wanted: &Key) -> bool {
        self.all.iter().any(|(key, session)| {
            let is_named = key.id == wanted.id || session.upstream.as_ref() == Some(&wanted.id);
            key.uid != wanted.uid && key.server == wanted.server && is_named
        })
    }
}

impl Session {
    /// How to open an equal session, if all that takes is known.
    fn plan(&self) -> Option<Plan> {
        let initialize = match &self.opening {
            Opening::Kept(params) => {
                self.offer.as_ref()?;
                plan::Initialize::Own(params)
            }
            Opening::Before(version) => plan::Initialize::Empty { version },
            Opening::TooLarge => return None,
        };
        let subscriptions = self.subscriptions.iter().map(|uri| &**uri);
        self.is_whole.then(|| Plan::new(initialize, subscriptions, self.level.as_deref()))
    }

    /// Does the server offer what it offered before, in the same version?
    fn is_equal(&self, now: &Offer) -> bool {
        match (&self.offer, &self.opening) {
            (Some(before), _) => now.stands_in_for(before),
            (None, Opening::Before(version)) => now.version() == &**version,
            (None, Opening::Kept(_) | Opening::TooLarge) => false,
        }
    }
}
