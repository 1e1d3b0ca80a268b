//! Hostile authorization servers and platforms.

use super::*;

#[tokio::test]
async fn what_a_hostile_issuer_gets_is_worthless_at_the_honest_one() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    world.mcp.set_metadata(json!({"authorization_servers": [attacker.base]}));
    refused(token(&world.job("")).await, 76, "is not bound to");

    let received = attacker.received();
    assert!(received.iter().all(|one| !one.authorization), "the request token of the job is the platform's alone");
    let sent: Vec<_> = received.iter().filter(|one| one.line == "POST /token").collect();
    assert_eq!(sent.len(), 1);
    let form: Vec<(String, String)> = url::form_urlencoded::parse(sent[0].body.as_bytes()).into_owned().collect();
    let assertion = &form.iter().find(|(name, _)| name == "assertion").expect("the grant").1;
    assert_eq!(keys::peek(assertion)["aud"], json!(attacker.base));
    assert_eq!(world.platform.audiences().concat(), attacker.base, "nothing was minted for anybody else");

    let (status, body) = present(&world.authorization_server, assertion, &world.mcp.url()).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")));
    assert_eq!(body["error_description"], "aud is not exactly this issuer");
}

#[tokio::test]
async fn with_a_pin_nothing_reaches_a_hostile_issuer() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    world.mcp.set_metadata(json!({"authorization_servers": [attacker.base]}));
    let daemon = world.job(&world.pin()).daemon(&[]).await;
    failed(&daemon.get("/v1/token?server=demo").await, 502, "refused", "issuer_not_named");
    attacker.saw_nothing();
    assert_eq!(world.authorization_server.token_requests(), 0);
    assert!(!world.platform.audiences().contains(&attacker.base));
}

#[tokio::test]
async fn with_listed_issuers_nothing_reaches_a_hostile_issuer() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    let honest = world.authorization_server.issuer();
    let listed = format!("issuers = [\"{honest}\"]");
    world.mcp.set_metadata(json!({"authorization_servers": [attacker.base]}));
    let daemon = world.job_with("", &listed).daemon(&[]).await;
    failed(&daemon.get("/v1/token?server=demo").await, 403, "denied", "issuer_not_listed");
    assert_eq!(world.platform.requests(), 0, "no identity is asked for before somebody may have it");

    // If the metadata names both servers, the attacker's is not used.
    world.mcp.set_metadata(json!({"authorization_servers": [attacker.base, honest]}));
    accepted(token(&world.job_with("", &listed)).await);
    attacker.saw_nothing();
    assert_eq!(world.platform.audiences(), [honest]);
}

#[tokio::test]
async fn several_issuers_are_never_tried_in_turn() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    let named = json!([attacker.base, world.authorization_server.issuer()]);
    world.mcp.set_metadata(json!({"authorization_servers": named}));
    let stderr = refused(token(&world.job("")).await, 78, "several authorization servers");
    assert!(stderr.contains("hint: ") && stderr.contains("--issuer"), "{stderr}");
    attacker.saw_nothing();
    assert_eq!(world.platform.requests(), 0);
}

#[tokio::test]
async fn a_token_that_is_not_bound_to_the_resource_needs_a_trusted_issuer() {
    let faults = [
        TokenFault::IgnoreResource,
        TokenFault::OpaqueToken,
        TokenFault::Audience(json!(["https://somebody-else.example/mcp", "https://another.example/mcp"])),
        TokenFault::Audience(Value::Null),
    ];
    for ignorance in faults {
        let world = World::new().await;
        world.authorization_server.always_token(ignorance);
        let daemon = world.job("").daemon(&[]).await;
        let reply = daemon.get("/v1/token?server=demo").await;
        failed(&reply, 502, "refused", "resource_not_bound");
        let hint = reply.json()["hint"].as_str().unwrap_or_default().to_owned();
        assert!(hint.contains("pin") && hint.contains(&world.authorization_server.issuer()), "{hint}");
        accepted(token(&world.job(&world.pin())).await);
        accepted(token(&world.job("trust_discovered_issuer = true")).await);
    }
}

/// Servers look at the token, whatever the answer beside it says.
#[tokio::test]
async fn a_scope_that_only_the_token_names_does_not_pass_a_ceiling() {
    let more = "demo:read demo:write";
    let answers = [None, Some("demo:read".to_owned())];
    let tokens = [
        json!({"scope": more}),
        json!({"scp": more}),
        json!({"scope": ["demo:read", "demo:write"]}),
        json!({"scope": "demo:read", "scp": ["demo:write"]}),
        json!({"scope": ["demo:read demo:write", 7, null]}),
        json!({"scope": "demo:read \u{e9}"}),
    ];
    let world = World::new().await;
    for (answer, token) in answers.into_iter().flat_map(|answer| tokens.iter().map(move |one| (answer.clone(), one))) {
        let claims = token.clone();
        world.authorization_server.always_token(TokenFault::ScopeClaims { answer, token: claims });
        refused(self::token(&world.job(&world.pin())).await, 77, "beyond this caller's ceiling");
    }
    for good in [json!({"scp": ["demo:read"]}), json!({"scope": 7}), json!({"scope": "demo:read openid"})] {
        world.authorization_server.always_token(TokenFault::ScopeClaims { answer: None, token: good });
        accepted(token(&world.job(&world.pin())).await);
    }
}

#[tokio::test]
async fn the_metadata_of_another_issuer_is_refused() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    let issuer = world.authorization_server.issuer();
    let others =
        [attacker.base.clone(), format!("{issuer}/"), issuer.to_uppercase(), format!("{issuer}/tenant"), String::new()];
    for other in others {
        world.authorization_server.always_metadata(MetadataFault::WrongIssuer(other.clone()));
        for lines in [world.pin(), String::new()] {
            let stderr = refused(token(&world.job(&lines)).await, 76, "server metadata is for issuer");
            assert!(stderr.contains("safeconduct: hint: "), "{stderr}");
        }
    }
    let daemon = world.job(&world.pin()).daemon(&[]).await;
    failed(&daemon.get("/v1/token?server=demo").await, 502, "refused", "issuer_mismatch");
    attacker.saw_nothing();
    assert_eq!(world.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn a_pin_with_a_slash_too_many_is_not_the_issuer() {
    let world = World::new().await;
    let pin = format!("issuer = \"{}/\"", world.authorization_server.issuer());
    let output = token(&world.job(&pin)).await;
    refused(output, 76, "issuer");
    assert_eq!(world.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn the_metadata_of_another_resource_is_refused() {
    let world = World::new().await;
    let base = world.mcp.base().to_owned();
    let others =
        ["https://mcp.example.com/mcp".to_owned(), format!("{base}/mcp/deeper"), format!("{base}/mc"), String::new()];
    for other in others {
        world.mcp.set_metadata(json!({"resource": other}));
        for lines in [world.pin(), String::new()] {
            refused(token(&world.job(&lines)).await, 76, "resource metadata is for");
        }
    }
    assert_eq!(world.authorization_server.token_requests(), 0);
}

const ROOT: &str = "/.well-known/oauth-protected-resource";

/// A token for the whole origin would be good at every neighbour of the server.
#[tokio::test]
async fn a_tenant_by_path_gets_no_token_for_its_neighbours() {
    let world = World::new().await;
    let (base, issuer) = (world.mcp.base().to_owned(), world.authorization_server.issuer());
    world.authorization_server.register(&base, &SCOPES);
    let document = json!({"resource": base, "authorization_servers": [issuer]});
    world.mcp.publish(INSERTED, document.clone());
    world.mcp.publish("/tenant-document", document.clone());
    let elsewhere = FakeMcp::start(&world.authorization_server, &SCOPES).await;
    elsewhere.publish(ROOT, document.clone());
    let challenge = |place: String| format!("Bearer resource_metadata=\"{place}\"");
    let cases = [
        (challenge(format!("{base}{INSERTED}")), "does not say so"),
        (challenge(format!("{base}/tenant-document")), "does not say so"),
        (challenge(format!("{}{ROOT}", elsewhere.base())), "resource metadata is for"),
        ("Bearer".to_owned(), "does not say so"),
    ];
    for (challenge, words) in &cases {
        world.mcp.set_challenges(Some(&[challenge]));
        for lines in [world.pin(), String::new()] {
            let stderr = refused(token(&world.job(&lines)).await, 76, words);
            assert!(stderr.contains("safeconduct: hint: "), "{stderr}");
        }
    }
    // The root may speak for another resource.
    world.mcp.publish(ROOT, json!({"resource": format!("{base}/mcp"), "authorization_servers": [issuer]}));
    world.mcp.set_challenges(None);
    refused(token(&world.job("")).await, 76, "does not say so");
    assert_eq!(world.authorization_server.token_requests(), 0);

    accepted(token(&world.job(&format!("resource = \"{base}\""))).await);
    world.mcp.publish(ROOT, document);
    for lines in [world.pin(), String::new()] {
        let token = accepted(token(&world.job(&lines)).await);
        assert_eq!(keys::peek(&token)["aud"], json!(base), "the origin says the same");
    }
}

#[tokio::test]
async fn another_origin_speaks_for_exactly_the_servers_url() {
    let world = World::new().await;
    let elsewhere = FakeMcp::start(&world.authorization_server, &SCOPES).await;
    let place = format!("{}/document", elsewhere.base());
    let (url, issuer) = (world.mcp.url(), world.authorization_server.issuer());
    world.mcp.set_challenges(Some(&[&format!("Bearer resource_metadata=\"{place}\"")]));
    for (resource, is_good) in [(url.clone(), true), (format!("{url}/"), false), (elsewhere.url(), false)] {
        elsewhere.publish("/document", json!({"resource": resource, "authorization_servers": [issuer]}));
        let output = token(&world.job("")).await;
        if is_good {
            accepted(output);
        } else {
            refused(output, 76, "resource metadata is for");
        }
    }
}

/// Userinfo would become an `Authorization` field of the server's choice, at a place of its choice.
#[tokio::test]
async fn a_place_in_the_challenge_that_is_no_plain_url_is_not_asked() {
    let world = World::new().await;
    let attacker = Attacker::start().await;
    let host = attacker.base.trim_start_matches("http://");
    let places = [
        format!("http://user:secret@{host}/document"),
        format!("http://user@{host}/document"),
        format!("http://{host}/document#part"),
        format!("http://{host}/a/../document"),
        format!("http://{host}/a/%2e%2e/document"),
        format!("http:{host}/document"),
        format!("http:/{host}/document"),
        format!("//{host}/document"),
        format!("http:\\\\\\\\{host}/document"),
    ];
    for place in places {
        world.mcp.set_challenges(Some(&[&format!("Bearer resource_metadata=\"{place}\"")]));
        accepted(token(&world.job("")).await);
        world.job("").run(&["doctor", "demo"]).await;
        attacker.saw_nothing();
    }
}

/// `resource` in metadata may be a prefix of the URL. Every server below the prefix accepts such a token, so a caller that is
/// permitted only one of these servers must not get it, and neither must the server itself.
#[tokio::test]
async fn one_resource_over_two_servers_does_not_get_round_allow() {
    let world = World::new().await;
    world.mcp.set_signposts(Signposts { header: None, inserted: true, root: true });
    let url = world.mcp.url();
    let daemon = async |both: &str, theirs: &str| {
        let toml = format!(
            "[egress]\ninsecure_loopback = true\n[servers.mine]\nurl = \"{url}/mine\"\n{both}\n[servers.theirs]\nurl = \"{url}/theirs\"\n{both}\n{theirs}\n"
        );
        Safeconduct::new(binary()).envs(world.platform.env()).config(&toml).daemon(&[]).await
    };
    for theirs in ["allow = [{ uid = 61234 }]", ""] {
        let daemon = daemon("", theirs).await;
        failed(&daemon.get("/v1/token?server=mine").await, 500, "config", "shared_resource");
    }
    assert_eq!(world.authorization_server.token_requests(), 0);
    let daemon = daemon(&format!("resource = \"{url}\""), "").await;
    assert_eq!(daemon.get("/v1/token?server=mine").await.status, 200, "the operator said so at both");
}
