//! A child process that prints an identity, for every source that runs a platform's tool.
//!
//! The program runs without a shell. If it exceeds its time limit, it is killed with its own child processes. Its standard
//! error is not shown, because such tools may print tokens there. It inherits our environment without the variables that hold
//! secrets of the configuration, the request tokens of a platform and what the service manager set for us alone.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use secrecy::SecretString;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::{Error, SOURCES, Tier, aws, azure};
use crate::env::{self, Env};
use crate::token::SubjectToken;

/// The default time limit. A tool that asks its platform needs a second or two.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// Larger than any identity token.
const CAP: usize = 64 * 1024;

/// A program and how to run it, for one source.
pub(super) struct Program<'a> {
    /// The source's name.
    pub(super) row: &'static str,
    /// The program: a path, or a name to find on `PATH`.
    pub(super) program: &'a OsStr,
    /// Its arguments.
    pub(super) arguments: &'a [String],
    /// Our environment.
    pub(super) env: &'a Env,
    /// Variables to set in addition.
    pub(super) variables: &'a [(&'static str, &'a str)],
    /// The time limit.
    pub(super) limit: Duration,
    /// The cures for its failures.
    pub(super) cures: Cures,
}

/// Cures for the failures of a program.
pub(super) struct Cures {
    /// It cannot be started.
    pub(super) not_started: &'static str,
    /// It exits with an error.
    pub(super) failed: &'static str,
    /// It exceeds its time limit.
    pub(super) silent: &'static str,
    /// Its output is not a JWT.
    pub(super) no_jwt: &'static str,
}

impl Program<'_> {
    /// Runs it and reads the one JWT it prints.
    pub(super) async fn jwt(&self) -> Result<SubjectToken, Error> {
        let text = self.run().await?;
        let text = std::str::from_utf8(&text).map_err(|_| self.malformed("what is not UTF-8"))?.trim();
        if text.is_empty() {
            return Err(self.malformed("nothing"));
        }
        SubjectToken::parse(SecretString::from(text.to_owned()))
            .map_err(|error| self.malformed(&format!("what is {error}")))
    }

    /// Runs it and returns its output. Fails unless it exits with 0.
    pub(super) async fn run(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let child = Command::new(self.program)
            .args(self.arguments)
            .env_clear()
            .envs(self.env.for_program(|name| self.is_kept_back(name)))
            .envs(self.variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A separate process group, so that its child processes can be killed too.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::Misconfigured {
                what: format!("{}: {} cannot be started: {error}", self.row, self.shown()),
                hint: self.cures.not_started.to_owned(),
            })?;
        let group = Group::of(&child);
        let output = tokio::time::timeout(self.limit, self.output(child)).await;
        drop(group);
        output.map_err(|_| Error::Rejected {
            source_name: self.row,
            what: format!("{} did not end within {} s and was killed", self.shown(), self.limit.as_secs()),
            hint: self.cures.silent.to_owned(),
        })?
    }

    /// With a request token or a job's identity token the program could get identities that we do not ask it for. Its own
    /// source's variables stay.
    fn is_kept_back(&self, name: &str) -> bool {
        let jobs = SOURCES.iter().filter(|row| row.tier == Tier::CiJob && row.name != self.row);
        let mut kept_back =
            jobs.flat_map(|row| row.variables).chain(&azure::REQUEST_TOKENS).chain(&aws::REQUEST_TOKENS);
        kept_back.any(|pattern| env::matches(pattern, name))
    }

    /// Reads its output. Fails unless it exits with 0.
    async fn output(&self, mut child: Child) -> Result<Zeroizing<Vec<u8>>, Error> {
        let broken = |error: std::io::Error| Error::Unreachable {
            source_name: self.row,
            what: format!("{}: {error}", self.shown()),
            hint: None,
        };
        // Reserve the full size: growing the buffer would leave copies of the token in freed memory.
        let mut text = Zeroizing::new(Vec::with_capacity(CAP + 1));
        if let Some(stdout) = child.stdout.take() {
            stdout.take(CAP as u64 + 1).read_to_end(&mut text).await.map_err(broken)?;
        }
        if text.len() > CAP {
            return Err(self.malformed("more than 64 KiB"));
        }
        let status = child.wait().await.map_err(broken)?;
        if status.success() {
            return Ok(text);
        }
        Err(Error::Rejected {
            source_name: self.row,
            what: format!("{} ended with {status}", self.shown()),
            hint: self.cures.failed.to_owned(),
        })
    }

    pub(super) fn malformed(&self, what: &str) -> Error {
        Error::Malformed {
            source_name: self.row,
            what: format!("{} prints {what}", self.shown()),
            hint: self.cures.no_jwt.to_owned(),
        }
    }

    pub(super) fn shown(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }
}

/// The process group of the program. Dropping it kills the group.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Usually no process is left, and the error is ignored. The kernel does not reuse the id while the group exists.
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}
