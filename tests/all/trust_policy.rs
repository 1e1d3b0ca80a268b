//! `trust-policy`: a rule made only from its output admits the workload, and refuses it if any claim differs. An identity that a
//! stranger could obtain gets no rule.

use serde_json::{Value, json};
use support::aws::FakeAws;
use support::entra::FakeEntra;
use support::platform::PlatformFault;
use support::safeconduct::Safeconduct;
use support::scene::Scene;

use crate::binary;
use crate::exit::{ASKED_WRONGLY, DENIED, REFUSED};

async fn policy(world: &Safeconduct, shape: &str, more: &[&str]) -> Value {
    let words = [&["trust-policy", "demo", "--json", "--for", shape], more].concat();
    world.run(&words).await.expect_code(0).json()
}

/// Copies of a rule, each with one compared value changed.
fn tampered(rule: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for name in ["iss", "aud", "sub"] {
        let mut other = rule.clone();
        other[name] = json!(format!("{}x", rule[name].as_str().expect("a text")));
        all.push(other);
    }
    for name in rule["claims"].as_object().expect("claims").keys() {
        let mut other = rule.clone();
        other["claims"][name] = json!("another");
        all.push(other);
    }
    all
}

#[tokio::test]
async fn a_rule_made_from_the_output_alone_lets_the_workload_in_and_nobody_else() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let rule = policy(&world, "generic", &[]).await["policy"].clone();
    assert_eq!(
        (&rule["aud"], &rule["claims"]["repository_owner_id"]),
        (&json!(scene.authorization_server.issuer()), &json!("65"))
    );
    scene.authorization_server.set_rule(rule.clone());
    world.run(&["token", "demo", "--no-daemon"]).await.expect_code(0);
    let wrong = tampered(&rule);
    assert!(wrong.len() >= 5, "{rule}");
    for wrong in wrong {
        scene.authorization_server.set_rule(wrong);
        world.run(&["token", "demo", "--no-daemon"]).await.expect_code(REFUSED);
    }
    // The rule stays the same, and the workload changes.
    scene.authorization_server.set_rule(rule);
    for claims in [
        json!({ "repository_owner_id": "66" }),
        json!({ "repository_id": "75" }),
        json!({ "sub": "repo:octo-org/octo-repo:ref:refs/heads/feature" }),
    ] {
        scene.platform.script([PlatformFault::Claims(claims)]);
        world.run(&["token", "demo", "--no-daemon"]).await.expect_code(REFUSED);
    }
}

/// Copies of a policy, each with one compared text changed.
fn with_one_text_changed(policy: &Value, pointers: &[&str]) -> Vec<Value> {
    let changed = pointers.iter().map(|pointer| {
        let mut other = policy.clone();
        let place = other.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer} in {policy}"));
        *place = json!(format!("{}x", place.as_str().expect("a text")));
        other
    });
    changed.collect()
}

#[tokio::test]
async fn a_federated_credential_made_from_the_output_alone_lets_the_workload_in_and_nobody_else() {
    const APPLICATION: &str = "11111111-1111-1111-1111-111111111111";
    let (scene, entra) = (Scene::new(binary()).await, FakeEntra::start().await);
    entra.target("api://mcp", "22222222-2222-2222-2222-222222222222");
    let config = format!(
        "[egress]\n{}insecure_loopback = true\n\n[servers.demo]\nurl = \"{}\"\nexchange = \"entra\"\ntenant = \"{}\"\n\
         client_id = \"{APPLICATION}\"\nscopes = [\"api://mcp/.default\"]\n",
        entra.egress(),
        scene.mcp.url(),
        support::entra::TENANT,
    );
    let world = scene.safeconduct.clone().config(&config);
    let credential = policy(&world, "entra", &[]).await["policy"].clone();
    let verifier = || scene.platform.trust().verifier;
    entra.federate_by(APPLICATION, verifier(), &credential);
    world.run(&["token", "demo", "--no-daemon"]).await.expect_code(0);
    for wrong in with_one_text_changed(&credential, &["/issuer", "/subject", "/audiences/0"]) {
        entra.federate_by(APPLICATION, verifier(), &wrong);
        world.run(&["token", "demo", "--no-daemon"]).await.expect_code(REFUSED);
    }
}

#[tokio::test]
async fn a_role_with_the_trust_policy_of_the_output_alone_lets_the_workload_in_and_nobody_else() {
    let (scene, aws) = (Scene::new(binary()).await, FakeAws::start().await);
    scene.authorization_server.trust_only(aws.trust());
    aws.trust_identities(scene.platform.trust(), "nobody in particular");
    let chain = format!(
        "identity = \"role\"\n\n[identities.role]\nfrom = \"default\"\nexchange = \"aws-role\"\nrole_arn = \"{}\"\n\
         region = \"{}\"\nendpoint = \"{}\"\n",
        support::aws::ROLE,
        support::aws::REGION,
        aws.base()
    );
    let world = scene.configured(&chain);
    let document = policy(&world, "aws", &[]).await["policy"].clone();
    let account = document.pointer("/Statement/0/Principal/Federated").and_then(Value::as_str).unwrap_or_default();
    assert!(account.starts_with("arn:aws:iam::123456789012:oidc-provider/"), "{document}");
    aws.set_policy(&document);
    world.run(&["token", "demo", "--no-daemon"]).await.expect_code(0);
    let equals =
        document.pointer("/Statement/0/Condition/StringEquals").and_then(Value::as_object).expect("conditions");
    assert_eq!(equals.len(), 2, "aud and sub: {document}");
    let keys = equals.keys().map(|key| key.replace('~', "~0").replace('/', "~1"));
    let mut pointers: Vec<String> = keys.map(|key| format!("/Statement/0/Condition/StringEquals/{key}")).collect();
    pointers.push("/Statement/0/Principal/Federated".to_owned());
    for wrong in with_one_text_changed(&document, &pointers.iter().map(String::as_str).collect::<Vec<_>>()) {
        aws.set_policy(&wrong);
        world.run(&["token", "demo", "--no-daemon"]).await.expect_code(REFUSED);
    }
}

#[tokio::test]
async fn for_a_discovered_issuer_the_rule_is_the_same() {
    let scene = Scene::new(binary()).await;
    let words = ["trust-policy", &scene.mcp.url(), "--insecure-loopback", "--json", "--for", "generic"];
    let rule = scene.safeconduct.run(&words).await.expect_code(0).json();
    assert_eq!(rule["policy"]["aud"], scene.authorization_server.issuer());
    assert_eq!(scene.authorization_server.token_requests(), 0, "nothing is presented");
}

#[tokio::test]
async fn what_a_stranger_can_obtain_gets_no_rule() {
    let scene = Scene::new(binary()).await;
    scene.platform.always(PlatformFault::Claims(json!({
        "iss": "https://token.actions.githubusercontent.com", "event_name": "pull_request",
        "sub": "repo:octo-org/octo-repo:pull_request",
    })));
    let failed = scene.configured("").run(&["trust-policy", "demo", "--for", "generic"]).await.expect_code(DENIED);
    assert!(failed.stdout.is_empty() && failed.stderr.contains("a stranger can obtain"), "{}", failed.stderr);
    assert!(failed.stderr.contains("environment"), "{}", failed.stderr);
}

#[tokio::test]
async fn without_the_organisation_there_is_no_rule() {
    let scene = Scene::new(binary()).await;
    scene.platform.always(PlatformFault::Claims(json!({ "repository_owner_id": null })));
    let failed = scene.configured("").run(&["trust-policy", "demo", "--for", "generic"]).await.expect_code(DENIED);
    assert!(failed.stderr.contains("repository_owner_id"), "{}", failed.stderr);
}

#[tokio::test]
async fn each_shape_asks_for_the_audience_of_its_party() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let entra = policy(&world, "entra", &[]).await;
    assert_eq!(entra["policy"]["audiences"], json!(["api://AzureADTokenExchange"]));
    let aws = policy(&world, "aws", &[]).await;
    assert!(
        aws["policy"]["Statement"][0]["Condition"]["StringEquals"].to_string().contains("sts.amazonaws.com"),
        "{aws}"
    );
    let asked = world.run(&["trust-policy", "demo", "--for", "gcp"]).await.expect_code(ASKED_WRONGLY);
    assert!(asked.stderr.contains("--audience"), "{}", asked.stderr);
    let pool = "https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/r";
    let gcp = policy(&world, "gcp", &["--audience", pool]).await;
    assert_eq!(gcp["policy"]["oidc"]["allowedAudiences"], json!([pool]));
    let okta = world.run(&["trust-policy", "demo", "--for", "okta"]).await.expect_code(ASKED_WRONGLY);
    assert!(okta.stderr.contains("private-key-jwt"), "{}", okta.stderr);
    assert_eq!(scene.authorization_server.token_requests(), 0);
}

/// The document is installed as it stands, and people read the rest beside it.
#[tokio::test]
async fn stdout_is_the_document_alone_and_stderr_says_the_rest() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    for shape in ["keycloak", "generic", "entra", "aws", "toolhive", "anthropic", "openai"] {
        let output = world.run(&["trust-policy", "demo", "--for", shape]).await.expect_code(0);
        let document: Value = serde_json::from_str(&output.stdout).expect("JSON alone");
        assert_eq!(document, policy(&world, shape, &[]).await["policy"], "{shape}");
        for words in
            ["# trust github-actions of ", "# warning: ", "# install: ", "# here, in safeconduct's configuration:"]
        {
            assert!(output.stderr.contains(words), "{shape}: {words:?} in\n{}", output.stderr);
        }
    }
    let keycloak = world.run(&["trust-policy", "demo", "--for", "keycloak"]).await.expect_code(0).stderr;
    assert!(
        keycloak.contains("# cannot be compared there: repository_id (") && !keycloak.contains("# pinned: "),
        "{keycloak}"
    );
    assert!(keycloak.contains("client_auth = \"workload\"") && !keycloak.contains("\nclient_id"), "{keycloak}");
    let generic = world.run(&["trust-policy", "demo", "--for", "generic"]).await.expect_code(0).stderr;
    assert!(generic.contains("# pinned: repository_id ("), "{generic}");
}

/// Keycloak refuses a provider that does not say where its keys are. The issuer's own document says it.
#[tokio::test]
async fn keycloak_is_told_where_the_keys_are() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let issuer = scene.platform.issuer();
    let document = policy(&world, "keycloak", &[]).await["policy"].clone();
    let provider = &document["identityProvider"];
    assert_eq!(provider["config"]["jwksUrl"], format!("{issuer}/.well-known/jwks"));
    assert_eq!(document["client"]["attributes"]["jwt.credential.issuer"], provider["alias"]);
    let resource = &document["client"]["protocolMappers"][0]["config"]["included.custom.audience"];
    assert_eq!(resource, &json!(scene.mcp.url()));
    let toolhive = policy(&world, "toolhive", &[]).await["policy"].clone();
    assert_eq!(toolhive["trusted_issuers"][0]["jwks_url"], format!("{issuer}/.well-known/jwks"));
}

#[tokio::test]
async fn a_subject_that_does_not_name_the_ref_gets_no_policy() {
    let scene = Scene::new(binary()).await;
    scene.platform.always(PlatformFault::Claims(json!({ "sub": "repo:acme/shop" })));
    for shape in ["aws", "entra", "keycloak", "generic"] {
        let failed = scene.configured("").run(&["trust-policy", "demo", "--for", shape]).await.expect_code(DENIED);
        assert!(failed.stdout.is_empty() && failed.stderr.contains("every event"), "{shape}: {}", failed.stderr);
        assert!(failed.stderr.contains("use_default=true"), "{}", failed.stderr);
    }
}

/// Model providers have audiences of their own, whatever the server's exchange is.
#[tokio::test]
async fn model_providers_are_asked_for_by_their_own_audience() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    for (shape, place, audience) in [
        ("anthropic", "/federation_rule/match/audience", "https://api.anthropic.com"),
        ("openai", "/workload_identity_provider/audience", "https://api.openai.com/v1"),
    ] {
        let report = policy(&world, shape, &[]).await;
        assert_eq!(report["policy"].pointer(place), Some(&json!(audience)), "{report}");
        assert!(report["here"].as_str().expect("a text").contains("[[identities_for]]"), "{report}");
    }
}

/// In a CI job other output is changed so that no runner takes it for a command. Commands stay commands.
#[tokio::test]
async fn document_and_commands_stay_whole_in_a_ci_job() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("").env("CI", "true").env("GITHUB_ACTIONS", "true");
    let output = world.run(&["trust-policy", "demo", "--for", "aws"]).await.expect_code(0);
    let document: Value = serde_json::from_str(&output.stdout).expect("JSON alone");
    let federated = document["Statement"][0]["Principal"]["Federated"].as_str().expect("a text");
    assert!(federated.starts_with("arn:aws:iam::ACCOUNT:"), "{federated}");
    assert!(output.stderr.contains("role_arn = \"arn:aws:iam::ACCOUNT:role/ROLE\""), "{}", output.stderr);
    let long = "x".repeat(600);
    scene.platform.always(PlatformFault::Claims(json!({ "sub": format!("repo:a/b:ref:refs/heads/{long}::y") })));
    let pool = "https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/r";
    let words = ["trust-policy", "demo", "--for", "gcp", "--audience", pool];
    let output = world.run(&words).await.expect_code(0);
    let command = output.stderr.lines().find(|line| line.contains("create-oidc")).expect("a command");
    assert!(command.contains(&long) && command.contains(":\\x3ay") && !command.contains('…'), "{command}");
}
