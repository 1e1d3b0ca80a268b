//! Runs the real binary, in an empty environment with its own directory.
//!
//! Whatever the test does, standard error, every output that may hold no token, and every file left behind outside
//! [`Safeconduct::private`] goes through [`super::leak`]: at each run, and when these values are dropped.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::leak;
pub use daemon::Daemon;
pub use running::Running;

mod daemon;
mod running;

/// The time limit of a run. After it the run is killed and the test fails.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Commands whose purpose is to print a token.
const CARRIERS: [&str; 5] = ["token", "headers", "get", "ci", "exec"];

/// Lines for a CI runner, by which it learns which token to hide.
const FOR_THE_RUNNER: [&str; 3] = ["::add-mask::", "##vso[task.setsecret]", "##vso[task.setvariable variable=token_"];

/// Flags before the command that take a value.
const FLAGS_WITH_VALUE: [&str; 7] =
    ["--config", "--socket", "--log", "--log-format", "--identity", "--identity-file", "--timeout"];

/// The binary, its environment and its files.
#[derive(Clone)]
pub struct Safeconduct {
    binary: PathBuf,
    directory: Arc<Directory>,
    env: BTreeMap<String, String>,
    config: Option<PathBuf>,
    limit: Duration,
}

/// The outcome of one run.
#[derive(Debug)]
pub struct Output {
    /// `None`: a signal ended the process.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A directory with a short path (a Unix socket's path has at most 107 bytes). It is searched for tokens at the end.
struct Directory {
    root: TempDir,
    runs: AtomicUsize,
}

impl Safeconduct {
    /// `binary` is `env!("CARGO_BIN_EXE_safeconduct")`, which only an integration test has.
    pub fn new(binary: &str) -> Self {
        let root = tempfile::Builder::new().prefix("sc").tempdir_in("/tmp").expect("/tmp is writable");
        let directory = Arc::new(Directory { root, runs: AtomicUsize::new(0) });
        for name in ["home", "tmp", "out", "private"] {
            fs::create_dir(directory.path(name)).expect("the directory is new");
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(directory.path(name), mode).expect("the directory is ours");
        }
        let place = |name: &str| directory.path(name).display().to_string();
        let env = [
            ("HOME", place("home")),
            ("TMPDIR", place("tmp")),
            ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("SAFECONDUCT_LOG", "trace".to_owned()),
            // Never the compiled-in paths: a daemon of the developer may answer there.
            ("SAFECONDUCT_SOCKET", place("safeconduct.sock")),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).into();
        Self { binary: binary.into(), directory, env, config: None, limit: LIMIT }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(variables);
        self
    }

    pub fn without_env(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// Writes the configuration file (0600) and passes it with `--config` from now on.
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(self.write("safeconduct.toml", toml));
        self
    }

    /// The same for a file that contains a secret on purpose: it is not searched.
    pub fn private_config(mut self, toml: &str) -> Self {
        self.config = Some(self.write("private/safeconduct.toml", toml));
        self
    }

    /// Changes the configuration file under a running daemon.
    pub fn rewrite_config(&self, toml: &str) {
        assert!(self.config.is_some(), "there is no configuration file yet");
        self.write("safeconduct.toml", toml);
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same world with another binary.
    pub fn with_binary(mut self, binary: &Path) -> Self {
        self.binary = binary.to_owned();
        self
    }

    /// The directory of this world.
    pub fn path(&self) -> &Path {
        self.directory.root.path()
    }

    /// The path of the daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.env.get("SAFECONDUCT_SOCKET").map(PathBuf::from).unwrap_or_default()
    }

    /// A path for a file that contains a token on purpose (an identity file). It is not searched.
    pub fn private(&self, name: &str) -> PathBuf {
        self.directory.path("private").join(name)
    }

    /// Writes a file (0600) in the directory and gives its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path(name);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("the directory is ours");
        path
    }

    /// Runs the command to its end, with nothing on standard input.
    pub async fn run(&self, args: &[&str]) -> Output {
        self.run_with_stdin(args, "").await
    }

    pub async fn run_with_stdin(&self, args: &[&str], stdin: &str) -> Output {
        let mut running = Running::start(self, args, Stdio::piped());
        let mut pipe = running.stdin();
        // A command that does not read its input may end before the write.
        let _ = pipe.write_all(stdin.as_bytes()).await;
        drop(pipe);
        running.wait().await
    }

    /// Starts the command with standard input and output connected to the test: for `stdio`.
    pub fn spawn(&self, args: &[&str]) -> Running {
        Running::start_piped(self, args)
    }

    /// Starts `safeconduct run` with `args` and waits until it answers on its socket.
    pub async fn daemon(&self, args: &[&str]) -> Daemon {
        Daemon::start(self, args).await
    }

    /// The command, with standard streams not yet set.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command
            .args(self.without_daemon(args))
            .env_clear()
            .envs(&self.env)
            .current_dir(self.directory.path("home"))
            .kill_on_drop(true)
            // A new process group, so that its child processes can be killed with it.
            .process_group(0);
        command
    }

    /// A socket that is named must answer. Before there is a daemon, the commands that can do without one are told so.
    fn without_daemon<'a>(&self, args: &[&'a str]) -> Vec<&'a str> {
        let mut args = args.to_vec();
        let command = command_in(&args);
        let is_said = ["--socket", "--no-daemon", "--daemon-only"].iter().any(|flag| args.contains(flag));
        let is_ours = self.env.get("SAFECONDUCT_SOCKET").is_some_and(|path| Path::new(path).starts_with(self.path()));
        let can = ["token", "headers", "get", "stdio", "exec"].contains(&command);
        // Asking the kernel connects to nobody.
        let socket = format!(" {}", self.socket().display());
        let listens =
            || fs::read_to_string("/proc/net/unix").is_ok_and(|all| all.lines().any(|one| one.ends_with(&socket)));
        if can && is_ours && !is_said && !listens() {
            let at = args.iter().position(|arg| *arg == command).unwrap_or_default();
            args.insert(at + 1, "--no-daemon");
        }
        args
    }

    /// The same world without `--config`: what a helper needs while a daemon answers.
    fn as_helper(&self) -> Self {
        Self { config: None, ..self.clone() }
    }
}

impl Output {
    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is not JSON: {error}\n{}", self.stderr))
    }

    /// Standard error without the lines that a CI runner takes out of the log.
    pub fn stderr_for_people(&self) -> String {
        for_people(&self.stderr)
    }

    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Fails with standard error unless the exit code is `code`.
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stderr:\n{}", self.stderr);
        self
    }

    /// Checks standard error, and standard output unless the command's purpose is to print a token and it succeeded.
    fn check(&self, args: &[&str]) {
        let command = command_in(args);
        leak::check(&format!("stderr of safeconduct {command}"), &self.stderr_for_people());
        let carries = CARRIERS.contains(&command) && (self.succeeded() || command == "exec");
        if !carries {
            leak::check(&format!("stdout of safeconduct {command}"), &self.stdout);
        }
    }
}

/// The text without the lines that a CI runner takes out of the log.
pub fn for_people(text: &str) -> String {
    let is_for_people = |line: &&str| !FOR_THE_RUNNER.iter().any(|start| line.starts_with(start));
    text.split_inclusive('\n').filter(is_for_people).collect()
}

impl Directory {
    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The files for standard output and standard error of the next run. They are checked separately.
    fn next_outputs(&self) -> (PathBuf, PathBuf) {
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        (self.path(&format!("out/{run}.stdout")), self.path(&format!("out/{run}.stderr")))
    }
}

impl Drop for Directory {
    /// Checks all files (audit files, logs of detached daemons): only files in `private` may contain a token.
    fn drop(&mut self) {
        let mut pending = vec![self.path("home"), self.path("tmp")];
        let top = fs::read_dir(self.root.path()).into_iter().flatten().flatten();
        // The file of the loopback secret may contain it. A killed daemon leaves that file.
        let is_searched = |path: &PathBuf| path.is_file() && !path.ends_with("http.secret");
        pending.extend(top.map(|entry| entry.path()).filter(is_searched));
        while let Some(path) = pending.pop() {
            if path.is_dir() && !path.is_symlink() {
                pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            } else if path.is_file() {
                let text = fs::read(&path).unwrap_or_default();
                leak::check_on_drop(&format!("the file {}", path.display()), &String::from_utf8_lossy(&text));
            }
        }
    }
}

/// The command among the arguments: the first one that is neither a flag nor a flag's value.
fn command_in<'a>(args: &[&'a str]) -> &'a str {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if FLAGS_WITH_VALUE.contains(arg) {
            args.next();
        } else if !arg.starts_with('-') {
            return arg;
        }
    }
    ""
}
