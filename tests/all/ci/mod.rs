//! `safeconduct ci`: what it writes for each runner, what it leaves behind, and what it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::safeconduct::{Output, Safeconduct};
use support::scene::Scene;
use support::wait::until;

use crate::exit::{ASKED_WRONGLY, CONFIG, DENIED, REFUSED, TEMPORARY};
use crate::{LIMIT, binary};

mod attacks;
mod guards;
mod life;
mod runners;
mod steps;

/// A job of GitHub's runner: its directories, and the program in its environment.
struct Job {
    scene: Scene,
    world: Safeconduct,
    temp: PathBuf,
}

impl Job {
    async fn new() -> Self {
        let scene = Scene::new(binary()).await;
        let temp = directory(&scene.safeconduct.path().join("runner"));
        let world = in_job(&scene.safeconduct, &temp);
        Self { scene, world, temp }
    }

    /// Runs `ci` with the arguments.
    async fn ci(&self, args: &[&str]) -> Output {
        self.world.run(&[&["ci", "--insecure-loopback"], args].concat()).await
    }

    fn demo(&self) -> String {
        self.scene.argument()
    }

    /// The text of the file that `GITHUB_OUTPUT` names.
    fn output(&self) -> String {
        fs::read_to_string(self.world.private("output")).unwrap_or_default()
    }

    fn summary(&self) -> String {
        fs::read_to_string(self.world.private("summary")).unwrap_or_default()
    }

    fn outputs(&self) -> BTreeMap<String, String> {
        heredocs(&self.output())
    }

    /// Nothing of ours is in the job's directory.
    fn is_clean(&self) -> bool {
        fs::read_dir(self.temp.join("safeconduct")).map_or(true, |mut entries| entries.next().is_none())
    }
}

/// The program in a step of a job on GitHub's runner.
fn in_job(world: &Safeconduct, temp: &Path) -> Safeconduct {
    let (output, summary) = (world.private("output"), world.private("summary"));
    world
        .clone()
        .without_env("SAFECONDUCT_SOCKET")
        .env("RUNNER_TEMP", &temp.display().to_string())
        .env("GITHUB_OUTPUT", &output.display().to_string())
        .env("GITHUB_STEP_SUMMARY", &summary.display().to_string())
}

fn directory(path: &Path) -> PathBuf {
    fs::create_dir_all(path).expect("it is ours");
    path.to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o7777
}

/// A daemon in the background. It ends with the test.
struct Daemon(Pid);

impl Daemon {
    /// That of a step that printed `--json`.
    fn of(output: &Output) -> Self {
        Self(Pid::from_raw(output.json()["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("a process id")))
    }

    /// An orphan can stay a zombie, because nobody may wait for it.
    fn lives(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    }

    /// Ends it as an operator would, and waits.
    async fn end(&self) {
        kill(self.0, Signal::SIGTERM).expect("it lives");
        until(LIMIT, "it has ended", async || !self.lives()).await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.lives() {
            let _ = kill(self.0, Signal::SIGKILL);
        }
    }
}

/// Reads a file as GitHub's runner does.
fn heredocs(text: &str) -> BTreeMap<String, String> {
    let (mut found, mut lines) = (BTreeMap::new(), text.lines());
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let key = match (line.split_once("<<"), line.split_once('=')) {
            (Some((name, delimiter)), _) if !name.contains('=') => {
                let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
                (name.to_owned(), value.join("\n"))
            }
            (_, Some((name, value))) => (name.to_owned(), value.to_owned()),
            _ => panic!("the runner fails the step at {line:?}"),
        };
        found.insert(key.0, key.1);
    }
    found
}
