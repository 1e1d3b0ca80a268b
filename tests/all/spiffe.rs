//! A workload of a SPIFFE trust domain, from the agent's socket to the token, and to the certificate.

use serde_json::json;
use support::safeconduct::Safeconduct;
use support::scene::Scene;
use support::wait::until;
use support::workload_api::{FakeWorkloadApi, SvidFault};
use support::{keys, profiles};

use crate::binary;

const AGENT: &str = "spiffe://example.org/agent";
const OTHER: &str = "spiffe://example.org/other";
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// The scene with an agent that the authorization server trusts, and a workload of that agent instead of a CI job.
async fn scene(identities: &[&str]) -> (Scene, FakeWorkloadApi) {
    let scene = Scene::new(binary()).await;
    let agent = FakeWorkloadApi::start(identities);
    scene.authorization_server.also_trust(agent.trust());
    (scene, agent)
}

fn workload(scene: &Scene, agent: &FakeWorkloadApi, keys: &str) -> Safeconduct {
    Safeconduct::new(binary()).env("SPIFFE_ENDPOINT_SOCKET", &agent.endpoint()).config(&scene.config(keys))
}

#[tokio::test]
async fn a_svid_is_exchanged_for_a_token() {
    let (scene, agent) = scene(&[AGENT]).await;
    let token = workload(&scene, &agent, "").run(&["token", "demo"]).await.expect_code(0).stdout;
    assert_eq!(keys::peek(token.trim())["sub"], AGENT);
    assert_eq!(agent.audiences(), [[scene.authorization_server.issuer()]], "made for the issuer and nobody else");
}

#[tokio::test]
async fn a_svid_proves_the_client() {
    let (scene, agent) = scene(&[AGENT]).await;
    scene.authorization_server.federate("agent", AGENT);
    let keys = "exchange = \"client-credentials\"\nclient_auth = \"workload\"\nclient_id = \"agent\"";
    workload(&scene, &agent, keys).run(&["token", "demo"]).await.expect_code(0);
    let sent = scene.authorization_server.last_request();
    assert_eq!(sent.params["client_assertion_type"], JWT_SPIFFE);
    assert_eq!(sent.assertion["sub"], AGENT);
}

#[tokio::test]
async fn of_several_identities_the_configured_one_is_used() {
    let (scene, agent) = scene(&[AGENT, OTHER]).await;
    let named = format!("{}\n[identity]\nsource = \"spiffe\"\nspiffe_id = \"{OTHER}\"\n", scene.config(""));
    let world = workload(&scene, &agent, "").config(&named);
    world.run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.last_request().assertion["sub"], OTHER);
}

/// The order in which an agent lists identities means nothing.
#[tokio::test]
async fn of_several_identities_none_is_used_unless_one_is_named() {
    for identities in [[AGENT, OTHER], [OTHER, AGENT]] {
        let (scene, agent) = scene(&identities).await;
        let jwt = workload(&scene, &agent, "");
        let by_certificate = "client_id = \"agent\"\nexchange = \"client-credentials\"\nclient_auth = \"mtls\"";
        let x509 = workload(&scene, &agent, by_certificate);
        for world in [jwt, x509] {
            let stderr = world.run(&["token", "demo"]).await.expect_code(69).stderr;
            assert!(stderr.contains(AGENT) && stderr.contains(OTHER) && stderr.contains("`spiffe_id`"), "{stderr}");
        }
        assert_eq!(scene.authorization_server.token_requests(), 0);
    }
}

#[tokio::test]
async fn whoami_shows_the_svid_and_the_certificate() {
    let (scene, agent) = scene(&[AGENT]).await;
    let world = workload(&scene, &agent, "");
    let report = world.run(&["whoami", "--json"]).await.expect_code(0).json();
    let identity = &report["identity"];
    assert_eq!(identity["source"], "spiffe");
    assert_eq!(identity["claims"]["sub"], AGENT);
    assert_eq!(identity["certificate"], json!({ "sha256": agent.last_thumbprint() }));
    let text = world.run(&["whoami"]).await.expect_code(0).stdout;
    assert!(text.contains("x509") && text.contains(&agent.last_thumbprint()), "{text}");
}

/// SPIRE's agent keeps a JWT-SVID, which has no `jti`, until half its life is over.
#[tokio::test]
async fn whoami_does_not_call_a_kept_svid_minted_anew() {
    let (scene, agent) = scene(&[AGENT]).await;
    agent.repeat_svids(std::time::Duration::from_secs(300));
    let world = workload(&scene, &agent, "");
    let report = world.run(&["whoami", "--json"]).await.expect_code(0).json();
    assert_eq!(
        (&report["identity"]["mints_anew"], &report["identity"]["claims"]["jti"]),
        (&json!(null), &json!(false))
    );
    let text = world.run(&["whoami"]).await.expect_code(0).stdout;
    assert!(!text.contains("anew") && text.contains("for any audience; the same one again"), "{text}");
}

#[tokio::test]
async fn a_svid_that_is_taken_once_is_not_called_distrusted_and_the_next_one_is_used_at_once() {
    let (scene, agent) = scene(&[AGENT]).await;
    agent.repeat_svids(std::time::Duration::from_secs(130));
    profiles::toolhive(&scene, Some(scene.authorization_server.issuer()));
    scene.authorization_server.set_token_life(std::time::Duration::from_secs(3_600));
    let daemon = workload(&scene, &agent, "").daemon(&[]).await;
    let first = daemon.token("demo").await;
    // A token that was made within the last second counts as fresh.
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    for _ in 0..3 {
        let refused = daemon.run(&["token", "demo", "--fresh"]).await.expect_code(76);
        assert!(refused.stdout.is_empty(), "the old one is not called a new one");
        assert!(
            refused.stderr.contains("takes each identity token once") && refused.stderr.contains("by itself"),
            "{}",
            refused.stderr
        );
    }
    assert_eq!(scene.authorization_server.token_requests(), 2, "nothing is presented a third time");
    assert_eq!(daemon.token("demo").await, first, "others keep the one that is good");
    let status = daemon.get("/v1/status").await.json();
    assert_eq!(status["servers"][0]["error"]["error"], "identity_token_used", "{status:#}");
    // The next SVID.
    agent.forget_svids();
    until(std::time::Duration::from_secs(20), "a new token by the next SVID", async || {
        daemon.run(&["token", "demo", "--fresh"]).await.code == Some(0)
    })
    .await;
    assert_ne!(daemon.token("demo").await, first);
}

#[tokio::test]
async fn a_daemon_asks_for_a_new_svid_at_each_exchange() {
    let (scene, agent) = scene(&[AGENT]).await;
    let daemon = workload(&scene, &agent, "").daemon(&[]).await;
    daemon.run(&["token", "demo"]).await.expect_code(0);
    // A token that was made within the last second counts as fresh.
    until(std::time::Duration::from_secs(20), "a new token", async || {
        daemon.run(&["token", "demo", "--fresh"]).await.expect_code(0);
        scene.authorization_server.token_requests() > 1
    })
    .await;
    let sent = scene.authorization_server.received();
    assert!(sent.len() == 2 && sent[0].assertion["jti"] != sent[1].assertion["jti"]);
    assert_eq!(agent.audiences().len(), 2);
}

#[tokio::test]
async fn an_agent_that_waits_for_its_server_is_waited_for() {
    let (scene, agent) = scene(&[AGENT]).await;
    let denied = SvidFault::Status(7, "no identity issued".to_owned());
    agent.script([denied, SvidFault::Status(14, "upstream is away".to_owned())]);
    workload(&scene, &agent, "").run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(agent.audiences().len(), 3);
}
