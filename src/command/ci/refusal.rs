//! What people are told if a target is refused: which claims were presented, and the policy that matches them.

use std::time::Duration;

use serde_json::Value;

use super::super::output::tell;
use super::super::{Context, Failure, Printable};
use super::files::Files;
use super::targets;
use crate::assembly::{self, Core};
use crate::broker::{Class, Persistence, Target};
use crate::cli::Ci;
use crate::runner::Report;
use crate::trust::{Policy, Shape, Side};

/// So long it may take to ask the platform for its claims once more. Nobody is sent what it says.
const LIMIT: Duration = Duration::from_secs(10);

/// Tells it in the log, and in the runner's summary.
pub(super) fn tell_of(context: &Context<'_>, verb: &Ci, (target, failure): (&str, &Failure), files: &mut Files) {
    let mut documents = Vec::new();
    // Only where an authorization server refused the identity its trust policy is the matter.
    if failure.exit == Class::Refused.exit_code() && failure.presented.is_some() {
        match presented(context, verb, target) {
            Ok(found) => documents = found,
            Err(failure) => debug!(why = failure.message, "what was presented cannot be told"),
        }
    }
    for (title, document) in &documents {
        let document = Printable::json(&format!("{document}\n"), context.env);
        tell(&Printable::text(&format!("safeconduct: {target}: {title}:\n"), context.env).then(&document));
    }
    let report =
        Report::Refused { target, message: &failure.message, hint: failure.hint.as_deref(), documents: &documents };
    files.write_summary_of_refusal(context, &report.markdown());
}

/// The claims of the token that the authorization server gets, and the policy that matches them.
fn presented(context: &Context<'_>, verb: &Ci, target: &str) -> Result<Vec<(&'static str, String)>, Failure> {
    let (config, _) = targets::read(context, verb)?;
    let attested = context.block_on(async {
        // Without the audit: the daemon has recorded the decision, and nothing is handed out here.
        let core: Core = assembly::core_even_without_identity(
            config,
            context.env.clone(),
            context.clock(),
            Persistence::OneShot(LIMIT),
        )?;
        let attested = tokio::time::timeout(LIMIT, core.broker.attest(&Target::Name(target.to_owned()), None)).await;
        core.stop.cancel();
        Ok(attested.map_err(|_| Failure::new(Class::Temporary, "the platform gave no identity in time"))??)
    })?;
    let of_claim = |claim: &str| Some((claim.to_owned(), attested.claims.get(claim)?.clone()));
    let mut claims = serde_json::Map::new();
    claims.extend(["iss", "sub", "aud"].into_iter().filter_map(of_claim));
    let mut documents = vec![("presented", format!("{:#}", Value::from(claims)))];
    let policy = Policy::of(attested.platform, &attested.claims, attested.mints_anew);
    let policy = policy.and_then(|policy| policy.for_shape(Shape::Generic, &Side::default()));
    match policy {
        Ok(policy) => documents.push(("a trust policy that matches it", format!("{:#}", policy["policy"]))),
        Err(error) => documents.push(("no policy should match it", format!("{:#}", Value::from(error.to_string())))),
    }
    Ok(documents)
}
