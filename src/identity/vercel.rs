//! `vercel`: a deployment of Vercel.
//!
//! Detected by `VERCEL`, which is `1` in builds and at run time. In a build the deployment's token is in
//! `VERCEL_OIDC_TOKEN`. Until it expires (an hour), `https://oidc.vercel.com/~token` exchanges it for tokens with the
//! authorization server's audience, any number of times. No configuration is needed. The project's settings select the
//! issuer: `https://oidc.vercel.com/TEAM` or `https://oidc.vercel.com`. The subject is
//! `owner:TEAM:project:PROJECT:environment:ENVIRONMENT`.
//!
//! In functions the token comes in each request (`x-vercel-oidc-token`), which other processes cannot see. Pass it to a helper
//! in a variable and use `source = "env"`. Use `source = "env"` too for the unchanged token with Vercel's own audience.
//!
//! The token that `vercel env pull` writes on a laptop is a developer's (`VERCEL_ENV` is `development`) and is not used.
//!
//! Source: Vercel, "OpenID Connect federation reference"; `@vercel/oidc`, `exchange-vercel-oidc-token.ts`.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::endpoint::Endpoint;
use super::{Ambient, Built, Defect, Descriptor, Error, Finding, IdentitySource, Tier};
use crate::oauth::Audience;
use crate::outbound::{Ask, Body, NamedBy};
use crate::platform::{self, Named, Pin, Platform};
use crate::token::{SubjectToken, expose};

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "vercel",
    tier: Tier::Pod,
    about: "a build of Vercel",
    evidence: "`VERCEL=1` and `VERCEL_OIDC_TOKEN`, of no developer (`VERCEL_ENV=development`)",
    token: "any audience, minted anew each time while the build's token lasts",
    settings: &[],
    variables: &[TOKEN],
    trust: &TRUST,
    detect,
    from_config: |_, ambient| from_env(ambient),
    probe: None,
};

/// The claims that a trust policy pins.
const TRUST: Platform = Platform {
    name: "vercel",
    note: "previews are refused",
    issues: |issuer| platform::is_below(issuer, "https://oidc.vercel.com"),
    pins: &[
        Pin::required(&["owner_id"], "the team, by its number"),
        Pin::required(&["project_id"], "the project, by its number"),
        Pin::required(&["environment"], "previews run code that was only pushed"),
    ],
    stranger: |claims| {
        let environment = platform::text(claims, "environment");
        (environment == "preview")
            .then(|| "a preview deployment, which a pull request may start, runs with it".to_owned())
    },
    instead: "use the identity of the production environment",
    named: &[Named {
        is_in: |sub| platform::segment(sub, "environment").is_some(),
        why: "`sub` does not name the environment, so preview deployments, which a pull request may start, have it too",
        cure: "ask Vercel why: its subjects are owner:TEAM:project:PROJECT:environment:ENVIRONMENT",
    }],
    warnings: &[],
    ..Platform::PLAIN
};

/// `1` in builds and at run time.
const IN_A_DEPLOYMENT: &str = "VERCEL";
const ENVIRONMENT: &str = "VERCEL_ENV";
const TOKEN: &str = "VERCEL_OIDC_TOKEN";
/// The only URL that receives the deployment's token.
const ENDPOINT: &str = "https://oidc.vercel.com/~token";

const API: Endpoint = Endpoint {
    row: SOURCE.name,
    called: "Vercel's token endpoint",
    refusal: |_| "the deployment's token ends after an hour, and OIDC must be on in the project's settings: deploy anew",
    in_its_place: "something between the deployment and Vercel answers in its place: a proxy, a captive page",
    not_yet: |_| None,
};

struct Vercel {
    token: SecretString,
    ambient: Ambient,
}

fn detect(ambient: &Ambient) -> Finding {
    const LOOKED_FOR: &str = "VERCEL=1";
    if ambient.env.get(IN_A_DEPLOYMENT) != Some("1") {
        return Finding::Absent { looked_for: LOOKED_FOR };
    }
    Finding::of(LOOKED_FOR, &[TOKEN], from_env(ambient))
}

fn from_env(ambient: &Ambient) -> Built {
    if ambient.env.get(ENVIRONMENT) == Some("development") {
        return Err(Defect::new(
            format!("{ENVIRONMENT} is \"development\", so {TOKEN} is a developer's"),
            "run it in a deployment; on a laptop give a JWT with `--identity-file FILE`",
        ));
    }
    let token = ambient.env.secret(TOKEN).ok_or_else(|| {
        Defect::new(
            format!("{TOKEN} is not set"),
            "switch OIDC on in the project's settings; functions get the token with each request \
                (`x-vercel-oidc-token`) and must pass it on: `source = \"env\"`",
        )
    })?;
    Ok(Arc::new(Vercel { token, ambient: ambient.clone() }))
}

#[async_trait]
impl IdentitySource for Vercel {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        #[derive(Serialize)]
        struct Wish<'a> {
            token: &'a str,
            aud: &'a str,
        }
        #[derive(Deserialize)]
        struct Wire {
            token: SecretString,
        }
        let wish = Wish { token: expose(&self.token).trim(), aud: audience.as_str() };
        let wish = serde_json::to_vec(&wish).map(Zeroizing::new);
        let wish = wish.map_err(|_| API.malformed(format!("{TOKEN} cannot be sent"), "Vercel sets it"))?;
        let ask = || {
            let body = Body { content_type: "application/json", bytes: wish.clone() };
            Ask::post(ENDPOINT, NamedBy::Us, body)
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
