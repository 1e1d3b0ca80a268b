//! Failures of helpers, by exit code.

use super::*;

#[tokio::test]
async fn the_exit_code_says_whose_turn_it_is_with_and_without_a_daemon() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("scopes = [\"demo:read\"]").await;
    let here = scene.configured("scopes = [\"demo:read\"]");
    for (world, more) in [(daemon.helper(), "--daemon-only"), (here, "--no-daemon")] {
        let run = async |args: &[&str]| world.run(&[&["token"], args, &[more]].concat()).await;
        assert!(failed(run(&["nope"]).await, ASKED_WRONGLY).contains("configured: demo"));
        failed(run(&["not a target"]).await, ASKED_WRONGLY);
        failed(run(&["demo", "--scope", "demo:write"]).await, DENIED);
        scene.authorization_server.always_token(TokenFault::OauthError {
            code: "invalid_target".to_owned(),
            description: Some("who is that".to_owned()),
            uri: None,
        });
        let words = failed(run(&["demo", "--timeout", "20s"]).await, REFUSED);
        assert!(words.contains("invalid_target") && words.contains("\"who is that\""), "{words}");
        assert!(words.contains("safeconduct: hint: "), "{words}");
        scene.authorization_server.heal();
    }
}

#[tokio::test]
async fn an_outage_is_temporary_and_bounded_by_the_time_out() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_down(true);
    let here = scene.configured("");
    // Shorter than the default time limit.
    let bounded = here.clone().limit(Duration::from_secs(20));
    failed(bounded.run(&["token", "demo", "--no-daemon", "--timeout", "2s"]).await, TEMPORARY);
    // Within its time limit a run waits for the end of an outage.
    let healed = async {
        pause(Duration::from_millis(700)).await;
        scene.authorization_server.heal();
    };
    let (output, ()) = tokio::join!(here.run(&["token", "demo", "--no-daemon", "--timeout", "20s"]), healed);
    line(&output);
    let daemon = scene.daemon("").await;
    scene.authorization_server.set_down(true);
    failed(daemon.run(&["token", "demo", "--timeout", "10s"]).await, TEMPORARY);
}

/// A text of another party must not move the cursor or give commands to the CI runner.
#[tokio::test]
async fn the_words_of_others_are_quoted_and_harmless_in_ci() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::ControlCharsInDescription);
    let daemon = scene.daemon("").await;
    let mut texts = vec![failed(scene.configured("").run(&["token", "demo", "--no-daemon"]).await, REFUSED)];
    texts.push(failed(daemon.helper().env("GITHUB_ACTIONS", "true").run(&["token", "demo"]).await, REFUSED));
    texts.push(daemon.log());
    let status = daemon.helper().env("GITHUB_ACTIONS", "true").run(&["status"]).await.expect_code(0);
    texts.push(status.stdout);
    for text in texts {
        assert!(text.contains("first line"), "{text}");
        let hostile = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(hostile), "{text:?}");
        for command in ["::add-mask", "##vso[", "##["] {
            assert!(!text.contains(command), "{command:?} in\n{text}");
        }
    }
}

#[tokio::test]
async fn on_a_laptop_the_hint_names_the_file_and_the_quickstart() {
    let world = Safeconduct::new(binary());
    for command in
        [&["token", "https://mcp.example.com/mcp"][..], &["headers", "https://mcp.example.com/mcp"], &["whoami"]]
    {
        let words = failed(world.run(command).await, NO_IDENTITY);
        assert!(words.contains("--identity-file") && words.contains("quickstart"), "{words}");
    }
}

#[tokio::test]
async fn a_job_that_may_not_have_an_identity_is_told_how_to_get_one() {
    let world = Safeconduct::new(binary()).env("GITHUB_ACTIONS", "true");
    let words = failed(world.run(&["token", "https://mcp.example.com/mcp"]).await, NO_IDENTITY);
    assert!(words.contains("id-token: write"), "{words}");
}
