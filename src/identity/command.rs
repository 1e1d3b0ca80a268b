//! `command`: a program that prints a JWT.
//!
//! For platforms that provide a tool for tokens and have no source of their own here:
//!
//! ```toml
//! [identity]
//! source  = "command"
//! command = ["/usr/local/bin/platform-token", "--json=false"]
//! ```
//!
//! The program runs at each exchange, without a shell. It finds the requested audience in `SAFECONDUCT_AUDIENCE`. It must
//! print one JWT and exit with 0 within 10 seconds; after that it and its child processes are killed. Its standard error is
//! not shown, because such tools may print tokens there; run it by hand to see it. It inherits our environment, but no secret
//! that the configuration names, no token of a CI job, and nothing that the service manager set for us alone. This source is never detected, only
//! configured: whoever can write the configuration can run programs as this user. So a program that another user than ours
//! and root can write, or whose directory everybody can write, is not run.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::program::{Cures, LIMIT, Program};
use super::{Ambient, Built, Defect, Descriptor, Error, Finding, Given, IdentitySource, Kind, Setting, Tier};
use crate::env::Env;
use crate::oauth::Audience;
use crate::platform::Platform;
use crate::token::SubjectToken;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "command",
    tier: Tier::Named,
    about: "a program that prints a JWT",
    evidence: "configuration: `command`",
    token: "what the program gives; it finds the audience in `SAFECONDUCT_AUDIENCE`",
    settings: &[COMMAND],
    // The configured keys say where the token is.
    variables: &[],
    trust: &Platform::PLAIN,
    detect: |_| Finding::Absent { looked_for: "`source = \"command\"`" },
    from_config,
    probe: None,
};

const COMMAND: Setting =
    Setting::required("command", Kind::Command, "The program and its arguments, as a list; no shell is involved.")
        .checked(program);

/// The variable that tells the program the audience.
const AUDIENCE: &str = "SAFECONDUCT_AUDIENCE";

const CURES: Cures = Cures {
    not_started: "it must be there and executable for this user; `PATH` counts only for names without a slash",
    failed: "run it by hand as this user, with SAFECONDUCT_AUDIENCE set, to see why; what it says is not shown here",
    silent: "run it by hand as this user, without a terminal, to see what it waits for",
    no_jwt: "it must print one JWT on standard output and nothing else",
};

struct Configured {
    env: Env,
    program: String,
    arguments: Vec<String>,
}

fn from_config(given: &Given<'_>, ambient: &Ambient) -> Built {
    let mut words = given.texts(&COMMAND).into_iter();
    let program = words.next().ok_or_else(|| Defect::new("the list is empty", COMMAND.doc))?;
    Ok(Arc::new(Configured { env: ambient.env.clone(), program, arguments: words.collect() }))
}

/// Checks the program's name.
fn program(word: &str) -> Result<(), String> {
    if word.is_empty() {
        Err("has no name".to_owned())
    } else if word.contains('/') && !word.starts_with('/') {
        Err("is a relative path, which would depend on where safeconduct was started".to_owned())
    } else {
        Ok(())
    }
}

#[async_trait]
impl IdentitySource for Configured {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        // The system would also search directories of PATH that are empty or relative, which anybody may have filled.
        let found = if self.program.contains('/') {
            Some(self.program.clone().into())
        } else {
            self.env.program(&self.program)
        };
        let found: PathBuf = found.ok_or_else(|| Error::Misconfigured {
            what: format!("{}: {:?} is in no absolute directory of PATH", SOURCE.name, self.program),
            hint: CURES.not_started.to_owned(),
        })?;
        if let Ok(Err(why)) = self.env.check_program(&found) {
            return Err(Error::Misconfigured {
                what: format!("{}: {} is not run: {why}", SOURCE.name, found.display()),
                hint:
                    "whoever can write it runs programs as this user: give it to this user or root, and `chmod go-w` it"
                        .to_owned(),
            });
        }
        let program = Program {
            row: SOURCE.name,
            program: found.as_os_str(),
            arguments: &self.arguments,
            env: &self.env,
            variables: &[(AUDIENCE, audience.as_str())],
            limit: LIMIT,
            cures: CURES,
        };
        program.jwt().await
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(&SOURCE)
    }

    fn mints_anew(&self) -> bool {
        true
    }
}
