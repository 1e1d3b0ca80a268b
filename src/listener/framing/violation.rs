//! The errors of the parser.

/// Why a request is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The method is missing, or is not followed by exactly one space (section 3).
    RequestLine,
    /// The target is not a path with an optional query (section 3.2.1). Other forms are only for proxies.
    Target,
    /// The version is neither HTTP/1.1 nor HTTP/1.0 (section 2.3).
    Version,
    /// A line ends with only CR or only LF (section 2.2).
    LineEnd,
    /// A field has no name, or a blank before its colon (section 5.1).
    FieldName,
    /// A field continues on the next line (section 5.2).
    Folded,
    /// A field contains a control character (RFC 9110 section 5.5).
    FieldValue,
    /// `Host` is missing or occurs twice (section 3.2).
    Host,
    /// `Content-Length` is not a plain number, or occurs twice (section 6.3).
    Length,
    /// `Transfer-Encoding` is not exactly `chunked`, occurs twice, or is used in HTTP/1.0 (section 6.1).
    Coding,
    /// `Content-Length` and `Transfer-Encoding` are both present (section 6.3).
    LengthAndCoding,
    /// A chunk has no size, a size that is too large, or a length other than its size (section 7.1).
    Chunk,
    /// The head is larger than the listener allows.
    TooLarge,
}

impl Violation {
    /// The reason, for the answer and the log.
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
