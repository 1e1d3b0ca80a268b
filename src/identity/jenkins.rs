//! `jenkins`: a build of Jenkins, by its OpenID Connect Provider plug-in (K).
//!
//! A credential of the kind "OpenID Connect id token" gives a build a token that Jenkins signs. The credential defines the
//! audience: it must be exactly the authorization server's issuer, or the value of `subject_audience`. The step
//! `withCredentials` puts the token into a variable, or into a file that a variable names:
//!
//! ```groovy
//! withCredentials([string(credentialsId: 'mcp', variable: 'SAFECONDUCT_ID_TOKEN')]) { sh 'safeconduct run …' }
//! withCredentials([file(credentialsId: 'mcp', variable: 'SAFECONDUCT_ID_TOKEN_FILE')]) { sh 'safeconduct run …' }
//! ```
//!
//! It is detected by one of these names together with `JENKINS_URL` and `BUILD_TAG`. If both names are set, the file is used.
//! `JENKINS_URL` and `BUILD_TAG` alone are no evidence, because builds without a token have them too. Configure any other name:
//!
//! ```toml
//! [identity]
//! source    = "jenkins"
//! token_env = "MCP_ID_TOKEN"      # or token_file
//! ```
//!
//! The token cannot be renewed. It is issued when the step begins and expires an hour later by default. The issuer is the
//! instance's, `JENKINS_URL` followed by `oidc` (for a folder's credential, the folder's URL followed by `oidc`); the
//! authorization server must be able to reach it. The subject is the URL of the job, unless the claim template was changed.
//!
//! (K): known from use, not from a page that was read.

use std::path::PathBuf;
use std::sync::Arc;

use super::env_var::{Variable, variable_name};
use super::file::File;
use super::{Ambient, Built, Defect, Descriptor, Finding, Given, Kind, Setting, Tier};
use crate::platform::{self, Platform};

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "jenkins",
    tier: Tier::CiJob,
    about: "a build of Jenkins, by its OpenID Connect Provider plug-in",
    evidence: "`JENKINS_URL` and `BUILD_TAG` with `SAFECONDUCT_ID_TOKEN` or `SAFECONDUCT_ID_TOKEN_FILE`, or the configured \
        `token_env` or `token_file`",
    token: "fixed audience, fixed when the step began",
    settings: &[TOKEN_ENV, TOKEN_FILE],
    variables: &[USUAL, USUAL_FILE],
    trust: &TRUST,
    detect,
    from_config,
    probe: None,
};

const TRUST: Platform = Platform {
    name: "jenkins",
    note: "`sub` is the job's URL; the job of a pull request is refused",
    // A changed claim template may name something else than the job.
    stable_subject: |sub| (sub.starts_with("http") && sub.contains("/job/")).then_some(sub),
    stranger: |claims| {
        // Multibranch projects give the jobs of pull and merge requests these names.
        let job = platform::text(claims, "sub").trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let number = job.strip_prefix("PR-").or_else(|| job.strip_prefix("MR-")).unwrap_or_default();
        let is_request = number.starts_with(|first: char| first.is_ascii_digit());
        is_request.then(|| "the job of a pull request, which anybody can open, runs with it".to_owned())
    },
    instead: "bind the credential in the job of a branch that only maintainers can push to",
    warnings: &[|_| Some("whoever can change this job or its Jenkinsfile is let in".to_owned())],
    ..Platform::PLAIN
};

const TOKEN_ENV: Setting =
    Setting::at_most_one("token_env", Kind::Text, "Name of the variable that the binding step sets.")
        .checked(variable_name);
const TOKEN_FILE: Setting =
    Setting::at_most_one("token_file", Kind::Text, "Path of the file that the binding step writes.");

/// The variables of every build.
const MARKS: [&str; 2] = ["JENKINS_URL", "BUILD_TAG"];
/// The name that needs no configuration; with `_FILE` it names a file.
const USUAL: &str = "SAFECONDUCT_ID_TOKEN";
const USUAL_FILE: &str = "SAFECONDUCT_ID_TOKEN_FILE";

const CURE: &str = "bind an id-token credential whose audience is the authorization server's issuer: \
    `withCredentials([string(credentialsId: …, variable: 'SAFECONDUCT_ID_TOKEN')])`, or name another variable with \
    `source = \"jenkins\"` and `token_env` in [identity]";

fn detect(ambient: &Ambient) -> Finding {
    let is_a_build = MARKS.iter().all(|name| ambient.env.get(name).is_some());
    match usual(ambient).filter(|_| is_a_build) {
        Some((name, source)) => Finding::of(MARKS[0], &[MARKS[1], name], Ok(source)),
        None => Finding::Absent {
            looked_for: "JENKINS_URL and BUILD_TAG with SAFECONDUCT_ID_TOKEN or SAFECONDUCT_ID_TOKEN_FILE",
        },
    }
}

fn from_config(given: &Given<'_>, ambient: &Ambient) -> Built {
    if let Some(path) = given.path(&TOKEN_FILE) {
        return Ok(Arc::new(File::new(&SOURCE, path, ambient)));
    }
    let found = match given.text(&TOKEN_ENV) {
        Some(name) => (Variable::find(&SOURCE, name, CURE, ambient).map(|source| source as _), name),
        None => (usual(ambient).map(|(_, source)| source), USUAL),
    };
    match found {
        (Some(source), _) => Ok(source),
        (None, name) => Err(Defect::new(format!("{name} is not set"), CURE)),
    }
}

/// The token under one of the usual names.
fn usual(ambient: &Ambient) -> Option<(&'static str, Arc<dyn super::IdentitySource>)> {
    if let Some(path) = ambient.env.get(USUAL_FILE) {
        return Some((USUAL_FILE, Arc::new(File::new(&SOURCE, PathBuf::from(path), ambient))));
    }
    Some((USUAL, Variable::find(&SOURCE, USUAL, CURE, ambient)?))
}
