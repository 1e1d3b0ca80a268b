//! Files of other tools, read or judged by programs of other projects.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::process::{Outcome, PYTHON, ROOT, installed, run};

/// Runs a program of `target/others`, by its path from the repository's root.
pub(crate) fn program(name: &str, words: &[&str], dir: &Path) -> Outcome {
    installed();
    let mut command = Command::new(Path::new(ROOT).join(name));
    command.args(words).current_dir(ROOT);
    run(command, dir)
}

/// The documents of a YAML file. A path is relative to the repository's root.
pub(crate) fn documents(file: &str) -> Vec<Value> {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let outcome = program(PYTHON, &["tests/others/documents.py", file], dir.path());
    assert_eq!(outcome.code, 0, "{file}: {}", outcome.stderr);
    serde_json::from_str(&outcome.stdout).expect("the script prints JSON")
}
