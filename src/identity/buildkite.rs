//! `buildkite`: the identity of a Buildkite job.
//!
//! Detected by `BUILDKITE`, which is `true` in every job. The agent gives each job a token for Buildkite's API
//! (`BUILDKITE_AGENT_ACCESS_TOKEN`) and its number (`BUILDKITE_JOB_ID`); with them it can request a token for any
//! audience, any number of times, while the job runs. No configuration is needed. A container has only the variables that are
//! passed to it: with the Docker plugin, set `propagate-environment: true` or `mount-buildkite-agent: true`.
//!
//! This source calls the API directly. `buildkite-agent oidc request-token` makes the same call with the same token, so it is
//! not needed.
//!
//! All customers share the issuer `https://agent.buildkite.com`. So the authorization server must also check the
//! organisation in the subject, `organization:ORG:pipeline:PIPELINE:ref:REF:commit:COMMIT:step:STEP`.
//!
//! Source: Buildkite, "OIDC in Buildkite Pipelines"; buildkite/agent, `api/oidc.go`.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::AUTHORIZATION;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use url::Url;
use zeroize::Zeroizing;

use super::endpoint::Endpoint;
use super::{Ambient, Built, Defect, Descriptor, Error, Finding, IdentitySource, Tier};
use crate::oauth::Audience;
use crate::outbound::{Ask, Body, NamedBy};
use crate::platform::{self, Pin, Platform};
use crate::token::SubjectToken;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "buildkite",
    tier: Tier::CiJob,
    about: "a Buildkite job",
    evidence: "`BUILDKITE=true`, `BUILDKITE_AGENT_ACCESS_TOKEN` and `BUILDKITE_JOB_ID`",
    token: "any audience, minted anew each time",
    settings: &[],
    variables: &[TOKEN, ENDPOINT],
    trust: &TRUST,
    detect,
    from_config: |_, ambient| from_env(ambient),
    probe: None,
};

/// The claims that a trust policy pins.
const TRUST: Platform = Platform {
    name: "buildkite",
    note: "`sub` up to the commit; the issuer is everybody's",
    issues: |issuer| platform::is_below(issuer, "https://agent.buildkite.com"),
    pins: &[
        Pin::required(&["organization_slug"], "the issuer is shared by everybody: the organisation"),
        Pin::required(&["pipeline_slug"], "the pipeline"),
        Pin::optional(&["organization_id"], "the organisation, by its number"),
        Pin::optional(&["pipeline_id"], "the pipeline, by its number"),
        Pin::required(&["build_branch"], "the branch"),
    ],
    // organization:O:pipeline:P:ref:R:commit:C:step:S: the commit changes.
    stable_subject: |sub| platform::up_to(sub, ":commit:").filter(|stable| stable.starts_with("organization:")),
    warnings: &[|_| {
        Some("builds of pull requests from forks must be off, or a fork's branch of the same name is let in".to_owned())
    }],
    ..Platform::PLAIN
};

/// `true` in every job.
const IN_A_JOB: &str = "BUILDKITE";
const TOKEN: &str = "BUILDKITE_AGENT_ACCESS_TOKEN";
const JOB: &str = "BUILDKITE_JOB_ID";
/// The URL of the API. Agents with the default URL do not set it.
const ENDPOINT: &str = "BUILDKITE_AGENT_ENDPOINT";
const USUAL_ENDPOINT: &str = "https://agent.buildkite.com/v3";

const INSIDE: &str = "the agent sets it in every job: a container must be given it (Docker plugin: \
    `propagate-environment: true` or `mount-buildkite-agent: true`), and so must a process that the job did not start";

const API: Endpoint = Endpoint {
    row: SOURCE.name,
    called: "the Buildkite API",
    refusal: |status| match status {
        401 | 403 => "the job's token is good only while the job runs; else see the organisation's OIDC settings",
        404 => "the job is not known: does BUILDKITE_AGENT_ENDPOINT belong to the agent that runs it?",
        _ => "it does not take the audience: see Buildkite's page on OIDC for what one may be",
    },
    in_its_place: "something between the job and Buildkite answers in its place: a proxy, a captive page",
    not_yet: |_| None,
};

struct Buildkite {
    url: Url,
    token: SecretString,
    ambient: Ambient,
}

fn detect(ambient: &Ambient) -> Finding {
    if ambient.env.get(IN_A_JOB) != Some("true") {
        return Finding::Absent { looked_for: "BUILDKITE=true" };
    }
    Finding::of("BUILDKITE=true", &[TOKEN, JOB], from_env(ambient))
}

fn from_env(ambient: &Ambient) -> Built {
    const NOT_YOURS: &str = "the agent sets it: do not set it yourself";
    let unset = |name: &str| Defect::new(format!("{name} is not set"), INSIDE);
    let token = ambient.env.secret(TOKEN).ok_or_else(|| unset(TOKEN))?;
    let job = ambient.env.get(JOB).ok_or_else(|| unset(JOB))?;
    // The id becomes part of the URL's path, so it must be one word.
    if !job.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(Defect::new(format!("{JOB} is no job's number"), NOT_YOURS));
    }
    let endpoint = ambient.env.get(ENDPOINT).unwrap_or(USUAL_ENDPOINT).trim_end_matches('/');
    let url = Url::parse(&format!("{endpoint}/jobs/{job}/oidc/tokens"))
        .map_err(|_| Defect::new(format!("{ENDPOINT} is not a URL"), NOT_YOURS))?;
    Ok(Arc::new(Buildkite { url, token, ambient: ambient.clone() }))
}

#[async_trait]
impl IdentitySource for Buildkite {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        #[derive(Deserialize)]
        struct Wire {
            token: SecretString,
        }
        let authorization = API.authorization("Token", &self.token, TOKEN)?;
        let wish = json!({ "audience": audience.as_str() }).to_string();
        let ask = || {
            let body = Body { content_type: "application/json", bytes: Zeroizing::new(wish.clone().into_bytes()) };
            let mut ask = Ask::post(self.url.as_str(), NamedBy::Us, body);
            ask.headers.push((AUTHORIZATION, authorization.clone()));
            ask
        };
        let answer = API.ask(&self.ambient, ask).await?;
        let wire: Wire = API.json(&answer)?;
        API.token(wire.token)
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(&SOURCE)
    }

    fn mints_anew(&self) -> bool {
        true
    }
}
