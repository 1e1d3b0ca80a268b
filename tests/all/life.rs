//! The life of a token with real sockets and in real time, with tokens that live for seconds: what callers see during an outage,
//! after a refusal, and with many other callers. `src/cache` tests the exact rules with a virtual clock.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use support::authorization_server::{FakeAs, TokenFault};
use support::fault::Fault;
use support::keys;
use support::mcp_server::FakeMcp;
use support::safeconduct::Daemon;
use support::scene::Scene;
use support::unix_http::{self, Reply};
use support::wait;

use crate::{LIMIT, binary};

const ASK: &str = "/v1/token?server=demo";

fn asked(daemon: &Daemon, path: &str) -> tokio::task::JoinHandle<std::io::Result<Reply>> {
    let (socket, path): (PathBuf, String) = (daemon.socket().to_owned(), path.to_owned());
    tokio::spawn(async move { unix_http::get(&socket, &path).await })
}

/// Asks repeatedly until the answer satisfies `what`.
async fn until(text: &str, daemon: &Daemon, mut what: impl FnMut(&Reply) -> bool) -> Reply {
    let mut found = None;
    wait::until(LIMIT, text, async || {
        let reply = daemon.get(ASK).await;
        let is_so = what(&reply);
        found = is_so.then_some(reply);
        is_so
    })
    .await;
    found.expect("it was waited for")
}

/// Asks for a token younger than the cached one until the authorization server gets a request for it, because a token made within
/// the last second counts as fresh. Whatever the outcome of that request, callers keep `token`.
async fn forced_in_vain(scene: &Scene, daemon: &Daemon, token: &str) {
    let before = scene.authorization_server.token_requests();
    wait::until(LIMIT, "a new token is asked for", async || {
        let reply = daemon.get(&format!("{ASK}&fresh=1")).await;
        assert_eq!((reply.status, reply.json()["access_token"].as_str()), (200, Some(token)));
        scene.authorization_server.token_requests() > before
    })
    .await;
    assert_eq!(scene.authorization_server.token_requests(), before + 1);
}

/// A client and the fakes need two descriptors for each caller.
fn allow_descriptors(wanted: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it has a limit");
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard).expect("up to the hard limit anybody may");
    }
}

/// Connects without blocking, as tokio does. A full backlog gives EAGAIN, which fails the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_on_a_cold_key_are_one_token_request_and_nobody_is_refused() {
    const CALLERS: usize = 1_000;
    allow_descriptors(4_096);
    let scene = Scene::new(binary()).await;
    let sluice = scene.sluice().await;
    let daemon = scene.daemon("").await;
    sluice.shut();
    let callers: Vec<_> = (0..CALLERS).map(|_| asked(&daemon, ASK)).collect();
    sluice.holds(1).await;
    sluice.open();
    let mut digests = std::collections::HashSet::new();
    for caller in callers {
        let reply = caller.await.expect("it ran").expect("not even the connection was refused");
        assert_eq!(reply.status, 200);
        digests.insert(keys::digest(reply.json()["access_token"].as_str().expect("a token")));
    }
    assert_eq!(digests.len(), 1);
    assert_eq!((scene.platform.requests(), scene.authorization_server.token_requests()), (1, 1));
    let status = daemon.get("/v1/status").await.json();
    assert_eq!(status["servers"][0]["callers"][0]["served"], CALLERS);
}

#[tokio::test]
async fn a_token_in_use_is_renewed_and_nobody_is_refused_meanwhile() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_token_life(Duration::from_secs(4));
    let daemon = scene.daemon("").await;
    let first = daemon.token("demo").await;
    until("a new token", &daemon, |reply| {
        assert_eq!(reply.status, 200);
        reply.json()["access_token"] != first
    })
    .await;
    assert_eq!(scene.authorization_server.token_requests(), 2);
}

#[tokio::test]
async fn nobody_asks_and_the_token_lapses() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_token_life(Duration::from_secs(1));
    let daemon = scene.daemon("").await;
    daemon.token("demo").await;
    // A token counts as in use for one lifetime after a request. So one renewal is correct, several are not.
    wait::until(LIMIT, "no token is kept", async || {
        daemon.get("/v1/status").await.json()["servers"][0]["tokens"] == json!([])
    })
    .await;
    assert!(scene.authorization_server.token_requests() <= 2, "{}", scene.authorization_server.token_requests());
}

#[tokio::test]
async fn a_required_token_is_kept_though_nobody_asks() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_token_life(Duration::from_secs(2));
    let daemon = scene.daemon("required = true").await;
    wait::until(LIMIT, "it is renewed twice", async || scene.authorization_server.token_requests() >= 3).await;
    assert_eq!(daemon.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn an_outage_is_not_felt_until_the_token_expires_and_ends_by_itself() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_token_life(Duration::from_secs(4));
    let daemon = scene.daemon("").await;
    let token = daemon.token("demo").await;
    scene.authorization_server.set_down(true);

    // Tests with the virtual clock check the exact time.
    let failure = until("the token has expired", &daemon, |reply| {
        if reply.status == 200 {
            assert_eq!(reply.json()["access_token"], token);
        }
        reply.status != 200
    })
    .await;
    assert_eq!((failure.status, failure.json()["class"].as_str()), (503, Some("temporary")), "{}", failure.body);
    let seconds: u64 = failure.header("retry-after").and_then(|text| text.parse().ok()).expect("Retry-After");
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(daemon.get("/readyz").await.status, 200, "nothing is required");
    let status = daemon.get("/v1/status").await.json();
    assert_eq!(status["servers"][0]["state"], "failing");

    scene.authorization_server.heal();
    let pid = daemon.pid();
    let reply = until("recovered", &daemon, |reply| reply.status == 200).await;
    assert_ne!(reply.json()["access_token"], token);
    assert_eq!(daemon.get("/v1/status").await.json()["pid"], pid, "without a restart");
    assert_eq!(daemon.get("/v1/status").await.json()["servers"][0]["state"], "fresh");
}

#[tokio::test]
async fn a_single_hiccup_is_not_felt_at_all() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.script_token([Fault::Down, Fault::Status(503)]);
    let daemon = scene.daemon("").await;
    daemon.token("demo").await;
    assert_eq!(scene.authorization_server.token_requests(), 3);
}

#[tokio::test]
async fn retry_after_is_passed_on_and_honoured() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(Fault::StatusWithRetryAfter(429, 30));
    let daemon = scene.daemon("").await;
    let first = daemon.get(ASK).await;
    assert_eq!((first.status, first.json()["class"].as_str()), (503, Some("temporary")));
    let seconds: u64 = first.header("retry-after").and_then(|text| text.parse().ok()).expect("Retry-After");
    assert!((25..=30).contains(&seconds), "{seconds}");
    scene.authorization_server.heal();
    assert_eq!(daemon.get(ASK).await.status, 503, "the other side does not want to be asked yet");
    assert_eq!(scene.authorization_server.token_requests(), 1);
}

#[tokio::test]
async fn a_refusal_is_remembered_and_costs_no_second_request() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::oauth("invalid_grant"));
    let daemon = scene.daemon("").await;
    let all: Vec<_> = (0..20).map(|_| asked(&daemon, ASK)).collect();
    for one in all {
        let reply = one.await.expect("it ran").expect("an answer");
        let body = reply.json();
        assert_eq!(
            (reply.status, body["class"].as_str(), body["error"].as_str()),
            (502, Some("refused"), Some("invalid_grant"))
        );
        assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("trust policy")));
        assert_eq!(reply.header("retry-after"), None, "waiting does not help");
    }
    scene.authorization_server.heal();
    assert_eq!(daemon.get(ASK).await.status, 502);
    assert_eq!((scene.platform.requests(), scene.authorization_server.token_requests()), (1, 1));
}

#[tokio::test]
async fn a_failed_renewal_never_blanks_a_good_token() {
    let faults = [
        TokenFault::oauth("invalid_grant"),
        TokenFault::NoAccessToken,
        TokenFault::ExpiresIn(json!(0)),
        Fault::Html.into(),
    ];
    futures_util::future::join_all(faults.map(|fault| async move {
        let scene = Scene::new(binary()).await;
        let daemon = scene.daemon("").await;
        let token = daemon.token("demo").await;
        scene.authorization_server.always_token(fault);
        forced_in_vain(&scene, &daemon, &token).await;
        daemon.stop().await.expect_code(0);
    }))
    .await;
}

/// A JWT contains its expiry: if the server returns the same JWT again, it is not younger.
#[tokio::test]
async fn an_issuer_that_returns_the_same_token_is_not_asked_in_a_loop() {
    const ASKS: usize = 100;
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_token_life(Duration::from_secs(30));
    let daemon = scene.daemon("").await;
    let token = daemon.token("demo").await;
    scene.authorization_server.always_token(TokenFault::SameToken);
    let wish = format!("{ASK}&min_ttl=30");
    for _ in 0..ASKS {
        let reply = daemon.get(&wish).await;
        assert_eq!((reply.status, reply.json()["access_token"].as_str()), (200, Some(token.as_str())));
    }
    let requests = scene.authorization_server.token_requests();
    assert!(requests < ASKS / 4, "{requests} requests for the same token");
    scene.authorization_server.heal();
    wait::until(LIMIT, "a new token", async || {
        let reply = daemon.get(&wish).await;
        reply.status == 200 && reply.json()["access_token"] != token
    })
    .await;
}

#[tokio::test]
async fn one_slow_issuer_does_not_hold_up_another() {
    let scene = Scene::new(binary()).await;
    let sluice = scene.sluice().await;
    let other_as = FakeAs::start(scene.platform.trust()).await;
    let other = FakeMcp::start(&other_as, &["other:read"]).await;
    let more = format!("\n[servers.other]\nurl = \"{}\"\nissuer = \"{}\"", other.url(), other_as.issuer());
    let daemon = scene.daemon(&more).await;
    sluice.shut();
    let slow = asked(&daemon, ASK);
    sluice.holds(1).await;
    let quick = asked(&daemon, "/v1/token?server=other");
    let reply = tokio::time::timeout(LIMIT, quick).await.expect("in time").expect("it ran").expect("an answer");
    assert_eq!(reply.status, 200);
    assert!(!slow.is_finished());
    sluice.open();
    assert_eq!(slow.await.expect("it ran").expect("an answer").status, 200);
}

#[tokio::test]
async fn two_keys_of_one_server_fly_side_by_side() {
    let scene = Scene::new(binary()).await;
    let sluice = scene.sluice().await;
    let daemon = scene.daemon("scopes = [\"demo:read\", \"demo:write\"]").await;
    sluice.shut();
    let read: Vec<_> = (0..10).map(|_| asked(&daemon, &format!("{ASK}&scope=demo:read"))).collect();
    let write: Vec<_> = (0..10).map(|_| asked(&daemon, &format!("{ASK}&scope=demo:write"))).collect();
    sluice.holds(2).await;
    sluice.open();
    for (callers, scope) in [(read, "demo:read"), (write, "demo:write")] {
        for caller in callers {
            let reply = caller.await.expect("it ran").expect("an answer");
            assert_eq!((reply.status, reply.json()["scope"].as_str()), (200, Some(scope)));
        }
    }
    assert_eq!(scene.authorization_server.token_requests(), 2);
}

/// At most five token requests run at a time for one issuer, for any number of keys.
#[tokio::test]
async fn an_issuer_is_not_stormed() {
    let scene = Scene::new(binary()).await;
    let sluice = scene.sluice().await;
    let mut more = String::new();
    let mut others = Vec::new();
    for name in 0..8 {
        let other = FakeMcp::start(&scene.authorization_server, &["demo:read"]).await;
        let issuer = scene.authorization_server.issuer();
        more.push_str(&format!(
            "\n[servers.s{name}]\nurl = \"{}\"\nissuer = \"{issuer}\"\nrequired = true\n",
            other.url()
        ));
        others.push(other);
    }
    sluice.shut();
    let daemon = scene.daemon(&more).await;
    sluice.holds(5).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(sluice.held(), 5);
    sluice.open();
    daemon.run(&["ready", "--wait", "15s"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.token_requests(), 8);
}
