//! Other processes, as /proc shows them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// When the process of this id was started, in ticks since boot: with the id it names one process, because ids are reused. `None`
/// if there is none, or if it has ended and waits for its parent.
pub(crate) fn started(pid: i32) -> Option<u64> {
    Stat::of(pid).filter(|stat| !stat.has_ended).map(|stat| stat.started)
}

/// Is this process, as seen here, the one that calls itself `own`? In a container of its own it has another number there.
pub(crate) fn calls_itself(pid: i32, own: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // The last number is that in the innermost namespace (pid_namespaces(7)).
    let innermost =
        status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_ascii_whitespace().last()?.parse().ok());
    innermost.unwrap_or(pid) == own
}

/// The processes that a program consists of, now that nobody waits for it any more.
pub(crate) struct Family<'a> {
    /// The program, and when it was started.
    pub(crate) head: (i32, u64),
    /// A variable with its value that only its processes have.
    pub(crate) mark: (&'a str, &'a Path),
}

/// The most rounds of a kill: each ends those that were born in the one before.
const ROUNDS: usize = 50;

impl Family<'_> {
    /// Kills the program, what it has started, and what has its mark. Processes are stopped first, so that none is born meanwhile.
    pub(crate) fn kill(&self) {
        for _ in 0..ROUNDS {
            let members = self.members();
            if members.is_empty() {
                return;
            }
            for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
                for pid in &members {
                    // It may have ended meanwhile, or have become another user's.
                    let _ = kill(Pid::from_raw(*pid), signal);
                }
            }
        }
    }

    fn members(&self) -> BTreeSet<i32> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let all: Vec<(i32, Stat)> = pids.filter_map(|pid| Some((pid, Stat::of(pid)?))).collect();
        let living = || all.iter().filter(|(pid, stat)| !stat.has_ended && *pid != own);
        let (head, started) = self.head;
        let is_head = |pid: i32, stat: &Stat| pid == head && stat.started == started;
        let mut members = BTreeSet::new();
        members.extend(living().filter(|(pid, stat)| is_head(*pid, stat) || self.is_marked(*pid)).map(|(pid, _)| *pid));
        loop {
            let more: Vec<i32> = living()
                .filter(|(pid, stat)| members.contains(&stat.parent) && !members.contains(pid))
                .map(|(pid, _)| *pid)
                .collect();
            if more.is_empty() {
                return members;
            }
            members.extend(more);
        }
    }

    fn is_marked(&self, pid: i32) -> bool {
        let (name, value) = self.mark;
        let mark = [name.as_bytes(), b"=", value.as_os_str().as_bytes()].concat();
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == mark)
    }
}

/// What /proc/PID/stat says (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    has_ended: bool,
    parent: i32,
    started: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name of the program is in parentheses, and may hold any character.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let (state, parent, started) = (fields.first()?, fields.get(1)?, fields.get(19)?);
        let has_ended = matches!(*state, "Z" | "X" | "x");
        Some(Self { has_ended, parent: parent.parse().ok()?, started: started.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_name_of_the_program() {
        let rest = "7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1";
        for name in ["sh", "a) Z 9 (b", "", "x y"] {
            let stat = Stat::parse(&format!("5 ({name}) S {rest}"));
            assert_eq!(stat, Some(Stat { has_ended: false, parent: 7, started: 12_345 }), "{name}");
        }
        assert!(Stat::parse(&format!("5 (sh) Z {rest}")).is_some_and(|stat| stat.has_ended));
        assert_eq!(Stat::parse("5 (sh"), None);
    }

    #[test]
    fn a_family_is_the_program_its_children_and_who_has_its_mark() {
        use std::process::{Command, Stdio};
        let mark = ("SAFECONDUCT_TEST_MARK", Path::new("/a/mark of this test"));
        let start = |program: &str, marked: bool| {
            let mut command = Command::new("sh");
            command.args(["-c", program]).stdout(Stdio::null());
            if marked {
                command.env(mark.0, mark.1);
            }
            command.spawn().expect("there is a shell")
        };
        let mut head = start("sleep 600 & wait", false);
        let (mut marked, mut other) = (start("sleep 600 & wait", true), start("exec sleep 600", false));
        let id = |child: &std::process::Child| i32::try_from(child.id()).expect("it fits");
        let family = Family { head: (id(&head), started(id(&head)).expect("it lives")), mark };
        family.kill();
        for child in [&mut head, &mut marked] {
            let status = child.wait().expect("ours");
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        }
        assert!(family.members().is_empty(), "nor does a child of theirs live");
        assert!(other.try_wait().expect("ours").is_none(), "it is no member");
        let reused = Family { head: (id(&other), 0), mark };
        reused.kill();
        assert!(other.try_wait().expect("ours").is_none(), "another process has the number now");
        drop((other.kill(), other.wait()));
    }

    #[test]
    fn this_process_was_started_and_no_process_has_a_negative_id() {
        let own = i32::try_from(std::process::id()).expect("it fits");
        assert!(started(own).is_some_and(|ticks| started(own) == Some(ticks)));
        assert_eq!(started(-1), None);
    }
}
