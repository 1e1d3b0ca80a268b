//! What people and scripts may know about the broker, as plain data: no token, no secret.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Action, Broker, Matter, Opens, Server, Target, Want};
use crate::cache::may_be_served;
use crate::caller::Caller;
use crate::clock::rfc3339;
use crate::token::Token;

/// The answer of `/v1/status`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Our version.
    pub version: &'static str,
    /// Our process id.
    pub pid: u32,
    /// Who we are to authorization servers; nothing where no workload identity is used.
    pub identity: Option<IdentityStatus>,
    /// The end of the audit file, if there is one.
    pub audit: Option<AuditStatus>,
    /// The servers this caller may know of.
    pub servers: Vec<ServerStatus>,
}

/// The last line of the audit: kept elsewhere, it shows whether lines were cut off or written anew.
#[derive(Debug, Serialize)]
pub struct AuditStatus {
    /// Where.
    pub file: std::path::PathBuf,
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub head: String,
}

/// The identity in use.
#[derive(Debug, Serialize)]
pub struct IdentityStatus {
    /// The row in the table of sources.
    pub source: &'static str,
    /// What proved it.
    pub evidence: String,
}

/// One server.
#[derive(Debug, Serialize)]
pub struct ServerStatus {
    /// As configured.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// The pinned issuer, or the one of the token in hand.
    pub issuer: Option<String>,
    /// Readiness waits for it.
    pub required: bool,
    /// `fresh` with a token in hand that is still given out, `failing` after a failure, else `idle`.
    pub state: &'static str,
    /// The server that it is the front door of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front_door_of: Option<String>,
    /// Every token in hand.
    pub tokens: Vec<TokenStatus>,
    /// The last failure, if the last flight failed.
    pub error: Option<Failure>,
    /// How often whom was served.
    pub callers: Vec<CallerStatus>,
}

/// One token, without the token.
#[derive(Debug, Serialize)]
pub struct TokenStatus {
    /// What was granted.
    pub scope: String,
    /// The audience it was asked for.
    pub resource: String,
    /// Who we were to the issuer.
    pub sub: Option<String>,
    /// First characters of its SHA-256.
    pub sha256: String,
    /// When it was received.
    pub minted_at: String,
    /// When it expires.
    pub expires_at: String,
    /// Seconds left.
    pub expires_in: u64,
    /// Seconds it had.
    pub lifetime: u64,
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
    /// The cure.
    pub hint: Option<String>,
}

/// One user that was served.
#[derive(Debug, Serialize)]
pub struct CallerStatus {
    /// Who.
    pub uid: u32,
    /// How often.
    pub served: u64,
}

impl Broker {
    /// What this caller may know: the servers it may use. The daemon's own user sees all.
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
                AuditStatus { file: audit.file().to_owned(), seq: head.seq, head: head.hash.hex() }
            }),
            servers: visible.flat_map(Want::all).map(|want| self.explain_want(&want)).collect(),
        }
    }

    /// May this caller look at what the daemon does at all?
    pub fn may_look(&self, caller: &Caller, own_uid: u32) -> bool {
        caller.uid == own_uid || self.servers.iter().any(|server| server.policy.knows(caller))
    }

    /// Why these servers (or the required ones) are not ready. Empty when all have a token in hand.
    pub fn not_ready(&self, caller: &Caller, own_uid: u32, names: &[String]) -> Vec<String> {
        let wanted = |want: &Want| {
            let meant = |name: &String| **name == *want.server.name || **name == *want.order.name;
            if names.is_empty() { want.server.required } else { names.iter().any(meant) }
        };
        let waiting = self.servers.iter().flat_map(Want::all).filter(wanted).filter_map(|want| {
            let name = &want.order.name;
            let held = self
                .cache
                .held()
                .into_iter()
                .any(|(_, token)| token.server == *name && may_be_served(&token, self.clock.boot()));
            let why = || match self.last_error(&want) {
                // Who may not use a server is not told its name.
                _ if !sees(caller, own_uid, &want.server) => "a required server has no token yet".to_owned(),
                Some(error) => error.to_string(),
                None => format!("{name}: no token yet"),
            };
            (!held).then(why)
        });
        waiting.collect()
    }

    /// The same for whoever may look without saying who they are: counts and classes, and no name.
    pub fn not_ready_in_numbers(&self) -> Vec<String> {
        let required: Vec<Want> = self.servers.iter().filter(|server| server.required).flat_map(Want::all).collect();
        let held = self.cache.held();
        let has_token = |want: &Want| {
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
        missing.into_iter().map(line).collect()
    }

    /// Starts the flights of named servers, so that readiness can be waited for. A name that is unknown, or that
    /// this caller may not know, is refused: waiting would not help.
    pub fn keep_named(&self, caller: &Caller, own_uid: u32, names: &[String]) -> Result<(), super::Error> {
        for name in names {
            let target = Target::Name(name.clone());
            let decided = self.decide_keep(caller, own_uid, &target);
            self.note(&Matter::new(Action::Keep, caller, Some(&target)), decided, |()| None)?;
        }
        Ok(())
    }

    fn decide_keep(&self, caller: &Caller, own_uid: u32, target: &Target) -> Result<(), super::Error> {
        let server = self.server(target)?;
        let permitted = server.policy.permit(caller, None);
        if let (Err(denied), true) = (&permitted, caller.uid != own_uid) {
            return Err(super::Error::denied(&server.name, denied.clone()));
        }
        if let Ok(permit) = permitted {
            self.prefetch(&Want { permit, ..Want::of(&server) });
            if let Some(door) = &server.front_door {
                self.prefetch(&Want::at_door(&server, door));
            }
        }
        Ok(())
    }

    fn prefetch(&self, want: &Want) {
        let key = want.key();
        if self.cache.hit(&key, &crate::cache::Wish::ANY).is_none() {
            self.cache.prefetch(key, || self.recipe(want.clone()));
        }
    }

    fn explain_want(&self, want: &Want) -> ServerStatus {
        let Want { server, order, .. } = want;
        let tokens: Vec<_> =
            self.cache.held().into_iter().map(|(_, token)| token).filter(|token| token.server == order.name).collect();
        let error = self.last_error(want);
        let state = if tokens.iter().any(|token| may_be_served(token, self.clock.boot())) {
            "fresh"
        } else if error.is_some() {
            "failing"
        } else {
            "idle"
        };
        let pinned = order.issuer().map(ToString::to_string);
        let callers = self.tallies.get(&order.name).map(super::Tally::callers).unwrap_or_default();
        ServerStatus {
            name: order.name.to_string(),
            url: server.url.to_string(),
            issuer: pinned.or_else(|| tokens.first().map(|token| token.issuer.to_string())),
            required: server.required,
            front_door_of: (order.opens == Opens::FrontDoor).then(|| server.name.to_string()),
            state,
            tokens: tokens.iter().map(|token| self.explain_token(token)).collect(),
            error: error.map(|error| Failure {
                class: error.class().as_str(),
                error: error.code().to_owned(),
                error_description: error.to_string(),
                hint: error.hint(),
            }),
            callers: callers.into_iter().map(|(uid, served)| CallerStatus { uid, served }).collect(),
        }
    }

    fn explain_token(&self, token: &Token) -> TokenStatus {
        TokenStatus {
            scope: token.scopes.to_string(),
            // A query may hold anything.
            resource: token.resource.as_str().split('?').next().unwrap_or_default().to_owned(),
            sub: token.hops.last().and_then(|hop| hop.sub.clone()),
            sha256: token.digest.hex()[..12].to_owned(),
            minted_at: rfc3339(token.minted_wall),
            expires_at: token.expires_at.clone(),
            expires_in: token.left(self.clock.boot()).as_secs(),
            lifetime: token.life.as_secs(),
        }
    }

    fn last_error(&self, want: &Want) -> Option<super::Error> {
        let (_, error) = self.cache.peek(&want.key());
        error.map(|error| error.at(&want.order.name))
    }
}

/// The daemon's own user sees all servers, everybody else those that it may use.
fn sees(caller: &Caller, own_uid: u32, server: &Server) -> bool {
    caller.uid == own_uid || server.policy.knows(caller)
}
