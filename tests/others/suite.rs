//! The MCP conformance suite, driving the official TypeScript client through `conformance-client.mjs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{NODE, ROOT, WAYLEAVE, installed, run};

const SUITE: &str = "target/others/node_modules/@modelcontextprotocol/conformance/dist/index.js";

/// One run of one scenario of the MCP conformance suite.
pub(crate) struct Run {
    /// What the suite itself says.
    pub(crate) passed: bool,
    pub(crate) log: String,
    checks: Vec<Value>,
    /// What `conformance-client.mjs` saw wayleave do.
    pub(crate) report: Value,
}

#[derive(Clone, Copy)]
pub(crate) struct Wire(pub(crate) &'static str);

pub(crate) fn conformance(scenario: &str, wire: Wire, assertion: &str, daemon: bool) -> Run {
    installed();
    let dir = TempDir::new().expect("a temporary folder can be made");
    let report = dir.path().join("report.json");
    let results = dir.path().join("results");
    let mut suite = Command::new(Path::new(ROOT).join(NODE));
    // The suite splits its command at blanks, so the paths in it are relative to the root.
    suite
        .current_dir(ROOT)
        .args([SUITE, "client", "--command"])
        .arg(format!("{NODE} tests/others/conformance-client.mjs"));
    // An extension's scenario runs at a named wire only by force.
    suite.args(["--scenario", scenario, "--spec-version", wire.0, "--force", "-o"]).arg(&results);
    // The client ends itself after 30 s, and what it started with it.
    suite.args(["--timeout", "40000"]);
    suite.env("WAYLEAVE", WAYLEAVE).env("ASSERTION", assertion).env("REPORT", &report);
    suite.env("DAEMON", if daemon { "1" } else { "0" });
    let outcome = run(suite, dir.path());
    let log = format!("{}{}", outcome.stdout, outcome.stderr);
    let read = |path: &Path| {
        let text =
            fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}; the suite said:\n{log}", path.display()));
        serde_json::from_str::<Value>(&text).expect("the suite and its client write JSON")
    };
    let checks = find(&results, "checks.json").unwrap_or_else(|| panic!("no checks.json; the suite said:\n{log}"));
    let checks = read(&checks).as_array().expect("checks are a list").clone();
    let report = read(&report);
    assert_eq!(report["leak"], Value::Null, "wayleave wrote a token to stderr");
    Run { passed: outcome.code == 0, log, checks, report }
}

impl Run {
    pub(crate) fn count(&self, id: &str) -> usize {
        self.checks.iter().filter(|check| check["id"] == id).count()
    }

    /// The ids of all checks that failed or warned.
    pub(crate) fn complaints(&self) -> Vec<&str> {
        let bad = |check: &&Value| check["status"] == "FAILURE" || check["status"] == "WARNING";
        self.checks.iter().filter(bad).filter_map(|check| check["id"].as_str()).collect()
    }

    /// The form of the token request.
    pub(crate) fn token_form(&self) -> &Value {
        let is_it = |check: &&Value| check["id"] == "incoming-auth-request" && check["details"]["path"] == "/token";
        &self.checks.iter().find(is_it).expect("the suite saw a token request")["details"]["body"]
    }

    /// The exit code and stderr of the only time wayleave was run.
    pub(crate) fn only_run(&self) -> (i64, &str) {
        let runs = self.report["runs"].as_array().expect("the client reports its runs");
        assert_eq!(runs.len(), 1, "wayleave was run once\n{}", self.log);
        assert!(runs[0]["status"] == 0 || runs[0]["stdout_empty"] == true, "after a failure stdout is empty");
        (runs[0]["status"].as_i64().unwrap_or(-1), runs[0]["stderr"].as_str().unwrap_or_default())
    }
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let here = entries.iter().find(|path| path.file_name().is_some_and(|file| file == name)).cloned();
    here.or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}
