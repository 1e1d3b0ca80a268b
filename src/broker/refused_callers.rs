//! Who was refused by policy, for the status: how often, when last, for which server, and what would let it in.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use crate::clock::rfc3339;

/// More users than run agents on one machine. Further ones are in the log and the audit file only.
const CAP: usize = 64;

/// The refusals by user.
#[derive(Default)]
pub(super) struct RefusedCallers(Mutex<BTreeMap<u32, Refusals>>);

struct Refusals {
    count: u64,
    last: SystemTime,
    server: Option<String>,
    error: String,
    is_stranger: bool,
}

/// One user that was refused.
#[derive(Debug, Serialize)]
pub struct RefusedCaller {
    /// The user id.
    pub uid: u32,
    /// How often.
    pub refused: u64,
    /// When it was refused last.
    pub last_at: String,
    /// The server that it asked for then, if there is one.
    pub server: Option<String>,
    /// The code of that refusal.
    pub error: String,
    /// What would let it in.
    pub hint: Option<String>,
}

impl RefusedCallers {
    /// Counts a refusal. `is_stranger`: no rule names this user.
    pub(super) fn count(&self, uid: u32, now: SystemTime, server: Option<&str>, (error, is_stranger): (&str, bool)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.get(&uid).map(|one| one.count);
        if before.is_none() && all.len() >= CAP {
            return;
        }
        let count = before.unwrap_or_default().saturating_add(1);
        let (server, error) = (server.map(str::to_owned), error.to_owned());
        all.insert(uid, Refusals { count, last: now, server, error, is_stranger });
    }

    /// All of them, by user id.
    pub(super) fn all(&self) -> Vec<RefusedCaller> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |(uid, one): (&u32, &Refusals)| RefusedCaller {
            uid: *uid,
            refused: one.count,
            last_at: rfc3339(one.last),
            server: one.server.clone(),
            error: one.error.clone(),
            // Who has servers and asked for none of them wanted to operate the daemon.
            hint: (one.error == "access_denied" && (one.is_stranger || one.server.is_some()))
                .then(|| let_in(*uid, one.server.as_deref())),
        };
        all.iter().map(told).collect()
    }
}

fn let_in(uid: u32, server: Option<&str>) -> String {
    let place = server.map_or_else(|| "a server".to_owned(), |server| format!("[servers.{server}]"));
    format!("if it is meant to, add {{ uid = {uid} }} to `allow` of {place}, then `safeconduct reload`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_refusal_counts_and_strangers_do_not_fill_the_memory() {
        let callers = RefusedCallers::default();
        callers.count(7, SystemTime::UNIX_EPOCH, Some("demo"), ("access_denied", true));
        callers.count(7, SystemTime::UNIX_EPOCH, None, ("invalid_scope", false));
        let all = callers.all();
        assert_eq!((all[0].uid, all[0].refused, &*all[0].error, &all[0].hint), (7, 2, "invalid_scope", &None));
        callers.count(7, SystemTime::UNIX_EPOCH, None, ("access_denied", false));
        assert_eq!(callers.all()[0].hint, None, "it has its servers, and wanted to operate the daemon");
        (100..1_000).for_each(|uid| callers.count(uid, SystemTime::UNIX_EPOCH, Some("demo"), ("access_denied", true)));
        let all = callers.all();
        assert_eq!(all.len(), CAP);
        assert!(all[1].hint.as_deref().is_some_and(|hint| hint.contains("{ uid = 100 } to `allow` of [servers.demo]")));
    }
}
