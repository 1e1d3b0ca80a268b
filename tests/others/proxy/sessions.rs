//! `@modelcontextprotocol/server-everything` behind a token check, and three clients whose sessions last while the token is
//! replaced, the issuer is down and the server is started again. Each client comes by the proxy and by a bridge.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{By, Client, Everything, KINDS, World, pause};

async fn everyone(world: &World) -> Vec<Client> {
    let ways = [By::Proxy, By::Bridge].into_iter();
    let mut clients: Vec<Client> = ways.flat_map(|by| KINDS.map(|kind| world.client_by(kind, by))).collect();
    for client in &mut clients {
        client.connects();
    }
    clients
}

fn echo(client: &mut Client, word: &str) -> Result<Value, super::Failed> {
    client.call("echo", json!({ "message": word }))
}

#[track_caller]
fn echoes(client: &mut Client, word: &str) {
    match echo(client, word) {
        Ok(said) => assert_eq!(said, format!("Echo: {word}"), "{:?} by {:?}", client.kind, client.by),
        Err(failed) => panic!("{:?} by {:?}: {word}: {failed:?}", client.kind, client.by),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_clients_list_and_call_tools_and_hear_progress_without_a_token() {
    let everything = Everything::start();
    let mut world = World::before(&everything.url()).await;
    let mut clients = everyone(&world).await;
    for client in &mut clients {
        let tools = client.step(&json!({ "list": {} })).expect("tools are listed");
        assert!(
            tools.as_array().is_some_and(|tools| tools.contains(&json!("echo"))),
            "{:?} by {:?}: {tools}",
            client.kind,
            client.by
        );
        echoes(client, "hello \u{2028} ü");
        let long = json!({ "name": "trigger-long-running-operation", "arguments": { "duration": 0.3, "steps": 3 } });
        let heard = client.step(&json!({ "progress": long })).expect("it runs to its end");
        // Progress of the last step can come after the result, and clients drop it then.
        assert!(
            heard.as_u64().is_some_and(|heard| heard >= 2),
            "wire 36: {:?} by {:?} heard {heard}",
            client.kind,
            client.by
        );
    }
    assert_eq!(world.tokens(), 1, "one token for all of them");
    assert!(world.seen().iter().all(|seen| seen["status"] != 401 || seen["jti"].is_null()));
    world.end(clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_notices_that_its_token_is_replaced() {
    let everything = Everything::start();
    let mut world = World::before(&everything.url()).await;
    world.scene.authorization_server.set_token_life(Duration::from_secs(2));
    let mut clients = everyone(&world).await;
    let end = Instant::now() + Duration::from_secs(7);
    let mut turn = 0;
    while Instant::now() < end {
        for client in &mut clients {
            echoes(client, &format!("turn {turn}"));
        }
        turn += 1;
        pause(100).await;
    }
    let tokens = world.tokens();
    assert!(tokens >= 4, "only {tokens} tokens in seven seconds of two-second tokens");
    world.end(clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_issuer_is_told_in_our_words_and_ends_with_it() {
    let everything = Everything::start();
    let world = World::before(&everything.url()).await;
    world.scene.authorization_server.set_token_life(Duration::from_secs(3));
    let mut clients = everyone(&world).await;
    world.scene.authorization_server.set_down(true);
    for client in &mut clients {
        // The token of now still serves; when it is dead, a call waits for another, and then the client is told.
        let end = Instant::now() + Duration::from_secs(40);
        let failed = loop {
            match echo(client, "is anybody there?") {
                Ok(_) => assert!(Instant::now() < end, "{:?} by {:?}: a dead token served", client.kind, client.by),
                Err(failed) => break failed,
            }
            pause(200).await;
        };
        assert!(failed.is_ours(), "{:?} by {:?}: {failed:?}", client.kind, client.by);
        assert_eq!(failed.0["data"]["class"], "temporary", "{:?} by {:?}", client.kind, client.by);
    }
    world.scene.authorization_server.heal();
    for client in &mut clients {
        let end = Instant::now() + Duration::from_secs(40);
        while let Err(failed) = echo(client, "again") {
            assert!(failed.is_ours() && Instant::now() < end, "{:?} by {:?}: {failed:?}", client.kind, client.by);
            pause(200).await;
        }
        echoes(client, "the same session");
    }
    world.end(clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_notices_that_the_server_was_started_again() {
    let mut everything = Everything::start();
    let mut world = World::before(&everything.url()).await;
    let mut clients = everyone(&world).await;
    for round in 1..=2 {
        everything.again();
        world.names_again(&everything.url());
        for client in &mut clients {
            echoes(client, &format!("after restart {round}"));
        }
        let opened = world.seen().iter().filter(|seen| seen["rpc"]["method"] == "initialize").count();
        assert_eq!(opened, (round + 1) * clients.len(), "one new session for each that was lost");
    }
    world.end(clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told() {
    let mut everything = Everything::start();
    let world = World::before(&everything.url()).await;
    let mut clients = everyone(&world).await;
    everything.stop();
    for client in &mut clients {
        // The token check is there and answers 502, as a gateway does. That is passed on where it can be: on stdio there is no status.
        let failed = echo(client, "nobody").expect_err("the server is gone");
        assert_eq!(failed.is_ours(), client.by == By::Bridge, "{:?} by {:?}: {failed:?}", client.kind, client.by);
    }
    world.end(clients).await;
}
