//! Other processes, as /proc shows them.

use std::fs;

/// When the process of this id was started, in ticks since boot: with the id it names one process, because ids are reused. `None`
/// if there is none, or if it has ended and waits for its parent.
pub(crate) fn started(pid: i32) -> Option<u64> {
    Stat::of(pid).filter(|stat| !stat.has_ended).map(|stat| stat.started)
}

/// What /proc/PID/stat says (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    has_ended: bool,
    started: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name of the program is in parentheses, and may hold any character.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let (state, started) = (fields.first()?, fields.get(19)?);
        let has_ended = matches!(*state, "Z" | "X" | "x");
        Some(Self { has_ended, started: started.parse().ok()? })
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
            assert_eq!(stat, Some(Stat { has_ended: false, started: 12_345 }), "{name}");
        }
        assert!(Stat::parse(&format!("5 (sh) Z {rest}")).is_some_and(|stat| stat.has_ended));
        assert_eq!(Stat::parse("5 (sh"), None);
    }

    #[test]
    fn this_process_was_started_and_no_process_has_a_negative_id() {
        let own = i32::try_from(std::process::id()).expect("it fits");
        assert!(started(own).is_some_and(|ticks| started(own) == Some(ticks)));
        assert_eq!(started(-1), None);
    }
}
