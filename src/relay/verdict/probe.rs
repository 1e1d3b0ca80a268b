//! The errors that probes were answered with.
//!
//! SDKs send `server/discover` first, and `initialize` if that fails, which is the older wire. If a temporary failure passed
//! between the two, the client would stay on the older wire. So an `initialize` within two seconds of a failed
//! `server/discover` is answered with the same error.

use std::sync::Arc;
use std::time::Duration;

use super::Told;
use crate::clock::Boot;

/// How long an error also answers an `initialize`.
const ECHO: Duration = Duration::from_secs(2);
/// More probes than fail within two seconds. At the limit the oldest one is forgotten.
const CAP: usize = 256;
/// The same for one user.
pub(super) const CAP_OF_USER: usize = CAP / 4;

/// The errors of the last two seconds, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct ProbeErrors(pub(super) Vec<Failed>);

#[derive(Debug)]
pub(super) struct Failed {
    uid: u32,
    server: Arc<str>,
    at: Boot,
    told: Told,
}

impl ProbeErrors {
    /// Notes that a `server/discover` of this user was answered with this error.
    pub(crate) fn note(&mut self, uid: u32, server: &Arc<str>, told: Told, now: Boot) {
        self.0.retain(|one| now.since(one.at) < ECHO && !(one.uid == uid && one.server == *server));
        let of_user = self.0.iter().filter(|one| one.uid == uid).count();
        let oldest = match of_user {
            CAP_OF_USER.. => self.0.iter().position(|one| one.uid == uid),
            _ => (self.0.len() >= CAP).then_some(0),
        };
        if let Some(oldest) = oldest {
            self.0.remove(oldest);
        }
        self.0.push(Failed { uid, server: Arc::clone(server), at: now, told });
    }

    /// The error that an `initialize` of this user is answered with.
    pub(crate) fn for_initialize(&self, uid: u32, server: &str, now: Boot) -> Option<&Told> {
        let is_it = |one: &&Failed| one.uid == uid && &*one.server == server && now.since(one.at) < ECHO;
        self.0.iter().find(is_it).map(|one| &one.told)
    }
}
