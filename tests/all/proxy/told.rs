//! 401, 403, redirects and failures, and what the client gets instead.

use support::authorization_server::TokenFault;
use support::raw_server::RawServer;
use support::scene::Scene;

use super::{World, answers, call, closing, initialize, ours, post};
use crate::binary;

const REFUSES: &str =
    "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer error=\"invalid_token\"\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn wire_44_each_redirect_becomes_an_error_with_the_id_as_it_was_sent() {
    let world = World::new().await;
    for (status, id) in [(301, "0"), (302, "\"a\\u0062\""), (303, "1.0"), (307, "12345678901234567890123"), (308, "-1")]
    {
        let answer =
            format!("HTTP/1.1 {status} X\r\nlocation: http://127.0.0.1:1/elsewhere\r\ncontent-length: 0\r\n\r\n");
        let (_, _, reply) = world.exchange(&post("/mcp/raw", "", &call(id, "tools/list")), &answer).await;
        assert_eq!(reply.status, 200, "{status}");
        assert!(reply.body.contains(&format!("\"id\":{id},")), "{status}: {}", reply.body);
        let error = ours(&reply);
        assert_eq!(error["error"]["data"]["class"], "refused");
        assert_eq!(error["error"]["data"]["said"], "http://127.0.0.1:1/elsewhere", "wire 65: where it pointed");
        assert!(!error["error"]["message"].as_str().expect("a text").contains("elsewhere"));
    }
    let not_modified = "HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n";
    let mut client = world.send("GET /mcp/raw HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let mut server = world.server.accept().await;
    server.head().await;
    server.say(not_modified).await;
    assert_eq!(client.reply().await.status, 304);
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_the_request_repeated_byte_for_byte() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let old = daemon.token("demo").await;
    // A token that was just made is not refused for its age.
    tokio::time::sleep(std::time::Duration::from_millis(5_100)).await;
    scene.mcp.refuse_next(1);
    let reply = daemon.exchange(&closing(&post("/mcp/demo", "", &initialize()))).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.header("www-authenticate").is_none() && reply.body.contains("serverInfo"), "{}", reply.body);
    assert_eq!((scene.mcp.refusals(), scene.mcp.calls()), (1, 1));
    assert_ne!(daemon.token("demo").await, old);
    assert_eq!(scene.authorization_server.token_requests(), 2);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_server_that_refuses_every_token_never_shows_its_challenge() {
    let world = World::new().await;
    let (_, _, reply) = world.exchange(&post("/mcp/raw", "", &call("7", "tools/call")), REFUSES).await;
    assert_eq!((reply.status, reply.header("www-authenticate")), (200, None));
    let error = ours(&reply);
    assert_eq!((&error["id"], &error["error"]["data"]["error"]), (&7.into(), &"invalid_token".into()));
    let note = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    let (_, _, reply) = world.exchange(&post("/mcp/raw", "", note), REFUSES).await;
    assert_eq!(reply.status, 503);
    assert!(ours(&reply).get("id").is_none());
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let (_, _, reply) = world.exchange(&post("/mcp/raw", "", answer), REFUSES).await;
    assert_eq!((reply.status, reply.body.as_str()), (202, ""));
    for method in ["GET", "DELETE"] {
        let mut client = world.send(&format!("{method} /mcp/raw HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        let mut server = world.server.accept().await;
        server.head().await;
        server.say(REFUSES).await;
        assert_eq!(client.reply().await.status, 405, "wire 25: {method}");
    }
}

#[tokio::test]
async fn a_tool_call_whose_answer_is_lost_is_not_sent_again() {
    let world = World::new().await;
    let mut client = world.send(&post("/mcp/raw", "", &call("7", "tools/call"))).await;
    let mut server = world.server.accept().await;
    server.head().await;
    server.until(b"{}}").await;
    drop(server);
    let error = ours(&client.reply().await);
    assert!(error["error"]["message"].as_str().expect("a text").contains("may have run"), "{error}");
    assert!(world.server.is_left_alone(super::WHILE).await);
}

/// Also not what may run twice.
#[tokio::test]
async fn a_request_whose_answer_is_malformed_is_not_sent_again() {
    let world = World::new().await;
    for method in ["tools/call", "tools/list"] {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}";
        let (_, _, reply) = world.exchange(&post("/mcp/raw", "", &call("7", method)), answer).await;
        let error = ours(&reply)["error"].take();
        let (class, code) = (&error["data"]["class"], &error["data"]["error"]);
        assert_eq!((class, code), (&"refused".into(), &"malformed_answer".into()), "{error}");
        assert!(error["message"].as_str().expect("a text").contains("may have run"), "{error}");
        assert!(world.server.is_left_alone(super::WHILE).await);
    }
}

#[tokio::test]
async fn what_may_run_twice_is_sent_again_after_a_lost_answer() {
    let world = World::new().await;
    let body = call("7", "tools/list");
    let mut client = world.send(&post("/mcp/raw", "", &body)).await;
    let mut first = world.server.accept().await;
    first.head().await;
    drop(first);
    let mut second = world.server.accept().await;
    second.head().await;
    assert_eq!(second.until(b"{}}").await, body.as_bytes());
    second.say(answers("{}")).await;
    assert_eq!(client.reply().await.body, "{}");
}

#[tokio::test]
async fn an_issuer_that_refuses_becomes_an_error_that_the_client_shows() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    scene.authorization_server.always_token(TokenFault::oauth("access_denied"));
    let reply = daemon.exchange(&closing(&post("/mcp/demo", "", &call("7", "tools/call")))).await;
    assert_eq!(reply.status, 200);
    let error = ours(&reply);
    assert_eq!((&error["id"], &error["error"]["data"]["class"]), (&7.into(), &"refused".into()), "{error}");
    assert!(error["error"]["message"].as_str().expect("a text").contains("access_denied"), "{error}");
    assert_eq!(scene.mcp.calls(), 0);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_probe_that_failed_fails_the_initialize_after_it_alike() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    scene.authorization_server.always_token(TokenFault::oauth("access_denied"));
    let probe = ours(&daemon.exchange(&closing(&post("/mcp/demo", "", &call("1", "server/discover")))).await);
    scene.authorization_server.heal();
    let after = ours(&daemon.exchange(&closing(&post("/mcp/demo", "", &initialize()))).await);
    assert_eq!(probe["error"]["data"]["class"], after["error"]["data"]["class"]);
    assert_eq!(scene.mcp.calls(), 0);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_server_that_restarts_is_connected_to_again_if_nothing_was_sent() {
    let World { daemon, server, scene, .. } = World::new().await;
    let base = server.stop();
    let restarts = async {
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        let server = RawServer::start_again(base).await;
        let mut connection = server.accept().await;
        connection.head().await;
        connection.say(answers("{}")).await;
    };
    let request = closing(&post("/mcp/raw", "", &call("1", "tools/call")));
    let (reply, ()) = tokio::join!(daemon.exchange(&request), restarts);
    assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
    drop(scene);
    daemon.stop().await.expect_code(0);
}
