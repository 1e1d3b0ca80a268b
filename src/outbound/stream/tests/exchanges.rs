//! What servers may do wrong, and what they may do early.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncRead;

use super::*;

fn broken(lost: Result<Response<Download>, Lost>) -> (String, Sent) {
    let lost = lost.map(drop).expect_err("no answer");
    assert!(lost.error.is_temporary(), "{:?}", lost.error);
    (lost.error.to_string(), lost.sent)
}

/// Only a connection that ends may have a better answer the next time.
#[tokio::test(start_paused = true)]
async fn a_malformed_answer_is_never_guessed_at_and_is_no_lost_one() {
    let length = "gives no valid answer: its header does not say how long its answer is";
    let no_http = "gives no valid answer: its answer is not HTTP/1.1";
    let cut = "breaks off: the connection ends before the answer does";
    for (answer, words) in [
        ("SSH-2.0-OpenSSH_9\r\n", no_http),
        ("HTTP/1.1 200 OK\r\na : b\r\n\r\n", no_http),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok", length),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok", length),
        ("HTTP/1.1 101 x\r\nupgrade: y\r\n\r\n", "gives no valid answer: it switches to another protocol, unasked"),
        ("", cut),
        ("HTTP/1.1 200 OK\r\n", cut),
    ] {
        let (pipes, mut servers) = Pipes::new(1);
        let (client, mut server) = (pipes.client(), servers.remove(0));
        let (lost, ()) = tokio::join!(client.send(post(whole(b"{}"))), async {
            until(&mut server, "{}").await;
            says(&mut server, answer).await;
            drop(server);
        });
        let lost = lost.map(drop).expect_err("no answer");
        assert_eq!(lost.error.to_string(), format!("mcp.example.com {words}"), "{answer:?}");
        assert_eq!((lost.error.is_temporary(), lost.sent), (words == cut, Sent::Perhaps), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_ends_where_it_says_and_else_breaks() {
    for (fields, body, whole) in [
        ("content-length: 4", "body", Some("body")),
        ("content-length: 5", "body", None),
        ("transfer-encoding: chunked", "4\r\nbody\r\n0\r\n\r\n", Some("body")),
        ("transfer-encoding: chunked", "4\r\nbody\r\n0\r\n", None),
        ("transfer-encoding: chunked", "4\r\nbody\r\nx\r\n", None),
        ("x: y", "body", Some("body")),
    ] {
        let (pipes, mut servers) = Pipes::new(1);
        let (client, mut server) = (pipes.client(), servers.remove(0));
        let (answer, ()) = tokio::join!(client.send(get()), async {
            until(&mut server, "\r\n\r\n").await;
            says(&mut server, &format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}")).await;
            drop(server);
        });
        let mut body = answer.expect("an answer").into_body();
        let mut text = Vec::new();
        let outcome = loop {
            match body.frame().await {
                Some(Ok(frame)) => text.extend_from_slice(&frame.into_data().expect("no trailers")),
                Some(Err(error)) => break Err(error.kind()),
                None => break Ok(()),
            }
        };
        assert_eq!(text, b"body", "what came has passed");
        assert_eq!(outcome, whole.map(drop).ok_or(io::ErrorKind::ConnectionAborted), "{fields}");
        assert_eq!(body.is_end_stream(), whole.is_some(), "a break is no end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_length_is_known_before_and_the_end_as_soon_as_it_arrived() {
    for (method, answer, left, end) in [
        (Method::GET, "200 OK\r\ncontent-length: 2\r\n\r\nok", Some(2), true),
        (Method::GET, "200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", None, true),
        (Method::GET, "200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", None, false),
        (Method::GET, "200 OK\r\n\r\nok", None, false),
        (Method::HEAD, "200 OK\r\ncontent-length: 2\r\n\r\n", Some(0), true),
        (Method::GET, "304 x\r\ncontent-length: 2\r\n\r\n", Some(0), true),
    ] {
        let (pipes, mut servers) = Pipes::new(1);
        let (client, server) = (pipes.client(), &mut servers[0]);
        let (found, ()) = tokio::join!(client.send(asked(&method)), async {
            until(server, "\r\n\r\n").await;
            says(server, &format!("HTTP/1.1 {answer}")).await;
        });
        let mut body = found.expect("an answer").into_body();
        assert_eq!(body.size_hint().exact(), left, "{answer}");
        if left != Some(0) {
            assert!(!body.is_end_stream());
            assert_eq!(body.frame().await.expect("a piece").expect("good").into_data().expect("data"), "ok");
        }
        assert_eq!(body.is_end_stream(), end, "{answer}");
    }
}

/// After each of these the next exchange needs a new connection, and the old one is closed.
#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_only_after_an_answer_that_leaves_nothing_open() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
    ] {
        let (pipes, mut servers) = Pipes::new(2);
        let client = pipes.client();
        let (found, ()) = tokio::join!(client.send(get()), async {
            until(&mut servers[0], "\r\n\r\n").await;
            says(&mut servers[0], answer).await;
        });
        assert_eq!(found.expect("an answer").into_body().collect().await.expect("whole").to_bytes(), "ok");
        assert!(is_closed(&mut servers[0]).await, "{answer:?}");
        exchange(&client, get(), &mut servers[1]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_unasked_on_a_kept_connection_spoils_it() {
    let (pipes, mut servers) = Pipes::new(2);
    let client = pipes.client();
    exchange(&client, get(), &mut servers[0]).await;
    says(&mut servers[0], "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n").await;
    exchange(&client, post(whole(b"")), &mut servers[1]).await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_goes_on_after_an_early_answer() {
    let (pipes, mut servers) = Pipes::new(1);
    let (client, server) = (pipes.client(), &mut servers[0]);
    let (pen, body) = written();
    let (answer, ()) = tokio::join!(client.send(post(body)), async {
        until(server, "\r\n\r\n").await;
        says(server, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    });
    let mut body = answer.expect("an answer").into_body();
    pen.send("late".into()).expect("it is read");
    drop(pen);
    let (piece, ()) = tokio::join!(body.frame(), async {
        until(server, "4\r\nlate\r\n0\r\n\r\n").await;
        says(server, "2\r\nok\r\n0\r\n\r\n").await;
    });
    assert_eq!(piece.expect("a piece").expect("good").into_data().expect("data"), "ok");
    // All of it was taken, so the connection is as good as new.
    exchange(&client, get(), server).await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_waits_for_a_server_that_does_not_read() {
    let (pipes, mut servers) = Pipes::new(1);
    let (client, server) = (pipes.client(), &mut servers[0]);
    let asked = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&asked);
    let pieces = futures_util::stream::iter(0..1_000).map(move |_| {
        *counted.lock().expect("no test panics while it is held") += 1;
        Ok(Frame::data(Bytes::from_static(&[0; 4_096])))
    });
    let sent = tokio::time::timeout(Duration::from_secs(5), client.send(post(Box::pin(StreamBody::new(pieces)))));
    assert!(sent.await.is_err());
    assert!(*asked.lock().expect("no test panics while it is held") < 20);
    drop(server.read_u8().await);
}

#[tokio::test(start_paused = true)]
async fn a_broken_upload_ends_its_exchange_before_and_behind_the_head() {
    let broken_later = |wait: u64| -> Upload {
        let broken = futures_util::stream::once(async move {
            tokio::time::sleep(Duration::from_secs(wait)).await;
            Err(io::Error::other("the client is gone"))
        });
        Box::pin(StreamBody::new(broken))
    };
    let (pipes, mut servers) = Pipes::new(4);
    let client = pipes.client();
    let lost = broken(client.send(post(broken_later(0))).await);
    assert_eq!(lost, ("the request's own body broke off: the client is gone".to_owned(), Sent::Nothing));
    let lost = broken(client.send(post(broken_later(1))).await);
    assert_eq!(lost, ("the request's own body broke off: the client is gone".to_owned(), Sent::Perhaps));
    let server = &mut servers[2];
    let (answer, ()) = tokio::join!(client.send(post(broken_later(1))), async {
        until(server, "\r\n\r\n").await;
        says(server, "HTTP/1.1 200 OK\r\n\r\n").await;
    });
    assert!(answer.expect("an answer").into_body().collect().await.is_err());
    assert!(is_closed(server).await);
    // It says nothing about the server: its kept connections are as good as before.
    let server = &mut servers[3];
    exchange(&client, get(), server).await;
    let (lost, _) = tokio::join!(client.send(post(broken_later(1))), until(server, "\r\n\r\n"));
    assert_eq!(broken(lost).1, Sent::Perhaps);
    let url = get().head.url;
    assert!(client.trust.may_use_kept(&url[..Position::AfterPort], true));
}

/// In TLS 1.3 a server refuses the client's certificate after the client has written.
#[tokio::test(start_paused = true)]
async fn a_request_that_was_written_into_a_refused_handshake_is_unsent() {
    struct Refuses(bool);
    impl AsyncRead for Refuses {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if std::mem::replace(&mut self.0, true) {
                let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, alert)));
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }
    let client = Pipes::default().client();
    keep(&client, tokio::io::join(Refuses(false), tokio::io::sink()));
    let lost = client.send(post(whole(b"{}"))).await.map(drop).expect_err("refused");
    assert!(matches!(lost.error, Error::OurCertificate { .. }) && lost.sent == Sent::Nothing, "{lost:?}");
}

/// A server may refuse a large request before it has read it.
#[tokio::test(start_paused = true)]
async fn a_server_that_reads_no_further_is_heard_all_the_same() {
    let (pipes, mut servers) = Pipes::new(1);
    let (client, mut server) = (pipes.client(), servers.remove(0));
    let large: &'static [u8] = vec![b'x'; 1024 * 1024].leak();
    let (answer, ()) = tokio::join!(client.send(post(whole(large))), async {
        until(&mut server, "\r\n\r\n").await;
        says(&mut server, "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await;
        drop(server);
    });
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 413);
    assert_eq!(answer.into_body().collect().await.expect("whole").to_bytes(), "no");
}

/// A pipe whose server takes no more from some moment on, which nobody can see before.
struct Closing {
    pipe: DuplexStream,
    is_closed: Arc<Mutex<bool>>,
}

impl AsyncRead for Closing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(context, room)
    }
}

impl tokio::io::AsyncWrite for Closing {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if *self.is_closed.lock().expect("no test panics while it is held") {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.pipe).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Puts a connection of this kind into the pool.
fn keep_closing(client: &Http<Pipes>) -> (DuplexStream, Arc<Mutex<bool>>) {
    let ((pipe, server), is_closed) = (tokio::io::duplex(1024), Arc::default());
    keep(client, Closing { pipe, is_closed: Arc::clone(&is_closed) });
    (server, is_closed)
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_kept_connection_does_not_take_goes_over_another_one() {
    let (pipes, mut servers) = Pipes::new(1);
    let client = pipes.client();
    let (mut server, is_closed) = keep_closing(&client);
    exchange(&client, get(), &mut server).await;
    *is_closed.lock().expect("no test panics while it is held") = true;
    exchange(&client, post(whole(b"")), &mut servers[0]).await;
}

/// The reason for a refusal may come a little later than the refusal, but it need not come at all.
#[tokio::test(start_paused = true)]
async fn a_refusal_waits_for_its_reason_for_a_second() {
    for reason in [None, Some("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")] {
        let client = Pipes::default().client();
        let (mut server, is_closed) = keep_closing(&client);
        let (pen, body) = written();
        let (answer, begun) = tokio::join!(client.send(post(body)), async {
            until(&mut server, "\r\n\r\n").await;
            *is_closed.lock().expect("no test panics while it is held") = true;
            pen.send("more".into()).expect("it is read");
            let begun = Instant::now();
            tokio::time::sleep(Duration::from_millis(500)).await;
            if let Some(reason) = reason {
                says(&mut server, reason).await;
            }
            begun
        });
        if reason.is_some() {
            assert_eq!(answer.expect("an answer").status(), 413);
        } else {
            assert_eq!(broken(answer), ("mcp.example.com breaks off: broken pipe".to_owned(), Sent::Perhaps));
            assert_eq!(begun.elapsed(), Duration::from_secs(1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_exchange_of_a_kept_connection_has_a_limit_of_its_own() {
    let (pipes, mut servers) = Pipes::new(1);
    let (client, server) = (pipes.client(), &mut servers[0]);
    for (limit, pause) in [(60, 3), (5, 3), (60, 50), (3_600, 3_000)] {
        let asked = Exchange { until: within(limit), ..get() };
        let (answer, ()) = tokio::join!(client.send(asked), async {
            until(server, "\r\n\r\n").await;
            tokio::time::sleep(Duration::from_secs(pause)).await;
            says(server, OK).await;
        });
        answer.expect("within its limit").into_body().collect().await.expect("whole");
    }
    let begun = Instant::now();
    let moved = AtomicU64::new(7);
    let at = || begun + Duration::from_secs(moved.load(Ordering::Relaxed));
    let asked = Exchange { until: (&at, Duration::from_secs(7)), ..get() };
    let (lost, _) = tokio::join!(client.send(asked), async {
        until(server, "\r\n\r\n").await;
        // A byte passes, and so does another one just before the end.
        for (pause, later) in [(3, 10), (6, 16)] {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            moved.store(later, Ordering::Relaxed);
        }
    });
    let lost = lost.map(drop).expect_err("too late");
    assert!(matches!(lost.error, Error::Timeout { .. }) && lost.sent == Sent::Perhaps, "{lost:?}");
    assert_eq!(begun.elapsed(), Duration::from_secs(16));
}
