//! `gitlab-ci`: the identity of a GitLab CI job.
//!
//! GitLab issues a job's tokens when the job starts: one variable for each entry of `id_tokens`, with the audience of that
//! entry:
//!
//! ```yaml
//! agent:
//!   id_tokens:
//!     SAFECONDUCT_ID_TOKEN:
//!       aud: https://login.example.com/tenant1   # the authorization server's issuer, exactly
//! ```
//!
//! An entry of this name is detected. Configure any other name:
//!
//! ```toml
//! [identity]
//! source    = "gitlab-ci"
//! token_env = "MCP_ID_TOKEN"
//! ```
//!
//! The token cannot be renewed. It is valid until the job's time-out, or 5 minutes without one, and is used for every
//! exchange. One entry serves one authorization server, so `aud` must be a single value.
//!
//! Source: GitLab documentation, "OpenID Connect (OIDC) Authentication Using ID Tokens".

use super::env_var::{Variable, variable_name};
use super::{Ambient, Built, Defect, Descriptor, Finding, Given, Kind, Setting, Tier};
use crate::platform::{self, Named, Pin, Platform};

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "gitlab-ci",
    tier: Tier::CiJob,
    about: "a GitLab CI job with `id_tokens`",
    evidence: "`GITLAB_CI=true` and `SAFECONDUCT_ID_TOKEN`, or the configured `token_env`",
    token: "fixed audience, fixed at job start",
    settings: &[TOKEN_ENV],
    variables: &[USUAL],
    trust: &TRUST,
    detect,
    from_config,
    probe: None,
};

/// The claims that a trust policy pins.
const TRUST: Platform = Platform {
    name: "gitlab-ci",
    note: "paths are taken over; pipelines of merge requests are refused, and a `sub` that does not name the ref",
    issues: |issuer| platform::is_below(issuer, "https://gitlab.com"),
    pins: &[
        Pin::required(&["namespace_id"], "an instance is shared by its groups: the group, by its number"),
        Pin::required(&["project_id"], "the project, by its number: paths can be taken over"),
        Pin::optional(&["ref_protected"], "whether the branch or tag is one that only maintainers can push to"),
    ],
    stranger: |claims| {
        let source = platform::text(claims, "pipeline_source");
        let outside = ["merge_request_event", "external_pull_request_event"].contains(&source);
        outside.then(|| "the pipeline of a merge request, which may come from a fork, runs with it".to_owned())
    },
    instead: "run it in the pipeline of a protected branch or tag",
    named: &[Named {
        is_in: |sub| platform::segment(sub, "ref").is_some(),
        why: "`sub` does not name the ref, so every branch of the project has it, merge requests included",
        cure: "let `sub` name it again: set the project's `ci_id_token_sub_claim_components` to `[\"project_path\", \"ref_type\", \
            \"ref\"]` (GitLab's API of projects)",
    }],
    warnings: &[|claims| {
        (platform::text(claims, "ref_protected") == "false")
            .then(|| "the ref is not protected: every developer of the project is let in".to_owned())
    }],
    ..Platform::PLAIN
};

const TOKEN_ENV: Setting =
    Setting::required("token_env", Kind::Text, "Name of the entry under `id_tokens` in the pipeline file.")
        .checked(variable_name);

/// `true` in every job.
const IN_A_JOB: &str = "GITLAB_CI";
/// The variable that needs no configuration.
const USUAL: &str = "SAFECONDUCT_ID_TOKEN";

const CURE: &str = "give the job `id_tokens:` with an entry `SAFECONDUCT_ID_TOKEN:` whose `aud:` is the authorization server's issuer, \
    or name another entry with `source = \"gitlab-ci\"` and `token_env` in [identity]";

fn detect(ambient: &Ambient) -> Finding {
    if ambient.env.get(IN_A_JOB) != Some("true") {
        return Finding::Absent { looked_for: "GITLAB_CI=true" };
    }
    let found = Variable::find(&SOURCE, USUAL, CURE, ambient);
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
    match Variable::find(&SOURCE, name, CURE, ambient) {
        Some(variable) => Ok(variable),
        None => Err(Defect::new(
            format!("{name} is not set"),
            format!(
                "this job has no entry `{name}:` under `id_tokens:`; the keyword counts only for the job it stands in"
            ),
        )),
    }
}
