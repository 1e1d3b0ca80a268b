//! What the fuzz target of this package calls: the bytes of a connection, as a hostile caller may send them. Compiled for tests
//! and fuzzing only.

use super::framing::{Framing, Violation};

const HEAD_CAP: usize = 1_024;

/// What the parser made of a whole stream.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    passed: usize,
    requests: u64,
    violation: Option<Violation>,
}

/// Gives the stream to the parser in pieces of these sizes, in turn.
fn parsed(stream: &[u8], sizes: &[usize]) -> Outcome {
    let mut framing = Framing::new(HEAD_CAP);
    let (mut passed, mut held, mut rest) = (0, 0, stream);
    let mut violation = None;
    for size in sizes.iter().cycle() {
        let (piece, after) = rest.split_at((*size).clamp(1, rest.len().max(1)).min(rest.len()));
        let outcome = framing.take_all(piece);
        let now = outcome.unwrap_or_else(|stop| stop.passed);
        assert!(now <= piece.len(), "it cannot pass on more than it was given");
        if now > 0 {
            passed += held + now;
            held = piece.len() - now;
        } else {
            held += piece.len();
        }
        rest = after;
        if let Err(stop) = outcome {
            violation = Some(stop.violation);
            break;
        }
        if rest.is_empty() {
            break;
        }
    }
    Outcome { passed, requests: framing.requests(), violation }
}

/// Panics if the outcome depends on how the stream arrives, or if the first head that passes has two meanings.
pub fn read_framing(bytes: &[u8]) {
    let whole = parsed(bytes, &[usize::MAX]);
    for sizes in [&[1][..], &[2, 3], &[7, 1, 19], &[64]] {
        assert_eq!(parsed(bytes, sizes), whole, "in pieces of {sizes:?}");
    }
    if whole.requests == 0 {
        return;
    }
    let stream = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let end = stream.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head ends with an empty line");
    let head = std::str::from_utf8(&stream[..end]).map_or_else(|_| String::from_utf8_lossy(&stream[..end]), Into::into);
    let lines: Vec<&str> = head.split("\r\n").collect();
    assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])), "only CR LF ends a line: {lines:?}");
    let count = |name: &str| {
        let names = lines[1..].iter().filter_map(|line| line.split_once(':'));
        names.filter(|(found, _)| found.eq_ignore_ascii_case(name)).count()
    };
    let (lengths, codings) = (count("content-length"), count("transfer-encoding"));
    assert!(lengths + codings <= 1, "the length of a body is said once: {lines:?}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn every_kept_input_is_read_as_what_it_is() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/framing");
        let inputs: Vec<_> = std::fs::read_dir(corpus).expect("a folder for each target").collect();
        assert!(!inputs.is_empty());
        for input in inputs {
            super::read_framing(&std::fs::read(input.expect("a file").path()).expect("readable"));
        }
    }
}
