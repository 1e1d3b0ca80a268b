//! The policy in the format of the product that checks it, and the commands that install it.

use serde_json::{Value, json};

use super::{Error, Policy, Subject};

/// The product that checks the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// A federated identity credential of an app registration or a managed identity.
    Entra,
    /// The trust policy of an IAM role, and its identity provider.
    Aws,
    /// A provider of a workload identity pool.
    Gcp,
    /// An identity provider and a client with federated authentication.
    Keycloak,
    /// A service app.
    Okta,
    /// Any server that can compare claims.
    Generic,
}

impl Shape {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Entra => "entra",
            Self::Aws => "aws",
            Self::Gcp => "gcp",
            Self::Keycloak => "keycloak",
            Self::Okta => "okta",
            Self::Generic => "generic",
        }
    }

    /// The policy to install, and the commands or steps that install it.
    pub(super) fn write(self, policy: &Policy, account: Option<&str>) -> Result<(Value, Vec<String>), Error> {
        match self {
            Self::Entra => entra(policy),
            Self::Aws => Ok(aws(policy, account)),
            Self::Gcp => Ok(gcp(policy)),
            Self::Keycloak => keycloak(policy),
            Self::Okta => Err(Error::Inexpressible {
                what: "Okta takes no platform's token for a client's proof".to_owned(),
                cure: "give the service app a key of its own (`client_auth = \"private-key-jwt\"`), or let Okta issue the \
                    ID-JAG (`exchange = \"id-jag\"`)",
            }),
            Self::Generic => Ok((generic(policy), vec!["require every entry of `policy` of each token".to_owned()])),
        }
    }
}

fn generic(policy: &Policy) -> Value {
    let mut rule = json!({ "iss": policy.issuer, "aud": policy.audience, "claims": policy.claims() });
    match &policy.subject {
        Subject::Exactly(sub) => rule["sub"] = json!(sub),
        Subject::StartsWith(start) => rule["sub_starts_with"] = json!(start),
    }
    rule
}

/// Microsoft, "Federated identity credentials": Entra compares issuer, subject and audience exactly.
fn entra(policy: &Policy) -> Result<(Value, Vec<String>), Error> {
    let subject = exact(policy, "Entra compares `sub` whole, and this platform's changes with every run")?;
    let credential = json!({
        "name": format!("safeconduct-{}", policy.platform), "issuer": policy.issuer, "subject": subject,
        "audiences": [policy.audience],
    });
    let install = vec!["az ad app federated-credential create --id APPLICATION --parameters policy.json".to_owned()];
    Ok((credential, install))
}

/// AWS, "Available keys for AWS OIDC federation": for most issuers AWS can compare only `aud` and `sub`.
fn aws(policy: &Policy, account: Option<&str>) -> (Value, Vec<String>) {
    let issuer = policy.issuer.split_once("://").map_or(policy.issuer.as_str(), |(_, rest)| rest).trim_end_matches('/');
    let (aud, sub) = (format!("{issuer}:aud"), format!("{issuer}:sub"));
    let condition = match &policy.subject {
        Subject::Exactly(exact) => json!({ "StringEquals": { aud: policy.audience, sub: exact } }),
        Subject::StartsWith(start) => {
            json!({ "StringEquals": { aud: policy.audience }, "StringLike": { sub: format!("{}*", literal(start)) } })
        }
    };
    let account = account.unwrap_or("ACCOUNT");
    let document = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
            "Principal": { "Federated": format!("arn:aws:iam::{account}:oidc-provider/{issuer}") },
            "Condition": condition,
        }],
    });
    let install = vec![
        format!(
            "aws iam create-open-id-connect-provider --url {} --client-id-list {}",
            word(&policy.issuer),
            word(&policy.audience)
        ),
        "aws iam update-assume-role-policy --role-name ROLE --policy-document file://policy.json".to_owned(),
    ];
    (document, install)
}

/// Google Cloud, "Attribute mappings and conditions" (CEL).
fn gcp(policy: &Policy) -> (Value, Vec<String>) {
    let mut conditions = vec![match &policy.subject {
        Subject::Exactly(sub) => format!("assertion.sub == {}", quoted(sub)),
        Subject::StartsWith(start) => format!("assertion.sub.startsWith({})", quoted(start)),
    }];
    conditions.extend(policy.claims.iter().map(|pinned| {
        let member: String = pinned.path.iter().map(|name| format!("[{}]", quoted(name))).collect();
        format!("assertion{member} == {}", pinned.value.as_str().map_or_else(|| pinned.value.to_string(), quoted))
    }));
    let condition = conditions.join(" && ");
    let provider = json!({
        "oidc": { "issuerUri": policy.issuer, "allowedAudiences": [policy.audience] },
        "attributeMapping": { "google.subject": "assertion.sub" },
        "attributeCondition": condition,
    });
    let install = vec![
        format!(
            "gcloud iam workload-identity-pools providers create-oidc PROVIDER --location global --workload-identity-pool \
             POOL --issuer-uri {} --allowed-audiences {} --attribute-mapping google.subject=assertion.sub \
             --attribute-condition {}",
            word(&policy.issuer),
            word(&policy.audience),
            word(&condition)
        ),
        "gcloud iam service-accounts add-iam-policy-binding ACCOUNT --role roles/iam.workloadIdentityUser --member \
         principal://iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/subject/SUBJECT"
            .to_owned(),
    ];
    (provider, install)
}

/// Keycloak, "Federated client authentication" (26.4): an identity provider for the issuer, and a client that names its
/// alias and the subject.
fn keycloak(policy: &Policy) -> Result<(Value, Vec<String>), Error> {
    let subject = exact(policy, "Keycloak compares `sub` whole, and this platform's changes with every run")?;
    let alias = format!("safeconduct-{}", policy.platform);
    let realm = json!({
        "identityProvider": {
            "alias": alias, "providerId": "oidc",
            "config": { "issuer": policy.issuer, "supportsClientAssertions": "true", "useJwksUrl": "true" },
        },
        "client": {
            "clientAuthenticatorType": "federated-jwt", "serviceAccountsEnabled": true, "publicClient": false,
            "attributes": { "jwt.credential.issuer": alias, "jwt.credential.sub": subject },
        },
    });
    let install = vec![
        "kcadm.sh create identity-provider/instances -r REALM -f identityProvider.json".to_owned(),
        "kcadm.sh update clients/ID -r REALM -f client.json".to_owned(),
    ];
    Ok((realm, install))
}

fn exact<'a>(policy: &'a Policy, what: &str) -> Result<&'a str, Error> {
    match &policy.subject {
        Subject::Exactly(sub) => Ok(sub),
        Subject::StartsWith(_) => Err(Error::Inexpressible {
            what: what.to_owned(),
            cure: "let a security token service that can compare claims stand between (`exchange = \"token-exchange\"` in \
                [identities]), or see `--for generic`",
        }),
    }
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

/// A CEL string literal.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// Quotes a text as one word of a shell.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
