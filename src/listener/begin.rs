//! The beginning of a connection, read before the connection is served: what it is about decides where that happens. The bytes
//! are the first that the connection's reader then gets.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::limits::{End, Limits, Stream, end};
use super::seats::Seat;

/// Most heads are shorter.
const USUAL: usize = 1_024;

/// How long a new connection still has to speak when everything stops. Its request is usually there already and was not read yet:
/// no call is lost when a daemon is replaced by another on the same socket.
const LAST_WORD: Duration = Duration::from_millis(100);

/// Reads until `decides` says that this is enough, or until no more comes. `None` if the connection has to end before: it is
/// quiet, it makes room for another, or everything stops.
pub async fn beginning(
    limits: Limits,
    stop: &CancellationToken,
    stream: &mut dyn Stream,
    seat: &Seat,
    decides: fn(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    let mut first = Vec::with_capacity(USUAL);
    let reads = async {
        while first.len() < USUAL && stream.read_buf(&mut first).await? > 0 {
            if decides(&first) {
                break;
            }
        }
        Ok::<_, io::Error>(())
    };
    let mut reads = std::pin::pin!(reads);
    tokio::select! {
        biased;
        read = reads.as_mut() => read.ok()?,
        end = end(limits, stop.clone(), seat) => match end {
            End::AfterRequest => tokio::time::timeout(LAST_WORD, reads).await.ok()?.ok()?,
            End::AtOnce(_) => return None,
        },
    }
    (!first.is_empty()).then_some(first)
}

/// A connection whose beginning was read.
pub struct Begun<'a> {
    first: Vec<u8>,
    /// How much of it was given to the reader.
    given: usize,
    stream: Box<dyn Stream + 'a>,
}

impl<'a> Begun<'a> {
    /// `first` was read from the stream.
    pub fn new(first: Vec<u8>, stream: Box<dyn Stream + 'a>) -> Self {
        Self { first, given: 0, stream }
    }
}

impl AsyncRead for Begun<'_> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let rest = &self.first[self.given..];
        let length = rest.len().min(into.remaining());
        into.put_slice(&rest[..length]);
        self.given += length;
        if self.given == self.first.len() {
            self.first = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun<'_> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::super::seats::{Owner, Places, Seats};
    use super::*;

    fn seat() -> Seat {
        Seats::new(Places { all: 4, user: 4, strangers: 4 }).take(Owner::User(1)).expect("it is free")
    }

    fn has_line(first: &[u8]) -> bool {
        first.contains(&b'\n')
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_first_is_read_again_in_small_and_large_pieces() {
        let (mut ours, mut theirs) = duplex(1_024);
        theirs.write_all(b"GET / HT").await.expect("there is room");
        let more = async {
            tokio::task::yield_now().await;
            theirs.write_all(b"TP/1.1\r\nhost").await.expect("there is room");
        };
        let (seat, stop) = (seat(), CancellationToken::new());
        let read = beginning(Limits::API, &stop, &mut ours, &seat, has_line);
        let (first, ()) = tokio::join!(read, more);
        let first = first.expect("it came");
        assert_eq!(first, b"GET / HTTP/1.1\r\nhost");
        theirs.write_all(b": a").await.expect("there is room");
        drop(theirs);
        let mut begun = Begun::new(first, Box::new(ours));
        let mut start = [0; 3];
        begun.read_exact(&mut start).await.expect("it is there");
        let mut rest = Vec::new();
        begun.read_to_end(&mut rest).await.expect("it ends");
        assert_eq!((&start, rest.as_slice()), (b"GET", &b" / HTTP/1.1\r\nhost: a"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_was_on_its_way_when_everything_stopped_is_read() {
        let (mut ours, mut theirs) = duplex(1_024);
        let (seat, stop) = (seat(), CancellationToken::new());
        stop.cancel();
        let says = async {
            tokio::task::yield_now().await;
            theirs.write_all(b"GET / HTTP/1.1\r\n").await.expect("there is room");
        };
        let read = beginning(Limits::API, &stop, &mut ours, &seat, has_line);
        let (first, ()) = tokio::join!(read, says);
        assert_eq!(first.as_deref(), Some(&b"GET / HTTP/1.1\r\n"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_or_never_enough_ends() {
        let (seat, begun) = (seat(), Instant::now());
        let (mut ours, _theirs) = duplex(1_024);
        assert!(beginning(Limits::API, &CancellationToken::new(), &mut ours, &seat, has_line).await.is_none());
        assert_eq!(begun.elapsed(), Limits::API.quiet);
        let stop = CancellationToken::new();
        stop.cancel();
        let stopped = Instant::now();
        assert!(beginning(Limits::API, &stop, &mut ours, &seat, has_line).await.is_none(), "everything stops");
        assert_eq!(stopped.elapsed(), LAST_WORD);
        let (mut ours, mut theirs) = duplex(4_096);
        theirs.write_all(&[b'x'; 4_000]).await.expect("there is room");
        let first = beginning(Limits::API, &CancellationToken::new(), &mut ours, &seat, has_line).await;
        assert!(first.is_some_and(|first| first.len() <= 2 * USUAL), "whoever serves it refuses it");
        drop(theirs);
    }
}
