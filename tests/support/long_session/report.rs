//! What came of the calls of a long session, and which of them may fail.

use std::collections::BTreeMap;
use std::fmt;

/// A time in which no call could succeed.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub why: Why,
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Window {
    fn touches(&self, failure: &Failure) -> bool {
        failure.from <= self.to && failure.to >= self.from
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The issuer is away and every token it issued is dead.
    NoToken,
    Daemon,
    Server,
}

/// What a client got in place of the tool's result.
#[derive(Debug)]
pub(super) enum Got {
    /// An error of ours.
    Ours,
    /// No answer: the connection was refused or ended, or a stream ended that says by an event id that its client can resume it.
    Nothing(String),
    Other(String),
}

/// A call that failed.
#[derive(Debug)]
pub struct Failure {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) got: Got,
}

#[derive(Debug)]
pub struct Report {
    pub calls: usize,
    pub failures: Vec<Failure>,
    pub windows: Vec<Window>,
    /// How many tokens the server saw.
    pub tokens: usize,
}

impl Report {
    /// How many calls failed at a time when both issuer and server could answer.
    pub fn needless(&self) -> usize {
        let blameless = |window: &&Window| window.why != Why::Daemon;
        let windows: Vec<&Window> = self.windows.iter().filter(blameless).collect();
        let is_within = |failure: &Failure| windows.iter().any(|window| window.touches(failure));
        self.failures.iter().filter(|failure| !is_within(failure)).count()
    }

    /// What was told of the failures, each with its number, the most frequent first.
    pub fn told(&self) -> Vec<(usize, String)> {
        let mut counts = BTreeMap::<String, usize>::new();
        for failure in &self.failures {
            let digits = |c: char| if c.is_ascii_digit() { '#' } else { c };
            *counts.entry(failure.got.to_string().chars().map(digits).take(160).collect()).or_default() += 1;
        }
        let mut told: Vec<_> = counts.into_iter().map(|(what, count)| (count, what)).collect();
        told.sort_by(|a, b| b.cmp(a));
        told
    }

    /// The failures that must not be.
    pub fn wrong(&self) -> Vec<String> {
        self.failures.iter().filter(|failure| !self.may_be(failure)).map(Failure::to_string).collect()
    }

    fn may_be(&self, failure: &Failure) -> bool {
        let mut within = self.windows.iter().filter(|window| window.touches(failure));
        match failure.got {
            Got::Ours => within.next().is_some(),
            // Only the daemon's own absence leaves a client without an answer.
            Got::Nothing(_) => within.any(|window| window.why == Why::Daemon),
            Got::Other(_) => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "from {:.3} to {:.3}: {}", self.from, self.to, self.got)
    }
}

impl fmt::Display for Got {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Ours => "an error of ours",
            Self::Nothing(what) | Self::Other(what) => what,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = self.failures.iter().filter(|failure| matches!(failure.got, Got::Ours)).count();
        write!(
            to,
            "{} calls with {} tokens: {} failed in {} windows ({ours} in words of ours, {} wrong)",
            self.calls,
            self.tokens,
            self.failures.len(),
            self.windows.len(),
            self.wrong().len()
        )
    }
}
