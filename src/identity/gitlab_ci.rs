//! `gitlab-ci`: the identity of a GitLab CI job.
//!
//! GitLab mints a job's tokens when the job starts, one variable for each entry of `id_tokens`, with the audience
//! that stands there:
//!
//! ```yaml
//! agent:
//!   id_tokens:
//!     SAFECONDUCT_ID_TOKEN:
//!       aud: https://login.example.com/tenant1   # the authorization server's issuer, exactly
//! ```
//!
//! An entry of that name is detected. Any other name has to be configured:
//!
//! ```toml
//! [identity]
//! source    = "gitlab-ci"
//! token_env = "MCP_ID_TOKEN"
//! ```
//!
//! The token cannot be had anew: it lives as long as the job's time-out, or 5 minutes without one, and is presented
//! at every exchange. One entry serves one authorization server, so `aud` must be a single value.
//!
//! Source: GitLab documentation, "OpenID Connect (OIDC) Authentication Using ID Tokens".

use super::env_var::{Variable, variable_name};
use super::{Ambient, Built, Defect, Descriptor, Finding, Given, Kind, Setting, Tier};

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "gitlab-ci",
    tier: Tier::CiJob,
    about: "a GitLab CI job with `id_tokens`",
    settings: &[TOKEN_ENV],
    variables: &[USUAL],
    detect,
    from_config,
    probe: None,
};

const TOKEN_ENV: Setting =
    Setting::required("token_env", Kind::Text, "Name of the entry under `id_tokens` in the pipeline file.")
        .checked(variable_name);

/// Exactly `true` in a job.
const IN_A_JOB: &str = "GITLAB_CI";
/// The entry that needs no configuration.
const USUAL: &str = "SAFECONDUCT_ID_TOKEN";

const CURE: &str = "give the job `id_tokens:` with an entry `SAFECONDUCT_ID_TOKEN:` whose `aud:` is the authorization server's issuer, \
    or name another entry with `source = \"gitlab-ci\"` and `token_env` in [identity]";

fn detect(ambient: &Ambient) -> Finding {
    if ambient.env.get(IN_A_JOB) != Some("true") {
        return Finding::Absent { looked_for: "GITLAB_CI=true" };
    }
    let found = Variable::find(SOURCE.name, USUAL, CURE, ambient);
    Finding::of(
        "GITLAB_CI=true",
        &[USUAL],
        match found {
            Some(source) => Ok(source),
            None => Err(Defect::new(format!("{USUAL} is not set"), CURE)),
        },
    )
}

fn from_config(given: &Given<'_>, ambient: &Ambient) -> Built {
    let name = given.required(&TOKEN_ENV)?;
    match Variable::find(SOURCE.name, name, CURE, ambient) {
        Some(variable) => Ok(variable),
        None => Err(Defect::new(
            format!("{name} is not set"),
            format!(
                "this job has no entry `{name}:` under `id_tokens:`; the keyword counts only for the job it stands in"
            ),
        )),
    }
}
