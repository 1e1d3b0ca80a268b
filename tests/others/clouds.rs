//! The clouds' own client libraries get tokens from our fakes, which proves that the fakes behave like the clouds: google-auth,
//! botocore and azure-identity, each with its own variables.

use std::path::Path;
use std::process::Output;

use serde_json::json;
use tokio::process::Command;

use crate::fakes::aws::{FakeAws, REGION, ROLE};
use crate::fakes::case;
use crate::fakes::google::{AGENT, FakeGoogle, INSTANCE, external_account};
use crate::fakes::keys;
use crate::fakes::leak;
use crate::fakes::scene::Scene;
use crate::fakes::tls::TestCa;
use crate::process::{LIMIT, ROOT, SAFECONDUCT, installed};

const AUDIENCE: &str = "https://login.example.com/tenant1";

async fn library(cloud: &str, audience: &str, variables: impl IntoIterator<Item = (String, String)>) -> Output {
    installed();
    let mut command = Command::new(Path::new(ROOT).join("target/others/python/bin/python"));
    command.arg(Path::new(ROOT).join("tests/others/clouds.py")).args([cloud, audience]);
    // Without a home directory it cannot find a developer's login.
    command.env_clear().env("HOME", "/nonexistent").envs(variables).kill_on_drop(true);
    tokio::time::timeout(LIMIT, command.output()).await.expect("it ends").expect("it starts")
}

async fn token(cloud: &str, audience: &str, variables: Vec<(String, String)>) -> String {
    let output = library(cloud, audience, variables).await;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{cloud}: {}", String::from_utf8_lossy(&output.stderr));
    leak::minted(&printed);
    printed
}

fn named(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn google_auth_on_a_machine_of_google() {
    let scene = Scene::new(SAFECONDUCT).await;
    let google = FakeGoogle::start(scene.platform.trust()).await;
    let host = google.metadata_host();
    let variables = named(&[("GCE_METADATA_HOST", host), ("GCE_METADATA_IP", host)]);
    let claims = google.verify(&token("google", AUDIENCE, variables).await);
    assert_eq!((&claims["aud"], &claims["email"]), (&json!(AUDIENCE), &json!(INSTANCE)));
}

/// Writes an `external_account` file for this fake. Gives its path.
fn account(scene: &Scene, google: &FakeGoogle, subject_type: &str, source: &serde_json::Value) -> String {
    let path = scene.safeconduct.private("google.json");
    let text = external_account(subject_type, source).to_string();
    let text = ["https://sts.googleapis.com", "https://iamcredentials.googleapis.com"]
        .iter()
        .fold(text, |text, host| text.replace(host, google.base()));
    std::fs::write(&path, text).expect("ours");
    path.display().to_string()
}

#[tokio::test]
async fn google_auth_with_a_role_of_aws() {
    let (scene, aws) = (Scene::new(SAFECONDUCT).await, FakeAws::start().await);
    let google = FakeGoogle::start(scene.platform.trust()).await;
    google.trust_aws(aws.caller(false));
    google.grant(&FakeGoogle::principal(ROLE), AGENT);
    let source = json!({
        "environment_id": "aws1",
        "regional_cred_verification_url":
            "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
    });
    let file = account(&scene, &google, "aws:token-type:aws4_request", &source);
    let variables = [named(&[("AWS_REGION", REGION)]), aws.keys()].concat();
    let printed = token("google_account", &file, variables).await;
    assert_eq!(google.access(&printed).expect("given out here").0, AGENT);
}

#[tokio::test]
async fn google_auth_with_a_certificate() {
    let (scene, ca) = (Scene::new(SAFECONDUCT).await, TestCa::new());
    let google = FakeGoogle::mutual(&ca, scene.platform.trust()).await;
    google.grant(&FakeGoogle::principal("certificate-2"), AGENT);
    let put = |name: &str, text: &str| {
        let path = scene.safeconduct.private(name);
        std::fs::write(&path, text).expect("ours");
        path.display().to_string()
    };
    let (certificate, key) = ca.client("agent.example.com");
    let paths = json!({"cert_path": put("client.pem", &certificate), "key_path": put("client.key", &key)});
    let config = put("certificates.json", &json!({"version": 1, "cert_configs": {"workload": paths}}).to_string());
    let source = json!({"certificate": {
        "certificate_config_location": config, "trust_chain_path": put("chain.pem", ca.pem()),
    }});
    let file = account(&scene, &google, "oauth:token-type:mtls", &source);
    let variables = named(&[("REQUESTS_CA_BUNDLE", &ca.file().display().to_string())]);
    let printed = token("google_account", &file, variables).await;
    assert_eq!(google.access(&printed).expect("given out here").0, AGENT);
}

#[tokio::test]
async fn botocore_in_a_container_of_aws() {
    let aws = FakeAws::start().await;
    let mut variables = aws.container();
    variables.extend(named(&[
        ("AWS_REGION", REGION),
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_ENDPOINT_URL_STS", aws.base()),
    ]));
    let claims = aws.trust().verifier.verify(&token("aws", AUDIENCE, variables).await).expect("signed by the account");
    assert_eq!((&claims["aud"], &claims["sub"]), (&json!(AUDIENCE), &json!(ROLE)));
}

#[tokio::test]
async fn botocore_in_a_pod_with_a_role() {
    let (scene, aws) = (Scene::new(SAFECONDUCT).await, FakeAws::start().await);
    let assertion = scene.platform.mint("sts.amazonaws.com", LIMIT);
    let subject = keys::peek(&assertion)["sub"].as_str().expect("a text").to_owned();
    aws.trust_identities(scene.platform.trust(), &subject);
    let file = scene.safeconduct.private("token").display().to_string();
    std::fs::write(&file, &assertion).expect("ours");
    let variables = named(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &file),
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_ENDPOINT_URL_STS", aws.base()),
    ]);
    let claims = aws.trust().verifier.verify(&token("aws", AUDIENCE, variables).await).expect("signed by the account");
    assert_eq!(claims["sub"], json!(ROLE));
    let actions: Vec<String> = aws.calls().iter().map(|call| call["Action"].clone()).collect();
    assert_eq!(actions, ["AssumeRoleWithWebIdentity", "GetWebIdentityToken"]);
}

/// The platform of a case in `tests/sources/`, which contains the expected requests.
#[tokio::test]
async fn azure_identity_in_an_app_service() {
    let cases = case::all(&Path::new(ROOT).join("tests/sources"));
    let case = cases.iter().find(|case| case.source == "azure" && case.name == "ok").expect("there is such a case");
    let stage = case.stage(SAFECONDUCT).await;
    let issuer = stage.scene.authorization_server.issuer();
    let claims = keys::peek(&token("azure", &issuer, stage.vars.clone().into_iter().collect()).await);
    assert_eq!(claims["aud"], json!(issuer));
    assert_eq!(stage.problems(), Vec::<String>::new());
}
