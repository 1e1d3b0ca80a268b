//! Writes one request (RFC 9112 sections 3, 6 and 7): its head, then its body as it comes. Touches no socket but the stream that it
//! is given.

use std::io::{self, IoSlice};
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::Method;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use tokio::io::AsyncWrite;
use url::Position;
use zeroize::Zeroize;

use super::head::closes;
use super::{RequestHead, Upload};

/// A piece up to this size is copied behind the head, or behind the piece before it, so that they leave together. The most that
/// is collected so, too: what is larger waits until it was written.
const TOGETHER: usize = 8 * 1024;
/// More bytes than the size of a chunk, the two line ends of a chunk, and the last chunk have together.
const FRAMED: usize = 32;

/// A request on its way.
pub(in crate::outbound) struct Request {
    /// What is written next: the head, chunk sizes, small pieces.
    text: Text,
    /// The head, which has secrets, is in the text.
    has_head: bool,
    /// So much of it was written.
    written: usize,
    /// A large piece of the body, which comes behind the text.
    piece: Bytes,
    /// What comes behind the piece.
    after: &'static [u8],
    /// What is still to come of the body. `None` behind its end.
    body: Option<Upload>,
    length: Length,
    /// Was any byte of it written?
    pub(super) is_begun: bool,
    pub(super) is_head: bool,
    /// Does it allow that its connection is used again?
    pub(super) keeps: bool,
}

/// A text that is cleared from memory at its end. `Zeroizing<Vec<u8>>` clears byte by byte, which took a twentieth of a call.
#[derive(Default)]
struct Text(Vec<u8>);

impl Deref for Text {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Text {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Text {
    /// Clears all of it, and what was in its memory before.
    fn wipe(&mut self) {
        self.0.resize(self.0.capacity(), 0);
        self.0.as_mut_slice().zeroize();
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// How the body is framed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    /// So many bytes are still to come.
    Left(u64),
    Chunked,
}

/// Why a request cannot be written to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The server takes no more of it.
    ByServer(io::Error),
    /// Its body broke, or has another length than it said.
    ByBody(io::Error),
}

impl Request {
    pub(super) fn new(head: &RequestHead<'_>, body: Upload) -> Self {
        let length = body.size_hint().exact().map_or(Length::Chunked, Length::Left);
        Self { body: Some(body), ..Self::with_head(head, length) }
    }

    /// One whose body is there. It is written from where it is: no copy of it is made.
    pub(in crate::outbound) fn whole(head: &RequestHead<'_>, body: Bytes) -> Self {
        let length = Length::Left(body.len() as u64);
        Self { piece: body, ..Self::with_head(head, length) }
    }

    fn with_head(head: &RequestHead<'_>, length: Length) -> Self {
        let (text, keeps) = head_text(head, length);
        let (piece, after, body) = (Bytes::new(), &b""[..], None);
        let is_head = *head.method == Method::HEAD;
        let (has_head, is_begun) = (true, false);
        Self { text, has_head, written: 0, piece, after, body, length, is_begun, is_head, keeps }
    }

    /// Writes as much as body and stream allow now. Ready when everything was written.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            let waits = self.collect(context).map_err(Stopped::ByBody)?;
            ready!(self.poll_collected(stream, context)).map_err(Stopped::ByServer)?;
            if waits || self.body.is_none() {
                // TLS may still hold some of it.
                ready!(Pin::new(&mut *stream).poll_flush(context)).map_err(Stopped::ByServer)?;
                return if waits { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
        }
    }

    /// Collects what the body has, as far as it may leave together. True if the body has no more for now.
    fn collect(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        while let Some(body) = &mut self.body
            && self.piece.is_empty()
            && self.after.is_empty()
            && self.text.len() < TOGETHER
        {
            match body.as_mut().poll_frame(context) {
                // Trailers are dropped.
                Poll::Ready(Some(frame)) => self.add(frame?.into_data().unwrap_or_default())?,
                Poll::Ready(None) => self.end()?,
                // All announced bytes were given; do not wait for the end of the body.
                Poll::Pending if self.length == Length::Left(0) => self.body = None,
                Poll::Pending => return Ok(true),
            }
        }
        Ok(false)
    }

    fn add(&mut self, data: Bytes) -> io::Result<()> {
        let (size, is_small) = (data.len() as u64, data.len() <= TOGETHER);
        self.make_room(FRAMED + if is_small { data.len() } else { 0 });
        match &mut self.length {
            _ if data.is_empty() => return Ok(()),
            Length::Left(left) => *left = left.checked_sub(size).ok_or_else(|| odd("more"))?,
            Length::Chunked => {
                number(&mut self.text, size, 16);
                self.text.extend_from_slice(b"\r\n");
                self.after = b"\r\n";
            }
        }
        if !is_small {
            self.piece = data;
            return Ok(());
        }
        self.text.extend_from_slice(&data);
        self.text.extend_from_slice(std::mem::take(&mut self.after));
        Ok(())
    }

    /// Makes room in the text. A text that grows by itself leaves a copy behind that is not cleared.
    fn make_room(&mut self, more: usize) {
        let room = self.text.len() + more;
        if self.text.capacity() < room {
            let mut text = Text(Vec::with_capacity(2 * room));
            text.extend_from_slice(&self.text);
            self.text = text;
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.body = None;
        match self.length {
            Length::Left(0) => {}
            Length::Left(_) => return Err(odd("fewer")),
            Length::Chunked => self.text.extend_from_slice(b"0\r\n\r\n"),
        }
        Ok(())
    }

    /// Writes what was collected.
    fn poll_collected(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let text = &self.text[self.written..];
            let stream = Pin::new(&mut *stream);
            let outcome = match (text.is_empty(), self.piece.is_empty() && self.after.is_empty()) {
                (true, true) => break,
                (false, true) => stream.poll_write(context, text),
                (_, false) => {
                    let parts = [text, &self.piece, self.after].map(IoSlice::new);
                    stream.poll_write_vectored(context, &parts)
                }
            };
            let mut many = ready!(outcome)?;
            if many == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_begun = true;
            let of_text = many.min(self.text.len() - self.written);
            self.written += of_text;
            many -= of_text;
            let of_piece = many.min(self.piece.len());
            self.piece.advance(of_piece);
            self.after = &self.after[many - of_piece..];
        }
        if std::mem::take(&mut self.has_head) {
            self.text = Text::default();
        }
        self.text.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl RequestHead<'_> {
    /// Visits the fields that are sent. Only one place says how a request is framed.
    fn each_field(&self, visit: &mut dyn FnMut(&HeaderName, &[u8])) {
        let is_ours = |name: &HeaderName| matches!(*name, HOST | CONTENT_LENGTH | TRANSFER_ENCODING);
        let is_in = |name: &HeaderName, more: &[(HeaderName, HeaderValue)]| more.iter().any(|(other, _)| other == name);
        for (name, value) in self.headers {
            if !is_ours(name) && !is_in(name, self.more) {
                visit(name, value.as_bytes());
            }
        }
        for (at, (name, value)) in self.more.iter().enumerate() {
            if !is_ours(name) && !is_in(name, &self.more[at + 1..]) {
                visit(name, value.as_bytes());
            }
        }
    }
}

/// The head: `Host` first (RFC 9110 section 7.2), then the fields as they are, then the length of the body. A request without a
/// body says so where its method leads to expect one (section 8.6). False if it asks that the connection is closed.
fn head_text(head: &RequestHead<'_>, length: Length) -> (Text, bool) {
    let RequestHead { method, url, .. } = *head;
    let expects_body = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    let (target, host) =
        (&url[Position::BeforePath..Position::AfterQuery], &url[Position::BeforeHost..Position::AfterPort]);
    let mut fields = 0;
    head.each_field(&mut |name, value| fields += name.as_str().len() + value.len() + ": \r\n".len());
    let body = if let Length::Left(left) = length { usize::try_from(left).unwrap_or(usize::MAX) } else { 0 };
    let room = " HTTP/1.1\r\nhost: content-length: \r\n\r\n".len() + 64 + if body <= TOGETHER { body } else { 0 };
    // At its final size from the start, with a small body of known length.
    let room = method.as_str().len() + target.len() + host.len() + fields + room;
    let mut text = Text(Vec::with_capacity(room));
    for part in [method.as_str(), " ", target, " HTTP/1.1\r\nhost: ", host, "\r\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    let mut keeps = true;
    head.each_field(&mut |name, value| {
        keeps &= *name != CONNECTION || !closes(value);
        for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
            text.extend_from_slice(part);
        }
    });
    match length {
        Length::Left(0) if !expects_body => {}
        Length::Left(length) => {
            text.extend_from_slice(b"content-length: ");
            number(&mut text, length, 10);
            text.extend_from_slice(b"\r\n");
        }
        Length::Chunked => text.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    text.extend_from_slice(b"\r\n");
    (text, keeps)
}

/// Appends a number with this base. Without the formatting of the standard library, which takes longer than the rest of a head.
fn number(text: &mut Vec<u8>, mut number: u64, base: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b"0123456789abcdef"[(number % base) as usize];
        number /= base;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[first..]);
}

fn odd(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it has {how} bytes than it says"))
}

#[cfg(test)]
mod tests;
