//! `fly`: a Machine of Fly.io.
//!
//! Detected by `FLY_APP_NAME` (K). The Machine's API on the Unix socket `/.fly/api` issues tokens for any audience, any number
//! of times. No configuration is needed. The issuer is the organisation's, `https://oidc.fly.io/ORG`. The subject is
//! `ORG:APP:MACHINE`, so a trust policy for all Machines of an app matches its beginning.
//!
//! With `AWS_ROLE_ARN` in the app's configuration the Machine also gets `AWS_WEB_IDENTITY_TOKEN_FILE` (K), which is
//! evidence of a second, AWS identity. If both are usable, select one in the configuration:
//!
//! ```toml
//! [identity]
//! source = "fly"
//! ```
//!
//! (K): known from use, not from a page that was read.
//!
//! Source: Fly.io, "OpenID Connect", "Machines API: Tokens".

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use serde_json::json;
use zeroize::Zeroizing;

use super::endpoint::Endpoint;
use super::{Ambient, Built, Defect, Descriptor, Error, Finding, IdentitySource, Tier};
use crate::oauth::Audience;
use crate::outbound::{Ask, Body, NamedBy};
use crate::platform::{self, Pin, Platform};
use crate::token::SubjectToken;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "fly",
    tier: Tier::Pod,
    about: "a Machine of Fly.io",
    evidence: "`FLY_APP_NAME` and the socket `/.fly/api`",
    token: "any audience, minted anew each time",
    settings: &[],
    // The path of the socket is the same in every Machine.
    variables: &[],
    trust: &TRUST,
    detect,
    from_config: |_, ambient| socket(ambient),
    probe: None,
};

/// The claims that a trust policy pins.
const TRUST: Platform = Platform {
    name: "fly",
    note: "`sub` up to the machine",
    issues: |issuer| platform::is_below(issuer, "https://oidc.fly.io"),
    pins: &[
        Pin::optional(&["org_id"], "the organisation, by its number"),
        Pin::optional(&["app_id"], "the app, by its number"),
        Pin::required(&["app_name"], "the app"),
    ],
    // org:app:machine: the machine's id changes.
    stable_subject: |sub| sub.rfind(':').map(|end| &sub[..=end]),
    warnings: &[],
    ..Platform::PLAIN
};

const IN_A_MACHINE: &str = "FLY_APP_NAME";
const SOCKET: &str = "/.fly/api";
const URL: &str = "http://localhost/v1/tokens/oidc";

const API: Endpoint = Endpoint {
    row: SOURCE.name,
    called: "the Machine's API",
    refusal: |_| "the Machine may not ask for tokens of its own: see Fly.io's page on OpenID Connect",
    in_its_place: "something else than Fly.io's init answers in its place: what serves /.fly/api?",
    not_yet: |_| None,
};

struct Fly {
    /// The resolved path of the socket.
    socket: PathBuf,
    ambient: Ambient,
}

fn detect(ambient: &Ambient) -> Finding {
    if ambient.env.get(IN_A_MACHINE).is_none() {
        return Finding::Absent { looked_for: IN_A_MACHINE };
    }
    Finding::of(IN_A_MACHINE, &[SOCKET], socket(ambient))
}

fn socket(ambient: &Ambient) -> Built {
    match ambient.env.socket(Path::new(SOCKET)) {
        Ok(socket) => Ok(Arc::new(Fly { socket, ambient: ambient.clone() })),
        Err(error) => {
            let cure = match error.kind() {
                io::ErrorKind::PermissionDenied => format!("let uid {} reach it", ambient.env.uid()),
                _ => "Fly.io's init makes it in every Machine: a container inside the Machine must be given it; elsewhere, \
                    take FLY_APP_NAME out of the environment"
                    .to_owned(),
            };
            Err(Defect::new(format!("{SOCKET} cannot be used: {error}"), cure))
        }
    }
}

#[async_trait]
impl IdentitySource for Fly {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        let wish = json!({ "aud": audience.as_str() }).to_string();
        let ask = || {
            let body = Body { content_type: "application/json", bytes: Zeroizing::new(wish.clone().into_bytes()) };
            Ask { socket: Some(self.socket.clone()), ..Ask::post(URL, NamedBy::Platform, body) }
        };
        let answer = API.ask(&self.ambient, ask).await?;
        // The body is the token itself.
        let text = std::str::from_utf8(&answer.body)
            .map_err(|_| API.malformed(format!("what {} gives is not UTF-8", API.called), API.in_its_place))?;
        API.token(SecretString::from(text.trim().to_owned()))
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(&SOURCE)
    }

    fn mints_anew(&self) -> bool {
        true
    }
}
