//! What the fuzz targets call: messages and event streams as a hostile server or client may send them. Compiled for tests and
//! fuzzing only.

use super::era::answer::{Answer, Notified};
use super::era::declared::{Declared, Meta};
use super::era::discovered::Discovered;
use super::era::input::Carried;
use super::era::params::Tools;
use super::era::{VERSION, request};
use super::object::Object;
use super::rpc::cut::request_id;
use super::rpc::refusal::without_our_code;
use super::rpc::{Kind, METHOD_NOT_FOUND, Message, OUR_CODE, params};
use super::sse::{COMMENT, Data, Reader, event};

/// The most data of one event that is kept here.
const CAP: usize = 64;

/// Reads the bytes as one message. Panics if it is a message to us and no JSON to others, if its id is not what was sent, or if
/// an error of our number would pass.
pub fn read_message(bytes: &[u8]) {
    let message = Message::read(bytes);
    let value = serde_json::from_slice::<serde_json::Value>(bytes).ok();
    let is_object = value.as_ref().is_some_and(serde_json::Value::is_object);
    match message.kind {
        Kind::Request | Kind::Notification | Kind::Response => assert!(is_object, "others read an object"),
        Kind::Batch => assert!(value.as_ref().is_some_and(serde_json::Value::is_array), "others read an array"),
        Kind::Unreadable => {}
    }
    if let (Some(id), Some(value)) = (&message.id, &value) {
        let sent = id.as_str().as_bytes();
        assert!(bytes.windows(sent.len()).any(|part| part == sent), "the id is a part of the message");
        let read: serde_json::Value = serde_json::from_str(id.as_str()).expect("an id is JSON");
        assert_eq!(&read, &value["id"], "others read the same id");
    }
    let _ = params(bytes);
    if let (Kind::Request, Some(id)) = (message.kind, request_id(bytes)) {
        assert_eq!(Some(id), message.id, "the beginning of a message has the id of the whole");
    }
    let passed = without_our_code(bytes);
    let code = Message::read(passed.as_deref().unwrap_or(bytes)).error_code;
    assert_ne!(code, Some(OUR_CODE), "our number is ours alone");
    assert!(code != Some(METHOD_NOT_FOUND) || message.error_code == code, "no other code is made");
    if let (Ok(text), true) = (std::str::from_utf8(bytes), is_object && message.kind != Kind::Unreadable) {
        translate(text, &message);
    }
}

/// Translates the message. Panics if another message would come of it, or one that others read differently.
fn translate(text: &str, message: &Message<'_>) {
    let client = Declared::read(br#"{"params":{"capabilities":{}}}"#).expect("it has capabilities");
    let meta = Meta::new(client.clone());
    if let Some(translated) = request::translated(text, "\"n\"", &meta, &Carried::default()) {
        let read = Message::read(translated.as_bytes());
        assert_eq!(read.method, message.method, "it is the same method");
        assert!(!read.is_ambiguous || message.is_ambiguous, "all receivers read the same");
        let value: serde_json::Value = serde_json::from_str(&translated).expect("it is JSON");
        assert_eq!(value["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], VERSION);
        assert_eq!(value["id"], "n");
    }
    let made = match Answer::read(text) {
        Answer::Result(result) => Some(result).inspect(|result| {
            assert_eq!(Object::read(result).expect("an object").get("resultType"), None);
        }),
        Answer::Error(_) | Answer::Input(_) | Answer::Unknown => None,
    };
    let notified = if let Notified::So(made) = Notified::read("x", text) { Some(made) } else { None };
    let hello = Discovered::read(text).map(|server| server.hello(&client, "demo"));
    let tools = Tools::default().learn(text).map(|cut| cut.result);
    for made in [made, notified, hello, tools].into_iter().flatten() {
        assert!(serde_json::from_str::<serde_json::Value>(&made).is_ok_and(|value| value.is_object()), "{made}");
    }
}

/// Reads the bytes as an event stream, in pieces whose sizes the first byte decides. Panics if pieces make a difference, if too
/// much is kept, or if the stream cannot be ended with an event of ours.
pub fn read_events(bytes: &[u8]) {
    let Some((&size, stream)) = bytes.split_first() else { return };
    let size = usize::from(size).max(1);
    let (mut whole, mut cut) = (Reader::new(CAP), Reader::new(CAP));
    let events = all_events(&mut whole, stream);
    let in_pieces: Vec<_> = stream.chunks(size).flat_map(|piece| all_events(&mut cut, piece)).collect();
    assert_eq!(events, in_pieces, "pieces make no difference");
    assert_eq!(whole.abandon(), cut.abandon());
    assert_eq!((whole.last_id(), whole.retry()), (cut.last_id(), cut.retry()));
    assert_eq!(whole.is_between_events(), cut.is_between_events());
    assert!(whole.last_id().is_none_or(|id| !id.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))));
    let id = whole.last_id().map(<[u8]>::to_vec);
    let end = if whole.is_between_events() { COMMENT.to_vec() } else { whole.abandon() };
    assert!(all_events(&mut whole, &end).iter().all(|(is_message, _)| !is_message), "nothing incomplete is a message");
    assert_eq!(all_events(&mut whole, &event(None, "last")), [(true, Some(b"last".to_vec()))]);
    assert_eq!(whole.last_id().map(<[u8]>::to_vec), id, "the last id stays");
}

/// Each event: whether it may hold a message, and its data.
fn all_events(reader: &mut Reader, mut piece: &[u8]) -> Vec<(bool, Option<Vec<u8>>)> {
    let mut events = Vec::new();
    while let Some(event) = reader.read(&mut piece) {
        let data = match event.data {
            Data::Kept(data) => Some(data.to_vec()),
            Data::None | Data::TooLong => None,
        };
        assert!(data.as_ref().is_none_or(|data| data.len() <= CAP), "no more is kept than the cap");
        events.push((event.is_message(), data));
    }
    events
}
