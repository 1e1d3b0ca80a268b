//! Where `tests/real/fetch` has put a server.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex};

use crate::process::ROOT;

/// The folder of a server, which is got if it is not there. `None` if that fails.
pub(super) fn fetched(name: &str) -> Option<PathBuf> {
    place(&[name], name)
}

/// The folder of a server that is compiled, which takes minutes. `None` if nobody has done so.
pub(super) fn built(name: &str) -> Option<PathBuf> {
    place(&["--have", name], name)
}

/// Runs the script once for each name. A test without its server says so where no test runner holds the line back.
fn place(arguments: &[&str], name: &str) -> Option<PathBuf> {
    static KNOWN: LazyLock<Mutex<BTreeMap<String, bool>>> = LazyLock::new(Mutex::default);
    let is_there = {
        let mut known = KNOWN.lock().expect("never held over a panic");
        *known.entry(name.to_owned()).or_insert_with(|| script(arguments).is_some())
    };
    if is_there {
        return Some(script(&["--where"])?.trim().into()).map(|folder: PathBuf| folder.join(name));
    }
    let test = std::thread::current();
    let line = format!("SKIPPED {}: there is no {name}, tests/real/fetch gets it\n", test.name().unwrap_or_default());
    io::stderr().write_all(line.as_bytes()).expect("stderr is open");
    None
}

/// What it writes, if it succeeds.
fn script(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(format!("{ROOT}/tests/real/fetch"));
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert_ne!(output.status.code(), Some(64), "tests/real/fetch does not know {arguments:?}");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
