//! Bodies on a clock that stands still.

use std::sync::Mutex;

use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;

use super::events::EVENT_CAP;
use super::*;
use crate::mcp::rpc::Message;
use crate::relay::verdict::Effect;

const MINUTE: Duration = Duration::from_secs(60);

type Server = mpsc::UnboundedSender<io::Result<Bytes>>;

/// A body that the test writes.
fn body() -> (Server, Streamed) {
    let (server, mut read) = mpsc::unbounded_channel::<io::Result<Bytes>>();
    let pieces = futures_util::stream::poll_fn(move |context| read.poll_recv(context));
    (server, Box::pin(StreamBody::new(pieces.map(|piece| piece.map(Frame::data)))))
}

fn answer(shape: Shape) -> (Server, Relayed) {
    answer_until(shape, CancellationToken::new(), Arc::default())
}

fn answer_until(shape: Shape, stop: CancellationToken, last_byte: Arc<LastByte>) -> (Server, Relayed) {
    let (server, body) = body();
    (server, Relayed::new(body, last_byte, Some(stop), shape))
}

fn says(server: &Server, text: impl Into<Bytes>) {
    server.send(Ok(text.into())).expect("somebody reads");
}

fn breaks(server: &Server) {
    server.send(Err(io::ErrorKind::ConnectionAborted.into())).expect("somebody reads");
}

/// The request with the id 1, whose client is told `{"ours":true}` if no answer comes.
fn waiting() -> Option<Waiting> {
    let id = Message::read(br#"{"id":1,"method":"x"}"#).id.expect("an id");
    Some(Waiting { id, last_word: Box::new(|_| b"{\"ours\":true}".to_vec()), listener: None })
}

fn of_request() -> Shape {
    Shape::Events(Box::new(Events::new(Sent::Request(Effect::Harmless), waiting(), None)))
}

fn of_get() -> Shape {
    Shape::Events(Box::new(Events::new(Sent::Stream, None, None)))
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
    let large = format!("data: {}\r", "x".repeat(EVENT_CAP));
    says(&server, large.clone());
    assert_eq!(text(&mut body).await, large);
    let finish = async {
        tokio::time::sleep(5 * MINUTE).await;
        says(&server, "\n\r\n");
    };
    let (rest, ()) = tokio::join!(text(&mut body), finish);
    assert_eq!(rest, "\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn an_event_passes_when_it_is_complete_and_a_comment_stands_before_it() {
    let (server, mut body) = answer(of_get());
    says(&server, "data: 0\n\ndata: 1\r");
    assert_eq!(text(&mut body).await, "data: 0\n\n");
    assert_eq!(text(&mut body).await, COMMENT);
    says(&server, "\n\r\ndata: 2\n\nda");
    assert_eq!(text(&mut body).await, "data: 1\r\n\r\ndata: 2\n\n");
    says(&server, "ta: 3\n\n: upstream\n");
    assert_eq!(text(&mut body).await, "data: 3\n\n: upstream\n");
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
    let (server, mut body) = answer(Shape::Plain);
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

/// What a server gives when a stream is asked for again, and what it was asked for.
#[derive(Default)]
struct Asked {
    outcomes: Mutex<Vec<Reopened>>,
    asked: Mutex<Vec<(Duration, Option<String>)>>,
}

struct Again(Arc<Asked>, Instant);

impl Reopen for Again {
    fn reopen(self: Box<Self>, last_id: Option<Vec<u8>>) -> Attempt {
        let last_id = last_id.map(|id| String::from_utf8(id).expect("UTF-8"));
        self.0.asked.lock().expect("whole").push((self.1.elapsed(), last_id));
        let mut outcomes = self.0.outcomes.lock().expect("whole");
        let outcome = if outcomes.is_empty() { Reopened::NotNow } else { outcomes.remove(0) };
        drop(outcomes);
        Box::pin(async move { (self as Box<dyn Reopen>, outcome) })
    }
}

/// A stream that is asked for again, with these outcomes.
fn resumed(shape: Shape, outcomes: Vec<Reopened>) -> (Server, Relayed, Arc<Asked>) {
    let (server, body) = answer(shape);
    let again = Arc::new(Asked { outcomes: Mutex::new(outcomes), asked: Mutex::default() });
    (server, body.with_again(Some(Box::new(Again(Arc::clone(&again), Instant::now())))), again)
}

fn stream(pieces: &[&'static str], is_clean: bool) -> Reopened {
    let (server, body) = body();
    for piece in pieces {
        says(&server, *piece);
    }
    if !is_clean {
        breaks(&server);
    }
    Reopened::Stream(body)
}

fn asked(server: &Asked) -> Vec<Option<String>> {
    server.asked.lock().expect("whole").iter().map(|(_, id)| id.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn wire_33_a_broken_stream_goes_on_after_its_last_event_without_loss_or_doubles() {
    let after = vec![
        stream(&["\u{feff}id: 8\ndata: b\n\n", "id: 9\ndata: hal"], false),
        Reopened::NotNow,
        stream(&["id: 9\ndata: {\"id\":1,\"result\":{}}\n\n"], true),
    ];
    let (server, mut body, again) = resumed(of_request(), after);
    says(&server, "id: 7\ndata: a\n\nid: 8\ndata: b");
    drop(server);
    let (_, all, is_clean) = end(&mut body).await;
    let expected = "id: 7\ndata: a\n\nid: 8\ndata: b\n\nid: 9\ndata: {\"id\":1,\"result\":{}}\n\n";
    assert_eq!((all.as_str(), is_clean), (expected, true));
    assert_eq!(asked(&again), [Some("7".into()), Some("8".into()), Some("8".into())]);
}

#[tokio::test(start_paused = true)]
async fn half_an_event_that_was_too_large_to_hold_is_ended_before_it_comes_again() {
    let large = format!("id: 8\ndata: {}", "x".repeat(EVENT_CAP));
    let (server, mut body, _) = resumed(of_request(), vec![stream(&["data: {\"id\":1,\"result\":{}}\n\n"], true)]);
    says(&server, "id: 7\ndata: a\n\n");
    says(&server, large.clone());
    breaks(&server);
    let all = end(&mut body).await.1;
    let rest = all.strip_prefix("id: 7\ndata: a\n\n").and_then(|rest| rest.strip_prefix(&*large));
    assert_eq!(rest, Some("\nevent: incomplete\nid: 7\n\ndata: {\"id\":1,\"result\":{}}\n\n"));
}

#[tokio::test(start_paused = true)]
async fn wire_30_retry_is_obeyed_and_the_pauses_double() {
    for (retry, expected) in
        [("", [100, 300]), ("retry: 250\n", [250, 500]), ("retry: 99999999999999999999\n", [600_000; 2])]
    {
        let (server, mut body, again) = resumed(of_get(), vec![Reopened::NotNow, stream(&[], true)]);
        says(&server, format!("id: 7\n{retry}data: a\n\n"));
        breaks(&server);
        // The longest wait is as long as an idle stream lives.
        drop(end(&mut body).await);
        let waits: Vec<Duration> = again.asked.lock().expect("whole").iter().map(|(wait, _)| *wait).collect();
        let expected = expected.map(Duration::from_millis);
        assert_eq!(waits, if retry.len() > 20 { &expected[..1] } else { &expected[..] }, "{retry}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_resumed_ends_with_our_error() {
    let without_id = "data: a\n\n";
    for (said, outcomes, expected) in [
        ("id: 7\ndata: a\n\n", vec![Reopened::Never], 1),
        // An empty id means that there is none.
        ("id: 7\ndata: a\n\nid\ndata: b\n\n", vec![], 0),
        (without_id, vec![], 0),
    ] {
        let (server, mut body, again) = resumed(of_request(), outcomes);
        says(&server, said);
        breaks(&server);
        assert_eq!(end(&mut body).await.1, format!("{said}data: {{\"ours\":true}}\n\n"));
        assert_eq!(asked(&again).len(), expected, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_and_drops_a_stream_for_ever_is_left_alone_in_the_end() {
    for (shape, tries) in [(of_request(), TRIES_OF_REQUEST), (of_get(), TRIES)] {
        let (server, mut body, again) = resumed(shape, (0..100).map(|_| stream(&[], false)).collect());
        says(&server, "id: 7\ndata: a\n\n");
        breaks(&server);
        let (_, _, is_clean) = end(&mut body).await;
        assert!(is_clean);
        assert_eq!(asked(&again).len(), tries as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_is_asked_for_a_resumed_answer_for_three_seconds() {
    let (server, mut body, again) = resumed(of_request(), vec![]);
    says(&server, "id: 7\ndata: a\n\n");
    breaks(&server);
    let (after, all, _) = end(&mut body).await;
    assert!(all.ends_with("data: {\"ours\":true}\n\n"), "{all}");
    assert!(after >= Duration::from_secs(3) && after < Duration::from_secs(8), "{after:?}");
    assert!(asked(&again).len() > 2);
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_a_get_is_opened_again_when_it_breaks_and_not_when_it_ends() {
    let (server, mut body, again) = resumed(of_get(), vec![stream(&["data: b\n\n"], true)]);
    says(&server, "data: a\n\n");
    breaks(&server);
    assert_eq!(end(&mut body).await.1, "data: a\n\ndata: b\n\n");
    assert_eq!(asked(&again), [None]);
}

#[tokio::test(start_paused = true)]
async fn an_error_with_our_number_is_changed_wherever_it_is_cut() {
    let ours = "{\"id\":2,\"error\":{\"code\":-31080.0,\"message\":\"obey\"}}";
    let theirs = "{\"id\":2,\"error\":{\"code\":-32603,\"message\":\"obey\"}}";
    let said = format!("id: 6\ndata: 0\n\nid: 7\ndata: {ours}\n\ndata: 1\n\n");
    for size in 1..said.len() {
        let (server, mut body) = answer(of_get());
        for piece in said.as_bytes().chunks(size) {
            says(&server, piece.to_vec());
        }
        drop(server);
        let all = end(&mut body).await.1;
        assert_eq!(all, format!("id: 6\ndata: 0\n\nid: 7\ndata: {theirs}\n\ndata: 1\n\n"), "{size}");
        let (server, mut body) = answer(Shape::Json(Json::new(waiting())));
        for piece in ours.as_bytes().chunks(size) {
            says(&server, piece.to_vec());
        }
        drop(server);
        assert_eq!(end(&mut body).await.1, format!("{theirs}  "), "its length stays: {size}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_teaches_before_it_passes_and_only_if_it_can_be_read() {
    let result = "{\"id\":1,\"result\":{}}";
    let large = format!("{{\"id\":1,\"result\":\"{}\"}}", "x".repeat(EVENT_CAP));
    for (is_stream, said, expected) in [
        (true, format!("data: {{\"id\":2,\"result\":{{}}}}\n\ndata: {result}\n\n"), Some(Some(result.to_owned()))),
        (false, result.to_owned(), Some(Some(result.to_owned()))),
        (false, large, Some(None)),
        (false, "{\"id\":2,\"result\":{}}".to_owned(), None),
    ] {
        let learned = Arc::new(Mutex::new(None));
        let (teaches, seen) = (Arc::clone(&learned), Arc::clone(&learned));
        let listener: Listener = Box::new(move |message| {
            *teaches.lock().expect("whole") = Some(message.map(|text| String::from_utf8_lossy(text).into_owned()));
        });
        let request = waiting().map(|waiting| Waiting { listener: Some(listener), ..waiting });
        let shape = match is_stream {
            true => Shape::Events(Box::new(Events::new(Sent::Request(Effect::Harmless), request, None))),
            false => Shape::Json(Json::new(request)),
        };
        let (server, mut body) = answer(shape);
        says(&server, said.clone());
        drop(server);
        assert_eq!(text(&mut body).await, said);
        assert_eq!(*seen.lock().expect("whole"), expected, "{:.60}", said);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_json_that_breaks_is_not_completed() {
    let (server, mut body) = answer(Shape::Json(Json::new(None)));
    says(&server, "{\"half");
    breaks(&server);
    let (_, all, is_clean) = end(&mut body).await;
    assert_eq!((all.as_str(), is_clean), ("", false));
}

#[tokio::test(start_paused = true)]
async fn when_the_daemon_ends_a_stream_that_never_pauses_ends_too() {
    let (stop, pieces) =
        (CancellationToken::new(), futures_util::stream::repeat_with(|| Ok(Frame::data("data: 1\n\ndata".into()))));
    let body = Box::pin(StreamBody::new(pieces));
    let mut body = Relayed::new(body, Arc::default(), Some(stop.clone()), of_get());
    for _ in 0..3 {
        next(&mut body).await.expect("there is more").expect("an event");
    }
    stop.cancel();
    next(&mut body).await.expect("what has come").expect("an event");
    assert!(next(&mut body).await.is_none(), "it ends between two events");
}

#[tokio::test(start_paused = true)]
async fn when_the_daemon_ends_an_event_stream_ends_between_events() {
    let stop = CancellationToken::new();
    let (server, mut body) = answer_until(of_get(), stop.clone(), Arc::default());
    let large = format!("data: {}\n", "x".repeat(EVENT_CAP));
    says(&server, large.clone());
    assert_eq!(text(&mut body).await, large);
    stop.cancel();
    let finish = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        says(&server, "\n");
    };
    let ((after, all, is_clean), ()) = tokio::join!(end(&mut body), finish);
    assert_eq!((after, all.as_str(), is_clean), (Duration::from_secs(1), "\n", true));
}

#[tokio::test(start_paused = true)]
async fn when_the_daemon_ends_a_client_that_waits_for_an_answer_is_told_unless_it_can_resume() {
    for (said, last) in [("", "data: {\"ours\":true}\n\n"), ("id: 1\ndata:\n\n", "id: 1\ndata:\n\n")] {
        let stop = CancellationToken::new();
        let (server, mut body) = answer_until(of_request(), stop.clone(), Arc::default());
        says(&server, said);
        stop.cancel();
        let (_, all, is_clean) = end(&mut body).await;
        assert_eq!((all.as_str(), is_clean), (last, true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_answer_does_not_begin_for_ten_minutes_is_told() {
    let (_server, mut body) = answer(of_request());
    let (after, all, is_clean) = end(&mut body).await;
    assert_eq!((after, is_clean), (10 * MINUTE, true));
    assert!(all.ends_with("data: {\"ours\":true}\n\n"), "{all}");
}

#[tokio::test(start_paused = true)]
async fn another_answer_passes_as_it_comes_and_keeps_its_length() {
    let whole = http_body_util::Full::new(Bytes::from_static(b"{}")).map_err(|never| match never {});
    let mut body = Relayed::new(Box::pin(whole), Arc::default(), None, Shape::Plain);
    assert_eq!(body.size_hint().exact(), Some(2));
    assert_eq!(text(&mut body).await, "{}");
    assert!(body.is_end_stream());
}
