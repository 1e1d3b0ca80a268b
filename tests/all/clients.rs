//! OAuth clients and their proofs, from the environment to the token: secrets, keys, registration, chains of identities, and
//! proof of possession. The server verifies each of them.

use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use support::authorization_server::{ClientProof, FakeAs, TokenFault};
use support::platform::SUBJECT;
use support::safeconduct::Daemon;
use support::scene::Scene;
use support::unix_http::Reply;
use support::wait::until;
use support::{keys, leak};

use crate::asking::{refused, token};
use crate::binary;
use crate::exit::{CONFIG, DENIED, REFUSED};

const SECRET: &str = "a client's secret: 100%+";
const CLIENT: &str = "exchange = \"client-credentials\"\nclient_id = \"agent\"\n";

/// A scene without a workload identity, which such a client does not need.
async fn nowhere() -> Scene {
    let scene = Scene::new(binary()).await;
    let names: Vec<String> = scene.platform.env().into_iter().map(|(name, _)| name).collect();
    let safeconduct = names.iter().fold(scene.safeconduct.clone(), |world, name| world.without_env(name));
    Scene { safeconduct, ..scene }
}

fn secret_file(scene: &Scene, text: &str) -> String {
    leak::minted(text.trim());
    let path = scene.safeconduct.private("secret");
    std::fs::write(&path, text).expect("written");
    format!("client_auth = \"secret\"\nclient_secret_file = \"{}\"\n", path.display())
}

/// A new key: the configuration with its file, and the public half for the server.
fn key_file(scene: &Scene, name: &str) -> (String, ClientProof) {
    let pair = rcgen::KeyPair::generate().expect("a key");
    let path = scene.safeconduct.private(name);
    std::fs::write(&path, pair.serialize_pem()).expect("written");
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a public key");
    let line = format!("client_auth = \"private-key-jwt\"\nclient_key_file = \"{}\"\n", path.display());
    (line, ClientProof::Key(Box::new(jwk)))
}

#[tokio::test]
async fn a_secret_goes_into_the_header_and_no_identity_is_needed() {
    let scene = nowhere().await;
    scene.authorization_server.add_client("agent", ClientProof::Basic(SECRET.to_owned()));
    let keys = format!("{CLIENT}{}", secret_file(&scene, &format!("{SECRET}\n")));
    let token = token(&scene, &keys).await.expect_code(0).stdout;
    let claims = keys::peek(token.trim());
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("agent"), &json!(scene.mcp.url())));
    let sent = scene.authorization_server.last_request();
    assert!(sent.authorization && !sent.params.contains_key("client_id"), "{:?}", sent.params);
    assert_eq!(scene.platform.requests(), 0);
}

#[tokio::test]
async fn a_secret_goes_into_the_form_where_the_server_or_the_operator_says_so() {
    let scene = nowhere().await;
    scene.authorization_server.add_client("agent", ClientProof::Post(SECRET.to_owned()));
    let keys = format!("{CLIENT}{}", secret_file(&scene, SECRET));
    refused(&scene, &keys, REFUSED, &["invalid_client", "client_auth"]).await;
    token(&scene, &format!("{keys}client_secret_method = \"post\"\n")).await.expect_code(0);
    scene.authorization_server.set_metadata(json!({"token_endpoint_auth_methods_supported": ["client_secret_post"]}));
    token(&scene, &keys).await.expect_code(0);
    assert!(!scene.authorization_server.last_request().authorization);
}

#[tokio::test]
async fn a_secret_that_is_wrong_absent_or_empty_says_so_and_is_not_shown() {
    let scene = nowhere().await;
    scene.authorization_server.add_client("agent", ClientProof::Basic("another".to_owned()));
    let keys = format!("{CLIENT}{}", secret_file(&scene, SECRET));
    refused(&scene, &keys, REFUSED, &["invalid_client", "the secret in the header is wrong"]).await;
    assert_eq!(scene.authorization_server.token_requests(), 1);
    std::fs::write(scene.safeconduct.private("secret"), " \n").expect("written");
    refused(&scene, &keys, CONFIG, &["is empty"]).await;
    std::fs::remove_file(scene.safeconduct.private("secret")).expect("removed");
    refused(&scene, &keys, CONFIG, &["cannot be read"]).await;
    let variable = format!("{CLIENT}client_auth = \"secret\"\nclient_secret_env = \"CLIENT_SECRET\"\n");
    refused(&scene, &variable, CONFIG, &["CLIENT_SECRET is not set"]).await;
    assert_eq!(scene.authorization_server.token_requests(), 1, "nothing was sent without the secret");
}

#[tokio::test]
async fn a_key_signs_an_assertion_for_this_issuer_alone() {
    let scene = nowhere().await;
    let (line, proof) = key_file(&scene, "key.pem");
    scene.authorization_server.add_client("agent", proof);
    let keys = format!("{CLIENT}{line}client_key_id = \"k1\"\n");
    for _ in 0..2 {
        token(&scene, &keys).await.expect_code(0);
    }
    let sent = scene.authorization_server.last_request();
    assert_eq!(sent.params["client_id"], "agent");
    assert_eq!(sent.assertion["aud"], json!(scene.authorization_server.issuer()));
    assert_eq!((&sent.assertion["iss"], &sent.assertion["sub"]), (&json!("agent"), &json!("agent")));
}

#[tokio::test]
async fn an_unknown_key_a_broken_file_and_a_refused_algorithm_are_told_apart() {
    let scene = nowhere().await;
    let (line, _) = key_file(&scene, "key.pem");
    let (_, other) = key_file(&scene, "other.pem");
    scene.authorization_server.add_client("agent", other);
    let keys = format!("{CLIENT}{line}");
    refused(&scene, &keys, REFUSED, &["invalid_client"]).await;
    scene.authorization_server.set_metadata(json!({"token_endpoint_auth_signing_alg_values_supported": ["RS256"]}));
    refused(&scene, &keys, CONFIG, &["ES256", "does not accept"]).await;
    std::fs::write(scene.safeconduct.private("key.pem"), "nonsense").expect("written");
    refused(&scene, &keys, CONFIG, &["no private key"]).await;
    assert_eq!(scene.authorization_server.token_requests(), 1);
}

#[tokio::test]
async fn a_client_proves_itself_beside_the_jwt_bearer_grant() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.add_client("agent", ClientProof::Basic(SECRET.to_owned()));
    scene.authorization_server.require_clients(true);
    let keys = format!("client_id = \"agent\"\n{}", secret_file(&scene, SECRET));
    token(&scene, &keys).await.expect_code(0);
    refused(&scene, "client_id = \"agent\"\n", REFUSED, &["invalid_client"]).await;
}

#[tokio::test]
async fn a_token_is_revoked_with_the_proof_of_its_client() {
    let scene = nowhere().await;
    scene.authorization_server.add_client("agent", ClientProof::Basic(SECRET.to_owned()));
    scene.authorization_server.require_clients(true);
    let daemon = scene.daemon(&format!("{CLIENT}{}", secret_file(&scene, SECRET))).await;
    // The last resort comes with a warning.
    daemon.logged("shared secret").await;
    let token = daemon.token("demo").await;
    daemon.run(&["revoke", "demo"]).await.expect_code(0);
    assert!(scene.authorization_server.is_revoked(&token));
}

#[tokio::test]
async fn revocation_sends_the_identity_at_the_end_of_the_chain_and_never_the_one_at_its_root() {
    let (scene, idp) = enterprise().await;
    let file = scene.safeconduct.private("identity.jwt");
    let mint = |audience: &str| {
        std::fs::write(&file, scene.platform.mint(audience, Duration::from_secs(600))).expect("ours");
    };
    mint(&idp.issuer());
    scene.authorization_server.federate("agent", SUBJECT);
    let chain = format!(
        "{CLIENT}client_auth = \"workload\"\nidentity = \"changed\"\n[identity]\nsource = \"file\"\ntoken_file = \"{}\"\n\
         [identities.changed]\nfrom = \"default\"\nexchange = \"token-exchange\"\nissuer = \"{}\"\n",
        file.display(),
        idp.issuer()
    );
    let daemon = scene.daemon(&chain).await;
    let token = daemon.token("demo").await;
    mint(&idp.issuer());
    daemon.run(&["revoke", "demo"]).await.expect_code(0);
    assert!(scene.authorization_server.is_revoked(&token));
    let shown = scene.authorization_server.revoked_by();
    assert_eq!(
        (&shown["iss"], &shown["aud"]),
        (&json!(idp.issuer()), &json!(scene.authorization_server.issuer())),
        "the identity of the chain's root is the identity provider's to see alone"
    );
}

#[tokio::test]
async fn a_client_registers_itself_once_with_a_secret_or_a_key_of_its_own() {
    for auth in ["secret", "private-key-jwt"] {
        let scene = nowhere().await;
        let keys = format!("exchange = \"client-credentials\"\nclient_auth = \"{auth}\"\nregister = true\n");
        let daemon = scene.daemon(&keys).await;
        daemon.token("demo").await;
        assert_eq!(daemon.get("/v1/token?server=demo&fresh=1&scope=demo:read").await.status, 200);
        assert_eq!(scene.authorization_server.registrations(), 1, "{auth}");
        // Without a keyring the next process registers again.
        drop(daemon);
        token(&scene, &keys).await.expect_code(0);
        assert_eq!(scene.authorization_server.registrations(), 2, "{auth}");
    }
}

#[tokio::test]
async fn a_client_that_the_server_forgot_is_registered_anew_by_a_later_flight() {
    let scene = nowhere().await;
    let daemon = scene.daemon("exchange = \"client-credentials\"\nclient_auth = \"secret\"\nregister = true\n").await;
    daemon.token("demo").await;
    scene.authorization_server.forget_clients();
    let refused = daemon.get("/v1/token?server=demo&scope=demo:read").await;
    assert_eq!((refused.status, &refused.json()["error"]), (502, &json!("invalid_client")));
    assert_eq!(scene.authorization_server.registrations(), 1, "a refusal is not tried again at once");
    assert_eq!(daemon.get("/v1/token?server=demo&scope=demo:write").await.status, 200);
    assert_eq!(scene.authorization_server.registrations(), 2);
}

#[tokio::test]
async fn where_no_registration_is_offered_the_operator_is_told_what_to_set() {
    let scene = nowhere().await;
    scene.authorization_server.set_metadata(json!({"registration_endpoint": null}));
    let keys = "exchange = \"client-credentials\"\nclient_auth = \"secret\"\nregister = true\n";
    refused(&scene, keys, CONFIG, &["offers no registration", "client_id"]).await;
}

#[tokio::test]
async fn a_metadata_document_is_the_identifier_where_the_server_takes_that() {
    let scene = nowhere().await;
    let url = "https://agent.example.com/client.json";
    let (line, proof) = key_file(&scene, "key.pem");
    scene.authorization_server.add_client(url, proof);
    let keys = format!("exchange = \"client-credentials\"\nclient_metadata = \"{url}\"\n{line}");
    refused(&scene, &keys, CONFIG, &["takes no client metadata documents", "register"]).await;
    assert_eq!(scene.authorization_server.token_requests(), 0);
    scene.authorization_server.set_metadata(json!({"client_id_metadata_document_supported": true}));
    token(&scene, &keys).await.expect_code(0);
    assert_eq!(scene.authorization_server.last_request().params["client_id"], url);
}

#[tokio::test]
async fn a_server_without_metadata_is_asked_where_the_operator_says() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.publish(support::authorization_server::Published {
        oauth: false,
        openid_inserted: false,
        openid_appended: false,
    });
    refused(&scene, "", REFUSED, &["publishes no authorization server metadata"]).await;
    let endpoint = format!("token_endpoint = \"{}\"\n", scene.authorization_server.token_endpoint());
    token(&scene, &endpoint).await.expect_code(0);
}

// Chains.

/// An identity provider that trusts the platform, and a server that trusts the identity provider alone.
async fn enterprise() -> (Scene, FakeAs) {
    let scene = Scene::new(binary()).await;
    let idp = FakeAs::start(scene.platform.trust()).await;
    idp.set_audience(&scene.authorization_server.issuer());
    scene.authorization_server.trust_only(idp.trust());
    (scene, idp)
}

fn jag(idp: &FakeAs) -> String {
    format!("exchange = \"id-jag\"\nidp = {{ issuer = \"{}\" }}\n", idp.issuer())
}

#[tokio::test]
async fn an_id_jag_of_the_identity_provider_becomes_a_token() {
    let (scene, idp) = enterprise().await;
    let token = token(&scene, &jag(&idp)).await.expect_code(0).stdout;
    assert_eq!(keys::peek(token.trim())["aud"], json!(scene.mcp.url()));
    let first = idp.last_request();
    assert_eq!(first.params["requested_token_type"], "urn:ietf:params:oauth:token-type:id-jag");
    assert_eq!(first.params["audience"], scene.authorization_server.issuer());
    assert_eq!(first.params["resource"], scene.mcp.url());
    assert_eq!(first.assertion["aud"], json!(idp.issuer()), "the platform's token is for the identity provider");
    let second = scene.authorization_server.last_request();
    assert_eq!(second.assertion["iss"], json!(idp.issuer()));
    assert_eq!(second.assertion["aud"], json!(scene.authorization_server.issuer()));
}

#[tokio::test]
async fn a_token_that_is_not_an_id_jag_or_for_another_party_is_not_sent_on() {
    for (fault, code, words) in [
        (
            TokenFault::IssuedTokenType(json!("urn:ietf:params:oauth:token-type:access_token")),
            REFUSED,
            "issued_token_type",
        ),
        (TokenFault::IssuedTokenType(Value::Null), REFUSED, "no issued_token_type"),
        (TokenFault::Audience(json!("https://evil.example")), 69, "is made for"),
        (TokenFault::Audience(json!(["https://a.example", "https://b.example"])), 69, "2 audiences"),
        (TokenFault::oauth("invalid_target"), REFUSED, "invalid_target"),
    ] {
        let (scene, idp) = enterprise().await;
        idp.always_token(fault);
        refused(&scene, &jag(&idp), code, &[words]).await;
        assert_eq!(idp.token_requests(), 1);
        assert_eq!(scene.authorization_server.token_requests(), 0);
    }
}

#[tokio::test]
async fn an_id_jag_is_the_grant_and_never_the_proof_of_the_client_too() {
    let (scene, idp) = enterprise().await;
    let keys = format!("client_id = \"agent\"\nclient_auth = \"workload\"\n{}", jag(&idp));
    refused(&scene, &keys, CONFIG, &["servers.demo.client_auth", "ID-JAG"]).await;
    assert_eq!(idp.token_requests(), 0);
}

#[tokio::test]
async fn a_link_changes_one_identity_into_another() {
    let (scene, idp) = enterprise().await;
    let chain = format!(
        "identity = \"changed\"\n[identities.changed]\nfrom = \"default\"\nexchange = \"token-exchange\"\nissuer = \"{}\"\n",
        idp.issuer()
    );
    let daemon = scene.daemon(&chain).await;
    daemon.token("demo").await;
    assert_eq!(idp.last_request().params["requested_token_type"], "urn:ietf:params:oauth:token-type:jwt");
    assert_eq!(idp.last_request().params["audience"], scene.authorization_server.issuer());
    assert_eq!(scene.authorization_server.last_request().assertion["iss"], json!(idp.issuer()));
}

#[tokio::test]
async fn the_platforms_own_token_is_what_a_server_gets_that_trusts_the_platform() {
    let scene = Scene::new(binary()).await;
    let config = format!(
        "[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{0}\"\nexchange = \"direct\"\nsubject_audience = \"{0}\"\n",
        scene.mcp.url()
    );
    let world = scene.safeconduct.clone().config(&config);
    let token = world.run(&["token", "demo"]).await.expect_code(0).stdout;
    let claims = keys::peek(token.trim());
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(scene.platform.trust().issuer), &json!(scene.mcp.url())));
    assert_eq!(scene.authorization_server.token_requests() + scene.authorization_server.metadata_requests(), 0);
    assert_eq!(scene.mcp.probes() + scene.mcp.metadata_requests(), 0);
}

#[tokio::test]
async fn a_platforms_token_that_lives_for_years_counts_as_a_day_and_stops_no_timer() {
    let scene = Scene::new(binary()).await;
    let file = scene.safeconduct.private("identity.jwt");
    let years = scene.platform.mint(&scene.mcp.url(), Duration::from_secs(3 * 366 * 86_400));
    std::fs::write(&file, years).expect("ours");
    let config = format!(
        "[egress]\ninsecure_loopback = true\n[identity]\nsource = \"file\"\ntoken_file = \"{}\"\n\
         [servers.demo]\nurl = \"{1}\"\nexchange = \"direct\"\nsubject_audience = \"{1}\"\n",
        file.display(),
        scene.mcp.url()
    );
    let daemon = scene.safeconduct.clone().config(&config).daemon(&[]).await;
    let reply = daemon.get("/v1/token?server=demo").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let life = reply.json()["expires_in"].as_u64().expect("a life");
    assert!((1..=86_400).contains(&life), "{life}");
    until(crate::LIMIT, "a word about it in the log", async || daemon.log().contains("more than a year")).await;
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[tokio::test]
async fn the_platforms_own_token_is_not_sent_in_the_place_of_another_identity_or_under_a_ceiling() {
    let scene = Scene::new(binary()).await;
    let world = |keys: &str| {
        scene.safeconduct.clone().config(&format!(
            "[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{0}\"\nexchange = \"direct\"\n\
             subject_audience = \"{0}\"\n{keys}\n[identities.changed]\nfrom = \"default\"\n\
             exchange = \"token-exchange\"\nissuer = \"{1}\"\n",
            scene.mcp.url(),
            scene.authorization_server.issuer()
        ))
    };
    let output = world("allow = [{ uid = 0 }, { gid = 1, scopes = [\"demo:read\"] }]").run(&["token", "demo"]).await;
    assert!(output.expect_code(CONFIG).stderr.contains("servers.demo.allow"));
    // What the token service issues is sent, or nothing.
    let by_name = ["token", "demo", "--identity", "changed"];
    for (keys, args) in [("identity = \"changed\"", &by_name[..2]), ("", &by_name[..])] {
        let output = world(keys).run(args).await.expect_code(REFUSED);
        assert!(output.stdout.is_empty() && output.stderr.contains("invalid_target"), "{}", output.stderr);
    }
    scene.authorization_server.set_audience(&scene.mcp.url());
    for (keys, args) in [("identity = \"changed\"", &by_name[..2]), ("", &by_name[..])] {
        let token = world(keys).run(args).await.expect_code(0).stdout;
        let claims = keys::peek(token.trim());
        assert_eq!(
            (&claims["iss"], &claims["aud"]),
            (&json!(scene.authorization_server.issuer()), &json!(scene.mcp.url()))
        );
    }
}

// Proof of possession.

async fn headers(daemon: &Daemon, url: &str, more: &str) -> Reply {
    daemon.get(&format!("/v1/headers?server=demo&method=POST&url={url}{more}")).await
}

/// Calls the MCP server with the broker's headers. Gives the status and the nonce.
async fn call(url: &str, reply: &Reply) -> (u16, Option<String>) {
    let given = &reply.json()["headers"];
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut request = client.post(url).header("content-type", "application/json").body(
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#,
    );
    request = request.header("accept", "application/json, text/event-stream");
    for (name, values) in given.as_object().expect("headers") {
        request = request.header(name, values[0].as_str().expect("a value"));
    }
    let answer = request.send().await.expect("answered");
    let nonce = answer.headers().get("dpop-nonce").map(|value| value.to_str().expect("text").to_owned());
    (answer.status().as_u16(), nonce)
}

#[tokio::test]
async fn a_server_that_requires_it_gets_bound_tokens_and_one_proof_a_request() {
    let scene = Scene::new(binary()).await;
    scene.mcp.require_dpop(None);
    scene.authorization_server.set_nonce(Some("as-nonce-1"));
    let daemon = scene.daemon("").await;
    let url = scene.mcp.url();
    let one = headers(&daemon, &url, "").await;
    assert_eq!(one.status, 200, "{}", one.body);
    assert_eq!(call(&url, &one).await.0, 200);
    assert_eq!(call(&url, &one).await.0, 401, "a proof is good once");
    assert_eq!(call(&url, &headers(&daemon, &url, "").await).await.0, 200);
    assert_eq!(scene.authorization_server.token_requests(), 2, "the nonce cost one request, and the token was kept");
    let other = daemon.get(&format!("/v1/headers?server=demo&method=GET&url={url}")).await;
    assert_eq!(call(&url, &other).await.0, 401, "a proof is for one method");
}

#[tokio::test]
async fn the_nonce_of_the_mcp_server_goes_into_the_proof() {
    let scene = Scene::new(binary()).await;
    scene.mcp.require_dpop(Some("rs-nonce-1"));
    let daemon = scene.daemon("dpop = true\n").await;
    let url = scene.mcp.url();
    let (status, nonce) = call(&url, &headers(&daemon, &url, "").await).await;
    assert_eq!((status, nonce.as_deref()), (401, Some("rs-nonce-1")));
    let reply = headers(&daemon, &url, "&dpop_nonce=rs-nonce-1").await;
    assert_eq!(call(&url, &reply).await.0, 200);
    assert_eq!(
        call(&url, &headers(&daemon, &url, "").await).await.0,
        401,
        "a caller's nonce is for its own proof alone"
    );
    assert_eq!(headers(&daemon, &url, "&dpop_nonce=a%20b").await.status, 400);
}

#[tokio::test]
async fn a_bound_token_is_not_handed_out_bare() {
    let scene = Scene::new(binary()).await;
    scene.mcp.require_dpop(None);
    let daemon = scene.daemon("").await;
    for path in ["/v1/token?server=demo", "/v1/headers?server=demo"] {
        let reply = daemon.get(path).await;
        assert_eq!((reply.status, &reply.json()["error"]), (403, &json!("token_bound")), "{path}");
    }
    for verb in ["token", "headers"] {
        let output = daemon.run(&[verb, "demo"]).await.expect_code(DENIED);
        assert!(output.stderr.contains("bound to") && output.stderr.contains("hint: "), "{}", output.stderr);
        scene.configured("").run(&[verb, "demo", "--no-daemon"]).await.expect_code(DENIED);
    }
}

#[tokio::test]
async fn a_token_that_is_not_bound_although_it_should_be_is_not_used() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.ignore_proofs(true);
    refused(&scene, "dpop = true\n", REFUSED, &["not bound to our key"]).await;
    assert_eq!(scene.authorization_server.proofs(), 1);
    scene.authorization_server.set_metadata(json!({"dpop_signing_alg_values_supported": ["RS256"]}));
    refused(&scene, "dpop = true\n", REFUSED, &["ES256"]).await;
}

#[tokio::test]
async fn without_the_servers_wish_or_the_operators_tokens_are_not_bound() {
    let scene = Scene::new(binary()).await;
    token(&scene, "").await.expect_code(0);
    scene.mcp.require_dpop(None);
    token(&scene, "dpop = false\n").await.expect_code(0);
    assert_eq!(scene.authorization_server.proofs(), 0);
}
