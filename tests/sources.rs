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

/// A world whose identity is this shell script, which finds a token for the right audience in the file `$1`.
fn commanded(scene: &Scene, script: &str) -> Wayleave {
    let world = scene.wayleave.clone();
    let token = world.private("subject.jwt");
    std::fs::write(&token, scene.platform.mint(&scene.authorization_server.issuer(), LIFE)).expect("ours");
    let words = json!(["/bin/sh", "-c", script, "sh", token]);
    let config = format!("{}\n[identity]\nsource = \"command\"\ncommand = {words}\n", scene.config(""));
    world.config(&config)
}

#[tokio::test]
async fn a_program_prints_the_token_for_the_audience_it_is_told() {
    let scene = Scene::new(BINARY).await;
    let script =
        format!("[ \"$WAYLEAVE_AUDIENCE\" = '{}' ] && cat \"$1\" && echo", scene.authorization_server.issuer());
    let token = commanded(&scene, &script).run(&["token", "demo"]).await.expect_code(0);
    assert!(!token.stdout.trim().is_empty());
    assert_eq!(scene.authorization_server.token_requests(), 1);
}

#[tokio::test]
async fn a_program_that_fails_is_named_and_its_words_are_not_shown() {
    let scene = Scene::new(BINARY).await;
    for (script, words) in [
        ("cat \"$1\"; cat \"$1\" >&2; exit 3", "exit status: 3"),
        ("true", "prints nothing"),
        ("echo no-jwt", "not a JWT"),
        ("printf '\\377'", "not UTF-8"),
        ("head -c 70000 /dev/zero", "more than 64 KiB"),
    ] {
        let output = commanded(&scene, script).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
        assert!(output.stderr.contains(words), "{words:?} in {}", output.stderr);
        assert!(output.stderr.contains("wayleave: hint: "), "{}", output.stderr);
    }
    assert_eq!(scene.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_all_it_started() {
    let scene = Scene::new(BINARY).await;
    let world = commanded(&scene, "sleep 120 & echo $! > \"$1.pid\"; wait");
    let output = world.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    assert!(output.stderr.contains("did not end within 10 s"), "{}", output.stderr);
    let pid = std::fs::read_to_string(world.private("subject.jwt.pid")).expect("it was started");
    let gone = || {
        // A killed process whose parent is gone too may wait a moment to be reaped.
        std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).map_or(true, |stat| stat.contains(") Z "))
    };
    for _ in 0..100 {
        if gone() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("what the program started still runs");
}

#[tokio::test]
async fn a_pods_projected_token_becomes_an_access_token() {
    let scene = Scene::new(BINARY).await;
    let world = Wayleave::new(BINARY).env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let file = world.private("mcp");
    let config = format!("{}\n[identity]\nsource = \"kubernetes\"\ntoken_file = {file:?}\n", scene.config(""));
    let world = world.config(&config);
    std::fs::write(&file, scene.platform.mint(&scene.authorization_server.issuer(), LIFE)).expect("ours");
    assert!(!world.run(&["token", "demo"]).await.expect_code(0).stdout.trim().is_empty());
    std::fs::write(&file, scene.platform.mint("https://kubernetes.default.svc", LIFE)).expect("ours");
    let output = world.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    assert!(output.stderr.contains("https://kubernetes.default.svc"), "{}", output.stderr);
}
