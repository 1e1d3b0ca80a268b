//! What the first request of a client leads to, with the clients that look for the server's wire by a probe (mode "auto"): each
//! answer of ours ends in a session or in our words, and each of the server's in what it would be without us.

use serde_json::{Value, json};

use super::{By, Client, KINDS, Kind, World, pause};
use crate::peer::Peer;
use crate::process::PYTHON;

const PROBING: [Kind; 2] = [Kind::TypeScript, Kind::Python];

/// A server that speaks both wires.
fn modern() -> (Peer, String) {
    let mut fixture = Peer::start(PYTHON, &["tests/others/fixture_server.py"], &[]);
    let url = fixture.hear("resource").as_str().expect("a URL").to_owned();
    (fixture, url)
}

/// Which requests reached the server, by method.
fn methods(world: &mut World) -> Vec<String> {
    world.seen().iter().filter_map(|seen| Some(seen["rpc"]["method"].as_str()?.to_owned())).collect()
}

fn calls_a_tool(client: &mut Client) {
    let said =
        client.call("test_simple_text", json!({})).unwrap_or_else(|failed| panic!("{:?}: {failed:?}", client.kind));
    assert!(said.as_str().is_some_and(|said| said.starts_with("This is")), "{:?}", client.kind);
}

fn error(id: &str, code: i64) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":\"scripted\"}}}}")
}

/// One row of the table: the probe's answer, and what each client does then.
struct Row {
    answer: Value,
    /// By client: `None` if it stops, else whether it goes on with `initialize`.
    then: [Option<bool>; 2],
}

/// Rows of the server's own answers, which pass as they are.
fn rows() -> Vec<Row> {
    let json = |status: u16| json!({ "status": status, "body": error("$ID", -32601) });
    let text = |status: u16| json!({ "status": status, "type": "text/plain", "body": "no" });
    let both = |answer: Value| Row { answer, then: [Some(true), Some(true)] };
    let mut rows: Vec<Row> = [200, 400, 404].map(json).into_iter().map(both).collect();
    rows.extend([404, 405].map(text).into_iter().map(both));
    for status in [500, 502, 503, 504] {
        rows.push(Row { answer: json(status), then: [None, Some(true)] });
        rows.push(Row { answer: text(status), then: [None, Some(true)] });
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_answers_to_a_probe_leads_where_it_would_without_us() {
    let (fixture, url) = modern();
    let mut world = World::before(&url).await;
    // The daemon's own first request is no probe of a client.
    world.daemon.token("target").await;
    for row in rows() {
        for (kind, then) in PROBING.into_iter().zip(row.then) {
            world.front.forget();
            world.front.ask(&json!({ "answers": [row.answer] }), &["done"]);
            let mut client = world.client(kind);
            let connected = client.connect();
            assert_eq!(connected.is_ok(), then.is_some(), "{kind:?} {}: {connected:?}", row.answer);
            let began = methods(&mut world).iter().any(|method| method == "initialize");
            assert_eq!(began, then == Some(true), "{kind:?} {}", row.answer);
            if then.is_some() {
                calls_a_tool(&mut client);
            }
            client.peer.end();
        }
    }
    world.end([]).await;
    fixture.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_the_server_refuses_with_401_403_or_a_redirect_ends_in_our_words() {
    let (fixture, url) = modern();
    let mut world = World::before(&url).await;
    world.daemon.token("target").await;
    let refusals = [
        json!({ "status": 401, "headers": { "www-authenticate": "Bearer error=\"invalid_token\"" } }),
        json!({ "status": 401 }),
        json!({ "status": 403 }),
        json!({ "status": 403, "headers": { "www-authenticate": "Bearer error=\"insufficient_scope\", scope=\"x:y\"" } }),
        json!({ "status": 302, "headers": { "location": "https://login.example.com/" } }),
    ];
    for refusal in refusals {
        world.front.ask(&json!({ "always": refusal }), &["done"]);
        for kind in PROBING {
            let mut client = world.client(kind);
            let failed = client.connect().expect_err("nobody is let in");
            assert!(failed.is_ours(), "{kind:?} {refusal}: {failed:?}");
            client.peer.end();
        }
    }
    // A passing refusal has moved nobody to another wire.
    world.front.ask(&json!({ "always": null }), &["done"]);
    world.front.forget();
    for kind in PROBING {
        let mut client = world.client(kind);
        client.connects();
        calls_a_tool(&mut client);
        client.peer.end();
    }
    assert!(!methods(&mut world).iter().any(|method| method == "initialize"), "both speak the new wire");
    world.end([]).await;
    fixture.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_issuer_a_probe_is_told_in_our_words_on_both_of_its_requests() {
    let (fixture, url) = modern();
    let world = World::before(&url).await;
    world.scene.authorization_server.set_down(true);
    for kind in PROBING {
        let mut client = world.client(kind);
        let failed = client.connect().expect_err("there is no token");
        assert!(failed.is_ours() && failed.0["data"]["class"] == "temporary", "{kind:?}: {failed:?}");
        client.peer.end();
    }
    world.end([]).await;
    fixture.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_comes_back_within_a_probe_s_patience_costs_nothing() {
    let (fixture, url) = modern();
    let mut world = World::before(&url).await;
    world.daemon.token("target").await;
    let refused = json!({ "status": 401, "headers": { "www-authenticate": "Bearer error=\"invalid_token\"" } });
    for kind in PROBING {
        // The daemon replaces no token that is younger.
        pause(5_500).await;
        world.front.forget();
        world.front.ask(&json!({ "answers": [refused] }), &["done"]);
        world.scene.authorization_server.set_down(true);
        let mut client = world.client(kind);
        let connecting = tokio::task::spawn_blocking(move || (client.connect(), client));
        while !world.seen().iter().any(|seen| seen["status"] == 401) {
            pause(20).await;
        }
        pause(800).await;
        world.scene.authorization_server.heal();
        let (connected, mut client) = connecting.await.expect("the client does not panic");
        assert!(connected.is_ok(), "{kind:?}: {connected:?}");
        calls_a_tool(&mut client);
        assert!(!methods(&mut world).iter().any(|method| method == "initialize"), "{kind:?} stays on the new wire");
        client.peer.end();
    }
    world.end([]).await;
    fixture.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_or_closes_each_connection_is_told_in_our_words() {
    let (fixture, url) = modern();
    let mut world = World::before(&url).await;
    world.daemon.token("target").await;
    world.front.ask(&json!({ "always": { "status": 0 } }), &["done"]);
    for kind in PROBING {
        let mut client = world.client(kind);
        let failed = client.connect().expect_err("nobody answers");
        assert!(failed.is_ours(), "{kind:?}: {failed:?}");
        client.peer.end();
    }
    fixture.end();
    world.end([]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_bridge_is_on_the_newest_wire_that_it_and_the_server_speak() {
    let (fixture, url) = modern();
    let mut world = World::before(&url).await;
    world.daemon.token("target").await;
    for kind in KINDS {
        world.front.forget();
        let mut client = world.client_by(kind, By::Bridge);
        client.connects();
        calls_a_tool(&mut client);
        let began = methods(&mut world).iter().any(|method| method == "initialize");
        assert_eq!(began, kind == Kind::TypeScriptV1, "{kind:?}");
        client.peer.end();
    }
    world.end([]).await;
    fixture.end();
}
