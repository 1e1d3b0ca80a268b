//! Revocation, completions, and a second server.

use super::*;

#[tokio::test]
async fn revoke_gives_back_what_is_held() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    assert_eq!(daemon.run(&["revoke"]).await.expect_code(0).stdout, "", "nothing is held");
    let first = daemon.token("demo").await;
    assert_eq!(daemon.run(&["revoke", "demo"]).await.expect_code(0).stdout, "demo: 1 revoked\n");
    assert!(scene.authorization_server.is_revoked(&first));
    let second = daemon.token("demo").await;
    assert_ne!(second, first);
    daemon.get("/v1/token?server=demo&scope=demo:read").await;
    assert_eq!(daemon.run(&["revoke"]).await.expect_code(0).stdout, "demo: 2 revoked\n");
    assert!(scene.authorization_server.is_revoked(&second));
    failed(daemon.run(&["revoke", "nope"]).await, ASKED_WRONGLY);
    failed(Safeconduct::new(binary()).run(&["revoke"]).await, TEMPORARY);
}

#[tokio::test]
async fn while_a_revocation_is_under_way_nobody_gets_the_token() {
    let scene = Scene::new(binary()).await;
    let sluice = Sluice::before(scene.authorization_server.base()).await;
    scene.authorization_server.set_metadata(json!({"revocation_endpoint": sluice.url("/revoke")}));
    let daemon = scene.daemon("").await;
    let first = daemon.token("demo").await;
    sluice.shut();
    let revoking = async { daemon.run(&["revoke", "demo"]).await.expect_code(0).stdout };
    let meanwhile = async {
        sluice.holds(1).await;
        let second = daemon.token("demo").await;
        sluice.open();
        second
    };
    let (revoked, second) = tokio::join!(revoking, meanwhile);
    assert_eq!(revoked, "demo: 1 revoked\n");
    assert_ne!(second, first);
    assert!(scene.authorization_server.is_revoked(&first));
}

#[tokio::test]
async fn after_a_lasting_refusal_the_documents_are_read_again() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    daemon.token("demo").await;
    let read = scene.authorization_server.metadata_requests();
    scene.authorization_server.script_token([TokenFault::oauth("invalid_target")]);
    assert_eq!(daemon.get("/v1/token?server=demo&scope=demo:read").await.status, 502);
    assert_eq!(scene.authorization_server.metadata_requests(), read, "until then what was discovered is good");
    assert_eq!(daemon.get("/v1/token?server=demo&scope=demo:write").await.status, 200);
    assert_eq!(scene.authorization_server.metadata_requests(), read + 1, "it may have moved");
}

#[tokio::test]
async fn without_a_revocation_endpoint_the_token_is_dropped_anyway() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_metadata(json!({"revocation_endpoint": null}));
    let daemon = scene.daemon("").await;
    let first = daemon.token("demo").await;
    let words = failed(daemon.run(&["revoke", "demo"]).await, REFUSED);
    assert!(words.contains("forgotten here"), "{words}");
    assert_ne!(daemon.token("demo").await, first);
}

#[tokio::test]
async fn an_outage_while_revoking_is_temporary() {
    let scene = Scene::new(binary()).await;
    let elsewhere = FakeAs::start(scene.platform.trust()).await;
    elsewhere.always_token(Fault::Status(503));
    scene.authorization_server.set_metadata(json!({"revocation_endpoint": elsewhere.token_endpoint()}));
    let daemon = scene.daemon("").await;
    daemon.token("demo").await;
    let words = failed(daemon.run(&["revoke", "demo"]).await, TEMPORARY);
    assert!(words.contains("503") && words.contains("forgotten here"), "{words}");
}

#[tokio::test]
async fn completions_are_printed_for_every_shell() {
    let world = Safeconduct::new(binary());
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = world.run(&["completions", shell]).await.expect_code(0).stdout;
        assert!(text.contains("safeconduct") && text.contains("headers"), "{shell}");
        assert!(!text.contains("--detached"), "{shell}: what is ours alone is offered to nobody");
    }
    world.run(&["completions", "tcsh"]).await.expect_code(ASKED_WRONGLY);
}

// A second server, to find code that only works with one.

#[tokio::test]
async fn each_server_has_its_own_token() {
    let scene = Scene::new(binary()).await;
    let other_as = FakeAs::start(scene.platform.trust()).await;
    let other = FakeMcp::start(&other_as, &["other:read"]).await;
    let more = format!("\n[servers.other]\nurl = \"{}\"\nissuer = \"{}\"", other.url(), other_as.issuer());
    let daemon: Daemon = scene.daemon(&more).await;
    let audience = async |target: &str| keys::peek(line(&daemon.run(&["token", target]).await))["aud"].clone();
    assert_eq!(audience("demo").await, json!(scene.mcp.url()));
    assert_eq!(audience("other").await, json!(other.url()));
    assert_eq!(audience(&other.url()).await, json!(other.url()));
    assert_eq!((scene.authorization_server.token_requests(), other_as.token_requests()), (1, 1));
    assert_eq!(scene.platform.audiences(), [scene.authorization_server.issuer(), other_as.issuer()]);
    leak::check("the daemon's log", &daemon.log());
}
