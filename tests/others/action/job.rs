//! A job, as GitHub's runner runs an action in it: inputs as variables, files for outputs, state and paths, a log in which masks
//! hold from their line on, and a post step that gets the state of the main step.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::fakes::leak;
use crate::fakes::scene::Scene;
use crate::process::{LIMIT, ROOT, Running, SAFECONDUCT, installed};

/// The Node.js that `runs.using` in action.yml names.
pub(super) const NODE_24: &str = "target/others/node_modules/node-24-linux-x64/bin/node";

/// A job whose runner has an action to run.
pub(super) struct Job {
    directory: TempDir,
    env: BTreeMap<String, String>,
    steps: AtomicUsize,
}

/// What a step has left behind.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) succeeded: bool,
    /// What people see, line by line.
    pub(super) log: Vec<String>,
    pub(super) outputs: BTreeMap<String, String>,
    pub(super) state: BTreeMap<String, String>,
    pub(super) path: String,
    pub(super) summary: String,
}

/// A step that runs.
pub(super) struct Begun {
    process: Running,
    files: PathBuf,
}

impl Job {
    /// Of the scene's platform; it may ask for its identity. `demo` is the scene's server.
    pub(super) fn of(scene: &Scene) -> Self {
        installed();
        // The path of a socket is limited.
        let directory = tempfile::Builder::new().prefix("job").tempdir_in("/tmp").expect("/tmp is writable");
        let place = |name: &str| {
            fs::create_dir(directory.path().join(name)).expect("the directory is new");
            directory.path().join(name).display().to_string()
        };
        let config = directory.path().join("safeconduct.toml");
        fs::write(&config, "[egress]\ninsecure_loopback = true\n").expect("ours");
        let mut env: BTreeMap<String, String> = scene.platform.env().into_iter().collect();
        for (name, value) in [
            ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("CI", "true".to_owned()),
            ("HOME", place("home")),
            ("RUNNER_OS", "Linux".to_owned()),
            ("RUNNER_TEMP", place("temp")),
            ("RUNNER_TOOL_CACHE", place("cache")),
            ("GITHUB_WORKSPACE", place("work")),
            // Of the tests alone: the servers are on loopback.
            ("SAFECONDUCT_CONFIG", config.display().to_string()),
        ] {
            env.insert(name.to_owned(), value);
        }
        let job = Self { directory, env, steps: AtomicUsize::new(0) };
        job.input("servers", &scene.argument()).input("path", SAFECONDUCT)
    }

    /// An input, by the name in action.yml.
    pub(super) fn input(self, name: &str, value: &str) -> Self {
        self.env(&format!("INPUT_{}", name.to_uppercase()), value)
    }

    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(super) fn without_env(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    pub(super) fn main(&self) -> Step {
        self.begin("main", &BTreeMap::new()).end()
    }

    pub(super) fn begin_main(&self) -> Begun {
        self.begin("main", &BTreeMap::new())
    }

    /// The post step. It never fails the job, and leaves no process of ours.
    pub(super) fn post(&self, state: &BTreeMap<String, String>) -> Step {
        let step = self.begin("post", state).end();
        assert!(step.succeeded, "the post step fails the job: {:?}", step.log);
        step
    }

    /// Another step of the job that runs a command.
    pub(super) fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).env_clear().envs(&self.env).current_dir(self.path("work")).stdin(Stdio::null());
        command
    }

    fn begin(&self, entry: &str, state: &BTreeMap<String, String>) -> Begun {
        let files = self.path(&format!("step-{}", self.steps.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&files).expect("the directory is new");
        let mut command = self.command(&format!("{ROOT}/{NODE_24}"), &[&format!("{ROOT}/{}", entry_of(entry))]);
        for name in ["GITHUB_OUTPUT", "GITHUB_STATE", "GITHUB_PATH", "GITHUB_ENV", "GITHUB_STEP_SUMMARY"] {
            fs::write(files.join(name), "").expect("ours");
            command.env(name, files.join(name));
        }
        command.envs(state.iter().map(|(name, value)| (format!("STATE_{name}"), value)));
        // One file for both, in the order in which they are written.
        let log = fs::File::options().append(true).create(true).open(files.join("log")).expect("ours");
        command.stdout(log.try_clone().expect("a descriptor is left")).stderr(log);
        let process = Running(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")));
        Begun { process, files }
    }
}

impl Begun {
    /// What a cancelled job sends.
    pub(super) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.0.id()).expect("a pid fits");
        kill(Pid::from_raw(pid), signal).expect("a child of ours can be signalled");
    }

    pub(super) fn state(&self) -> BTreeMap<String, String> {
        values(&self.files.join("GITHUB_STATE"))
    }

    pub(super) fn end(mut self) -> Step {
        let status = self.process.wait(LIMIT).expect("the step ends");
        let read = |name: &str| fs::read_to_string(self.files.join(name)).expect("it is text");
        let (log, summary) = (shown(&read("log")), read("GITHUB_STEP_SUMMARY"));
        leak::check("the summary", &summary);
        leak::check("the state", &read("GITHUB_STATE"));
        assert_eq!(read("GITHUB_ENV"), "", "a later step would have variables that nobody asked for");
        Step {
            succeeded: status.success(),
            log,
            summary,
            outputs: values(&self.files.join("GITHUB_OUTPUT")),
            state: self.state(),
            path: read("GITHUB_PATH"),
        }
    }
}

impl Step {
    /// The log as one text.
    pub(super) fn said(&self) -> String {
        self.log.join("\n")
    }

    #[track_caller]
    pub(super) fn expect_success(self) -> Self {
        assert!(self.succeeded, "{}", self.said());
        self
    }

    /// Fails unless the step failed, and what the page of the run shows has all of these texts.
    #[track_caller]
    pub(super) fn expect_failure(self, texts: &[&str]) -> Self {
        assert!(!self.succeeded, "{}", self.said());
        let errors: Vec<&String> = self.log.iter().filter(|line| line.starts_with("::error ")).collect();
        assert_eq!(errors.len(), 1, "one failure, one annotation: {}", self.said());
        for text in texts {
            assert!(errors[0].contains(text), "{text:?} is not in {}", errors[0]);
        }
        assert_eq!(self.outputs, BTreeMap::new(), "a refused step has no outputs");
        self
    }
}

/// The file that action.yml names for `main` or `post`.
fn entry_of(name: &str) -> String {
    let action = fs::read_to_string(Path::new(ROOT).join("action.yml")).expect("there is an action");
    let line = action.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("action.yml names no {name}")).to_owned()
}

/// `NAME<<DELIMITER`, the value, the delimiter, as the runner reads its files.
fn values(file: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(file).expect("it is text");
    let mut lines = text.lines();
    let mut values = BTreeMap::new();
    while let Some(line) = lines.next() {
        let (name, delimiter) = line.split_once("<<").unwrap_or_else(|| panic!("no value: {line:?}"));
        let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
        values.insert(name.to_owned(), value.join("\n"));
    }
    values
}

/// What people see: masked texts are hidden, from the line on that masks them. The only other command is that of an error.
fn shown(log: &str) -> Vec<String> {
    let mut masks: Vec<String> = Vec::new();
    let mut shown = Vec::new();
    for line in log.lines() {
        if let Some(secret) = line.strip_prefix("::add-mask::") {
            masks.push(secret.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%"));
            continue;
        }
        let command = line.trim_start().starts_with("::") || line.contains("##[") || line.contains("##vso[");
        assert!(!command || line.starts_with("::error title=safeconduct::"), "a command of others: {line}");
        let hidden = masks.iter().fold(line.to_owned(), |line, mask| line.replace(mask, "***"));
        leak::check("the log", &hidden);
        shown.push(hidden);
    }
    shown
}
