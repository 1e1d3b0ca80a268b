//! SIGHUP: a running daemon gets a new configuration, completely or not at all.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::authorization_server::FakeAs;
use support::mcp_server::{FakeMcp, Signposts};
use support::safeconduct::{Daemon, Safeconduct};
use support::scene::{SCOPES, Scene};

use crate::binary;

const TAKEN: &str = "the configuration is read anew";
const REFUSED: &str = "the configuration is not taken over";

/// A daemon with a configuration file that the test can rewrite.
async fn daemon(scene: &Scene, more: &str) -> (Daemon, Safeconduct) {
    let world = scene.configured(more);
    (world.daemon(&[]).await, world)
}

/// Waits until the log contains `what` this many times.
async fn logged(daemon: &Daemon, what: &str, times: usize) {
    for _ in 0..500 {
        if daemon.log().matches(what).count() >= times {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what:?} is not {times} times in\n{}", daemon.log());
}

async fn reload(daemon: &Daemon, world: &Safeconduct, config: &str) {
    let before = daemon.log().matches(TAKEN).count();
    world.rewrite_config(config);
    daemon.signal(Signal::SIGHUP);
    logged(daemon, TAKEN, before + 1).await;
}

#[tokio::test]
async fn a_token_survives_if_nothing_that_reached_its_making_changed() {
    let scene = Scene::new(binary()).await;
    let (daemon, world) = daemon(&scene, "").await;
    let token = daemon.token("demo").await;
    for more in ["", "tolerate_scopes = [\"profile\"]\n", "rate = \"100/s\"\n"] {
        reload(&daemon, &world, &scene.config(more)).await;
        assert_eq!(daemon.token("demo").await, token, "{more}");
    }
    assert_eq!(scene.authorization_server.token_requests(), 1);
    let served: Value = daemon.get("/v1/status").await.json();
    assert_eq!(served["servers"][0]["tokens"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_change_in_what_is_sent_makes_a_new_token() {
    let scene = Scene::new(binary()).await;
    let (daemon, world) = daemon(&scene, "").await;
    let mut seen = vec![daemon.token("demo").await];
    for more in ["scopes = [\"demo:read\"]\n", "resource = \"\"\n", "dpop = false\n", "exchange = \"jwt-bearer\"\n"] {
        scene.authorization_server.set_resource_optional(true);
        reload(&daemon, &world, &scene.config(more)).await;
        let token = daemon.token("demo").await;
        assert!(!seen.contains(&token), "{more}");
        seen.push(token);
    }
    assert_eq!(scene.authorization_server.token_requests(), seen.len());
}

#[tokio::test]
async fn callers_are_judged_anew() {
    let scene = Scene::new(binary()).await;
    let own = nix::unistd::geteuid().as_raw();
    let (daemon, world) = daemon(&scene, "").await;
    daemon.token("demo").await;
    reload(&daemon, &world, &scene.config(&format!("allow = [{{ uid = {} }}]\n", own + 1))).await;
    let refused = daemon.get("/v1/token?server=demo").await;
    assert_eq!((refused.status, &refused.json()["class"]), (403, &json!("denied")));
    reload(&daemon, &world, &scene.config(&format!("allow = [{{ uid = {own} }}]\n"))).await;
    daemon.token("demo").await;
    assert_eq!(scene.authorization_server.token_requests(), 1);
}

#[tokio::test]
async fn a_bad_file_is_reported_and_the_old_configuration_stays() {
    let scene = Scene::new(binary()).await;
    let (daemon, world) = daemon(&scene, "").await;
    let token = daemon.token("demo").await;
    for (i, bad) in
        ["[servers.demo]\nurl = \"ftp://x\"\nfoo = 1\n", "not toml", "[identity]\nsource = \"file\"\ntoken_file = 1\n"]
            .iter()
            .enumerate()
    {
        world.rewrite_config(bad);
        daemon.signal(Signal::SIGHUP);
        logged(&daemon, REFUSED, i + 1).await;
        assert_eq!(daemon.token("demo").await, token);
    }
    assert!(daemon.log().contains("line 2: servers.demo.url") && daemon.log().contains("line 3: servers.demo.foo"));
    assert!(!daemon.log().contains(TAKEN));
}

#[tokio::test]
async fn an_identity_that_is_missing_now_is_a_bad_configuration_too() {
    let scene = Scene::new(binary()).await;
    let (daemon, world) = daemon(&scene, "").await;
    let token = daemon.token("demo").await;
    let named = format!("{}[identity]\nsource = \"gitlab-ci\"\ntoken_env = \"NOT_THERE\"\n", scene.config(""));
    world.rewrite_config(&named);
    daemon.signal(Signal::SIGHUP);
    logged(&daemon, REFUSED, 1).await;
    assert!(daemon.log().contains("NOT_THERE is not set"), "{}", daemon.log());
    assert_eq!(daemon.token("demo").await, token);
}

#[tokio::test]
async fn changes_of_listeners_and_audit_need_a_restart_and_say_so() {
    let scene = Scene::new(binary()).await;
    let (daemon, world) = daemon(&scene, "").await;
    let more = format!(
        "[listen]\nlinger = \"5s\"\n[audit]\nfile = \"{}\"\n",
        world.path().join("private/audit.jsonl").display()
    );
    reload(&daemon, &world, &scene.config(&more)).await;
    assert!(daemon.log().contains("[listen] has changed") && daemon.log().contains("[audit] has changed"));
    daemon.token("demo").await;
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_flight_begun_before_answers_its_callers_and_does_not_enter_the_new_cache() {
    let scene = Scene::new(binary()).await;
    let sluice = scene.sluice().await;
    let (daemon, world) = daemon(&scene, "").await;
    sluice.shut();
    let first = daemon.get("/v1/token?server=demo");
    let then = async {
        sluice.holds(1).await;
        reload(&daemon, &world, &scene.config("tolerate_scopes = [\"profile\"]\n")).await;
        sluice.open();
    };
    let (first, ()) = tokio::join!(first, then);
    assert_eq!(first.status, 200, "{}", first.body);
    let second = daemon.token("demo").await;
    assert_ne!(first.json()["access_token"], json!(second));
    assert_eq!(scene.authorization_server.token_requests(), 2);
}

#[tokio::test]
async fn a_request_is_judged_and_answered_by_the_configuration_that_it_began_with() {
    let scene = Scene::new(binary()).await;
    let moved = FakeMcp::start(&scene.authorization_server, &SCOPES).await;
    let sluice = scene.sluice().await;
    let (daemon, world) = daemon(&scene, "").await;
    sluice.shut();
    let path = format!("/v1/headers?server=demo&method=POST&url={}/below", scene.mcp.url());
    let first = daemon.get(&path);
    let then = async {
        sluice.holds(1).await;
        reload(&daemon, &world, &scene.config("").replace(&scene.mcp.url(), &moved.url())).await;
        sluice.open();
    };
    let (first, ()) = tokio::join!(first, then);
    assert_eq!(first.status, 200, "{}", first.body);
    let field = first.json()["headers"]["Authorization"][0].clone();
    let claims = field.as_str().and_then(|field| field.split('.').nth(1)).expect("a JWT");
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64url")).expect("JSON");
    assert_eq!(claims["aud"], json!(scene.mcp.url()), "for the server as it was");
    assert_eq!(daemon.get(&path).await.status, 403, "the next request is judged by the new configuration");
}

#[tokio::test]
async fn who_is_let_in_no_longer_gets_nothing_from_a_request_that_began_before() {
    let own = nix::unistd::geteuid().as_raw();
    let other = format!("allow = [{{ uid = {} }}]\n", own + 1);
    let narrow = "scopes = [\"demo:read\"]\n".to_owned();
    for (more, path, code) in [
        (other.clone(), "/v1/token?server=demo", "access_denied"),
        (other, "/v1/headers?server=demo", "access_denied"),
        (narrow, "/v1/token?server=demo", "scope_beyond_ceiling"),
    ] {
        let scene = Scene::new(binary()).await;
        let sluice = scene.sluice().await;
        let (daemon, world) = daemon(&scene, "").await;
        sluice.shut();
        let first = daemon.get(path);
        let then = async {
            sluice.holds(1).await;
            reload(&daemon, &world, &scene.config(&more)).await;
            sluice.open();
        };
        let (first, ()) = tokio::join!(first, then);
        assert_eq!((first.status, &first.json()["error"]), (403, &json!(code)), "{path}: {}", first.body);
        assert!(first.json()["hint"].is_string(), "{}", first.body);
    }
}

#[tokio::test]
async fn a_server_that_is_new_is_served_and_one_that_is_gone_is_not() {
    let scene = Scene::new(binary()).await;
    let (daemon, world) = daemon(&scene, "").await;
    daemon.token("demo").await;
    let other_as = FakeAs::start(scene.platform.trust()).await;
    let other = FakeMcp::start(&other_as, &["x"]).await;
    let only_other = format!(
        "[egress]\ninsecure_loopback = true\n[servers.other]\nurl = \"{}\"\nissuer = \"{}\"\nrequired = true\n",
        other.url(),
        other_as.issuer()
    );
    reload(&daemon, &world, &only_other).await;
    assert_eq!(daemon.get("/v1/token?server=demo").await.status, 400);
    daemon.token("other").await;
    assert_eq!(daemon.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_token_in_use_is_renewed_after_a_reload_as_before() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_token_life(Duration::from_secs(3));
    let (daemon, world) = daemon(&scene, "").await;
    let first = daemon.token("demo").await;
    reload(&daemon, &world, &scene.config("tolerate_scopes = [\"profile\"]\n")).await;
    assert_eq!(daemon.token("demo").await, first);
    let mut renewed = false;
    for _ in 0..400 {
        renewed = daemon.token("demo").await != first;
        if renewed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(renewed, "before its end");
    assert_eq!(scene.authorization_server.token_requests(), 2, "in the background, once");
}

#[tokio::test]
async fn a_registered_client_follows_an_issuer_that_the_operator_changed() {
    let scene = Scene::new(binary()).await;
    let keys = "exchange = \"client-credentials\"\nclient_auth = \"secret\"\nregister = true\n";
    let (daemon, world) = daemon(&scene, keys).await;
    daemon.token("demo").await;
    let moved = FakeAs::start(scene.platform.trust()).await;
    moved.register(&scene.mcp.url(), &SCOPES);
    scene.mcp.set_metadata(json!({"authorization_servers": [moved.issuer()]}));
    let config = scene.config(keys).replace(&scene.authorization_server.issuer(), &moved.issuer());
    reload(&daemon, &world, &config).await;
    daemon.token("demo").await;
    assert_eq!((scene.authorization_server.registrations(), moved.registrations()), (1, 1));
    reload(&daemon, &world, &format!("{config}rate = \"100/s\"\n")).await;
    assert_eq!(daemon.get("/v1/token?server=demo&scope=demo:read").await.status, 200);
    assert_eq!(moved.registrations(), 1, "who is registered stays so");
}

#[tokio::test]
async fn a_token_of_an_issuer_that_is_not_listed_any_more_is_not_given() {
    let scene = Scene::new(binary()).await;
    let listed = |issuer: &str| {
        let url = scene.mcp.url();
        format!("[egress]\ninsecure_loopback = true\nissuers = [\"{issuer}\"]\n[servers.demo]\nurl = \"{url}\"\n")
    };
    let world = scene.safeconduct.clone().config(&listed(&scene.authorization_server.issuer()));
    let daemon = world.daemon(&[]).await;
    daemon.token("demo").await;
    reload(&daemon, &world, &listed("https://other.example.com")).await;
    let reply = daemon.get("/v1/token?server=demo").await;
    assert_eq!((reply.status, &reply.json()["error"]), (403, &json!("issuer_not_listed")));
}

#[tokio::test]
async fn a_token_that_would_open_a_new_server_to_others_is_not_given() {
    let scene = Scene::new(binary()).await;
    let whole = scene.mcp.base().to_owned();
    scene.mcp.set_metadata(json!({"resource": whole}));
    scene.mcp.set_signposts(Signposts { header: None, inserted: true, root: true });
    scene.authorization_server.register(&whole, &SCOPES);
    let (daemon, world) = daemon(&scene, "").await;
    daemon.token("demo").await;
    let beside = format!("[servers.other]\nurl = \"{whole}/other\"\nallow = [{{ uid = 4242 }}]\n");
    reload(&daemon, &world, &scene.config(&beside)).await;
    let reply = daemon.get("/v1/token?server=demo").await;
    assert_eq!((reply.status, &reply.json()["error"]), (500, &json!("shared_resource")));
}

#[tokio::test]
async fn a_token_that_is_left_behind_is_revoked_where_the_end_would_have_done_it() {
    let scene = Scene::new(binary()).await;
    let (daemon, world) = daemon(&scene, "revoke_on_exit = true\n").await;
    let token = daemon.token("demo").await;
    reload(&daemon, &world, &scene.config("revoke_on_exit = true\nrate = \"100/s\"\n")).await;
    assert_eq!(daemon.token("demo").await, token);
    assert!(!scene.authorization_server.is_revoked(&token), "it goes on");
    reload(&daemon, &world, &scene.config("revoke_on_exit = true\nextra = { tenant = \"blue\" }\n")).await;
    for _ in 0..500 {
        if scene.authorization_server.is_revoked(&token) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it is not revoked: {}", daemon.log());
}
