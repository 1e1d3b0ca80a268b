//! `command`: a program that prints a JWT.
//!
//! For platforms whose tokens come from a tool of theirs and that have no row of their own:
//!
//! ```toml
//! [identity]
//! source  = "command"
//! command = ["/usr/local/bin/platform-token", "--json=false"]
//! ```
//!
//! The program is run at each exchange, as it stands there, without a shell. It finds the wanted audience in
//! `WAYLEAVE_AUDIENCE`, prints one JWT and ends with 0 within 10 seconds. What it says on standard error is not
//! shown, because such tools print tokens there too; run it by hand to see. It and what it started are killed when
//! it takes longer. Never detected, only named: whoever can write the configuration can run programs as this user.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use secrecy::SecretString;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::{Ambient, Descriptor, Error, Finding, IdentitySource, Kind, Setting, Tier};
use crate::oauth::Audience;
use crate::token::SubjectToken;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "command",
    tier: Tier::Named,
    about: "a program that prints a JWT",
    settings: &[Setting::required(
        "command",
        Kind::Texts,
        "The program and its arguments, as a list; no shell is involved.",
    )
    .checked(program)],
    detect: |_| Finding::Absent { looked_for: "`source = \"command\"`" },
    from_config,
    probe: None,
};

/// A tool that asks a platform needs a second or two.
const LIMIT: Duration = Duration::from_secs(10);
/// Larger than any identity token.
const CAP: usize = 64 * 1024;
/// Where the program finds for whom the token is.
const AUDIENCE: &str = "WAYLEAVE_AUDIENCE";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    command: Vec<String>,
}

/// A program that is run on behalf of one row.
pub(super) struct Program {
    /// The row.
    pub(super) row: &'static str,
    /// Its path, or a name in `PATH`.
    pub(super) program: String,
    /// What it is told.
    pub(super) arguments: Vec<String>,
    /// What it must print, and nothing else.
    pub(super) prints: &'static str,
    /// How long it may take.
    pub(super) limit: Duration,
}

struct Printer(Program);

fn from_config(table: &toml::Table, _ambient: &Ambient) -> Result<Arc<dyn IdentitySource>, Error> {
    let misconfigured = |what: &str| Error::Misconfigured {
        what: format!("command: {what}"),
        hint: "name the program and its arguments: `command = [\"/path/to/program\", \"argument\"]` in [identity]"
            .to_owned(),
    };
    let config: Config = table.clone().try_into().map_err(|error: toml::de::Error| misconfigured(error.message()))?;
    let mut words = config.command.into_iter();
    let first = words.next().ok_or_else(|| misconfigured("the list is empty"))?;
    program(&first).map_err(|what| misconfigured(&format!("the program {what}")))?;
    let program =
        Program { row: SOURCE.name, program: first, arguments: words.collect(), prints: "one JWT", limit: LIMIT };
    Ok(Arc::new(Printer(program)))
}

/// Can this word be the program?
fn program(word: &str) -> Result<(), String> {
    if word.is_empty() {
        Err("has no name".to_owned())
    } else if word.contains('/') && !word.starts_with('/') {
        Err("is a relative path, which would depend on where wayleave was started".to_owned())
    } else {
        Ok(())
    }
}

#[async_trait]
impl IdentitySource for Printer {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        let text = self.0.run(&[(AUDIENCE, audience.as_str())]).await?;
        let text = std::str::from_utf8(&text).map_err(|_| self.0.malformed("what is not UTF-8"))?.trim();
        if text.is_empty() {
            return Err(self.0.malformed("nothing"));
        }
        SubjectToken::parse(SecretString::from(text.to_owned()))
            .map_err(|error| self.0.malformed(&format!("what is {error}")))
    }

    fn name(&self) -> &'static str {
        SOURCE.name
    }

    fn mints_anew(&self) -> bool {
        true
    }
}

impl Program {
    /// Runs it to its end and gives all that it prints, if it ends well.
    pub(super) async fn run(&self, variables: &[(&str, &str)]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A group of its own, so that what it starts ends with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::Misconfigured {
                what: format!("{}: {} cannot be started: {error}", self.row, self.program),
                hint: "it must be there and executable for this user; `PATH` counts only for names without a slash"
                    .to_owned(),
            })?;
        let group = Group::of(&child);
        let output = tokio::time::timeout(self.limit, self.output(child, variables)).await;
        drop(group);
        output.map_err(|_| Error::Rejected {
            source_name: self.row,
            what: format!("{} did not end within {} s and was killed", self.program, self.limit.as_secs()),
            hint: "run it by hand as this user, without a terminal, to see what it waits for".to_owned(),
        })?
    }

    /// All that it prints, if it ends well.
    async fn output(&self, mut child: Child, variables: &[(&str, &str)]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let broken = |error: std::io::Error| Error::Unreachable {
            source_name: self.row,
            what: format!("{}: {error}", self.program),
            hint: None,
        };
        // Room for everything at once: growing would leave copies of the token in freed memory.
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
            what: format!("{} ended with {status}", self.program),
            hint: format!(
                "run it by hand as this user, with {} set, to see why; what it says is not shown here",
                variables.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            ),
        })
    }

    pub(super) fn malformed(&self, what: &str) -> Error {
        Error::Malformed {
            source_name: self.row,
            what: format!("{} prints {what}", self.program),
            hint: format!("it must print {} on standard output and nothing else", self.prints),
        }
    }
}

/// The program with all it started; killed when dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Nothing left to kill is the usual case. An id that is still a group's is not given to another process.
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}
