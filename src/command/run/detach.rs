//! `safeconduct run --detach`: starts the daemon in the background, and tells where it listens.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::dup2_stdout;

use super::{addresses, configured};
use crate::broker::Class;
use crate::cli::Run;
use crate::clock::Clock;
use crate::command::ready::{self, LIMIT, Patience};
use crate::command::{Context, Failure, Printable, print, tell};
use crate::config::Config;
use crate::env::{Env, open_regular};
use crate::frontend::desk::Listening;
use crate::oauth::shell_word;
use crate::{descriptors, sockets};
use crate::{door, supervisor};

/// How long a daemon may take until it listens: it reads files, and asks the keyring.
const STARTS: Duration = Duration::from_secs(60);

/// How long the tokens of the required servers are waited for.
const WAIT: Duration = Duration::from_secs(30);

/// Starts the same command as a daemon of its own, with its output in a private log, and waits until every required server has its
/// token.
pub(super) fn detach(context: &Context<'_>, verb: &Run) -> Result<(), Failure> {
    // What the caller has left open (a lock, a pipe that somebody reads to its end) is not for a daemon.
    descriptors::close_inherited();
    let config = configured(context, &verb.servers)?;
    let (path, log) = open_log(context, &config)?;
    // This command line, with the child's flag instead of ours.
    let words = std::env::args_os().skip(1).map(|word| if word == "--detach" { "--detached".into() } else { word });
    let (mut daemon, said) = Started::begin(context, words.collect(), Stdio::null(), (path, log))?;
    let socket = said.lines().next().unwrap_or_default().trim_start_matches(SOCKET).trim_start();
    daemon.wait(context, socket, verb.wait.unwrap_or(WAIT))?;
    let said = format!("{said}pid    {}\nlog    {}\n", daemon.child.id(), daemon.path.display());
    print(&Printable::text(&said, context.env)).map(|()| tell_flag(context, socket))
}

/// A daemon in the background.
pub(in crate::command) struct Started {
    pub(in crate::command) child: Child,
    log: File,
    /// Where its part of the log begins.
    start: u64,
    path: PathBuf,
}

impl Started {
    /// Starts this program with these words as a daemon that writes to this log, and waits until it listens: it says where, in
    /// lines. If it ends before, this fails with its last message and its exit code.
    pub(in crate::command) fn begin(
        context: &Context<'_>,
        words: Vec<OsString>,
        stdin: Stdio,
        (path, log): (PathBuf, File),
    ) -> Result<(Self, String), Failure> {
        let start = log.metadata().map(|metadata| metadata.len()).unwrap_or(0);
        let failed = |error: io::Error| Failure::bug(format!("the daemon cannot be started: {error}"));
        let program = supervisor::own_program(context.env)
            .ok_or_else(|| Failure::bug("this program's own file is not found").hint("call it by its absolute path"))?;
        let mut child = Command::new(program)
            .args(words)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(log.try_clone().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take();
        let mut daemon = Self { child, log, start, path };
        let said = match stdout.map_or_else(|| Ok(String::new()), |stdout| read_in_time(stdout, &context.clock())) {
            Ok(said) => said,
            Err(error) => {
                let _ = daemon.child.kill().and_then(|()| daemon.child.wait());
                let message = format!("the daemon does not say that it listens: {error}");
                return Err(
                    Failure::new(Class::Temporary, message).hint(format!("look at its log, {}", daemon.path.display()))
                );
            }
        };
        if !said.contains('\n') {
            let status = daemon.child.wait().map_err(failed)?;
            return Err(daemon.ended(status));
        }
        Ok((daemon, said))
    }

    /// Waits for the tokens of the required servers. Fails if they do not come; the daemon goes on.
    fn wait(&mut self, context: &Context<'_>, socket: &str, limit: Duration) -> Result<(), Failure> {
        if limit.is_zero() {
            return Ok(());
        }
        let places = [door::Place { path: socket.into(), named: true, of_step: false }];
        let mut ask = || match self.child.try_wait() {
            Ok(Some(status)) => Err(self.ended(status)),
            _ => Ok(door::ask(&places, "GET /readyz", None, context.env.uid(), LIMIT)),
        };
        let Some(missing) = ready::wait(context, &mut ask, Patience::of(limit))? else { return Ok(()) };
        let goes_on = format!(
            "the daemon goes on: pid {}, socket {socket}, log {}; end it with `safeconduct stop`",
            self.child.id(),
            self.path.display()
        );
        Err(missing.into_failure_of(&goes_on))
    }

    /// The daemon has ended by itself: with its exit code and its last message.
    fn ended(&mut self, status: ExitStatus) -> Failure {
        let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
        let exit = code.unwrap_or_else(|| Class::Internal.exit_code());
        Failure { exit, ..last_message(&mut self.log, self.start, &self.path) }
    }
}

/// What the daemon says until it closes its stdout, which it does once it listens.
fn read_in_time(mut stdout: ChildStdout, clock: &Clock) -> io::Result<String> {
    let (mut said, mut piece, begun) = (Vec::new(), [0; 1_024], clock.boot());
    while said.len() < 4_096 {
        let left = STARTS.saturating_sub(clock.boot().since(begun));
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match stdout.read(&mut piece)? {
            0 => break,
            read => said.extend_from_slice(&piece[..read]),
        }
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Prints the `--socket` flag that helpers need if the socket is not at a default path.
fn tell_flag(context: &Context<'_>, socket: &str) {
    let usual = door::places(None, context.env);
    if !usual.iter().any(|place| place.path.as_os_str() == socket)
        || context.env.get("SAFECONDUCT_SOCKET").is_some()
        || !sockets::job_directories(context.env).is_empty()
    {
        let socket = shell_word(socket).unwrap_or_else(|| "PATH".to_owned());
        let note =
            format!("safeconduct: hint: helpers that do not inherit this environment need `--socket {socket}`\n");
        tell(&Printable::text(&note, context.env));
    }
}

fn open_log(context: &Context<'_>, config: &Config) -> Result<(PathBuf, File), Failure> {
    let explicit = config.listen.socket.clone().map(|socket| vec![socket]);
    let sockets = explicit.clone().unwrap_or_else(|| sockets::to_bind(context.env));
    let mut last = None;
    for socket in sockets {
        let directory = socket.parent().map(PathBuf::from).unwrap_or_default();
        if explicit.is_none() {
            // The daemon checks whose directory it is; here it only has to exist for the log.
            use std::os::unix::fs::DirBuilderExt;
            drop(std::fs::DirBuilder::new().mode(0o700).create(&directory));
        }
        let mut path = socket.into_os_string();
        path.push(".log");
        let mut options = File::options();
        options.create(true).append(true).read(true).mode(0o600);
        let opened = open_regular(Path::new(&path), &mut options, nix::fcntl::OFlag::O_NOFOLLOW);
        // An existing file keeps its mode when it is opened, so set it.
        match opened.and_then(|log| log.set_permissions(Permissions::from_mode(0o600)).map(|()| log)) {
            Ok(log) => return Ok((path.into(), log)),
            Err(error) => last = Some(format!("{}: {error}", path.to_string_lossy())),
        }
    }
    Err(Failure::new(Class::Config, format!("no place for the log: {}", last.unwrap_or_default()))
        .hint("choose another place with `--socket`"))
}

/// The daemon's last message in its part of the log.
fn last_message(log: &mut File, start: u64, path: &Path) -> Failure {
    use std::io::{Seek, SeekFrom};
    let mut text = String::new();
    let read = log.seek(SeekFrom::Start(start)).and_then(|_| log.take(64 * 1024).read_to_string(&mut text));
    let of = |mark: &str| {
        text.rfind(mark)
            .map(|at| text[at + mark.len()..].split("\nsafeconduct: ").next().unwrap_or_default().trim_end().to_owned())
    };
    let message = read
        .ok()
        .and_then(|_| of("safeconduct: error: "))
        .unwrap_or_else(|| format!("the daemon ended at once; see {}", path.display()));
    // The daemon has written it line by line.
    let lines = message.lines().map(str::to_owned).collect();
    Failure { lines, ..Failure::new(Class::Internal, message) }.hint_maybe(of("safeconduct: hint: "))
}

/// The word before the socket's path in what a detached start prints.
const SOCKET: &str = "socket";

/// Tells the waiting parent where we listen, then closes its pipe: from now on stdout is the log too.
pub(super) fn tell_parent(listening: &Listening, env: &Env) -> Result<(), Failure> {
    let mut said = format!("{SOCKET} {}\n", listening.socket.display());
    if let (Some(http), Some(secret)) = (addresses(&listening.http), &listening.http_secret) {
        said.push_str(&format!("http   {http}\nsecret {}\n", secret.display()));
    }
    if let Some(health) = listening.health {
        said.push_str(&format!("health {health}\n"));
    }
    print(&Printable::text(&said, env))?;
    dup2_stdout(io::stderr().as_fd()).map_err(|error| Failure::bug(format!("stdout cannot be given up: {error}")))
}
