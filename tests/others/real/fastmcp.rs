//! MCP servers of FastMCP that take a token of Keycloak, or the platform's own, before the injecting proxy and a client of another
//! project. The client has no token.

use serde_json::{Value, json};

use super::fetched::fetched;
use super::keycloak::keycloak;
use super::realm::{BY_WORKLOAD, NAME, PATIENCE, Realm, is_refusal, issued, pause};
use crate::fakes::platform::{FakePlatform, SUBJECT};
use crate::fakes::safeconduct::{Daemon, Safeconduct};
use crate::fakes::tcp_http::Loopback;
use crate::fakes::{keys, leak, wait};
use crate::peer::Peer;
use crate::process::{LIMIT, PYTHON, SAFECONDUCT};

/// A server that trusts this issuer, and its URL.
pub(super) fn server(issuer: &str, jwks: &str, algorithm: &str) -> Option<(Peer, String)> {
    let python = fetched("fastmcp-4.2.3")?.join("bin/python");
    let settings =
        [("ISSUER", issuer), ("JWKS", jwks), ("ALGORITHM", algorithm)].map(|(name, value)| (name, value.to_owned()));
    let mut server = Peer::start(python.to_str()?, &["tests/real/fastmcp_server.py"], &settings);
    let url = server.hear("ready").as_str().expect("a URL").to_owned();
    Some((server, url))
}

/// The official Python client before the proxy of this daemon, at its one server.
pub(super) async fn client(daemon: &Daemon, server: &str) -> Peer {
    let Loopback { address, secret } = Loopback::of(daemon).await;
    let url = format!("http://{address}/mcp/{server}");
    let mut client = Peer::start(PYTHON, &["tests/others/proxied_client.py", &url], &[("SECRET", secret)]);
    assert_eq!(step(&mut client, &json!({ "connect": {} })), done(&json!(true)));
    client
}

fn step(client: &mut Peer, step: &Value) -> (String, Value) {
    client.ask(step, &["done", "failed"])
}

/// Who the server says it is called by: `done` and the `sub`, or `failed` and why.
pub(super) fn caller(client: &mut Peer) -> (String, Value) {
    step(client, &json!({ "call": { "name": "caller", "arguments": {} } }))
}

pub(super) fn done(value: &Value) -> (String, Value) {
    ("done".to_owned(), value.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_token_calls_a_tool_of_a_server_that_trusts_keycloak() {
    let Some(keycloak) = keycloak() else { return };
    let issuer = format!("{}/realms/{NAME}", keycloak.http);
    let Some((server, url)) = server(&issuer, &format!("{issuer}/protocol/openid-connect/certs"), "RS256") else {
        return;
    };
    let Some(realm) = Realm::guarding(&url).await else { return };
    let config = format!("[listen]\nhttp = \"127.0.0.1:0\"\n{}", realm.config(BY_WORKLOAD));
    let world = realm.world.clone().config(&config);
    let daemon = world.daemon(&[]).await;
    let mut client = client(&daemon, "demo").await;
    let first = daemon.token("demo").await;
    leak::minted(&first);
    let claims = realm.claims(&first).await;
    assert_eq!(caller(&mut client), done(&claims["sub"]));

    // Keycloak changes its key, and the server meets it with the next token. FastMCP fetches keys seldom.
    let id = keycloak.admin("GET", &format!("/admin/realms/{NAME}"), &Value::Null).await["id"].clone();
    let key = json!({
        "name": "next", "providerId": "rsa-generated", "providerType": "org.keycloak.keys.KeyProvider", "parentId": id,
        "config": { "priority": ["200"], "enabled": ["true"], "active": ["true"], "algorithm": ["RS256"] },
    });
    keycloak.admin("POST", &format!("/admin/realms/{NAME}/components"), &key).await;
    // A token of the last second would count as a new one.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let output = daemon.run(&["token", "demo", "--fresh"]).await.expect_code(0);
    issued(&output);
    let second = output.stdout.trim();
    let kid = |token: &str| jsonwebtoken::decode_header(token).expect("a JWT").kid;
    assert_ne!(kid(second), kid(&first), "it is signed with the new key");
    realm.claims(second).await;
    wait::until(PATIENCE, "the server has the new key", async || {
        pause().await;
        caller(&mut client) == done(&claims["sub"])
    })
    .await;
    client.end();
    daemon.stop().await.expect_code(0);

    // The right is taken away: who starts anew gets nothing.
    realm.change(&realm.client("workload").await, |client| client["enabled"] = json!(false)).await;
    is_refusal(&world.run(&["token", "demo", "--no-daemon"]).await, "invalid_client", "");
    server.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_the_platforms_own_token() {
    let platform = FakePlatform::start().await;
    let jwks = format!("{}/.well-known/jwks", platform.issuer());
    let Some((server, url)) = server(platform.issuer(), &jwks, "ES256") else { return };
    let world = Safeconduct::new(SAFECONDUCT).envs(platform.env()).limit(LIMIT).config(&format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\n[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{url}\"\n\
         exchange = \"direct\"\nsubject_audience = \"{url}\"\n"
    ));
    let daemon = world.daemon(&[]).await;
    let mut client = client(&daemon, "demo").await;
    assert_eq!(caller(&mut client), done(&json!(SUBJECT)));
    assert_eq!(keys::peek(&daemon.token("demo").await)["aud"], *url);
    client.end();
    daemon.stop().await.expect_code(0);
    server.end();
}
