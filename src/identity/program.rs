//! A child process that prints an identity, for every source that runs a platform's tool.
//!
//! The program runs without a shell. If it exceeds its time limit, or if we end, it is killed with its own child processes.
//! Its standard error is not shown, because such tools may print tokens there. It inherits our environment without the variables
//! that hold secrets of the configuration, the request tokens of a platform and what the service manager set for us alone.

use std::ffi::OsStr;
use std::io;
use std::time::Duration;

use secrecy::SecretString;
use tokio::io::AsyncReadExt;
use tokio::process::Child;
use zeroize::Zeroizing;

use super::{Error, SOURCES, Tier, aws, azure};
use crate::child::{self, Running};
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
        let environment = self.env.for_program(|name| self.is_kept_back(name));
        let environment = environment.chain(self.variables.iter().copied());
        let running = Running::start(self.program, self.arguments, environment);
        let (child, group) = running.map_err(|error| self.not_started(&error))?.split();
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
        let broken = |error: io::Error| Error::Unreachable {
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
        if let Some(error) = child::not_started(status, &text) {
            return Err(self.not_started(&error));
        }
        Err(Error::Rejected {
            source_name: self.row,
            what: format!("{} ended with {status}", self.shown()),
            hint: self.cures.failed.to_owned(),
        })
    }

    /// Resources of the machine that are used up are there again later. Anything else is the configuration's fault.
    fn not_started(&self, error: &io::Error) -> Error {
        use nix::errno::Errno;
        let what = format!("{} cannot be started: {error}", self.shown());
        let used_up = [Errno::EAGAIN, Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM].map(|errno| errno as i32);
        if error.raw_os_error().is_some_and(|number| used_up.contains(&number)) {
            return Error::Unreachable { source_name: self.row, what, hint: None };
        }
        Error::Misconfigured { what: format!("{}: {what}", self.row), hint: self.cures.not_started.to_owned() }
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
