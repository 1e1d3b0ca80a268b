//! Without a configuration, and from an identity file.

use super::*;

#[tokio::test]
async fn a_url_is_enough() {
    let scene = Scene::new(binary()).await;
    let world = scene.safeconduct.clone();
    let output = world.run(&["token", &scene.mcp.url(), "--insecure-loopback"]).await;
    let claims = keys::peek(line(&output));
    assert_eq!(
        (&claims["aud"], &claims["iss"]),
        (&json!(scene.mcp.url()), &json!(scene.authorization_server.issuer()))
    );
    assert_eq!(
        scene.platform.audiences(),
        [scene.authorization_server.issuer()],
        "made for the authorization server alone"
    );
    let plain = failed(world.run(&["token", &scene.mcp.url()]).await, DENIED);
    assert!(plain.contains("--insecure-loopback") || plain.contains("insecure_loopback"), "{plain}");
    assert_eq!(scene.platform.requests(), 1);
}

#[tokio::test]
async fn a_token_that_is_not_bound_to_the_server_needs_a_pin() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.script_token([TokenFault::IgnoreResource, TokenFault::IgnoreResource]);
    let run = async |more: &[&str]| {
        scene.safeconduct.run(&[&["token", &scene.mcp.url(), "--insecure-loopback"], more].concat()).await
    };
    let words = failed(run(&[]).await, REFUSED);
    assert!(words.contains("not bound") && words.contains("--issuer"), "{words}");
    line(&run(&["--issuer", &scene.authorization_server.issuer()]).await);
    let other = FakeAs::start(scene.platform.trust()).await;
    let elsewhere = failed(run(&["--issuer", &other.issuer()]).await, REFUSED);
    assert!(elsewhere.contains("not among those"), "{elsewhere}");
}

#[tokio::test]
async fn another_path_on_a_configured_origin_does_not_get_round_its_policy() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let beside = scene.mcp.url().replace("/mcp", "/other");
    let words = failed(world.run(&["token", &beside, "--no-daemon"]).await, DENIED);
    assert!(words.contains("configured server \"demo\""), "{words}");
    let daemon = scene.daemon("").await;
    failed(daemon.run(&["token", &beside]).await, DENIED);
    assert_eq!(scene.platform.requests(), 0);
}

// Identity files.

#[tokio::test]
async fn an_identity_file_is_enough_and_judged_before_it_is_sent() {
    let scene = Scene::new(binary()).await;
    let issuer = scene.authorization_server.issuer();
    let world = Safeconduct::new(binary());
    let file = world.private("identity.jwt");
    let run = async |text: &str| {
        std::fs::write(&file, text).expect("ours");
        let path = file.display().to_string();
        world.run(&["token", &scene.mcp.url(), "--insecure-loopback", "--identity-file", &path]).await
    };
    line(&run(&format!("{}\n", scene.platform.mint(&issuer, LIFE))).await);
    let long_ago = keys::now() as u64 - 1_000;
    for (text, words) in [
        (String::new(), "empty"),
        ("this is no token".to_owned(), "one JWT and nothing else"),
        ("x".repeat(70_000), "64 KiB"),
        (scene.platform.mint("https://somebody-else.example", LIFE), "not for"),
        (scene.platform.mint_with(&issuer, LIFE, &json!({"aud": [issuer, "https://other.example"]})), "audiences"),
        (scene.platform.mint_with(&issuer, LIFE, &json!({"exp": null})), "exp"),
        (
            scene.platform.mint_with(&issuer, LIFE, &json!({"iat": long_ago, "nbf": long_ago, "exp": long_ago + 300})),
            "expired",
        ),
    ] {
        let said = failed(run(&text).await, NO_IDENTITY);
        assert!(said.contains(words) && said.contains("safeconduct: hint: "), "{words}: {said}");
    }
    assert_eq!(scene.authorization_server.token_requests(), 1, "nothing unfit was sent");
    let missing = ["token", &scene.mcp.url(), "--insecure-loopback", "--identity-file", "/nowhere/jwt"];
    let missing = failed(world.run(&missing).await, NO_IDENTITY);
    assert!(missing.contains("cannot be read"), "{missing}");
    let unknown =
        failed(world.run(&["token", "https://mcp.example.com/mcp", "--identity", "nonsense"]).await, ASKED_WRONGLY);
    assert!(unknown.contains("github-actions"), "{unknown}");
}

#[tokio::test]
async fn whoami_tells_who_by_what_and_what_was_not_used() {
    let scene = Scene::new(binary()).await;
    let world = &scene.safeconduct;
    let text =
        world.run(&["whoami", "--insecure-loopback", "--audience", "https://as.example"]).await.expect_code(0).stdout;
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "source    github-actions",
        "evidence  GITHUB_ACTIONS=true",
        "life      ",
        " more, until 2",
        "  repo:octo-org/octo-repo:ref:refs/heads/main",
        "  https://as.example",
        "who signed it",
        "by which a server notices a second use",
        "pin it: ",
        "sources of which nothing is here (`--all` shows what each looks for)",
        "took      detect ",
    ] {
        assert!(text.contains(words) || flat.contains(words), "{words:?} in\n{text}");
    }
    // A word is never broken, so that it can be pasted.
    let fits = |line: &str| line.chars().count() <= 80 || line.split_whitespace().count() <= 2;
    assert!(text.lines().all(fits), "{text}");
    assert!(!text.contains("other     file"), "what is absent is a number: {text}");
    let all = world.run(&["whoami", "--insecure-loopback", "--all"]).await.expect_code(0).stdout;
    assert!(all.contains("other     file: absent: "), "{all}");
    let report = world.run(&["whoami", "--insecure-loopback", "--json"]).await.expect_code(0).json();
    assert_eq!(report["identity"]["source"], "github-actions");
    assert_eq!(report["identity"]["claims"]["iss"], scene.platform.issuer());
    assert_eq!(report["identity"]["claims"]["aud"], json!(["safeconduct:whoami"]));
    assert_eq!(
        report["sources"][0],
        json!({
            "source": "file", "tier": "named", "state": "absent", "about": report["sources"][0]["about"],
            "looked_for": report["sources"][0]["looked_for"],
        })
    );
    assert_eq!(scene.platform.audiences(), ["https://as.example", "safeconduct:whoami", "safeconduct:whoami"]);
    let steps: Vec<&Value> = report["steps"].as_array().expect("steps").iter().map(|step| &step["step"]).collect();
    assert_eq!(steps, ["detect", "identity"]);

    let file = world.private("identity.jwt");
    std::fs::write(&file, scene.platform.mint("https://as.example", LIFE)).expect("ours");
    let path = file.display().to_string();
    let report = world.run(&["whoami", "--json", "--identity-file", &path]).await.expect_code(0).json();
    assert_eq!((&report["identity"]["source"], &report["identity"]["mints_anew"]), (&json!("file"), &json!(false)));
    let github = report["sources"].as_array().and_then(|all| all.iter().find(|one| one["source"] == "github-actions"));
    assert_eq!(github.expect("a row")["state"], "not_used");
}

#[tokio::test]
async fn whoami_shows_every_claim_and_an_ended_identity_is_none() {
    let scene = Scene::new(binary()).await;
    let world = &scene.safeconduct;
    let report = world.run(&["whoami", "--insecure-loopback", "--json"]).await.expect_code(0).json();
    let all = report["identity"]["all_claims"].as_object().expect("all claims");
    for name in ["repository_id", "repository_owner_id"] {
        let note = report["identity"]["notes"][name].as_str().unwrap_or_default();
        assert!(all.contains_key(name) && note.starts_with("pin it"), "{report}");
    }
    let text = world.run(&["whoami", "--insecure-loopback"]).await.expect_code(0).stdout;
    assert!(all.keys().all(|name| text.contains(&format!("  {name} "))), "{text}");

    let file = world.private("identity.jwt");
    let over = scene.platform.mint_with("https://as.example", LIFE, &json!({ "exp": 1_700_000_000 }));
    std::fs::write(&file, over).expect("ours");
    let output = world.run(&["whoami", "--identity-file", &file.display().to_string()]).await;
    let words = failed(output, NO_IDENTITY);
    assert!(words.contains("the identity token ended ") && words.contains("repository_id"), "{words}");
}

#[tokio::test]
async fn whoami_says_which_exchange_will_follow_and_where_the_identity_goes() {
    let scene = Scene::new(binary()).await;
    let issuer = scene.authorization_server.issuer();
    let config = format!(
        "{}\n[servers.second]\nurl = \"https://second.example.com/mcp\"\nidentity = \"changed\"\n\
         [identities.changed]\nfrom = \"default\"\nexchange = \"token-exchange\"\nissuer = \"https://sts.example.com\"\n",
        scene.config("exchange = \"jwt-bearer\"")
    );
    let world = scene.safeconduct.clone().config(&config);
    let report = world.run(&["whoami", "--json"]).await.expect_code(0).json();
    let (first, second) = (&report["servers"][0], &report["servers"][1]);
    assert_eq!(
        (&first["exchange"], &first["issuer"], &first["audience"]),
        (&json!("jwt-bearer"), &json!(issuer), &json!(issuer))
    );
    assert_eq!(second["through"], json!([{ "exchange": "token-exchange", "issuer": "https://sts.example.com" }]));
    assert_eq!((&second["exchange"], &second["issuer"]), (&Value::Null, &Value::Null));
    let text = world.run(&["whoami"]).await.expect_code(0).stdout;
    let follows = "second: token-exchange at https://sts.example.com, then the exchange that its metadata allows";
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(follows), "{text}");
}

#[tokio::test]
async fn a_clients_helper_does_not_ask_the_machine_who_it_is() {
    let world = Safeconduct::new(binary()).config("[identity]\nprobe = true\n");
    let failed = world.run(&["headers", "https://mcp.example.com/mcp", "--no-daemon"]).await.expect_code(NO_IDENTITY);
    assert!(failed.stderr.contains("does not hold for a client's helper"), "{}", failed.stderr);
}

#[tokio::test]
async fn whoami_without_an_identity_says_what_was_looked_for() {
    let output = Safeconduct::new(binary()).run(&["whoami", "--json"]).await.expect_code(NO_IDENTITY);
    assert!(output.stdout.is_empty());
    let report: Value = serde_json::from_str(&output.stderr).expect("JSON on stderr");
    assert_eq!((&report["identity"], &report["error"]["class"]), (&Value::Null, &json!("no_identity")));
    assert!(report["sources"].as_array().is_some_and(|all| all.iter().all(|one| one["state"] == "absent")));
}
