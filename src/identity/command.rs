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
//! `SAFECONDUCT_AUDIENCE`, prints one JWT and ends with 0 within 10 seconds. What it says on standard error is not
//! shown, because such tools print tokens there too; run it by hand to see. It and what it started are killed when
//! it takes longer. Never detected, only named: whoever can write the configuration can run programs as this user.

use std::ffi::OsStr;
use std::sync::Arc;

use async_trait::async_trait;

use super::program::{Cures, LIMIT, Program};
use super::{Ambient, Built, Defect, Descriptor, Error, Finding, Given, IdentitySource, Kind, Setting, Tier};
use crate::oauth::Audience;
use crate::token::SubjectToken;
use crate::trust::Platform;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "command",
    tier: Tier::Named,
    about: "a program that prints a JWT",
    evidence: "configuration: `command`",
    token: "what the program gives; it finds the audience in `SAFECONDUCT_AUDIENCE`",
    settings: &[COMMAND],
    // Its keys say where the token is.
    variables: &[],
    trust: &Platform::PLAIN,
    detect: |_| Finding::Absent { looked_for: "`source = \"command\"`" },
    from_config,
    probe: None,
};

const COMMAND: Setting =
    Setting::required("command", Kind::Command, "The program and its arguments, as a list; no shell is involved.")
        .checked(program);

/// Where the program finds for whom the token is.
const AUDIENCE: &str = "SAFECONDUCT_AUDIENCE";

const CURES: Cures = Cures {
    not_started: "it must be there and executable for this user; `PATH` counts only for names without a slash",
    failed: "run it by hand as this user, with SAFECONDUCT_AUDIENCE set, to see why; what it says is not shown here",
    silent: "run it by hand as this user, without a terminal, to see what it waits for",
    no_jwt: "it must print one JWT on standard output and nothing else",
};

struct Configured {
    program: String,
    arguments: Vec<String>,
}

fn from_config(given: &Given<'_>, _ambient: &Ambient) -> Built {
    let mut words = given.texts(&COMMAND).into_iter();
    let program = words.next().ok_or_else(|| Defect::new("the list is empty", COMMAND.doc))?;
    Ok(Arc::new(Configured { program, arguments: words.collect() }))
}

/// Can this word be the program?
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
        let program = Program {
            row: SOURCE.name,
            program: OsStr::new(&self.program),
            arguments: &self.arguments,
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
