//! Platforms that pass the identity as a JWT in a variable: one row each.
//!
//! | source | evidence | token | where its audience is set |
//! |---|---|---|---|
//! | `bitbucket` | `BITBUCKET_BUILD_NUMBER` | `BITBUCKET_STEP_OIDC_TOKEN` | `oidc: audiences:` of the step |
//! | `hcp-terraform` | `TFC_RUN_ID` | `TFC_WORKLOAD_IDENTITY_TOKEN`, or that of the configured `tag` | `TFC_WORKLOAD_IDENTITY_AUDIENCE` of the workspace, with `_TAG` |
//! | `spacelift` | `TF_VAR_spacelift_run_id` (K) | `SPACELIFT_OIDC_TOKEN` (K) | nowhere: the account's host name (K) |
//! | `semaphore` | `SEMAPHORE=true` | `SEMAPHORE_OIDC_TOKEN` (K) | nowhere: the organisation's URL (K) |
//! | `env0` | `ENV0_ENVIRONMENT_ID` (K) | `ENV0_OIDC_TOKEN` | nowhere: fixed by env0 |
//! | `modal` | `MODAL_IS_REMOTE=1` | `MODAL_IDENTITY_TOKEN` | nowhere: `oidc.modal.com` (K) |
//!
//! (K): known from use, not from a page that was read. The evidence is a variable that only this platform sets, in all of its
//! jobs. So a job without the token gets an error that names the missing setting.
//!
//! Every token is fixed when the job starts and cannot be renewed. No configuration is needed if its audience is the
//! authorization server's issuer; otherwise set `issuer` and `subject_audience` at the server. If an HCP Terraform workspace
//! has several tokens, select one:
//!
//! ```toml
//! [identity]
//! source = "hcp-terraform"
//! tag    = "MCP"             # TFC_WORKLOAD_IDENTITY_TOKEN_MCP
//! ```
//!
//! Sources: Atlassian, "Integrate Pipelines with resource servers using OIDC"; HashiCorp, "Manually generate workload
//! identity tokens"; env zero, "General OIDC integrations"; Modal, "Environment variables" and "OIDC authentication".

use std::sync::Arc;

use super::env_var::{Variable, variable_name};
use super::{Ambient, Built, Defect, Descriptor, Finding, Kind, Setting, Tier};
use crate::platform::{self, Pin, Platform};

pub(super) const BITBUCKET: Descriptor = Descriptor {
    name: "bitbucket",
    tier: Tier::CiJob,
    about: "a Bitbucket Pipelines step with `oidc: true`",
    evidence: "`BITBUCKET_BUILD_NUMBER` and `BITBUCKET_STEP_OIDC_TOKEN`",
    token: "fixed audience, fixed at job start",
    settings: &[],
    variables: STEP.tokens,
    trust: &TRUST_IN_BITBUCKET,
    detect: |ambient| STEP.detect(&BITBUCKET, ambient),
    from_config: |_, ambient| STEP.configured(&BITBUCKET, None, ambient),
    probe: None,
};

/// The claims that a trust policy pins.
const TRUST_IN_BITBUCKET: Platform = Platform {
    name: "bitbucket",
    note: "`sub` up to the step",
    pins: &[
        Pin::required(&["workspaceUuid"], "the workspace, by its number"),
        Pin::required(&["repositoryUuid"], "the repository, by its number"),
        Pin::optional(&["branchName"], "the branch"),
        Pin::optional(&["deploymentEnvironmentUuid"], "the deployment environment, by its number"),
    ],
    // {repository}[:{environment}]:{step}: the step changes.
    stable_subject: |sub| sub.rfind(':').map(|end| &sub[..=end]),
    warnings: &[],
    ..Platform::PLAIN
};

pub(super) const HCP_TERRAFORM: Descriptor = Descriptor {
    name: "hcp-terraform",
    tier: Tier::CiJob,
    about: "a run of HCP Terraform or Terraform Enterprise",
    evidence: "`TFC_RUN_ID` and `TFC_WORKLOAD_IDENTITY_TOKEN`, or that of the configured `tag`",
    token: "fixed audience, fixed at run start",
    settings: &[TAG],
    variables: &["TFC_WORKLOAD_IDENTITY_TOKEN", "TFC_WORKLOAD_IDENTITY_TOKEN_*"],
    trust: &TRUST_IN_HCP_TERRAFORM,
    detect: |ambient| RUN.detect(&HCP_TERRAFORM, ambient),
    from_config: |given, ambient| RUN.configured(&HCP_TERRAFORM, given.text(&TAG), ambient),
    probe: None,
};

/// The claims that a trust policy pins.
const TRUST_IN_HCP_TERRAFORM: Platform = Platform {
    name: "hcp-terraform",
    note: "the issuer is everybody's; a plan runs what nobody approved",
    issues: |issuer| platform::is_below(issuer, "https://app.terraform.io"),
    pins: &[
        Pin::required(
            &["terraform_organization_id"],
            "the issuer is shared by everybody: the organisation, by its number",
        ),
        Pin::required(&["terraform_workspace_id"], "the workspace, by its number"),
        Pin::required(&["terraform_run_phase"], "plan runs code that nobody has approved yet"),
    ],
    warnings: &[|claims| {
        (platform::text(claims, "terraform_run_phase") == "plan")
            .then(|| "this is the plan phase: whoever can propose a change is let in".to_owned())
    }],
    ..Platform::PLAIN
};

pub(super) const SPACELIFT: Descriptor = Descriptor {
    name: "spacelift",
    tier: Tier::CiJob,
    about: "a run of Spacelift",
    evidence: "`TF_VAR_spacelift_run_id` and `SPACELIFT_OIDC_TOKEN`",
    token: "the account's host name as audience, fixed at run start",
    settings: &[],
    variables: SPACELIFT_RUN.tokens,
    trust: &Platform::PLAIN,
    detect: |ambient| SPACELIFT_RUN.detect(&SPACELIFT, ambient),
    from_config: |_, ambient| SPACELIFT_RUN.configured(&SPACELIFT, None, ambient),
    probe: None,
};

pub(super) const SEMAPHORE: Descriptor = Descriptor {
    name: "semaphore",
    tier: Tier::CiJob,
    about: "a job of Semaphore",
    evidence: "`SEMAPHORE=true` and `SEMAPHORE_OIDC_TOKEN`",
    token: "the organisation's URL as audience, fixed at job start",
    settings: &[],
    variables: SEMAPHORE_JOB.tokens,
    trust: &Platform::PLAIN,
    detect: |ambient| SEMAPHORE_JOB.detect(&SEMAPHORE, ambient),
    from_config: |_, ambient| SEMAPHORE_JOB.configured(&SEMAPHORE, None, ambient),
    probe: None,
};

pub(super) const ENV0: Descriptor = Descriptor {
    name: "env0",
    tier: Tier::CiJob,
    about: "a deployment of env0",
    evidence: "`ENV0_ENVIRONMENT_ID` and `ENV0_OIDC_TOKEN`",
    token: "env0's fixed audience, fixed at start",
    settings: &[],
    variables: DEPLOYMENT.tokens,
    trust: &Platform::PLAIN,
    detect: |ambient| DEPLOYMENT.detect(&ENV0, ambient),
    from_config: |_, ambient| DEPLOYMENT.configured(&ENV0, None, ambient),
    probe: None,
};

pub(super) const MODAL: Descriptor = Descriptor {
    name: "modal",
    tier: Tier::Pod,
    about: "a Modal function",
    evidence: "`MODAL_IS_REMOTE=1` and `MODAL_IDENTITY_TOKEN`",
    token: "Modal's fixed audience, fixed at start",
    settings: &[],
    variables: FUNCTION.tokens,
    trust: &Platform::PLAIN,
    detect: |ambient| FUNCTION.detect(&MODAL, ambient),
    from_config: |_, ambient| FUNCTION.configured(&MODAL, None, ambient),
    probe: None,
};

/// Selects one of several tokens: the suffix of the variable's name after `_`.
const TAG: Setting = Setting::optional(
    "tag",
    Kind::Text,
    "Which token of the run: TFC_WORKLOAD_IDENTITY_TOKEN_<tag>. Omit: the one without.",
)
.checked(variable_name);

/// A CI system.
struct Job {
    /// The variable that shows a job of this system.
    evidence: &'static str,
    /// The required value of that variable. `None` accepts any value.
    value: Option<&'static str>,
    looked_for: &'static str,
    /// The variables that may hold the token, in order of preference.
    tokens: &'static [&'static str],
    cure: &'static str,
}

const STEP: Job = Job {
    evidence: "BITBUCKET_BUILD_NUMBER",
    value: None,
    looked_for: "BITBUCKET_BUILD_NUMBER",
    tokens: &["BITBUCKET_STEP_OIDC_TOKEN"],
    cure: "give the step `oidc: true`, with the authorization server's issuer as the only entry under `oidc: audiences:`",
};

const RUN: Job = Job {
    evidence: "TFC_RUN_ID",
    value: None,
    looked_for: "TFC_RUN_ID",
    tokens: &["TFC_WORKLOAD_IDENTITY_TOKEN"],
    cure: "set TFC_WORKLOAD_IDENTITY_AUDIENCE, an environment variable of the workspace, to the authorization server's issuer; \
        or, with TFC_WORKLOAD_IDENTITY_AUDIENCE_<TAG>, name it: `source = \"hcp-terraform\"` and `tag` in [identity]",
};

const SPACELIFT_RUN: Job = Job {
    evidence: "TF_VAR_spacelift_run_id",
    value: None,
    looked_for: "TF_VAR_spacelift_run_id",
    tokens: &["SPACELIFT_OIDC_TOKEN"],
    cure: "OIDC must be part of the account's plan; the token's audience is the account's host name: name it as \
        `subject_audience`, with `issuer`, at the server",
};

const SEMAPHORE_JOB: Job = Job {
    evidence: "SEMAPHORE",
    value: Some("true"),
    looked_for: "SEMAPHORE=true",
    tokens: &["SEMAPHORE_OIDC_TOKEN"],
    cure: "OIDC must be part of the organisation's plan; the token's audience is the organisation's URL: name it as \
        `subject_audience`, with `issuer`, at the server",
};

const DEPLOYMENT: Job = Job {
    evidence: "ENV0_ENVIRONMENT_ID",
    value: None,
    looked_for: "ENV0_ENVIRONMENT_ID",
    tokens: &["ENV0_OIDC_TOKEN"],
    cure: "switch on \"Enable OIDC during deployments\" in the organisation's policies; the token's audience is fixed by env0: \
        name it as `subject_audience`, with `issuer`, at the server",
};

const FUNCTION: Job = Job {
    evidence: "MODAL_IS_REMOTE",
    value: Some("1"),
    looked_for: "MODAL_IS_REMOTE=1",
    tokens: &["MODAL_IDENTITY_TOKEN"],
    cure: "functions have the token, sandboxes do not; its audience is fixed by Modal: name it as `subject_audience`, with \
        `issuer`, at the server",
};

impl Job {
    fn detect(&self, row: &'static Descriptor, ambient: &Ambient) -> Finding {
        match (ambient.env.get(self.evidence), self.value) {
            (None, _) => return Finding::Absent { looked_for: self.looked_for },
            (Some(found), Some(wanted)) if found != wanted => {
                return Finding::Absent { looked_for: self.looked_for };
            }
            _ => {}
        }
        match self.find(row, None, ambient) {
            Some((token, source)) => Finding::of(self.looked_for, &[&token], Ok(source)),
            None => Finding::of(self.looked_for, &[], Err(self.missing(None))),
        }
    }

    fn configured(&self, row: &'static Descriptor, tag: Option<&str>, ambient: &Ambient) -> Built {
        match self.find(row, tag, ambient) {
            Some((_, source)) => Ok(source),
            None => Err(self.missing(tag)),
        }
    }

    fn find(&self, row: &'static Descriptor, tag: Option<&str>, ambient: &Ambient) -> Option<(String, Arc<Variable>)> {
        let found = |name: String| Variable::find(row, &name, self.cure, ambient).map(|source| (name, source));
        self.names(tag).find_map(found)
    }

    fn missing(&self, tag: Option<&str>) -> Defect {
        let what = match self.names(tag).collect::<Vec<_>>().as_slice() {
            [one] => format!("{one} is not set"),
            several => format!("none of {} is set", several.join(", ")),
        };
        Defect::new(what, self.cure)
    }

    fn names(&self, tag: Option<&str>) -> impl Iterator<Item = String> {
        self.tokens.iter().map(move |name| tag.map_or_else(|| (*name).to_owned(), |tag| format!("{name}_{tag}")))
    }
}
