//! Workloads of SPIRE at an authorization server that takes their SVIDs: what they get, for how long, and what they are told if
//! they get nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::{Value, json};

use super::realm::{PATIENCE, REFUSED, UNAVAILABLE, pause};
use super::spire::{AGENT, BRIEF, Spire};
use super::tethered::Tethered;
use crate::fakes::authorization_server::{ClientProof, FakeAs, Profile};
use crate::fakes::mcp_server::FakeMcp;
use crate::fakes::platform::FakePlatform;
use crate::fakes::safeconduct::{Output, Safeconduct};
use crate::fakes::scene::Scene;
use crate::fakes::tls::TestCa;
use crate::fakes::{keys, leak, unix_http, wait};
use crate::keys::Authority;
use crate::process::SAFECONDUCT;

const OTHER: &str = "spiffe://example.org/other";
const STRANGER: u32 = 65534;

const NO_IDENTITY: i32 = 69;

/// Two servers that take an SVID itself. Nobody is asked but the agent.
const DIRECT: &str = "[servers.demo]\nurl = \"https://mcp.example.com/mcp\"\nexchange = \"direct\"\n\
    subject_audience = \"https://mcp.example.com/mcp\"\n[servers.second]\nurl = \"https://second.example.com/mcp\"\n\
    exchange = \"direct\"\nsubject_audience = \"https://second.example.com/mcp\"\n";

/// With an authorization server that takes SVIDs.
async fn scene(spire: &Spire) -> Scene {
    let scene = Scene::new(SAFECONDUCT).await;
    scene.authorization_server.trust_only(spire.trust());
    scene.authorization_server.set_profile(takes_svids());
    scene
}

/// They have no `jti`, and a list of audiences.
fn takes_svids() -> Profile {
    Profile { jti_optional: true, audience_in_list: true, ..Profile::default() }
}

/// An SVID in the output is a secret from now on.
async fn token(world: &Safeconduct, server: &str) -> Output {
    let output = world.run(&["token", server, "--no-daemon", "--timeout", "8s"]).await;
    super::realm::issued(&output);
    output
}

#[track_caller]
fn says(output: &Output, code: i32, words: &[&str]) {
    assert_eq!((output.code, output.stdout.as_str()), (Some(code), ""), "{}", output.stderr);
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} in {}", output.stderr);
    }
}

#[tokio::test]
async fn an_svid_is_the_grant_and_stays_the_same_until_half_its_life_is_over() {
    let Some(spire) = Spire::start(&Authority::new(), &[BRIEF]).await else { return };
    let scene = scene(&spire).await;
    let world = spire.workload(&scene.config(""));
    let identity = world.run(&["whoami", "--json"]).await.expect_code(0).json()["identity"].clone();
    assert_eq!((&identity["source"], &identity["claims"]["sub"]), (&json!("spiffe"), &json!(BRIEF)));
    assert_eq!((&identity["mints_anew"], &identity["claims"]["jti"]), (&Value::Null, &json!(false)));
    let text = world.run(&["whoami"]).await.expect_code(0).stdout;
    assert!(text.contains("the same one again") && !text.contains("anew"), "{text}");

    let sent = async || {
        token(&world, "demo").await.expect_code(0);
        scene.authorization_server.last_request()
    };
    let (first, second) = (sent().await, sent().await);
    assert_eq!(first.assertion["sub"], BRIEF);
    assert_eq!(first.assertion["aud"], json!([scene.authorization_server.issuer()]), "it is for the issuer alone");
    assert_eq!(second.params["assertion"], first.params["assertion"]);
    wait::until(PATIENCE, "the next SVID", async || {
        pause().await;
        sent().await.params["assertion"] != first.params["assertion"]
    })
    .await;
}

/// SPIRE lists them in no fixed order.
#[tokio::test]
async fn of_two_identities_none_is_used_unless_one_is_named() {
    let Some(spire) = Spire::start(&Authority::new(), &[AGENT, OTHER]).await else { return };
    let scene = scene(&spire).await;
    let by_certificate = "exchange = \"client-credentials\"\nclient_id = \"agent\"\nclient_auth = \"mtls\"";
    for keys in ["", by_certificate] {
        says(&token(&spire.workload(&scene.config(keys)), "demo").await, NO_IDENTITY, &[AGENT, OTHER, "`spiffe_id`"]);
    }
    assert_eq!(scene.authorization_server.token_requests(), 0);
    for id in [AGENT, OTHER] {
        let named = format!("{}[identity]\nsource = \"spiffe\"\nspiffe_id = \"{id}\"\n", scene.config(""));
        token(&spire.workload(&named), "demo").await.expect_code(0);
        assert_eq!(scene.authorization_server.last_request().assertion["sub"], id);
    }
}

/// The agent gives the same one again, which is no distrust. The key of the trust domain changes, so the agent gives another.
#[tokio::test]
async fn an_svid_that_is_taken_once_is_followed_by_one_of_the_new_key() {
    let Some(spire) = Spire::start(&Authority::new(), &[AGENT]).await else { return };
    let scene = scene(&spire).await;
    let server = &scene.authorization_server;
    server.set_profile(Profile { once_by_digest: true, ..takes_svids() });
    let world = spire.workload(&scene.config(""));
    let daemon = world.daemon(&[]).await;
    let first = daemon.token("demo").await;
    // Another process does not know that it was taken.
    says(&token(&world, "demo").await, REFUSED, &["takes an identity token once"]);
    let fresh = async || {
        // A token of the last second would count as a new one.
        tokio::time::sleep(Duration::from_secs(1)).await;
        daemon.run(&["token", "demo", "--fresh"]).await
    };
    says(&fresh().await, REFUSED, &["takes each identity token once"]);
    assert_eq!(daemon.token("demo").await, first, "the token in hand is served");
    spire.change_jwt_key();
    server.trust_only(spire.trust());
    wait::until(PATIENCE, "a token by an SVID of the new key", async || fresh().await.succeeded()).await;
    assert_ne!(daemon.token("demo").await, first);
    daemon.stop().await.expect_code(0);
}

/// The certificate in each handshake is the agent's newest, and no request fails while they change.
#[tokio::test]
async fn an_x509_svid_proves_the_client_and_is_renewed_in_flight() {
    let authority = Authority::new();
    let Some(spire) = Spire::start(&authority, &[AGENT]).await else { return };
    let ca = TestCa::new();
    let mut server = FakeAs::start_tls(FakePlatform::start().await.trust(), ca.good()).await;
    server.serve_mutual(ca.mutual(&[ca.der(), authority.der()])).await;
    server.add_client("agent", ClientProof::Certificate(AGENT.to_owned()));
    server.add_client("other", ClientProof::Certificate(OTHER.to_owned()));
    server.set_token_life(Duration::from_secs(5));
    let mcp = FakeMcp::start_tls(&server, &["demo:read"], ca.good()).await;
    let config = |client: &str| {
        format!(
            "[egress]\nca_file = \"{}\"\nallow = [\"localhost\"]\n[servers.demo]\nurl = \"{}\"\nissuer = \"{}\"\n\
             exchange = \"client-credentials\"\nclient_auth = \"mtls\"\nclient_id = \"{client}\"\n",
            ca.file().display(),
            mcp.url(),
            server.issuer()
        )
    };
    let world = spire.workload(&config("other"));
    says(&world.run(&["headers", "demo", "--no-daemon"]).await, REFUSED, &["invalid_client"]);

    let daemon = spire.workload(&config("agent")).daemon(&[]).await;
    let mut certificates = std::collections::BTreeSet::new();
    wait::until(PATIENCE, "three certificates", async || {
        let reply = daemon.get("/v1/headers?server=demo").await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let headers = reply.json();
        let value = headers["headers"]["Authorization"][0].as_str().expect("a header");
        let token = value.strip_prefix("Bearer ").expect("as bearer");
        leak::minted(token);
        certificates.insert(keys::peek(token)["cnf"]["x5t#S256"].as_str().expect("it is bound").to_owned());
        certificates.len() == 3
    })
    .await;
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn without_its_server_an_agent_gives_what_it_has_and_without_the_agent_nothing_new_comes() {
    let Some(mut spire) = Spire::start(&Authority::new(), &[AGENT]).await else { return };
    let world = spire.workload(DIRECT);
    let daemon = spire.workload(DIRECT).daemon(&[]).await;
    let held = daemon.token("demo").await;
    leak::minted(&held);
    spire.stop_server();
    assert_eq!(token(&world, "demo").await.expect_code(0).stdout.trim(), held, "the agent has it");
    says(&token(&world, "second").await, UNAVAILABLE, &["the Workload API at"]);
    spire.start_server().await;
    wait::until(PATIENCE, "the server is back", async || token(&world, "second").await.succeeded()).await;

    spire.stop_agent();
    assert_eq!(daemon.token("demo").await, held, "the daemon has it");
    says(&token(&world, "demo").await, UNAVAILABLE, &["cannot be reached", "is the agent running"]);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_workload_without_an_entry_is_told_which_one_to_make() {
    let Some(spire) = Spire::start(&Authority::new(), &[AGENT]).await else { return };
    let world = spire.workload(DIRECT);
    let daemon = spire.workload(DIRECT).daemon(&[]).await;
    let held = daemon.token("demo").await;
    leak::minted(&held);
    let other = format!("{DIRECT}[identity]\nsource = \"spiffe\"\nspiffe_id = \"{OTHER}\"\n");
    let other = spire.workload(&other);
    let (refused, strangers) = tokio::join!(token(&other, "demo"), of_a_stranger(&spire));
    says(&refused, NO_IDENTITY, &[OTHER, "spire-server entry create"]);
    if let Some(refused) = strangers {
        says(&refused, NO_IDENTITY, &["unix:uid:65534"]);
    }

    spire.deregister(AGENT);
    let refused = wait_for_refusal(&world).await;
    says(&refused, NO_IDENTITY, &["has no identity for this workload", &format!("unix:uid:{}", geteuid())]);
    assert_eq!(daemon.token("demo").await, held, "the token in hand is served");
    spire.register(AGENT);
    token(&world, "demo").await.expect_code(0);
    daemon.stop().await.expect_code(0);
}

/// An agent hears of a deletion within seconds.
async fn wait_for_refusal(world: &Safeconduct) -> Output {
    let mut last = None;
    wait::until(PATIENCE, "the agent knows that the entry is gone", async || {
        last = Some(token(world, "demo").await);
        !last.as_ref().is_some_and(Output::succeeded)
    })
    .await;
    last.expect("it has run")
}

/// The answer of a daemon of another user to us, who have an entry. It attests as that user. It needs root.
async fn of_a_stranger(spire: &Spire) -> Option<Output> {
    if !geteuid().is_root() {
        return None;
    }
    let place = |name: &str| spire.path().join(name);
    let folder = place("stranger");
    fs::create_dir(&folder).expect("new");
    chown(&folder, Some(STRANGER), Some(STRANGER)).expect("we are root");
    fs::copy(SAFECONDUCT, place("safeconduct")).expect("ours");
    let config = format!(
        "{}[listen]\nsocket_mode = \"0660\"\nsocket_group = \"{STRANGER}\"\n",
        DIRECT.replace("exchange", "allow = [{ uid = 0 }]\nexchange")
    );
    fs::write(place("stranger.toml"), config).expect("ours");
    fs::set_permissions(place("stranger.toml"), fs::Permissions::from_mode(0o644)).expect("ours");
    let (program, socket) = (place("safeconduct").display().to_string(), folder.join("w.sock"));
    let variable = format!("SPIFFE_ENDPOINT_SOCKET={}", spire.endpoint());
    let (config, at) = (place("stranger.toml").display().to_string(), socket.display().to_string());
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let words = [program.as_str(), "--config", &config, "run", "--socket", &at];
    let words = [&["-i", &variable, "PATH=/usr/bin:/bin"], &user[..], &words].concat();
    let mut daemon = Tethered::start("/usr/bin/env".as_ref(), &words, spire.path());
    wait::until(PATIENCE, "the daemon answers", async || {
        daemon.lives();
        unix_http::get(&socket, "/healthz").await.is_ok_and(|reply| reply.status == 200)
    })
    .await;
    let ours = Safeconduct::new(SAFECONDUCT).env("SAFECONDUCT_SOCKET", &at);
    let output = ours.run(&["token", "demo", "--daemon-only", "--timeout", "60s"]).await;
    leak::check("the log of the stranger's daemon", &daemon.log());
    Some(output)
}
