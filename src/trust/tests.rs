use serde_json::json;

use super::*;

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
    Policy::of(crate::identity::platform(crate::identity::row(source), issuer), claims)
}

fn policy(source: &str, claims: &Claims, shape: Shape) -> Value {
    let policy = of(source, claims).and_then(|policy| policy.for_shape(shape, None));
    policy.unwrap_or_else(|error| panic!("{error}"))
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
    let buildkite = claims(json!({
        "iss": "https://agent.buildkite.com", "aud": "a", "organization_slug": "acme", "pipeline_slug": "app",
        "build_branch": "main", "sub": "organization:acme:pipeline:app:ref:refs/heads/main:commit:9f:step:build",
    }));
    let generic = policy("buildkite", &buildkite, Shape::Generic);
    assert_eq!(generic["policy"]["sub_starts_with"], "organization:acme:pipeline:app:ref:refs/heads/main:commit:");
    assert_eq!(generic["policy"]["claims"]["organization_slug"], "acme");
    let aws = policy("buildkite", &buildkite, Shape::Aws);
    let like = &aws["policy"]["Statement"][0]["Condition"]["StringLike"]["agent.buildkite.com:sub"];
    assert_eq!(like, "organization:acme:pipeline:app:ref:refs/heads/main:commit:*");
    let refused = of("buildkite", &buildkite).and_then(|policy| policy.for_shape(Shape::Entra, None));
    assert!(matches!(refused, Err(Error::Inexpressible { .. })));
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
