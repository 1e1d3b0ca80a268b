//! The products that check a policy: one row for each says what it can compare, where it gets the issuer's keys, how the
//! document is installed, and what belongs into our configuration. The formats themselves are in `documents`.
//!
//! Sources: Microsoft, "Federated identity credentials" and Microsoft Graph, "Create federatedIdentityCredential". AWS, Service
//! Authorization Reference, "AWS Security Token Service" and IAM User Guide, "IAM and AWS STS condition context keys" (the keys of
//! January 2026 and after). Google Cloud, "Attribute mappings and conditions". Keycloak, "Federated client authentication" (26.4
//! and later). ToolHive, `pkg/authserver` (`inbound_grants`). Claude API reference, "Create Federation Issuer" and "Create
//! Federation Rule". OpenAI API reference, "Create workload identity provider" and "Create workload identity federation rule".

use serde_json::Value;

use super::documents;
use super::quoting::{quoted, word};
use super::reach::{hidden, without_scheme};
use super::templates::fill;
use super::{Error, Pinned, Policy, Side, Subject, Writing};

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
    /// A trusted issuer and a policy of the authorization server in ToolHive.
    Toolhive,
    /// A federation issuer and a federation rule of the Claude API.
    Anthropic,
    /// A workload identity provider and a federation rule of the OpenAI API.
    Openai,
}

/// Which claims a product compares besides issuer, audience and subject.
#[derive(Clone, Copy)]
pub(crate) enum Compares {
    /// Every claim.
    All,
    /// Claims of the first level.
    FirstLevel,
    /// Those that it knows for this issuer: a pattern of the issuer without its scheme, and the claims.
    Known(&'static [(&'static str, &'static [&'static str])]),
    /// None.
    Nothing,
}

/// One product.
pub(crate) struct Product {
    shape: Shape,
    /// The value of `--for`.
    pub(crate) name: &'static str,
    pub(crate) compares: Compares,
    /// Does it compare `sub` only as a whole?
    pub(crate) whole_subject: bool,
    /// What to do if nobody outside can fetch the issuer's keys. `None`: it may be inside itself.
    pub(crate) fetches_keys: Option<&'static str>,
    document: fn(&Writing<'_>) -> Result<Value, Error>,
    /// Commands, or steps that have none.
    install: &'static [&'static str],
    /// What belongs into our configuration.
    here: &'static str,
}

/// AWS, as above. For any other issuer it compares `aud` and `sub` alone. CircleCI's claims have a name of their own before
/// their name.
const AWS_KNOWS: &[(&str, &[&str])] = &[
    ("token.actions.githubusercontent.com", GITHUB),
    ("token.actions.githubusercontent.com/*", GITHUB),
    ("token.actions.*.ghe.com", GITHUB),
    ("gitlab.com", &["namespace_id", "project_id", "ref_protected"]),
    ("agent.buildkite.com", &["organization_slug", "pipeline_slug", "organization_id", "pipeline_id", "build_branch"]),
    ("oidc.circleci.com/org/*", &["oidc.circleci.com/project-id"]),
];
const GITHUB: &[&str] = &["repository_owner_id", "repository_id"];

const BY_GRANT: &str = "[servers.NAME]\nurl = {url}\nissuer = {server_issuer}\nsubject_audience = {audience}\n";

pub(crate) static PRODUCTS: [Product; 9] = [
    Product {
        shape: Shape::Entra,
        name: "entra",
        compares: Compares::Nothing,
        whole_subject: true,
        fetches_keys: Some("publish the issuer's discovery document and keys at a public https URL"),
        document: documents::entra,
        install: &["az ad app federated-credential create --id APPLICATION --parameters policy.json"],
        here: "[servers.NAME]\nurl = {url}\nexchange = \"entra\"\ntenant = \"TENANT\"\nclient_id = \"APPLICATION\"\n\
            scopes = [\"api://SERVER/.default\"]\n",
    },
    Product {
        shape: Shape::Aws,
        name: "aws",
        compares: Compares::Known(AWS_KNOWS),
        whole_subject: false,
        fetches_keys: Some("publish the issuer's discovery document and keys at a public https URL"),
        document: documents::aws,
        install: &[
            "aws iam create-open-id-connect-provider --url {issuer} --client-id-list {audience}",
            "aws iam update-assume-role-policy --role-name {role} --policy-document file://policy.json",
        ],
        here: "[identities.role]\nfrom = \"default\"\nexchange = \"aws-role\"\nrole_arn = {role_arn}\nregion = \"REGION\"\n\n\
            [servers.NAME]\nurl = {url}\nidentity = \"role\"\n",
    },
    Product {
        shape: Shape::Gcp,
        name: "gcp",
        compares: Compares::All,
        whole_subject: false,
        fetches_keys: Some(
            "upload them: save the issuer's JWKS as keys.json, and add `--jwk-json-path keys.json` to the first command",
        ),
        document: documents::gcp,
        install: &[
            "gcloud iam workload-identity-pools providers create-oidc {provider} --location global \
             --workload-identity-pool {pool} --issuer-uri {issuer} --allowed-audiences {audience} --attribute-mapping \
             {mapping} --attribute-condition {condition}",
            "gcloud iam service-accounts add-iam-policy-binding ACCOUNT --role roles/iam.workloadIdentityUser --member \
             {member}",
        ],
        here: "[identities.google]\nfrom = \"default\"\nexchange = \"gcp\"\npool = {whole_pool}\n\
            service_account = \"ACCOUNT\"\n\n[servers.NAME]\nurl = {url}\nidentity = \"google\"\n",
    },
    Product {
        shape: Shape::Keycloak,
        name: "keycloak",
        compares: Compares::Nothing,
        whole_subject: true,
        fetches_keys: None,
        document: documents::keycloak,
        install: &[
            "jq .identityProvider policy.json | kcadm.sh create identity-provider/instances -r {realm} -f -",
            "jq .client policy.json | kcadm.sh create clients -r {realm} -f -",
        ],
        here: "# Without `client_id`: Keycloak finds the client by the token's `sub`.\n[servers.NAME]\nurl = {url}\n\
            issuer = {server_issuer}\nexchange = \"client-credentials\"\nclient_auth = \"workload\"\n",
    },
    Product {
        shape: Shape::Okta,
        name: "okta",
        compares: Compares::Nothing,
        whole_subject: true,
        fetches_keys: None,
        document: documents::okta,
        install: &[],
        here: "",
    },
    Product {
        shape: Shape::Generic,
        name: "generic",
        compares: Compares::All,
        whole_subject: false,
        fetches_keys: None,
        document: documents::generic,
        install: &[
            "take a token only if its `iss`, `aud` and `sub` are those of the document, and so is each claim in `claims`",
            "check its signature with the issuer's keys: `jwks_uri` in {issuer}/.well-known/openid-configuration",
        ],
        here: BY_GRANT,
    },
    Product {
        shape: Shape::Toolhive,
        name: "toolhive",
        compares: Compares::Nothing,
        whole_subject: true,
        fetches_keys: None,
        document: documents::toolhive,
        install: &["yq eval-all -i '. as $item ireduce ({}; . *+ $item)' authserver-config.yaml policy.json"],
        here: BY_GRANT,
    },
    Product {
        shape: Shape::Anthropic,
        name: "anthropic",
        compares: Compares::All,
        whole_subject: false,
        fetches_keys: Some(
            "give the issuer's keys instead: `\"jwks\": {\"type\": \"inline\", …}` in `federation_issuer`",
        ),
        document: documents::anthropic,
        install: &[
            "jq .federation_issuer policy.json | curl https://api.anthropic.com/v1/organizations/federation_issuers -H \
             \"Authorization: Bearer $ANTHROPIC_ADMIN_TOKEN\" -H 'anthropic-version: 2023-06-01' -H 'Content-Type: \
             application/json' --data @-",
            "jq .federation_rule policy.json | curl https://api.anthropic.com/v1/organizations/federation_rules -H \
             \"Authorization: Bearer $ANTHROPIC_ADMIN_TOKEN\" -H 'anthropic-version: 2023-06-01' -H 'Content-Type: \
             application/json' --data @-",
        ],
        here: "# `safeconduct identity --audience A --file F` writes the file that the program reads: ANTHROPIC_IDENTITY_TOKEN_FILE,\n\
            # with ANTHROPIC_FEDERATION_RULE_ID, ANTHROPIC_ORGANIZATION_ID and ANTHROPIC_SERVICE_ACCOUNT_ID.\n\
            [[identities_for]]\naudience = {audience}\nallow = [{ uid = 1000 }]\n",
    },
    Product {
        shape: Shape::Openai,
        name: "openai",
        compares: Compares::FirstLevel,
        whole_subject: false,
        fetches_keys: Some(
            "upload them: `\"verification\": {\"type\": \"uploaded_jwks\", \"jwks\": …}` in `workload_identity_provider`",
        ),
        document: documents::openai,
        install: &[
            "jq .workload_identity_provider policy.json | curl \
             https://api.openai.com/v1/organization/workload_identity_providers -H \"Authorization: Bearer \
             $OPENAI_ADMIN_KEY\" -H 'Content-Type: application/json' --data @-",
            "jq .federation_rule policy.json | curl \
             https://api.openai.com/v1/organization/workload_identity_providers/PROVIDER_ID/federation_rules -H \
             \"Authorization: Bearer $OPENAI_ADMIN_KEY\" -H 'Content-Type: application/json' --data @-",
        ],
        here: "# `safeconduct identity --audience A --file F` writes the file that the program reads: for Codex\n\
            # OPENAI_IDENTITY_TOKEN_FILE, with OPENAI_FEDERATION_RULE_ID.\n\
            [[identities_for]]\naudience = {audience}\nallow = [{ uid = 1000 }]\n",
    },
];

/// The document, and what to say about it.
pub(super) struct Written<'a> {
    pub(super) document: Value,
    /// What the document pins.
    pub(super) pinned: Vec<&'a Pinned>,
    /// What this product cannot compare.
    pub(super) left: Vec<&'a Pinned>,
    pub(super) warnings: Vec<String>,
    pub(super) install: Vec<String>,
    pub(super) here: String,
}

impl Shape {
    pub(super) fn as_str(self) -> &'static str {
        self.product().name
    }

    /// Does the document name the place of the issuer's keys?
    pub(crate) fn names_keys(self) -> bool {
        matches!(self, Self::Keycloak | Self::Toolhive)
    }

    /// Its row. A test holds the rows in this order.
    fn product(self) -> &'static Product {
        &PRODUCTS[self as usize]
    }

    /// The document to install, and what to say about it.
    pub(super) fn write<'a>(self, policy: &'a Policy, side: &'a Side<'a>) -> Result<Written<'a>, Error> {
        let product = self.product();
        let is_compared = |pinned: &&Pinned| product.compares.knows(&policy.issuer, pinned);
        let (pinned, left) = policy.claims.iter().partition::<Vec<_>, _>(is_compared);
        if let (Subject::StartsWith(_), true) = (&policy.subject, product.whole_subject) {
            return Err(Error::Inexpressible {
                what: format!("{} compares `sub` whole, and this platform's changes with every run", product.name),
                cure: "let a security token service that can compare claims stand between (`exchange = \"token-exchange\"` in \
                    [identities]), or see `--for generic`",
            });
        }
        let writing = Writing { policy, side, pinned };
        let document = (product.document)(&writing)?;
        let mut install: Vec<String> = product.install.iter().map(|step| fill(step, &writing, word)).collect();
        if self == Self::Aws && documents::is_built_in(&policy.issuer) {
            install.remove(0);
        }
        let here = product.here(&writing);
        Ok(Written { document, left, warnings: product.warnings(policy, side), install, here, pinned: writing.pinned })
    }
}

impl Product {
    /// Is there a document that it takes at all?
    #[cfg(test)]
    pub(crate) fn makes_documents(&self) -> bool {
        self.shape != Shape::Okta
    }

    /// What belongs into our configuration. An audience that is the issuer is the usual one.
    fn here(&self, writing: &Writing<'_>) -> String {
        let Writing { policy, side, .. } = writing;
        let is_key = !side.name.is_empty()
            && side.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        let filled = fill(self.here, writing, quoted);
        let is_usual = side.issuer.is_none_or(|issuer| issuer == policy.audience);
        let lines = filled.lines().filter(|line| !(is_usual && line.starts_with("subject_audience")));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        if is_key { text.replace("[servers.NAME]", &format!("[servers.{}]", side.name)) } else { text }
    }

    /// What this product makes of the policy that its operator has to know.
    fn warnings(&self, policy: &Policy, side: &Side<'_>) -> Vec<String> {
        let mut all = Vec::new();
        if let (Some(cure), Some(why)) = (self.fetches_keys, hidden(&policy.issuer)) {
            let Policy { issuer, .. } = policy;
            all.push(format!("{} fetches the keys of {issuer} from outside and cannot ({why}): {cure}", self.name));
        }
        if self.shape == Shape::Keycloak && side.keys.is_none() && !documents::finds_keys(policy) {
            all.push(
                "the issuer's discovery document could not be read: put the URL of its keys in the place of KEYS"
                    .to_owned(),
            );
        }
        if self.shape == Shape::Keycloak {
            all.push(
                "Keycloak 26.7 takes one identity provider for each issuer of a realm: if there is one already, use its alias as \
                 `jwt.credential.issuer`, and leave out the first command"
                    .to_owned(),
            );
        }
        all
    }
}

impl Compares {
    fn knows(self, issuer: &str, pinned: &Pinned) -> bool {
        match self {
            Self::All => true,
            Self::FirstLevel => pinned.path.len() == 1,
            Self::Nothing => false,
            Self::Known(rows) => {
                let issuer = without_scheme(issuer);
                let known = rows.iter().find(|(pattern, _)| matches(pattern, issuer));
                known.is_some_and(|(_, names)| matches!(pinned.path, [name] if names.contains(name)))
            }
        }
    }
}

/// Does the text match a pattern with at most one `*`?
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => text.len() > start.len() + end.len() && text.starts_with(start) && text.ends_with(end),
    }
}
