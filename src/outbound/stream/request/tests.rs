//! Requests as they are written, over streams that take as much as they like.

use std::sync::Arc;
use std::task::Waker;

use futures_util::StreamExt;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::HeaderMap;
use url::Url;

use super::*;

/// Takes so many bytes with each write, and all at once if there is no such number. Breaks after so many bytes in all.
#[derive(Default)]
struct Sink {
    each: Option<usize>,
    breaks_after: Option<usize>,
    is_vectored: bool,
    taken: Vec<u8>,
    writes: usize,
    flushed: usize,
}

impl AsyncWrite for Sink {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.breaks_after.is_some_and(|most| self.taken.len() >= most) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let many = bytes.len().min(self.each.unwrap_or(usize::MAX));
        self.taken.extend_from_slice(&bytes[..many]);
        self.writes += 1;
        Poll::Ready(Ok(many))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let some = parts.iter().filter(|part| !part.is_empty()).take(if self.is_vectored { usize::MAX } else { 1 });
        let all: Vec<u8> = some.flat_map(|part| part.iter().copied()).collect();
        self.poll_write(context, &all)
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed = self.taken.len();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A body of these pieces, which says this about its length. `None` in the place of a piece is a failure.
struct Pieces(Vec<Option<&'static str>>, SizeHint);

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> super::super::Polled {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.0.remove(0).ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset));
        Poll::Ready(Some(piece.map(|piece| Frame::data(piece.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        self.1
    }
}

fn nothing() -> Upload {
    Box::pin(Empty::new().map_err(|never| match never {}))
}

fn whole(bytes: &'static str) -> Upload {
    Box::pin(Full::new(Bytes::from_static(bytes.as_bytes())).map_err(|never| match never {}))
}

fn pieces(pieces: &[Option<&'static str>], length: Option<u64>) -> Upload {
    Box::pin(Pieces(pieces.to_vec(), length.map_or_else(SizeHint::new, SizeHint::with_exact)))
}

fn request(method: Method, body: Upload) -> Request {
    let url = Url::parse("https://MCP.example.com:8443/a%20b?c=d#e").expect("a URL");
    let head = RequestHead { method: &method, url: &url, headers: &HeaderMap::new(), more: &[] };
    Request::new(&head, body)
}

fn poll(request: &mut Request, sink: &mut Sink) -> Poll<Result<(), Stopped>> {
    request.poll_write(sink, &mut Context::from_waker(Waker::noop()))
}

/// What is written behind the fields that are always the same.
fn written(mut request: Request, mut sink: Sink) -> (String, Sink) {
    assert!(matches!(poll(&mut request, &mut sink), Poll::Ready(Ok(()))));
    assert_eq!(sink.flushed, sink.taken.len(), "TLS would hold the rest");
    let text = String::from_utf8(sink.taken.clone()).expect("UTF-8");
    let (_, rest) = text.split_once(" /a%20b?c=d HTTP/1.1\r\nhost: mcp.example.com:8443\r\n").expect("the usual start");
    (rest.to_owned(), sink)
}

#[test]
fn a_body_is_framed_by_its_length_or_by_chunks() {
    let three = [Some("a"), Some(""), Some("bc")];
    type Case = (Method, fn() -> Upload, &'static str);
    let table: [Case; 10] = [
        (Method::GET, nothing, "\r\n"),
        (Method::HEAD, nothing, "\r\n"),
        (Method::DELETE, nothing, "\r\n"),
        (Method::POST, nothing, "content-length: 0\r\n\r\n"),
        (Method::PUT, || whole(""), "content-length: 0\r\n\r\n"),
        (Method::POST, || whole("{}"), "content-length: 2\r\n\r\n{}"),
        (Method::DELETE, || whole("0123456789"), "content-length: 10\r\n\r\n0123456789"),
        (Method::POST, || pieces(&[], None), "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        (
            Method::POST,
            || pieces(&[Some("0123456789abcdef")], None),
            "transfer-encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
        ),
        (Method::GET, || pieces(&[Some("a")], None), "transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
    ];
    for (method, body, expected) in table {
        let (text, sink) = written(request(method.clone(), body()), Sink::default());
        assert_eq!(text, expected, "{method}");
        assert_eq!(sink.writes, 1, "head and body leave together");
        assert_eq!(written(request(method, body()), Sink { each: Some(1), ..Sink::default() }).0, expected);
    }
    assert_eq!(
        written(request(Method::POST, pieces(&three, Some(3))), Sink::default()).0,
        "content-length: 3\r\n\r\nabc"
    );
    let chunks = "transfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n";
    assert_eq!(written(request(Method::POST, pieces(&three, None)), Sink::default()).0, chunks);
}

#[test]
fn large_pieces_are_written_from_where_they_are() {
    let large: &'static str = "x".repeat(3 * TOGETHER).leak();
    for (each, is_vectored) in [(None, true), (None, false), (Some(1_000), true), (Some(7), false)] {
        let sink = || Sink { each, is_vectored, ..Sink::default() };
        let body = pieces(&[Some("a"), Some(large), Some("b")], None);
        let chunks = format!("transfer-encoding: chunked\r\n\r\n1\r\na\r\n6000\r\n{large}\r\n1\r\nb\r\n0\r\n\r\n");
        assert!(written(request(Method::POST, body), sink()).0 == chunks, "{each:?}");
        let body = pieces(&[Some("a"), Some(large)], Some(1 + large.len() as u64));
        let (text, sink) = written(request(Method::POST, body), sink());
        assert!(text == format!("content-length: 24577\r\n\r\na{large}"), "{each:?}");
        assert!(each.is_some() || !is_vectored || sink.writes == 1);
    }
}

#[test]
fn fields_are_written_as_they_are_but_only_one_place_frames() {
    let mut headers = HeaderMap::new();
    let mut secret = HeaderValue::from_static("Bearer x");
    secret.set_sensitive(true);
    headers.insert("authorization", secret);
    headers.append("X-A", HeaderValue::from_static("1"));
    headers.append("x-a", HeaderValue::from_bytes(b"\xe4").expect("a value"));
    for name in ["host", "content-length", "transfer-encoding"] {
        headers.insert(name, HeaderValue::from_static("evil"));
    }
    let url = Url::parse("http://h/").expect("a URL");
    let mut sink = Sink::default();
    let more = [("x-b", "lost"), ("authorization", "Bearer y"), ("x-b", "2"), ("host", "evil")];
    let more = more.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let head = RequestHead { method: &Method::POST, url: &url, headers: &headers, more: &more };
    let mut request = Request::new(&head, whole("{}"));
    assert!(poll(&mut request, &mut sink).is_ready());
    let text =
        b"POST / HTTP/1.1\r\nhost: h\r\nx-a: 1\r\nx-a: \xe4\r\nauthorization: Bearer y\r\nx-b: 2\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(String::from_utf8_lossy(&sink.taken), String::from_utf8_lossy(text));
    assert!(request.keeps);
    let more = [(CONNECTION, HeaderValue::from_static("Close"))];
    assert!(!Request::new(&RequestHead { more: &more, ..head }, whole("{}")).keeps);
}

#[test]
fn a_body_that_breaks_or_has_another_length_than_it_says_is_an_error() {
    for (body, length) in [
        (&[None][..], None),
        (&[Some("a"), None], None),
        (&[Some("a"), None], Some(2)),
        (&[Some("a")], Some(2)),
        (&[], Some(1)),
        (&[Some("a"), Some("bc")], Some(2)),
        (&[Some("abc")], Some(2)),
        (&[Some("a")], Some(0)),
    ] {
        let (mut request, mut sink) = (request(Method::POST, pieces(body, length)), Sink::default());
        let outcome = poll(&mut request, &mut sink);
        assert!(matches!(outcome, Poll::Ready(Err(Stopped::ByBody(_)))), "{body:?} {length:?}: {outcome:?}");
        assert!(!request.is_begun, "it was found out before");
    }
}

#[test]
fn what_is_there_leaves_while_the_body_waits_for_more() {
    let (mut sink, mut is_first) = (Sink::default(), true);
    let endless = futures_util::stream::poll_fn(move |_| {
        if std::mem::take(&mut is_first) { Poll::Ready(Some(Ok(Frame::data(Bytes::from("a"))))) } else { Poll::Pending }
    });
    let mut request = request(Method::POST, Box::pin(StreamBody::new(endless.fuse())));
    assert!(poll(&mut request, &mut sink).is_pending() && poll(&mut request, &mut sink).is_pending());
    assert!(sink.taken.ends_with(b"chunked\r\n\r\n1\r\na\r\n") && sink.flushed == sink.taken.len());
}

#[test]
fn a_body_that_gave_what_it_said_need_not_say_that_it_is_over() {
    struct Silent(Option<Bytes>);
    impl Body for Silent {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> super::super::Polled {
            self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(2)
        }
    }
    let (text, _) = written(request(Method::POST, Box::pin(Silent(Some("{}".into())))), Sink::default());
    assert_eq!(text, "content-length: 2\r\n\r\n{}");
}

#[test]
fn a_server_that_takes_no_more_is_told_from_a_body_that_breaks() {
    for (breaks_after, is_begun) in [(0, false), (10, true)] {
        let mut sink = Sink { each: Some(10), breaks_after: Some(breaks_after), ..Sink::default() };
        let mut request = request(Method::POST, whole("{}"));
        assert!(matches!(poll(&mut request, &mut sink), Poll::Ready(Err(Stopped::ByServer(_)))));
        assert_eq!(request.is_begun, is_begun);
        // It is still whole for another connection if nothing of it was written.
        let mut next = Sink::default();
        assert!(is_begun || (poll(&mut request, &mut next).is_ready() && next.taken.ends_with(b"\r\n\r\n{}")));
    }
}

/// A secret in the head must not stay behind in memory: its buffer never moves by itself, and goes when it was written.
#[test]
fn a_head_leaves_nothing_of_itself_behind() {
    let most: &'static str = "x".repeat(TOGETHER).leak();
    for (body, most_moves) in [
        (nothing(), 0),
        (whole("{}"), 0),
        (whole(most), 0),
        (pieces(&[Some("a"), Some("b"), Some("cd")], Some(4)), 0),
        (pieces(&[Some("a")], None), 0),
        (pieces(&[Some("a"), Some(&most[..1_000]), Some(most)], None), 2),
    ] {
        let mut request = request(Method::POST, body);
        let (mut at, mut moves) = (request.text.as_ptr(), 0);
        let Some(mut body) = request.body.take() else { unreachable!("it has one") };
        while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())) {
            request.add(frame.expect("good").into_data().expect("data")).expect("as long as it says");
            moves += usize::from(std::mem::replace(&mut at, request.text.as_ptr()) != at);
        }
        request.end().expect("as long as it says");
        assert!(moves <= most_moves && at == request.text.as_ptr(), "{moves}");
        let _is_cleared: &Text = &request.text;
        assert!(poll(&mut request, &mut Sink::default()).is_ready() && request.text.capacity() == 0);
    }
}

#[test]
fn a_text_that_goes_leaves_nothing_in_its_memory() {
    let mut text = Text(Vec::with_capacity(40));
    text.extend_from_slice(b"authorization: Bearer secret");
    text.truncate(5);
    text.wipe();
    assert_eq!(*text, vec![0; text.capacity()]);
    assert_ne!(text.capacity(), 0);
}

/// Bytes whose owner can be counted.
struct Shared(Arc<[u8]>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// It may be a secret, which its owner clears when the last handle is gone.
#[test]
fn a_whole_body_is_written_from_where_it_is_and_then_let_go() {
    let owned: Arc<[u8]> = b"assertion".to_vec().into();
    let body = Bytes::from_owner(Shared(owned.clone()));
    let url = Url::parse("https://as.example.com/token").expect("a URL");
    let head = RequestHead { method: &Method::POST, url: &url, headers: &HeaderMap::new(), more: &[] };
    for is_vectored in [true, false] {
        let mut request = Request::whole(&head, body.clone());
        assert!(request.text.ends_with(b"content-length: 9\r\n\r\n"), "no copy is in the text");
        let mut sink = Sink { is_vectored, ..Sink::default() };
        assert!(matches!(poll(&mut request, &mut sink), Poll::Ready(Ok(()))));
        assert!(sink.taken.ends_with(b"content-length: 9\r\n\r\nassertion"));
        assert_eq!((sink.writes, sink.flushed), (if is_vectored { 1 } else { 2 }, sink.taken.len()));
    }
    drop(body);
    assert_eq!(Arc::strong_count(&owned), 1);
}
