//! Exchanges and client proofs from the environment to the token, against a server that verifies each of them.

use serde_json::{Value, json};
use support::authorization_server::{FakeAs, TokenFault};
use support::keys;
use support::platform::SUBJECT;
use support::scene::Scene;

use crate::asking::{refused, token};
use crate::binary;
use crate::exit::{CONFIG, NO_IDENTITY, REFUSED};

const FEDERATED: &str = "exchange = \"client-credentials\"\nclient_auth = \"workload\"\nclient_id = \"agent\"";
const EXCHANGED: &str = "exchange = \"token-exchange\"";

#[tokio::test]
async fn a_federated_client_proves_itself_with_the_workloads_jwt() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.federate("agent", SUBJECT);
    let token = token(&scene, FEDERATED).await.expect_code(0).stdout;
    assert_eq!(keys::peek(token.trim())["aud"], json!(scene.mcp.url()));
    let sent = scene.authorization_server.last_request();
    assert_eq!(sent.params["client_id"], "agent");
    assert!(!sent.authorization && !sent.params.contains_key("assertion"));
    assert_eq!(sent.assertion["aud"], json!(scene.authorization_server.issuer()), "the issuer, not its endpoint");
}

#[tokio::test]
async fn a_client_that_is_not_federated_is_refused_once() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.federate("agent", "repo:somebody/else:ref:refs/heads/main");
    refused(&scene, FEDERATED, REFUSED, &["invalid_client", "not federated", "client_id"]).await;
    assert_eq!(scene.authorization_server.token_requests(), 1, "no second attempt, with this grant or another");
}

#[tokio::test]
async fn a_subject_token_is_exchanged() {
    let scene = Scene::new(binary()).await;
    let token = token(&scene, EXCHANGED).await.expect_code(0).stdout;
    assert_eq!(keys::peek(token.trim())["aud"], json!(scene.mcp.url()));
    let sent = scene.authorization_server.last_request();
    assert_eq!(sent.params["subject_token_type"], "urn:ietf:params:oauth:token-type:jwt");
    assert_eq!(sent.params["resource"], scene.mcp.url());
}

#[tokio::test]
async fn a_token_exchange_names_the_configured_audience() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_audience("mcp-gateway");
    refused(&scene, EXCHANGED, REFUSED, &["invalid_target"]).await;
    let token = token(&scene, &format!("{EXCHANGED}\naudience = \"mcp-gateway\"")).await;
    token.expect_code(0);
}

#[tokio::test]
async fn what_is_issued_in_the_place_of_an_access_token_is_not_used() {
    for (kind, words) in [
        (json!("urn:ietf:params:oauth:token-type:id-jag"), "issued_token_type"),
        (json!("urn:ietf:params:oauth:token-type:refresh_token"), "issued_token_type"),
        (Value::Null, "no issued_token_type"),
    ] {
        let scene = Scene::new(binary()).await;
        scene.authorization_server.always_token(TokenFault::IssuedTokenType(kind));
        refused(&scene, EXCHANGED, REFUSED, &[words]).await;
    }
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::TokenType("N_A".into()));
    refused(&scene, EXCHANGED, REFUSED, &["token_type"]).await;
}

#[tokio::test]
async fn the_subject_token_is_for_this_server_whatever_the_exchange() {
    for keys in [FEDERATED, EXCHANGED] {
        let scene = Scene::new(binary()).await;
        let world = scene.configured(keys);
        let file = world.private("identity.jwt");
        std::fs::write(&file, scene.platform.mint("https://other.example", std::time::Duration::from_secs(600)))
            .expect("ours");
        let output = world.run(&["token", "demo", "--identity-file", &file.display().to_string()]).await;
        let output = output.expect_code(NO_IDENTITY);
        assert!(output.stderr.contains("https://other.example"), "{}", output.stderr);
        assert_eq!(scene.authorization_server.token_requests(), 0);
    }
}

#[tokio::test]
async fn tokens_that_could_be_replayed_elsewhere_need_a_pin() {
    let scene = Scene::new(binary()).await;
    let unpinned = |keys: &str| {
        let url = scene.mcp.url();
        scene
            .safeconduct
            .clone()
            .config(&format!("[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{url}\"\n{keys}\n"))
    };
    for (keys, key) in [
        (EXCHANGED, "servers.demo.exchange"),
        ("exchange = \"client-credentials\"\nclient_auth = \"workload\"", "servers.demo.client_auth"),
        ("audience = \"mcp-gateway\"", "servers.demo.audience"),
    ] {
        let output = unpinned(keys).run(&["token", "demo"]).await.expect_code(CONFIG);
        assert!(output.stderr.contains(key) && output.stderr.contains("needs `issuer`"), "{}", output.stderr);
    }
    refused(&scene, "exchange = \"client-credentials\"", CONFIG, &["needs `client_auth`"]).await;
    refused(&scene, "client_auth = \"magic\"", CONFIG, &["not known", "workload"]).await;
    let extra = format!("{EXCHANGED}\nextra = {{ actor_token = \"x\" }}");
    refused(&scene, &extra, CONFIG, &["actor_token"]).await;
}

#[tokio::test]
async fn a_further_parameter_is_a_token_of_another_identity_made_for_the_issuer() {
    let scene = Scene::new(binary()).await;
    let issuer = scene.authorization_server.issuer();
    let file = scene.safeconduct.private("instance.jwt");
    let write = |audience: &str| {
        let life = std::time::Duration::from_secs(600);
        let token = scene.platform.mint_with(audience, life, &json!({"sub": "instance-7"}));
        std::fs::write(&file, token).expect("ours");
    };
    let keys = format!(
        "extra = {{ tenant = \"blue\", client_instance_assertion = {{ identity = \"instance\" }} }}\n\
         [identities.instance]\nsource = \"file\"\ntoken_file = \"{}\"",
        file.display()
    );
    write(&issuer);
    token(&scene, &keys).await.expect_code(0);
    let sent = scene.authorization_server.last_request();
    let claims = keys::peek(&sent.params["client_instance_assertion"]);
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("instance-7"), &json!(issuer)));
    assert_eq!((&sent.params["tenant"][..], &sent.assertion["sub"]), ("blue", &json!(SUBJECT)));

    write("https://other.example");
    let output = token(&scene, &keys).await.expect_code(NO_IDENTITY);
    assert!(output.stderr.contains("https://other.example"), "{}", output.stderr);
    assert_eq!(scene.authorization_server.token_requests(), 1, "a token for somebody else never leaves");
}

#[tokio::test]
async fn a_further_parameter_is_what_the_chain_of_its_identity_gives() {
    let scene = Scene::new(binary()).await;
    let link = FakeAs::start(scene.platform.trust()).await;
    link.set_audience(&scene.authorization_server.issuer());
    let keys = format!(
        "extra = {{ client_instance_assertion = {{ identity = \"changed\" }} }}\n\
         [identities.changed]\nfrom = \"default\"\nexchange = \"token-exchange\"\nissuer = \"{}\"",
        link.issuer()
    );
    token(&scene, &keys).await.expect_code(0);
    let sent = scene.authorization_server.last_request();
    let claims = keys::peek(&sent.params["client_instance_assertion"]);
    let issuers = (&claims["iss"], &sent.assertion["iss"]);
    assert_eq!(issuers, (&json!(link.issuer()), &json!(scene.platform.trust().issuer)));
    assert_eq!(link.last_request().assertion["aud"], json!(link.issuer()), "the platform's token is for the link");
}

#[tokio::test]
async fn a_svid_is_presented_as_a_svid() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.federate("agent", "spiffe://example.org/agent");
    let world = scene.configured(FEDERATED);
    let file = world.private("identity.jwt");
    let life = std::time::Duration::from_secs(300);
    let svid = scene.platform.mint_with(
        &scene.authorization_server.issuer(),
        life,
        &json!({"sub": "spiffe://example.org/agent"}),
    );
    std::fs::write(&file, svid).expect("ours");
    world.run(&["token", "demo", "--identity-file", &file.display().to_string()]).await.expect_code(0);
    let sent = scene.authorization_server.last_request();
    assert_eq!(sent.params["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe");
}
