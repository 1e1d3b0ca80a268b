//! Commands and lines of a configuration, written as templates: `{name}` stands for a value, quoted for where it stands. What is
//! not known stays a word in capitals.

use super::Writing;
use super::documents::Role;
use super::google::{Google, Pool};
use super::quoting::cel;

/// A template with its values. `quote` makes a value one word, or one text, of what is written. Braces around anything else
/// than a name stay.
pub(super) fn fill(template: &str, writing: &Writing<'_>, quote: fn(&str) -> String) -> String {
    let mut pieces = template.split('{');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.split_once('}') {
            Some((name, rest))
                if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') =>
            {
                out.push_str(&quote(&value(name, writing)));
                out.push_str(rest);
            }
            _ => {
                out.push('{');
                out.push_str(piece);
            }
        }
    }
    out
}

fn value(name: &str, writing: &Writing<'_>) -> String {
    let Writing { policy, side, .. } = writing;
    let role = Role::of(side);
    let pool = Pool::of(&policy.audience);
    match name {
        "issuer" => policy.issuer.clone(),
        "audience" => policy.audience.clone(),
        "name" => side.name.to_owned(),
        "url" => side.url.to_owned(),
        "server_issuer" => side.issuer.unwrap_or(&policy.audience).to_owned(),
        "realm" => {
            let issuer = side.issuer.unwrap_or(&policy.audience);
            issuer.split_once("/realms/").map_or("REALM", |(_, realm)| realm).to_owned()
        }
        "role" => role.name.to_owned(),
        "role_arn" => format!("arn:{}:iam::{}:role/{}", role.partition, role.account, role.path),
        "provider_arn" => role.provider(&policy.issuer),
        "pool" => pool.pool.to_owned(),
        "provider" => pool.provider.to_owned(),
        "whole_pool" => {
            let Pool { project, pool, provider } = pool;
            format!("projects/{project}/locations/global/workloadIdentityPools/{pool}/providers/{provider}")
        }
        // Only a document that was written asks for these.
        "condition" => cel("assertion", &policy.subject, &writing.pinned),
        "mapping" => Google::of(writing).map(|google| google.flag()).unwrap_or_default(),
        "member" => {
            let subject = Google::of(writing).map(|google| google.subject).unwrap_or_default();
            format!(
                "principal://iam.googleapis.com/projects/{}/locations/global/workloadIdentityPools/{}/subject/{subject}",
                pool.project, pool.pool
            )
        }
        other => other.to_ascii_uppercase(),
    }
}
