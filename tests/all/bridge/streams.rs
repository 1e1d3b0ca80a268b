//! Event streams, what the server sends by itself, and streams that break.

use super::*;

#[tokio::test]
async fn wire_27_to_29_and_36_events_become_lines_whatever_their_form() {
    let (mut client, mut daemon) = in_session().await;
    client.ask(1, "tools/call", json!({"name": "a"})).await;
    let asked = daemon.expect("tools/call").await;
    asked.stream().await;
    // A byte order mark, an event with an id and no data, a comment, another name.
    asked.chunk("\u{feff}id: e-1\ndata:\n\n: keep-alive\n\nevent: other\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n").await;
    let progress = |n: u64| notification("notifications/progress", json!({"progressToken": 1, "progress": n}));
    asked.chunk(format!("data: {}\r\n\r", progress(1))).await;
    asked.chunk(format!("\ndata:{}\r\revent: message\ndata: {}\n\n", progress(2), progress(3))).await;
    for n in 1..4 {
        assert_eq!(client.message().await["params"]["progress"], n, "at once, before the answer");
    }
    asked.event(&request(7, "sampling/createMessage", json!({}))).await;
    assert_eq!(client.message().await["method"], "sampling/createMessage");
    client.send(&result(&json!(7))).await;
    daemon.expect("a response").await.accepted().await;
    asked.event(&result(&json!(1))).await;
    assert_eq!(client.message().await["id"], 1);
    // A second answer, and a request that nobody made.
    asked.event(&result(&json!(1))).await;
    asked.event(&result(&json!(99))).await;
    asked.end().await;
    assert!(client.is_silent().await);
}

#[tokio::test]
async fn wire_24_405_is_fine_and_409_keeps_working() {
    for status in [405, 409] {
        let (mut client, mut daemon) = scripted().await;
        let listens = begin(&mut client, &mut daemon).await;
        assert_eq!(listens.field("accept"), Some("text/event-stream"));
        assert_eq!((listens.field("mcp-session-id"), listens.field("last-event-id")), (Some("s-1"), None));
        listens.status(status, "", "").await;
        client.ask(1, "ping", json!({})).await;
        daemon.expect("ping").await.done().await;
        assert_eq!(client.message().await["id"], 1, "{status}");
    }
}

#[tokio::test]
async fn a_call_is_sent_when_the_server_can_ask_back() {
    let (mut client, mut daemon) = scripted().await;
    let listens = begin(&mut client, &mut daemon).await;
    client.ask(1, "tools/call", json!({"name": "a"})).await;
    client.ask(2, "tools/list", json!({})).await;
    daemon.expect("tools/list").await.done().await;
    assert_eq!(client.message().await["id"], 2);
    listens.stream().await;
    let call = daemon.expect("tools/call").await;
    listens.event(&request(7, "elicitation/create", json!({}))).await;
    assert_eq!(client.message().await["method"], "elicitation/create");
    call.done().await;
    assert_eq!(client.message().await["id"], 1);
}

#[tokio::test]
async fn a_stream_whose_head_does_not_come_holds_up_no_call() {
    let (mut client, mut daemon) = scripted().await;
    let _silent = begin(&mut client, &mut daemon).await;
    client.ask(1, "tools/call", json!({"name": "a"})).await;
    daemon.expect("tools/call").await.done().await;
    assert_eq!(client.message().await["id"], 1);
}

#[tokio::test]
async fn wire_30_and_32_the_stream_of_the_server_is_opened_again_where_it_ended() {
    let (mut client, mut daemon) = scripted().await;
    let listens = begin(&mut client, &mut daemon).await;
    listens.stream().await;
    listens
        .chunk("retry: 100\nid: e-7\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n")
        .await;
    assert_eq!(client.message().await["method"], "notifications/tools/list_changed");
    listens.end().await;
    let again = daemon.expect("GET").await;
    assert_eq!((again.field("last-event-id"), again.field("mcp-session-id")), (Some("e-7"), Some("s-1")));
    assert_eq!(again.field("mcp-protocol-version"), Some("2025-06-18"), "wire 23");
    // A server that is away for a moment.
    again.status(503, "", "").await;
    let again = daemon.expect("GET").await;
    again.stream().await;
    again.event(&request(1, "roots/list", json!({}))).await;
    assert_eq!(client.message().await["method"], "roots/list", "wire 42");
}

#[tokio::test]
async fn wire_31_a_permanent_error_ends_it() {
    for status in [400, 404, 405] {
        let (mut client, mut daemon) = scripted().await;
        let listens = begin(&mut client, &mut daemon).await;
        listens.stream().await;
        listens.chunk("retry: 100\nid: e-7\ndata:\n\n").await;
        listens.end().await;
        daemon.expect("GET").await.status(status, "", "").await;
        assert!(daemon.is_left_alone().await, "{status}");
    }
}

#[tokio::test]
async fn wire_33_a_stream_that_ends_before_its_answer_is_resumed_on_the_2025_wire() {
    let (mut client, mut daemon) = in_session().await;
    client.ask(1, "tools/call", json!({"name": "a"})).await;
    let asked = daemon.expect("tools/call").await;
    asked.stream().await;
    asked.chunk("retry: 100\nid: e-1\ndata:\n\n").await;
    asked.end().await;
    // A server may end it as often as it likes.
    for number in 1..8 {
        let resumed = daemon.expect("GET").await;
        assert_eq!(resumed.field("last-event-id"), Some(&*format!("e-{number}")));
        resumed.stream().await;
        resumed.chunk(format!("id: e-{}\ndata:\n\n", number + 1)).await;
        resumed.end().await;
    }
    let resumed = daemon.expect("GET").await;
    resumed.stream().await;
    resumed.event(&result(&json!(1))).await;
    assert_eq!(client.message().await["id"], 1);
}

#[tokio::test]
async fn wire_33_a_stream_that_cannot_be_resumed_is_reported() {
    let (mut client, mut daemon) = in_session().await;
    // Without an event id.
    client.ask(1, "tools/list", json!({})).await;
    let asked = daemon.expect("tools/list").await;
    asked.stream().await;
    asked.chunk("data:\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,").await;
    asked.end().await;
    assert_eq!(ours(&client.message().await, json!(1))["error"], "answer_lost");
    // Where the server does not know the event any more.
    client.ask(2, "tools/list", json!({})).await;
    let asked = daemon.expect("tools/list").await;
    asked.stream().await;
    asked.chunk("retry: 100\nid: e-1\ndata:\n\n").await;
    asked.break_off().await;
    daemon.expect("GET").await.status(400, "", "").await;
    assert_eq!(ours(&client.message().await, json!(2))["error"], "answer_lost");
    // On the wire that has no resumption.
    client.send(&stateless(3, "tools/list", json!({}))).await;
    let asked = daemon.expect("tools/list").await;
    asked.stream().await;
    asked.chunk("retry: 100\nid: e-1\ndata:\n\n").await;
    asked.end().await;
    assert_eq!(ours(&client.message().await, json!(3))["error"], "answer_lost");
    assert!(daemon.is_left_alone().await, "wire 32: no `Last-Event-ID` there");
}

#[tokio::test]
async fn an_event_id_that_could_change_a_head_is_not_sent_back() {
    let (mut client, mut daemon) = scripted().await;
    let listens = begin(&mut client, &mut daemon).await;
    listens.stream().await;
    listens.chunk(format!("retry: 100\nid: {}\ndata:\n\nid: a\u{1}b\ndata:\n\n", "x".repeat(1024 * 1024))).await;
    listens.end().await;
    assert_eq!(daemon.expect("GET").await.field("last-event-id"), None);
}

#[tokio::test]
async fn the_old_transport_is_refused_in_those_words_and_leads_nowhere() {
    let (mut client, mut daemon) = in_session().await;
    client.ask(1, "tools/list", json!({})).await;
    let asked = daemon.expect("tools/list").await;
    asked.stream().await;
    asked.chunk("event: endpoint\ndata: /mcp/other?session=1\n\n").await;
    let message = client.message().await;
    assert_eq!(ours(&message, json!(1))["error"], "old_transport");
    assert!(message["error"]["message"].as_str().expect("a text").contains("2024-11-05"), "{message}");
    assert!(daemon.is_left_alone().await);
}
