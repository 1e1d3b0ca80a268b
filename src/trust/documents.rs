//! The formats of the products. A document is what is installed, with nothing beside it. A product that needs two things has one
//! member for each, which the commands take out.

use serde_json::{Map, Value, json};

use super::google::Google;
use super::quoting::{cel, equals};
use super::reach::{is_beside_us, without_scheme};
use super::{Error, Pinned, Policy, Side, Subject, Writing};

const GOOGLE: &str = "https://accounts.google.com";

pub(super) fn generic(writing: &Writing<'_>) -> Result<Value, Error> {
    let policy = writing.policy;
    let mut rule = json!({ "aud": policy.audience, "claims": super::nested(&writing.pinned) });
    if !policy.issuer.is_empty() {
        rule["iss"] = json!(policy.issuer);
    }
    match &policy.subject {
        Subject::Exactly(sub) => rule["sub"] = json!(sub),
        Subject::StartsWith(start) => rule["sub_starts_with"] = json!(start),
    }
    Ok(rule)
}

/// Entra compares issuer, subject and audience exactly. The audience is a name there, also where the token of a managed identity
/// has the id of that application.
pub(super) fn entra(writing: &Writing<'_>) -> Result<Value, Error> {
    let Writing { policy, side, .. } = writing;
    let issuer = issuer(policy)?;
    let by_name = side.audience.filter(|_| !policy.audience.contains(':'));
    Ok(json!({
        "name": format!("safeconduct-{}", policy.platform), "issuer": issuer, "subject": whole(policy),
        "audiences": [by_name.unwrap_or(&policy.audience)],
    }))
}

/// The account has a provider for Google, which needs no ARN. Its key `aud` is the token's `azp`, if it has one; then `oaud`
/// is its `aud`.
/// A text in a policy of AWS, which reads `${…}` as a variable.
fn exactly(text: &str) -> String {
    text.replace("${", "${$}{")
}

pub(super) fn aws(writing: &Writing<'_>) -> Result<Value, Error> {
    let Writing { policy, side, pinned } = writing;
    let issuer = without_scheme(issuer(policy)?);
    if issuer.ends_with(".tokens.sts.global.api.aws") {
        return Err(Error::Inexpressible {
            what: "AWS takes no web identity token that AWS itself issued".to_owned(),
            cure: "let the role trust this workload's role (`sts:AssumeRole`), or use this workload's role itself",
        });
    }
    let is_google = policy.issuer == GOOGLE;
    let key = |name: &str| format!("{issuer}:{name}");
    let mut equals = Map::new();
    equals.insert(key(if is_google && policy.has_azp { "oaud" } else { "aud" }), json!(exactly(&policy.audience)));
    let mut conditions = Map::new();
    match &policy.subject {
        Subject::Exactly(sub) => drop(equals.insert(key("sub"), json!(exactly(sub)))),
        Subject::StartsWith(start) => {
            conditions.insert("StringLike".to_owned(), json!({ key("sub"): format!("{}*", literal(start)) }));
        }
    }
    equals.extend(pinned.iter().map(|one| (key(&one.path.join(".")), json!(exactly(&as_text(&one.value))))));
    conditions.insert("StringEquals".to_owned(), Value::Object(equals));
    let federated = if is_google { issuer.to_owned() } else { Role::of(side).provider(&policy.issuer) };
    Ok(json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
            "Principal": { "Federated": federated },
            "Condition": conditions,
        }],
    }))
}

/// Does every account of AWS have a provider for this issuer, so that none is made?
pub(super) fn is_built_in(issuer: &str) -> bool {
    issuer == GOOGLE
}

pub(super) fn gcp(writing: &Writing<'_>) -> Result<Value, Error> {
    /// The longest condition.
    const LONGEST: usize = 4_096;
    let policy = writing.policy;
    let (google, condition) = (Google::of(writing)?, cel("assertion", &policy.subject, &writing.pinned));
    if condition.len() > LONGEST {
        return Err(Error::Inexpressible {
            what: format!("the condition has {} characters, and Google takes {LONGEST}", condition.len()),
            cure: "use an identity with shorter names",
        });
    }
    Ok(json!({
        "oidc": { "issuerUri": issuer(policy)?, "allowedAudiences": [policy.audience] },
        "attributeMapping": { "google.subject": google.mapping },
        "attributeCondition": condition,
    }))
}

/// An identity provider for the issuer, and a client that names its alias and the subject. Kubernetes and SPIFFE have types of
/// their own, which allow reuse: a service-account token lives for an hour, and a JWT-SVID has no `jti`.
pub(super) fn keycloak(writing: &Writing<'_>) -> Result<Value, Error> {
    let Writing { policy, side, .. } = writing;
    let (alias, subject) = (format!("safeconduct-{}", policy.platform), whole(policy));
    let keys = side.keys.unwrap_or("KEYS");
    let (kind, config) = if let Some(id) = subject.strip_prefix("spiffe://") {
        let domain = id.split('/').next().unwrap_or_default();
        ("spiffe", json!({ "trustDomain": format!("spiffe://{domain}"), "bundleEndpoint": keys }))
    } else if subject.starts_with("system:serviceaccount:") {
        ("kubernetes", json!({ "issuer": issuer(policy)? }))
    } else {
        let mut config = json!({
            "issuer": issuer(policy)?, "useJwksUrl": "true", "jwksUrl": keys, "validateSignature": "true",
            "supportsClientAssertions": "true", "supportsClientAssertionReuse": (!policy.once).to_string(),
        });
        // A token that is presented again gets older than the usual five minutes.
        if !policy.once && policy.life > 300 {
            config["fedClientAssertionMaxExp"] = json!(policy.life.to_string());
        }
        ("oidc", config)
    };
    let name = if side.name.is_empty() { policy.platform } else { side.name };
    Ok(json!({
        "identityProvider": { "alias": alias, "providerId": kind, "enabled": true, "hideOnLogin": true, "config": config },
        "client": {
            "clientId": format!("safeconduct-{name}"), "enabled": true, "publicClient": false,
            "standardFlowEnabled": false, "implicitFlowEnabled": false, "directAccessGrantsEnabled": false,
            "serviceAccountsEnabled": true, "fullScopeAllowed": false, "clientAuthenticatorType": "federated-jwt",
            "attributes": { "jwt.credential.issuer": alias, "jwt.credential.sub": subject },
            // Without it the tokens have no `aud`.
            "protocolMappers": [{
                "name": "mcp-server", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
                "config": { "included.custom.audience": url(side.url), "access.token.claim": "true" },
            }],
        },
    }))
}

/// Does Keycloak find the keys by itself?
pub(super) fn finds_keys(policy: &Policy) -> bool {
    whole(policy).starts_with("system:serviceaccount:")
}

pub(super) fn okta(_: &Writing<'_>) -> Result<Value, Error> {
    Err(Error::Inexpressible {
        what: "Okta takes no platform's token for a client's proof".to_owned(),
        cure: "give the service app a key of its own (`client_auth = \"private-key-jwt\"`), or let Okta issue the ID-JAG \
            (`exchange = \"id-jag\"`)",
    })
}

/// Parts of `authserver-config.yaml`: JSON is YAML. The age is that of the platform's tokens, in whole minutes.
pub(super) fn toolhive(writing: &Writing<'_>) -> Result<Value, Error> {
    let Writing { policy, side, .. } = writing;
    let (name, resource) = (format!("safeconduct-{}", policy.platform), url(side.url));
    let mut trusted = json!({ "name": name, "issuer_url": issuer(policy)? });
    if let Some(keys) = side.keys {
        trusted["jwks_url"] = json!(keys);
        if is_beside_us(&policy.issuer) {
            trusted["allow_private_ips"] = json!(true);
            trusted["insecure_allow_http"] = json!(policy.issuer.starts_with("http://"));
        }
    }
    Ok(json!({
        "allowed_audiences": [resource],
        "trusted_issuers": [trusted],
        "inbound_grants": { "jwt_bearer": { "issuer_policies": [{
            "issuer_ref": name, "max_assertion_age": format!("{}m", policy.life.max(300).saturating_add(59) / 60),
            "accepted_audiences": [policy.audience],
            "subject_bindings": [{ "subject": whole(policy), "allowed_resources": [resource] }],
        }] } },
    }))
}

/// The pinned values by the names of their claims.
fn values(pinned: &[&Pinned]) -> Map<String, Value> {
    let mut values = Map::new();
    values.extend(pinned.iter().map(|one| (one.path.join("."), one.value.clone())));
    values
}

/// `subject_prefix` is the whole subject unless it ends with `*`; `claims` compares texts of the first level. The rest is CEL.
pub(super) fn anthropic(writing: &Writing<'_>) -> Result<Value, Error> {
    let Writing { policy, pinned, .. } = writing;
    let (plain, other): (Vec<&Pinned>, Vec<&Pinned>) =
        pinned.iter().partition(|one| one.path.len() == 1 && one.value.is_string());
    let mut rule = json!({ "audience": policy.audience });
    let subject = match &policy.subject {
        Subject::Exactly(sub) if sub.ends_with('*') => None,
        Subject::Exactly(sub) => Some(sub.clone()),
        Subject::StartsWith(start) => Some(format!("{start}*")),
    };
    let claims = values(&plain);
    if !claims.is_empty() {
        rule["claims"] = Value::Object(claims);
    }
    let condition = match &subject {
        Some(_) => other.iter().map(|one| equals("claims", one)).collect::<Vec<_>>().join(" && "),
        None => cel("claims", &policy.subject, &other),
    };
    if let Some(subject) = subject {
        rule["subject_prefix"] = json!(subject);
    }
    if !condition.is_empty() {
        rule["condition"] = json!(condition);
    }
    let name = format!("safeconduct-{}", policy.platform);
    Ok(json!({
        "federation_issuer": {
            "name": name, "issuer_url": issuer(policy)?, "jwks": { "type": "discovery" }, "check_jti": policy.once,
        },
        "federation_rule": {
            "name": name, "issuer_id": "ISSUER_ID", "match": rule, "oauth_scope": "workspace:inference",
            "target": { "type": "service_account", "service_account_id": "SERVICE_ACCOUNT_ID" },
        },
    }))
}

/// A rule compares values exactly. A subject that changes is left out: the pinned claims say the same.
pub(super) fn openai(writing: &Writing<'_>) -> Result<Value, Error> {
    let Writing { policy, pinned, .. } = writing;
    let mut matchers = values(pinned);
    match &policy.subject {
        Subject::Exactly(sub) => drop(matchers.insert("sub".to_owned(), json!(sub))),
        Subject::StartsWith(_) if matchers.is_empty() => {
            return Err(Error::Inexpressible {
                what: "OpenAI compares values exactly, and nothing that stays the same names this workload".to_owned(),
                cure: "use an identity whose `sub` is the same in every run",
            });
        }
        Subject::StartsWith(_) => {}
    }
    Ok(json!({
        "workload_identity_provider": {
            "name": format!("safeconduct-{}", policy.platform), "type": "oidc", "issuer": issuer(policy)?,
            "audience": policy.audience, "verification": { "type": "discovery", "discovery_url": null },
        },
        "federation_rule": {
            "project_id": "PROJECT_ID", "service_account_id": "SERVICE_ACCOUNT_ID", "attribute_matchers": matchers,
        },
    }))
}

/// The parts of a role's ARN.
pub(super) struct Role<'a> {
    pub(super) partition: &'a str,
    pub(super) account: &'a str,
    /// With its path.
    pub(super) path: &'a str,
    pub(super) name: &'a str,
}

impl<'a> Role<'a> {
    pub(super) fn of(side: &Side<'a>) -> Self {
        let mut parts = side.role_arn.unwrap_or("arn:aws:iam::ACCOUNT:role/ROLE").splitn(6, ':').skip(1);
        let mut part = |skipped| parts.nth(skipped).unwrap_or_default();
        let (partition, account, path) = (part(0), part(2), part(0).trim_start_matches("role/"));
        Self { partition, account, path, name: path.rsplit('/').next().unwrap_or(path) }
    }

    /// The ARN of the account's provider for this issuer. It has the issuer's path as it is, with a slash at its end.
    pub(super) fn provider(&self, issuer: &str) -> String {
        format!("arn:{}:iam::{}:oidc-provider/{}", self.partition, self.account, without_scheme(issuer))
    }
}

/// The issuer, without which most products know no keys.
fn issuer(policy: &Policy) -> Result<&str, Error> {
    if policy.issuer.is_empty() { Err(Error::missing("iss")) } else { Ok(&policy.issuer) }
}

/// The subject of a product that compares it whole. The row says so, and another subject does not come here.
fn whole(policy: &Policy) -> &str {
    match &policy.subject {
        Subject::Exactly(sub) | Subject::StartsWith(sub) => sub,
    }
}

fn url(url: &str) -> &str {
    if url.is_empty() { "MCP_SERVER_URL" } else { url }
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Escapes `*` and `?`, which are wildcards in an AWS policy.
fn literal(text: &str) -> String {
    text.chars()
        .map(|one| match one {
            '*' => "${*}".to_owned(),
            '?' => "${?}".to_owned(),
            '$' => "${$}".to_owned(),
            other => other.to_string(),
        })
        .collect()
}
