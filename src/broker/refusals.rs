//! Limits the log and audit lines about refusals. Every caller can cause any number of them, whether a rule names it or not.
//! So the first ones in a second get a line each, and one line counts the rest. What is served always gets its line.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Action;
use crate::audit::{Audit, Decision, Outcome};
use crate::caller::Caller;
use crate::clock::Clock;

/// Refusals of one user in one second that get a line each. A stranger did not present a listener's secret, or no rule names
/// it: it gets enough for a person who tries something by hand. A caller that a rule names gets enough for the mistakes of a
/// program.
const OF_STRANGER: u32 = 5;
const OF_CALLER: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);
/// More users than run agents on one machine. Further ones are counted together, strangers and callers each for themselves.
const CAP: usize = 64;

/// The refusals of the current second.
pub(super) struct RefusalLimiter {
    audit: Option<Arc<Audit>>,
    clock: Clock,
    tasks: TaskTracker,
    stop: CancellationToken,
    refused: Mutex<Refused>,
}

/// Strangers cannot use up what callers have.
#[derive(Default)]
struct Refused {
    strangers: BTreeMap<Who, Count>,
    callers: BTreeMap<Who, Count>,
}

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// Callers on TCP without the secret: their user is not known.
    Unknown,
    /// One user on the socket.
    Socket(u32),
    /// One user over TCP.
    Tcp(u32),
    /// All users beyond the cap.
    Others,
}

impl Who {
    fn of(caller: &Caller) -> Self {
        match caller.gid {
            _ if !caller.is_known() => Self::Unknown,
            Some(_) => Self::Socket(caller.uid),
            None => Self::Tcp(caller.uid),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("somebody over TCP"),
            Self::Socket(uid) => write!(f, "uid {uid}"),
            Self::Tcp(uid) => write!(f, "uid {uid} over TCP"),
            Self::Others => f.write_str("further users"),
        }
    }
}

/// How many refusals there were in the current second.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Refusals with a line of their own.
    lines: u32,
    /// Refusals without one.
    more: u64,
}

impl Refused {
    fn of(&mut self, is_stranger: bool) -> &mut BTreeMap<Who, Count> {
        if is_stranger { &mut self.strangers } else { &mut self.callers }
    }
}

impl RefusalLimiter {
    pub(super) fn new(
        audit: Option<Arc<Audit>>,
        clock: Clock,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { audit, clock, tasks, stop, refused: Mutex::default() })
    }

    /// Counts a refusal. True if it gets a line of its own.
    pub(super) fn is_told(self: &Arc<Self>, caller: &Caller, is_stranger: bool) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = refused.of(is_stranger);
        let who = Who::of(caller);
        let who = if counts.contains_key(&who) || counts.len() < CAP { who } else { Who::Others };
        let count = counts.entry(who).or_insert_with(|| {
            self.tasks.spawn(Arc::clone(self).sum_up(who, is_stranger));
            Count::default()
        });
        if count.lines < if is_stranger { OF_STRANGER } else { OF_CALLER } {
            count.lines += 1;
            return true;
        }
        count.more += 1;
        false
    }

    /// Writes one line for the refusals without one, when the second is over or the daemon ends.
    async fn sum_up(self: Arc<Self>, who: Who, is_stranger: bool) {
        tokio::select! {
            () = tokio::time::sleep(SECOND) => {}
            () = self.stop.cancelled() => {}
        }
        let count = self.refused.lock().unwrap_or_else(PoisonError::into_inner).of(is_stranger).remove(&who);
        let more = count.unwrap_or_default().more;
        if more == 0 {
            return;
        }
        let caller = match who {
            Who::Socket(uid) | Who::Tcp(uid) => Caller::by_tcp(uid),
            Who::Unknown | Who::Others => Caller::unproved(),
        };
        match who {
            Who::Unknown => debug!(more, "further requests without the secret were not served"),
            _ => tracing::warn!(caller = %who, more, "further requests were not served"),
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
            call: None,
            done: None,
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

    fn limiter(audit: Option<Audit>) -> Arc<RefusalLimiter> {
        let (clock, tasks) = (Clock::virtual_at(SystemTime::UNIX_EPOCH), TaskTracker::new());
        RefusalLimiter::new(audit.map(Arc::new), clock, tasks, CancellationToken::new())
    }

    fn on_socket(uid: u32) -> Caller {
        Caller::on_socket(uid, uid, None)
    }

    fn told(limiter: &Arc<RefusalLimiter>, caller: &Caller, is_stranger: bool, times: u32) -> u32 {
        (0..times).map(|_| u32::from(limiter.is_told(caller, is_stranger))).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_of_each_second_are_told_for_each_user() {
        let limiter = limiter(None);
        let (one, other, unknown) = (on_socket(1), Caller::by_tcp(2), Caller::unproved());
        for _ in 0..3 {
            for caller in [&one, &other, &unknown] {
                assert_eq!(told(&limiter, caller, true, 10_000), OF_STRANGER);
                assert_eq!(told(&limiter, caller, false, 10_000), OF_CALLER);
            }
            tokio::time::sleep(2 * SECOND).await;
            let refused = limiter.refused.lock().expect("not poisoned");
            assert!(refused.strangers.is_empty() && refused.callers.is_empty(), "nothing is kept of a quiet user");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_number_of_users_makes_a_flood_and_strangers_take_no_line_of_a_caller() {
        let limiter = limiter(None);
        let all = |is_stranger| (0..10_000).map(|uid| told(&limiter, &on_socket(uid), is_stranger, 50)).sum::<u32>();
        let users = u32::try_from(CAP).expect("a few") + 1;
        assert_eq!(all(true), users * OF_STRANGER);
        assert_eq!(all(false), users * OF_CALLER);
    }

    #[test]
    fn the_counting_line_names_the_user_and_the_door() {
        let shown = |caller: &Caller| Who::of(caller).to_string();
        assert_eq!(shown(&on_socket(4_003)), "uid 4003");
        assert_eq!(shown(&Caller::by_tcp(4_003)), "uid 4003 over TCP");
        assert_eq!(shown(&Caller::unproved()), "somebody over TCP");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_counted_in_one_line_also_when_the_daemon_ends_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("audit.jsonl");
        let uid = nix::unistd::geteuid().as_raw();
        let audit = Audit::hold(Config { file: file.clone(), uid }).expect("it can be written");
        let limiter = limiter(Some(audit));
        let lines = || fs::read_to_string(&file).expect("it is there").lines().count();
        told(&limiter, &on_socket(1), true, OF_STRANGER);
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(lines(), 0, "nothing was left out");
        told(&limiter, &on_socket(1), true, 100);
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(lines(), 1);
        told(&limiter, &on_socket(2), false, 100);
        tokio::time::sleep(2 * SECOND).await;
        told(&limiter, &Caller::unproved(), true, 1_000);
        limiter.stop.cancel();
        limiter.tasks.close();
        limiter.tasks.wait().await;
        let text = fs::read_to_string(&file).expect("it is there");
        let short = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            (line["outcome"].clone(), line["error"].clone(), line["more"].as_u64(), line["caller"]["uid"].as_u64())
        };
        let wanted = |more, uid| ("refused".into(), "repeated".into(), Some(more), uid);
        let all = [wanted(95, Some(1)), wanted(80, Some(2)), wanted(995, None)];
        assert_eq!(text.lines().map(short).collect::<Vec<_>>(), all);
    }
}
