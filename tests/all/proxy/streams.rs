//! Large bodies, event streams, disconnects in both directions.

use std::time::Duration;

use support::memory::memory;
use tokio::io::AsyncWriteExt;

use super::{World, call, post};

const GET: &str = "GET /mcp/raw HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

const LARGE: usize = 100 * 1024 * 1024;

#[tokio::test]
async fn a_large_body_passes_in_both_directions_with_little_memory() {
    let world = World::new().await;
    let before = memory(world.daemon.pid(), "RssAnon");
    let head = post("/mcp/raw", "", "").replace("length: 0", &format!("length: {LARGE}"));
    let mut client = world.send(&head).await;
    let piece = vec![b'x'; 1024 * 1024];
    let upload = async {
        for _ in 0..LARGE / piece.len() {
            client.stream.write_all(&piece).await.expect("it reads");
        }
    };
    let server = async {
        let mut server = world.server.accept().await;
        assert_eq!(server.head().await.all("content-length"), [LARGE.to_string()]);
        server.skip(LARGE).await;
        server
    };
    let ((), mut server) = tokio::join!(upload, server);
    let download = async {
        server.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
        for _ in 0..LARGE / piece.len() {
            server.say(&piece).await;
        }
    };
    let reader = async {
        client.until(b"\r\n\r\n").await;
        let mut read = client.read.len();
        while read < LARGE {
            client.read.clear();
            read += client.more().await;
        }
        read
    };
    let ((), read) = tokio::join!(download, reader);
    assert_eq!(read, LARGE);
    let grown = memory(world.daemon.pid(), "RssAnon").saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more than before");
}

#[tokio::test]
async fn wire_34_each_event_passes_at_once() {
    let world = World::new().await;
    let mut client = world.send(&post("/mcp/raw", "", &call("1", "tools/call"))).await;
    let mut server = world.server.accept().await;
    server.head().await;
    server.say(STREAM).await;
    client.until(b"\r\n\r\n").await;
    for number in 0..3 {
        // In however many parts it comes.
        server.say(chunk(&format!("id: {number}\r\ndata: "))).await;
        server.say(chunk("{}\r\n\r\n")).await;
        client.until(format!("id: {number}\r\ndata: {{}}\r\n\r\n").as_bytes()).await;
    }
}

#[tokio::test]
async fn wire_53_a_client_that_goes_ends_the_servers_stream_within_a_second() {
    let world = World::new().await;
    for request in [GET.to_owned(), post("/mcp/raw", "", &call("1", "tools/call"))] {
        let client = world.send(&request).await;
        let mut server = world.server.accept().await;
        server.head().await;
        drop(client);
        assert!(server.is_closed(SECOND).await, "before the answer: {request}");
        let mut client = world.send(&request).await;
        let mut server = world.server.accept().await;
        server.head().await;
        server.say(STREAM).await;
        client.until(b"\r\n\r\n").await;
        drop(client);
        assert!(server.is_closed(SECOND).await, "within the answer: {request}");
    }
}

#[tokio::test]
async fn wire_68_a_client_that_goes_with_unread_data_ends_the_servers_stream_too() {
    let world = World::new().await;
    let client = world.send(GET).await;
    let mut server = world.server.accept().await;
    server.head().await;
    server.say(STREAM).await;
    server.say(chunk("data: unread\n\n")).await;
    client.stream.readable().await.expect("something is there");
    drop(client);
    assert!(server.is_closed(SECOND).await);
}

#[tokio::test]
async fn a_client_that_goes_while_it_sends_ends_the_request_at_the_server() {
    let world = World::new().await;
    let head = post("/mcp/raw", "", "").replace("length: 0", &format!("length: {LARGE}"));
    let mut client = world.send(&head).await;
    client.stream.write_all(&vec![b'x'; 2 * 1024 * 1024]).await.expect("it reads");
    let mut server = world.server.accept().await;
    server.head().await;
    server.skip(1024 * 1024).await;
    drop(client);
    assert!(server.is_closed(SECOND).await);
}

#[tokio::test]
async fn wire_33_a_stream_that_breaks_before_its_answer_ends_with_our_error() {
    let world = World::new().await;
    let mut client = world.send(&post("/mcp/raw", "", &call("1.0", "tools/call"))).await;
    let mut server = world.server.accept().await;
    server.head().await;
    server.say(STREAM).await;
    server.say(chunk("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\ndata: {\"half")).await;
    client.until(b"progress\"}\n\n").await;
    drop(server);
    let rest = String::from_utf8(client.until(b"\r\n0\r\n\r\n").await).expect("UTF-8");
    let last = rest.rsplit("data: ").next().unwrap_or_default();
    let error: serde_json::Value = serde_json::from_str(last.lines().next().unwrap_or_default()).expect("JSON");
    assert!(last.contains("\"id\":1.0,"), "{last}");
    assert_eq!(error["error"]["code"], -31080, "{rest}");
    assert!(!rest.contains("half"), "half an event is none: {rest}");
}

#[tokio::test]
async fn a_stream_that_breaks_after_its_answer_ends_cleanly() {
    let world = World::new().await;
    for id in ["", "id: 7\n"] {
        let said = &*format!("{id}data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{}}}}\n\n");
        let mut client = world.send(&post("/mcp/raw", "", &call("1", "tools/list"))).await;
        let mut server = world.server.accept().await;
        server.head().await;
        server.say(STREAM).await;
        server.say(chunk(said)).await;
        client.until(b"\n\n").await;
        drop(server);
        let rest = client.until(b"0\r\n\r\n").await;
        assert!(!String::from_utf8_lossy(&rest).contains("31080"), "{said}");
    }
}

#[tokio::test]
async fn an_answer_of_known_length_that_breaks_is_cut_and_not_completed() {
    let world = World::new().await;
    let mut client = world.send(&post("/mcp/raw", "", &call("1", "tools/list"))).await;
    let mut server = world.server.accept().await;
    server.head().await;
    server.say("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\nhalf").await;
    client.until(b"\r\n\r\n").await;
    drop(server);
    assert_eq!(client.more().await, 0);
}

#[tokio::test]
async fn when_the_daemon_ends_its_event_streams_end_at_once() {
    let world = World::new().await;
    let mut client = world.send(GET).await;
    let mut server = world.server.accept().await;
    server.head().await;
    server.say(STREAM).await;
    server.say(chunk("data: 1\n\n")).await;
    client.until(b"data: 1\n\n").await;
    let World { daemon, .. } = world;
    let (output, _) = tokio::join!(daemon.stop(), client.until(b"0\r\n\r\n"));
    output.expect_code(0);
}
