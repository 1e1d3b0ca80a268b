//! What was presented stands in every refusal of an identity token: for people, for scripts of the daemon's own user, and for no model.

use std::time::Duration;

use serde_json::json;
use support::authorization_server::{FakeAs, TokenFault};
use support::platform::SUBJECT;
use support::safeconduct::Output;
use support::scene::Scene;

use crate::asking::token;
use crate::binary;
use crate::exit::REFUSED;

const EXCHANGED: &str = "exchange = \"token-exchange\"";

/// The paragraph, as one line. It fits 80 columns, but for words that are longer by themselves.
fn presented(output: &Output) -> String {
    let (_, rest) = output.stderr.split_once("safeconduct: presented: ").expect("it is told");
    let text = rest.split("safeconduct: hint: ").next().unwrap_or_default();
    let fits = |line: &str| line.len() <= 80 || line.split_whitespace().count() <= 3;
    assert!(output.stderr.lines().skip_while(|line| !line.contains(": presented: ")).take(1).all(fits), "{text}");
    assert!(text.lines().skip(1).all(|line| line.starts_with("      ") && fits(line)), "{text}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shown(scene: &Scene, audience: &str) -> String {
    format!("iss {:?}, sub {SUBJECT:?}, aud {audience:?}, age ", scene.platform.issuer())
}

#[tokio::test]
async fn every_exchange_and_proof_that_sends_the_identity_says_what_was_presented() {
    let workload = "client_auth = \"workload\"";
    let federated = format!("exchange = \"client-credentials\"\n{workload}");
    let as_spiffe = format!("{federated}\nassertion_type = \"jwt-spiffe\"");
    let beside = "client_auth = \"secret\"\nclient_id = \"a\"\nclient_secret_file = \"SECRET\"\n\
        exchange = \"client-credentials\"\nextra = { proof = { identity = \"default\" } }";
    for keys in ["", &federated, &as_spiffe, EXCHANGED, beside] {
        let scene = Scene::new(binary()).await;
        scene.authorization_server.always_token(TokenFault::oauth("invalid_grant"));
        let secret = scene.safeconduct.private("secret");
        std::fs::write(&secret, "a-secret-of-a-client").expect("ours");
        let output = token(&scene, &keys.replace("SECRET", &secret.display().to_string())).await.expect_code(REFUSED);
        let text = presented(&output);
        let wanted = shown(&scene, &scene.authorization_server.issuer());
        assert!(text.starts_with(&wanted) && text.ends_with(" s, typ \"JWT\""), "{keys}: {text}");
    }
}

#[tokio::test]
async fn a_link_of_a_chain_says_what_it_was_given_and_the_next_party_what_it_got() {
    let scene = Scene::new(binary()).await;
    let provider = FakeAs::start(scene.platform.trust()).await;
    provider.set_audience(&scene.authorization_server.issuer());
    let (to, idp) = (provider.issuer(), "exchange = \"id-jag\"\nidp = { issuer = \"ISSUER\" }");
    let keys = idp.replace("ISSUER", &to);
    provider.script_token([TokenFault::oauth("access_denied")]);
    let first = token(&scene, &keys).await.expect_code(REFUSED);
    assert!(presented(&first).starts_with(&shown(&scene, &to)), "{}", first.stderr);
    // The authorization server trusts the platform alone, so it refuses what the provider issued.
    let second = token(&scene, &keys).await.expect_code(REFUSED);
    let text = presented(&second);
    assert!(text.starts_with(&format!("iss {to:?}")) && text.contains(" s, typ \"oauth-id-jag+jwt\""), "{text}");
}

#[tokio::test]
async fn the_daemons_own_user_is_told_in_every_form_and_a_model_in_none() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::oauth("invalid_grant"));
    let daemon = scene.daemon("").await;
    let wanted = shown(&scene, &scene.authorization_server.issuer());
    let is_told = |text: &str| assert!(text.starts_with(&wanted), "{text}");
    let refused = daemon.get("/v1/token?server=demo").await.json();
    is_told(refused["presented"].as_str().expect("it is there"));
    is_told(&presented(&daemon.run(&["token", "demo"]).await.expect_code(REFUSED)));
    let status = daemon.get("/v1/status").await.json();
    is_told(status["servers"][0]["error"]["presented"].as_str().expect("it is there"));
    assert!(daemon.get("/readyz?server=demo").await.body.contains("presented: iss "));
    let page = daemon.run(&["status"]).await.expect_code(0).stdout;
    assert!(page.contains(SUBJECT), "{page}");
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let request = format!(
        "POST /mcp/demo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{call}",
        call.len()
    );
    let told = daemon.exchange(&request).await;
    assert!(told.body.contains("invalid_grant") && !told.body.contains(SUBJECT), "{}", told.body);
    let log = daemon.stop().await.expect_code(0).stderr;
    assert!(log.contains("presented: iss "), "{log}");
}

#[tokio::test]
async fn a_reload_that_cures_a_refusal_presents_the_same_identity_token_again() {
    let scene = Scene::new(binary()).await;
    let world = scene.safeconduct.clone();
    let file = world.private("identity.jwt");
    let jwt = scene.platform.mint(&scene.authorization_server.issuer(), Duration::from_secs(600));
    std::fs::write(&file, jwt).expect("ours");
    let with = |kind: &str| {
        let identity = format!("[identity]\nsource = \"file\"\ntoken_file = \"{}\"", file.display());
        scene.config(&format!("{EXCHANGED}\nsubject_token_type = \"{kind}\"\n{identity}"))
    };
    let world = world.config(&with("id_token"));
    let daemon = world.daemon(&[]).await;
    daemon.run(&["token", "demo"]).await.expect_code(REFUSED);
    world.rewrite_config(&with("jwt"));
    daemon.run(&["reload"]).await.expect_code(0);
    daemon.run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.token_requests(), 2);
    daemon.stop().await.expect_code(0);
}
