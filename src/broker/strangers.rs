//! Limits the log and audit lines about refused strangers: callers that did not present a listener's secret, or that no
//! rule names. Every program on the machine can cause any number of such refusals. So the first few in a second get a
//! line each, and one line counts the rest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Action;
use crate::audit::{Audit, Decision, Outcome};
use crate::caller::Caller;
use crate::clock::Clock;

/// Refusals of one user in one second that get a line each. Enough for a person who tries something by hand.
const FEW: u32 = 5;
const SECOND: Duration = Duration::from_secs(1);
/// More users than run agents on one machine. Further ones are counted together.
const CAP: usize = 64;

/// The refusals of strangers in the current second.
pub(super) struct StrangerLimiter {
    audit: Option<Arc<Audit>>,
    clock: Clock,
    tasks: TaskTracker,
    stop: CancellationToken,
    refused: Mutex<BTreeMap<Who, Count>>,
}

/// The callers whose refusals are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// Callers on TCP without the secret: their user is not known.
    Unknown,
    /// One user.
    User(u32),
    /// All users beyond the cap.
    Others,
}

/// How many refusals there were in the current second.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Refusals with a line of their own.
    lines: u32,
    /// Refusals without one.
    more: u64,
}

impl StrangerLimiter {
    pub(super) fn new(
        audit: Option<Arc<Audit>>,
        clock: Clock,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { audit, clock, tasks, stop, refused: Mutex::default() })
    }

    /// Counts a refusal. True if it gets a line of its own.
    pub(super) fn is_told(self: &Arc<Self>, caller: &Caller) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let who = if caller.is_known() { Who::User(caller.uid) } else { Who::Unknown };
        let who = if refused.contains_key(&who) || refused.len() < CAP { who } else { Who::Others };
        let count = refused.entry(who).or_insert_with(|| {
            self.tasks.spawn(Arc::clone(self).sum_up(who));
            Count::default()
        });
        if count.lines < FEW {
            count.lines += 1;
            return true;
        }
        count.more += 1;
        false
    }

    /// Writes one line for the refusals without one, when the second is over or the daemon ends.
    async fn sum_up(self: Arc<Self>, who: Who) {
        tokio::select! {
            () = tokio::time::sleep(SECOND) => {}
            () = self.stop.cancelled() => {}
        }
        let count = self.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(&who);
        let more = count.unwrap_or_default().more;
        if more == 0 {
            return;
        }
        let caller = match who {
            Who::User(uid) => Caller::by_tcp(uid),
            Who::Unknown | Who::Others => Caller::unproved(),
        };
        match who {
            Who::Unknown => tracing::debug!(more, "further requests without the secret were not served"),
            _ => tracing::warn!(%caller, more, "further requests were not served"),
        }
        let Some(audit) = &self.audit else { return };
        let recorded = audit.note(&Decision {
            time: self.clock.wall(),
            action: Action::Gate,
            outcome: Outcome::RefusedOften { more },
            caller: &caller,
            helper: false,
            server: None,
            asked: None,
            token: None,
            outer: None,
            rejected: None,
            tool: None,
        });
        if let Err(error) = recorded {
            tracing::error!(%error, "refusals could not be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use super::*;
    use crate::audit::Config;

    fn strangers(audit: Option<Audit>) -> Arc<StrangerLimiter> {
        let (clock, tasks) = (Clock::virtual_at(SystemTime::UNIX_EPOCH), TaskTracker::new());
        StrangerLimiter::new(audit.map(Arc::new), clock, tasks, CancellationToken::new())
    }

    fn told(strangers: &Arc<StrangerLimiter>, caller: &Caller, times: u32) -> usize {
        (0..times).filter(|_| strangers.is_told(caller)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_few_of_each_second_are_told_for_each_user() {
        let strangers = strangers(None);
        let (one, other, unknown) = (Caller::by_tcp(1), Caller::by_tcp(2), Caller::unproved());
        for _ in 0..3 {
            for caller in [&one, &other, &unknown] {
                assert_eq!(told(&strangers, caller, 10_000), FEW as usize);
            }
            tokio::time::sleep(2 * SECOND).await;
            assert!(strangers.refused.lock().expect("not poisoned").is_empty(), "nothing is kept of a quiet user");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_number_of_users_makes_a_flood() {
        let strangers = strangers(None);
        let told: usize = (0..10_000).map(|uid| told(&strangers, &Caller::by_tcp(uid), 10)).sum();
        assert_eq!(told, (CAP + 1) * FEW as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_counted_in_one_line_also_when_the_daemon_ends_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("audit.jsonl");
        let uid = nix::unistd::geteuid().as_raw();
        let audit = Audit::hold(Config { file: file.clone(), uid }).expect("it can be written");
        let strangers = strangers(Some(audit));
        let lines = || fs::read_to_string(&file).expect("it is there").lines().count();
        told(&strangers, &Caller::by_tcp(1), FEW);
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(lines(), 0, "nothing was left out");
        told(&strangers, &Caller::by_tcp(1), 100);
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(lines(), 1);
        told(&strangers, &Caller::unproved(), 1_000);
        strangers.stop.cancel();
        strangers.tasks.close();
        strangers.tasks.wait().await;
        let text = fs::read_to_string(&file).expect("it is there");
        let short = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            (line["outcome"].clone(), line["error"].clone(), line["more"].as_u64(), line["caller"]["uid"].as_u64())
        };
        let wanted = |more, uid| ("refused".into(), "repeated".into(), Some(more), uid);
        assert_eq!(text.lines().map(short).collect::<Vec<_>>(), [wanted(95, Some(1)), wanted(995, None)]);
    }
}
