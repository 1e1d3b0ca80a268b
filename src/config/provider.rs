//! The keys of a provider's exchange (`entra`, `gcp`, `aws-…`): the same for a server and a link of an identity.

use super::reader::{Reader, Section};
use crate::aws;
use crate::broker::{Aws, Client, ClientAuth, Cloud, Entra, Gcp, Provider};

/// The keys of each provider's exchanges, those that it cannot do without first.
const KEYS: &[(&str, &[&str], &[&str])] = &[
    ("entra", &["tenant"], &["cloud", "agent_identity", "endpoint"]),
    ("gcp", &["pool"], &["service_account", "delegates", "endpoint"]),
    ("aws-role", &["role_arn", "region"], &["endpoint"]),
    ("aws-sigv4", &["region", "service"], &["role_arn", "endpoint"]),
];

/// What contradicts it: it asks the provider's own hosts, and they know no resource parameter.
const NOT_BESIDE: [&str; 5] = ["issuer", "token_endpoint", "dpop", "register", "client_metadata"];

/// Is it the exchange of a provider?
pub(super) fn is_one(exchange: &str) -> bool {
    KEYS.iter().any(|(name, ..)| *name == exchange)
}

/// Reads what the exchange that is named needs, and says what is missing or of no use.
pub(super) fn provider_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Provider> {
    let exchange = section.text("exchange").map_or("", |(name, _)| name);
    let (wanted, may) = KEYS
        .iter()
        .find(|(name, ..)| *name == exchange)
        .map_or::<(&[&str], &[&str]), _>((&[], &[]), |(_, wanted, may)| (wanted, may));
    for key in KEYS.iter().flat_map(|(_, wanted, may)| wanted.iter().chain(*may)) {
        let mine = wanted.contains(key) || may.contains(key);
        let said = reader.problems.iter().any(|one| one.key == section.key(key));
        if section.has(key) && !mine && !said {
            let with: Vec<String> = KEYS
                .iter()
                .filter(|(_, a, b)| a.contains(key) || b.contains(key))
                .map(|(name, ..)| format!("{name:?}"))
                .collect();
            let what = format!("has no effect without `exchange` = {}", with.join(" or "));
            reader.problem(section.line_of(key), &section.key(key), what);
        }
    }
    if wanted.is_empty() {
        return None;
    }
    for key in NOT_BESIDE.into_iter().filter(|key| section.has(key)) {
        let what = format!("has no effect with `exchange = {exchange:?}`, which asks the provider's own hosts");
        reader.problem(section.line_of(key), &section.key(key), what);
    }
    for key in wanted.iter().filter(|key| !section.has(key)) {
        reader.problem(section.line_of("exchange"), &section.key(key), format!("missing: {exchange:?} needs it"));
    }
    let endpoint = endpoint_of(reader, section, exchange);
    let text = |key: &str| section.text(key).map(|(text, _)| text.to_owned());
    let provider = match exchange {
        "entra" => Provider::Entra(Entra {
            tenant: plain(reader, section, "tenant")?,
            cloud: cloud_of(reader, section),
            agent: text("agent_identity"),
            endpoint,
        }),
        "gcp" => Provider::Gcp(Gcp {
            pool: pool_of(reader, section)?,
            service_account: plain(reader, section, "service_account"),
            delegates: section.texts("delegates").map(|(list, _)| list.to_vec()).unwrap_or_default(),
            endpoint,
        }),
        _ => Provider::Aws(Aws {
            role_arn: role_of(reader, section),
            region: region_of(reader, section)?,
            service: plain(reader, section, "service"),
            endpoint,
        }),
    };
    Some(provider)
}

/// What the client is where nothing is said: Entra's takes the workload's JWT as its proof.
pub(super) fn client(client: Client, provider: Option<&Provider>) -> Client {
    match provider {
        Some(Provider::Entra(_)) if client.auth == ClientAuth::None => Client { auth: ClientAuth::Workload, ..client },
        _ => client,
    }
}

fn cloud_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Cloud {
    let Some((name, line)) = section.text("cloud") else { return Cloud::default() };
    Cloud::parse(name).unwrap_or_else(|| {
        let known: Vec<&str> = Cloud::ALL.iter().map(|(name, _)| *name).collect();
        reader.problem(line, &section.key("cloud"), format!("{name:?} is not known; there are: {}", known.join(", ")));
        Cloud::default()
    })
}

/// A text that becomes a part of a host or a path: nothing in it may be more than a word.
fn plain(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<String> {
    let (text, line) = section.text(key)?;
    if text.is_empty()
        || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte))
        || text.contains("..")
    {
        reader.problem(line, &section.key(key), format!("{text:?} has characters that none of these has"));
        return None;
    }
    Some(text.to_owned())
}

fn pool_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<String> {
    let (text, line) = section.text("pool")?;
    let name = text.trim_start_matches("https:").trim_start_matches("//iam.googleapis.com/");
    let parts: Vec<&str> = name.split('/').collect();
    let named = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    match parts.as_slice() {
        ["projects", project, "locations", location, "workloadIdentityPools", pool, "providers", provider]
            if [project, location, pool, provider].into_iter().all(named) =>
        {
            Some(name.to_owned())
        }
        _ => {
            let what = "not a provider's full name: \
                projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER";
            reader.problem(line, &section.key("pool"), what);
            None
        }
    }
}

fn region_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<String> {
    let (text, line) = section.text("region")?;
    if !aws::is_region(text) {
        let what = "not a region such as \"eu-central-1\"; the global ones have no such call";
        reader.problem(line, &section.key("region"), what);
        return None;
    }
    Some(text.to_owned())
}

fn role_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<String> {
    let (text, line) = section.text("role_arn")?;
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", _, "iam", "", account, role] if account.len() == 12 && role.starts_with("role/") => {
            Some(text.to_owned())
        }
        _ => {
            let what = "not the ARN of a role: arn:aws:iam::ACCOUNT:role/NAME";
            reader.problem(line, &section.key("role_arn"), what);
            None
        }
    }
}

/// Another host than the provider's gets the identity: of AWS one of its own, else one of this machine.
fn endpoint_of(reader: &mut Reader<'_>, section: &Section<'_>, exchange: &str) -> Option<String> {
    let (text, line) = section.text("endpoint")?;
    let url = url::Url::parse(text).ok();
    let host = url.as_ref().and_then(url::Url::host_str).unwrap_or_default();
    let loopback = ["127.0.0.1", "[::1]", "localhost"].contains(&host);
    let of_aws = exchange.starts_with("aws-") && aws::may_be_endpoint(text);
    if !(loopback || of_aws) {
        let what = if exchange.starts_with("aws-") {
            "must be an https host of AWS, or on loopback for tests"
        } else {
            "must be on loopback: it stands for the provider's hosts in tests alone"
        };
        reader.problem(line, &section.key("endpoint"), what);
    }
    Some(text.trim_end_matches('/').to_owned())
}
