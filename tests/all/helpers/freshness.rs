//! Freshness and scopes.

use super::*;

#[tokio::test]
async fn headers_asked_twice_give_a_new_token_and_then_back_off() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(flat(&daemon.run(&["headers", "demo"]).await).to_owned());
    }
    assert_ne!(seen[0], seen[1], "the client never says why it asks again");
    assert_eq!(seen[1..], [seen[1].clone(), seen[1].clone(), seen[1].clone()], "once, then back-off");
    assert_eq!(scene.authorization_server.token_requests(), 2);
    // A repeated `token` does not mean that the last token was bad.
    line(&daemon.run(&["token", "demo"]).await);
    line(&daemon.run(&["token", "demo"]).await);
    assert_eq!(scene.authorization_server.token_requests(), 2);
}

#[tokio::test]
async fn headers_asked_twice_give_the_valid_token_if_there_is_no_new_one() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let first = flat(&daemon.run(&["headers", "demo"]).await).to_owned();
    scene.authorization_server.set_down(true);
    assert_eq!(flat(&daemon.run(&["headers", "demo"]).await), first);
}

/// If the token was renewed after the first answer, the client gets the renewed one, without another exchange.
#[tokio::test]
async fn a_token_minted_since_the_first_answer_is_new_enough() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let first = flat(&daemon.run(&["headers", "demo"]).await).to_owned();
    pause(Duration::from_millis(1_100)).await;
    let fresh = line(&daemon.run(&["token", "demo", "--fresh"]).await).to_owned();
    assert_ne!(first, fresh);
    assert_eq!(flat(&daemon.run(&["headers", "demo"]).await), fresh);
    assert_eq!(scene.authorization_server.token_requests(), 2);
}

#[tokio::test]
async fn fresh_is_a_new_token_three_times_and_then_limited() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let fresh = async || line(&daemon.run(&["token", "demo", "--fresh"]).await).to_owned();
    let mut last = fresh().await;
    assert_eq!(fresh().await, last, "minted within the last second");
    for forced in 0..3 {
        pause(Duration::from_millis(1_100)).await;
        let next = fresh().await;
        assert!(next != last, "forced mint {forced}: {}", daemon.log());
        last = next;
    }
    pause(Duration::from_millis(1_100)).await;
    assert_eq!(fresh().await, last, "over the limit the valid token is given");
    assert_eq!(scene.authorization_server.token_requests(), 4);
}

#[tokio::test]
async fn min_ttl_is_not_guaranteed() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_token_life(Duration::from_secs(12));
    let daemon = scene.daemon("").await;
    let ask = async |ttl: &str| line(&daemon.run(&["token", "demo", "--min-ttl", ttl]).await).to_owned();
    let first = ask("0s").await;
    assert_eq!(ask("1h").await, first, "no token of this issuer lives that long");
    pause(Duration::from_millis(2_600)).await;
    assert_eq!(ask("1h").await, first);
    assert_eq!(ask("5s").await, first, "it has that much left");
    assert_eq!(scene.authorization_server.token_requests(), 1);
    let second = ask("11s").await;
    assert_ne!(second, first);
    // Requests do not cause an exchange each: the new token serves them all.
    assert_eq!(ask("11s").await, second);
    assert_eq!(scene.authorization_server.token_requests(), 2);
    let reply = daemon.get("/v1/token?server=demo&min_ttl=3600").await;
    assert!(reply.json()["expires_in"].as_u64().is_some_and(|left| left <= 12), "with its true expiry");
}

#[tokio::test]
async fn a_rejected_token_is_dropped_if_it_is_the_current_one() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_token_life(Duration::from_secs(10));
    let daemon = scene.daemon("").await;
    let first = daemon.token("demo").await;
    let digest = |token: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let reject = async |digest: &str| {
        let reply = daemon.post("/v1/reject", &json!({"server": "demo", "access_token_sha256": digest})).await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    };
    reject(&digest(&first)).await;
    assert_eq!(daemon.token("demo").await, first, "so young a token is refused for another reason than its age");
    pause(Duration::from_millis(1_100)).await;
    reject(&digest("another")).await;
    assert_eq!(daemon.token("demo").await, first, "another caller's old token says nothing of this one");
    reject(&digest(&first)).await;
    let second = daemon.token("demo").await;
    assert_ne!(second, first);
    reject(&digest(&first)).await;
    assert_eq!(daemon.token("demo").await, second);
    assert_eq!(scene.authorization_server.token_requests(), 2);
    for body in [
        json!({"server": "demo"}),
        json!({"server": "demo", "access_token_sha256": "not a digest"}),
        json!({"server": "nope", "access_token_sha256": digest(&first)}),
        json!({"server": "demo", "access_token_sha256": digest(&first), "more": 1}),
        json!("text"),
    ] {
        assert_eq!(daemon.post("/v1/reject", &body).await.status, 400, "{body}");
    }
}

// Scopes.

#[tokio::test]
async fn scopes_are_asked_for_by_flag_and_kept_apart() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("scopes = [\"demo:read\", \"demo:write\"]").await;
    let ask = async |args: &[&str]| {
        let output = daemon.run(&[&["token", "demo", "-o", "json"], args].concat()).await.expect_code(0);
        output.json()["scope"].as_str().map(str::to_owned)
    };
    assert_eq!(ask(&["--scope", "demo:read"]).await.as_deref(), Some("demo:read"));
    assert_eq!(ask(&["--scope", "demo:write", "--scope", "demo:read"]).await.as_deref(), Some("demo:read demo:write"));
    assert_eq!(scene.authorization_server.token_requests(), 2);
    failed(daemon.run(&["token", "demo", "--scope", "demo:admin"]).await, DENIED);
    failed(daemon.run(&["token", "demo", "--scope", "two words"]).await, ASKED_WRONGLY);
    assert_eq!(scene.authorization_server.token_requests(), 2);
}
