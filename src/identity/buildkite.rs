//! `buildkite`: the identity of a Buildkite job.
//!
//! Detected by `BUILDKITE`, which is `true` in every job. The agent gives each job a token for Buildkite's API
//! (`BUILDKITE_AGENT_ACCESS_TOKEN`) and its number (`BUILDKITE_JOB_ID`); with them any audience can be asked for, as
//! often as wanted, while the job runs. Nothing has to be configured, but a container sees only the variables that it is
//! given: with the Docker plugin, `propagate-environment: true` or `mount-buildkite-agent: true`.
//!
//! The API is asked itself. `buildkite-agent oidc request-token` asks the same with the same token, so it could not help
//! where that token is missing, and it is not run.
//!
//! The issuer, `https://agent.buildkite.com`, is one for all customers: the authorization server must also check the
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
use crate::token::SubjectToken;
use crate::trust::{self, Pin, Platform};

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

/// What a trust policy pins of its tokens.
const TRUST: Platform = Platform {
    name: "buildkite",
    note: "`sub` up to the commit; the issuer is everybody's",
    issues: |issuer| trust::is_below(issuer, "https://agent.buildkite.com"),
    pins: &[
        Pin::needed(&["organization_slug"], "the issuer is shared by everybody: the organisation"),
        Pin::needed(&["pipeline_slug"], "the pipeline"),
        Pin::if_there(&["organization_id"], "the organisation, by its number"),
        Pin::if_there(&["pipeline_id"], "the pipeline, by its number"),
        Pin::needed(&["build_branch"], "the branch"),
    ],
    // organization:O:pipeline:P:ref:R:commit:C:step:S: the commit changes.
    steady: |sub| trust::up_to(sub, ":commit:").filter(|steady| steady.starts_with("organization:")),
    warnings: &[|_| {
        Some("builds of pull requests from forks must be off, or a fork's branch of the same name is let in".to_owned())
    }],
    ..Platform::PLAIN
};

/// Exactly `true` in a job.
const IN_A_JOB: &str = "BUILDKITE";
const TOKEN: &str = "BUILDKITE_AGENT_ACCESS_TOKEN";
const JOB: &str = "BUILDKITE_JOB_ID";
/// Where the agent finds the API; absent with agents that were not told another place.
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
    // It becomes a part of the path, where more than a word could lead elsewhere.
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
