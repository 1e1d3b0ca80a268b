//! `safeconduct trust-policy TARGET --for SHAPE`: prints the trust policy that the other side needs for this workload, from its
//! real claims. Stdout is the document alone, to be installed as it is; what it pins, how it is installed and what belongs into
//! our configuration is on stderr.

use std::time::Duration;

use serde_json::Value;

use super::obtain::{Unconfigured, Wanted, settle};
use super::output::tell;
use super::{Context, Failure, Printable, print};
use crate::assembly::{self, Core};
use crate::broker::{Class, Cloud, Persistence, Target};
use crate::cli::{self, Level};
use crate::config::Config;
use crate::env::Env;
use crate::oauth::quoted_words;
use crate::platform::text;
use crate::trust::{Error, Policy, Shape, Side};

/// Longer than the patience of any source.
const LIMIT: Duration = Duration::from_secs(80);

pub(super) fn run(context: &Context<'_>, verb: &cli::TrustPolicy) -> Result<(), Failure> {
    context.log(Level::Error)?;
    let mut config = context.config()?;
    let wanted = Wanted::parse(&verb.target)?;
    let name = settle(context, &mut config, &wanted, Unconfigured::Discover)?
        .ok_or_else(|| Failure::bug("a server that was just added is not served"))?;
    let audience = audience(verb, &config, &name)?;
    let provider = config.first_provider(&name);
    let server = config.servers.iter().find(|server| *server.name == *name);
    let url = server.map(|server| server.url.as_str().to_owned()).unwrap_or_default();
    let issuer = server.and_then(|server| server.order.issuer()).map(|issuer| issuer.as_str().to_owned());
    let (attested, keys) = context.block_on(async {
        let core: Core = assembly::core(config, context.env.clone(), context.clock(), Persistence::OneShot(LIMIT))?;
        let target = Target::Name(name.clone());
        let asked = async {
            let attested = core.broker.attest(&target, audience.as_deref()).await?;
            let issuer = text(&attested.claims, "iss");
            let keys = if verb.shape.names_keys() { core.broker.keys_of(issuer).await } else { None };
            Ok::<_, crate::broker::Error>((attested, keys))
        };
        let attested = tokio::time::timeout(LIMIT, asked).await;
        core.stop.cancel();
        Ok(attested.map_err(|_| Failure::new(Class::Temporary, "the platform gave no identity in time"))??)
    })?;
    let usual = provider.as_ref().map(|provider| provider.subject_audience.as_str());
    let side = Side {
        name: &name,
        url: &url,
        issuer: issuer.as_deref(),
        role_arn: provider.as_ref().and_then(|provider| provider.role_arn.as_deref()),
        audience: usual.or(audience.as_deref()),
        keys: keys.as_deref(),
    };
    let policy = Policy::of(attested.platform, &attested.claims, attested.mints_anew);
    let policy = policy.and_then(|policy| policy.for_shape(verb.shape, &side)).map_err(failure)?;
    if verb.json {
        return print(&Printable::json(&format!("{policy:#}\n"), context.env));
    }
    print(&Printable::json(&format!("{:#}\n", policy["policy"]), context.env))?;
    tell(&notes(&policy, context.env));
    Ok(())
}

fn failure(error: Error) -> Failure {
    let class = match error {
        Error::Stranger { .. } | Error::Missing { .. } => Class::Denied,
        Error::Inexpressible { .. } => Class::BadRequest,
    };
    Failure::new(class, error.to_string()).hint(error.hint())
}

/// The audience of the token: from the command line, else the usual one of the product. `None` if a provider or discovery
/// decides.
fn audience(verb: &cli::TrustPolicy, config: &Config, name: &str) -> Result<Option<String>, Failure> {
    if verb.audience.is_some() {
        return Ok(verb.audience.clone());
    }
    let usual = |audience: &str| Ok(Some(audience.to_owned()));
    match verb.shape {
        // No provider of our configuration is one of these.
        Shape::Anthropic => usual("https://api.anthropic.com"),
        Shape::Openai => usual("https://api.openai.com/v1"),
        _ if config.first_provider(name).is_some() => Ok(None),
        Shape::Entra => usual(Cloud::Public.audience()),
        Shape::Aws => usual("sts.amazonaws.com"),
        Shape::Gcp => Err(Failure::asked("which pool is to trust it is not known").hint(
            "give the provider's audience: `--audience https://iam.googleapis.com/projects/NUMBER/locations/global/\
            workloadIdentityPools/POOL/providers/PROVIDER`, or configure `exchange = \"gcp\"` with its `pool`",
        )),
        Shape::Keycloak | Shape::Okta | Shape::Generic | Shape::Toolhive => Ok(None),
    }
}

/// What people have to know, as comments, and at the end what they paste.
fn notes(policy: &Value, env: &Env) -> Printable {
    let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |name: &str| policy[name].as_array().into_iter().flatten();
    let mut out = format!("# trust {} of {}\n", words(&policy["platform"]), quoted_words(&words(&policy["issuer"])));
    for (title, claims) in [("pinned", "why"), ("cannot be compared there", "not_compared")] {
        for (claim, why) in policy[claims].as_object().into_iter().flatten() {
            out.push_str(&format!("# {title}: {claim} ({})\n", words(why)));
        }
    }
    for warning in texts("warnings") {
        out.push_str(&format!("# warning: {}\n", words(warning)));
    }
    // A command that is cut off or changed would be another command. Its values are quoted so that nothing in it is unseen, or read
    // by a CI runner.
    let steps = texts("install").map(|step| format!("# install: {}\n", step.as_str().unwrap_or_default()));
    let steps = Printable::own(steps.collect::<String>());
    let here = format!("# here, in safeconduct's configuration:\n{}", policy["here"].as_str().unwrap_or_default());
    Printable::text(&out, env).then(&steps).then(&Printable::text(&here, env))
}
