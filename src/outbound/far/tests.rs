//! The client over pipes in memory, on a clock that stands still: connections that are kept, break or flood.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;
use url::Url;
use zeroize::Zeroizing;

use super::*;
use crate::outbound::call::Reading;
use crate::outbound::connector::Stream;
use crate::outbound::failure::Failure;
use crate::outbound::stream::Terms;
use crate::outbound::{Ask, Body, HEAD_CAP, Lane, NamedBy};

/// What a server does with one request.
#[derive(Clone)]
enum Act {
    /// Sends this and keeps the connection.
    Says(String),
    /// Sends this and closes the connection.
    SaysAndCloses(String),
    /// Sends this after a while and keeps the connection.
    SaysAfter(Duration, String),
}

/// Servers in memory: one list of acts for each connection, in the order in which they are opened.
#[derive(Clone, Default)]
struct Servers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    scripts: VecDeque<Vec<Act>>,
    connections: usize,
    requests: Vec<String>,
    tasks: JoinSet<()>,
}

impl Servers {
    fn new(scripts: impl IntoIterator<Item = Vec<Act>>) -> Self {
        let servers = Self::default();
        servers.state().scripts.extend(scripts);
        servers
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it is held")
    }

    fn client(&self) -> Http<Self> {
        client(self.clone())
    }

    fn connections(&self) -> usize {
        self.state().connections
    }

    /// All requests, as they were written.
    fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    async fn serve(self, mut stream: DuplexStream, script: Vec<Act>) {
        let mut request = vec![0; 8 * 1024];
        for act in script {
            let Ok(read @ 1..) = stream.read(&mut request).await else { return };
            let text = String::from_utf8_lossy(&request[..read]).into_owned();
            self.state().requests.push(text);
            let (text, closes) = match act {
                Act::Says(text) => (text, false),
                Act::SaysAndCloses(text) => (text, true),
                Act::SaysAfter(wait, text) => {
                    tokio::time::sleep(wait).await;
                    (text, false)
                }
            };
            // The client may hang up in the middle.
            let written = stream.write_all(text.as_bytes()).await;
            if closes || written.is_err() {
                return;
            }
        }
        // Nothing more is in the script: the connection stays open and silent.
        std::future::pending::<()>().await;
    }
}

impl Connect for Servers {
    async fn connect(&self, _: &Url) -> Result<Box<dyn Stream>, Failure> {
        let (near, far) = tokio::io::duplex(256 * 1024);
        let mut state = self.state();
        state.connections += 1;
        let script = state.scripts.pop_front();
        if let Some(script) = script {
            state.tasks.spawn(self.clone().serve(far, script));
        }
        Ok(Box::new(near))
    }
}

fn client<C: Connect>(connector: C) -> Http<C> {
    let terms = Terms { outbound: 0, lane: Lane::Ours, certificate: None };
    Http { connector, terms, trust: Arc::default(), pool: Arc::default() }
}

/// Where the requests go.
const ORIGIN: &str = "http://mcp.example.com";

fn fine() -> Act {
    Act::Says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned())
}

fn closes() -> Act {
    Act::SaysAndCloses(String::new())
}

fn call(ask: Ask) -> Call {
    let url = Url::parse(&ask.url).expect("a URL");
    Call::new(ask, url, "mcp.example.com".to_owned(), Reading::Whole)
}

fn get() -> Call {
    call(Ask::get("http://mcp.example.com/doc", NamedBy::Us))
}

/// A token request, for example.
fn post() -> Call {
    let body = Body { content_type: "text/plain", bytes: Zeroizing::new(b"assertion".to_vec()) };
    call(Ask::post("http://mcp.example.com/token", NamedBy::Us, body))
}

async fn status(client: &Http<Servers>, call: Call) -> Result<u16, Error> {
    let answer = tokio::time::timeout(Duration::from_secs(10), client.ask(call)).await;
    answer.expect("an answer or an error in time").map(|answer| answer.status)
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_for_less_time_than_servers_keep_it() {
    let servers = Servers::new([vec![fine(), fine()], vec![fine()]]);
    let client = servers.client();
    assert_eq!(status(&client, get()).await, Ok(200));
    tokio::time::sleep(Duration::from_millis(3_900)).await;
    assert_eq!(status(&client, get()).await, Ok(200));
    assert_eq!(servers.connections(), 1, "it was used again");
    tokio::time::sleep(Duration::from_millis(4_100)).await;
    assert_eq!(status(&client, post()).await, Ok(200));
    assert_eq!(servers.connections(), 2, "it was too old");
}

#[tokio::test(start_paused = true)]
async fn four_connections_are_kept_for_a_host() {
    let servers = Servers::new(vec![vec![fine(), fine()]; 6]);
    let client = servers.client();
    for connections in [5, 6] {
        let five = [(); 5].map(|()| status(&client, get()));
        assert_eq!(futures_util::future::join_all(five).await, vec![Ok(200); 5]);
        assert_eq!(servers.connections(), connections);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_server_closed_meanwhile_gets_no_request() {
    let Act::Says(ok) = fine() else { unreachable!("it says so") };
    let servers = Servers::new([vec![Act::SaysAndCloses(ok)], vec![fine()]]);
    let client = servers.client();
    assert_eq!(status(&client, get()).await, Ok(200));
    assert_eq!(status(&client, post()).await, Ok(200), "whether or not it may be repeated");
    assert_eq!((servers.connections(), servers.requests().len()), (2, 2));
    assert!(client.trust.may_use_kept(ORIGIN, true), "nothing was lost");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_written_whole_each_time_that_it_is_sent() {
    let servers = Servers::new([vec![fine()], vec![fine(), fine(), closes()], vec![fine()]]);
    let client = servers.client();
    let body = |bytes: &[u8]| Body { content_type: "text/plain", bytes: Zeroizing::new(bytes.to_vec()) };
    let repeatable =
        |bytes| Ask { repeatable: true, ..Ask::post("http://mcp.example.com/a?b", NamedBy::Us, body(bytes)) };
    for ask in [Ask::get("http://mcp.example.com:8080", NamedBy::Us), repeatable(b""), repeatable(b"some")] {
        assert_eq!(status(&client, call(ask)).await, Ok(200));
    }
    let mut ask = repeatable(b"assertion");
    ask.headers = vec![(header::USER_AGENT, HeaderValue::from_static("own"))];
    assert_eq!(status(&client, call(ask)).await, Ok(200));
    let ours = format!("accept: application/json\r\nuser-agent: {USER_AGENT}\r\n");
    let post = "POST /a?b HTTP/1.1\r\nhost: mcp.example.com\r\n";
    let posted = format!("{post}accept: application/json\r\ncontent-type: text/plain\r\nuser-agent: {USER_AGENT}\r\n");
    let last = format!("{post}user-agent: own\r\ncontent-type: text/plain\r\ncontent-length: 9\r\n\r\nassertion");
    let wanted = [
        format!("GET / HTTP/1.1\r\nhost: mcp.example.com:8080\r\n{ours}\r\n"),
        format!("{posted}content-length: 0\r\n\r\n"),
        format!("{posted}content-length: 4\r\n\r\nsome"),
        last.clone(),
        last,
    ];
    assert_eq!(servers.requests(), wanted);
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_breaks_before_the_first_byte_costs_one_more_try() {
    let servers = Servers::new([vec![fine(), closes()], vec![fine()]]);
    let client = servers.client();
    assert_eq!(status(&client, get()).await, Ok(200));
    assert_eq!(status(&client, get()).await, Ok(200));
    assert_eq!((servers.connections(), servers.requests().len()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn there_is_one_more_try_and_no_third() {
    let servers = Servers::new([vec![fine(), closes()], vec![closes()], vec![fine()]]);
    let client = servers.client();
    assert_eq!(status(&client, get()).await, Ok(200));
    let error = status(&client, get()).await.expect_err("both break");
    assert!(matches!(error, Error::Broken { .. }), "{error:?}");
    assert_eq!((servers.connections(), servers.requests().len()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_that_breaks_is_an_error_at_once() {
    let servers = Servers::new([vec![closes()], vec![fine()]]);
    let error = status(&servers.client(), get()).await.expect_err("it breaks");
    assert!(matches!(error, Error::Broken { .. }), "{error:?}");
    assert_eq!(servers.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_repeated_is_reported_and_then_goes_over_a_new_connection() {
    // Two connections are kept, and both are dead.
    let servers = Servers::new([vec![fine(), closes()], vec![fine(), closes()], vec![fine()]]);
    let client = servers.client();
    let both = tokio::join!(status(&client, get()), status(&client, get()));
    assert_eq!((both, servers.connections()), ((Ok(200), Ok(200)), 2));
    let error = status(&client, post()).await.expect_err("it breaks");
    assert!(matches!(error, Error::Stale { .. }) && error.is_temporary(), "{error:?}");
    assert!(error.to_string().starts_with("mcp.example.com breaks off: "), "{error}");
    assert_eq!((servers.connections(), servers.requests().len()), (2, 3), "nothing was repeated");
    assert_eq!(status(&client, post()).await, Ok(200));
    assert_eq!((servers.connections(), servers.requests().len()), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_has_begun_is_never_asked_for_again() {
    for began in ["H", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
        let servers = Servers::new([vec![fine(), Act::SaysAndCloses(began.to_owned())], vec![fine()]]);
        let client = servers.client();
        assert_eq!(status(&client, get()).await, Ok(200));
        let error = status(&client, get()).await.expect_err("it breaks");
        assert!(matches!(error, Error::Broken { .. }), "{began:?}: {error:?}");
        assert_eq!(servers.connections(), 1, "{began:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_is_under_suspicion_only_as_long_as_its_dead_connections_are_kept() {
    let servers = Servers::new([vec![fine(), closes()], vec![fine()], vec![fine(), fine()]]);
    let client = servers.client();
    for _ in 0..2 {
        assert_eq!(status(&client, get()).await, Ok(200));
    }
    assert!(!client.trust.may_use_kept(ORIGIN, true));
    assert!(client.trust.may_use_kept("http://other.example", true));
    tokio::time::sleep(Duration::from_millis(4_100)).await;
    assert!(client.trust.may_use_kept(ORIGIN, true));
    for _ in 0..2 {
        assert_eq!(status(&client, get()).await, Ok(200));
    }
    assert_eq!(servers.connections(), 3, "connections are kept again");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_connection_costs_one_short_wait_for_all_hosts_together() {
    // Each first connection answers once and is silent from then on.
    let servers = Servers::new([vec![fine()], vec![fine()], vec![fine(), fine()], vec![fine(), fine()]]);
    let client = servers.client();
    let other = || call(Ask::get("http://other.example/doc", NamedBy::Us));
    assert_eq!((status(&client, get()).await, status(&client, other()).await), (Ok(200), Ok(200)));
    let began = Instant::now();
    assert_eq!((status(&client, get()).await, status(&client, other()).await), (Ok(200), Ok(200)));
    assert_eq!(began.elapsed(), SILENCE);
    assert_eq!(servers.connections(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_repeated_is_not_sent_over_a_connection_that_may_be_forgotten() {
    let servers = Servers::new([vec![fine()], vec![fine()]]);
    let client = servers.client();
    assert_eq!(status(&client, get()).await, Ok(200));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let began = Instant::now();
    assert_eq!(status(&client, post()).await, Ok(200));
    assert_eq!((servers.connections(), began.elapsed()), (2, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_is_waited_for_on_a_new_connection_and_so_is_what_must_not_be_repeated() {
    let slow = || Act::SaysAfter(Duration::from_secs(3), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned());
    let servers = Servers::new([vec![slow(), slow()]]);
    let client = servers.client();
    assert_eq!(status(&client, get()).await, Ok(200));
    assert_eq!(status(&client, post()).await, Ok(200));
    assert_eq!((servers.connections(), servers.requests().len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_refusal_counts_whatever_its_body_is() {
    let large = format!("content-length: 300000\r\n\r\n{}", "x".repeat(300_000));
    for rest in [
        large.as_str(),
        "content-length: 10\r\n\r\nhalf",
        "transfer-encoding: chunked\r\n\r\nnonsense",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        "transfer-encoding: gzip\r\n\r\nno",
        "content-length: 2\r\ncontent-length: 3\r\n\r\nno",
    ] {
        for code in [400, 401, 403, 404, 429, 500, 503] {
            let servers = Servers::new([vec![Act::Says(format!("HTTP/1.1 {code} No\r\n{rest}"))]]);
            let began = Instant::now();
            assert_eq!(status(&servers.client(), post()).await, Ok(code), "{}", &rest[..20]);
            assert!(began.elapsed() <= Duration::from_secs(2));
        }
    }
    let servers = Servers::new([vec![Act::Says(format!("HTTP/1.1 200 OK\r\n{large}"))]]);
    let error = status(&servers.client(), post()).await.expect_err("an answer that is used");
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn chunks_count_for_more_than_a_length_beside_them() {
    let both = "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n2\r\nno\r\n0\r\n\r\n";
    let servers = Servers::new([vec![Act::Says(format!("HTTP/1.1 200 OK\r\n{both}")), fine()], vec![fine()]]);
    let client = servers.client();
    let answer = client.ask(post()).await.expect("it can be read");
    assert_eq!((answer.status, &**answer.body), (200, &b"no"[..]));
    assert_eq!(
        (status(&client, post()).await, servers.connections()),
        (Ok(200), 2),
        "its connection is not used again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_only_where_it_is_used() {
    let endless = |code: u16| Act::Says(format!("HTTP/1.1 {code} X\r\ncontent-length: 10\r\n\r\n"));
    for (reading, code) in
        [(Reading::Head, 200), (Reading::Head, 401), (Reading::Document, 404), (Reading::Document, 500)]
    {
        let servers = Servers::new([vec![endless(code)]]);
        let began = Instant::now();
        let ask = Ask::get("http://mcp.example.com/doc", NamedBy::Us);
        let url = Url::parse(&ask.url).expect("a URL");
        let call = Call::new(ask, url, "mcp.example.com".to_owned(), reading);
        assert_eq!((status(&servers.client(), call).await, began.elapsed()), (Ok(code), Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_wants_is_passed_over_if_it_is_there() {
    for (rest, connections) in [
        ("content-length: 2\r\n\r\nno", 1),
        ("transfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 1),
        ("content-length: 3\r\n\r\nno", 2),
        ("transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nno\r\n0\r\n\r\n", 2),
        ("content-length: 2\r\ncontent-length: 3\r\n\r\nno", 2),
    ] {
        let servers = Servers::new([vec![Act::Says(format!("HTTP/1.1 404 No\r\n{rest}")), fine()], vec![fine()]]);
        let client = servers.client();
        let ask = Ask::get("http://mcp.example.com/doc", NamedBy::Us);
        let url = Url::parse(&ask.url).expect("a URL");
        let call = Call::new(ask, url, "mcp.example.com".to_owned(), Reading::Document);
        assert_eq!((status(&client, call).await, status(&client, get()).await), (Ok(404), Ok(200)));
        assert_eq!(servers.connections(), connections, "{rest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_has_a_largest_size() {
    let head = |fill: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{fill}\r\n");
    let field = |bytes: usize| format!("x: {}\r\n", "x".repeat(bytes));
    let fields = |count: usize| head(&"a: b\r\n".repeat(count));
    for fine in [head(&field(60 * 1024)), fields(99)] {
        let servers = Servers::new([vec![Act::Says(fine)]]);
        assert_eq!(status(&servers.client(), get()).await, Ok(200));
    }
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(512 * 1024));
    let long_status = format!("HTTP/1.1 200 {}", "x".repeat(512 * 1024));
    for flood in [head(&field(65 * 1024)), head(&field(1024).repeat(65)), fields(101), endless, long_status] {
        let servers = Servers::new([vec![Act::Says(flood.clone())]]);
        let error = status(&servers.client(), get()).await.expect_err("too large");
        assert!(matches!(error, Error::HeadTooLarge { .. }), "{}: {error:?}", &flood[..40]);
        assert!(!error.is_temporary());
    }
}

#[tokio::test(start_paused = true)]
async fn eight_interim_answers_are_passed_over_and_the_ninth_ends_it() {
    let answer = |interim: usize| {
        let interim = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n".repeat(interim);
        Act::Says(format!("{interim}HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
    };
    let servers = Servers::new([vec![answer(8)]]);
    assert_eq!(status(&servers.client(), get()).await, Ok(200));
    for interim in [9, 2_000] {
        let servers = Servers::new([vec![answer(interim)]]);
        let error = status(&servers.client(), get()).await.expect_err("too many");
        assert!(matches!(error, Error::Interim { .. }), "{interim}: {error:?}");
        assert_eq!(servers.connections(), 1);
    }
    // Without a final answer as well.
    let servers = Servers::new([vec![Act::Says("HTTP/1.1 100 Continue\r\n\r\n".repeat(9))]]);
    let error = status(&servers.client(), get()).await.expect_err("too many");
    assert!(matches!(error, Error::Interim { .. }), "{error:?}");
}

/// Connections to a server that always has more of the same to read.
#[derive(Clone, Default)]
struct Flood {
    /// What it sends first, once.
    head: &'static [u8],
    /// What it sends again and again.
    piece: &'static [u8],
    read: Arc<AtomicUsize>,
    /// The request has come; before that there is nothing to read.
    asked: bool,
    reader: Option<Waker>,
}

/// More than any honest server sends, so that the test ends where nothing else ends it.
const FLOOD: usize = 16 * 1024 * 1024;

impl tokio::io::AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.asked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = self.read.load(Ordering::Relaxed);
        buf.put_slice(std::mem::take(&mut self.head));
        while before < FLOOD && buf.remaining() >= self.piece.len() {
            buf.put_slice(self.piece);
        }
        self.read.fetch_add(buf.filled().len(), Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Flood {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.asked = true;
        self.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Connect for Flood {
    async fn connect(&self, _: &Url) -> Result<Box<dyn Stream>, Failure> {
        Ok(Box::new(self.clone()))
    }
}

/// Everything is served on one thread: what is read in one go is time that nobody else has.
#[tokio::test]
async fn a_server_that_floods_interim_answers_does_not_hold_the_thread() {
    let (outcome, read) = flooded(b"", b"HTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(matches!(outcome, Err(Error::Interim { .. })), "{outcome:?}");
    assert!(read <= 2 * HEAD_CAP, "{read} bytes were read");
}

/// What a request to such a server comes to, and how many bytes were read.
async fn flooded(head: &'static [u8], piece: &'static [u8]) -> (Result<u16, Error>, usize) {
    let flood = Flood { head, piece, ..Flood::default() };
    let client = client(flood.clone());
    // In a task of its own, as in the daemon.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { client.ask(get()).await.map(|answer| answer.status) });
    let outcome = tasks.join_next().await.expect("there is one").expect("no panic");
    // The connection is closed when its task runs next.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    (outcome, flood.read.load(Ordering::Relaxed))
}

#[tokio::test]
async fn what_a_server_sends_around_a_body_is_bounded_whatever_it_is() {
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    const TRAILERS: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n";
    for (what, head, piece) in [
        ("a chunk size of zeros", CHUNKED, &b"0000000000000000"[..]),
        ("a chunk size with blanks behind it", CHUNKED, b"1                "),
        ("chunk extensions", CHUNKED, b"1;extension=value\r\nx\r\n"),
        ("one endless chunk extension", CHUNKED, b"1;extension=value"),
        ("trailers", TRAILERS, b"field: value\r\n"),
        ("one endless trailer", TRAILERS, b"field: value "),
        ("chunks of one byte", CHUNKED, b"1\r\nx\r\n"),
        ("chunks of one byte whose sizes have zeros", CHUNKED, b"000000000000000001\r\nx\r\n"),
        ("blank lines before the status", b"", b"\r\n\r\n\r\n\r\n"),
        ("line feeds before the status", b"", b"\n\n\n\n"),
    ] {
        let (outcome, read) = flooded(head, piece).await;
        let error = outcome.expect_err(what);
        assert!(!matches!(error, Error::Timeout { .. }), "{what}: {error:?}");
        assert!(read <= 10 * HEAD_CAP, "{what}: {read} bytes were read");
    }
    let (outcome, _) = flooded(CHUNKED, b"0000000000000000").await;
    let error = outcome.expect_err("no body comes");
    assert!(matches!(error, Error::Framing { .. }) && !error.is_temporary(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_of_the_largest_size_may_come_in_chunks_of_one_byte() {
    let chunks = "1\r\nx\r\n".repeat(64 * 1024);
    let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
    let servers = Servers::new([vec![Act::Says(answer.clone()), Act::Says(answer)]]);
    let client = servers.client();
    for _ in 0..2 {
        assert_eq!(status(&client, get()).await, Ok(200), "each answer counts by itself");
    }
    assert_eq!(servers.connections(), 1);
}
