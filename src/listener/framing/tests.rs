//! Tests with the table of requests, each as a whole and split at every position.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Table {
    refused: Vec<Refused>,
    accepted: Vec<Accepted>,
}

#[derive(Deserialize)]
struct Refused {
    name: String,
    bytes: String,
    violation: String,
    /// The head is valid: the violation is in the body.
    #[serde(default)]
    begun: bool,
}

#[derive(Deserialize)]
struct Accepted {
    name: String,
    bytes: String,
    requests: u64,
}

const CAP: usize = 1_024;
const GOOD: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

fn table() -> Table {
    toml::from_str(include_str!("../../../tests/all/framing.toml")).expect("a table of requests")
}

/// Parses the pieces on a new connection. Returns how many bytes are passed on, the number of requests, and the
/// violation.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (usize, u64, Option<Violation>) {
    let mut framing = Framing::new(CAP);
    let (mut before, mut passed) = (0, 0);
    for piece in pieces {
        let taken = framing.take_all(piece);
        let more = taken.unwrap_or_else(|stop| stop.passed);
        passed = if more > 0 { before + more } else { passed };
        if let Err(stop) = taken {
            return (passed, framing.requests(), Some(stop.violation));
        }
        before += piece.len();
    }
    (passed, framing.requests(), None)
}

/// Parses the bytes split at every position and one by one, and checks that the result is always the same.
fn read_split(name: &str, bytes: &[u8]) -> (usize, u64, Option<Violation>) {
    let whole = read([bytes]);
    for place in 0..=bytes.len() {
        let (one, other) = bytes.split_at(place);
        assert_eq!(read([one, other]), whole, "{name}: split at {place}");
    }
    for size in [1, 2, 3, 7] {
        assert_eq!(read(bytes.chunks(size)), whole, "{name}: in pieces of {size}");
    }
    whole
}

#[test]
fn malformed_requests_are_refused_wherever_they_are_split_and_nothing_after_them_is_read() {
    for row in table().refused {
        let bytes = [row.bytes.as_bytes(), GOOD].concat();
        let (passed, requests, violation) = read_split(&row.name, &bytes);
        assert_eq!(violation.map(|violation| format!("{violation:?}")), Some(row.violation), "{}", row.name);
        assert_eq!(requests, u64::from(row.begun), "{}", row.name);
        let is_held_back = bytes[..passed].iter().all(|byte| b"\r\n".contains(byte));
        assert_eq!(is_held_back, !row.begun, "{}: no byte of a malformed head is passed on", row.name);
        assert!(passed < row.bytes.len(), "{}", row.name);

        let behind = [GOOD, &bytes].concat();
        let (passed_behind, requests_behind, violation_behind) = read_split(&row.name, &behind);
        assert_eq!((requests_behind, violation_behind), (requests + 1, violation), "{}", row.name);
        assert_eq!(passed_behind, passed + GOOD.len(), "{}", row.name);
    }
}

#[test]
fn well_formed_requests_are_passed_on_whole_wherever_they_are_split() {
    for row in table().accepted {
        let read = read_split(&row.name, row.bytes.as_bytes());
        assert_eq!(read, (row.bytes.len(), row.requests, None), "{}", row.name);
    }
}

#[test]
fn a_head_that_is_not_whole_is_held_back() {
    for end in 0..GOOD.len() {
        assert_eq!(read([&GOOD[..end]]), (0, 0, None), "{end}");
        let second = [GOOD, &GOOD[..end]].concat();
        assert_eq!(read([&second[..]]), (GOOD.len(), 1, None), "{end}");
    }
}

#[test]
fn whatever_reaches_the_limit_has_the_same_verdict_in_all_pieces() {
    // The limit is before, in and after each part of these heads that is parsed at once.
    let repeated = |pad: &str| format!("GET / HTTP/1.1\r\nhost: a\r\nx: {pad}\r\nhost: b\r\n\r\n");
    let request_line = |pad: &str| format!("GET /{pad} HTTP/1.1\r\nhost: a\r\n\r\n");
    let method = |pad: &str| format!("{pad} /a HTTP/1.1\r\nhost: a\r\n\r\n");
    let forms: [&dyn Fn(&str) -> String; 3] = [&repeated, &request_line, &method];
    for (form, text) in forms.iter().enumerate() {
        let bare = text("").len();
        for size in CAP - 4..=CAP + bare {
            let (_, _, violation) =
                read_split(&format!("form {form}, {size} bytes"), text(&"x".repeat(size - bare)).as_bytes());
            let wanted = match form {
                // The second name ends within the limit; seven bytes follow it.
                0 if size <= CAP + 7 => Some(Violation::Host),
                1 | 2 if size <= CAP => None,
                _ => Some(Violation::TooLarge),
            };
            assert_eq!(violation, wanted, "form {form}, {size} bytes");
        }
    }
}

#[test]
fn a_head_has_a_limit_and_a_body_has_none() {
    let head = |size: usize| {
        let begin = "GET / HTTP/1.1\r\nhost: localhost\r\nx: ";
        format!("{begin}{}\r\n\r\n", "y".repeat(size - begin.len() - 4)).into_bytes()
    };
    assert_eq!(read([&head(CAP)[..]]), (CAP, 1, None));
    assert_eq!(read([&head(CAP + 1)[..]]), (0, 0, Some(Violation::TooLarge)));
    assert_eq!(read(head(CAP + 1).chunks(5)), (0, 0, Some(Violation::TooLarge)));
    let kept = [head(CAP), head(CAP)].concat();
    assert_eq!(read([&kept[..]]), (2 * CAP, 2, None), "each has the whole limit");
    let body = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\n{}", "z".repeat(9_000));
    assert_eq!(read([body.as_bytes()]), (body.len(), 1, None));
}
