//! Tokens must not appear in logs, outputs and wrong places.

use super::*;

/// Runs as much of the program as possible at the highest log level. The harness checks every output.
#[tokio::test]
async fn no_token_is_in_any_log_at_any_level() {
    let world = World::new().await;
    let job = world.job(&world.pin()).env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1");
    let daemon = job.daemon(&["--log", "trace"]).await;
    let token = daemon.token("demo").await;
    daemon.get("/v1/headers?server=demo").await;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(daemon.post("/v1/reject", &json!({"server": "demo", "access_token_sha256": digest})).await.status, 204);
    daemon.token("demo").await;
    // Tokens as arguments, where a person might put them by mistake.
    for path in [
        format!("/v1/token?server={token}"),
        format!("/v1/{token}"),
        format!("/v1/token?server=demo&{token}=1"),
        format!("/v1/token?server=https://mcp.example.com/?t={token}"),
    ] {
        let reply = daemon.get(&path).await;
        assert!(reply.status >= 400);
    }
    daemon.post("/v1/reject", &json!({"server": token, "access_token_sha256": token})).await;
    for path in ["/v1/status", "/metrics", "/readyz"] {
        leak::check(path, &daemon.get(path).await.body);
    }
    for fault in [
        TokenFault::BadTokenCharacters,
        TokenFault::HugeToken,
        TokenFault::TokenType("MAC".to_owned()),
        TokenFault::ExpiresIn(json!(-1)),
        TokenFault::Wire(Fault::WrongContentType),
        TokenFault::Wire(Fault::NonUtf8),
        TokenFault::Wire(Fault::HalfBody),
    ] {
        let world = World::new().await;
        world.authorization_server.always_token(fault);
        let output = world
            .job(&world.pin())
            .run(&["--log", "trace", "--log-format", "json", "token", "demo", "--timeout", "1s"])
            .await;
        assert!(!output.succeeded());
    }
    daemon.run(&["status", "--json"]).await.expect_code(0);
    daemon.post("/v1/revoke", &json!({"server": "demo"})).await;
    assert!(world.authorization_server.revocations() > 0);
    daemon.stop().await.expect_code(0);
}

/// A runner decodes `%25` and `%0A` in its commands: a mask for the decoded text would leave the real token in the log.
#[tokio::test]
async fn the_runner_masks_the_token_that_is_printed() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    world.mcp.set_metadata(json!({"authorization_servers": [attacker.base]}));
    let job = world.job(&format!("issuer = \"{}\"", attacker.base)).without_env("SAFECONDUCT_LOG");
    let output = job.run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(output.stdout, format!("{ODD_TOKEN}\n"));
    let masked: Vec<String> = output.stderr.lines().map(|line| line.replace("%25", "%")).collect();
    assert_eq!(masked[0], format!("::add-mask::{ODD_TOKEN}"));
    assert!(
        masked.iter().all(|line| line.starts_with("::add-mask::")),
        "and the same in a URL and in JSON: {masked:?}"
    );
}

/// The same for a step of a job: no spelling of the token that it writes is left unmasked, and none is another key.
#[tokio::test]
async fn the_runner_masks_the_token_of_a_step_before_it_is_written() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    world.mcp.set_metadata(json!({"authorization_servers": [attacker.base]}));
    let job = step_of(world.job(&format!("issuer = \"{}\"", attacker.base))).without_env("SAFECONDUCT_LOG");
    let output = job.run(&["ci", "demo", "--json"]).await.expect_code(0);
    let masks: Vec<&str> = output.stderr.lines().map_while(|line| line.strip_prefix("::add-mask::")).collect();
    // Quotes and the backslash are escaped in JSON; in a URL everything but a few marks is.
    let in_json = ODD_TOKEN.replace('\\', "\\\\").replace('"', "\\\"");
    let in_url = "a-token%2525of%250Athe-attacker%22%5C%24%28id%29";
    assert_eq!(masks, [ODD_TOKEN, in_url, &in_json].map(|one| one.replace('%', "%25")));
    let written = std::fs::read_to_string(job.private("output")).expect("it is there");
    assert_eq!(written.lines().filter(|line| line.contains("<<")).count(), 3, "{written}");
    assert!(written.contains(&format!("\n{ODD_TOKEN}\n")), "{written}");
    std::fs::remove_dir_all(job.path().join("runner")).expect("the runner's");
}

/// A step of a job on GitHub's runner.
fn step_of(world: Safeconduct) -> Safeconduct {
    let (temp, output) = (world.path().join("runner"), world.private("output"));
    std::fs::create_dir_all(&temp).expect("ours");
    let world = world.without_env("SAFECONDUCT_SOCKET").env("RUNNER_TEMP", &temp.display().to_string());
    world.env("GITHUB_OUTPUT", &output.display().to_string())
}

#[tokio::test]
async fn a_token_that_a_runner_would_read_as_a_command_is_not_printed_in_ci() {
    let world = World::new().await;
    for token in ["##[x].PAYLOAD.y", "::x::.PAYLOAD.y", "##vso[task.setvariable].PAYLOAD.y"] {
        let attacker = Attacker::with_token(token).await;
        world.mcp.set_metadata(json!({"authorization_servers": [attacker.base]}));
        let job = world.job(&format!("issuer = \"{}\"", attacker.base)).without_env("SAFECONDUCT_LOG");
        for words in [
            &["token", "demo"][..],
            &["token", "demo", "--no-mask"],
            &["token", "demo", "-o", "json"],
            &["token", "demo", "-o", "header"],
            &["headers", "demo"],
        ] {
            let stderr = refused(job.run(words).await, 76, "a CI runner could read as a command");
            assert!(!stderr.contains("PAYLOAD"), "{stderr}");
        }
        let step = step_of(job.clone());
        let stderr = refused(step.run(&["ci", "demo"]).await, 76, "a CI runner could read as a command");
        assert!(
            !stderr.contains("PAYLOAD") && std::fs::read(step.private("output")).is_ok_and(|text| text.is_empty()),
            "{stderr}"
        );
        let output = job.run_with_stdin(&["get"], &json!({"uri": world.mcp.url()}).to_string()).await;
        refused(output, 76, "a CI runner could read as a command");
        let daemon = world.job(&format!("issuer = \"{}\"", attacker.base)).daemon(&[]).await;
        let bare = Safeconduct::new(binary()).env("SAFECONDUCT_SOCKET", &daemon.socket().display().to_string());
        assert_eq!(bare.run(&["token", "demo"]).await.expect_code(0).stdout, format!("{token}\n"), "outside of CI");
    }
}

/// Some people paste the token as the file name.
#[tokio::test]
async fn a_token_in_the_place_of_a_file_name_is_not_shown() {
    let world = World::new().await;
    let jwt = world.platform.mint(&world.authorization_server.issuer(), Duration::from_secs(300));
    let job = world.job(&world.pin());
    let identity = job.run(&["--identity-file", &jwt, "token", "demo"]).await;
    refused(identity, 69, "JWT");
    let toml = format!(
        "[identity]\nsource = \"file\"\ntoken_file = \"{jwt}\"\n[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{}\"\n{}\n",
        world.mcp.url(),
        world.pin()
    );
    let private = job.private("pasted.toml");
    std::fs::write(&private, &toml).expect("ours");
    let private = private.display().to_string();
    let plain = Safeconduct::new(binary());
    refused(plain.run(&["--config", &private, "token", "demo"]).await, 69, "JWT");
    let in_file = job.private("subject.jwt");
    std::fs::write(&in_file, &jwt).expect("ours");
    refused(plain.run(&["--config", &in_file.display().to_string(), "token", "demo"]).await, 78, "");
}

#[tokio::test]
async fn a_refused_assertion_is_never_presented_again() {
    let world = World::new().await;
    world.authorization_server.always_token(TokenFault::oauth("invalid_grant"));
    let job = world.job(&world.pin());
    let file = job.private("subject.jwt");
    let write = || {
        std::fs::write(&file, world.platform.mint(&world.authorization_server.issuer(), Duration::from_secs(300)))
            .expect("ours");
    };
    write();
    let daemon = job.daemon(&["--identity-file", &file.display().to_string()]).await;
    failed(&daemon.get("/v1/token?server=demo").await, 502, "refused", "invalid_grant");
    // Each of these requests has another cache key or asks for a new token. None may send the same assertion again.
    for query in ["", "&fresh=1", "&scope=openid", "&scope=demo:read", "&scope=demo:read+openid&fresh=1"] {
        let reply = daemon.get(&format!("/v1/token?server=demo{query}")).await;
        assert!(reply.status == 502 || reply.status == 403, "{query}: {}", reply.body);
    }
    assert_eq!(world.authorization_server.token_requests(), 1);
    // A new assertion may be sent.
    world.authorization_server.heal();
    write();
    let reply = daemon.get("/v1/token?server=demo&scope=demo:read").await;
    assert!(reply.status == 200 || reply.status == 502, "{}", reply.body);
    assert!(world.authorization_server.token_requests() <= 2);
}

#[tokio::test]
async fn after_a_refusal_there_is_no_second_grant() {
    let codes = [
        "invalid_grant",
        "invalid_client",
        "invalid_target",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_request",
        "access_denied",
        "made_up_code",
    ];
    for code in codes {
        let world = World::new().await;
        world.authorization_server.set_grants(Some(&[
            JWT_BEARER,
            "client_credentials",
            "urn:ietf:params:oauth:grant-type:token-exchange",
            "authorization_code",
        ]));
        world.authorization_server.always_token(TokenFault::oauth(code));
        let stderr = refused(token(&world.job(&world.pin())).await, 76, code);
        assert!(stderr.contains("hint: "), "{stderr}");
        assert_eq!(world.authorization_server.token_requests(), 1, "{code}");
        assert_eq!(world.authorization_server.last_request().params["grant_type"], JWT_BEARER);
    }
}

#[tokio::test]
async fn an_unusable_identity_is_not_replaced_by_another() {
    let world = World::new().await;
    world.platform.always(PlatformFault::WrongAudience);
    refused(token(&world.job(&world.pin())).await, 69, "the identity token is made for");
    world.platform.heal();
    world.platform.always(PlatformFault::ManyAudiences);
    refused(token(&world.job(&world.pin())).await, 69, "names 2 audiences");
    assert_eq!(world.authorization_server.token_requests(), 0);
    // If the named file is missing, the job's identity is not used instead.
    let job = world.job(&world.pin());
    refused(
        job.run(&["--identity-file", "/nonexistent/token", "token", "demo"]).await,
        69,
        "/nonexistent/token cannot be read",
    );
    assert_eq!(world.platform.requests(), 2);
}
