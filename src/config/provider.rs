//! The keys of a provider's exchange (`entra`, `gcp`, `aws-…`): the same for a server and a link of an identity.

use super::reader::{Reader, Section};
use crate::aws;
use crate::broker::{Aws, Client, ClientAuth, Cloud, Entra, Gcp, Provider};
use crate::exchange::entra;
use crate::google;

/// The keys of each provider's exchanges, those that it cannot do without first.
const KEYS: &[(&str, &[&str], &[&str])] = &[
    ("entra", &["tenant"], &["cloud", "agent_identity"]),
    ("gcp", &["pool"], &["service_account", "delegates"]),
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
        let what = match exchange {
            "gcp" => {
                "missing: the workload identity provider. A workload on Google itself needs none: `exchange = \"direct\"` \
                 with `subject_audience`"
                    .to_owned()
            }
            _ => format!("missing: {exchange:?} needs it"),
        };
        reader.problem(section.line_of("exchange"), &section.key(key), what);
    }
    let text = |key: &str| section.text(key).map(|(text, _)| text.to_owned());
    let provider = match exchange {
        "entra" => Provider::Entra(Entra {
            tenant: plain(reader, section, "tenant")?,
            cloud: cloud_of(reader, section),
            agent: text("agent_identity"),
        }),
        "gcp" => Provider::Gcp(Gcp {
            pool: pool_of(reader, section)?,
            service_account: plain(reader, section, "service_account"),
            delegates: delegates_of(reader, section),
        }),
        _ => Provider::Aws(Aws {
            role_arn: role_of(reader, section),
            region: region_of(reader, section)?,
            service: plain(reader, section, "service"),
            endpoint: endpoint_of(reader, section),
        }),
    };
    Some(provider)
}

/// What the client is where nothing is said: Entra's takes the workload's JWT as its proof. Without `client_id` there is none.
pub(super) fn client(client: Client, provider: Option<&Provider>) -> Client {
    match provider {
        Some(Provider::Entra(_)) if client.auth == ClientAuth::None && client.id.is_some() => {
            Client { auth: ClientAuth::Workload, ..client }
        }
        _ => client,
    }
}

/// For whom the identity is made that goes to the provider. A managed identity's own token is for the MCP server's
/// application.
pub(super) fn subject_audience(section: &Section<'_>, provider: &Provider, client: &Client) -> String {
    match provider {
        Provider::Entra(_) if client.id.is_none() => scope_of(section).unwrap_or_default().to_owned(),
        _ => provider.subject_audience().to_string(),
    }
}

/// The target of the one scope.
fn scope_of<'a>(section: &'a Section<'_>) -> Option<&'a str> {
    match section.texts("scopes") {
        Some(([only], _)) => entra::target(only),
        _ => None,
    }
}

/// What Entra needs and takes, of a server.
pub(super) fn entra_of_server(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    provider: Option<&Provider>,
    client: &Client,
) {
    let Some(Provider::Entra(_)) = provider else { return };
    let line = |key: &str| section.line_of(if section.has(key) { key } else { "exchange" });
    if scope_of(section).is_none() {
        let what = "\"entra\" needs exactly one scope, the identifier URI of the MCP server's application with `/.default` at its \
            end: scopes = [\"api://…/.default\"]";
        reader.problem(line("scopes"), &section.key("scopes"), what);
    }
    for key in ["agent_identity", "client_auth"].into_iter().filter(|key| section.has(key) && client.id.is_none()) {
        reader.problem(line(key), &section.key("client_id"), format!("missing: `{key}` is about an application"));
    }
    entra_proof(reader, section, client);
}

/// What Entra needs and takes, of a link.
pub(super) fn entra_of_link(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    provider: Option<&Provider>,
    client: &Client,
) {
    let Some(Provider::Entra(_)) = provider else { return };
    if client.id.is_none() && !section.has("client_id") {
        let what = "missing: the application that has a federated credential for the identity in `from`";
        reader.problem(section.line_of("exchange"), &section.key("client_id"), what);
    }
    entra_proof(reader, section, client);
}

fn entra_proof(reader: &mut Reader<'_>, section: &Section<'_>, client: &Client) {
    if matches!(client.auth, ClientAuth::PrivateKeyJwt | ClientAuth::MutualTls) {
        let what = "Entra takes the identity token (\"workload\") or a \"secret\": a key would have to be that of a certificate";
        reader.problem(section.line_of("client_auth"), &section.key("client_auth"), what);
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

/// The service accounts between a pool and the one that gives the token. Each becomes a part of a name.
fn delegates_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<String> {
    let Some((list, line)) = section.texts("delegates") else { return Vec::new() };
    if let Some(bad) = list.iter().find(|one| !google::is_account(one)) {
        reader.problem(line, &section.key("delegates"), format!("{bad:?} is no email of a service account"));
    }
    list.to_vec()
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

/// Another host than the region's STS gets the identity: one of AWS, else one of this machine.
fn endpoint_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<String> {
    let (text, line) = section.text("endpoint")?;
    if !aws::may_be_endpoint(text) {
        reader.problem(line, &section.key("endpoint"), "must be an https host of AWS, or on loopback for tests");
    }
    Some(text.trim_end_matches('/').to_owned())
}

/// What "gcp" cannot do without beside the pool: for a server a service account and what its token is for, for a link the
/// account. Google's tokens are made either for one audience or for scopes.
pub(super) fn check_gcp(reader: &mut Reader<'_>, section: &Section<'_>) {
    if section.text("exchange").is_none_or(|(name, _)| name != "gcp") {
        return;
    }
    for key in ["client_id", "client_auth", "subject_token_type"].into_iter().filter(|key| section.has(key)) {
        let what = "has no effect with `exchange = \"gcp\"`: Google knows the pool, and no client";
        reader.problem(section.line_of(key), &section.key(key), what);
    }
    let line = section.line_of("exchange");
    if section.has("from") {
        if !section.has("service_account") {
            let what = "missing: a federated token is no identity; that of a service account is";
            reader.problem(line, &section.key("service_account"), what);
        }
        return;
    }
    let mut problem = |key: &str, what: &str| reader.problem(section.line_of(key), &section.key(key), what);
    match (section.has("audience"), section.has("scopes")) {
        (true, true) => {
            problem("scopes", "limit nothing beside `audience`: an identity token has no scopes; one of the two");
        }
        (true, false) if !section.has("service_account") => {
            problem("audience", "needs `service_account`: only a service account gives an identity token");
        }
        (false, false) => {
            let what =
                "\"gcp\" needs `audience` (an identity token, for Cloud Run or IAP) or `scopes` (an access token)";
            problem("exchange", what);
        }
        _ => {}
    }
    if section.has("delegates") && !section.has("service_account") {
        problem("delegates", "lie before `service_account`, which is missing");
    }
}
