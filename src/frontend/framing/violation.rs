//! The ways in which a request can be malformed.

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// No method, or something else than one space after it (section 3).
    RequestLine,
    /// The target is no path with an optional query (section 3.2.1). Only proxies are sent other forms.
    Target,
    /// Neither HTTP/1.1 nor HTTP/1.0 (section 2.3).
    Version,
    /// A line ends with CR or LF alone (section 2.2).
    LineEnd,
    /// A field has no name, or a blank before its colon (section 5.1).
    FieldName,
    /// A field goes on in the next line (section 5.2).
    Folded,
    /// A control character in a field (RFC 9110 section 5.5).
    FieldValue,
    /// No `Host`, or two (section 3.2).
    Host,
    /// `Content-Length` is no plain number, or is there twice (section 6.3).
    Length,
    /// `Transfer-Encoding` is not `chunked` alone, is there twice, or in HTTP/1.0 (section 6.1).
    Coding,
    /// `Content-Length` beside `Transfer-Encoding` (section 6.3).
    LengthAndCoding,
    /// A chunk has no size, too large a one, or another length than its size (section 7.1).
    Chunk,
    /// The head is larger than this listener takes.
    TooLarge,
}

impl Violation {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::RequestLine => "the request line is malformed (RFC 9112 section 3)",
            Self::Target => "the request target must be a path that begins with a slash (RFC 9112 section 3.2.1)",
            Self::Version => "the version must be HTTP/1.1 or HTTP/1.0",
            Self::LineEnd => "each line must end with CR and LF (RFC 9112 section 2.2)",
            Self::FieldName => "the name of a field is malformed (RFC 9112 section 5.1)",
            Self::Folded => "a field must not go on in the next line (RFC 9112 section 5.2)",
            Self::FieldValue => "a field has a control character in it (RFC 9110 section 5.5)",
            Self::Host => "there must be exactly one Host (RFC 9112 section 3.2)",
            Self::Length => "Content-Length must be one plain number (RFC 9112 section 6.3)",
            Self::Coding => "Transfer-Encoding must be `chunked` alone, in HTTP/1.1 (RFC 9112 section 6.1)",
            Self::LengthAndCoding => "Content-Length and Transfer-Encoding exclude each other (RFC 9112 section 6.3)",
            Self::Chunk => "a chunk of the body is malformed (RFC 9112 section 7.1)",
            Self::TooLarge => "the head of the request is too large",
        }
    }
}
