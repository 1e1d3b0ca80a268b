//! What ends from our side: calls whose caller or server a reload takes away, what waits when the daemon ends, and probes that
//! would be held.

use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::json;
use support::fault::Fault;
use support::raw_server::RawConnection;

use super::{Client, WHILE, World, call, ours, post};
use crate::LIMIT;

const GET: &str = "GET /mcp/raw HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const EVENT: &str = "a\r\ndata: {}\n\n\r\n";

/// An open event stream.
async fn stream(world: &World) -> (Client, RawConnection) {
    let mut client = world.send(GET).await;
    let mut server = world.server.accept().await;
    server.head().await;
    server.say(format!("{STREAM}{EVENT}")).await;
    client.until(b"data: {}\n\n\r\n").await;
    (client, server)
}

/// A new configuration of the server `raw`, read by the daemon.
async fn reload(world: &World, more: &str) {
    let text = if more == "none" { String::new() } else { world.raw(more) };
    world.files.rewrite_config(&world.scene.config(&text));
    world.daemon.signal(Signal::SIGHUP);
}

#[tokio::test]
async fn an_event_stream_ends_when_a_reload_takes_its_server_or_caller_or_scopes() {
    let own = geteuid().as_raw();
    for more in ["none", &format!("allow = [{{ uid = {} }}]", own + 1), "scopes = [\"demo:read\"]"] {
        let world = World::new().await;
        let (mut client, mut server) = stream(&world).await;
        let mut waiting = world.send(&post("/mcp/raw", "", &call("1", "tools/call"))).await;
        let mut asked = world.server.accept().await;
        asked.head().await;
        reload(&world, more).await;
        assert_eq!(client.until(b"0\r\n\r\n").await, b"0\r\n\r\n", "{more}: it ends cleanly");
        assert!(server.is_closed(LIMIT).await, "{more}");
        assert_eq!(waiting.reply().await.status, 404, "{more}: so does what has no answer yet");
        assert!(asked.is_closed(LIMIT).await, "{more}");
        world.daemon.stop().await.expect_code(0);
    }
}

#[tokio::test]
async fn a_stream_goes_on_over_a_reload_that_leaves_its_caller_what_it_had() {
    let world = World::new().await;
    let (mut client, mut server) = stream(&world).await;
    let own = geteuid().as_raw();
    let before = world.daemon.log().matches("configuration").count();
    reload(&world, &format!("allow = [{{ uid = {own} }}, {{ uid = {} }}]\nrate = \"100/s\"", own + 1)).await;
    support::wait::until(LIMIT, "the reload", async || world.daemon.log().matches("configuration").count() > before)
        .await;
    assert!(!server.is_closed(WHILE).await);
    server.say(EVENT).await;
    client.until(b"data: {}\n\n\r\n").await;
    world.daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn what_cannot_end_cleanly_breaks_off_when_a_reload_takes_its_server() {
    let world = World::new().await;
    let mut halves = Vec::new();
    // A body of a known length, and one without events. A client never has half an event, so event streams end cleanly.
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let mut client = world.send(GET).await;
        let mut server = world.server.accept().await;
        server.head().await;
        server.say(head).await;
        client.until(b"abc").await;
        halves.push((client, server));
    }
    reload(&world, "none").await;
    for (mut client, mut server) in halves {
        let mut rest = std::mem::take(&mut client.read);
        while client.more().await > 0 {}
        rest.append(&mut client.read);
        assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut body does not look whole: {}", String::from_utf8_lossy(&rest));
        assert!(server.is_closed(LIMIT).await);
    }
    world.daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn what_waits_when_the_daemon_ends_gets_an_answer_and_no_reset() {
    let world = World::new().await;
    let mut open = Vec::new();
    for method in ["tools/call", "ping"] {
        let client = world.send(&post("/mcp/raw", "", &call("\"a\"", method))).await;
        let mut server = world.server.accept().await;
        server.head().await;
        open.push((client, server));
    }
    let notified = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let mut notification = world.send(&post("/mcp/raw", "", notified)).await;
    let mut server = world.server.accept().await;
    server.head().await;
    world.scene.authorization_server.script_token([Fault::Stall]);
    let mut token = world.send("GET /v1/token?server=demo HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let asked = async || world.scene.authorization_server.token_requests() > 1;
    support::wait::until(LIMIT, "the issuer is asked", asked).await;
    world.daemon.signal(Signal::SIGTERM);
    for ((mut client, _server), error) in open.into_iter().zip(["answer_lost", "ending"]) {
        let reply = client.reply().await;
        let json = ours(&reply);
        assert_eq!((reply.status, &json["id"], &json["error"]["data"]["error"]), (200, &json!("a"), &json!(error)));
    }
    let reply = notification.reply().await;
    assert_eq!((reply.status, &ours(&reply)["error"]["data"]["class"]), (503, &json!("temporary")));
    let reply = token.reply().await;
    assert_eq!((reply.status, &reply.json()["error"]), (503, &json!("temporarily_unavailable")), "{}", reply.body);
    assert!(reply.header("retry-after").is_some());
    world.daemon.stop().await.expect_code(0);
}

/// No more probes of a caller are held.
const HELD: usize = 16;

#[tokio::test]
async fn of_a_callers_probes_sixteen_are_held_and_the_next_is_answered_at_once() {
    let world = World::new().await;
    world.scene.authorization_server.always_token(Fault::Status(503));
    let probe = post("/mcp/demo", "", &call("1", "server/discover"));
    let mut held = Vec::new();
    for _ in 0..HELD {
        held.push(world.send(&probe).await);
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut next = world.send(&probe).await;
    // Those that came before wait for four seconds.
    tokio::select! {
        biased;
        reply = next.reply() => assert_eq!(ours(&reply)["error"]["data"]["class"], "temporary"),
        _ = held[HELD - 1].more() => panic!("it was not held"),
    }
    for mut client in held {
        ours(&client.reply().await);
    }
    world.daemon.stop().await.expect_code(0);
}
