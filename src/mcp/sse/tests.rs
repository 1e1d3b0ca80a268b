use proptest::prelude::*;

use super::mark::WithoutMark;
use super::*;

/// An event as owned data: its name, and its data if it has some.
type Seen = (String, Option<String>);

fn seen(event: Event<'_>) -> Seen {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let data = match event.data {
        Data::None => None,
        Data::Kept(data) => Some(text(data)),
        Data::TooLong => Some("TOO LONG".to_owned()),
    };
    (text(event.name), data)
}

/// Shows the pieces to the reader, and returns the events that ended.
fn feed<'p>(reader: &mut Reader, pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<Seen> {
    let mut events = Vec::new();
    for mut piece in pieces {
        while let Some(event) = reader.read(&mut piece) {
            events.push(seen(event));
        }
        assert!(piece.is_empty(), "a piece is read whole");
    }
    events
}

fn read(text: &[u8]) -> (Reader, Vec<Seen>) {
    let mut reader = Reader::new(1_000);
    let events = feed(&mut reader, [text]);
    (reader, events)
}

/// A stream, its events, its last id, and whether something may be inserted after its last byte.
type Case = (&'static str, &'static [(&'static str, Option<&'static str>)], Option<&'static str>, bool);

const CASES: &[Case] = &[
    ("", &[], None, true),
    ("data: a\n\n", &[("", Some("a"))], None, true),
    ("data:a\r\n\r\n", &[("", Some("a"))], None, true),
    ("data: a\r\r", &[("", Some("a"))], None, true),
    ("data:  a \n\n", &[("", Some(" a "))], None, true),
    ("data: a\ndata\ndata: b\n\n", &[("", Some("a\n\nb"))], None, true),
    // The mark at the start is ignored, another one is part of a name.
    ("\u{feff}data: a\n\n", &[("", Some("a"))], None, true),
    ("\u{feff}\u{feff}data: a\n\n", &[("", None)], None, true),
    ("\n\u{feff}data: a\n\n", &[("", None)], None, true),
    // Names and ids.
    ("event: message\nid: 7\ndata: a\n\n", &[("message", Some("a"))], Some("7"), true),
    ("event: a\nevent: b\ndata\n\n", &[("b", Some(""))], None, true),
    ("id: 1\ndata: \n\n", &[("", Some(""))], Some("1"), true),
    ("id: 1\n\n", &[("", None)], Some("1"), true),
    ("id: 1\n\nid\n\n", &[("", None), ("", None)], None, true),
    ("id: 1\n\nid: 2\0\n\n", &[("", None), ("", None)], Some("1"), true),
    ("id: 1\n\ndata: x\n\n", &[("", None), ("", Some("x"))], Some("1"), true),
    // An id counts once its event has ended.
    ("id: 1\n\nid: 2\ndata: x\n", &[("", None)], Some("1"), false),
    // Comments and empty lines are no events.
    (": hello\n", &[], None, true),
    (": hello\n\n\n\n", &[], None, true),
    (": hello", &[], None, false),
    ("data: a\n: b\n", &[], None, false),
    ("data: a\n: b\n\n", &[("", Some("a"))], None, true),
    // Unknown fields, and names that are longer or shorter.
    ("dataa: x\ndat: x\nDATA: x\n data: x\n\n", &[("", None)], None, true),
    ("data\n\n", &[("", Some(""))], None, true),
    // Incomplete ones.
    ("d", &[], None, false),
    ("data: a", &[], None, false),
    ("data: a\n", &[], None, false),
    ("\u{feff}", &[], None, true),
];

#[test]
fn streams_are_read_by_the_rules_of_whatwg() {
    for (text, events, id, between) in CASES {
        let (reader, found) = read(text.as_bytes());
        let events: Vec<Seen> =
            events.iter().map(|(name, data)| ((*name).to_owned(), data.map(str::to_owned))).collect();
        assert_eq!(found, events, "{text:?}");
        assert_eq!(reader.last_id(), id.map(str::as_bytes), "{text:?}");
        assert_eq!(reader.is_between_events(), *between, "{text:?}");
    }
}

#[test]
fn nothing_is_inserted_between_the_cr_and_the_lf_of_one_line_end() {
    let (mut reader, events) = read(b"data: a\r\n\r");
    assert_eq!(events.len(), 1, "the CR ends the event");
    assert!(!reader.is_between_events(), "a LF may follow");
    assert!(feed(&mut reader, [b"\n".as_slice()]).is_empty());
    assert!(reader.is_between_events());
    let (reader, _) = read(b"data: a\r\r");
    assert!(reader.is_between_events(), "a stream with lone CRs sends no LF");
}

#[test]
fn nothing_is_inserted_into_half_a_byte_order_mark() {
    for length in 1..BOM.len() {
        let (mut reader, _) = read(&BOM[..length]);
        assert!(!reader.is_between_events(), "{length}");
        feed(&mut reader, [&BOM[length..]]);
        assert!(reader.is_between_events(), "{length}");
    }
    assert_eq!(read(b"\xef\xbbdata: a\n\n").1, [(String::new(), None)], "half a mark is a part of the name");
}

#[test]
fn retry_takes_digits_alone_and_saturates() {
    for (text, millis) in [
        ("retry: 10\n", Some(10)),
        ("retry: 10\r", Some(10)),
        ("retry: 1x\n", None),
        ("retry: -1\n", None),
        ("retry:\n", None),
        ("retry: 10", None),
        ("retry: 99999999999999999999999999\n", Some(u64::MAX)),
    ] {
        assert_eq!(read(text.as_bytes()).0.retry(), millis.map(Duration::from_millis), "{text:?}");
    }
}

#[test]
fn nothing_is_kept_beyond_its_cap() {
    let mut reader = Reader::new(10);
    assert_eq!(
        feed(&mut reader, [b"data: 0123456789\n\n".as_slice()]),
        [(String::new(), Some("0123456789".to_owned()))]
    );
    let long = [b"data: 01234\ndata: 56789\n\n".as_slice(), b"data: x\n\n"];
    assert_eq!(
        feed(&mut reader, long),
        [(String::new(), Some("TOO LONG".to_owned())), (String::new(), Some("x".to_owned()))],
        "the LF between two lines counts, and the next event is kept again"
    );
    feed(&mut reader, [b"id: 1\n\n".as_slice()]);
    let line = |field: &str| format!("{field}: {}", "x".repeat(1_000_000));
    for field in ["id", "event", "retry", "data", "unknown", ""] {
        feed(&mut reader, line(field).as_bytes().chunks(1_000));
        feed(&mut reader, [b"\n".as_slice()]);
    }
    let kept = reader.value.bytes.capacity() + reader.event.data.capacity() + reader.event.name.capacity();
    assert!(kept < 8 * VALUE_CAP, "{kept}");
    feed(&mut reader, [b"\n".as_slice()]);
    assert_eq!(reader.last_id(), None, "no stream is resumed from a part of an id, nor from an older one");
}

/// Data that is not wanted is not copied.
#[test]
fn a_reader_without_room_for_data_still_finds_the_events() {
    let mut reader = Reader::new(0);
    let events = feed(&mut reader, [b"data: a\n\ndata\n\n".as_slice()]);
    assert_eq!(events, [(String::new(), Some("TOO LONG".to_owned())), (String::new(), Some(String::new()))]);
    assert_eq!((reader.event.data.capacity(), reader.ended.data.capacity()), (0, 0));
}

#[test]
fn an_event_that_will_never_be_complete_is_seen_by_no_client() {
    for cut in [
        "data: {\"a",
        "data: {\"a\n",
        "data: a\r",
        "dat",
        "data",
        "data:",
        "event: mess",
        "event: message\ndata: a\nid: 2",
        "id",
        "id: 23",
        ": comm",
        "retry: 1",
        "\u{feff}data: a",
    ] {
        let text = format!("{}id: 1\ndata: x\n\n", if cut.starts_with('\u{feff}') { "" } else { "retry: 500\n" });
        let text = if let Some(rest) = cut.strip_prefix('\u{feff}') {
            format!("\u{feff}{text}{rest}")
        } else {
            format!("{text}{cut}")
        };
        let (mut reader, events) = read(text.as_bytes());
        assert_eq!(events.len(), 1, "{cut:?}");
        let end = reader.abandon();
        let retry = reader.retry();
        let after = feed(&mut reader, [end.as_slice(), event(None, "last").as_slice()]);
        let messages: Vec<&Seen> = after.iter().filter(|(name, _)| name.is_empty() || name == "message").collect();
        assert_eq!(messages, [&(String::new(), Some("last".to_owned()))], "{cut:?} {after:?}");
        assert_eq!((reader.last_id(), reader.retry()), (Some(b"1".as_slice()), retry), "{cut:?}");
    }
    assert!(read(b"data: a\n\n").0.abandon().is_empty());
    assert!(read(b": a\n").0.abandon().is_empty());
    let (mut reader, _) = read(b"id: 7\ndata: a");
    let end = reader.abandon();
    feed(&mut reader, [end.as_slice()]);
    assert_eq!(reader.last_id(), None, "the id of an event that nobody saw is no place to resume from");
}

#[test]
fn what_is_written_is_read_back() {
    for (id, data, kept, last) in [
        (None, "{}", "{}", None),
        (Some("7"), "a\nb\r\nc\rd", "a\nb\nc\nd", Some("7")),
        (Some("7\nevent: x"), "", "", None),
        (Some("7\0"), " a", " a", None),
        (None, "\u{2028}", "\u{2028}", None),
    ] {
        let (reader, events) = read(&event(id, data));
        assert_eq!(events, [(String::new(), Some(kept.to_owned()))]);
        assert_eq!(reader.last_id(), last.map(str::as_bytes));
        assert!(reader.is_between_events());
    }
    let (reader, events) = read(COMMENT);
    assert!(events.is_empty() && reader.is_between_events());
}

#[test]
fn events_of_other_names_are_no_messages() {
    let is_message = |text: &str| {
        let mut reader = Reader::new(0);
        reader.read(&mut text.as_bytes()).is_some_and(|event| event.is_message())
    };
    assert!(is_message("data\n\n") && is_message("event: message\ndata\n\n") && is_message("event\ndata\n\n"));
    assert!(!is_message("event: endpoint\ndata\n\n") && !is_message("event: messages\n\n"));
}

/// The algorithm of WHATWG, over a whole stream, as it is written there: the events and the last id.
fn model(stream: &[u8]) -> (Vec<Seen>, Option<Vec<u8>>) {
    let stream = stream.strip_prefix(BOM).unwrap_or(stream);
    let (mut events, mut last_id): (Vec<Seen>, Vec<u8>) = (Vec::new(), Vec::new());
    let (mut name, mut data, mut id, mut fields) = (Vec::new(), None::<Vec<u8>>, None, false);
    for line in lines(stream) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if line.is_empty() {
            if std::mem::take(&mut fields) {
                events.push((text(&std::mem::take(&mut name)), data.take().map(|data| text(&data))));
                last_id = id.take().unwrap_or(last_id);
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        fields |= colon > 0;
        match &line[..colon] {
            b"event" => name = value.to_vec(),
            b"data" => {
                let before = data.map(|data| [&data, b"\n".as_slice()].concat()).unwrap_or_default();
                data = Some([&before, value].concat());
            }
            b"id" if !value.contains(&0) => id = Some(value.to_vec()),
            _ => {}
        }
    }
    (events, Some(last_id).filter(|id| !id.is_empty()))
}

/// The complete lines.
fn lines(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(end) = rest.iter().position(|byte| is_line_end(*byte)) {
        lines.push(&rest[..end]);
        let length = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + length..];
    }
    lines
}

fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let words = vec![
        "data",
        "event",
        "id",
        "retry",
        "other",
        ":",
        ": ",
        " ",
        "x",
        "7",
        "\0",
        "\u{feff}",
        "\r",
        "\n",
        "\r\n",
        "\n\n",
        "\r\n\r\n",
        "data: a\n\n",
        "id: 1\ndata: b\r\n\r\n",
        "é",
        ": c\n",
    ];
    let part = prop_oneof![
        9 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_stream_is_read_as_the_standard_says(stream in any_stream()) {
        let (reader, events) = read(&stream);
        let (expected, id) = model(&stream);
        prop_assert_eq!(events, expected);
        prop_assert_eq!(reader.last_id(), id.as_deref());
    }

    /// The same events, the same places between them and the same end, however the network cuts the stream.
    #[test]
    fn pieces_make_no_difference(stream in any_stream(), size in 1_usize..9) {
        let (mut cut, mut by_byte) = (Reader::new(1_000), Reader::new(1_000));
        let (mut all, mut expected) = (Vec::new(), Vec::new());
        for piece in stream.chunks(size) {
            all.extend(feed(&mut cut, [piece]));
            expected.extend(feed(&mut by_byte, piece.chunks(1)));
            prop_assert_eq!(cut.is_between_events(), by_byte.is_between_events());
            prop_assert_eq!(cut.abandon(), by_byte.abandon());
        }
        prop_assert_eq!(&all, &expected);
        prop_assert_eq!(&all, &read(&stream).1);
        prop_assert_eq!((cut.last_id(), cut.retry()), (by_byte.last_id(), by_byte.retry()));
    }

    /// A comment wherever the reader permits one changes nothing for the client.
    #[test]
    fn comments_between_events_are_not_seen(stream in any_stream()) {
        let mut reader = Reader::new(0);
        let mut with_comments = Vec::new();
        for byte in stream.chunks(1) {
            // A mark would no longer be at the start: `WithoutMark` is for that.
            if reader.is_between_events() && !with_comments.is_empty() {
                with_comments.extend_from_slice(COMMENT);
            }
            feed(&mut reader, [byte]);
            with_comments.extend_from_slice(byte);
        }
        let ((commented, events), (plain, expected)) = (read(&with_comments), read(&stream));
        prop_assert_eq!(events, expected);
        prop_assert_eq!((commented.last_id(), commented.retry()), (plain.last_id(), plain.retry()));
    }

    /// Whatever a broken stream ended with, our last event is read, and nothing of the incomplete one.
    #[test]
    fn a_stream_that_breaks_anywhere_can_end_with_our_event(stream in any_stream()) {
        let (mut reader, _) = read(&stream);
        let id = reader.last_id().map(<[u8]>::to_vec);
        let end = reader.abandon();
        let after = feed(&mut reader, [end.as_slice(), event(None, "last").as_slice()]);
        let messages: Vec<Seen> = after.into_iter().filter(|(name, _)| matches!(name.as_str(), "" | "message")).collect();
        prop_assert_eq!(messages, vec![(String::new(), Some("last".to_owned()))]);
        prop_assert_eq!(reader.last_id().map(<[u8]>::to_vec), id);
    }

    #[test]
    fn a_mark_is_taken_off_however_it_is_cut(stream in any_stream(), size in 1_usize..5, marked in any::<bool>()) {
        let stream = if marked { [BOM, &stream].concat() } else { stream };
        let mut mark = WithoutMark::default();
        let mut passed = Vec::new();
        for piece in stream.chunks(size) {
            let (held, piece) = mark.pass(piece);
            passed.extend_from_slice(held);
            passed.extend_from_slice(piece);
        }
        passed.extend_from_slice(mark.rest());
        prop_assert_eq!(passed.as_slice(), stream.strip_prefix(BOM).unwrap_or(&stream));
    }
}
