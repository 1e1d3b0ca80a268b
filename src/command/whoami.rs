//! `wayleave whoami`: which workload identity is here, by what evidence, and what was not found or not used.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Context, Failure, for_runner, json_for_runner, print};
use crate::broker::Class;
use crate::cli::{Level, Whoami};
use crate::clock::rfc3339;
use crate::identity::{self, Ambient, Chosen, Finding, Found};
use crate::oauth::{Audience, quoted_words};
use crate::outbound::Outbound;
use crate::token::{Claims, Digest};

/// Longer than the patience of any source.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(context: &Context<'_>, verb: &Whoami) -> Result<(), Failure> {
    context.log(Level::Error)?;
    let config = context.config()?;
    let choice = config.identity().clone();
    let ambient = Ambient { env: context.env.clone(), outbound: Outbound::new(config.egress), clock: context.clock() };
    let found = identity::survey(&ambient);
    let chosen = identity::choose(&choice, &ambient);
    let (claims, certificate) = match &chosen {
        Ok(chosen) => {
            let audience = Audience::from(verb.audience.as_str());
            context.block_on(async { Ok(tokio::join!(claims(chosen, &audience), certificate(chosen))) })?
        }
        Err(error) => (Err(error.clone()), None),
    };
    let mut report = report(chosen.as_ref().ok(), &found, claims.as_ref().ok(), &ambient);
    if let Some(thumbprint) = certificate {
        report["identity"]["certificate"] = json!({ "sha256": thumbprint.hex() });
    }
    match claims {
        Ok(_) if verb.json => print(&json_for_runner(&format!("{report:#}\n"), context.env)),
        Ok(_) => print(&for_runner(&text(&report), context.env)),
        Err(error) => {
            let class =
                if matches!(error, identity::Error::Unreachable { .. }) { Class::Temporary } else { Class::NoIdentity };
            let mut failure =
                Failure::new(class, format!("identity: {error}")).hint_maybe(error.hint().map(str::to_owned));
            if verb.json {
                report["error"] =
                    json!({ "class": class.as_str(), "error_description": error.to_string(), "hint": error.hint() });
                failure.json = Some(report.to_string());
            }
            Err(failure)
        }
    }
}

async fn claims(chosen: &Chosen, audience: &Audience) -> Result<Claims, identity::Error> {
    let asked = chosen.source.subject_token(audience);
    match tokio::time::timeout(LIMIT, asked).await {
        Ok(outcome) => outcome.map(|token| token.claims),
        Err(_) => Err(identity::Error::Unreachable {
            source_name: chosen.source.name(),
            what: format!("no answer within {} s", LIMIT.as_secs()),
            hint: None,
        }),
    }
}

/// The thumbprint of the certificate that the platform issues beside the JWT. That it issues none stops nothing.
async fn certificate(chosen: &Chosen) -> Option<Digest> {
    match tokio::time::timeout(LIMIT, chosen.source.certificate()).await {
        Ok(Ok(certificate)) => certificate.map(|certificate| certificate.thumbprint),
        Ok(Err(error)) => {
            tracing::warn!(%error, "no certificate for mutual TLS");
            None
        }
        Err(_) => None,
    }
}

fn report(chosen: Option<&Chosen>, found: &[Found], claims: Option<&Claims>, ambient: &Ambient) -> Value {
    let name = chosen.map(|chosen| chosen.source.name());
    let identity = chosen.map(|chosen| {
        let now = ambient.clock.unix();
        let date = |seconds: Option<i64>| seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(|seconds| rfc3339(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)));
        let claims = claims.map(|claims| {
            json!({
                "iss": claims.iss, "sub": claims.sub, "aud": claims.aud, "exp": date(claims.exp), "iat": date(claims.iat),
                "expires_in": claims.exp.map(|exp| exp.saturating_sub(now)), "jti": claims.jti.is_some(),
            })
        });
        json!({ "source": chosen.source.name(), "evidence": chosen.evidence, "mints_anew": chosen.source.mints_anew(), "claims": claims })
    });
    let sources = found.iter().map(|one| {
        let (state, detail) = match &one.finding {
            _ if name == Some(one.row.name) => ("used", json!({})),
            Finding::Absent { looked_for } => ("absent", json!({ "looked_for": looked_for })),
            Finding::Unusable { evidence, why, cure } => {
                ("unusable", json!({ "evidence": evidence, "why": why, "cure": cure }))
            }
            Finding::Usable { evidence, .. } => ("not_used", json!({ "evidence": evidence })),
        };
        let mut row =
            json!({ "source": one.row.name, "tier": one.row.tier.as_str(), "about": one.row.about, "state": state });
        row.as_object_mut().expect("just made").extend(detail.as_object().cloned().unwrap_or_default());
        row
    });
    json!({ "identity": identity, "sources": sources.collect::<Vec<_>>() })
}

fn text(report: &Value) -> String {
    let plain = |value: &Value| match value {
        // A claim is what somebody else wrote.
        Value::String(text) => quoted_words(text),
        Value::Null => "-".to_owned(),
        Value::Array(list) => {
            list.iter().map(|one| quoted_words(one.as_str().unwrap_or("-"))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    let identity = &report["identity"];
    let claims = &identity["claims"];
    let mut out = String::new();
    let mut line = |name: &str, value: String| out.push_str(&format!("{name:<9} {value}\n"));
    line("source", plain(&identity["source"]));
    line("evidence", plain(&identity["evidence"]));
    for name in ["iss", "sub", "aud"] {
        line(name, plain(&claims[name]));
    }
    line("exp", format!("{} (in {} s)", plain(&claims["exp"]), plain(&claims["expires_in"])));
    line("jti", if claims["jti"] == true { "yes: servers can notice a replay" } else { "no" }.to_owned());
    line(
        "minted",
        if identity["mints_anew"] == true {
            "anew for each exchange, for any audience"
        } else {
            "by somebody else, for the audience above"
        }
        .to_owned(),
    );
    if let Some(thumbprint) = identity["certificate"]["sha256"].as_str() {
        line("x509", format!("a certificate for mutual TLS, SHA-256 {thumbprint}"));
    }
    for source in report["sources"].as_array().into_iter().flatten().filter(|source| source["state"] != "used") {
        let detail = match source["state"].as_str() {
            Some("absent") => format!("absent: {}", plain(&source["looked_for"])),
            Some("unusable") => format!("unusable: {}", plain(&source["why"])),
            _ => format!("here, not used: {}", plain(&source["evidence"])),
        };
        line("other", format!("{}  {detail}", plain(&source["source"])));
    }
    out
}
