mod table;

use serde_json::json;

use super::*;
use crate::platform::text;

fn claims(value: Value) -> Claims {
    value.as_object().cloned().expect("an object")
}

fn github(more: Value) -> Claims {
    let mut all = claims(json!({
        "iss": "https://token.actions.githubusercontent.com", "aud": "https://as.example.com",
        "sub": "repo:octo-org/octo-repo:ref:refs/heads/main", "repository_id": "74", "repository_owner_id": "65",
        "ref": "refs/heads/main", "event_name": "push",
    }));
    all.extend(claims(more));
    all
}

/// The policy for claims from this source.
fn of(source: &str, claims: &Claims) -> Result<Policy, Error> {
    let issuer = text(claims, "iss");
    Policy::of(crate::identity::platform(crate::identity::row(source), issuer), claims, source != "file")
}

fn written(source: &str, claims: &Claims, shape: Shape, side: &Side<'_>) -> Result<Value, Error> {
    of(source, claims).and_then(|policy| policy.for_shape(shape, side))
}

fn policy(source: &str, claims: &Claims, shape: Shape) -> Value {
    written(source, claims, shape, &Side::default()).unwrap_or_else(|error| panic!("{error}"))
}

const SHAPES: [Shape; 9] = [
    Shape::Entra,
    Shape::Aws,
    Shape::Gcp,
    Shape::Keycloak,
    Shape::Okta,
    Shape::Generic,
    Shape::Toolhive,
    Shape::Anthropic,
    Shape::Openai,
];

/// One identity of each kind: its source, and its claims.
fn identities() -> Vec<(String, Claims)> {
    let read: Claims = serde_json::from_str(include_str!("identities.json")).expect("JSON");
    let others = [("github-actions", github(json!({}))), ("gitlab-ci", gitlab(json!({}))), ("buildkite", buildkite())];
    let others = others.map(|(source, claims)| (source.to_owned(), claims));
    read.into_iter().map(|(source, value)| (source, claims(value))).chain(others).collect()
}

/// The identity of this kind.
fn identity(source: &str) -> Claims {
    identities().into_iter().find(|(name, _)| name == source).expect("a row").1
}

fn gitlab(more: Value) -> Claims {
    let mut all = claims(json!({
        "iss": "https://gitlab.com", "aud": "https://as.example.com", "sub": "project_path:g/p:ref_type:branch:ref:main",
        "project_id": "1", "namespace_id": "2", "ref_protected": "true", "pipeline_source": "push", "jti": "1",
        "iat": 1_000, "exp": 4_600,
    }));
    all.extend(claims(more));
    all
}

fn buildkite() -> Claims {
    claims(json!({
        "iss": "https://agent.buildkite.com", "aud": "a", "organization_slug": "acme", "pipeline_slug": "app",
        "build_branch": "main", "sub": "organization:acme:pipeline:app:ref:refs/heads/main:commit:9f:step:build",
    }))
}

#[test]
fn github_is_pinned_by_numbers_beside_its_names() {
    let policy = policy("github-actions", &github(json!({})), Shape::Generic);
    assert_eq!(
        policy["policy"],
        json!({
            "iss": "https://token.actions.githubusercontent.com", "aud": "https://as.example.com",
            "sub": "repo:octo-org/octo-repo:ref:refs/heads/main",
            "claims": { "repository_id": "74", "repository_owner_id": "65" },
        })
    );
    assert!(policy["warnings"].to_string().contains("immutable subjects"), "{policy}");
}

#[test]
fn an_identity_that_a_stranger_can_obtain_gets_no_policy() {
    for (source, claims) in [
        ("github-actions", github(json!({ "event_name": "pull_request" }))),
        ("file", github(json!({ "event_name": "pull_request_target" }))),
        ("env", github(json!({ "sub": "repo:octo-org/octo-repo:pull_request", "event_name": "" }))),
        (
            "gitlab-ci",
            claims(json!({
                "iss": "https://gitlab.example.com", "aud": "a", "sub": "project_path:g/p:ref_type:branch:ref:x",
                "project_id": "1", "namespace_id": "2", "pipeline_source": "merge_request_event",
            })),
        ),
    ] {
        assert!(matches!(of(source, &claims), Err(Error::Stranger { .. })), "{source} {claims:?}");
    }
}

#[test]
fn a_shared_issuer_without_the_organisation_gets_no_policy() {
    let mut without = github(json!({}));
    without.remove("repository_owner_id");
    assert!(matches!(of("file", &without), Err(Error::Missing { claim }) if claim.contains("owner")));
}

#[test]
fn a_subject_that_changes_with_every_run_is_pinned_by_its_beginning() {
    let buildkite = buildkite();
    let generic = policy("buildkite", &buildkite, Shape::Generic);
    assert_eq!(generic["policy"]["sub_starts_with"], "organization:acme:pipeline:app:ref:refs/heads/main:commit:");
    assert_eq!(generic["policy"]["claims"]["organization_slug"], "acme");
    let aws = policy("buildkite", &buildkite, Shape::Aws);
    let like = &aws["policy"]["Statement"][0]["Condition"]["StringLike"]["agent.buildkite.com:sub"];
    assert_eq!(like, "organization:acme:pipeline:app:ref:refs/heads/main:commit:*");
    for whole in [Shape::Entra, Shape::Keycloak, Shape::Toolhive] {
        let refused = written("buildkite", &buildkite, whole, &Side::default());
        assert!(matches!(refused, Err(Error::Inexpressible { .. })), "{whole:?}");
    }
    assert_eq!(
        policy("buildkite", &buildkite, Shape::Anthropic)["policy"]["federation_rule"]["match"]["subject_prefix"],
        "organization:acme:pipeline:app:ref:refs/heads/main:commit:*"
    );
    // The pinned claims say the same.
    assert_eq!(
        policy("buildkite", &buildkite, Shape::Openai)["policy"]["federation_rule"]["attribute_matchers"],
        json!({ "organization_slug": "acme", "pipeline_slug": "app", "build_branch": "main" })
    );
}

#[test]
fn stars_in_a_subject_stand_for_themselves() {
    let odd = claims(json!({
        "iss": "https://agent.buildkite.com", "aud": "a", "organization_slug": "acme", "pipeline_slug": "app",
        "build_branch": "*", "sub": "organization:acme:pipeline:app:ref:*?:commit:9f:step:build",
    }));
    let aws = policy("buildkite", &odd, Shape::Aws);
    let like = &aws["policy"]["Statement"][0]["Condition"]["StringLike"]["agent.buildkite.com:sub"];
    assert_eq!(like, "organization:acme:pipeline:app:ref:${*}${?}:commit:*");
}

#[test]
fn the_shapes_of_the_clouds_say_the_same() {
    let github = github(json!({}));
    let entra = policy("github-actions", &github, Shape::Entra);
    assert_eq!(entra["policy"]["subject"], github["sub"]);
    assert_eq!(entra["policy"]["audiences"], json!(["https://as.example.com"]));
    let aws = policy("github-actions", &github, Shape::Aws);
    let equals = &aws["policy"]["Statement"][0]["Condition"]["StringEquals"];
    assert_eq!(equals["token.actions.githubusercontent.com:sub"], github["sub"]);
    assert_eq!(equals["token.actions.githubusercontent.com:aud"], "https://as.example.com");
    let gcp = policy("github-actions", &github, Shape::Gcp);
    let condition = gcp["policy"]["attributeCondition"].as_str().expect("a text");
    assert!(condition.contains("assertion[\"repository_owner_id\"] == \"65\""), "{condition}");
    let keycloak = policy("github-actions", &github, Shape::Keycloak);
    assert_eq!(keycloak["policy"]["client"]["attributes"]["jwt.credential.sub"], github["sub"]);
}

#[test]
fn several_audiences_are_nobodys_policy() {
    let several = github(json!({ "aud": ["one", "two"] }));
    assert!(matches!(of("file", &several), Err(Error::Missing { .. })));
}

#[test]
fn an_unknown_platform_is_pinned_whole_and_said_to_be_unknown() {
    let other = claims(json!({ "iss": "https://idp.example.com", "aud": "a", "sub": "machine-7" }));
    let policy = policy("file", &other, Shape::Generic);
    assert_eq!((&policy["platform"], &policy["policy"]["sub"]), (&json!("other"), &json!("machine-7")));
    assert!(policy["warnings"].to_string().contains("not one that is known"));
}

#[test]
fn each_shape_has_its_row() {
    for shape in SHAPES {
        let name = clap::ValueEnum::to_possible_value(&shape).expect("a value");
        assert_eq!(shape.as_str(), name.get_name());
    }
}

/// What is said to be pinned is in the document, and everything else that the platform's policy should pin is said to be left.
#[test]
fn a_shape_pins_what_it_says_and_says_what_it_leaves() {
    for (source, claims) in identities() {
        let wanted = of(&source, &claims).unwrap_or_else(|error| panic!("{source}: {error}"));
        for shape in SHAPES {
            let Ok(report) = written(&source, &claims, shape, &Side::default()) else { continue };
            let document = report["policy"].to_string().replace("\\\"", "\"");
            let said = |name: &str| report[name].as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
            let (pinned, left) = (said("why"), said("not_compared"));
            assert_eq!(pinned.len() + left.len(), wanted.claims.len(), "{source} {shape:?}");
            for one in &wanted.claims {
                let name = one.path.last().expect("a path");
                let value = one.value.as_str().map_or_else(|| one.value.to_string(), str::to_owned);
                let is_there = document.contains(&value) && document.contains(name);
                let is_said = pinned.contains(&one.path.join("."));
                assert!(!is_said || is_there, "{source} {shape:?} says {name}: {document}");
                assert!(is_said || left.contains(&one.path.join(".")), "{source} {shape:?} is silent about {name}");
            }
        }
    }
}

#[test]
fn for_a_github_subject_without_a_ref_there_is_no_policy() {
    for sub in ["repo:acme/shop", "repository_owner_id:65:repository_id:74", "repo:acme/shop:actor:environment"] {
        for shape in SHAPES {
            let refused = written("github-actions", &github(json!({ "sub": sub })), shape, &Side::default());
            assert!(
                matches!(&refused, Err(Error::Stranger { why, .. }) if why.contains("pull requests")),
                "{shape:?} {sub} {refused:?}"
            );
        }
    }
    for sub in
        ["ref:refs/heads/main", "job_workflow_ref:acme/x/.github/workflows/y.yml@refs/heads/main:ref:refs/heads/main"]
    {
        let refused = written("github-actions", &github(json!({ "sub": sub })), Shape::Entra, &Side::default());
        assert!(matches!(&refused, Err(Error::Stranger { why, .. }) if why.contains("strangers")), "{sub} {refused:?}");
    }
    for sub in [
        "repo:acme/shop:environment:prod",
        "repository_id:74:ref:refs/tags/v1",
        "repo:acme@65/shop@74:ref:refs/heads/main:job_workflow_ref:acme/x/.github/workflows/y.yml@refs/heads/main",
    ] {
        assert!(of("github-actions", &github(json!({ "sub": sub }))).is_ok(), "{sub}");
    }
}

#[test]
fn for_a_gitlab_or_vercel_subject_without_what_the_check_looks_at_there_is_no_policy() {
    for sub in ["project_path:g/p", "project_path:g/p:ref_type:branch", "project_path:g/p:ref_type:branch:ref:"] {
        let refused = written("gitlab-ci", &gitlab(json!({ "sub": sub })), Shape::Aws, &Side::default());
        assert!(matches!(&refused, Err(Error::Stranger { why, .. }) if why.contains("merge requests")), "{sub}");
    }
    let mut vercel = identity("vercel");
    vercel.insert("sub".to_owned(), json!("owner:acme:project:shop"));
    assert!(matches!(of("vercel", &vercel), Err(Error::Stranger { .. })));
}

#[test]
fn aws_compares_the_numbers_that_it_knows_for_an_issuer() {
    let rows: [(&str, Claims, &[&str]); 6] = [
        ("github-actions", github(json!({})), &["repository_id", "repository_owner_id"]),
        (
            "github-actions",
            github(json!({ "iss": "https://token.actions.acme.ghe.com" })),
            &["repository_id", "repository_owner_id"],
        ),
        ("github-actions", github(json!({ "iss": "https://github.example.com/_services/token" })), &[]),
        ("gitlab-ci", gitlab(json!({})), &["namespace_id", "project_id", "ref_protected"]),
        ("gitlab-ci", gitlab(json!({ "iss": "https://gitlab.example.com" })), &[]),
        ("buildkite", buildkite(), &["organization_slug", "pipeline_slug", "build_branch"]),
    ];
    for (source, claims, known) in rows {
        let issuer = text(&claims, "iss").trim_start_matches("https://").to_owned();
        let report = policy(source, &claims, Shape::Aws);
        let equals = report["policy"]["Statement"][0]["Condition"]["StringEquals"].as_object().expect("keys").clone();
        for name in known {
            assert_eq!(equals[&format!("{issuer}:{name}")], claims[*name], "{issuer}");
        }
        let others = equals.keys().filter(|key| !key.ends_with(":aud") && !key.ends_with(":sub")).count();
        assert_eq!(others, known.len(), "{issuer} {equals:?}");
    }
}

#[test]
fn aws_for_circleci_pins_what_it_says() {
    let (source, claims) = ("circleci", identity("circleci"));
    let report = policy(source, &claims, Shape::Aws);
    let condition = &report["policy"]["Statement"][0]["Condition"];
    assert_eq!(condition["StringEquals"]["oidc.circleci.com/org/o1:oidc.circleci.com/project-id"], "p1");
    assert_eq!(condition["StringLike"]["oidc.circleci.com/org/o1:sub"], "org/o1/project/p1/user/*");
    let left: Vec<&String> = report["not_compared"].as_object().expect("claims").keys().collect();
    assert_eq!(left, ["oidc.circleci.com/ssh-rerun", "oidc.circleci.com/vcs-origin"]);
}

#[test]
fn aws_for_google_knows_what_aud_means_there() {
    let (source, mut claims) = ("gcp", identity("gcp"));
    let report = policy(source, &claims, Shape::Aws);
    let statement = &report["policy"]["Statement"][0];
    assert_eq!(statement["Principal"]["Federated"], "accounts.google.com");
    assert_eq!(
        statement["Condition"]["StringEquals"],
        json!({ "accounts.google.com:oaud": "https://as.example.com", "accounts.google.com:sub": "1234567890" })
    );
    assert!(!report["install"].to_string().contains("create-open-id-connect-provider"), "{report}");
    claims.remove("azp");
    let without = policy(source, &claims, Shape::Aws);
    let equals = &without["policy"]["Statement"][0]["Condition"]["StringEquals"];
    assert_eq!(equals["accounts.google.com:aud"], "https://as.example.com");
}

#[test]
fn aws_takes_no_token_of_its_own() {
    let (source, claims) = ("aws", identity("aws"));
    let refused = written(source, &claims, Shape::Aws, &Side::default());
    assert!(matches!(refused, Err(Error::Inexpressible { .. })));
}

#[test]
fn aws_keeps_the_slash_of_an_entra_issuer() {
    let (source, claims) = ("azure", identity("azure"));
    let issuer = "sts.windows.net/11111111-2222-3333-4444-555555555555/";
    let report = policy(source, &claims, Shape::Aws);
    let statement = &report["policy"]["Statement"][0];
    assert_eq!(statement["Principal"]["Federated"], format!("arn:aws:iam::ACCOUNT:oidc-provider/{issuer}"));
    assert_eq!(statement["Condition"]["StringEquals"][format!("{issuer}:sub")], "oid-1");
    assert!(report["install"][0].as_str().expect("a text").contains(&format!("--url 'https://{issuer}'")));
}

#[test]
fn aws_has_the_partition_of_the_role() {
    for (role, provider, name) in [
        ("arn:aws-us-gov:iam::123456789012:role/agent", "arn:aws-us-gov:iam::123456789012:", "agent"),
        ("arn:aws-cn:iam::123456789012:role/path/to/agent", "arn:aws-cn:iam::123456789012:", "agent"),
        ("arn:aws-eusc:iam::123456789012:role/a", "arn:aws-eusc:iam::123456789012:", "a"),
    ] {
        let side = Side { role_arn: Some(role), ..Side::default() };
        let report = written("github-actions", &github(json!({})), Shape::Aws, &side).expect("a policy");
        let federated = &report["policy"]["Statement"][0]["Principal"]["Federated"];
        assert_eq!(federated, &format!("{provider}oidc-provider/token.actions.githubusercontent.com"));
        assert!(report["install"][1].as_str().expect("a text").contains(&format!("--role-name '{name}'")), "{report}");
        assert!(report["here"].as_str().expect("a text").contains(role), "{report}");
    }
}

#[test]
fn keycloak_is_told_where_the_keys_are() {
    let keys = "https://token.actions.githubusercontent.com/.well-known/jwks";
    let side = Side {
        name: "demo",
        url: "https://mcp.example.com/mcp",
        issuer: Some("https://keycloak.example.com/realms/agents"),
        keys: Some(keys),
        ..Side::default()
    };
    let mut github = github(json!({ "jti": "1", "iat": 0, "exp": 300 }));
    let report = written("github-actions", &github, Shape::Keycloak, &side).expect("a policy");
    let (provider, client) = (&report["policy"]["identityProvider"], &report["policy"]["client"]);
    assert_eq!(provider["config"]["jwksUrl"], keys);
    assert!(report["install"][0].as_str().expect("a text").ends_with("-r 'agents' -f -"), "{report}");
    assert_eq!(provider["config"]["supportsClientAssertionReuse"], "false");
    assert_eq!(client["attributes"]["jwt.credential.issuer"], provider["alias"]);
    assert_eq!(client["standardFlowEnabled"], false);
    assert_eq!(client["protocolMappers"][0]["config"]["included.custom.audience"], "https://mcp.example.com/mcp");
    assert!(!report["warnings"].to_string().contains("KEYS"));
    // Without `jti` it cannot be used once.
    github.remove("jti");
    let report = written("github-actions", &github, Shape::Keycloak, &side).expect("a policy");
    assert_eq!(report["policy"]["identityProvider"]["config"]["supportsClientAssertionReuse"], "true");
    // Nor can a token that is presented again, which gets old meanwhile.
    let report = written("file", &gitlab(json!({})), Shape::Keycloak, &Side::default()).expect("a policy");
    let config = &report["policy"]["identityProvider"]["config"];
    assert_eq!(
        (&config["supportsClientAssertionReuse"], &config["fedClientAssertionMaxExp"]),
        (&json!("true"), &json!("3600"))
    );
    assert!(report["warnings"].to_string().contains("KEYS") && config["jwksUrl"] == "KEYS", "{report}");
}

#[test]
fn keycloak_has_types_for_kubernetes_and_spiffe() {
    for (source, kind, config) in [
        ("kubernetes", "kubernetes", json!({ "issuer": "https://oidc.eks.eu-central-1.amazonaws.com/id/ABC" })),
        ("spiffe", "spiffe", json!({ "trustDomain": "spiffe://example.org", "bundleEndpoint": "https://k" })),
    ] {
        let mut claims = identity(source);
        let side = Side { keys: Some("https://k"), ..Side::default() };
        let report = written(source, &claims, Shape::Keycloak, &side).expect("a policy");
        let provider = &report["policy"]["identityProvider"];
        assert_eq!((&provider["providerId"], &provider["config"]), (&json!(kind), &config));
        claims.remove("iss");
        // A JWT-SVID needs no issuer there; a service account's token does.
        assert_eq!(written(source, &claims, Shape::Keycloak, &side).is_ok(), kind == "spiffe");
        assert!(matches!(written(source, &claims, Shape::Entra, &side), Err(Error::Missing { .. })));
    }
}

#[test]
fn google_subject_has_127_bytes() {
    let long = format!("repo:acme@65/shop@74:ref:refs/heads/{}", "x".repeat(120));
    let report = policy("github-actions", &github(json!({ "sub": long })), Shape::Gcp);
    let mapping = report["policy"]["attributeMapping"]["google.subject"].as_str().expect("a text");
    let (start, end) = long.split_at(long.len() - 127);
    assert_eq!(mapping, format!("assertion.sub.extract(\"{start}{{subject}}\")"));
    assert!(report["policy"]["attributeCondition"].as_str().expect("a text").contains(&long), "{report}");
    assert!(report["install"][1].as_str().expect("a text").ends_with(&format!("/subject/{end}'")), "{report}");
    // A character is not cut in two.
    let odd = format!("spiffe://example.org/{}", "é".repeat(100));
    let mut spiffe = identity("spiffe");
    spiffe.insert("sub".to_owned(), json!(odd));
    let mapping = policy("spiffe", &spiffe, Shape::Gcp)["policy"]["attributeMapping"]["google.subject"].to_string();
    assert_eq!(mapping.matches('é').count(), 37, "{mapping}");
    spiffe.insert("sub".to_owned(), json!(format!("spiffe://{{x}}/{}", "y".repeat(200))));
    let refused = written("spiffe", &spiffe, Shape::Gcp, &Side::default());
    assert!(matches!(refused, Err(Error::Inexpressible { what, .. }) if what.contains("127")));
}

#[test]
fn google_names_a_workload_the_same_in_every_run() {
    for (source, mapping, subject) in [
        ("fly", "assertion[\"org_id\"] + \":\" + assertion[\"app_id\"] + \":\" + assertion[\"app_name\"]", "7:8:app"),
        (
            "circleci",
            "assertion[\"oidc.circleci.com/project-id\"] + \":\" + assertion[\"oidc.circleci.com/vcs-origin\"]",
            "p1:github.com/acme/app",
        ),
    ] {
        let claims = identity(source);
        let report = policy(source, &claims, Shape::Gcp);
        assert_eq!(report["policy"]["attributeMapping"]["google.subject"], mapping);
        assert!(report["install"][1].as_str().expect("a text").ends_with(&format!("/subject/{subject}'")), "{report}");
    }
}

#[test]
fn the_pool_of_the_audience_is_in_the_commands() {
    let pool = "https://iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/agents/providers/ci";
    let report = policy("github-actions", &github(json!({ "aud": pool })), Shape::Gcp);
    let first = report["install"][0].as_str().expect("a text");
    assert!(first.contains("create-oidc 'ci'") && first.contains("--workload-identity-pool 'agents'"), "{first}");
    let here = report["here"].as_str().expect("a text");
    assert!(
        here.contains("pool = \"projects/7/locations/global/workloadIdentityPools/agents/providers/ci\""),
        "{here}"
    );
}

#[test]
fn entra_for_a_managed_identity_wants_the_audience_by_name() {
    let (source, claims) = ("azure", identity("azure"));
    for name in ["api://AzureADTokenExchange", "api://AzureADTokenExchangeUSGov"] {
        let side = Side { audience: Some(name), ..Side::default() };
        let report = written(source, &claims, Shape::Entra, &side).expect("a policy");
        assert_eq!(report["policy"]["audiences"], json!([name]));
        // A token that has a name keeps it.
        let report = written("github-actions", &github(json!({})), Shape::Entra, &side).expect("a policy");
        assert_eq!(report["policy"]["audiences"], json!(["https://as.example.com"]));
    }
}

#[test]
fn an_issuer_inside_a_cluster_is_not_for_who_fetches_keys_from_outside() {
    let (source, mut claims) = ("kubernetes", identity("kubernetes"));
    for shape in [Shape::Aws, Shape::Entra, Shape::Gcp, Shape::Anthropic, Shape::Openai] {
        assert!(!policy(source, &claims, shape)["warnings"].to_string().contains("from outside"), "{shape:?}");
    }
    for issuer in ["https://kubernetes.default.svc.cluster.local", "https://10.0.0.1:6443", "http://oidc.example.com"] {
        claims.insert("iss".to_owned(), json!(issuer));
        for shape in [Shape::Aws, Shape::Entra, Shape::Gcp, Shape::Anthropic, Shape::Openai] {
            let warnings = policy(source, &claims, shape)["warnings"].to_string();
            assert!(warnings.contains("from outside") && warnings.contains(issuer), "{shape:?} {warnings}");
        }
        for shape in [Shape::Keycloak, Shape::Generic, Shape::Toolhive] {
            assert!(!policy(source, &claims, shape)["warnings"].to_string().contains("from outside"), "{shape:?}");
        }
    }
}

#[test]
fn install_commands_are_whole() {
    let odd = format!("repo:a/b:environment:it's $(x), ~ ::add-mask::{}\u{202e}", "y".repeat(900));
    let github = github(json!({ "sub": odd }));
    for shape in SHAPES {
        let Ok(report) = written("github-actions", &github, shape, &Side::default()) else { continue };
        for step in report["install"].as_array().expect("steps") {
            let step = step.as_str().expect("a text");
            assert!(!step.contains(['…', '\n', '\u{202e}']) && !step.contains("::"), "{step}");
        }
    }
    let gcp = policy("github-actions", &github, Shape::Gcp)["install"][0].as_str().expect("a text").to_owned();
    // A comma would end an entry of the mapping.
    assert!(gcp.contains(&"y".repeat(900)) && gcp.contains("--attribute-mapping $'^|^google.subject="), "{gcp}");
}

#[test]
fn toolhive_binds_the_subject_to_the_server() {
    let side = Side {
        url: "http://127.0.0.1:4483/mcp",
        keys: Some("http://127.0.0.1:8500/jwks"),
        issuer: Some("http://127.0.0.1:4483"),
        ..Side::default()
    };
    let claims = github(json!({ "iss": "http://127.0.0.1:8500", "iat": 0, "exp": 610 }));
    let report = written("github-actions", &claims, Shape::Toolhive, &side).expect("a policy");
    let issuer = &report["policy"]["trusted_issuers"][0];
    assert_eq!((&issuer["insecure_allow_http"], &issuer["allow_private_ips"]), (&json!(true), &json!(true)));
    let policy = &report["policy"]["inbound_grants"]["jwt_bearer"]["issuer_policies"][0];
    assert_eq!((&policy["issuer_ref"], &policy["max_assertion_age"]), (&issuer["name"], &json!("11m")));
    assert_eq!(
        policy["subject_bindings"],
        json!([{ "subject": claims["sub"], "allowed_resources": ["http://127.0.0.1:4483/mcp"] }])
    );
    let here = report["here"].as_str().expect("a text");
    assert!(here.contains("subject_audience = \"https://as.example.com\""), "{here}");
    let public = written("github-actions", &github(json!({})), Shape::Toolhive, &side).expect("a policy");
    assert!(public["policy"]["trusted_issuers"][0].get("allow_private_ips").is_none());
}

#[test]
fn anthropic_writes_what_is_no_text_as_a_condition() {
    for (source, rule) in [
        (
            "github-actions",
            json!({
                "audience": "https://as.example.com", "subject_prefix": "repo:octo-org/octo-repo:ref:refs/heads/main",
                "claims": { "repository_id": "74", "repository_owner_id": "65" },
            }),
        ),
        (
            "kubernetes",
            json!({
                "audience": "https://as.example.com", "subject_prefix": "system:serviceaccount:demo:agent",
                "condition": "claims[\"kubernetes.io\"][\"namespace\"] == \"demo\"",
            }),
        ),
        (
            "circleci",
            json!({
                "audience": "https://as.example.com", "subject_prefix": "org/o1/project/p1/user/*",
                "claims": { "oidc.circleci.com/project-id": "p1", "oidc.circleci.com/vcs-origin": "github.com/acme/app" },
                "condition": "claims[\"oidc.circleci.com/ssh-rerun\"] == false",
            }),
        ),
    ] {
        let claims = identity(source);
        assert_eq!(policy(source, &claims, Shape::Anthropic)["policy"]["federation_rule"]["match"], rule);
    }
    // A star at the end would make a beginning of it.
    let mut spiffe = identity("spiffe");
    spiffe.insert("sub".to_owned(), json!("spiffe://example.org/*"));
    let rule = policy("spiffe", &spiffe, Shape::Anthropic)["policy"]["federation_rule"]["match"].clone();
    assert!(
        rule.get("subject_prefix").is_none() && rule["condition"] == "claims.sub == \"spiffe://example.org/*\"",
        "{rule}"
    );
}

#[test]
fn openai_compares_claims_of_the_first_level() {
    let (source, claims) = ("kubernetes", identity("kubernetes"));
    let report = policy(source, &claims, Shape::Openai);
    assert_eq!(report["policy"]["federation_rule"]["attribute_matchers"], json!({ "sub": claims["sub"] }));
    assert!(report["not_compared"].get("kubernetes.io.namespace").is_some(), "{report}");
    assert_eq!(report["policy"]["workload_identity_provider"]["audience"], "https://as.example.com");
}

#[test]
fn the_lines_for_our_configuration_are_toml() {
    for (source, claims) in identities() {
        for shape in SHAPES {
            let side = Side { name: "demo", url: "https://mcp.example.com/mcp", ..Side::default() };
            let Ok(report) = written(&source, &claims, shape, &side) else { continue };
            let here = report["here"].as_str().expect("a text");
            let read: Result<toml::Table, _> = here.parse();
            assert!(read.is_ok_and(|table| !table.is_empty()), "{shape:?}\n{here}");
        }
    }
}

#[test]
fn a_job_of_jenkins_is_pinned_and_that_of_a_pull_request_gets_no_policy() {
    let policy = |sub: &str| {
        let claims = claims(json!({
            "iss": "https://ci.example.com/oidc", "aud": "https://as.example.com", "sub": sub, "build_number": "7",
        }));
        written("jenkins", &claims, Shape::Generic, &Side::default())
    };
    let job = "https://ci.example.com/job/agents/job/main/";
    assert_eq!(
        policy(job).expect("a policy")["policy"],
        json!({ "iss": "https://ci.example.com/oidc", "aud": "https://as.example.com", "sub": job, "claims": {} })
    );
    for request in ["https://ci.example.com/job/agents/job/PR-7/", "https://ci.example.com/job/agents/job/MR-12"] {
        assert!(matches!(policy(request), Err(Error::Stranger { .. })), "{request}");
    }
    assert!(policy("https://ci.example.com/job/PR-tools/").is_ok(), "a name that begins so");
    // This subject would match the whole instance.
    assert!(matches!(policy("https://ci.example.com/"), Err(Error::Missing { .. })));
}
