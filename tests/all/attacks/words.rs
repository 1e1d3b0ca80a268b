//! Texts of hostile servers in our logs and outputs.

use super::*;

#[tokio::test]
async fn words_of_strangers_cannot_command_a_terminal_or_a_runner() {
    let world = World::new().await;
    let hostile = TokenFault::OauthError {
        code: "invalid_grant".to_owned(),
        description: Some(format!(
            ":::add-path:::/evil\r\n::set-output name=x::y ##vso[task.complete] ##[error] \u{1b}]0;owned\u{7} \u{9b}31m \u{202e}{}",
            "x".repeat(5_000)
        )),
        uri: Some("::stop-commands::x".to_owned()),
    };
    world.authorization_server.always_token(hostile);
    let job = world.job(&world.pin());
    let everything = [job.clone(), job.without_env("SAFECONDUCT_LOG")];
    for job in everything {
        let stderr = refused(token(&job).await, 76, "in its words: ");
        harmless(&stderr);
        for command in ["::", "##[", "##vso["] {
            assert!(!stderr.contains(command), "{command} is in\n{stderr}");
        }
    }
    let daemon = world.job(&world.pin()).daemon(&[]).await;
    let description =
        daemon.get("/v1/token?server=demo").await.json()["error_description"].as_str().unwrap_or_default().to_owned();
    harmless(&description);
}

#[tokio::test]
async fn hostile_names_in_metadata_are_shown_short_and_clean() {
    let world = World::new().await;
    let long = format!("https://as.example.com/{}", "x".repeat(30_000));
    for name in [
        "https://as.example.com/\u{9b}31mred",
        "https://as.example.com/\u{202e}moc.live",
        "https://as.example.com/\u{200b}x",
        "https://as.example.com/\u{ad}\u{61c}x",
        "https://as.example.com/\u{e0041}\u{e0042}x",
        "\u{1b}[31m",
        long.as_str(),
    ] {
        for metadata in [
            json!({"authorization_servers": [name]}),
            json!({"authorization_servers": [name, name]}),
            json!({"resource": name}),
        ] {
            let world = World::new().await;
            world.mcp.set_metadata(metadata);
            let output = token(&world.job_with("", "allow = []")).await;
            assert!(!output.succeeded());
            harmless(&output.stderr);
        }
    }
    for claims in [json!({"aud": long}), json!({"aud": "\u{1b}[31m\u{9b}32m"})] {
        world.platform.always(PlatformFault::Claims(claims));
        let output = token(&world.job(&world.pin())).await;
        harmless(&refused(output, 69, "the identity token is made for"));
    }
    world.platform.always(PlatformFault::Claims(json!({"sub": "\u{1b}[31m\u{9b}32m\u{202e}\nsource forged"})));
    let output = world.job(&world.pin()).run(&["whoami", "--audience", "https://as.example.com"]).await.expect_code(0);
    harmless(&output.stdout);
    assert!(!output.stdout.contains("\nsource forged"), "{}", output.stdout);
}

/// An issuer that answers, and whose name has what is not seen in it or more than anybody reads.
#[tokio::test]
async fn the_name_of_an_issuer_that_answers_hides_nothing_in_any_output() {
    let long = "x".repeat(40_000);
    for path in ["\u{9b}31m", "\u{202e}gnp", "\u{ad}", "\u{61c}", "\u{e0041}", long.as_str()] {
        let world = World::new().await;
        let issuer = format!("{}/{path}", world.authorization_server.issuer());
        world.mcp.set_metadata(json!({"authorization_servers": [issuer]}));
        let job = world.job("");
        for words in [
            &["token", "demo"][..],
            &["doctor", "demo"],
            &["doctor", "demo", "--json"],
            &["doctor", "demo", "--verbose"],
        ] {
            let output = job.run(words).await;
            assert!(!output.succeeded(), "{path:?}");
            harmless(&output.stderr);
            harmless(&output.stdout);
        }
        let daemon = job.daemon(&[]).await;
        assert_ne!(daemon.get("/v1/token?server=demo").await.status, 200);
        for raw in [daemon.get("/v1/token?server=demo").await.body, daemon.get("/v1/status").await.body, daemon.log()] {
            harmless(&raw);
        }
        harmless(&daemon.run(&["status"]).await.stdout);
    }
}

/// A hint is pasted into a shell, by people and by agents.
#[tokio::test]
async fn no_hint_makes_a_command_of_what_another_party_says() {
    let world = World::new().await;
    let stderr = async |issuer: &str| {
        world.mcp.set_metadata(json!({"authorization_servers": [issuer]}));
        refused(token(&world.job("")).await, 76, "is not bound to")
    };
    // The token of this issuer is bound to nothing, and the hint says how to pin it.
    let attacker = Attacker::start().await;
    let plain = stderr(&attacker.base).await;
    assert!(plain.contains(&format!("--issuer '{}'", attacker.base)), "{plain}");
    for path in ["$(touch${IFS}owned)", "`touch`", "'touch", "a;touch", "a&&touch|b"] {
        let odd = Attacker::at(path).await;
        let told = stderr(&format!("{}/{path}", odd.base)).await;
        let hint = told.split("safeconduct: hint: ").nth(1).expect("a hint");
        assert!(!hint.contains("touch") && hint.contains("pin it"), "{hint}");
    }
}

/// Checks that there is no control or direction character and no very long line.
#[track_caller]
fn harmless(text: &str) {
    let bad = text.chars().find(|c| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
    });
    let start: String = text.chars().take(600).collect();
    assert!(bad.is_none(), "{bad:?} in\n{start:?}");
    assert!(
        text.lines().all(|line| line.len() < 2_000),
        "a line of {:?} bytes: {start}",
        text.lines().map(str::len).max()
    );
}
