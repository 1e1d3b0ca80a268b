//! Bodies on a clock that stands still.

use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

type Server = mpsc::UnboundedSender<io::Result<Bytes>>;

/// An answer that the test writes.
fn answer(events: Option<Events>) -> (Server, Relayed<impl Body<Data = Bytes, Error = io::Error> + Unpin>) {
    answer_until(events, CancellationToken::new(), Arc::default())
}

fn answer_until(
    events: Option<Events>,
    stop: CancellationToken,
    last_byte: Arc<LastByte>,
) -> (Server, Relayed<impl Body<Data = Bytes, Error = io::Error> + Unpin>) {
    let (server, mut read) = mpsc::unbounded_channel::<io::Result<Bytes>>();
    let pieces = futures_util::stream::poll_fn(move |context| read.poll_recv(context));
    let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data)));
    (server, Relayed::new(body, last_byte, stop, events))
}

fn says(server: &Server, text: &'static str) {
    server.send(Ok(text.into())).expect("somebody reads");
}

fn breaks(server: &Server) {
    server.send(Err(io::ErrorKind::ConnectionAborted.into())).expect("somebody reads");
}

/// The stream of a request with the id 1.
fn of_request() -> Option<Events> {
    let id = Message::read(br#"{"id":1,"method":"x"}"#).id.expect("an id");
    Some(Events::new(Some((id, Box::new(|| b"{\"ours\":true}".to_vec())))))
}

fn of_get() -> Option<Events> {
    Some(Events::new(None))
}

async fn next(body: &mut (impl Body<Data = Bytes, Error = io::Error> + Unpin)) -> Option<io::Result<String>> {
    let frame = body.frame().await?;
    Some(frame.map(|frame| String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8")))
}

async fn text(body: &mut (impl Body<Data = Bytes, Error = io::Error> + Unpin)) -> String {
    next(body).await.expect("it goes on").expect("it is whole")
}

const COMMENT: &str = ": keep-alive\n\n";

#[tokio::test(start_paused = true)]
async fn wire_28_a_silent_stream_gets_a_comment_every_twenty_seconds_between_events() {
    let (server, mut body) = answer(of_get());
    let begun = Instant::now();
    assert_eq!(text(&mut body).await, COMMENT);
    assert_eq!(begun.elapsed(), SILENCE);
    says(&server, "data: 1\n\n");
    assert_eq!(text(&mut body).await, "data: 1\n\n");
    tokio::time::advance(SILENCE / 2).await;
    assert_eq!(text(&mut body).await, COMMENT);
    assert_eq!(begun.elapsed(), 2 * SILENCE);
}

#[tokio::test(start_paused = true)]
async fn no_comment_stands_within_an_event() {
    let (server, mut body) = answer(of_get());
    says(&server, "data: 1\r");
    assert_eq!(text(&mut body).await, "data: 1\r");
    let finish = async {
        tokio::time::sleep(5 * MINUTE).await;
        says(&server, "\n\r\n");
    };
    let (rest, ()) = tokio::join!(text(&mut body), finish);
    assert_eq!(rest, "\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_mark_after_a_comment_is_taken_away() {
    let (server, mut body) = answer(of_get());
    assert_eq!(text(&mut body).await, COMMENT);
    says(&server, "\u{feff}data: 1\n\n");
    assert_eq!(text(&mut body).await, "data: 1\n\n");
}

/// Reads until the end, and gives the time and what came.
async fn end(body: &mut (impl Body<Data = Bytes, Error = io::Error> + Unpin)) -> (Duration, String, bool) {
    let (begun, mut all) = (Instant::now(), String::new());
    loop {
        match next(body).await {
            Some(Ok(text)) => all.push_str(&text),
            Some(Err(_)) => return (begun.elapsed(), all, false),
            None => return (begun.elapsed(), all, true),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn wire_35_after_ten_minutes_without_a_byte_a_stream_ends_cleanly_whatever_we_added() {
    let (_server, mut body) = answer(of_get());
    let (after, all, is_clean) = end(&mut body).await;
    assert_eq!((after, all.replace(COMMENT, ""), is_clean), (10 * MINUTE, String::new(), true));
    assert_eq!(all.matches(COMMENT).count(), 29);
}

#[tokio::test(start_paused = true)]
async fn bytes_of_the_client_keep_an_exchange_open_too() {
    let last_byte = Arc::<LastByte>::default();
    let (_server, mut body) = answer_until(of_get(), CancellationToken::new(), Arc::clone(&last_byte));
    let client = async {
        tokio::time::sleep(9 * MINUTE).await;
        last_byte.passed();
    };
    let ((after, ..), ()) = tokio::join!(end(&mut body), client);
    assert_eq!(after, 19 * MINUTE);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_kind_cannot_end_cleanly_when_it_is_idle() {
    let (server, mut body) = answer(None);
    says(&server, "{\"half");
    let (after, all, is_clean) = end(&mut body).await;
    assert_eq!((after, all.as_str(), is_clean), (10 * MINUTE, "{\"half", false));
}

#[tokio::test(start_paused = true)]
async fn wire_33_a_break_before_the_answer_ends_with_our_error() {
    for is_clean in [false, true] {
        let (server, mut body) = answer(of_request());
        says(&server, "data: {\"id\":2,\"result\":{}}\n\n");
        if !is_clean {
            breaks(&server);
        }
        drop(server);
        let all = end(&mut body).await.1;
        assert_eq!(all, "data: {\"id\":2,\"result\":{}}\n\ndata: {\"ours\":true}\n\n");
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_answer_a_break_is_a_clean_end() {
    let (server, mut body) = answer(of_request());
    says(&server, "data: {\"id\":1,\ndata: \"result\":{}}\n\n");
    breaks(&server);
    let (_, all, is_clean) = end(&mut body).await;
    assert_eq!((all.as_str(), is_clean), ("data: {\"id\":1,\ndata: \"result\":{}}\n\n", true));
}

#[tokio::test(start_paused = true)]
async fn with_an_event_id_the_client_asks_for_the_rest_itself() {
    let (server, mut body) = answer(of_request());
    says(&server, "id: 7\ndata:\n\n");
    breaks(&server);
    let (_, all, is_clean) = end(&mut body).await;
    assert_eq!((all.as_str(), is_clean), ("id: 7\ndata:\n\n", true));
}

#[tokio::test(start_paused = true)]
async fn when_the_daemon_ends_an_event_stream_ends_between_events() {
    let stop = CancellationToken::new();
    let (server, mut body) = answer_until(of_get(), stop.clone(), Arc::default());
    says(&server, "data: 1\n");
    assert_eq!(text(&mut body).await, "data: 1\n");
    stop.cancel();
    let finish = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        says(&server, "\n");
    };
    let ((after, all, is_clean), ()) = tokio::join!(end(&mut body), finish);
    assert_eq!((after, all.as_str(), is_clean), (Duration::from_secs(1), "\n", true));
}

#[tokio::test(start_paused = true)]
async fn another_answer_passes_as_it_comes_and_keeps_its_length() {
    let whole = http_body_util::Full::new(Bytes::from_static(b"{}")).map_err(|never| match never {});
    let mut body = Relayed::new(whole, Arc::default(), CancellationToken::new(), None);
    assert_eq!(body.size_hint().exact(), Some(2));
    assert_eq!(text(&mut body).await, "{}");
    assert!(body.is_end_stream());
}
