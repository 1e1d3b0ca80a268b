//! The supervisor: passes signals on to the command, waits for it, for the endpoint and for orphans.
//!
//! All signals are blocked and read from a descriptor, which also says who sent them. What the terminal sends reaches every process
//! of the foreground group, so the command has it already and it is not passed on. Without a terminal the command has a group of its
//! own: what is sent to the caller's group is passed on once too, and the endpoint can end the whole group.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ChildStdout;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid, getpgrp, getpid, getsid, tcgetpgrp};
use tokio::signal::unix::{SignalKind, signal};

use crate::broker::Class;
use crate::clock::Clock;
use crate::command::Failure;
use crate::supervisor::process::{self, Family};

/// What is passed on to the command.
const PASSED_ON: [Signal; 11] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
    Signal::SIGIO,
];

/// How long a command may take to end when its endpoint is gone.
const GRACE: Duration = Duration::from_millis(400);
/// Larger than what the endpoint says of itself.
const ANNOUNCEMENT: usize = 256 * 1024;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Killed(Signal),
    /// The command runs, and the endpoint was killed.
    WithoutEndpoint,
}

/// The parent of the command and of the endpoint.
pub(super) struct Supervisor {
    signals: SignalFd,
    /// The signals that the caller had not blocked.
    held_back: SigSet,
    terminal: Option<File>,
    pub(super) endpoint: Option<Pid>,
    endpoint_ended: Option<Ended>,
}

impl Supervisor {
    /// From now on no signal is missed.
    pub(super) fn new() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::bug(format!("no signals: {error}"));
        expect_children().map_err(failed)?;
        let mut all: SigSet = PASSED_ON.into_iter().collect();
        all.add(Signal::SIGCHLD);
        let before = SigSet::thread_get_mask().map_err(|error| failed(error.into()))?;
        all.thread_block().map_err(|error| failed(error.into()))?;
        let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Self {
            signals: signals.map_err(|error| failed(error.into()))?,
            held_back: all.iter().filter(|signal| !before.contains(*signal)).collect(),
            terminal: File::options().read(true).write(true).open("/dev/tty").ok(),
            endpoint: None,
            endpoint_ended: None,
        })
    }

    /// The signals that the command must let through again.
    pub(super) fn held_back(&self) -> &SigSet {
        &self.held_back
    }

    /// Is the command of our own process group? Only then can it use a terminal as if we were not there.
    pub(super) fn shares_group(&self) -> bool {
        self.terminal.is_some()
    }

    /// Waits for the line that the endpoint writes when it serves, or for how it ends if it does not.
    pub(super) fn announcement(&mut self, from: &mut ChildStdout) -> Result<Result<Vec<u8>, Ended>, Failure> {
        let (mut line, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            self.poll(Some(from.as_fd()), None)?;
            while let Ok(Some(info)) = self.signals.read_signal() {
                match signal_of(&info) {
                    Some(Signal::SIGCHLD | Signal::SIGCONT | Signal::SIGWINCH | Signal::SIGTSTP) | None => {}
                    Some(signal) => return Ok(Err(Ended::Killed(signal))),
                }
            }
            if !is_readable(from.as_fd()) {
                continue;
            }
            let read = from.read(&mut piece).map_err(|error| Failure::bug(format!("the endpoint: {error}")))?;
            line.extend_from_slice(&piece[..read]);
            if line.ends_with(b"\n") {
                return Ok(Ok(line));
            }
            if read == 0 || line.len() > ANNOUNCEMENT {
                // It has said on stderr why.
                self.wait_for_endpoint(super::FAREWELL);
                let ended = self.endpoint_ended.filter(|ended| *ended != Ended::Exited(0));
                return Ok(Err(ended.unwrap_or_else(|| Ended::Exited(Class::Internal.exit_code().into()))));
            }
        }
    }

    /// Waits for the command's end, or for that of its endpoint.
    pub(super) fn wait(&mut self, command: Pid) -> Ended {
        loop {
            if let Some(ended) = self.reap(Some(command)) {
                return ended;
            }
            if self.endpoint_ended.is_some() {
                return Ended::WithoutEndpoint;
            }
            // What cannot be polled is tried again; nothing is lost by it.
            drop(self.poll(None, None));
            while let Ok(Some(info)) = self.signals.read_signal() {
                self.pass_on(&info, command);
            }
        }
    }

    fn pass_on(&self, info: &siginfo, command: Pid) {
        let Some(signal) = signal_of(info).filter(|signal| *signal != Signal::SIGCHLD) else { return };
        let is_of_kernel = info.ssi_code > 0;
        let is_member = getpgid(Some(command)) == Ok(getpgrp());
        // A hang-up is told to the leader of the session alone.
        let is_for_us_alone = signal == Signal::SIGHUP && getsid(None) == Ok(getpid());
        if is_of_kernel && is_member && !is_for_us_alone {
            return;
        }
        // Whoever continues us continues our group, and what was stopped with us follows (`stop_with`).
        if signal == Signal::SIGCONT && self.shares_group() {
            return;
        }
        // It may have ended, or have become another user's.
        let _ = kill(command, signal);
    }

    /// Waits for what has ended. Gives the end of the command.
    fn reap(&mut self, command: Option<Pid>) -> Option<Ended> {
        loop {
            let status = waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED));
            let (pid, ended) = match status {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Ended::Exited(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Ended::Killed(signal)),
                Ok(WaitStatus::Stopped(pid, signal)) => {
                    if command == Some(pid) {
                        self.stop_with(pid, signal);
                    }
                    continue;
                }
                Err(Errno::EINTR) => continue,
                _ => return None,
            };
            if command == Some(pid) {
                return Some(ended);
            }
            if Some(pid) == self.endpoint {
                self.endpoint_ended = Some(ended);
            }
        }
    }

    /// The command was stopped. A shell that waits for us must see its job stopped, and goes on with both of us together.
    fn stop_with(&self, command: Pid, signal: Signal) {
        let is_of_terminal = matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU | Signal::SIGTSTP);
        let in_foreground = || self.terminal.as_ref().and_then(|terminal| tcgetpgrp(terminal).ok()) == Some(getpgrp());
        if !self.shares_group() || !(is_of_terminal || in_foreground()) {
            return;
        }
        // Returns when somebody continues us. PID 1 cannot be stopped.
        if raise(Signal::SIGSTOP).is_ok() && getpid() != Pid::from_raw(1) {
            let _ = kill(command, Signal::SIGCONT);
        }
    }

    /// Waits until the endpoint has ended. After the limit it is killed.
    pub(super) fn wait_for_endpoint(&mut self, limit: Duration) {
        if !self.wait_until(limit, |supervisor| supervisor.endpoint_ended.is_some()) {
            let _ = self.endpoint.map(|endpoint| kill(endpoint, Signal::SIGKILL));
            self.wait_until(GRACE, |supervisor| supervisor.endpoint_ended.is_some());
        }
    }

    /// Ends a command whose endpoint is gone: it is asked first, then killed with all that it has started.
    pub(super) fn end_command(&mut self, command: Pid, mark: (&str, &Path)) {
        let started = process::started(command.as_raw());
        let _ = kill(command, Signal::SIGTERM);
        let _ = kill(command, Signal::SIGCONT);
        self.wait_until(GRACE, |_| process::started(command.as_raw()).is_none());
        if started.is_none() {
            // It has ended, or there is no /proc to find it in.
            let _ = kill(command, Signal::SIGKILL);
        }
        // What it has started may live on without it.
        Family { head: (command.as_raw(), started.unwrap_or_default()), mark }.kill();
        self.reap(None);
    }

    fn wait_until(&mut self, limit: Duration, is_over: impl Fn(&Self) -> bool) -> bool {
        let clock = Clock::system();
        let begun = clock.boot();
        loop {
            self.reap(None);
            if is_over(self) {
                return true;
            }
            let left = limit.saturating_sub(clock.boot().since(begun));
            if left.is_zero() {
                return false;
            }
            drop(self.poll(None, Some(left)));
            while let Ok(Some(_)) = self.signals.read_signal() {}
        }
    }

    fn poll(&self, other: Option<std::os::fd::BorrowedFd<'_>>, limit: Option<Duration>) -> Result<(), Failure> {
        let watched = [Some(self.signals.as_fd()), other];
        let mut watched: Vec<PollFd<'_>> =
            watched.into_iter().flatten().map(|one| PollFd::new(one, PollFlags::POLLIN)).collect();
        let limit = limit.map_or(PollTimeout::NONE, |limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
        match poll(&mut watched, limit) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(Failure::bug(format!("nothing can be waited for: {error}"))),
        }
    }
}

impl Ended {
    /// Ends this process in the same way, as far as it can: by the same signal, else with 128 and the signal's number, as shells
    /// say it.
    pub(super) fn as_code(self, supervisor: Supervisor) -> u8 {
        match self {
            Self::Exited(code) => u8::try_from(code).unwrap_or(u8::MAX),
            Self::Killed(signal) => {
                drop(supervisor);
                let one: SigSet = [signal].into_iter().collect();
                // PID 1 survives it, and so does whoever ignores it.
                let _ = one.thread_unblock().and_then(|()| raise(signal));
                u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
            }
            Self::WithoutEndpoint => Class::Temporary.exit_code(),
        }
    }
}

/// A caller that ignores SIGCHLD has its children's ends thrown away; with a handler the kernel keeps them. Our own is never run,
/// because the signal is blocked.
fn expect_children() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    signal(SignalKind::child()).map(drop)
}

fn signal_of(info: &siginfo) -> Option<Signal> {
    i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
}

fn is_readable(one: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut watched = [PollFd::new(one, PollFlags::POLLIN)];
    matches!(poll(&mut watched, PollTimeout::ZERO), Ok(ready) if ready > 0)
}
