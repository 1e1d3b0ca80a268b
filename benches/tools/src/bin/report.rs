//! Makes one table of the samples.
//!
//! Samples are lines `ROW <tab> SIDE <tab> ROUND <tab> VALUE`, notes are lines `ROW <tab> TEXT`, facts are lines
//! `NAME <tab> VALUE`. The sides are `ours` (the released file), `plain` (the output of `cargo build --release`) and `theirs`.
//! `ROWS` below defines the rows, the other side of each, and its target.
//! `report get FIELD` reads one JSON object from standard input and prints one field of it, for shell scripts.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use safeconduct_bench_tools::Result;
use safeconduct_bench_tools::stats::median;
use serde_json::{Value, json};

/// One line of the table.
struct Row {
    id: &'static str,
    what: &'static str,
    unit: &'static str,
    against: Against,
    target: Target,
}

/// The other side of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Against {
    Nobody,
    Floor,
    FloorOfOne,
    OidcAgent,
    OidcToken,
    Nginx,
    /// The bridge of npm.
    McpRemote,
    /// The bridge of PyPI.
    McpProxy,
    /// The same without what is beside it.
    Alone,
}

impl Against {
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "",
            Self::Floor => "hyper floor",
            Self::FloorOfOne => "hyper floor, one worker",
            Self::OidcAgent => "oidc-agent",
            Self::OidcToken => "oidc-token",
            Self::Nginx => "nginx, one worker",
            Self::McpRemote => "mcp-remote",
            Self::McpProxy => "mcp-proxy",
            Self::Alone => "alone",
        }
    }
}

/// The factor by which the plain build may exceed a target, unless the target is a ratio to a floor.
const PLAIN_BUILD: f64 = 1.4;

#[derive(Clone, Copy)]
enum Target {
    /// Ours divided by the other side.
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// The median of ours alone.
    AtMost(f64),
    /// The worst round of ours: for counts that must hold every time.
    NeverAbove(f64),
    /// For orientation only.
    None,
}

impl Row {
    /// The target of the plain build.
    fn plain_target(&self) -> Target {
        let to_floor = matches!(self.against, Against::Floor | Against::FloorOfOne);
        match self.target {
            Target::RatioAtMost(limit) if !to_floor => Target::RatioAtMost(limit * PLAIN_BUILD),
            Target::RatioAtLeast(limit) if !to_floor => Target::RatioAtLeast(limit / PLAIN_BUILD),
            Target::AtMost(limit) => Target::AtMost(limit * PLAIN_BUILD),
            unchanged => unchanged,
        }
    }
}

const ROWS: &[Row] = &[
    Row {
        id: "helper-wall",
        what: "helper, cached, whole process: wall",
        unit: "ms",
        against: Against::OidcToken,
        target: Target::RatioAtMost(0.95),
    },
    Row {
        id: "helper-cpu",
        what: "helper, cached, whole process: user + system",
        unit: "ms",
        against: Against::OidcToken,
        target: Target::RatioAtMost(1.0),
    },
    Row {
        id: "kept",
        what: "socket, cached, kept connection: p50",
        unit: "µs",
        against: Against::Floor,
        target: Target::RatioAtMost(1.25),
    },
    Row {
        id: "kept-tight",
        what: "kept connection, client and server on one processor: p50",
        unit: "µs",
        against: Against::Floor,
        target: Target::None,
    },
    Row {
        id: "new",
        what: "socket, cached, new connection: p50",
        unit: "µs",
        against: Against::Floor,
        target: Target::RatioAtMost(1.25),
    },
    Row {
        id: "new-peer",
        what: "the same against the peer",
        unit: "µs",
        against: Against::OidcAgent,
        target: Target::None,
    },
    Row {
        id: "new-tight",
        what: "new connection, client and server on one processor: p50",
        unit: "µs",
        against: Against::Floor,
        target: Target::None,
    },
    Row {
        id: "new-peer-tight",
        what: "the same against the peer",
        unit: "µs",
        against: Against::OidcAgent,
        target: Target::None,
    },
    Row {
        id: "audit-kept",
        what: "with an audit file, kept connection: p50",
        unit: "µs",
        against: Against::Floor,
        target: Target::RatioAtMost(1.6),
    },
    Row {
        id: "audit-kept-tight",
        what: "with an audit file, kept, client and server on one processor: p50",
        unit: "µs",
        against: Against::Floor,
        target: Target::None,
    },
    Row {
        id: "audit-new",
        what: "with an audit file, new connection: p50",
        unit: "µs",
        against: Against::Floor,
        target: Target::RatioAtMost(1.6),
    },
    Row {
        id: "audit-new-tight",
        what: "with an audit file, new, client and server on one processor: p50",
        unit: "µs",
        against: Against::Floor,
        target: Target::None,
    },
    Row {
        id: "throughput",
        what: "throughput, 16 kept connections",
        unit: "1/s",
        against: Against::Floor,
        target: Target::RatioAtLeast(0.65),
    },
    Row {
        id: "throughput-one",
        what: "the same, the floor with one worker",
        unit: "1/s",
        against: Against::FloorOfOne,
        target: Target::RatioAtLeast(0.8),
    },
    Row {
        id: "throughput-peer",
        what: "the same against the peer (one client, new connections)",
        unit: "1/s",
        against: Against::OidcAgent,
        target: Target::None,
    },
    Row {
        id: "cold-exchanges",
        what: "1,000 callers at once, cold key: upstream exchanges (worst round)",
        unit: "",
        against: Against::Nobody,
        target: Target::NeverAbove(1.0),
    },
    Row {
        id: "cold-refused",
        what: "1,000 callers at once, cold key: not served (worst round)",
        unit: "",
        against: Against::Nobody,
        target: Target::NeverAbove(0.0),
    },
    Row {
        id: "cold-refused-100",
        what: "100 callers at once, cold: not served (worst round)",
        unit: "",
        against: Against::OidcAgent,
        target: Target::NeverAbove(0.0),
    },
    Row {
        id: "memory",
        what: "idle memory with 50 tokens: RSS (peer: 1 account, 2 processes)",
        unit: "MB",
        against: Against::OidcAgent,
        target: Target::AtMost(10.0),
    },
    Row {
        id: "memory-private",
        what: "the same: private memory (RssAnon)",
        unit: "MB",
        against: Against::OidcAgent,
        target: Target::AtMost(3.0),
    },
    Row {
        id: "start",
        what: "start to first answer on the socket",
        unit: "ms",
        against: Against::OidcAgent,
        target: Target::AtMost(10.0),
    },
    Row {
        id: "trips-pinned",
        what: "cold token, issuer pinned: round trips in sequence (worst round)",
        unit: "",
        against: Against::Nobody,
        target: Target::NeverAbove(3.0),
    },
    Row {
        id: "trips-discovered",
        what: "cold token, issuer discovered: round trips in sequence (worst round)",
        unit: "",
        against: Against::Nobody,
        target: Target::NeverAbove(3.0),
    },
    Row {
        id: "trips-warm",
        what: "cold token, discovery warm: round trips in sequence (worst round)",
        unit: "",
        against: Against::Nobody,
        target: Target::NeverAbove(2.0),
    },
    Row {
        id: "proxy-added",
        what: "proxy: what it adds to a call, kept connection: p50",
        unit: "µs",
        against: Against::Nginx,
        target: Target::RatioAtMost(1.6),
    },
    Row {
        id: "proxy-added-tight",
        what: "the same, everything on one processor",
        unit: "µs",
        against: Against::Nginx,
        target: Target::None,
    },
    Row {
        id: "proxy-1",
        what: "proxy, 1 connection: throughput",
        unit: "1/s",
        against: Against::Nginx,
        target: Target::RatioAtLeast(0.7),
    },
    Row {
        id: "proxy-16",
        what: "proxy, 16 connections: throughput",
        unit: "1/s",
        against: Against::Nginx,
        target: Target::RatioAtLeast(0.7),
    },
    Row {
        id: "proxy-256",
        what: "proxy, 256 connections: throughput",
        unit: "1/s",
        against: Against::Nginx,
        target: Target::RatioAtLeast(0.7),
    },
    Row {
        id: "proxy-audit",
        what: "proxy with an audit file, 16 connections: throughput",
        unit: "1/s",
        against: Against::Nginx,
        target: Target::RatioAtLeast(0.5),
    },
    Row {
        id: "proxy-tls",
        what: "proxy, server with TLS, 16 connections: throughput",
        unit: "1/s",
        against: Against::Nginx,
        target: Target::RatioAtLeast(0.6),
    },
    Row {
        id: "proxy-stream",
        what: "proxy: private memory of each of 256 event streams",
        unit: "KiB",
        against: Against::Nobody,
        target: Target::AtMost(64.0),
    },
    Row {
        id: "proxy-body",
        what: "proxy: memory gained by a body of 100 MB",
        unit: "MB",
        against: Against::Nobody,
        target: Target::AtMost(1.0),
    },
    Row {
        id: "proxy-beside-idle-p50",
        what: "cached token beside 256 event streams: p50",
        unit: "µs",
        against: Against::Alone,
        target: Target::RatioAtMost(1.25),
    },
    Row {
        id: "proxy-beside-idle-p99",
        what: "cached token beside 256 event streams: p99",
        unit: "µs",
        against: Against::Alone,
        target: Target::RatioAtMost(3.0),
    },
    Row {
        id: "proxy-beside-flood-p50",
        what: "cached token beside 4 streams at full speed: p50",
        unit: "µs",
        against: Against::Alone,
        target: Target::RatioAtMost(1.25),
    },
    Row {
        id: "proxy-beside-flood-p99",
        what: "cached token beside 4 streams at full speed: p99",
        unit: "µs",
        against: Against::Alone,
        target: Target::RatioAtMost(3.0),
    },
    Row {
        id: "bridge-start",
        what: "bridge, daemon warm: spawn to first reply",
        unit: "ms",
        against: Against::McpRemote,
        target: Target::AtMost(10.0),
    },
    Row {
        id: "bridge-start-python",
        what: "the same",
        unit: "ms",
        against: Against::McpProxy,
        target: Target::None,
    },
    Row {
        id: "bridge-added-tight",
        what: "bridge: what it adds to a call by the proxy, all on one processor: p50",
        unit: "µs",
        against: Against::Nobody,
        target: Target::AtMost(100.0),
    },
    Row {
        id: "bridge-added",
        what: "bridge with proxy: what they add to a call of the server itself: p50",
        unit: "µs",
        against: Against::McpRemote,
        target: Target::RatioAtMost(0.3),
    },
    Row {
        id: "bridge-added-python",
        what: "the same",
        unit: "µs",
        against: Against::McpProxy,
        target: Target::None,
    },
    Row {
        id: "bridge-added-all-tight",
        what: "the same, all on one processor",
        unit: "µs",
        against: Against::McpRemote,
        target: Target::None,
    },
    Row {
        id: "bridge-memory",
        what: "bridge: RSS of one",
        unit: "MB",
        against: Against::McpRemote,
        target: Target::AtMost(8.0),
    },
    Row {
        id: "bridge-memory-python",
        what: "the same",
        unit: "MB",
        against: Against::McpProxy,
        target: Target::None,
    },
    Row {
        id: "bridge-five",
        what: "bridge: PSS of five together",
        unit: "MB",
        against: Against::McpRemote,
        target: Target::AtMost(16.0),
    },
    Row {
        id: "bridge-five-python",
        what: "the same",
        unit: "MB",
        against: Against::McpProxy,
        target: Target::None,
    },
    Row {
        id: "size",
        what: "the file",
        unit: "MB",
        against: Against::Nobody,
        target: Target::AtMost(12.0),
    },
];

#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Prints one field of a JSON object; dots descend.
    Get { field: String },
    /// Prints the table.
    Table {
        /// The directory with samples.tsv, notes.tsv and facts.tsv.
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        json: bool,
    },
}

fn main() -> Result<()> {
    match Flags::parse().mode {
        Mode::Get { field } => get(&field),
        Mode::Table { dir, json } => table(&dir, json),
    }
}

fn get(field: &str) -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let object: Value = serde_json::from_str(&text)?;
    match object.pointer(&format!("/{}", field.replace('.', "/"))) {
        Some(Value::String(text)) => println!("{text}"),
        Some(value) => println!("{value}"),
        None => return Err(format!("no field {field}").into()),
    }
    Ok(())
}

fn table(dir: &Path, as_json: bool) -> Result<()> {
    let samples = Samples::read(&dir.join("samples.tsv"))?;
    let notes = pairs(&dir.join("notes.tsv"))?;
    let facts = pairs(&dir.join("facts.tsv"))?;
    let results: Vec<(Outcome, Option<Outcome>)> = ROWS
        .iter()
        .filter_map(|row| {
            Some((
                Outcome::of(row, &samples)?,
                Outcome::of_plain(row, &samples),
            ))
        })
        .collect();
    if as_json {
        println!("{}", as_document(&results, &notes, &facts));
    } else {
        print_table(&results, &notes, &facts);
    }
    Ok(())
}

/// Samples by row and side, then by round.
struct Samples(BTreeMap<(String, String), BTreeMap<u64, f64>>);

impl Samples {
    fn read(file: &Path) -> Result<Self> {
        let mut samples: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for line in std::fs::read_to_string(file)?.lines() {
            let [row, side, round, value] = line.split('\t').collect::<Vec<_>>()[..] else {
                return Err(format!("not a sample: {line}").into());
            };
            samples
                .entry((row.to_owned(), side.to_owned()))
                .or_default()
                .insert(round.parse()?, value.parse()?);
        }
        Ok(Self(samples))
    }

    fn of(&self, row: &str, side: &str) -> BTreeMap<u64, f64> {
        self.0
            .get(&(row.to_owned(), side.to_owned()))
            .cloned()
            .unwrap_or_default()
    }
}

fn pairs(file: &Path) -> Result<Vec<(String, String)>> {
    let text = if file.exists() {
        std::fs::read_to_string(file)?
    } else {
        String::new()
    };
    Ok(text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// Whether a target was reached.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    /// By how much.
    Miss(String),
    NotCompared,
    NoTarget,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Miss(by) => write!(f, "MISS by {by}"),
            Self::NotCompared => f.write_str("not compared"),
            Self::NoTarget => f.write_str("-"),
        }
    }
}

/// The result of a row for one of our builds.
struct Outcome {
    row: &'static Row,
    target: Target,
    ours: BTreeMap<u64, f64>,
    theirs: BTreeMap<u64, f64>,
    ratios: Vec<f64>,
}

impl Outcome {
    /// `None` for a row that was not run.
    fn of(row: &'static Row, samples: &Samples) -> Option<Self> {
        Self::of_side(row, row.target, samples.of(row.id, "ours"), samples)
    }

    fn of_plain(row: &'static Row, samples: &Samples) -> Option<Self> {
        Self::of_side(
            row,
            row.plain_target(),
            samples.of(row.id, "plain"),
            samples,
        )
    }

    fn of_side(
        row: &'static Row,
        target: Target,
        ours: BTreeMap<u64, f64>,
        samples: &Samples,
    ) -> Option<Self> {
        let theirs = samples.of(row.id, "theirs");
        // Both sides of a ratio come from the same round, so that a slow minute of the machine affects both.
        let ratios = ours
            .iter()
            .filter_map(|(round, value)| Some(value / theirs.get(round)?))
            .filter(|r| r.is_finite())
            .collect();
        (!ours.is_empty()).then_some(Self {
            row,
            target,
            ours,
            theirs,
            ratios,
        })
    }

    fn figure(&self, samples: &BTreeMap<u64, f64>) -> Option<f64> {
        let values: Vec<f64> = samples.values().copied().collect();
        match self.target {
            Target::NeverAbove(_) => values.into_iter().reduce(f64::max),
            _ => median(&values),
        }
    }

    /// Counts of failures have no ratio: most are zero.
    fn ratio(&self) -> Option<f64> {
        if matches!(self.target, Target::NeverAbove(_)) {
            return None;
        }
        median(&self.ratios)
    }

    fn peer_missing(&self) -> bool {
        self.row.against != Against::Nobody && self.theirs.is_empty()
    }

    fn verdict(&self) -> Verdict {
        let (limit, got, above_is_bad) = match self.target {
            Target::RatioAtMost(limit) => (limit, self.ratio(), true),
            Target::RatioAtLeast(limit) => (limit, self.ratio(), false),
            Target::AtMost(limit) | Target::NeverAbove(limit) => {
                (limit, self.figure(&self.ours), true)
            }
            Target::None => return Verdict::NoTarget,
        };
        let Some(got) = got else {
            return Verdict::NotCompared;
        };
        if (above_is_bad && got <= limit) || (!above_is_bad && got >= limit) {
            return Verdict::Pass;
        }
        Verdict::Miss(match self.target {
            Target::NeverAbove(_) => number(got - limit),
            _ => format!("{:.1} %", ((got - limit) / limit * 100.0).abs()),
        })
    }

    fn target(&self) -> String {
        match self.target {
            Target::RatioAtMost(limit) => format!("ratio ≤ {}", number(limit)),
            Target::RatioAtLeast(limit) => format!("ratio ≥ {}", number(limit)),
            Target::AtMost(limit) | Target::NeverAbove(limit) => {
                format!("≤ {}", self.with_unit(limit))
            }
            Target::None => "-".to_owned(),
        }
    }

    fn with_unit(&self, value: f64) -> String {
        format!("{} {}", number(value), self.row.unit)
            .trim_end()
            .to_owned()
    }

    /// The figures of the plain build, in one cell.
    fn in_short(&self) -> String {
        let figure = self.figure(&self.ours).map(|value| self.with_unit(value));
        let ratio = self.ratio().map(|ratio| format!("ratio {ratio:.2}"));
        let verdict = match self.verdict() {
            Verdict::NoTarget => None,
            verdict => Some(format!("{verdict} ({})", self.target())),
        };
        let parts = [figure, ratio, verdict].into_iter().flatten();
        parts.collect::<Vec<_>>().join(", ")
    }

    fn cells(&self, plain: Option<&Self>) -> [String; 7] {
        let theirs = match self.figure(&self.theirs) {
            Some(value) => format!("{} ({})", self.with_unit(value), self.row.against.name()),
            None if self.peer_missing() => "peer not installed".to_owned(),
            None => "-".to_owned(),
        };
        let ratio = self.ratio().map_or_else(
            || "-".to_owned(),
            |ratio| {
                let lowest = self.ratios.iter().copied().fold(f64::INFINITY, f64::min);
                let highest = self
                    .ratios
                    .iter()
                    .copied()
                    .fold(f64::NEG_INFINITY, f64::max);
                format!("{ratio:.2} ({lowest:.2}–{highest:.2})")
            },
        );
        let ours = self
            .figure(&self.ours)
            .map_or_else(String::new, |value| self.with_unit(value));
        [
            self.row.what.to_owned(),
            ours,
            theirs,
            ratio,
            self.target(),
            self.verdict().to_string(),
            plain.map_or_else(|| "-".to_owned(), Self::in_short),
        ]
    }
}

/// With as many digits as a comparison needs.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A Markdown table whose columns also line up in a terminal, so that it can be pasted as it is.
fn print_table(
    outcomes: &[(Outcome, Option<Outcome>)],
    notes: &[(String, String)],
    facts: &[(String, String)],
) {
    for (name, value) in facts {
        println!("{name}: {value}");
    }
    println!();
    let heading = [
        "what",
        "safeconduct",
        "against",
        "ratio (lowest–highest round)",
        "target",
        "verdict",
        "plain build",
    ]
    .map(str::to_owned);
    let mut lines = vec![heading];
    lines.extend(
        outcomes
            .iter()
            .map(|(ours, plain)| ours.cells(plain.as_ref())),
    );
    let widths: Vec<usize> = (0..7)
        .map(|at| {
            lines
                .iter()
                .map(|line| line[at].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for (index, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        println!("| {} |", cells.join(" | "));
        if index == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            println!("| {} |", rules.join(" | "));
        }
    }
    if !notes.is_empty() {
        println!();
    }
    for (row, text) in notes {
        println!("{row}: {text}");
    }
    let both = || {
        outcomes
            .iter()
            .flat_map(|(ours, plain)| [Some(ours), plain.as_ref()])
    };
    let missed = both()
        .flatten()
        .filter(|outcome| matches!(outcome.verdict(), Verdict::Miss(_)))
        .count();
    println!("\n{} rows, {missed} targets missed", outcomes.len());
}

fn as_document(
    outcomes: &[(Outcome, Option<Outcome>)],
    notes: &[(String, String)],
    facts: &[(String, String)],
) -> Value {
    let object = |pairs: &[(String, String)]| {
        Value::Object(
            pairs
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect(),
        )
    };
    let notes: Vec<Value> = notes
        .iter()
        .map(|(row, text)| json!({ "row": row, "text": text }))
        .collect();
    let rows: Vec<Value> = outcomes
        .iter()
        .map(|(outcome, plain)| {
            json!({
                "row": outcome.row.id, "what": outcome.row.what, "unit": outcome.row.unit,
                "ours": outcome.figure(&outcome.ours), "against": outcome.row.against.name(), "theirs": outcome.figure(&outcome.theirs),
                "ratio": outcome.ratio(), "ratios": outcome.ratios, "target": outcome.target(), "verdict": outcome.verdict().to_string(),
                "ours_by_round": outcome.ours.values().collect::<Vec<_>>(),
                "theirs_by_round": outcome.theirs.values().collect::<Vec<_>>(),
                "plain": plain.as_ref().map(|plain| json!({
                    "ours": plain.figure(&plain.ours), "ratio": plain.ratio(), "ratios": plain.ratios,
                    "target": plain.target(), "verdict": plain.verdict().to_string(),
                    "ours_by_round": plain.ours.values().collect::<Vec<_>>(),
                })),
            })
        })
        .collect();
    json!({ "facts": object(facts), "rows": rows, "notes": notes })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Outcome, ROWS, Row, Samples, Verdict};

    fn row(id: &str) -> &'static Row {
        ROWS.iter()
            .find(|row| row.id == id)
            .expect("the test names a row of the table")
    }

    fn samples(id: &str, side: &str, ours: &[f64], theirs: &[f64]) -> Samples {
        let rounds = |values: &[f64]| {
            values
                .iter()
                .copied()
                .enumerate()
                .map(|(at, value)| (at as u64, value))
                .collect::<BTreeMap<_, _>>()
        };
        Samples(BTreeMap::from([
            ((id.to_owned(), side.to_owned()), rounds(ours)),
            ((id.to_owned(), "theirs".to_owned()), rounds(theirs)),
        ]))
    }

    fn outcome(id: &str, ours: &[f64], theirs: &[f64]) -> Outcome {
        Outcome::of(row(id), &samples(id, "ours", ours, theirs))
            .expect("the test gave samples of ours")
    }

    fn of_plain(id: &str, ours: f64, theirs: f64) -> Verdict {
        Outcome::of_plain(row(id), &samples(id, "plain", &[ours], &[theirs]))
            .expect("the test gave samples of the plain build")
            .verdict()
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let outcome = outcome("kept", &[10.0, 40.0, 11.0], &[10.0, 40.0, 10.0]);
        assert_eq!(outcome.ratio(), Some(1.0));
        assert_eq!(outcome.verdict(), Verdict::Pass);
    }

    #[test]
    fn a_miss_says_by_how_much() {
        let miss = |by: &str| Verdict::Miss(by.to_owned());
        assert_eq!(outcome("kept", &[50.0], &[20.0]).verdict(), miss("100.0 %"));
        assert_eq!(
            outcome("throughput-one", &[40.0], &[100.0]).verdict(),
            miss("50.0 %")
        );
        assert_eq!(
            outcome("cold-refused", &[0.0, 3.0], &[]).verdict(),
            miss("3")
        );
    }

    #[test]
    fn a_row_without_its_peer_is_not_a_pass() {
        let outcome = outcome("helper-wall", &[1.0], &[]);
        assert_eq!(outcome.verdict(), Verdict::NotCompared);
        assert_eq!(outcome.cells(None)[2], "peer not installed");
    }

    #[test]
    fn the_plain_build_may_be_slower_than_a_peer_but_not_than_a_floor() {
        assert_eq!(of_plain("helper-wall", 1.3, 1.0), Verdict::Pass);
        assert_ne!(of_plain("helper-wall", 1.4, 1.0), Verdict::Pass);
        assert_eq!(of_plain("size", 16.0, 0.0), Verdict::Pass);
        assert_ne!(of_plain("kept", 1.3, 1.0), Verdict::Pass);
        assert_ne!(of_plain("throughput", 0.6, 1.0), Verdict::Pass);
    }
}
