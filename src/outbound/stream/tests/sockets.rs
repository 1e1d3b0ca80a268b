//! What only a real socket does: a write succeeds after the other side has closed, and what happens is seen when the runtime looks.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::pin;

use tokio::task::coop;

use super::*;

/// Both ends of a connection.
async fn connected() -> (tokio::net::TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let near = tokio::net::TcpStream::connect(listener.local_addr().expect("it listens")).await.expect("it listens");
    let (far, _) = listener.accept().expect("it was connected");
    far.set_read_timeout(Some(Duration::from_secs(5))).expect("it is longer than nothing");
    (near, far)
}

#[tokio::test]
async fn an_early_answer_is_heard_although_the_next_write_fails() {
    let (near, mut far) = connected().await;
    let client = Pipes::default().client();
    keep(&client, near);
    let (pen, body) = written();
    pen.send("one".into()).expect("it is read");
    let mut sent = pin!(client.send(post(body)));
    std::future::poll_fn(|context| {
        assert!(sent.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    // The rest of the request lies unread, so closing resets the connection. The runtime does not look before the next write.
    far.read_exact(&mut [0; 16]).expect("it was written");
    far.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").expect("open");
    drop(far);
    pen.send("two".into()).expect("it is read");
    let answer = sent.await.expect("an answer");
    assert_eq!(answer.status(), 413);
    assert_eq!(answer.into_body().collect().await.expect("whole").to_bytes(), "no");
}

/// After many other reads the runtime lets a task read no more, which looks like a connection that is open and quiet.
#[tokio::test]
async fn a_dead_connection_is_found_dead_by_a_busy_task_too() {
    let (pipes, mut servers) = Pipes::new(1);
    let client = pipes.client();
    let (near, far) = connected().await;
    drop(far);
    near.readable().await.expect("it has ended");
    keep(&client, near);
    while coop::has_budget_remaining() {
        coop::consume_budget().await;
    }
    exchange(&client, post(whole(b"")), &mut servers[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_that_speaks_first_gets_no_request() {
    let (pipes, mut servers) = Pipes::new(1);
    says(&mut servers[0], OK).await;
    let lost = pipes.client().send(post(whole(b"{}"))).await.map(drop).expect_err("nothing was asked");
    assert_eq!(lost.error.to_string(), "mcp.example.com breaks off: it speaks before it is asked");
    assert_eq!(lost.sent, Sent::Nothing);
}
