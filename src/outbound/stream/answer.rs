//! One answer, put together from the bytes that arrive: its head behind the interim ones, then its body. Pure: no I/O.

use bytes::{Bytes, BytesMut};
use hyper::{Response, StatusCode};

use super::super::{HEAD_CAP, INTERIM};
use super::fault::Fault;
use super::framing::Framing;
use super::head;

/// The answer to one request, as far as it has come.
#[derive(Debug)]
pub(super) struct Answer {
    /// What arrived and was not taken yet. Each piece has its own memory, of its own size: an answer that waits holds none.
    arrived: Bytes,
    /// The length already searched without finding the end of a head.
    searched: usize,
    /// The interim answers so far.
    interim: usize,
    /// What is left of the body. Counts after the head.
    framing: Framing,
    asked: Asked,
}

/// What an answer depends on beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// The request was HEAD.
    pub(super) is_head: bool,
    /// May the connection be used again afterwards, as far as both heads say?
    pub(super) keeps: bool,
    /// Somebody else reads it too. Then its head must not contradict itself: they could find another end of the body than we do.
    pub(super) is_relayed: bool,
}

impl Answer {
    /// Before the first byte.
    pub(super) fn new(asked: Asked) -> Self {
        Self { arrived: Bytes::new(), searched: 0, interim: 0, framing: Framing::Close, asked }
    }

    /// More bytes have arrived.
    pub(super) fn arrives(&mut self, more: &[u8]) {
        if self.arrived.is_empty() {
            self.arrived = Bytes::copy_from_slice(more);
        } else {
            let mut all = BytesMut::from(std::mem::take(&mut self.arrived));
            all.extend_from_slice(more);
            self.arrived = all.freeze();
        }
    }

    /// Takes the head out of what arrived, and drops the interim ones before it (RFC 9110 section 15.2). `None` if it is not whole
    /// yet.
    pub(super) fn head(&mut self) -> Result<Option<Response<()>>, Fault> {
        while self.may_be_whole() {
            let Some(head) = head::take(&mut self.arrived)? else { break };
            self.searched = 0;
            self.release();
            match head.answer.status() {
                StatusCode::SWITCHING_PROTOCOLS => return Err(Fault::Switched),
                status if status.is_informational() && self.interim == INTERIM => return Err(Fault::Interim),
                status if status.is_informational() => self.interim += 1,
                _ => {
                    let Asked { is_head, is_relayed, .. } = self.asked;
                    let framing = head.framing(is_head);
                    self.asked.keeps &= framing.is_ok() && head.keeps(is_head);
                    self.framing =
                        if is_relayed { framing? } else { framing.unwrap_or_else(|_| head.likely_framing()) };
                    return Ok(Some(head.answer));
                }
            }
        }
        self.searched = self.arrived.len();
        Ok(None)
    }

    /// Gives its memory back if all of it was taken: an empty rest would keep it.
    fn release(&mut self) {
        if self.arrived.is_empty() {
            self.arrived = Bytes::new();
        }
    }

    /// Can there be a whole head, or one that is too large? A head that comes byte by byte is not parsed at each of them.
    fn may_be_whole(&self) -> bool {
        let bytes = &self.arrived[..];
        let ends = |at: usize| bytes[at] == b'\n' && (bytes[..at].ends_with(b"\n") || bytes[..at].ends_with(b"\n\r"));
        match self.searched {
            0 => !bytes.is_empty(),
            searched => bytes.len() >= HEAD_CAP || (searched..bytes.len()).any(ends),
        }
    }

    /// Takes the next piece of the body out of what arrived. `None` if more has to arrive, or at the end.
    pub(super) fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        let piece = self.framing.take(&mut self.arrived);
        self.release();
        piece
    }

    /// The connection has ended, which must be the end of the body.
    pub(super) fn close(&mut self) -> Result<(), Fault> {
        self.asked.keeps = false;
        self.framing.close()
    }

    /// Is the body at its end?
    pub(super) fn is_at_end(&self) -> bool {
        self.framing.is_at_end()
    }

    /// How much of the body is left, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.framing.left()
    }

    /// May the connection be used again? Not if there are bytes behind the answer: nobody asked for them.
    pub(super) fn is_reusable(&self) -> bool {
        self.asked.keeps && self.framing.is_at_end() && self.arrived.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked = Asked { is_head: false, keeps: true, is_relayed: true };

    fn arrived(bytes: &[u8], size: usize) -> (Answer, Result<Option<Response<()>>, Fault>) {
        let mut answer = Answer::new(ASKED);
        for piece in bytes.chunks(size) {
            answer.arrives(piece);
            match answer.head() {
                Ok(None) => {}
                outcome => return (answer, outcome),
            }
        }
        (answer, Ok(None))
    }

    #[test]
    fn no_byte_of_a_head_is_searched_twice() {
        let mut answer = Answer::new(ASKED);
        for byte in b"HTTP/1.1 200 OK\r\na: b\r\nc: d" {
            answer.arrives(&[*byte]);
            assert!(matches!(answer.head(), Ok(None)));
            assert_eq!(answer.searched, answer.arrived.len());
        }
    }

    #[test]
    fn interim_answers_are_dropped_up_to_eight_of_them() {
        let after = |count| format!("{}HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 103 x\r\nlink: y\r\n\r\n".repeat(count));
        for size in [1, 5, 100_000] {
            let (_, head) = arrived(after(8).as_bytes(), size);
            let head = head.expect("good").expect("whole");
            assert_eq!((head.status(), head.headers().len()), (StatusCode::OK, 0));
            assert_eq!(arrived(after(9).as_bytes(), size).1.map(drop), Err(Fault::Interim));
        }
        // What it says about its own body does not matter: it has none.
        let odd = "HTTP/1.1 100 x\r\ncontent-length: 5\r\ntransfer-encoding: x\r\nconnection: close\r\n\r\nHTTP/1.1 204 x\r\n\r\n";
        let (answer, head) = arrived(odd.as_bytes(), 3);
        assert!(answer.is_reusable() && head.expect("good").expect("whole").status() == 204);
        assert_eq!(arrived(b"HTTP/1.1 101 x\r\n\r\n", 4).1.map(drop), Err(Fault::Switched));
    }

    #[test]
    fn a_head_is_found_however_it_is_cut() {
        let whole = b"HTTP/1.1 200 OK\r\na: b\r\n\r\n";
        for head in [&whole[..], b"HTTP/1.1 200 OK\na: b\n\n", b"HTTP/1.1 200 OK\na: b\n\r\n"] {
            for size in 1..=head.len() {
                let (_, found) = arrived(head, size);
                assert_eq!(found.expect("good").expect("whole").headers()["a"], "b");
                assert!(matches!(arrived(&head[..head.len() - 1], size), (_, Ok(None))));
            }
        }
        for size in [1_000, 100_000] {
            let endless = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(HEAD_CAP));
            assert_eq!(arrived(endless.as_bytes(), size).1.map(drop), Err(Fault::TooLarge));
        }
    }

    #[test]
    fn an_answer_that_waits_holds_no_memory() {
        for (rest, body) in [
            ("\r\nfirst", "first"),
            ("\r\n", ""),
            ("content-length: 0\r\n\r\n", ""),
            ("content-length: 6\r\n\r\n", ""),
            ("content-length: 6\r\n\r\nfirst", "first"),
            ("content-length: 5\r\n\r\nfirst", "first"),
            ("transfer-encoding: chunked\r\n\r\n", ""),
            ("transfer-encoding: chunked\r\n\r\n5", ""),
            ("transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n", "first"),
            ("transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n", "first"),
        ] {
            let (mut answer, head) = arrived(format!("HTTP/1.1 200 OK\r\n{rest}").as_bytes(), 100);
            drop(head);
            let hold_none = |answer: &Answer| answer.arrived.is_empty() && !answer.arrived.is_unique();
            assert!(!rest.ends_with("\n\r\n") || !body.is_empty() || hold_none(&answer), "{rest:?}: behind the head");
            assert_eq!(answer.piece().expect("good").unwrap_or_default(), body);
            assert_eq!(answer.piece(), Ok(None));
            assert!(hold_none(&answer), "{rest:?}: what is unique has memory");
        }
    }

    #[test]
    fn bytes_behind_an_answer_spoil_its_connection() {
        for (bytes, is_reusable) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok\r\n", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", false),
            ("HTTP/1.1 200 OK\r\n\r\nok", false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nH", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
            // A body that must not be may come all the same.
            ("HTTP/1.1 204 x\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.1 204 x\r\ncontent-length: 2\r\n\r\n", false),
            ("HTTP/1.1 204 x\r\ncontent-length: x\r\n\r\n", false),
            ("HTTP/1.1 204 x\r\ntransfer-encoding: chunked\r\n\r\n", false),
            ("HTTP/1.1 304 x\r\ntransfer-encoding: chunked\r\n\r\n", false),
            ("HTTP/1.1 304 x\r\ncontent-length: 2\r\n\r\n", true),
        ] {
            let (mut answer, head) = arrived(bytes.as_bytes(), 100_000);
            assert!(matches!(head, Ok(Some(_))), "{bytes:?}");
            while answer.piece().expect("good").is_some() {}
            assert_eq!(answer.is_reusable(), is_reusable, "{bytes:?}");
        }
    }
}
