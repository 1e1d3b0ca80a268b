//! One process of the binary. Its outputs go to files, so that they survive every kind of end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::super::leak;
use super::{Output, Safeconduct};

pub struct Running {
    child: Child,
    pid: u32,
    args: Vec<String>,
    limit: Duration,
    stdout: Option<PathBuf>,
    stderr: PathBuf,
    /// The directory must outlive the process.
    _world: Safeconduct,
}

impl Running {
    pub(super) fn start(world: &Safeconduct, args: &[&str], stdin: Stdio) -> Self {
        let (stdout, stderr) = world.directory.next_outputs();
        let to_file = create(&stdout).into();
        Self::spawn(world, args, [stdin, to_file], Some(stdout), stderr)
    }

    pub(super) fn start_piped(world: &Safeconduct, args: &[&str]) -> Self {
        let (_, stderr) = world.directory.next_outputs();
        Self::spawn(world, args, [Stdio::piped(), Stdio::piped()], None, stderr)
    }

    fn spawn(
        world: &Safeconduct,
        args: &[&str],
        [stdin, stdout]: [Stdio; 2],
        file: Option<PathBuf>,
        stderr: PathBuf,
    ) -> Self {
        let mut command = world.command(args);
        let child = command.stdin(stdin).stdout(stdout).stderr(create(&stderr)).spawn();
        let child = child.unwrap_or_else(|error| panic!("{:?} does not start: {error}", world.binary));
        let pid = child.id().expect("it has just been started");
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { child, pid, args, limit: world.limit, stdout: file, stderr, _world: world.clone() }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its standard input. Can be taken once.
    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("standard input is piped and not taken yet")
    }

    /// Its standard output, if `spawn` started it. Can be taken once.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("standard output is piped and not taken yet")
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.id(), signal).expect("the process is ours and not waited for");
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the process and its children by their process group. The group id is valid until wait(2).
    fn kill_all(&self) {
        let _ = killpg(self.id(), Signal::SIGKILL);
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid).expect("a pid is positive"))
    }

    /// Waits for its end. If that takes too long, kills the process and fails the test.
    pub async fn wait(&mut self) -> Output {
        let ended = tokio::time::timeout(self.limit, self.child.wait()).await;
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let Ok(status) = ended else {
            self.kill_all();
            let _ = self.child.wait().await;
            let stderr = self.stderr();
            leak::check("stderr of a process that had to be killed", &stderr);
            panic!("safeconduct {args:?} took longer than {:?}; stderr:\n{stderr}", self.limit);
        };
        let stdout = self.stdout.as_deref().map(read).unwrap_or_default();
        let code = status.expect("a child can be waited for").code();
        let output = Output { code, stdout, stderr: self.stderr() };
        output.check(&args);
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.has_ended() {
            leak::check_on_drop("stderr of safeconduct", &super::for_people(&self.stderr()));
            return;
        }
        self.kill_all();
        let mut patience = 200;
        while patience > 0 && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
            patience -= 1;
        }
        leak::check_on_drop("stderr of safeconduct", &super::for_people(&self.stderr()));
    }
}

fn create(path: &Path) -> File {
    File::create(path).expect("the directory is ours")
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
