//! Checks a chain line by line, with bounded memory. It never writes.

use std::io::{self, BufRead};

use super::Head;
use super::chain::{self, Link, NotLink, Torn};
use crate::token::Digest;

/// The longest line that this program writes.
pub(crate) const LINE_CAP: usize = 128 * 1024;
/// At most this many torn places are listed; further ones are only counted.
const TOLD: usize = 32;

/// A line of one of the files that are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which file, from 0.
    pub file: usize,
    /// Which line, from 1.
    pub line: u64,
}

/// The result for a chain that is intact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The number of whole lines.
    pub lines: u64,
    /// The head that the first line continues. `None` if the chain begins with that line.
    pub continues: Option<Digest>,
    /// The last line.
    pub head: Option<Head>,
    /// The place of the wanted head. Line 0 means the head that the first line continues.
    pub found: Option<Place>,
    /// Torn places that a `repair` accounts for: where each begins, and its length.
    pub torn: Vec<(Place, u64)>,
    /// The number of such places.
    pub torn_count: u64,
}

/// The first problem of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Where.
    pub at: Place,
    /// A stable code for scripts.
    pub code: &'static str,
    /// What is wrong.
    pub what: String,
}

/// The state between two lines.
pub(crate) struct Verifier {
    wanted: Option<Digest>,
    report: Report,
    at: Place,
    /// Bytes that are not a line, and where they begin.
    junk: Option<(Place, Junk)>,
}

/// Corrupt bytes that a `repair` may account for, capped at the number that a power loss can leave.
struct Junk(Vec<u8>);

impl Verifier {
    /// `wanted` is a head to look for.
    pub(crate) fn new(wanted: Option<Digest>) -> Self {
        Self { wanted, report: Report::default(), at: Place { file: 0, line: 0 }, junk: None }
    }

    /// Checks one file; further ones continue it.
    pub(crate) fn read(&mut self, mut source: impl BufRead) -> io::Result<Result<(), Broken>> {
        let mut line = Vec::new();
        self.at.line = 0;
        loop {
            line.clear();
            io::Read::take(&mut source, LINE_CAP as u64).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                break;
            }
            self.at.line += 1;
            if let Err(mut broken) = self.line(&line) {
                self.explain(&mut broken, source)?;
                return Ok(Err(broken));
            }
        }
        let torn = self.junk.take();
        self.at.file += 1;
        Ok(torn.map_or(Ok(()), |(at, Junk(bytes))| {
            let what = format!(
                "the last {} bytes are no whole line: the end was cut off, or lost with the power",
                bytes.len()
            );
            Err(Broken { at, code: "torn_end", what })
        }))
    }

    /// The result after the last file.
    pub(crate) fn report(self) -> Report {
        self.report
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Broken> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        match chain::read(text) {
            Ok(_) if line.len() == text.len() => {
                self.broken(self.at, "torn_end", "the end of the last line is missing: cut off, or lost with the power")
            }
            Ok(link) => self.link(&link),
            Err(NotLink::Changed) => self.broken(self.at, "changed", "it was changed after it was written"),
            Err(NotLink::Torn) => {
                let (at, Junk(bytes)) = self.junk.get_or_insert((self.at, Junk(Vec::new())));
                bytes.extend_from_slice(line);
                let at = *at;
                if bytes.len() > 4 * LINE_CAP {
                    return self.broken(at, "no_line", "it is no line of an audit file");
                }
                Ok(())
            }
        }
    }

    fn link(&mut self, link: &Link) -> Result<(), Broken> {
        match (self.junk.take(), &link.repairs) {
            (None, None) => {}
            (Some((at, Junk(bytes))), Some(torn)) if is(torn, &bytes) => {
                self.report.torn_count += 1;
                if self.report.torn.len() < TOLD {
                    self.report.torn.push((at, torn.bytes));
                }
            }
            (Some((at, _)), _) => {
                return self.broken(at, "changed", "it is no whole line, and no line after it says why");
            }
            (None, Some(_)) => return self.broken(self.at, "deleted", "the torn stretch that it tells of is missing"),
        }
        self.in_order(link)?;
        self.report.lines += 1;
        self.report.head = Some(link.at);
        if self.wanted == Some(link.at.hash) {
            self.report.found = Some(self.at);
        }
        Ok(())
    }

    fn in_order(&mut self, link: &Link) -> Result<(), Broken> {
        let Some(head) = self.report.head else { return self.first(link) };
        if link.follows(&head) {
            return Ok(());
        }
        let (due, seq) = (head.seq + 1, link.at.seq);
        match seq.checked_sub(due) {
            Some(0) => self.broken(self.at, "not_continued", "it does not continue the line before it"),
            Some(missing) => {
                let lines = if missing == 1 { "line is" } else { "lines are" };
                let what = format!("{missing} {lines} missing before it: it is number {seq}, and {due} is due");
                self.broken(self.at, "missing", &what)
            }
            None => {
                let what = format!("it is out of order: it is number {seq}, and {due} is due");
                self.broken(self.at, "out_of_order", &what)
            }
        }
    }

    fn first(&mut self, link: &Link) -> Result<(), Broken> {
        if link.prev == Digest::ZERO && link.at.seq != 1 {
            return self.broken(self.at, "missing", "a chain begins here, but not with number 1");
        }
        self.report.continues = (link.prev != Digest::ZERO).then_some(link.prev);
        if self.wanted.is_some() && self.wanted == self.report.continues {
            self.report.found = Some(Place { line: 0, ..self.at });
        }
        Ok(())
    }

    /// Searches for the missing line further down. If it is there, lines were inserted or reordered, not deleted.
    fn explain(&self, broken: &mut Broken, mut source: impl BufRead) -> io::Result<()> {
        let Some(head) = self.report.head else { return Ok(()) };
        let (mut line, mut at) = (Vec::new(), self.at.line);
        loop {
            line.clear();
            io::Read::take(&mut source, LINE_CAP as u64).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Ok(());
            }
            at += 1;
            if chain::read(line.strip_suffix(b"\n").unwrap_or(&line)).is_ok_and(|link| link.follows(&head)) {
                broken.what.push_str(&format!("; the line that is due is line {at}: lines were inserted or reordered"));
                return Ok(());
            }
        }
    }

    fn broken<T>(&self, at: Place, code: &'static str, what: &str) -> Result<T, Broken> {
        Err(Broken { at, code, what: what.to_owned() })
    }
}

/// Are these the bytes that the `repair` describes? The line feed at their end belongs to the `repair`.
fn is(torn: &Torn, bytes: &[u8]) -> bool {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.len() as u64 == torn.bytes && Digest::of(bytes) == torn.sha256
}
