//! Messages of both wires, sessions, and the fields of each request.

use super::*;

#[tokio::test]
async fn wire_13_any_request_may_be_the_first_and_a_late_probe_does_no_harm() {
    let (mut client, mut daemon) = scripted().await;
    client.send(&stateless(1, "server/discover", json!({}))).await;
    let probe = daemon.expect("server/discover").await;
    // The Python client gives up on the probe and goes on with the same pipe.
    client.send(&initialize(2)).await;
    daemon.expect("initialize").await.json_body("mcp-session-id: s-1\r\n", &agreed(2)).await;
    assert_eq!(client.message().await["id"], 2);
    probe.done().await;
    assert_eq!(client.message().await["id"], 1);
    client.ask(3, "tools/list", json!({})).await;
    let listed = daemon.expect("tools/list").await;
    assert_eq!(listed.field("mcp-session-id"), Some("s-1"));
    listed.done().await;
    assert_eq!(client.message().await["id"], 3);
}

#[tokio::test]
async fn wire_19_and_23_the_id_and_the_agreed_version_are_on_each_later_request() {
    let (mut client, mut daemon) = in_session().await;
    client.ask(1, "tools/list", json!({})).await;
    let asked = daemon.expect("tools/list").await;
    assert_eq!(asked.line, "POST /mcp/demo HTTP/1.1");
    assert_eq!(asked.field("mcp-session-id"), Some("s-1"));
    assert_eq!(asked.field("mcp-protocol-version"), Some("2025-06-18"), "what was agreed, not what was asked for");
    assert_eq!(asked.field("content-type"), Some("application/json"));
    assert_eq!(asked.field("accept"), Some("application/json, text/event-stream"), "wire 47");
    assert_eq!((asked.field("mcp-method"), asked.field("mcp-name")), (None, None), "wire 61");
    // An id in a later answer changes nothing.
    asked.json_body("mcp-session-id: s-2\r\n", &result(&json!(1)).to_string()).await;
    client.message().await;
    client.send(&notification("notifications/roots/list_changed", json!({}))).await;
    let told = daemon.expect("notifications/roots/list_changed").await;
    assert_eq!((told.field("mcp-session-id"), told.field("mcp-protocol-version")), (Some("s-1"), Some("2025-06-18")));
}

#[tokio::test]
async fn wire_19_a_second_initialize_begins_anew() {
    let (mut client, mut daemon) = in_session().await;
    client.send(&initialize(1)).await;
    let (one, other) = (daemon.next().await, daemon.next().await);
    let (hello, delete) = if one.line.starts_with("POST") { (one, other) } else { (other, one) };
    assert_eq!((hello.field("mcp-session-id"), hello.field("mcp-protocol-version")), (None, None));
    assert!(delete.line.starts_with("DELETE") && delete.field("mcp-session-id") == Some("s-1"), "{}", delete.line);
    delete.status(405, "", "").await;
    hello.json_body("mcp-session-id: s-2\r\n", &agreed(1)).await;
    assert_eq!(client.message().await["id"], 1);
    client.ask(2, "ping", json!({})).await;
    assert_eq!(daemon.expect("ping").await.field("mcp-session-id"), Some("s-2"));
}

#[tokio::test]
async fn a_session_id_that_cannot_be_sent_back_is_none() {
    for id in ["x".repeat(100_000), "a b".to_owned()] {
        let (mut client, mut daemon) = scripted().await;
        client.send(&initialize(0)).await;
        daemon.expect("initialize").await.json_body(&format!("mcp-session-id: {id}\r\n"), &agreed(0)).await;
        assert_eq!(client.message().await["id"], 0);
        client.ask(1, "ping", json!({})).await;
        assert_eq!(daemon.expect("ping").await.field("mcp-session-id"), None);
    }
}

#[tokio::test]
async fn wire_26_messages_after_initialized_wait_until_the_server_has_it() {
    let (mut client, mut daemon) = scripted().await;
    // All at once, as a script does it.
    let ready = notification("notifications/initialized", json!({}));
    let list = request(1, "tools/list", json!({}));
    client.write(format!("{}\n{ready}\n{list}\n", initialize(0))).await;
    let hello = daemon.expect("initialize").await;
    assert!(daemon.is_left_alone().await, "nothing overtakes `initialize`");
    hello.json_body("mcp-session-id: s-1\r\n", &agreed(0)).await;
    let ready = daemon.expect("notifications/initialized").await;
    assert_eq!(ready.field("mcp-session-id"), Some("s-1"));
    assert!(daemon.is_left_alone().await, "nothing overtakes `initialized`");
    ready.accepted().await;
    let mut next = [daemon.next().await, daemon.next().await].map(|asked| asked.line);
    next.sort();
    assert_eq!(next, ["GET /mcp/demo HTTP/1.1", "POST /mcp/demo HTTP/1.1"]);
}

#[tokio::test]
async fn wire_26_a_refused_initialized_holds_nothing_up() {
    let (mut client, mut daemon) = scripted().await;
    client.send(&initialize(0)).await;
    daemon.expect("initialize").await.json_body("", &agreed(0)).await;
    client.message().await;
    client.send(&notification("notifications/initialized", json!({}))).await;
    daemon.expect("notifications/initialized").await.status(503, "", "").await;
    client.ask(1, "ping", json!({})).await;
    daemon.expect("ping").await.done().await;
    assert_eq!(client.message().await["id"], 1);
}

#[tokio::test]
async fn wire_39_a_notification_waits_for_nothing_and_its_answer_is_not_passed_on() {
    let (mut client, mut daemon) = in_session().await;
    let json = "content-type: application/json\r\n";
    for (status, fields, body) in [(202, "", ""), (200, "", ""), (200, json, "null"), (204, "", ""), (503, json, "{}")]
    {
        client.send(&notification("notifications/progress", json!({"progressToken": 1, "progress": 1}))).await;
        let told = daemon.expect("notifications/progress").await;
        match status {
            204 => told.say("HTTP/1.1 204 No Content\r\n\r\n").await,
            _ => told.status(status, fields, body).await,
        }
    }
    assert!(client.is_silent().await);
    client.ask(1, "ping", json!({})).await;
    daemon.expect("ping").await.done().await;
    assert_eq!(client.message().await["id"], 1);
}

#[tokio::test]
async fn wire_40_and_45_what_is_no_answer_is_an_error() {
    let (mut client, mut daemon) = in_session().await;
    let json = "content-type: application/json\r\n";
    for (status, fields, body, error) in [
        (202, "", "", "no_answer"),
        (200, "", "", "malformed_answer"),
        (200, json, "", "malformed_answer"),
        (200, json, "null", "malformed_answer"),
        (200, json, "{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}", "malformed_answer"),
        (200, json, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{", "malformed_answer"),
        (200, "content-type: text/html\r\n", "<html>", "malformed_answer"),
        (200, "content-type: application/json\r\ncontent-encoding: gzip\r\n", "x", "malformed_answer"),
        (404, "content-type: text/plain\r\n", "not here", "http_status"),
        (401, json, "{\"error\":\"invalid_token\"}", "http_status"),
        (502, "", "", "http_status"),
        (307, "location: http://elsewhere.example/mcp\r\n", "", "http_status"),
    ] {
        client.ask(1, "tools/list", json!({})).await;
        daemon.expect("tools/list").await.status(status, fields, body).await;
        let message = client.message().await;
        assert_eq!(ours(&message, json!(1))["error"], error, "{status} {body}");
        assert!(!message.to_string().contains("elsewhere"), "{message}");
    }
    assert!(daemon.is_left_alone().await, "wire 65: a redirect leads nowhere");
}

#[tokio::test]
async fn wire_46_a_message_passes_at_any_status() {
    let (mut client, mut daemon) = in_session().await;
    let json = "Content-Type: APPLICATION/JSON; charset=utf-8\r\n";
    for status in [400, 404, 500, 503] {
        client.ask(1, "x", json!({})).await;
        let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no such method"}}"#;
        daemon.expect("x").await.status(status, json, error).await;
        assert_eq!(client.line().await, error);
        // Servers that do not know the session leave the id out.
        client.ask(2, "x", json!({})).await;
        let error = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no session"}}"#;
        daemon.expect("x").await.status(status, json, error).await;
        let message = client.message().await;
        assert_eq!((&message["id"], &message["error"]["code"]), (&json!(2), &json!(-32000)), "{message}");
    }
}

#[tokio::test]
async fn wire_41_and_42_requests_of_the_server_go_down_and_answers_up_before_initialize_is_answered() {
    let (mut client, mut daemon) = scripted().await;
    client.send(&initialize(0)).await;
    let hello = daemon.expect("initialize").await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nmcp-session-id: s-1\r\n";
    hello.say(format!("{head}transfer-encoding: chunked\r\n\r\n")).await;
    hello.event(&request(0, "ping", json!({}))).await;
    assert_eq!(client.message().await["method"], "ping");
    client.send(&result(&json!(0))).await;
    let response = daemon.expect("a response").await;
    assert_eq!(response.field("mcp-session-id"), Some("s-1"));
    response.accepted().await;
    hello.chunk(format!("data: {}\n\n", agreed(0))).await;
    hello.end().await;
    assert_eq!(client.message().await["result"]["protocolVersion"], "2025-06-18");
    assert!(client.is_silent().await, "wire 41: the client's answer does not come back");
}

#[tokio::test]
async fn wire_55_56_57_and_60_the_fields_of_the_stateless_wire_come_from_the_body() {
    let (mut client, mut daemon) = scripted_with(&["--header", "X-Tenant= blue "]).await;
    for (method, params, name) in [
        ("tools/call", json!({"name": "add"}), Some("add")),
        ("resources/read", json!({"uri": "file:///a", "name": "no"}), Some("file:///a")),
        ("prompts/get", json!({"name": "sp\u{e4}t"}), Some("=?base64?c3DDpHQ=?=")),
        ("tools/call", json!({"name": "=?base64?YQ==?="}), Some("=?base64?PT9iYXNlNjQ/WVE9PT89?=")),
        ("tools/list", json!({}), None),
    ] {
        client.send(&stateless(1, method, params)).await;
        let asked = daemon.expect(method).await;
        assert_eq!(asked.field("mcp-protocol-version"), Some("2026-07-28"));
        assert_eq!((asked.field("mcp-method"), asked.field("mcp-name")), (Some(method), name));
        assert_eq!((asked.field("mcp-session-id"), asked.field("x-tenant")), (None, Some("blue")));
        asked.done().await;
        client.message().await;
    }
    let long = "x".repeat(1024 * 1024);
    client.send(&stateless(2, "tools/call", json!({"name": long}))).await;
    assert_eq!(ours(&client.message().await, json!(2))["error"], "too_long");
    client
        .send(&notification(
            "notifications/x",
            json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}),
        ))
        .await;
    assert!(daemon.is_left_alone().await, "wire 67: this wire has no notifications over HTTP");
}
