//! `circleci`: the identity of a CircleCI job.
//!
//! Detected by `CIRCLECI`, which is `true` in every job. No configuration is needed if the `circleci` command is on `PATH`, as
//! on CircleCI's own machines and in its containers: the command gets a new token for the authorization server each time
//! (`circleci run oidc get`). Without the command there is only the token that CircleCI put into a variable when the job
//! started. Its audience is the organisation's id, so set `issuer` and `subject_audience` at the server. It expires an hour
//! after the job started.
//!
//! Only `PATH` decides between the two; a failure of the command does not. To use the fixed token although a `circleci` command
//! exists (CircleCI's command line for developers has the same name), name its variable:
//!
//! ```toml
//! [identity]
//! source    = "circleci"
//! token_env = "CIRCLE_OIDC_TOKEN_V2"
//! ```
//!
//! The issuer is the organisation's, `https://oidc.circleci.com/org/ORG-ID`. A build of a fork has a token only if the project
//! passes secrets to forks. Then the authorization server must check the claim `oidc.circleci.com/vcs-origin`, because the
//! subject does not name the repository of the code.
//!
//! Source: CircleCI, "Using OpenID Connect tokens in jobs", "OpenID Connect tokens with custom claims".

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::env_var::{Variable, variable_name};
use super::program::{Cures, LIMIT, Program};
use super::{Ambient, Built, Defect, Descriptor, Error, Finding, Given, IdentitySource, Kind, Setting, Tier};
use crate::env::Env;
use crate::oauth::Audience;
use crate::platform::{self, Pin, Platform};
use crate::token::SubjectToken;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "circleci",
    tier: Tier::CiJob,
    about: "a CircleCI job",
    evidence: "`CIRCLECI=true` and the `circleci` command on `PATH`, else `CIRCLE_OIDC_TOKEN_V2` or `CIRCLE_OIDC_TOKEN`",
    token: "with the command: any audience, minted anew each time; else the organisation's id as audience, fixed at job start",
    settings: &[TOKEN_ENV],
    variables: &[FIXED[0], FIXED[1]],
    trust: &TRUST,
    detect,
    from_config,
    probe: None,
};

/// The claims that a trust policy pins.
const TRUST: Platform = Platform {
    name: "circleci",
    note: "`sub` up to the user; a fork has another origin; a job that was started again with SSH is refused",
    issues: |issuer| platform::is_below(issuer, "https://oidc.circleci.com"),
    pins: &[
        Pin::required(&["oidc.circleci.com/project-id"], "the project, by its number"),
        Pin::optional(&["oidc.circleci.com/vcs-origin"], "where the code comes from: not a fork's repository"),
        Pin::optional(&["oidc.circleci.com/ssh-rerun"], "no job that somebody logged in to"),
    ],
    // org/ORG/project/PROJECT/user/USER[/vcs-origin/…/vcs-ref/…]: the user who started it varies.
    stable_subject: |sub| platform::up_to(sub, "/user/").filter(|stable| stable.starts_with("org/")),
    stranger: |claims| {
        let rerun =
            platform::at(claims, &["oidc.circleci.com/ssh-rerun"]).is_some_and(|value| *value == Value::Bool(true));
        rerun.then(|| "the job was started again with SSH: somebody may be logged in to it".to_owned())
    },
    instead: "start the job without SSH",
    warnings: &[],
    ..Platform::PLAIN
};

const TOKEN_ENV: Setting = Setting::optional(
    "token_env",
    Kind::Text,
    "Use the fixed token in this variable (CIRCLE_OIDC_TOKEN_V2). Omit: ask the `circleci` command where it is there.",
)
.checked(variable_name);

/// `true` in every job.
const IN_A_JOB: &str = "CIRCLECI";
const COMMAND: &str = "circleci";
/// The newer one is first: its subject has the source repository and ref, which a trust policy should pin.
const FIXED: [&str; 2] = ["CIRCLE_OIDC_TOKEN_V2", "CIRCLE_OIDC_TOKEN"];

const NO_TOKEN: &str = "a build of a fork must be allowed secrets, and CircleCI server must be 4.4 or later";
const FIXED_CURE: &str = "its audience is the organisation's id: name it as `subject_audience`, with `issuer`, at the server; \
    or have the `circleci` command on the job's PATH, which makes a token for any audience";

const CURES: Cures = Cures {
    not_started: "it must be executable for this user; without it, or with `token_env = \"CIRCLE_OIDC_TOKEN_V2\"`, the job's \
        fixed token is used",
    failed: "run `circleci run oidc get` in the job to see why; if another program bears that name, use the job's fixed token: \
        `source = \"circleci\"` and `token_env = \"CIRCLE_OIDC_TOKEN_V2\"` in [identity]",
    silent: "run `circleci run oidc get` in the job to see what it waits for; or use the job's fixed token: \
        `source = \"circleci\"` and `token_env = \"CIRCLE_OIDC_TOKEN_V2\"` in [identity]",
    no_jwt: "`circleci run oidc get` prints the token alone: another program bears its name; use the job's fixed token: \
        `source = \"circleci\"` and `token_env = \"CIRCLE_OIDC_TOKEN_V2\"` in [identity]",
};

struct Command {
    env: Env,
    path: PathBuf,
}

fn detect(ambient: &Ambient) -> Finding {
    const LOOKED_FOR: &str = "CIRCLECI=true";
    if ambient.env.get(IN_A_JOB) != Some("true") {
        return Finding::Absent { looked_for: LOOKED_FOR };
    }
    match here(ambient) {
        Some((what, source)) => Finding::Usable { evidence: format!("{LOOKED_FOR}, {what}"), source },
        None => Finding::Unusable { evidence: LOOKED_FOR.to_owned(), defect: nothing_here() },
    }
}

/// The source for the command, else for the fixed token, with its evidence.
fn here(ambient: &Ambient) -> Option<(String, Arc<dyn IdentitySource>)> {
    if let Some(path) = ambient.env.program(COMMAND) {
        return Some((format!("the {COMMAND} command"), Arc::new(Command { env: ambient.env.clone(), path })));
    }
    let fixed = |name: &str| Variable::find(&SOURCE, name, FIXED_CURE, ambient);
    FIXED.into_iter().find_map(|name| {
        let source = fixed(name)?;
        Some((
            format!("{name} with its fixed audience (no {COMMAND} command on PATH)"),
            source as Arc<dyn IdentitySource>,
        ))
    })
}

fn nothing_here() -> Defect {
    let [new, old] = FIXED;
    Defect::new(format!("no {COMMAND} command is on PATH, and neither {new} nor {old} is set"), NO_TOKEN)
}

fn from_config(given: &Given<'_>, ambient: &Ambient) -> Built {
    let Some(name) = given.text(&TOKEN_ENV) else {
        return here(ambient).map(|(_, source)| source).ok_or_else(nothing_here);
    };
    match Variable::find(&SOURCE, name, FIXED_CURE, ambient) {
        Some(fixed) => Ok(fixed),
        None => Err(Defect::new(format!("{name} is not set"), NO_TOKEN)),
    }
}

#[async_trait]
impl IdentitySource for Command {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        let claims = json!({ "aud": audience.as_str() }).to_string();
        let arguments = ["run", "oidc", "get", "--claims", &claims].map(str::to_owned);
        let program = Program {
            row: SOURCE.name,
            program: self.path.as_os_str(),
            arguments: &arguments,
            env: &self.env,
            variables: &[],
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
