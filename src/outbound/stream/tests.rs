//! The streaming client over pipes in memory, on a clock that stands still.

use std::sync::{LazyLock, Mutex};

use futures_util::StreamExt;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::super::connector::Stream;
use super::super::failure::Failure;
use super::super::{HEAD_CAP, KEPT_FOR, Lane};
use super::*;

/// Hands out these ends of pipes, one for each connection. With none left nobody listens.
#[derive(Clone, Default)]
struct Pipes(Arc<Mutex<Vec<DuplexStream>>>);

impl Pipes {
    /// A connector with so many pipes, and the servers' ends in the order of the connections.
    fn new(count: usize) -> (Self, Vec<DuplexStream>) {
        let (near, far) = (0..count).map(|_| tokio::io::duplex(16 * 1024)).unzip::<_, _, Vec<_>, Vec<_>>();
        (Self(Arc::new(Mutex::new(near.into_iter().rev().collect()))), far)
    }

    fn client(self) -> Http<Self> {
        let terms = Terms { outbound: 0, lane: Lane::Ours, certificate: None };
        Http { connector: self, terms, trust: Arc::default(), pool: Arc::default() }
    }
}

impl Connect for Pipes {
    async fn connect(&self, _: &Url) -> Result<Box<dyn Stream>, Failure> {
        let pipe = self.0.lock().expect("no test panics while it is held").pop();
        Ok(Box::new(pipe.ok_or(Failure::NobodyListens(8080))?))
    }
}

fn nothing() -> Upload {
    Box::pin(Empty::new().map_err(|never| match never {}))
}

fn whole(bytes: &'static [u8]) -> Upload {
    Box::pin(Full::new(Bytes::from_static(bytes)).map_err(|never| match never {}))
}

/// A body that is written while it is sent.
fn written() -> (mpsc::UnboundedSender<Bytes>, Upload) {
    let (pen, mut paper) = mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |context| paper.poll_recv(context));
    (pen, Box::pin(StreamBody::new(stream.map(|bytes| Ok(Frame::data(bytes))))))
}

static URL: LazyLock<Url> = LazyLock::new(|| Url::parse("http://mcp.example.com:8080/mcp?a=b").expect("a URL"));
static NO_FIELDS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
static DEMO: LazyLock<Arc<str>> = LazyLock::new(|| "demo".into());
static OTHER: LazyLock<Arc<str>> = LazyLock::new(|| "other".into());

fn post(body: Upload) -> Exchange<'static> {
    Exchange {
        head: RequestHead { method: &Method::POST, url: &URL, headers: &NO_FIELDS, more: &[] },
        body,
        named_by: NamedBy::Us,
        certificate: None,
        server: &DEMO,
        until: within(60),
    }
}

/// So many seconds from now on.
fn within(seconds: u64) -> Until<'static> {
    let lasts = Duration::from_secs(seconds);
    let at = Instant::now() + lasts;
    (Box::leak(Box::new(move || at)), lasts)
}

fn asked(method: &Method) -> Exchange<'_> {
    let post = post(nothing());
    Exchange { head: RequestHead { method, ..post.head }, ..post }
}

fn get() -> Exchange<'static> {
    asked(&Method::GET)
}

/// Reads until the text ends so.
async fn until(server: &mut DuplexStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(server.read_u8().await.unwrap_or_else(|_| panic!("{end:?} never came: {text:?}")));
    }
    String::from_utf8(text).expect("UTF-8")
}

async fn says(server: &mut DuplexStream, text: &str) {
    server.write_all(text.as_bytes()).await.expect("it reads");
}

/// Puts a connection over this stream into the pool.
fn keep(client: &Http<Pipes>, stream: impl Stream + 'static) {
    let like = get();
    let place = client.place(like.head.url, Some(like.server));
    client.pool.keep(Box::new(Connection::new(Key::of(&place), Box::new(stream))));
}

async fn is_closed(server: &mut DuplexStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(1), server.read_to_end(&mut rest)).await.is_ok()
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// One exchange that is read to its end.
async fn exchange(client: &Http<Pipes>, exchange: Exchange<'_>, server: &mut DuplexStream) {
    let answer = async {
        let answer = client.send(exchange).await.expect("an answer");
        assert_eq!(answer.into_body().collect().await.expect("whole").to_bytes(), "ok");
    };
    tokio::join!(answer, async {
        until(server, "\r\n\r\n").await;
        says(server, OK).await;
    });
}

#[tokio::test(start_paused = true)]
async fn both_bodies_pass_while_the_other_is_not_at_its_end() {
    let (pipes, mut servers) = Pipes::new(1);
    let (client, server) = (pipes.client(), &mut servers[0]);
    let (pen, body) = written();
    pen.send("one".into()).expect("it is read");
    let (answer, head) = tokio::join!(client.send(post(body)), async {
        let head = until(server, "3\r\none\r\n").await;
        says(server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nuno\r\n").await;
        head
    });
    assert!(head.starts_with("POST /mcp?a=b HTTP/1.1\r\nhost: mcp.example.com:8080\r\n"), "{head}");
    let mut body = answer.expect("an answer").into_body();
    assert_eq!(body.frame().await.expect("a piece").expect("good").into_data().expect("data"), "uno");
    pen.send("two".into()).expect("it is read");
    let (piece, _) = tokio::join!(body.frame(), async {
        until(server, "3\r\ntwo\r\n").await;
        says(server, "3\r\ndue\r\n").await;
    });
    assert_eq!(piece.expect("a piece").expect("good").into_data().expect("data"), "due");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_dropped_closes_its_connection() {
    let (pipes, mut servers) = Pipes::new(1);
    let (client, server) = (pipes.client(), &mut servers[0]);
    let (answer, ()) = tokio::join!(client.send(get()), async {
        until(server, "\r\n\r\n").await;
        says(server, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
    });
    drop(answer);
    assert!(is_closed(server).await);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_before_its_answer_closes_its_connection() {
    let (pipes, mut servers) = Pipes::new(1);
    let (client, server) = (pipes.client(), &mut servers[0]);
    tokio::select! {
        _ = client.send(post(written().1)) => panic!("nobody answers"),
        () = tokio::time::sleep(Duration::from_secs(5)) => {}
    }
    assert!(is_closed(server).await);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_off_is_an_error_of_the_body_and_no_end() {
    let (pipes, mut servers) = Pipes::new(1);
    let (client, mut server) = (pipes.client(), servers.remove(0));
    let (answer, ()) = tokio::join!(client.send(get()), async {
        until(&mut server, "\r\n\r\n").await;
        says(&mut server, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nuno\r\n").await;
        drop(server);
    });
    let body = answer.expect("an answer").into_body();
    assert_eq!(body.collect().await.expect_err("cut").kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_stops_the_server_that_writes() {
    let (pipes, mut servers) = Pipes::new(1);
    let (client, server) = (pipes.client(), &mut servers[0]);
    let (answer, ()) = tokio::join!(client.send(get()), async {
        until(server, "\r\n\r\n").await;
        says(server, "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").await;
    });
    let _held = answer.expect("an answer");
    let mut taken = 0;
    let flood = async {
        loop {
            taken += server.write(&[0; 4096]).await.expect("open");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), flood).await.expect_err("it has to wait");
    assert!(taken <= 512 * 1024, "{taken} bytes lie in memory");
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again_for_its_own_server_while_it_is_young() {
    let (pipes, mut servers) = Pipes::new(3);
    let client = pipes.client();
    exchange(&client, get(), &mut servers[0]).await;
    tokio::time::sleep(KEPT_FOR).await;
    exchange(&client, get(), &mut servers[0]).await;
    exchange(&client, Exchange { server: &OTHER, ..get() }, &mut servers[1]).await;
    tokio::time::sleep(KEPT_FOR + Duration::from_millis(1)).await;
    exchange(&client, get(), &mut servers[2]).await;
    assert!(is_closed(&mut servers[0]).await);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again_after_an_answer_without_a_body() {
    let (pipes, mut servers) = Pipes::new(1);
    let (client, server) = (pipes.client(), &mut servers[0]);
    for _ in 0..3 {
        let (answer, ()) = tokio::join!(client.send(post(whole(b"{}"))), async {
            until(server, "\r\n\r\n{}").await;
            says(server, "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
        });
        assert_eq!(answer.expect("an answer").status(), 202);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_server_closed_meanwhile_is_not_used() {
    let (pipes, mut servers) = Pipes::new(2);
    let client = pipes.client();
    exchange(&client, get(), &mut servers[0]).await;
    drop(servers.remove(0));
    exchange(&client, post(whole(b"")), &mut servers[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_is_for_one_server_under_the_same_terms() {
    let (pipes, mut servers) = Pipes::new(5);
    let client = pipes.client();
    let under = |terms| {
        let (trust, pool) = (Arc::clone(&client.trust), Arc::clone(&client.pool));
        Http { connector: client.connector.clone(), terms, trust, pool }
    };
    let terms = Terms { certificate: Some(Digest::of(b"old")), ..client.terms };
    let renewed = Terms { certificate: Some(Digest::of(b"new")), ..terms };
    exchange(&under(terms), get(), &mut servers[0]).await;
    // A token that is bound to the new certificate is refused on the old one's connection.
    exchange(&under(renewed), get(), &mut servers[1]).await;
    exchange(&under(renewed), Exchange { server: &OTHER, ..get() }, &mut servers[2]).await;
    exchange(&under(Terms { lane: Lane::Theirs, ..renewed }), get(), &mut servers[3]).await;
    exchange(&under(Terms { outbound: 1, ..renewed }), get(), &mut servers[4]).await;
    exchange(&under(renewed), get(), &mut servers[1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_too_old_is_not_taken_in_the_place_of_a_closed_one() {
    let (pipes, mut servers) = Pipes::new(3);
    let client = pipes.client();
    let [first, second, third] = &mut servers[..] else { unreachable!("three") };
    tokio::join!(exchange(&client, get(), first), async {
        // At the same time, so that it needs a connection of its own.
        let answer = client.send(get());
        let said = async {
            until(second, "\r\n\r\n").await;
            tokio::time::sleep(KEPT_FOR - Duration::from_secs(1)).await;
            says(second, OK).await;
        };
        let (answer, ()) = tokio::join!(answer, said);
        answer.expect("an answer").into_body().collect().await.expect("whole");
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    second.shutdown().await.expect("it is open");
    exchange(&client, get(), third).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_request_was_not_read_is_not_used_again() {
    let (pipes, mut servers) = Pipes::new(1);
    let (client, server) = (pipes.client(), &mut servers[0]);
    let (_pen, body) = written();
    let (answer, ()) = tokio::join!(client.send(post(body)), async {
        until(server, "\r\n\r\n").await;
        says(server, OK).await;
    });
    assert_eq!(answer.expect("an answer").into_body().collect().await.expect("whole").to_bytes(), "ok");
    assert!(is_closed(server).await, "half a request is on it");
}

#[tokio::test(start_paused = true)]
async fn kept_connections_are_closed_when_nobody_needs_them() {
    let (pipes, mut servers) = Pipes::new(1);
    let client = pipes.client();
    exchange(&client, get(), &mut servers[0]).await;
    let tended = tokio::time::timeout(2 * KEPT_FOR, client.pool.tend());
    assert!(tended.await.is_err() && is_closed(&mut servers[0]).await);
}

#[tokio::test(start_paused = true)]
async fn after_its_end_a_pool_keeps_no_connection() {
    let (pipes, mut servers) = Pipes::new(2);
    let client = pipes.client();
    exchange(&client, get(), &mut servers[0]).await;
    client.pool.end();
    assert!(is_closed(&mut servers[0]).await, "it waited for another exchange");
    exchange(&client, get(), &mut servers[1]).await;
    assert!(is_closed(&mut servers[1]).await, "its exchange ended after that");
}

#[tokio::test(start_paused = true)]
async fn a_failure_says_whether_anything_was_sent() {
    let (pipes, _) = Pipes::new(0);
    let lost = pipes.client().send(post(whole(b"{}"))).await.map(drop).expect_err("nobody listens");
    assert_eq!(lost.sent, Sent::Nothing);

    let (pipes, mut servers) = Pipes::new(1);
    let client = pipes.client();
    let (lost, ()) = tokio::join!(client.send(post(whole(b"{}"))), async {
        until(&mut servers[0], "\r\n\r\n{}").await;
        servers.clear();
    });
    let lost = lost.map(drop).expect_err("it breaks off");
    assert!(matches!(lost.error, Error::Broken { .. }) && lost.sent == Sent::Perhaps, "{lost:?}");
}

#[tokio::test(start_paused = true)]
async fn the_head_has_its_limit_and_the_body_has_none() {
    let (pipes, mut servers) = Pipes::new(2);
    let client = pipes.client();
    let limit = Duration::from_secs(60);
    let lost = client.send(get()).await.map(drop).expect_err("nobody answers");
    assert_eq!(lost.error, Error::Timeout { host: "mcp.example.com".to_owned(), limit });
    let server = &mut servers[1];
    let (answer, ()) = tokio::join!(client.send(get()), async {
        until(server, "\r\n\r\n").await;
        says(server, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
    });
    let (body, ()) = tokio::join!(answer.expect("an answer").into_body().collect(), async {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        says(server, "ok").await;
    });
    assert_eq!(body.expect("whole").to_bytes(), "ok");
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_a_body_is_bounded() {
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(9);
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(HEAD_CAP));
    for (head, is_expected) in [
        (interim, (|error| matches!(error, Error::Interim { .. })) as fn(Error) -> bool),
        (large, |error| matches!(error, Error::HeadTooLarge { .. })),
    ] {
        let (pipes, mut servers) = Pipes::new(1);
        let (client, server) = (pipes.client(), &mut servers[0]);
        let (lost, ()) = tokio::join!(client.send(get()), async {
            until(server, "\r\n\r\n").await;
            // The client hangs up in the middle.
            drop(server.write_all(head.as_bytes()).await);
        });
        assert!(is_expected(lost.map(drop).expect_err("too much").error), "{}", &head[..20]);
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_are_dropped_and_a_redirect_is_an_answer_like_any_other() {
    let (pipes, mut servers) = Pipes::new(1);
    let (client, server) = (pipes.client(), &mut servers[0]);
    let (answer, ()) = tokio::join!(client.send(get()), async {
        until(server, "\r\n\r\n").await;
        says(server, "HTTP/1.1 307 Temporary Redirect\r\nlocation: https://evil.example/\r\ntrailer: x\r\n").await;
        says(server, "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nauthorization: x\r\n\r\n").await;
    });
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 307);
    let body = answer.into_body().collect().await.expect("whole");
    assert!(body.trailers().is_none());
    assert_eq!(body.to_bytes(), "ok");
}

mod exchanges;
mod sockets;
