//! The MCP conformance suite: it drives the official TypeScript client through `conformance-client.mjs`, or tests a server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{NODE, Outcome, ROOT, SAFECONDUCT, installed, run};

const SUITE: &str = "target/others/node_modules/@modelcontextprotocol/conformance/dist/index.js";
const BASELINE: &str = "tests/others/conformance-baseline.yml";
const BETWEEN_BASELINE: &str = "tests/others/conformance-proxy-baseline.yml";

#[derive(Clone, Copy)]
pub(crate) struct Wire(pub(crate) &'static str);

/// One run of one scenario.
pub(crate) struct Run {
    /// Whether the suite counts it as passed.
    pub(crate) passed: bool,
    pub(crate) log: String,
    pub(crate) scenario: Scenario,
}

/// All scenarios that a revision of the specification requires, and those that the suite does not score.
pub(crate) struct Requirements {
    /// Whether the suite counts it as passed, with the baseline.
    pub(crate) passed: bool,
    pub(crate) log: String,
    pub(crate) scenarios: BTreeMap<String, Scenario>,
}

/// The outcome of a scenario.
pub(crate) struct Scenario {
    checks: Vec<Value>,
    /// The report of `conformance-client.mjs` about safeconduct.
    pub(crate) report: Value,
}

pub(crate) fn conformance(scenario: &str, wire: Wire, assertion: &str, daemon: bool) -> Run {
    // A scenario of an extension needs this flag to run with a named protocol version.
    let which = ["--scenario", scenario, "--spec-version", wire.0, "--force"];
    let dir = TempDir::new().expect("a temporary folder can be made");
    let outcome = suite(&dir, &which, &[("ASSERTION", assertion), ("DAEMON", if daemon { "1" } else { "0" })]);
    let log = format!("{}{}", outcome.stdout, outcome.stderr);
    let mut all = scenarios(&dir, &log);
    let scenario = all.remove(scenario).unwrap_or_else(|| panic!("no result; the suite said:\n{log}"));
    Run { passed: outcome.code == 0, log, scenario }
}

/// The suite starts forty clients at once; two runs at the same time would need too much memory.
static ONE_WIRE: Mutex<()> = Mutex::new(());

/// Run once for each wire, and then given again: proxy and bridge are compared with it.
pub(crate) fn requirements(wire: Wire) -> Arc<Requirements> {
    static RUNS: Mutex<BTreeMap<&str, Arc<Requirements>>> = Mutex::new(BTreeMap::new());
    let mut runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(runs.entry(wire.0).or_insert_with(|| Arc::new(all_scenarios(wire, &[]))))
}

/// The client knows the proxy alone, in every scenario.
pub(crate) fn requirements_through_the_proxy(wire: Wire) -> Requirements {
    all_scenarios(wire, &[("PROXY", "1")])
}

/// The client starts a bridge and knows nothing else, in every scenario.
pub(crate) fn requirements_through_the_bridge(wire: Wire) -> Requirements {
    all_scenarios(wire, &[("BRIDGE", "1")])
}

fn all_scenarios(wire: Wire, environment: &[(&str, &str)]) -> Requirements {
    let _alone = ONE_WIRE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = TempDir::new().expect("a temporary folder can be made");
    let outcome = suite(&dir, &["--requirements", wire.0, "--expected-failures", BASELINE], environment);
    let log = format!("{}{}", outcome.stdout, outcome.stderr);
    let scenarios = scenarios(&dir, &log);
    Requirements { passed: outcome.code == 0, log, scenarios }
}

/// The entries of the baseline: `scenario:check`.
pub(crate) fn baseline() -> Vec<(String, String)> {
    entries(BASELINE, "client:")
}

/// How checks differ with the proxy or the bridge in between, in one part of their own baseline.
pub(crate) fn baseline_between(part: &str) -> Vec<(String, String)> {
    entries(BETWEEN_BASELINE, part)
}

fn entries(file: &str, part: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(ROOT).join(file)).expect("the baseline is there");
    let of_part = text.lines().skip_while(|line| *line != part).skip(1).take_while(|line| line.starts_with(' '));
    let entries = of_part.filter_map(|line| line.trim().strip_prefix("- "));
    let split = |entry: &str| entry.split_once(':').map(|(scenario, check)| (scenario.to_owned(), check.to_owned()));
    entries.map(|entry| split(entry).unwrap_or_else(|| panic!("{entry} gives up a whole scenario"))).collect()
}

/// The scenarios of the suite for servers, at this URL; with their checks and no report of a client.
pub(crate) fn server_scenarios(url: &str, wire: Wire) -> BTreeMap<String, Scenario> {
    let _alone = ONE_WIRE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = TempDir::new().expect("a temporary folder can be made");
    let mut suite = Command::new(Path::new(ROOT).join(NODE));
    suite.current_dir(ROOT).args([SUITE, "server", "--url", url, "--requirements", wire.0, "-o"]).arg(results(&dir));
    let outcome = run(suite, dir.path());
    let mut folders = Vec::new();
    find(&results(&dir), "checks.json", &mut folders);
    let log = format!("{}{}", outcome.stdout, outcome.stderr);
    let scenario = |folder: &PathBuf| {
        let name = name_of(folder, &dir);
        let name = name.strip_prefix("server-").expect("the folder of a server's scenario says so").to_owned();
        (name, Scenario { checks: checks(folder, &log), report: Value::Null })
    };
    folders.iter().map(scenario).collect()
}

fn suite(dir: &TempDir, which: &[&str], environment: &[(&str, &str)]) -> Outcome {
    installed();
    let mut suite = Command::new(Path::new(ROOT).join(NODE));
    // The suite splits its command at blanks, so the paths in it are relative to the root.
    suite.current_dir(ROOT).args([SUITE, "client", "--command"]);
    suite.arg(format!("{NODE} tests/others/conformance-client.mjs")).args(which).arg("-o").arg(results(dir));
    // The client ends itself and its child processes after 50 s.
    suite.args(["--timeout", "55000"]);
    suite.env("SAFECONDUCT", SAFECONDUCT).env("REPORTS", dir.path()).envs(environment.iter().copied());
    run(suite, dir.path())
}

fn results(dir: &TempDir) -> PathBuf {
    dir.path().join("results")
}

fn scenarios(dir: &TempDir, log: &str) -> BTreeMap<String, Scenario> {
    let mut folders = Vec::new();
    find(&results(dir), "checks.json", &mut folders);
    let scenario = |folder: &PathBuf| {
        let name = name_of(folder, dir);
        let checks = checks(folder, log);
        let report = read(&dir.path().join(format!("{}.json", name.replace('/', "."))), log);
        assert_eq!(report["leak"], Value::Null, "{name}: safeconduct wrote a secret to stderr");
        (name, Scenario { checks, report })
    };
    folders.iter().map(scenario).collect()
}

fn checks(folder: &Path, log: &str) -> Vec<Value> {
    read(&folder.join("checks.json"), log).as_array().expect("checks are a list").clone()
}

fn name_of(folder: &Path, dir: &TempDir) -> String {
    scenario_name(folder.strip_prefix(results(dir)).expect("it was found there"))
}

fn read(path: &Path, log: &str) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}; the suite said:\n{log}", path.display()));
    serde_json::from_str(&text).expect("the suite and its client write JSON")
}

/// A folder is named for its scenario and the moment: `auth/wif-jwt-bearer-2026-11-25T20-06-06-164Z`.
fn scenario_name(folder: &Path) -> String {
    let name = folder.to_str().expect("scenarios have plain names");
    let moment = "-0000-00-00T00-00-00-000Z".len();
    name[..name.len() - moment].to_owned()
}

fn find(folder: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            find(&path, name, found);
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(folder.to_owned());
        }
    }
}

impl Scenario {
    pub(crate) fn count(&self, id: &str) -> usize {
        self.checks.iter().filter(|check| check["id"] == id).count()
    }

    /// The ids of the checks with this outcome.
    pub(crate) fn with(&self, status: &str) -> BTreeSet<&str> {
        let such = self.checks.iter().filter(|check| check["status"] == status);
        such.filter_map(|check| check["id"].as_str()).collect()
    }

    /// The ids of all checks that failed or warned.
    pub(crate) fn complaints(&self) -> Vec<&str> {
        let bad = |check: &&Value| check["status"] == "FAILURE" || check["status"] == "WARNING";
        self.checks.iter().filter(bad).filter_map(|check| check["id"].as_str()).collect()
    }

    pub(crate) fn passes(&self, id: &str) -> bool {
        self.checks.iter().any(|check| check["id"] == id && check["status"] == "SUCCESS")
            && !self.complaints().contains(&id)
    }

    /// The form of the token request.
    pub(crate) fn token_form(&self) -> &Value {
        let is_it = |check: &&Value| check["id"] == "incoming-auth-request" && check["details"]["path"] == "/token";
        &self.checks.iter().find(is_it).expect("the suite saw a token request")["details"]["body"]
    }

    /// How often the operator's script requested a path. These requests are not safeconduct's.
    pub(crate) fn operator_requests(&self, path: &str) -> usize {
        let all = self.report["operator_requests"].as_array().expect("the client reports them");
        all.iter().filter(|asked| **asked == path).count()
    }

    /// The exit code and stderr of the only time safeconduct was run.
    pub(crate) fn only_run(&self) -> (i64, &str) {
        let runs = self.report["runs"].as_array().expect("the client reports its runs");
        assert_eq!(runs.len(), 1, "safeconduct was run once: {}", self.report);
        assert!(runs[0]["status"] == 0 || runs[0]["stdout_empty"] == true, "after a failure stdout is empty");
        (runs[0]["status"].as_i64().unwrap_or(-1), runs[0]["stderr"].as_str().unwrap_or_default())
    }
}
