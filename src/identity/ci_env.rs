//! The CI systems whose identity is "a variable that holds a JWT": one row of a table each.
//!
//! | source | evidence | token | where its audience is set |
//! |---|---|---|---|
//! | `bitbucket` | `BITBUCKET_BUILD_NUMBER` | `BITBUCKET_STEP_OIDC_TOKEN` | `oidc: audiences:` of the step |
//! | `circleci` | `CIRCLECI=true` | `CIRCLE_OIDC_TOKEN_V2`, else `CIRCLE_OIDC_TOKEN` | nowhere: the organisation's id |
//! | `hcp-terraform` | `TFC_RUN_ID` | `TFC_WORKLOAD_IDENTITY_TOKEN` | `TFC_WORKLOAD_IDENTITY_AUDIENCE` of the workspace |
//!
//! All are fixed when the job starts and cannot be had anew. Nothing has to be configured, except for an audience
//! that is not the authorization server's issuer: then `issuer` and `subject_audience` at the server say which it is.
//!
//! Sources: Atlassian, "Integrate Pipelines with resource servers using OIDC"; CircleCI, "Using OpenID Connect tokens
//! in jobs"; HashiCorp, "Workload identity tokens".

use std::sync::Arc;

use super::env_var::Variable;
use super::{Ambient, Descriptor, Error, Finding, IdentitySource, Tier};

pub(super) const BITBUCKET: Descriptor = Descriptor {
    name: "bitbucket",
    tier: Tier::CiJob,
    about: "a Bitbucket Pipelines step with `oidc: true`",
    settings: &[],
    detect: |ambient| STEP.detect(ambient),
    from_config: |table, ambient| STEP.configured(table, ambient),
};

pub(super) const CIRCLECI: Descriptor = Descriptor {
    name: "circleci",
    tier: Tier::CiJob,
    about: "a CircleCI job",
    settings: &[],
    detect: |ambient| CIRCLE.detect(ambient),
    from_config: |table, ambient| CIRCLE.configured(table, ambient),
};

pub(super) const HCP_TERRAFORM: Descriptor = Descriptor {
    name: "hcp-terraform",
    tier: Tier::CiJob,
    about: "a run of HCP Terraform or Terraform Enterprise",
    settings: &[],
    detect: |ambient| RUN.detect(ambient),
    from_config: |table, ambient| RUN.configured(table, ambient),
};

/// One CI system.
struct Job {
    name: &'static str,
    /// The variable that only its jobs have.
    evidence: &'static str,
    /// What that variable must hold; `None` is anything.
    value: Option<&'static str>,
    looked_for: &'static str,
    /// Where the token may be, the best first.
    tokens: &'static [&'static str],
    cure: &'static str,
}

const STEP: Job = Job {
    name: BITBUCKET.name,
    evidence: "BITBUCKET_BUILD_NUMBER",
    value: None,
    looked_for: "BITBUCKET_BUILD_NUMBER",
    tokens: &["BITBUCKET_STEP_OIDC_TOKEN"],
    cure: "give the step `oidc: true`, with the authorization server's issuer as the only entry under `oidc: audiences:`",
};

const CIRCLE: Job = Job {
    name: CIRCLECI.name,
    evidence: "CIRCLECI",
    value: Some("true"),
    looked_for: "CIRCLECI=true",
    // The newer one has the source repository and ref in its subject, which a trust policy should pin.
    tokens: &["CIRCLE_OIDC_TOKEN_V2", "CIRCLE_OIDC_TOKEN"],
    cure: "the job needs a context, and a build of a fork must be allowed secrets; its audience is the organisation's id: \
        name it as `subject_audience`, with `issuer`, at the server",
};

const RUN: Job = Job {
    name: HCP_TERRAFORM.name,
    evidence: "TFC_RUN_ID",
    value: None,
    looked_for: "TFC_RUN_ID",
    tokens: &["TFC_WORKLOAD_IDENTITY_TOKEN"],
    cure: "set TFC_WORKLOAD_IDENTITY_AUDIENCE, an environment variable of the workspace, to the authorization server's issuer",
};

impl Job {
    fn detect(&self, ambient: &Ambient) -> Finding {
        match (ambient.env.get(self.evidence), self.value) {
            (None, _) => return Finding::Absent { looked_for: self.looked_for },
            (Some(found), Some(wanted)) if found != wanted => {
                return Finding::Absent { looked_for: self.looked_for };
            }
            _ => {}
        }
        match self.find(ambient) {
            Some((token, source)) => Finding::Usable { evidence: format!("{}, {token}", self.looked_for), source },
            None => Finding::Unusable {
                evidence: self.looked_for.to_owned(),
                why: self.missing(),
                cure: self.cure.to_owned(),
            },
        }
    }

    fn configured(&self, table: &toml::Table, ambient: &Ambient) -> Result<Arc<dyn IdentitySource>, Error> {
        if let Some(key) = table.keys().next() {
            return Err(Error::Misconfigured {
                what: format!("{} has no key {key:?}", self.name),
                hint: format!("take {key:?} out of [identity]"),
            });
        }
        match self.find(ambient) {
            Some((_, source)) => Ok(source),
            None => Err(Error::Misconfigured {
                what: format!("{}: {}", self.name, self.missing()),
                hint: self.cure.to_owned(),
            }),
        }
    }

    fn find(&self, ambient: &Ambient) -> Option<(&'static str, Arc<Variable>)> {
        let found = |name: &&'static str| Some((*name, Variable::find(self.name, name, self.cure, ambient)?));
        self.tokens.iter().find_map(found)
    }

    fn missing(&self) -> String {
        match self.tokens {
            [one] => format!("{one} is not set"),
            several => format!("none of {} is set", several.join(", ")),
        }
    }
}
