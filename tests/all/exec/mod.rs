//! `safeconduct exec`: what its command gets, what it does not get, and how all of it ends.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::json;
use support::safeconduct::{Output, Running, Safeconduct};
use support::scene::Scene;
use support::wait::until;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::ChildStdout;

use crate::exit::{ASKED_WRONGLY, CONFIG, DENIED, NO_IDENTITY, REFUSED, TEMPORARY};
use crate::{LIMIT, binary};

mod endpoint;
mod ends;
mod identity;
mod install;
mod signals;

/// A world whose endpoints lie in its own directory.
fn world(scene: &Scene) -> Safeconduct {
    let world = scene.safeconduct.clone();
    let place = world.path().join("tmp").display().to_string();
    world.env("RUNNER_TEMP", &place)
}

/// The directories of endpoints.
fn places(world: &Safeconduct) -> Vec<PathBuf> {
    let all = fs::read_dir(world.path().join("tmp")).expect("there").map(|entry| entry.expect("an entry").path());
    all.filter(|path| path.display().to_string().contains("safeconduct-exec-")).collect()
}

/// Runs a shell script beside an endpoint for `demo`.
async fn run(world: &Safeconduct, scene: &Scene, options: &[&str], script: &str) -> Output {
    let target = scene.argument();
    let words = [&["exec", "--insecure-loopback"], options, &[&target, "--", "sh", "-c", script, binary()]].concat();
    world.run(&words).await
}

/// A command that runs, with its output line by line.
struct Beside {
    exec: Running,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Beside {
    /// Waits until the script has written `ready`.
    async fn start(world: &Safeconduct, scene: &Scene, script: &str) -> Self {
        let target = scene.argument();
        let mut exec = world.spawn(&["exec", "--insecure-loopback", &target, "--", "sh", "-c", script, binary()]);
        let lines = BufReader::new(exec.stdout()).lines();
        let mut beside = Self { exec, lines };
        beside.line_with("ready").await;
        beside
    }

    /// The next line that begins so, without its beginning.
    async fn line_with(&mut self, start: &str) -> String {
        let found = async {
            loop {
                let line = self.lines.next_line().await.expect("readable");
                let line = line.unwrap_or_else(|| panic!("no line {start:?}; stderr:\n{}", self.exec.stderr()));
                if let Some(rest) = line.strip_prefix(start) {
                    return rest.trim().to_owned();
                }
            }
        };
        tokio::time::timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("no line {start:?} in time"))
    }

    /// Everything that is still written.
    async fn rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Ok(Some(line)) = self.lines.next_line().await {
            rest.push(line);
        }
        rest
    }

    fn supervisor(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.exec.pid()).expect("it fits"))
    }

    /// The endpoint: the child of the supervisor with `--serve` among its arguments.
    fn endpoint(&self) -> Pid {
        let is_it = |pid: &i32| {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.contains("\0--serve\0")
        };
        let found = children(self.supervisor()).into_iter().find(is_it).expect("it runs");
        Pid::from_raw(found)
    }
}

/// Says that a test has shown nothing.
fn skipped(why: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stderr(), "skipped: {why}"));
}

fn children(pid: Pid) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Does this process run? One that waits for its parent has ended.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}
