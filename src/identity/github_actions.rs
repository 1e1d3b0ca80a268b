//! `github-actions`: the identity of a GitHub Actions job. Also GitHub Enterprise Server, Forgejo and Gitea.
//!
//! Detected by `GITHUB_ACTIONS`, which is `true` in every job. The job needs this permission:
//!
//! ```yaml
//! permissions:
//!   id-token: write
//! ```
//!
//! Then the runner sets `ACTIONS_ID_TOKEN_REQUEST_URL` and `ACTIONS_ID_TOKEN_REQUEST_TOKEN`, and the job can request a token for
//! any audience, any number of times. No configuration is needed. A pull request from a fork never gets the permission, nor
//! does a reusable workflow whose caller did not grant it.
//!
//! Forgejo's runner sets the same variables, in a workflow with `enable-openid-connect: true`; Gitea's does in versions that
//! issue identity tokens. The URL may have any host: an Enterprise Server, a subdomain of `ghe.com`, or a forge in a
//! private network, with its CA as `ca_file` in `[egress]`.
//!
//! The subject is not changed: `repo:OWNER/REPO:…`, or `repo:OWNER@ID/REPO@ID:…` for repositories with immutable
//! subjects. `safeconduct whoami` shows which one a trust policy must name.
//!
//! Source: GitHub documentation, "OpenID Connect reference"; `@actions/core`, `oidc-utils.ts`; Forgejo documentation,
//! "Security OpenID Connect".

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::AUTHORIZATION;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::endpoint::Endpoint;
use super::{Ambient, Built, Defect, Descriptor, Error, Finding, IdentitySource, Tier};
use crate::oauth::Audience;
use crate::outbound::{Answer, Ask, NamedBy};
use crate::platform::{self, Named, Pin, Platform};
use crate::token::SubjectToken;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "github-actions",
    tier: Tier::CiJob,
    about: "a GitHub Actions job (also GitHub Enterprise Server, Forgejo, Gitea)",
    evidence: "`GITHUB_ACTIONS=true` and the two request variables",
    token: "any audience, minted anew each time",
    settings: &[],
    variables: &[REQUEST_URL, REQUEST_TOKEN, RUNTIME_TOKEN],
    trust: &TRUST,
    detect,
    from_config: |_, ambient| from_env(ambient),
    probe: None,
};

/// The claims that a trust policy pins.
const TRUST: Platform = Platform {
    name: "github-actions",
    note: "names are taken over after a rename (immutable subjects are not); pull requests are refused, and a `sub` that names \
        neither ref nor environment",
    issues: |issuer| platform::is_below(issuer, "https://token.actions.githubusercontent.com"),
    pins: &[
        Pin::required(&["repository_owner_id"], "the issuer is shared by everybody: the organisation, by its number"),
        Pin::required(&["repository_id"], "the repository, by its number: names can be taken over after a rename"),
    ],
    stranger: |claims| {
        let event = platform::text(claims, "event_name");
        let from_pull = event.starts_with("pull_request") || platform::text(claims, "sub").ends_with(":pull_request");
        from_pull.then(|| "a pull request, which anybody can open, runs with it".to_owned())
    },
    instead: "run it on a branch or tag that only maintainers can push to, better in an `environment` with reviewers",
    named: &[
        Named {
            is_in: |sub| REPOSITORY.iter().any(|name| platform::segment(sub, name).is_some()),
            why: "`sub` names neither repository nor owner, so repositories of strangers have it too",
            cure: RESET,
        },
        Named {
            is_in: |sub| {
                let names_a_ref = platform::segment(sub, "ref").is_some_and(|name| name.starts_with("refs/"));
                names_a_ref || platform::segment(sub, "environment").is_some()
            },
            why: "`sub` names neither the ref nor the environment, so every event of the repository has it, pull requests included",
            cure: RESET,
        },
    ],
    warnings: &[
        |claims| {
            let open = platform::at(claims, &["environment"]).is_none() && !platform::text(claims, "ref").is_empty();
            open.then(|| {
                "whoever can push to this ref is let in; an `environment` with reviewers is narrower".to_owned()
            })
        },
        |claims| {
            (!platform::text(claims, "sub").contains('@')).then(|| {
                "`sub` is made of names; immutable subjects (`repo:OWNER@ID/REPO@ID:…`) survive a rename and cannot \
                     be taken over"
                    .to_owned()
            })
        },
    ],
    ..Platform::PLAIN
};

/// What names the repository or its owner in a custom template of `sub`. The workflow that is called (`job_workflow_ref`) does
/// not: strangers can call it.
const REPOSITORY: [&str; 5] = ["repo", "repository", "repository_id", "repository_owner", "repository_owner_id"];
const RESET: &str = "let `sub` name it again: `gh api -X PUT repos/OWNER/REPO/actions/oidc/customization/sub -F use_default=true`, or \
    add `repo` and `context` to the `include_claim_keys` of the repository or the organisation";

/// `true` in every job.
const IN_A_JOB: &str = "GITHUB_ACTIONS";
const REQUEST_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const REQUEST_TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

/// The job's token for its other services. GitHub's runner gives it the value of the request token, so it opens the identity
/// endpoint too. Never read, but listed.
const RUNTIME_TOKEN: &str = "ACTIONS_RUNTIME_TOKEN";

/// `act` runs workflows on a laptop with the variables of a job and this one.
const ACT: &str = "ACT";
const ON_A_LAPTOP: &str = "this is `act`, which has no identity tokens to give: run the workflow on GitHub, or name another identity with \
    `source` in [identity]";

const PERMISSION: &str = "give the job (or the workflow) `permissions: id-token: write`; a pull request from a fork cannot have it, \
    and a reusable workflow has it only if its caller grants it; on Forgejo it is `enable-openid-connect: true`";
const REFUSED: &str = "the request token is good only while its job runs; else the job needs `permissions: id-token: write`, on \
    Forgejo `enable-openid-connect: true`";

const API: Endpoint = Endpoint {
    row: SOURCE.name,
    called: "the identity endpoint",
    refusal: |_| REFUSED,
    in_its_place: "something between the job and the identity endpoint answers in its place: a proxy, a captive page",
    not_yet: |answer| is_pending(answer).then_some("the platform still holds the job for pending"),
};

struct GithubActions {
    url: Url,
    token: SecretString,
    ambient: Ambient,
}

fn detect(ambient: &Ambient) -> Finding {
    if ambient.env.get(IN_A_JOB) != Some("true") {
        return Finding::Absent { looked_for: "GITHUB_ACTIONS=true" };
    }
    Finding::of("GITHUB_ACTIONS=true", &[REQUEST_URL, REQUEST_TOKEN], from_env(ambient))
}

fn from_env(ambient: &Ambient) -> Built {
    let cure = if ambient.env.get(ACT).is_some() { ON_A_LAPTOP } else { PERMISSION };
    let unset = |what: String| Defect::new(what, cure);
    let (url, token) = match (ambient.env.get(REQUEST_URL), ambient.env.secret(REQUEST_TOKEN)) {
        (Some(url), Some(token)) => (url, token),
        (None, None) => return Err(unset(format!("{REQUEST_URL} and {REQUEST_TOKEN} are not set"))),
        (None, Some(_)) => return Err(unset(format!("{REQUEST_URL} is not set"))),
        (Some(_), None) => return Err(unset(format!("{REQUEST_TOKEN} is not set"))),
    };
    let url = Url::parse(url).map_err(|_| {
        Defect::new(format!("{REQUEST_URL} is not a URL"), "it is set by the runner: do not set it yourself")
    })?;
    Ok(Arc::new(GithubActions { url, token, ambient: ambient.clone() }))
}

#[async_trait]
impl IdentitySource for GithubActions {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        #[derive(Deserialize)]
        struct Wire {
            value: SecretString,
        }
        // The URL already has a query (`api-version=2.0`), so add the parameter with a parser.
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("audience", audience.as_str());
        let bearer = API.authorization("Bearer", &self.token, REQUEST_TOKEN)?;
        let ask = || {
            let mut ask = Ask::get(url.as_str(), NamedBy::Us);
            ask.headers.push((AUTHORIZATION, bearer.clone()));
            ask
        };
        let answer = API.ask(&self.ambient, ask).await?;
        let wire: Wire = API.json(&answer)?;
        API.token(wire.value)
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(&SOURCE)
    }

    fn mints_anew(&self) -> bool {
        true
    }
}

/// "Can't issue ID_TOKEN for job in 'Pending' state": a race at the start of a job that ends within
/// seconds.
fn is_pending(answer: &Answer) -> bool {
    answer.status == 403 && String::from_utf8_lossy(&answer.body).to_ascii_lowercase().contains("state")
}
