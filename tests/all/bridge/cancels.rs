//! Cancellation, and the end of the client.

use nix::sys::signal::Signal;

use super::*;

fn cancelled(id: Value) -> Value {
    notification("notifications/cancelled", json!({"requestId": id, "reason": "no more"}))
}

#[tokio::test]
async fn wire_48_and_51_on_the_2025_wire_the_notification_is_sent_at_once() {
    let (mut client, mut daemon) = in_session().await;
    client.ask(1, "tools/call", json!({"name": "slow"})).await;
    let call = daemon.expect("tools/call").await;
    client.send(&cancelled(json!(1))).await;
    let told = daemon.expect("notifications/cancelled").await;
    assert_eq!(told.json(), cancelled(json!(1)), "wire 51: the id is unchanged");
    assert_eq!(told.field("mcp-session-id"), Some("s-1"));
    told.accepted().await;
    // The connection is not closed to say it, and a late answer is dropped.
    call.done().await;
    assert!(client.is_silent().await);
    client.ask(2, "ping", json!({})).await;
    daemon.expect("ping").await.done().await;
    assert_eq!(client.message().await["id"], 2);
}

#[tokio::test]
async fn wire_51_a_cancellation_does_not_wait_for_calls_that_fill_every_place() {
    let (mut client, mut daemon) = in_session().await;
    for id in 1..=200 {
        client.ask(id, "tools/call", json!({"name": "slow"})).await;
    }
    let mut calls = Vec::new();
    while calls.len() < 128 {
        calls.push(daemon.expect("tools/call").await);
    }
    assert!(daemon.is_left_alone().await, "a place for each, and no more");
    client.send(&cancelled(calls[0].json()["id"].clone())).await;
    daemon.expect("notifications/cancelled").await.accepted().await;
    calls[1].done().await;
    assert_eq!(client.message().await["id"], calls[1].json()["id"]);
    daemon.expect("tools/call").await;
}

#[tokio::test]
async fn wire_49_and_50_on_the_2026_wire_the_stream_is_closed() {
    let (mut client, mut daemon) = scripted().await;
    client.send(&stateless(1, "tools/call", json!({"name": "slow"}))).await;
    let waits = daemon.expect("tools/call").await;
    client.send(&stateless(2, "tools/call", json!({"name": "slow"}))).await;
    let streams = daemon.expect("tools/call").await;
    streams.stream().await;
    streams.event(&notification("notifications/message", json!({}))).await;
    client.message().await;
    for (id, asked) in [(1, &waits), (2, &streams)] {
        client.send(&cancelled(json!(id))).await;
        assert!(asked.is_closed().await, "{id}");
    }
    assert!(daemon.is_left_alone().await && client.is_silent().await);
}

#[tokio::test]
async fn wire_52_initialize_is_never_cancelled_and_an_unknown_request_is_nobodys() {
    let (mut client, mut daemon) = scripted().await;
    client.send(&initialize(0)).await;
    let hello = daemon.expect("initialize").await;
    for id in [json!(0), json!(7), json!("0"), Value::Null, json!({})] {
        client.send(&cancelled(id)).await;
    }
    assert!(daemon.is_left_alone().await);
    hello.json_body("", &agreed(0)).await;
    assert_eq!(client.message().await["id"], 0);
}

#[tokio::test]
async fn wire_9_and_54_at_the_end_of_its_input_it_cancels_all_ends_the_session_and_leaves() {
    let (mut client, mut daemon) = in_session().await;
    client.ask(1, "tools/call", json!({"name": "slow"})).await;
    let call = daemon.expect("tools/call").await;
    client.send(&stateless(2, "tools/call", json!({"name": "slow"}))).await;
    let stateless = daemon.expect("tools/call").await;
    drop(client.stdin.take());
    let told = daemon.expect("notifications/cancelled").await;
    assert_eq!(told.json()["params"]["requestId"], 1);
    // What comes now is not answered any more.
    call.done().await;
    told.accepted().await;
    let delete = daemon.expect("DELETE").await;
    assert_eq!(delete.field("mcp-session-id"), Some("s-1"));
    delete.status(405, "", "").await;
    assert!(stateless.is_closed().await);
    client.ended().await.expect_code(0);
}

#[tokio::test]
async fn wire_9_and_10_it_leaves_in_time_although_nobody_answers() {
    for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGINT), Some(Signal::SIGHUP)] {
        let (mut client, mut daemon) = in_session().await;
        client.ask(1, "tools/call", json!({"name": "slow"})).await;
        let _call = daemon.expect("tools/call").await;
        match signal {
            None => drop(client.stdin.take()),
            Some(signal) => client.running.signal(signal),
        }
        daemon.expect("notifications/cancelled").await;
        daemon.expect("DELETE").await;
        client.ended().await.expect_code(0);
    }
}

#[tokio::test]
async fn wire_11_the_end_of_its_parent_is_noticed_without_an_end_of_its_input() {
    let world = Safeconduct::new(binary());
    let mut daemon = RawDaemon::start(&world.socket());
    let mut client = Client::of(below_a_shell(&world));
    begin(&mut client, &mut daemon).await.status(405, "", "").await;
    client.ask(1, "tools/call", json!({"name": "slow"})).await;
    let call = daemon.expect("tools/call").await;
    client.running.signal(Signal::SIGKILL);
    daemon.expect("notifications/cancelled").await.accepted().await;
    daemon.expect("DELETE").await.status(200, "", "").await;
    assert!(call.is_closed().await, "it has ended");
    assert!(client.stdin.is_some(), "its input is open still");
}

#[tokio::test]
async fn wire_11_the_end_of_the_thread_that_started_it_is_no_end_of_its_parent() {
    let world = Safeconduct::new(binary());
    let mut daemon = RawDaemon::start(&world.socket());
    let runtime = tokio::runtime::Handle::current();
    let (said, started) = std::sync::mpsc::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _entered = runtime.enter();
        said.send(Client::start(&world, &["demo"])).expect("it is waited for");
        ends.recv().expect("it is told");
    });
    let mut client = started.recv().expect("it starts");
    client.ask(1, "ping", json!({})).await;
    daemon.expect("ping").await.done().await;
    assert_eq!(client.message().await["id"], 1);
    end.send(()).expect("it waits");
    thread.join().expect("it ends");
    client.ask(2, "ping", json!({})).await;
    daemon.expect("ping").await.done().await;
    assert_eq!(client.message().await["id"], 2);
    assert!(!client.running.has_ended());
}

#[tokio::test]
async fn wire_8_a_reader_that_is_gone_ends_it_at_once() {
    let world = Safeconduct::new(binary());
    let mut daemon = RawDaemon::start(&world.socket());
    let mut child = unread(&world);
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(format!("{}\n", request(1, "ping", json!({}))).as_bytes()).await.expect("it reads");
    daemon.expect("ping").await.done().await;
    let status = tokio::time::timeout(LIMIT, child.wait()).await.expect("it ends").expect("a child");
    assert_eq!(status.code(), Some(75), "an end, and no signal");
}
