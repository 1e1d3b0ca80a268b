//! `safeconduct trust-policy TARGET --for SHAPE`: prints the trust policy that the other side needs for this workload, from its
//! real claims.

use std::time::Duration;

use serde_json::Value;

use super::obtain::{Unconfigured, Wanted, settle};
use super::{Context, Failure, Printable, print};
use crate::app::{self, Core};
use crate::broker::{Class, Cloud, Persistence, Target};
use crate::cli::{self, Level};
use crate::config::Config;
use crate::env::Env;
use crate::oauth::quoted_words;
use crate::oauth::words::one_line;
use crate::trust::{Policy, Shape};

/// Longer than the patience of any source.
const LIMIT: Duration = Duration::from_secs(80);

pub(super) fn run(context: &Context<'_>, verb: &cli::TrustPolicy) -> Result<(), Failure> {
    context.log(Level::Error)?;
    let mut config = context.config()?;
    let wanted = Wanted::parse(&verb.target)?;
    let name = settle(context, &mut config, &wanted, Unconfigured::Discover)?
        .ok_or_else(|| Failure::bug("a server that was just added is not served"))?;
    let audience = audience(verb, &config, &name)?;
    let account = config.first_provider(&name).and_then(|provider| provider.account);
    let attested = context.block_on(async {
        let core: Core = app::core(config, context.env.clone(), context.clock(), Persistence::OneShot(LIMIT))?;
        let target = Target::Name(name);
        let asked = core.broker.attest(&target, audience.as_deref());
        let attested = tokio::time::timeout(LIMIT, asked).await;
        core.stop.cancel();
        let attested = attested.map_err(|_| Failure::new(Class::Temporary, "the platform gave no identity in time"))?;
        Ok(attested?)
    })?;
    let policy = Policy::of(attested.platform, &attested.claims);
    let policy = policy.and_then(|policy| policy.for_shape(verb.shape, account.as_deref()));
    let policy = policy.map_err(|error| {
        let class = match error {
            crate::trust::Error::Stranger { .. } | crate::trust::Error::Missing { .. } => Class::Denied,
            crate::trust::Error::Inexpressible { .. } => Class::BadRequest,
        };
        Failure::new(class, error.to_string()).hint(error.hint())
    })?;
    if verb.json {
        return print(&Printable::json(&format!("{policy:#}\n"), context.env));
    }
    print(&page(&policy, context.env))
}

/// The audience of the token: from the command line, else the usual one of the product. `None` if a provider or discovery
/// decides.
fn audience(verb: &cli::TrustPolicy, config: &Config, name: &str) -> Result<Option<String>, Failure> {
    if verb.audience.is_some() {
        return Ok(verb.audience.clone());
    }
    let by_provider = config.first_provider(name).is_some();
    match verb.shape {
        _ if by_provider => Ok(None),
        Shape::Entra => Ok(Some(Cloud::Public.audience().to_owned())),
        Shape::Aws => Ok(Some("sts.amazonaws.com".to_owned())),
        Shape::Gcp => Err(Failure::asked("which pool is to trust it is not known").hint(
            "give the provider's audience: `--audience https://iam.googleapis.com/projects/NUMBER/locations/global/\
            workloadIdentityPools/POOL/providers/PROVIDER`, or configure `exchange = \"gcp\"` with its `pool`",
        )),
        Shape::Keycloak | Shape::Okta | Shape::Generic => Ok(None),
    }
}

/// The policy, which is to be pasted as it stands, between comments for people.
fn page(policy: &Value, env: &Env) -> Printable {
    let words = |value: &Value| quoted_words(value.as_str().unwrap_or_default());
    let mut out = format!("# trust {} of {}\n", words(&policy["platform"]), words(&policy["issuer"]));
    for (claim, why) in policy["why"].as_object().into_iter().flatten() {
        out.push_str(&format!("# pinned: {} ({})\n", quoted_words(claim), words(why)));
    }
    for warning in policy["warnings"].as_array().into_iter().flatten() {
        out.push_str(&format!("# warning: {}\n", words(warning)));
    }
    let document = Printable::json(&format!("{:#}\n", policy["policy"]), env);
    let mut after = String::new();
    for step in policy["install"].as_array().into_iter().flatten() {
        // A command that is cut off would be another command.
        after.push_str(&format!("# install: {}\n", one_line(step.as_str().unwrap_or_default())));
    }
    Printable::text(&out, env).then(&document).then(&Printable::text(&after, env))
}
