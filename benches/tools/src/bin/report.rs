//! From samples to one table.
//!
//! Samples are lines `ROW <tab> SIDE <tab> ROUND <tab> VALUE`, notes are lines `ROW <tab> TEXT`, facts are lines
//! `NAME <tab> VALUE`. The rows, what each is compared with and what it has to reach stand in `ROWS` below, once.
//! `report get FIELD` reads one JSON object from standard input and prints one field of it, for shell scripts.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use safeconduct_bench_tools::Result;
use safeconduct_bench_tools::stats::median;

/// One line of the table.
struct Row {
    id: &'static str,
    what: &'static str,
    unit: &'static str,
    against: &'static str,
    target: Target,
}

enum Target {
    /// Ours divided by the other side.
    RatioAtMost(f64),
    RatioAtLeast(f64),
    RatioBelow(f64),
    /// The median of ours alone.
    AtMost(f64),
    /// The worst round of ours: for counts that must hold every time.
    NeverAbove(f64),
    /// For orientation only.
    None,
}

const ROWS: &[Row] = &[
    Row {
        id: "helper-wall",
        what: "helper, cached, whole process: wall",
        unit: "ms",
        against: "oidc-token",
        target: Target::RatioAtMost(1.0),
    },
    Row {
        id: "helper-cpu",
        what: "helper, cached, whole process: user + system",
        unit: "ms",
        against: "oidc-token",
        target: Target::RatioBelow(1.0),
    },
    Row {
        id: "kept",
        what: "socket, cached, kept connection: p50",
        unit: "µs",
        against: "hyper floor",
        target: Target::RatioAtMost(1.25),
    },
    Row {
        id: "kept-tight",
        what: "kept connection, client and server on one processor: p50",
        unit: "µs",
        against: "hyper floor",
        target: Target::None,
    },
    Row {
        id: "new",
        what: "socket, cached, new connection: p50",
        unit: "µs",
        against: "hyper floor",
        target: Target::RatioAtMost(1.25),
    },
    Row {
        id: "new-peer",
        what: "the same against the peer",
        unit: "µs",
        against: "oidc-agent",
        target: Target::None,
    },
    Row {
        id: "new-tight",
        what: "new connection, client and server on one processor: p50",
        unit: "µs",
        against: "hyper floor",
        target: Target::None,
    },
    Row {
        id: "new-peer-tight",
        what: "the same against the peer",
        unit: "µs",
        against: "oidc-agent",
        target: Target::None,
    },
    Row {
        id: "audit-kept",
        what: "with an audit file, kept connection: p50",
        unit: "µs",
        against: "hyper floor",
        target: Target::RatioAtMost(1.6),
    },
    Row {
        id: "audit-kept-tight",
        what: "with an audit file, kept, client and server on one processor: p50",
        unit: "µs",
        against: "hyper floor",
        target: Target::None,
    },
    Row {
        id: "audit-new",
        what: "with an audit file, new connection: p50",
        unit: "µs",
        against: "hyper floor",
        target: Target::RatioAtMost(1.6),
    },
    Row {
        id: "audit-new-tight",
        what: "with an audit file, new, client and server on one processor: p50",
        unit: "µs",
        against: "hyper floor",
        target: Target::None,
    },
    Row {
        id: "throughput",
        what: "throughput, 16 kept connections",
        unit: "1/s",
        against: "hyper floor",
        target: Target::RatioAtLeast(0.7),
    },
    Row {
        id: "throughput-peer",
        what: "the same against the peer (one client, new connections)",
        unit: "1/s",
        against: "oidc-agent",
        target: Target::None,
    },
    Row {
        id: "cold-exchanges",
        what: "1,000 callers at once, cold key: upstream exchanges (worst round)",
        unit: "",
        against: "",
        target: Target::NeverAbove(1.0),
    },
    Row {
        id: "cold-refused",
        what: "1,000 callers at once, cold key: not served (worst round)",
        unit: "",
        against: "",
        target: Target::NeverAbove(0.0),
    },
    Row {
        id: "cold-refused-100",
        what: "100 callers at once, cold: not served (worst round)",
        unit: "",
        against: "oidc-agent",
        target: Target::NeverAbove(0.0),
    },
    Row {
        id: "memory",
        what: "idle memory with 50 tokens: RSS (peer: 1 account, 2 processes)",
        unit: "MB",
        against: "oidc-agent",
        target: Target::AtMost(8.0),
    },
    Row {
        id: "start",
        what: "start to first answer on the socket",
        unit: "ms",
        against: "oidc-agent",
        target: Target::AtMost(10.0),
    },
    Row {
        id: "trips-pinned",
        what: "cold token, issuer pinned: round trips in sequence (worst round)",
        unit: "",
        against: "",
        target: Target::NeverAbove(3.0),
    },
    Row {
        id: "trips-discovered",
        what: "cold token, issuer discovered: round trips in sequence (worst round)",
        unit: "",
        against: "",
        target: Target::NeverAbove(3.0),
    },
    Row {
        id: "trips-warm",
        what: "cold token, discovery warm: round trips in sequence (worst round)",
        unit: "",
        against: "",
        target: Target::NeverAbove(2.0),
    },
    Row {
        id: "size",
        what: "release binary",
        unit: "MB",
        against: "",
        target: Target::AtMost(9.0),
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
    let results: Vec<Outcome> = ROWS
        .iter()
        .filter_map(|row| Outcome::of(row, &samples))
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

/// What a row came to.
struct Outcome {
    row: &'static Row,
    ours: BTreeMap<u64, f64>,
    theirs: BTreeMap<u64, f64>,
    ratios: Vec<f64>,
}

impl Outcome {
    /// Nothing for a row that was not run.
    fn of(row: &'static Row, samples: &Samples) -> Option<Self> {
        let ours = samples.of(row.id, "ours");
        let theirs = samples.of(row.id, "theirs");
        // Both sides of a ratio come from the same round, so that a slow minute of the machine weighs on both.
        let ratios = ours
            .iter()
            .filter_map(|(round, value)| Some(value / theirs.get(round)?))
            .filter(|r| r.is_finite())
            .collect();
        (!ours.is_empty()).then_some(Self {
            row,
            ours,
            theirs,
            ratios,
        })
    }

    fn figure(&self, samples: &BTreeMap<u64, f64>) -> Option<f64> {
        let values: Vec<f64> = samples.values().copied().collect();
        match self.row.target {
            Target::NeverAbove(_) => values.into_iter().reduce(f64::max),
            _ => median(&values),
        }
    }

    /// Counts of failures have no ratio: most are zero.
    fn ratio(&self) -> Option<f64> {
        if matches!(self.row.target, Target::NeverAbove(_)) {
            return None;
        }
        median(&self.ratios)
    }

    fn peer_missing(&self) -> bool {
        !self.row.against.is_empty() && self.theirs.is_empty()
    }

    /// The verdict, and for a miss by how much.
    fn verdict(&self) -> String {
        let (limit, got, above_is_bad) = match self.row.target {
            Target::RatioAtMost(limit) | Target::RatioBelow(limit) => (limit, self.ratio(), true),
            Target::RatioAtLeast(limit) => (limit, self.ratio(), false),
            Target::AtMost(limit) | Target::NeverAbove(limit) => {
                (limit, self.figure(&self.ours), true)
            }
            Target::None => return "-".to_owned(),
        };
        let Some(got) = got else {
            return "not compared".to_owned();
        };
        let within = match self.row.target {
            Target::RatioBelow(_) => got < limit,
            _ if above_is_bad => got <= limit,
            _ => got >= limit,
        };
        if within {
            return "pass".to_owned();
        }
        match self.row.target {
            Target::NeverAbove(_) => format!("MISS by {}", number(got - limit)),
            _ => format!("MISS by {:.1} %", ((got - limit) / limit * 100.0).abs()),
        }
    }

    fn target(&self) -> String {
        match self.row.target {
            Target::RatioAtMost(limit) => format!("ratio ≤ {limit}"),
            Target::RatioBelow(limit) => format!("ratio < {limit}"),
            Target::RatioAtLeast(limit) => format!("ratio ≥ {limit}"),
            Target::AtMost(limit) | Target::NeverAbove(limit) => {
                format!("≤ {limit} {}", self.row.unit).trim_end().to_owned()
            }
            Target::None => "-".to_owned(),
        }
    }

    fn cells(&self) -> [String; 6] {
        let with_unit = |value: f64| {
            format!("{} {}", number(value), self.row.unit)
                .trim_end()
                .to_owned()
        };
        let theirs = match self.figure(&self.theirs) {
            Some(value) => format!("{} ({})", with_unit(value), self.row.against),
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
        let ours = self.figure(&self.ours).map_or_else(String::new, with_unit);
        [
            self.row.what.to_owned(),
            ours,
            theirs,
            ratio,
            self.target(),
            self.verdict(),
        ]
    }
}

/// Enough digits to compare, and no more.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A Markdown table whose columns also line up in a terminal, so that it can be pasted as it is.
fn print_table(outcomes: &[Outcome], notes: &[(String, String)], facts: &[(String, String)]) {
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
    ]
    .map(str::to_owned);
    let mut lines = vec![heading];
    lines.extend(outcomes.iter().map(Outcome::cells));
    let widths: Vec<usize> = (0..6)
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
    let missed = outcomes
        .iter()
        .filter(|outcome| outcome.verdict().starts_with("MISS"))
        .count();
    println!("\n{} rows, {missed} missed", outcomes.len());
}

fn as_document(
    outcomes: &[Outcome],
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
        .map(|outcome| {
            json!({
                "row": outcome.row.id, "what": outcome.row.what, "unit": outcome.row.unit,
                "ours": outcome.figure(&outcome.ours), "against": outcome.row.against, "theirs": outcome.figure(&outcome.theirs),
                "ratio": outcome.ratio(), "ratios": outcome.ratios, "target": outcome.target(), "verdict": outcome.verdict(),
                "ours_by_round": outcome.ours.values().collect::<Vec<_>>(),
                "theirs_by_round": outcome.theirs.values().collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "facts": object(facts), "rows": rows, "notes": notes })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Outcome, ROWS, Samples};

    fn outcome(id: &str, ours: &[f64], theirs: &[f64]) -> Outcome {
        let rounds = |values: &[f64]| {
            values
                .iter()
                .copied()
                .enumerate()
                .map(|(at, value)| (at as u64, value))
                .collect::<BTreeMap<_, _>>()
        };
        let samples = Samples(BTreeMap::from([
            ((id.to_owned(), "ours".to_owned()), rounds(ours)),
            ((id.to_owned(), "theirs".to_owned()), rounds(theirs)),
        ]));
        let row = ROWS
            .iter()
            .find(|row| row.id == id)
            .expect("the test names a row of the table");
        Outcome::of(row, &samples).expect("the test gave samples of ours")
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let outcome = outcome("kept", &[10.0, 40.0, 11.0], &[10.0, 40.0, 10.0]);
        assert_eq!(outcome.ratio(), Some(1.0));
        assert_eq!(outcome.verdict(), "pass");
    }

    #[test]
    fn a_miss_says_by_how_much() {
        assert_eq!(
            outcome("kept", &[50.0], &[20.0]).verdict(),
            "MISS by 100.0 %"
        );
        assert_eq!(
            outcome("throughput", &[35.0], &[100.0]).verdict(),
            "MISS by 50.0 %"
        );
        assert_eq!(
            outcome("cold-refused", &[0.0, 3.0], &[]).verdict(),
            "MISS by 3"
        );
    }

    #[test]
    fn a_row_without_its_peer_is_not_a_pass() {
        let outcome = outcome("helper-wall", &[1.0], &[]);
        assert_eq!(outcome.verdict(), "not compared");
        assert_eq!(outcome.cells()[2], "peer not installed");
    }
}
