//! Detects that a client runs its helper again because the last token did not work. The client gives no reason.
//!
//! If a caller asks the daemon twice within 30 s for the `headers` of one server, the second answer has a new token,
//! unless the cached one was minted after the first answer. The next new token has to wait for a back-off: many clients
//! of one user look like one caller and must not mint in a loop.

use std::collections::HashMap;
use std::time::Duration;

use crate::caller::Caller;
use crate::clock::Boot;

/// A second request within this time counts as a retry.
const SOON: Duration = Duration::from_secs(30);
/// The back-off between two forced tokens doubles from 60 s up to this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);
/// More callers than run on one machine. At the limit the oldest answer is forgotten, of the caller's own user if that one
/// has many.
const CAP: usize = 1_024;
/// One user has at most this many of them. At the limit its own oldest answer is forgotten.
const CAP_OF_USER: usize = CAP / 4;

/// The last answer to each caller, for each server. A caller is a user in a control group.
#[derive(Default)]
pub(super) struct RetryDetector(HashMap<Who, Given>);

#[derive(Clone, PartialEq, Eq, Hash)]
/// One caller at one server.
struct Who {
    uid: u32,
    cgroup: Option<String>,
    server: String,
}

/// The last answer to one caller.
struct Given {
    at: Boot,
    /// How many new tokens were forced in a row.
    forced: u32,
    /// The end of the back-off after the last forced token.
    not_before: Option<Boot>,
}

impl RetryDetector {
    /// When this caller was last answered, if its new request counts as a retry: the answer is recent, and no back-off
    /// applies.
    pub(super) fn given_before(&self, caller: &Caller, server: &str, now: Boot) -> Option<Boot> {
        let given = self.0.get(&who(caller, server))?;
        let allowed = given.not_before.is_none_or(|moment| now >= moment);
        (now.since(given.at) <= SOON && allowed).then_some(given.at)
    }

    /// Notes that a new token is made for this caller, and starts the back-off. Calls during the back-off do not count.
    pub(super) fn forced(&mut self, caller: &Caller, server: &str, now: Boot) {
        let given = self.0.get_mut(&who(caller, server));
        if let Some(given) = given.filter(|given| given.not_before.is_none_or(|moment| now >= moment)) {
            given.forced += 1;
            given.not_before = Some(now + (SOON * (1 << given.forced.min(6))).min(LONGEST_BACKOFF));
        }
    }

    /// Notes an answer to this caller.
    pub(super) fn answered(&mut self, caller: &Caller, server: &str, now: Boot) {
        let who = who(caller, server);
        if !self.0.contains_key(&who) {
            self.make_room(who.uid, now);
        }
        let given = self.0.entry(who).or_insert(Given { at: now, forced: 0, not_before: None });
        // The caller did not come back for a long time, so its last token worked: reset the back-off.
        if now.since(given.at) > LONGEST_BACKOFF {
            given.forced = 0;
            given.not_before = None;
        }
        given.at = now;
    }

    /// At a limit, forgets callers that did not come back for long, and if that is not enough, the oldest one.
    fn make_room(&mut self, uid: u32, now: Boot) {
        let of_user = |all: &Self| all.0.keys().filter(|who| who.uid == uid).count();
        if self.0.len() < CAP && of_user(self) < CAP_OF_USER {
            return;
        }
        self.0.retain(|_, given| now.since(given.at) <= LONGEST_BACKOFF);
        let has_many = of_user(self) >= CAP_OF_USER;
        let candidates = self.0.iter().filter(|(who, _)| !has_many || who.uid == uid);
        let oldest = candidates.min_by_key(|(_, given)| given.at).map(|(who, _)| who.clone());
        if let Some(oldest) = oldest.filter(|_| has_many || self.0.len() >= CAP) {
            self.0.remove(&oldest);
        }
    }
}

fn who(caller: &Caller, server: &str) -> Who {
    Who { uid: caller.uid, cgroup: caller.cgroup(), server: server.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::clock::Clock;

    #[tokio::test(start_paused = true)]
    async fn a_second_question_counts_once_and_then_backs_off() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let caller = Caller::on_socket(1, 1, None);
        let mut memory = RetryDetector::default();
        assert_eq!(memory.given_before(&caller, "a", clock.boot()), None);
        memory.answered(&caller, "a", clock.boot());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(memory.given_before(&caller, "a", clock.boot()).is_some());
        assert_eq!(memory.given_before(&caller, "b", clock.boot()), None);
        memory.forced(&caller, "a", clock.boot());
        memory.forced(&caller, "a", clock.boot());
        memory.answered(&caller, "a", clock.boot());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(memory.given_before(&caller, "a", clock.boot()), None, "the third time is too soon");
        tokio::time::advance(Duration::from_secs(56)).await;
        memory.answered(&caller, "a", clock.boot());
        assert!(memory.given_before(&caller, "a", clock.boot()).is_some(), "the back-off is over");
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(memory.given_before(&caller, "a", clock.boot()), None, "that was long ago");
    }

    async fn answer(memory: &mut RetryDetector, clock: &Clock, uid: u32, server: &str) {
        memory.answered(&Caller::on_socket(uid, 1, None), server, clock.boot());
        tokio::time::advance(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_the_oldest_answer_is_forgotten_and_the_new_one_remembered() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let caller = |uid| Caller::on_socket(uid, 1, None);
        let mut memory = RetryDetector::default();
        for uid in 0..CAP as u32 {
            answer(&mut memory, &clock, uid, "a").await;
        }
        answer(&mut memory, &clock, 0, "a").await;
        answer(&mut memory, &clock, 5_000, "a").await;
        assert_eq!(memory.0.len(), CAP);
        assert!(memory.given_before(&caller(5_000), "a", clock.boot()).is_some());
        assert!(memory.given_before(&caller(0), "a", clock.boot()).is_some(), "it was answered again");
        assert_eq!(memory.given_before(&caller(1), "a", clock.boot()), None, "now the oldest");
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_with_many_answers_makes_no_other_user_forgotten() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let mut memory = RetryDetector::default();
        answer(&mut memory, &clock, 1, "a").await;
        for server in 0..2 * CAP {
            answer(&mut memory, &clock, 2, &server.to_string()).await;
        }
        assert!(memory.given_before(&Caller::on_socket(1, 1, None), "a", clock.boot()).is_some());
        assert_eq!(memory.0.len(), 1 + CAP_OF_USER);
    }
}
