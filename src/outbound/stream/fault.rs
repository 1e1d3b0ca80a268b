//! What can be wrong with an answer. Values only.

/// Why an answer is not one. Each is an error: what a malformed answer may mean is never guessed (RFC 9112 section 11.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::outbound) enum Fault {
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
}
