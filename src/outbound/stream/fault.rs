//! What can be wrong with an answer, and the error that it leads to. Values only.

use std::io;

use super::super::Error;
use super::super::failure::innermost;

/// Why an answer is not one. Each is an error: what a malformed answer may mean is never guessed (RFC 9112 section 11.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The connection ends in the middle of it, or before it.
    #[error("the connection ends before the answer does")]
    Cut,
    /// There are bytes before the request was sent.
    #[error("it speaks before it is asked")]
    Unasked,
    /// Its head is no head of HTTP/1.0 or 1.1.
    #[error("its answer is not HTTP/1.1")]
    NotHttp,
    /// Its head has too many bytes or fields.
    #[error("its header is too large")]
    TooLarge,
    /// Too many interim answers come before it.
    #[error("it sends too many interim answers")]
    Interim,
    /// Status 101, which nobody asked for.
    #[error("it switches to another protocol, unasked")]
    Switched,
    /// `Content-Length` and `Transfer-Encoding` do not say one length.
    #[error("its header does not say how long its answer is")]
    Length,
    /// Something is wrong around the chunks of its body.
    #[error("the chunks of its answer are malformed")]
    Chunk,
    /// More bytes around its body than any server needs.
    #[error("its answer has far more framing than content")]
    Framing,
}

/// What the request was to carry did not come to its end. The server is not to blame.
#[derive(Debug, thiserror::Error)]
#[error("the request's own body broke off: {0}")]
pub(super) struct OwnBody(pub(super) io::Error);

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}

/// Why there is no answer: the connection broke, the body of the request did, or the answer is none.
pub(in crate::outbound) fn reason(host: &str, error: &io::Error) -> Error {
    let inner = innermost(error);
    let (of, what) = (|| host.to_owned(), error.to_string());
    match inner.downcast_ref() {
        Some(Fault::TooLarge) => Error::HeadTooLarge { host: of() },
        Some(Fault::Interim) => Error::Interim { host: of() },
        Some(Fault::Framing) => Error::Framing { host: of() },
        Some(Fault::NotHttp | Fault::Switched | Fault::Length | Fault::Chunk) => Error::Malformed { host: of(), what },
        // A server with too many clients may say so, and hang up, before it reads what they want. So may one that speaks another
        // protocol and begins, which is then tried again in vain.
        Some(Fault::Cut | Fault::Unasked) => Error::Broken { host: of(), what },
        None if inner.is::<OwnBody>() => Error::OwnBody { what: inner.to_string() },
        None => Error::typed(host, error).unwrap_or_else(|| Error::Broken { host: of(), what }),
    }
}
