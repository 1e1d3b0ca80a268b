//! What a fuzz target calls: answers as a hostile server may send them. Compiled for tests and fuzzing only.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};

use super::answer::{Answer, Asked};
use super::fault::Fault;

/// What an answer is, once all of it has arrived.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    head: Option<(StatusCode, HeaderMap)>,
    body: Vec<u8>,
    is_at_end: bool,
    is_reusable: bool,
    is_malformed: bool,
}

impl Outcome {
    fn read(&mut self, answer: &mut Answer) -> Result<(), Fault> {
        if self.head.is_none() {
            self.head = answer.head()?.map(|head| (head.status(), head.headers().clone()));
        }
        while self.head.is_some()
            && let Some(piece) = answer.piece()?
        {
            assert!(!piece.is_empty(), "a piece has something in it");
            self.body.extend_from_slice(&piece);
        }
        Ok(())
    }
}

/// Gives the bytes to the parser in pieces of these sizes, in turn. The connection ends behind them.
fn parsed(bytes: &[u8], is_head: bool, sizes: &[usize]) -> Outcome {
    let (mut answer, mut outcome) = (Answer::new(Asked { is_head, keeps: true, is_relayed: true }), Outcome::default());
    let (mut rest, mut sizes) = (Bytes::copy_from_slice(bytes), sizes.iter().cycle());
    while !rest.is_empty() && !outcome.is_malformed {
        let size = sizes.next().map_or(1, |size| (*size).clamp(1, rest.len()));
        answer.arrives(&rest.split_to(size));
        outcome.is_malformed = outcome.read(&mut answer).is_err();
    }
    outcome.is_reusable = !outcome.is_malformed && answer.is_reusable();
    outcome.is_malformed |= outcome.head.is_none() || answer.close().is_err();
    outcome.is_at_end = !outcome.is_malformed && answer.is_at_end();
    outcome
}

/// Reads the bytes behind the first one as an answer; `H` as the first means that HEAD was asked. Panics if the outcome depends on
/// how they arrive, or if an answer passes that can be read in two ways.
pub(crate) fn read_answer(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let is_head = *first == b'H';
    let whole = parsed(bytes, is_head, &[usize::MAX]);
    for sizes in [&[1][..], &[2, 3], &[7, 1, 19], &[64]] {
        assert_eq!(parsed(bytes, is_head, sizes), whole, "in pieces of {sizes:?}");
    }
    let Some((status, fields)) = &whole.head else { return };
    assert!(!status.is_informational(), "an interim answer is none");
    let has_none = is_head || matches!(*status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let changes = |coding: &&HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"identity");
    let codings: Vec<_> = fields.get_all(TRANSFER_ENCODING).iter().filter(changes).collect();
    // `1`, `01` and `1, 1` are one length.
    let values = fields.get_all(CONTENT_LENGTH).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let number =
        |value: &[u8]| std::str::from_utf8(value.trim_ascii()).ok().and_then(|digits| digits.parse::<u64>().ok());
    let lengths: Vec<_> = values.map(number).collect();
    if has_none {
        assert!(whole.body.is_empty(), "this answer has no body");
        assert!(!whole.is_reusable || is_head || codings.is_empty(), "a body may come all the same");
    } else if let Some(length) = lengths.first() {
        assert!(codings.is_empty() && lengths.iter().all(|one| one == length), "the length of a body is said once");
        let length = length.expect("a number");
        assert!(whole.body.len() as u64 <= length, "what is behind a body is not of it");
        assert_eq!(whole.is_at_end, whole.body.len() as u64 == length);
    } else {
        assert!(codings.len() <= 1 && codings.iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")));
        assert!(!whole.is_reusable || !codings.is_empty(), "only its connection could end this body");
    }
}
