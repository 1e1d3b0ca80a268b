//! The state of the broker for people and scripts, as plain data without tokens or secrets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Action, AuditSubject, Broker, Class, Server, Target, TokenFor, TokenRequest};
use crate::audit::Outcome;
use crate::cache::{Trouble, may_be_served};
use crate::caller::Caller;
use crate::clock::rfc3339;
use crate::metrics::Relayed;
use crate::policy::Denied;
use crate::token::Token;

/// The answer of `/v1/status`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Our version.
    pub version: &'static str,
    /// Our process id.
    pub pid: u32,
    /// The default identity; `None` if there is none or it was not found.
    pub identity: Option<IdentityStatus>,
    /// The last line of the audit file, if there is one.
    pub audit: Option<AuditStatus>,
    /// The servers that this caller may see.
    pub servers: Vec<ServerStatus>,
    /// The users that policy refused; empty for others than the daemon's own user.
    pub refused_callers: Vec<super::RefusedCaller>,
}

/// The last line of the audit file. A copy kept elsewhere shows later whether lines were removed or rewritten.
#[derive(Debug, Serialize)]
pub struct AuditStatus {
    /// The path of the file.
    pub file: std::path::PathBuf,
    /// The number of the line.
    pub seq: u64,
    /// The hash of the line.
    pub head: String,
    /// Why the last record could not be written, until one can be written again. Nothing is served meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The identity in use.
#[derive(Debug, Serialize)]
pub struct IdentityStatus {
    /// The name of the identity source.
    pub source: &'static str,
    /// How the platform was recognised.
    pub evidence: String,
}

/// One server or front door.
#[derive(Debug, Serialize)]
pub struct ServerStatus {
    /// The name of the server or front door.
    pub name: String,
    /// The URL of the MCP server.
    pub url: String,
    /// The pinned issuer, else the issuer of a cached token.
    pub issuer: Option<String>,
    /// The daemon is ready only with a token for it.
    pub required: bool,
    /// `fresh` with a cached token that is still served, `failing` after a failure, else `idle`.
    pub state: &'static str,
    /// The server behind it, if this is a front door.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front_door_of: Option<String>,
    /// The cached tokens.
    pub tokens: Vec<TokenStatus>,
    /// The last failure, if the last flight failed.
    pub error: Option<Failure>,
    /// How often each user was served; empty for others than the daemon's own user.
    pub callers: Vec<CallerStatus>,
    /// The proxy, if anybody has used it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyStatus>,
}

/// What passed through the proxy for one server.
#[derive(Debug, Serialize)]
pub struct ProxyStatus {
    /// Requests of clients.
    pub requests: u64,
    /// Requests that were sent to the server once more.
    pub repetitions: u64,
    /// Sessions that the server had lost and that were replaced.
    pub sessions_healed: u64,
    /// Event streams that are open.
    pub open_streams: i64,
}

impl From<&Relayed> for ProxyStatus {
    fn from(relayed: &Relayed) -> Self {
        Self {
            requests: relayed.requests.get(),
            repetitions: relayed.repetitions.get(),
            sessions_healed: relayed.heals.get(),
            open_streams: relayed.streams.get(),
        }
    }
}

/// The metadata of one token.
#[derive(Debug, Serialize)]
pub struct TokenStatus {
    /// The granted scopes.
    pub scope: String,
    /// The resource it was asked for, without a query.
    pub resource: String,
    /// The subject of the identity that was presented.
    pub sub: Option<String>,
    /// The first 12 characters of its SHA-256.
    pub sha256: String,
    /// When it was received.
    pub minted_at: String,
    /// When it expires.
    pub expires_at: String,
    /// Seconds until then.
    pub expires_in: u64,
    /// Its whole lifetime in seconds.
    pub lifetime: u64,
    /// What is odd about it, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<&'static str>,
}

/// The last failure.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// Its class.
    pub class: &'static str,
    /// Its stable code.
    pub error: String,
    /// What happened.
    pub error_description: String,
    /// What to do about it, if anything.
    pub hint: Option<String>,
    /// What the refused identity tokens say; for the daemon's own user alone.
    pub presented: Option<String>,
    /// Since when there is such a failure and no success.
    pub since: String,
    /// Seconds until a next try may begin.
    pub next_try_in: u64,
}

/// One user that was served.
#[derive(Debug, Serialize)]
pub struct CallerStatus {
    /// The user id.
    pub uid: u32,
    /// How often.
    pub served: u64,
}

/// Why a server is not ready.
#[derive(Debug)]
pub struct NotReady {
    /// For people.
    pub why: String,
    /// `Temporary` as long as waiting may help.
    pub class: Class,
    /// The cure.
    pub hint: Option<String>,
}

/// What who may use nothing here is told while decisions cannot be recorded: no path.
const UNRECORDED: &str = "the audit file cannot be written; nothing is served meanwhile";

impl Broker {
    /// The status of the servers that this caller may use. The daemon's own user sees all.
    pub fn explain(&self, caller: &Caller, own_uid: u32) -> Status {
        let identity = self.maker.identities.get(super::DEFAULT).and_then(|found| found.as_ref().ok());
        let unlisted = self.unlisted.as_ref().map(super::Unlisted::all).unwrap_or_default();
        let visible = self.servers.iter().chain(&unlisted).filter(|server| sees(caller, own_uid, server));
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            identity: identity
                .map(|identity| IdentityStatus { source: identity.source.name(), evidence: identity.evidence.clone() }),
            audit: self.audit.as_deref().map(|audit| {
                let head = audit.head();
                let error = audit.failure().map(|error| error.to_string());
                AuditStatus { file: audit.file().to_owned(), seq: head.seq, head: head.hash.hex(), error }
            }),
            servers: visible
                .flat_map(TokenRequest::all)
                .map(|want| self.explain_want(&want, caller, own_uid))
                .collect(),
            refused_callers: if caller.may_see_all(own_uid) { self.refused_callers.all() } else { Vec::new() },
        }
    }

    /// May this caller ask for the status at all? Fails if that cannot be told yet.
    pub fn may_look(&self, caller: &Caller, own_uid: u32) -> Result<bool, super::Error> {
        if self.servers.iter().any(|server| sees(caller, own_uid, server)) || caller.may_see_all(own_uid) {
            return Ok(true);
        }
        let denials = self.servers.iter().filter_map(|server| server.policy.permit(caller, None).err());
        let undecided = denials.into_iter().find(|denied| matches!(denied, Denied::Undecided { .. }));
        undecided.map_or(Ok(false), |denied| Err(super::Error::undecided(denied)))
    }

    /// May this caller know of the server of this name? Servers that are not configured are the daemon's own user's.
    pub(crate) fn may_know_of(&self, caller: &Caller, own_uid: u32, name: &str) -> bool {
        let named = self.servers.iter().find(|server| *server.name == *name);
        caller.may_see_all(own_uid) || named.is_some_and(|server| server.policy.knows(caller))
    }

    /// Why the named servers, or without names the required ones, are not ready: one line for each without a token.
    /// A line is there too if decisions cannot be recorded, because nothing is served then. Empty if all are ready.
    pub fn not_ready(&self, caller: &Caller, own_uid: u32, names: &[String]) -> Vec<NotReady> {
        let is_own = caller.may_see_all(own_uid);
        let waits = |why| NotReady { why, class: Class::Temporary, hint: None };
        let wanted = |want: &TokenRequest| {
            let meant = |name: &String| **name == *want.server.name || **name == *want.order.name;
            if names.is_empty() { want.server.required } else { names.iter().any(meant) }
        };
        let waiting = self.servers.iter().flat_map(TokenRequest::all).filter(wanted).filter_map(|want| {
            let name = &want.order.name;
            let held = self
                .cache
                .held()
                .into_iter()
                .any(|(_, token)| token.server == *name && may_be_served(&token, self.clock.boot()));
            let why = || match self.last_error(&want) {
                // A caller that may not use a server must not learn its name.
                _ if !sees(caller, own_uid, &want.server) => waits("a required server has no token yet".to_owned()),
                Some(error) => NotReady { why: error.told(is_own), class: error.class(), hint: error.hint() },
                None => waits(format!("{name}: no token yet")),
            };
            (!held).then(why)
        });
        let is_told_why = is_own || !self.is_stranger(caller);
        let unrecorded = self.unrecordable(caller).map(|error| {
            waits(if is_told_why { format!("{error}; nothing is served meanwhile") } else { UNRECORDED.to_owned() })
        });
        unrecorded.into_iter().chain(waiting).collect()
    }

    /// Why decisions cannot be recorded. Where nothing is asked but whether we are ready, nothing else would find out that
    /// they can be again: so after a failure this question itself is recorded.
    fn unrecordable(&self, caller: &Caller) -> Option<crate::audit::Error> {
        let audit = self.audit.as_deref()?;
        audit.failure()?;
        self.record(&AuditSubject::new(Action::Status, caller, None), None, Outcome::Served, None).err()
    }

    /// The same for anonymous readiness probes: counts and classes, no names and no paths.
    pub fn not_ready_counts(&self) -> Vec<String> {
        let unrecorded = self.unrecordable(&Caller::unproved()).map(|_| UNRECORDED.to_owned());
        let required: Vec<TokenRequest> =
            self.servers.iter().filter(|server| server.required).flat_map(TokenRequest::all).collect();
        let held = self.cache.held();
        let has_token = |want: &TokenRequest| {
            held.iter().any(|(_, token)| token.server == want.order.name && may_be_served(token, self.clock.boot()))
        };
        let mut missing = BTreeMap::<&'static str, usize>::new();
        for want in required.iter().filter(|want| !has_token(want)) {
            let why = self.last_error(want).map_or("not yet asked for", |error| error.class().as_str());
            *missing.entry(why).or_default() += 1;
        }
        let all = required.len();
        let line = |(why, count): (&str, usize)| {
            let has = if count == 1 { "has" } else { "have" };
            format!("{count} of {all} required servers {has} no token: {why}")
        };
        unrecorded.into_iter().chain(missing.into_iter().map(line)).collect()
    }

    /// Starts to fetch the tokens of named servers, so that the caller can wait for readiness. Fails for an unknown
    /// server and for one that this caller may not use: waiting would not help.
    pub fn keep_named(&self, caller: &Caller, own_uid: u32, names: &[String]) -> Result<(), super::Error> {
        for name in names {
            let target = Target::Name(name.clone());
            let decided = self.decide_keep(caller, own_uid, &target);
            self.note(&AuditSubject::new(Action::Ready, caller, Some(&target)), decided, |()| None)?;
        }
        Ok(())
    }

    fn decide_keep(&self, caller: &Caller, own_uid: u32, target: &Target) -> Result<(), super::Error> {
        let server = self.server(caller, target)?;
        let permitted = server.policy.permit(caller, None);
        if let (Err(denied), true) = (&permitted, caller.uid != own_uid) {
            return Err(super::Error::denied(&server.name, denied.clone()));
        }
        if let Ok(permit) = permitted {
            self.prefetch(caller, &TokenRequest { permit, ..TokenRequest::of(&server) });
            if let Some(door) = &server.front_door {
                self.prefetch(caller, &TokenRequest::for_front_door(&server, door));
            }
        }
        Ok(())
    }

    /// Starts a flight in the background for this caller, unless a token is cached.
    fn prefetch(&self, caller: &Caller, want: &TokenRequest) {
        let key = want.key();
        if self.cache.hit(&key, &crate::cache::Wish::ANY).is_none() {
            self.cache.prefetch(key, Some(caller.uid), || self.recipe(want.clone()));
        }
    }

    /// Where the newest failure of any try is.
    pub(crate) fn last_failure(&self) -> super::LastFailure {
        Arc::clone(&self.maker.last_failure)
    }

    /// The seconds that are left of the token of each configured server, for metrics. Zero for a required one without a token.
    pub(crate) fn lives(&self, caller: &Caller, own_uid: u32) -> Vec<(String, u64)> {
        let life = |server: &Arc<Server>| {
            let status = self.explain_want(&TokenRequest::of(server), caller, own_uid);
            let left = status.tokens.iter().map(|token| token.expires_in).max();
            Some((status.name, left.or_else(|| server.required.then_some(0))?))
        };
        self.servers.iter().filter(|server| sees(caller, own_uid, server)).filter_map(life).collect()
    }

    /// Who else uses a server, and tokens beyond its ceiling, are not a caller's to know. The daemon's own user sees both.
    fn explain_want(&self, want: &TokenRequest, caller: &Caller, own_uid: u32) -> ServerStatus {
        let TokenRequest { server, order, .. } = want;
        let permit = server.policy.permit(caller, None).ok();
        let is_own = caller.may_see_all(own_uid);
        let may_have = |token: &Token| permit.as_ref().is_some_and(|permit| permit.admit(&token.scopes).is_ok());
        let tokens = self.cache.held().into_iter().map(|(_, token)| token).filter(|token| token.server == order.name);
        // The front door's token has no scopes of the server.
        let is_told = |token: &Arc<Token>| is_own || order.opens == TokenFor::FrontDoor || may_have(token);
        let tokens: Vec<_> = tokens.filter(is_told).collect();
        let trouble = self.cache.trouble(&want.key());
        let state = if tokens.iter().any(|token| may_be_served(token, self.clock.boot())) {
            "fresh"
        } else if trouble.is_some() {
            "failing"
        } else {
            "idle"
        };
        let pinned = order.issuer().map(ToString::to_string);
        let tally = self.tallies.get(&order.name).filter(|_| is_own);
        let callers = tally.map(super::Tally::callers).unwrap_or_default();
        ServerStatus {
            name: order.name.to_string(),
            url: server.url.to_string(),
            issuer: pinned.or_else(|| tokens.first().map(|token| token.issuer.to_string())),
            required: server.required,
            front_door_of: (order.opens == TokenFor::FrontDoor).then(|| server.name.to_string()),
            state,
            tokens: tokens.iter().map(|token| self.explain_token(token)).collect(),
            error: trouble.map(|trouble| self.explain_trouble(trouble, &want.order.name, is_own)),
            callers: callers.into_iter().map(|(uid, served)| CallerStatus { uid, served }).collect(),
            proxy: self.metrics.relayed_so_far(&order.name).as_deref().map(ProxyStatus::from),
        }
    }

    fn explain_trouble(&self, trouble: Trouble<super::Error>, name: &Arc<str>, is_own: bool) -> Failure {
        let error = trouble.error.at(name);
        let since = self.clock.wall().checked_sub(trouble.lasts).unwrap_or(SystemTime::UNIX_EPOCH);
        Failure {
            class: error.class().as_str(),
            error: error.code().to_owned(),
            error_description: error.to_string(),
            hint: error.hint(),
            presented: error.presented().filter(|_| is_own).map(str::to_owned),
            since: rfc3339(since),
            next_try_in: (trouble.next_try_in + Duration::from_millis(999)).as_secs(),
        }
    }

    fn explain_token(&self, token: &Token) -> TokenStatus {
        let now = self.clock.now();
        TokenStatus {
            scope: token.scopes.to_string(),
            // A query may contain a secret.
            resource: token.resource.as_str().split('?').next().unwrap_or_default().to_owned(),
            sub: token.hops.last().and_then(|hop| hop.sub.clone()),
            sha256: token.digest.hex()[..12].to_owned(),
            minted_at: rfc3339(token.minted_wall),
            expires_at: token.expires_at(now).into_owned(),
            expires_in: token.left(now.boot).as_secs(),
            lifetime: token.life.as_secs(),
            warning: token.is_for_nobody.then_some("it names no audience (`aud`)"),
        }
    }

    /// The failure of the last flight for this token, if it failed.
    fn last_error(&self, want: &TokenRequest) -> Option<super::Error> {
        let (_, error) = self.cache.peek(&want.key());
        error.map(|error| error.at(&want.order.name))
    }
}

/// The daemon's own user sees all servers, everybody else those that it may use.
fn sees(caller: &Caller, own_uid: u32, server: &Server) -> bool {
    caller.may_see_all(own_uid) || server.policy.knows(caller)
}
