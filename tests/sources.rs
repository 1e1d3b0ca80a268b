//! Identity sources from the environment to the token: the real binary, a platform's variables, a server that verifies.

#![allow(clippy::disallowed_methods, reason = "the tests run in real time and have tasks of their own")]

mod support;

use std::time::Duration;

use serde_json::json;
use support::scene::Scene;
use support::wayleave::Wayleave;

const BINARY: &str = env!("CARGO_BIN_EXE_wayleave");

const LIFE: Duration = Duration::from_secs(600);
const NO_IDENTITY: i32 = 69;

/// Each row: the variable that proves the platform, the one that holds the token, what stands in `[identity]`.
const VARIABLES: [(&str, (&str, &str), &str, &str); 6] = [
    ("env", ("UNRELATED", "1"), "MY_TOKEN", "source = \"env\"\ntoken_env = \"MY_TOKEN\""),
    ("gitlab-ci", ("GITLAB_CI", "true"), "WAYLEAVE_ID_TOKEN", ""),
    ("gitlab-ci", ("GITLAB_CI", "true"), "MCP_ID_TOKEN", "source = \"gitlab-ci\"\ntoken_env = \"MCP_ID_TOKEN\""),
    ("bitbucket", ("BITBUCKET_BUILD_NUMBER", "12"), "BITBUCKET_STEP_OIDC_TOKEN", ""),
    ("circleci", ("CIRCLECI", "true"), "CIRCLE_OIDC_TOKEN_V2", ""),
    ("hcp-terraform", ("TFC_RUN_ID", "run-CZcmD7eagjhyX0vN"), "TFC_WORKLOAD_IDENTITY_TOKEN", ""),
];

fn world(scene: &Scene, evidence: (&str, &str), identity: &str) -> Wayleave {
    let config = format!("{}\n[identity]\n{identity}\n", scene.config(""));
    Wayleave::new(BINARY).env(evidence.0, evidence.1).config(&config)
}

#[tokio::test]
async fn a_token_in_a_variable_becomes_an_access_token() {
    for (source, evidence, variable, identity) in VARIABLES {
        let scene = Scene::new(BINARY).await;
        let subject = scene.platform.mint(&scene.authorization_server.issuer(), LIFE);
        let world = world(&scene, evidence, identity).env(variable, &subject);
        let token = world.run(&["token", "demo"]).await.expect_code(0);
        assert!(!token.stdout.trim().is_empty(), "{source}");
        let shown = world.run(&["whoami", "--json"]).await.expect_code(0).json();
        assert!(shown.to_string().contains(source), "{source}: {shown}");
    }
}

#[tokio::test]
async fn a_token_for_another_audience_never_leaves() {
    for (source, evidence, variable, identity) in VARIABLES {
        let scene = Scene::new(BINARY).await;
        let other = scene.platform.mint("https://other.example", LIFE);
        let output = world(&scene, evidence, identity).env(variable, &other).run(&["token", "demo"]).await;
        let output = output.expect_code(NO_IDENTITY);
        assert!(output.stderr.contains("https://other.example"), "{source}: {}", output.stderr);
        let several = json!({"aud": [scene.authorization_server.issuer(), "https://other.example"]});
        let several = scene.platform.mint_with(&scene.authorization_server.issuer(), LIFE, &several);
        let output = world(&scene, evidence, identity).env(variable, &several).run(&["token", "demo"]).await;
        let output = output.expect_code(NO_IDENTITY);
        assert!(output.stderr.contains("2 audiences"), "{source}: {}", output.stderr);
        assert_eq!(scene.authorization_server.token_requests(), 0, "{source}");
    }
}

#[tokio::test]
async fn a_variable_without_a_jwt_is_refused_with_the_cure() {
    for (source, evidence, variable, identity) in VARIABLES {
        let scene = Scene::new(BINARY).await;
        let output = world(&scene, evidence, identity).env(variable, "no-jwt").run(&["token", "demo"]).await;
        let output = output.expect_code(NO_IDENTITY);
        assert!(output.stderr.contains(variable), "{source}: {}", output.stderr);
        assert!(output.stderr.contains("wayleave: hint: "), "{source}: {}", output.stderr);
    }
}
